//! A source kind of your own: a follower that keeps records in a map. It is fed, asked, verified and repaired like any
//! other.
//!
//! `cargo run -p unisono --example own_source`
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value as Json, json};
use unisono::core::capability::{ApplyCapability, QueryCapability};
use unisono::core::kind::{Environment, OptionSpec, Options, SourceKind};
use unisono::core::query::{Aggregate, Filter, Groups, Page, Query, eval};
use unisono::core::source::*;
use unisono::core::{
    Capability, Entity, Error, ErrorKind, Key, Record, Result, Role, Stored, Version,
};
use unisono::engine::{Runtime, verify::report::VerifyOptions};
use unisono::{Registry, Unisono, config};

/// The kind: its name, its options and what it can do.
struct ShelfKind(OnceLock<Arc<Shelf>>);

static SHELF: ShelfKind = ShelfKind(OnceLock::new());
static CAPABILITY: Capability = Capability {
    roles: &[Role::Follower],
    durable: false,
    naming: &[],
    query: QueryCapability { get: true, filter: true, aggregate: true, search: true, scans: true },
    apply: ApplyCapability {
        lanes: 1,
        copy_lanes: 1,
        batch_changes_max: 500,
        batch_bytes_max: 1 << 20,
        history: false,
    },
    refuses: |_, _| None,
};

#[async_trait]
impl SourceKind for ShelfKind {
    fn name(&self) -> &'static str {
        "shelf"
    }
    fn summary(&self) -> &'static str {
        "Records in a map, for as long as the process lives."
    }
    fn options(&self) -> &'static [OptionSpec] {
        &[]
    }
    fn capability(&self) -> Capability {
        CAPABILITY.clone()
    }
    async fn open(&self, name: &str, _: &Options, _: &Environment) -> Result<Arc<dyn Source>> {
        Ok(self
            .0
            .get_or_init(|| Arc::new(Shelf { name: name.into(), state: Mutex::default() }))
            .clone())
    }
}

/// The source: for each key the newest version it has seen, with the record or the memory that it was deleted.
struct Shelf {
    name: Arc<str>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    records: BTreeMap<Key, (Version, Option<Arc<Record>>)>,
    checkpoint: Option<Checkpoint>,
}

impl Shelf {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All records as they are now, and the position up to which they are complete.
    fn records(&self) -> At<Vec<Stored>> {
        let state = self.state();
        let live = state.records.iter().filter_map(|(key, (version, record))| {
            record.as_ref().map(|record| Stored::new(key.clone(), *version, Arc::clone(record)))
        });
        let position = state.checkpoint.as_ref().map(|c| c.position).unwrap_or_default();
        At { value: live.collect(), position }
    }
}

#[async_trait]
impl Source for Shelf {
    fn name(&self) -> &Arc<str> {
        &self.name
    }
    fn kind(&self) -> &'static str {
        "shelf"
    }
    fn capability(&self) -> &Capability {
        &CAPABILITY
    }
    async fn prepare(&self, _: &[Binding]) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
    async fn probe(&self) -> Result<Probe> {
        Ok(Probe { bytes: None, engine: "shelf".into() })
    }
    async fn close(&self) -> Result<()> {
        Ok(())
    }
    fn reader(self: Arc<Self>) -> Option<Arc<dyn Reader>> {
        Some(self)
    }
    fn follower(self: Arc<Self>) -> Option<Arc<dyn Follower>> {
        Some(self)
    }
    fn auditor(self: Arc<Self>) -> Option<Arc<dyn Auditor>> {
        Some(self)
    }
}

#[async_trait]
impl Follower for Shelf {
    /// Idempotent and version-conditional: whatever is repeated or late changes nothing.
    async fn apply(&self, batch: Batch) -> Result<Applied> {
        let mut state = self.state();
        if batch.advance.as_ref().is_some_and(|advance| advance.from != state.checkpoint) {
            return Err(Error::new(ErrorKind::CheckpointMoved, "the checkpoint is elsewhere")
                .at(&self.name));
        }
        let mut outcomes = Vec::with_capacity(batch.changes.len());
        for change in &batch.changes {
            let newest = state.records.get(&change.key).map(|(version, _)| *version);
            outcomes.push(if newest.is_some_and(|version| version >= change.position) {
                Outcome::Stale
            } else {
                state.records.insert(change.key.clone(), (change.position, change.image.clone()));
                Outcome::Applied
            });
        }
        let advanced = batch.advance.is_some();
        state.checkpoint = batch.advance.map(|advance| advance.to).or(state.checkpoint.take());
        Ok(Applied { outcomes, advanced })
    }
    async fn checkpoint(&self, _: &Arc<Entity>) -> Result<Option<Checkpoint>> {
        Ok(self.state().checkpoint.clone())
    }
    async fn reset(&self, _: &Arc<Entity>) -> Result<()> {
        *self.state() = State::default();
        Ok(())
    }
}

