//! Workflows through the facade: written, cached, searched in another kind, and changed by others.
//!
//! Needs a server: `engines/up temporal`.
#![cfg(all(feature = "temporal", feature = "memory", feature = "tantivy"))]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value as Json, json};
use unisono::core::{Consistency, Context, ErrorKind, Key};
use unisono::engine::answer::CacheStatus;
use unisono::{Handle, Registry, Unisono, config};

const ENTITY: &str = r#"
[sources.ram]
kind = "memory"
[sources.sql]
kind = "sqlite"
path = "follower.db"
[sources.search]
kind = "tantivy"
path = "search"

[entities.shipping]
key = "id"
truth = "flows"
workflow_type = "Ship"
task_queue = "shipping"
cache = { source = "ram", ttl = "1h" }
followers = [{ source = "sql" }, { source = "search" }]
[entities.shipping.fields]
id = "string"
run_id = "uuid"
status = "string"
history_length = "integer"
start_time = "timestamp(6)"
memo = "json"
signal = "json"
failure = "json"
"#;

/// The table of a source over the running server, with a prefix that no other test has.
fn source() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let base = std::env::var_os("UNISONO_ENGINES").unwrap_or("/tmp/unisono-engines".into());
    let file = PathBuf::from(base).join("temporal/source.toml");
    let said = std::fs::read_to_string(&file)
        .unwrap_or_else(|e| panic!("{}: {e}\n    start it: engines/up temporal", file.display()));
    let name = format!("f{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let said = said.replace("{namespace}", &name);
    format!("[sources.flows]\nkind = \"temporal\"\nlook_interval = \"100ms\"\n{said}")
}

async fn open(source: &str, entity: &str, data: &Path) -> Unisono {
    let text = format!("data = {data:?}\n{source}{entity}");
    let registry = Registry::builtin();
    let configuration = config::parse(&text, "test.toml", &registry, &config::Process)
        .unwrap_or_else(|problems| panic!("{problems}"));
    Unisono::open(configuration).await.unwrap()
}

/// Asks again and again until the answer is right.
async fn until<T: std::fmt::Debug>(
    mut ask: impl AsyncFnMut() -> T,
    is_right: impl Fn(&T) -> bool,
) -> T {
    let asking = async {
        loop {
            let answer = ask().await;
            if is_right(&answer) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asking).await.unwrap()
}

#[tokio::test]
async fn workflows_are_written_cached_and_followed() {
    let (folder, source) = (tempfile::tempdir().unwrap(), source());
    let unisono = open(&source, ENTITY, folder.path()).await;
    let flows: Handle<Json> = unisono.entity("shipping").unwrap();
    let flow = |id: &str| json!({ "id": id, "memo": { "note": "fragile" } });
    for id in ["a", "b", "c"] {
        flows.create(&flow(id)).await.unwrap();
    }
    assert_eq!(flows.create(&flow("a")).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(flows.put(&flow("a")).await.unwrap_err().kind(), ErrorKind::Unsupported);
    flows.patch("a", json!({ "signal": { "name": "go", "input": [1] } })).await.unwrap();
    let read = flows.get("a").await.unwrap().unwrap();
    assert_eq!(
        (&read["status"], &read["memo"]),
        (&json!("running"), &json!({ "note": "fragile" }))
    );
    flows.delete("c").await.unwrap();
    assert_eq!(flows.find().filter("status", "eq", "running").count().await.unwrap(), 2);
    let changes = flows.history("a", 10).await.unwrap();
    assert!(changes.len() >= 2, "the start and the signal: {changes:?}");

    // What another process does replaces the cached entry and comes to the followers.
    let engine = unisono.engine();
    let entity = flows.entity();
    let context = Context { consistency: Consistency::Eventual, ..Context::default() };
    let key = Key::from_text("b").unwrap();
    let cached = async || {
        let answer = engine.get(&context, entity, &key).await.unwrap();
        let status = entity.index_of("status").unwrap();
        let stored = answer.value.unwrap();
        let status = stored.record.values()[status].as_str().unwrap().to_owned();
        (matches!(answer.cache, CacheStatus::Hit { .. }), status)
    };
    until(cached, |(hit, status)| *hit && status == "running").await;
    let (elsewhere, others) = (tempfile::tempdir().unwrap(), ENTITY.replace("\nttl", ""));
    let others = open(&source, &others, elsewhere.path()).await;
    let theirs: Handle<Json> = others.entity("shipping").unwrap();
    theirs.patch("b", json!({ "status": "terminated" })).await.unwrap();
    theirs.create(&flow("d")).await.unwrap();
    until(cached, |(hit, status)| *hit && status == "terminated").await;

    let ended = async || {
        let status = engine.status().await;
        let followed = status.deliveries.iter().all(|d| d.lag_changes == 0);
        let page = flows.find().filter("status", "eq", "terminated").page().await.unwrap();
        let ids: Vec<_> = page.items.iter().map(|item| item["id"].clone()).collect();
        (followed, ids, flows.find().count().await.unwrap())
    };
    let expected = (true, vec![json!("b"), json!("c")], 4);
    until(ended, |found| *found == expected).await;
    let report = engine.verify(&Default::default(), &|_| {}).await.unwrap();
    assert!(report.agrees(), "{report:?}");
    others.close().await.unwrap();
    unisono.close().await.unwrap();
}

#[tokio::test]
async fn followers_of_a_lost_journal_are_copied_again() {
    let (folder, source) = (tempfile::tempdir().unwrap(), source());
    let unisono = open(&source, ENTITY, folder.path()).await;
    let flows: Handle<Json> = unisono.entity("shipping").unwrap();
    for id in ["a", "b"] {
        flows.create(&json!({ "id": id })).await.unwrap();
    }
    unisono.close().await.unwrap();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("flows.")) {
            std::fs::remove_file(path).unwrap();
        }
    }
    let unisono = open(&source, ENTITY, folder.path()).await;
    let flows: Handle<Json> = unisono.entity("shipping").unwrap();
    assert_eq!(flows.find().count().await.unwrap(), 2);
    flows.delete("a").await.unwrap();
    let engine = unisono.engine();
    let agrees = async || engine.verify(&Default::default(), &|_| {}).await.unwrap().agrees();
    until(agrees, |agrees| *agrees).await;
    unisono.close().await.unwrap();
}

#[test]
fn what_workflows_cannot_keep_is_refused_at_check() {
    let registry = Registry::builtin();
    let problems = |entity: &str| {
        let text = format!("[sources.flows]\nkind = \"temporal\"\nurl = \"http://x:1\"\n{entity}");
        match config::parse(&text, "test.toml", &registry, &config::Process) {
            Ok(_) => String::new(),
            Err(problems) => problems.to_string(),
        }
    };
    assert_eq!(problems(ENTITY), "");
    for (change, to, said) in [
        ("memo = \"json\"", "memo = \"text\"", "`memo`, which must be json"),
        ("memo = \"json\"", "color = \"text\"", "`color`, which means nothing here"),
        ("status = \"string\"\n", "", "must have `status`"),
        ("task_queue = \"shipping\"", "queries = [\"nope\"]", "names `nope`"),
    ] {
        let problems = problems(&ENTITY.replace(change, to));
        assert!(problems.contains(said), "{said}: {problems}");
    }
}
