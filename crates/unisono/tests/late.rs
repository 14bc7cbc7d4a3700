//! A source that cannot be reached at the start: the rest runs, and the source joins as soon as it can.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use unisono::core::kind::{Environment, OptionSpec, Options, SourceKind};
use unisono::core::source::Source;
use unisono::core::{Capability, Error, ErrorKind, Result};
use unisono::engine::Runtime;
use unisono::engine::status::DeliveryState;
use unisono::{Handle, Registry, Unisono, config};
use unisono_source_memory::Memory;

/// Sources of this kind cannot be opened while this is false.
static REACHABLE: AtomicBool = AtomicBool::new(false);

struct Remote;

#[async_trait]
impl SourceKind for Remote {
    fn name(&self) -> &'static str {
        "remote"
    }

    fn summary(&self) -> &'static str {
        "A memory that cannot always be reached."
    }

    fn options(&self) -> &'static [OptionSpec] {
        &[]
    }

    fn capability(&self) -> Capability {
        Memory.capability()
    }

    async fn open(
        &self,
        name: &str,
        _: &Options,
        environment: &Environment,
    ) -> Result<Arc<dyn Source>> {
        if REACHABLE.load(Ordering::Acquire) {
            return Memory.open(name, &Options::default(), environment).await;
        }
        Err(Error::new(ErrorKind::Unavailable, "nobody is there").at(name).hint("start the server"))
    }
}

const CONFIGURATION: &str = r#"
[sources.main]
kind = "memory"
[sources.far]
kind = "remote"
[sources.near]
kind = "remote"
[entities.item]
key = "id"
truth = "main"
fields = { id = "integer", name = "string" }
cache = { source = "near" }
followers = [{ source = "far" }]
"#;

async fn open(text: &str) -> Result<Unisono> {
    let registry = Registry::builtin().with(&Remote);
    let configuration = config::parse(text, "test.toml", &registry, &config::Process).unwrap();
    Unisono::open_with(configuration, &registry, Runtime::system()).await
}

#[tokio::test]
async fn the_rest_runs_and_the_source_joins_when_it_can() {
    let required = CONFIGURATION.replace("[sources.near]", "required = true\n[sources.near]");
    let error = open(&required).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("nobody is there"), "{error}");

    let unisono = open(CONFIGURATION).await.unwrap();
    let notes = unisono.notes().join("\n");
    assert!(
        notes.contains("far: not ready yet") && notes.contains("near: not ready yet"),
        "{notes}"
    );
    let items: Handle<serde_json::Value> = unisono.entity("item").unwrap();
    for id in 0..20 {
        items.put(&json!({"id": id, "name": "early"})).await.unwrap();
        assert_eq!(items.get(id).await.unwrap().unwrap()["name"], "early");
    }
    let status = unisono.engine().status().await;
    let far = status.sources.iter().find(|s| &*s.name == "far").unwrap();
    assert!(far.state.contains("nobody is there"), "{}", far.state);

    REACHABLE.store(true, Ordering::Release);
    let joined = async {
        loop {
            let status = unisono.engine().status().await;
            let live = status
                .deliveries
                .iter()
                .all(|d| d.state == DeliveryState::Live && d.lag_changes == 0);
            if live && status.sources.iter().all(|s| s.state == "up") {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), joined).await.unwrap();
    let report = unisono.engine().verify(&Default::default(), &|_| {}).await.unwrap();
    assert!(report.agrees(), "{report:?}");
    unisono.close().await.unwrap();
}