/// Questions are answered by the reference evaluator; an engine of its own would translate them instead.
#[async_trait]
impl Reader for Shelf {
    async fn get(&self, _: &Arc<Entity>, keys: &[Key]) -> Result<At<Vec<Option<Stored>>>> {
        let At { value, position } = self.records();
        let find = |key: &Key| value.iter().find(|stored| stored.key == *key).cloned();
        Ok(At { value: keys.iter().map(find).collect(), position })
    }
    async fn query(&self, entity: &Arc<Entity>, query: &Query) -> Result<At<Page>> {
        let At { value, position } = self.records();
        Ok(At { value: eval::page(entity, query, value.iter())?, position })
    }
    async fn count(
        &self,
        entity: &Arc<Entity>,
        filter: &Filter,
        search: Option<&str>,
    ) -> Result<At<u64>> {
        let At { value, position } = self.records();
        Ok(At { value: eval::count(entity, filter, search, value.iter())?, position })
    }
    async fn aggregate(&self, entity: &Arc<Entity>, aggregate: &Aggregate) -> Result<At<Groups>> {
        let At { value, position } = self.records();
        Ok(At { value: eval::aggregate(entity, aggregate, value.iter())?, position })
    }
}

#[async_trait]
impl Auditor for Shelf {
    async fn scan(
        &self,
        _: &Arc<Entity>,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<At<ScanPage>> {
        let At { value, position } = self.records();
        let later =
            value.into_iter().filter(|stored| after.is_none_or(|after| stored.key > *after));
        let records: Vec<Stored> = later.take(limit).collect();
        Ok(At { value: ScanPage { end: records.len() < limit, records }, position })
    }
}

const CONFIGURATION: &str = r#"
sources = { main = { kind = "sqlite", path = "main.db" }, shelf = { kind = "shelf" } }
[entities.book]
key = "id"
truth = "main"
fields = { id = "integer", title = "string" }
followers = [{ source = "shelf" }]
"#;

#[tokio::main]
async fn main() -> Result<()> {
    let folder = tempfile::tempdir().map_err(|e| Error::internal("no folder").caused_by(e))?;
    let registry = Registry::builtin().with(&SHELF);
    let mut configuration =
        config::parse(CONFIGURATION, "books.toml", &registry, &config::Process)?;
    configuration.data = folder.path().to_owned();
    let unisono = Unisono::open_with(configuration, &registry, Runtime::system()).await?;
    let books = unisono.entity::<Json>("book")?;
    books.put_all((1..=1000).map(|n| json!({"id": n, "title": format!("Volume {n}")}))).await?;
    books.delete(13).await?;

    unisono.engine().wait_applied(&books.token(), Duration::from_secs(30)).await?;
    let report = unisono.engine().verify(&VerifyOptions::default(), &|_| {}).await?;
    println!(
        "compared {} records: they agree is {}",
        report.comparisons[0].records,
        report.agrees()
    );
    assert!(report.agrees());

    // Somebody tampers with the shelf behind everyone's back; verification finds it and repair puts it right.
    let shelf = SHELF.0.get().ok_or_else(|| Error::internal("the shelf was not opened"))?;
    shelf.state().records.remove(&Key::Integer(7));
    let options = VerifyOptions { repair: true, ..VerifyOptions::default() };
    let report = unisono.engine().verify(&options, &|_| {}).await?;
    let found = &report.comparisons[0];
    println!(
        "{} differed, {} repaired: {:?}",
        found.different, found.repaired, found.differences[0].class
    );
    assert_eq!((found.different, found.repaired), (1, 1));
    assert!(shelf.state().records.contains_key(&Key::Integer(7)));

    unisono.close().await
}
