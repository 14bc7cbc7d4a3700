//! Two truths that follow each other. Each process takes over into its own truth what the other one has: it reads the other's
//! log, brings every record that is named there together with its own ([`unisono_policy::conflict`]), and commits the
//! result like any write. What both have been told is remembered beside the records, in the same units.
//!
//! Why it converges: what a side knows of a record only grows, it is a join of what both have written last, and what the record
//! is follows from it alone. Why it comes to rest: nothing is committed for news that are none.

mod follow;
mod forgetting;
mod held;
mod memory;
mod merge;
mod progress;
mod side;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use unisono_core::capability::Role;
use unisono_core::kind::Options;
use unisono_core::query::{Comparison, Filter, Path, Query};
use unisono_core::source::{Binding, Reader, Source, require};
use unisono_core::{Entity, Error, ErrorKind, Key, Position, Result, Value};
use unisono_policy::conflict::{Plan, SyncDeclaration};
use unisono_policy::declaration::EntityDeclaration;
use xxhash_rust::xxh3::xxh3_128;

use crate::log::Log;
use crate::runtime::Runtime;
use held::HeldRecords;
pub use held::{HeldRecord, Reason};
pub use memory::Conflict;
use memory::Memories;
use progress::Progress;
use side::{Common, Side};

/// How many of the records that wait are told with the status.
const HELD_TOLD: usize = 20;

/// What both truths keep for a synchronised entity: where, and what.
pub(crate) fn bindings(declared: &EntityDeclaration) -> Result<Vec<(Arc<str>, Binding)>> {
    let Some(sync) = &declared.sync else { return Ok(Vec::new()) };
    let memories = Memories::of(&declared.entity)?;
    let bind = |source: &Arc<str>, entity: &Arc<Entity>, place: Option<&Arc<str>>| {
        let place = Arc::clone(place.unwrap_or(entity.name()));
        let (entity, options) = (Arc::clone(entity), Options::default());
        (Arc::clone(source), Binding { entity, role: Role::Truth, place, options })
    };
    let mut all = vec![bind(&sync.with, &declared.entity, sync.table.as_ref())];
    for source in [&declared.truth, &sync.with] {
        all.extend(memories.all().map(|entity| bind(source, entity, None)));
    }
    Ok(all)
}

/// The synchronisation of one entity, from the opening of the engine to its end.
pub(crate) struct Syncing {
    entity: Arc<Entity>,
    declared: SyncDeclaration,
    log: Arc<Log>,
    peer: Arc<dyn Source>,
    runtime: Runtime,
    memories: Memories,
    /// The head of the log when this began.
    head: Position,
    told: Arc<Told>,
}

/// What is told of it.
#[derive(Default)]
struct Told {
    held: HeldRecords,
    taken: AtomicU64,
    conflicts: AtomicU64,
    position: AtomicU64,
    head: AtomicU64,
    state: Mutex<(SyncState, Option<String>)>,
}

/// What it is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncState {
    /// It has not reached the other truth yet.
    #[default]
    Starting,
    /// All records of both sides are brought together.
    Merging,
    /// It follows the log of the other truth.
    Following,
    /// It failed, and tries again.
    Retrying,
}

/// How the synchronisation of one entity is doing.
#[derive(Clone, Debug, Serialize)]
pub struct SyncStatus {
    /// The entity.
    pub entity: Arc<str>,
    /// Its truth.
    pub source: Arc<str>,
    /// The truth that it follows.
    pub with: Arc<str>,
    /// What it is doing.
    pub state: SyncState,
    /// Up to where the other log is taken over.
    pub position: Position,
    /// Changes of the other log that it has not come to, as far as that is known.
    pub behind: u64,
    /// Records taken over since the start.
    pub taken_over: u64,
    /// Conflicts found since the start; they stay recorded in the truth for as long as is declared.
    pub conflicts: u64,
    /// Records that wait because they cannot be taken over now.
    pub held: u64,
    /// The first of them.
    pub held_records: Vec<HeldRecord>,
    /// Why it last failed, if it has since it last went on.
    pub last_error: Option<String>,
}

impl Syncing {
    /// Starts to follow the other truth.
    pub(crate) fn start(
        declared: &EntityDeclaration,
        log: &Arc<Log>,
        peer: &Arc<dyn Source>,
        runtime: &Runtime,
    ) -> Result<Option<Arc<Self>>> {
        let Some(sync) = &declared.sync else { return Ok(None) };
        let syncing = Arc::new(Syncing {
            entity: Arc::clone(&declared.entity),
            declared: sync.clone(),
            log: Arc::clone(log),
            peer: Arc::clone(peer),
            runtime: runtime.clone(),
            memories: Memories::of(&declared.entity)?,
            head: log.tail.head(),
            told: Arc::default(),
        });
        // What cannot be resolved as declared is told at once.
        Plan::new(&declared.entity, sync)?;
        runtime.spawn(follow::run(Arc::clone(&syncing)));
        runtime.spawn(forgetting::run(Arc::clone(&syncing)));
        Ok(Some(syncing))
    }

    /// The entity.
    pub(crate) fn entity(&self) -> &Arc<str> {
        self.entity.name()
    }

