//! The disks of a world: what outlives the process, read and changed past the engine.

use std::collections::BTreeMap;
use std::sync::Arc;

use unisono_core::kind::Options;
use unisono_core::source::{Advance, Auditor, Batch, Binding, Checkpoint, Source, Truth};
use unisono_core::write::{Action, Condition, Unit, Write};
use unisono_core::{
    Change, Entity, Error, Key, Operation, Position, Result, Role, Stored, Timestamp, Uuid,
};
use unisono_source_memory::{Memory, MemoryDisk, Settings};

use crate::workload::record;

/// The followers: all records in some lanes, all records in one, those with stock, and one that refuses poison.
pub(crate) const FOLLOWERS: [&str; 4] = ["lanes", "single", "stocked", "picky"];

/// Where acknowledged writes wait, in worlds that are written behind.
pub(crate) const JOURNAL: &str = "journal";

/// The disks by the name of their source.
pub(crate) struct Disks {
    pub(crate) entity: Arc<Entity>,
    all: BTreeMap<&'static str, Arc<MemoryDisk>>,
}

impl Disks {
    pub(crate) fn new(entity: &Arc<Entity>) -> Self {
        let names = ["truth", "cache"].into_iter().chain(FOLLOWERS).chain([JOURNAL]);
        let disk = |n: u128| Arc::new(MemoryDisk::with_log(Uuid::from_u128(n << 64)));
        let all = names.zip(1..).map(|(name, n)| (name, disk(n))).collect();
        Disks { entity: Arc::clone(entity), all }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &Arc<MemoryDisk>)> {
        self.all.iter().map(|(name, disk)| (*name, disk))
    }

    pub(crate) fn disk(&self, name: &str) -> &MemoryDisk {
        &self.all[name]
    }

    /// A source over a disk, free of faults.
    async fn open(&self, name: &str) -> Result<Arc<dyn Source>> {
        let source = Memory::over(name, Arc::clone(&self.all[name]), Settings::default());
        let role = if name == "truth" { Role::Truth } else { Role::Follower };
        let binding = Binding {
            entity: Arc::clone(&self.entity),
            role,
            place: "thing".into(),
            options: Options::default(),
        };
        source.prepare(&[binding]).await?;
        Ok(source)
    }

    /// What a disk holds.
    pub(crate) async fn records(&self, name: &str) -> Result<BTreeMap<Key, Stored>> {
        let auditor: Arc<dyn Auditor> = role(self.open(name).await?.auditor())?;
        let mut records = BTreeMap::new();
        let mut after = None;
        loop {
            let page = auditor.scan(&self.entity, after.as_ref(), 1000).await?.value;
            after = page.records.last().map(|s| s.key.clone());
            records.extend(page.records.into_iter().map(|s| (s.key.clone(), s)));
            if page.end {
                return Ok(records);
            }
        }
    }

    /// What a disk holds of one record.
    pub(crate) async fn held(&self, name: &str, key: &Key) -> Result<Option<Stored>> {
        let reader = role(self.open(name).await?.reader())?;
        let found = reader.get(&self.entity, std::slice::from_ref(key)).await?.value;
        Ok(found.into_iter().next().flatten())
    }

    /// The checkpoint of a follower.
    pub(crate) async fn checkpoint(&self, name: &str) -> Result<Option<Checkpoint>> {
        role(self.open(name).await?.follower())?.checkpoint(&self.entity).await
    }

    /// Has a follower hold these records and nothing else, as if somebody had changed it by hand.
    pub(crate) async fn rewrite(
        &self,
        name: &str,
        records: &BTreeMap<Key, Stored>,
        checkpoint: Checkpoint,
    ) -> Result<()> {
        let follower = role(self.open(name).await?.follower())?;
        follower.reset(&self.entity).await?;
        let changes = records.values().map(|stored| {
            Arc::new(Change {
                position: stored.version,
                entity: Arc::clone(self.entity.name()),
                key: stored.key.clone(),
                operation: Operation::Put,
                replaced: None,
                image: Some(Arc::clone(&stored.record)),
                time: Timestamp::EPOCH,
                actor: None,
                trace: None,
            })
        });
        let batch = Batch {
            entity: Arc::clone(&self.entity),
            changes: changes.collect(),
            copied: true,
            advance: Some(Advance { from: None, to: checkpoint }),
        };
        follower.apply(batch).await.map(drop)
    }

    /// Has a follower hold what it held as a follower of another truth.
    pub(crate) async fn make_foreign(&self, name: &str, head: Position) -> Result<()> {
        let key = Key::Integer(3);
        let image = Arc::new(record(&key, 9, "foreign".to_owned()));
        let records = BTreeMap::from([(key.clone(), Stored::new(key, head.next(), image))]);
        let log = Uuid::from_u128(7);
        self.rewrite(name, &records, Checkpoint { log, position: head, backfill: None }).await
    }

    /// Gives the truth records before anything else happens; answers the changes.
    pub(crate) async fn preload(&self, count: u32) -> Result<Vec<Arc<Change>>> {
        let truth: Arc<dyn Truth> = role(self.open("truth").await?.truth())?;
        let units = (0..count).map(|n| {
            let key = Key::Integer(i64::from(n));
            let action = Action::Put(record(&key, i64::from(n % 10), format!("first {n}")));
            let entity = Arc::clone(&self.entity);
            let write = Write { entity, key, action, condition: Condition::Absent };
            let time = Timestamp::EPOCH;
            Unit { writes: vec![write], idempotency: None, time, actor: None, trace: None }
        });
        let mut changes = Vec::new();
        for committed in truth.commit(units.collect()).await? {
            changes.extend(committed?.changes);
        }
        Ok(changes)
    }
}

fn role<T: ?Sized>(role: Option<Arc<T>>) -> Result<Arc<T>> {
    role.ok_or_else(|| Error::internal("a memory source plays every role"))
}
