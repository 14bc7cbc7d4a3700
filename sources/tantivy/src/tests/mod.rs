//! What a user relies on: agreement with the log, survival of damage, exact answers, and (ignored) speed.

mod answers;
mod following;
mod speed;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use unisono_core::kind::{Environment, OptionValue, Options, SourceKind};
use unisono_core::source::{
    Advance, Applied, Auditor, Batch, Binding, Checkpoint, Follower, Outcome, Reader, Source,
};
use unisono_core::{Change, Entity, Key, Position, Record, Result, Role, Stored, Uuid};
use unisono_testkit::{Changes, ManualClock};

use crate::Tantivy;

/// An index in a folder of its own, fed from a log.
struct Fed {
    folder: tempfile::TempDir,
    entity: Arc<Entity>,
    source: Arc<dyn Source>,
    changes: Changes,
    checkpoint: Option<Checkpoint>,
}

impl Fed {
    async fn new(entity: &Arc<Entity>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = open(folder.path()).await;
        source.prepare(&[binding(entity)]).await.unwrap();
        let (entity, changes) = (Arc::clone(entity), Changes::new());
        Fed { folder, entity, source, changes, checkpoint: None }
    }

    /// Closes the source and opens it again for an entity; answers what `prepare` says.
    async fn reopen(&mut self, entity: &Arc<Entity>) -> Result<Vec<String>> {
        self.source.close().await.unwrap();
        self.source = open(self.folder.path()).await;
        self.entity = Arc::clone(entity);
        self.source.prepare(&[binding(entity)]).await
    }

    fn index(&self) -> PathBuf {
        self.folder.path().join("search").join(self.entity.name().as_ref())
    }

    fn follower(&self) -> Arc<dyn Follower> {
        Arc::clone(&self.source).follower().unwrap()
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::clone(&self.source).reader().unwrap()
    }

    fn auditor(&self) -> Arc<dyn Auditor> {
        Arc::clone(&self.source).auditor().unwrap()
    }

    /// Applies changes without moving the checkpoint.
    async fn apply(&self, changes: &[Arc<Change>]) -> Vec<&'static str> {
        words(&self.follower().apply(self.batch(changes)).await.unwrap())
    }

    /// Applies changes and moves the checkpoint.
    async fn advance(&mut self, changes: &[Arc<Change>], to: Position) -> Vec<&'static str> {
        let to = Checkpoint { log: self.changes.log, position: to, backfill: None };
        let advance = Advance { from: self.checkpoint.clone(), to: to.clone() };
        let batch = Batch { advance: Some(advance), ..self.batch(changes) };
        let applied = self.follower().apply(batch).await.unwrap();
        assert!(applied.advanced);
        self.checkpoint = Some(to);
        words(&applied)
    }

    /// Puts records at the head of the log.
    async fn put(&mut self, records: Vec<Record>) {
        let entity = Arc::clone(&self.entity);
        let changes: Vec<_> = records.into_iter().map(|r| self.changes.put(&entity, r)).collect();
        self.advance(&changes, self.changes.head()).await;
    }

    fn batch(&self, changes: &[Arc<Change>]) -> Batch {
        let (entity, changes) = (Arc::clone(&self.entity), changes.to_vec());
        Batch { entity, changes, copied: false, advance: None }
    }

    async fn get(&self, key: &Key) -> Option<Stored> {
        let found = self.reader().get(&self.entity, std::slice::from_ref(key)).await.unwrap();
        found.value.into_iter().next().flatten()
    }

    /// All records by pages of a scan.
    async fn scan(&self) -> Vec<Stored> {
        let mut all: Vec<Stored> = Vec::new();
        loop {
            let (auditor, last) = (self.auditor(), all.last().map(|s| &s.key));
            let page = auditor.scan(&self.entity, last, 7).await.unwrap().value;
            assert!(page.records.len() <= 7);
            all.extend(page.records);
            if page.end {
                return all;
            }
        }
    }
}

async fn open(folder: &Path) -> Arc<dyn Source> {
    let clock = Arc::new(ManualClock::new());
    let environment = Environment { data: folder.to_owned(), clock };
    let path = OptionValue::Text("search".to_owned());
    let options = Options(BTreeMap::from([("path".to_owned(), path)]));
    Tantivy.open("search", &options, &environment).await.unwrap()
}

fn binding(entity: &Arc<Entity>) -> Binding {
    let place = Arc::clone(entity.name());
    Binding { entity: Arc::clone(entity), role: Role::Follower, place, options: Options::default() }
}

fn words(applied: &Applied) -> Vec<&'static str> {
    let word = |outcome: &Outcome| match outcome {
        Outcome::Applied => "applied",
        Outcome::Stale => "stale",
        Outcome::Rejected(_) => "rejected",
        Outcome::Retry(_) => "retry",
    };
    applied.outcomes.iter().map(word).collect()
}

fn other_log() -> Uuid {
    Uuid::from_u128(7)
}