    /// How it is doing.
    pub(crate) fn status(&self) -> SyncStatus {
        let told = &self.told;
        let (state, last_error) = told.state().clone();
        let position = told.position.load(Ordering::Relaxed);
        SyncStatus {
            entity: Arc::clone(self.entity.name()),
            source: Arc::clone(&self.log.name.truth),
            with: Arc::clone(&self.declared.with),
            state,
            position: Position::new(position).unwrap_or_default(),
            behind: told.head.load(Ordering::Relaxed).saturating_sub(position),
            taken_over: told.taken.load(Ordering::Relaxed),
            conflicts: told.conflicts.load(Ordering::Relaxed),
            held: told.held.len() as u64,
            held_records: told.held.list().into_iter().take(HELD_TOLD).collect(),
            last_error,
        }
    }

    /// The conflicts of one record, or of all, the newest first.
    pub(crate) async fn conflicts(&self, key: Option<&Key>, limit: usize) -> Result<Vec<Conflict>> {
        let kept = &self.memories.conflicts;
        let field = |name| kept.index_of(name).map(Path::whole);
        let of_key = key.zip(field("record")).map(|(key, path)| {
            Filter::Compare(path, Comparison::Eq, Value::String(key.to_string()))
        });
        let query = Query {
            filter: of_key.unwrap_or(Filter::All),
            order: follow::newest_first(kept, "found_at"),
            limit: limit.clamp(1, Query::LIMIT_MAX),
            ..Query::all()
        };
        let page = self.log.reader.query(kept, &query).await?.value;
        page.hits.iter().map(|hit| Conflict::parse(self.entity.name(), &hit.stored)).collect()
    }

    /// The two sides, as far as they are there.
    async fn sync(&self) -> Result<Sync> {
        let role = |source: &Arc<dyn Source>| {
            let name = source.name();
            let reader: Arc<dyn Reader> = require(Arc::clone(source).reader(), name, "reader")?;
            Ok::<_, Error>((
                require(Arc::clone(source).truth(), name, "truth")?,
                reader,
                require(Arc::clone(source).auditor(), name, "auditor")?,
            ))
        };
        let (truth, reader, auditor) = role(&self.peer)?;
        let (mine, theirs) = (self.log.id, truth.bounds().await?.log);
        if mine == theirs {
            return Err(Error::new(ErrorKind::InvalidConfig, "both truths are the same database")
                .of(self.entity.name())
                .at(&self.declared.with)
                .hint("name another source in `sync.with`; a copy of a database needs a log of its own"));
        }
        let number = usize::from(mine > theirs);
        let log = &self.log;
        let own = Side {
            number,
            name: Arc::clone(&log.name.truth),
            truth: Arc::clone(&log.truth),
            reader: Arc::clone(&log.reader),
            auditor: Arc::clone(&log.auditor),
        };
        let peer = Side {
            number: 1 - number,
            name: Arc::clone(&self.declared.with),
            truth,
            reader,
            auditor,
        };
        let plan = Plan::new(&self.entity, &self.declared)?;
        let preferred = self.declared.prefer.as_ref().map(|name| match *name == own.name {
            true => own.number,
            false => peer.number,
        });
        let (first, second) = (mine.min(theirs), mine.max(theirs));
        let alike = format!("{first} {second} {}", plan.describe(preferred));
        let common = Common {
            entity: Arc::clone(&self.entity),
            memories: self.memories.clone(),
            plan,
            pair: format!("{:032x}", xxh3_128(alike.as_bytes())),
            preferred,
        };
        Ok(Sync {
            common,
            own,
            peer,
            log: Arc::clone(log),
            runtime: self.runtime.clone(),
            max_drift: self.declared.max_drift,
            told: Arc::clone(&self.told),
        })
    }
}

impl Told {
    fn state(&self) -> MutexGuard<'_, (SyncState, Option<String>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Both sides, while they are what they are.
struct Sync {
    common: Common,
    own: Side,
    peer: Side,
    log: Arc<Log>,
    runtime: Runtime,
    max_drift: Duration,
    told: Arc<Told>,
}

impl Sync {
    /// How far the other side has come with this one. It must resolve as this one does.
    async fn peer_progress(&self) -> Result<Progress> {
        let name = self.common.entity.name();
        let kept = Progress::load(self.peer.truth.as_ref(), name).await?;
        match kept {
            Some(kept) if kept.log.is_nil() => Ok(kept),
            Some(kept) if kept.log != self.log.id => {
                Err(Error::new(ErrorKind::InvalidConfig, "the other truth is synchronised with a third one")
                    .at(&self.peer.name)
                    .of(name)
                    .hint("two truths can follow each other; declare further ones as followers"))
            }
            Some(kept) if kept.pair != self.common.pair => {
                Err(Error::new(ErrorKind::InvalidConfig, "the other side resolves conflicts in another way")
                    .at(&self.peer.name)
                    .of(name)
                    .hint("declare the same fields and the same `sync` options on both sides, and restart both"))
            }
            Some(kept) => Ok(kept),
            None => Ok(Progress::none(Position::MAX)),
        }
    }

    /// The names of the sources by the numbers of the sides.
    fn names(&self) -> [&str; 2] {
        match self.own.number {
            0 => [&self.own.name, &self.peer.name],
            _ => [&self.peer.name, &self.own.name],
        }
    }

    fn took_over(&self, conflict: bool) {
        self.told.taken.fetch_add(1, Ordering::Relaxed);
        self.told.conflicts.fetch_add(u64::from(conflict), Ordering::Relaxed);
    }

    fn reached(&self, position: Position, head: Position) {
        self.told.position.store(position.as_u64(), Ordering::Relaxed);
        self.told.head.store(head.as_u64(), Ordering::Relaxed);
        *self.told.state() = (SyncState::Following, None);
    }
}
