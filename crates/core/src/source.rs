//! The contract: [`Source`] and its roles. Each promise has a number and a behaviour case of the same name.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::capability::{Capability, Role};
use crate::capture::Described;
use crate::change::{Change, Operation};
use crate::entity::Entity;
use crate::error::{Effect, Error, ErrorKind, Result};
use crate::journal::Journal;
use crate::key::Key;
use crate::kind::Options;
use crate::outlet::{Manner, Outlet};
use crate::position::{Position, Version};
use crate::query::{Aggregate, Filter, Groups, Page, Query};
use crate::record::Stored;
use crate::time::Timestamp;
use crate::vault::Vault;
use crate::write::{Committed, Unit};

pub use crate::auditor::{Auditor, ScanPage};

/// How one entity is kept in one source.
#[derive(Clone, Debug)]
pub struct Binding {
    /// The entity.
    pub entity: Arc<Entity>,
    /// What the source does for it.
    pub role: Role,
    /// Name of the table, index or folder; the entity's name unless declared.
    pub place: Arc<str>,
    /// What else is declared of it, by the kind's `entity_options`.
    pub options: Options,
}

/// How a source is doing.
#[derive(Clone, Debug, Default)]
pub struct Probe {
    /// Bytes that it occupies, where that is cheap to tell.
    pub bytes: Option<u64>,
    /// Engine and version, for people.
    pub engine: String,
}

/// A configured store: identity, life cycle, and the roles that it plays.
#[async_trait]
pub trait Source: Send + Sync {
    /// Its name in the configuration.
    fn name(&self) -> &Arc<str>;

    /// Its kind, for example `sqlite`.
    fn kind(&self) -> &'static str;

    /// What it can do.
    fn capability(&self) -> &Capability;

    /// Makes tables, indexes or folders exist and match; called once, before any role is used.
    ///
    /// * `prepare-1` It can be repeated without effect.
    /// * `prepare-2` Additions (field, index, wider type) are made; the answer lists them for people.
    /// * `prepare-3` What would lose data is `schema_mismatch`, with the way out as the hint, and changes nothing.
    async fn prepare(&self, bindings: &[Binding]) -> Result<Vec<String>>;

    /// What a table that an application made is like, and which of its columns an entity could keep. Changes nothing.
    async fn describe(&self, place: &str) -> Result<Described> {
        Err(Error::unsupported("the source has no tables that could be adopted")
            .at(self.name())
            .with("table", place)
            .hint("name a source that is a SQL database"))
    }

    /// A cheap sign of life; fails when the source cannot serve.
    async fn probe(&self) -> Result<Probe>;

    /// Lets go of everything. Afterwards calls fail with `unavailable`.
    async fn close(&self) -> Result<()>;

    /// Answers questions, if it can.
    fn reader(self: Arc<Self>) -> Option<Arc<dyn Reader>> {
        None
    }

    /// Answers questions from read replicas, which the source feeds by itself, if it has any. Each answer is of one
    /// moment of the source, and names the position of that moment.
    ///
    /// An answer has everything up to `at_least`; `too_stale` if no replica has that.
    fn replicas(self: Arc<Self>, _at_least: Position) -> Option<Arc<dyn Reader>> {
        None
    }

    /// Owns data, if it can.
    fn truth(self: Arc<Self>) -> Option<Arc<dyn Truth>> {
        None
    }

    /// Is fed from the log, if it can.
    fn follower(self: Arc<Self>) -> Option<Arc<dyn Follower>> {
        None
    }

    /// Holds some records, if it can.
    fn cache(self: Arc<Self>) -> Option<Arc<dyn Cache>> {
        None
    }

    /// Keeps acknowledged writes until they are flushed, if it can.
    fn journal(self: Arc<Self>) -> Option<Arc<dyn Journal>> {
        None
    }

    /// Keeps whole files, if it can.
    fn vault(self: Arc<Self>) -> Option<Arc<dyn Vault>> {
        None
    }

    /// Is sent messages about changes, if that is what it is for; and how.
    fn outlet(self: Arc<Self>) -> Option<(Arc<dyn Outlet>, Manner)> {
        None
    }

    /// Can be compared with others, if it can.
    fn auditor(self: Arc<Self>) -> Option<Arc<dyn Auditor>> {
        None
    }
}

/// A value, and the position up to which the source had taken in everything when it was read.
#[derive(Clone, Debug)]
pub struct At<T> {
    /// What was read.
    pub value: T,
    /// Contiguous position of the same snapshot, or an earlier one; never a later one.
    /// Zero while the first copy is being made ([`Checkpoint::backfill`]): nothing is complete yet.
    pub position: Position,
}

/// Answers questions.
#[async_trait]
pub trait Reader: Send + Sync {
    /// Records by key.
    ///
    /// * `get-1` One answer per key, in the order of the keys; a missing record is `None`.
    /// * `get-2` All are of one snapshot, with its position.
    async fn get(&self, entity: &Arc<Entity>, keys: &[Key]) -> Result<At<Vec<Option<Stored>>>>;

    /// One page of the records that match.
    ///
    /// * `query-1` The answer is that of [`crate::query::eval::page`] over all records, order included;
    ///   only the order by relevance is the source's own.
    /// * `query-2` Following `next` visits each record once, if none changes.
    async fn query(&self, entity: &Arc<Entity>, query: &Query) -> Result<At<Page>>;

    /// How many records match. `count-1` The number that [`crate::query::eval::count`] gives.
    async fn count(
        &self,
        entity: &Arc<Entity>,
        filter: &Filter,
        search: Option<&str>,
    ) -> Result<At<u64>>;

    /// Groups and totals. `aggregate-1` The groups that [`crate::query::eval::aggregate`] gives, order included.
    async fn aggregate(&self, entity: &Arc<Entity>, aggregate: &Aggregate) -> Result<At<Groups>>;
}

/// Where a log begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogBounds {
    /// Identity of the log, made with it; a checkpoint of another log means nothing here.
    pub log: Uuid,
    /// Changes at or before this position have been trimmed.
    pub trimmed: Position,
    /// The newest position; equal to `trimmed` for an empty log.
    pub head: Position,
}

/// Owns data: its transaction decides, and writes the log.
#[async_trait]
pub trait Truth: Send + Sync {
    /// Commits units in one durable transaction, in order.
    ///
    /// * `commit-1` A unit that fails fails alone, entirely, and takes no position.
    /// * `commit-2` Positions are dense, in the order of the units and of their writes.
    /// * `commit-3` A later unit sees the earlier ones of the same call.
    /// * `commit-4` A unit whose idempotency key is known gets the earlier outcome (`replayed`) if the fingerprint
    ///   is the same, `idempotency_key_reused` otherwise. A unit without writes does nothing but take its key.
    /// * `commit-5` Unique fields are unique: else `constraint_violated` naming the field.
    /// * `stream-1` An append takes place if the end of its stream is as expected; it is numbered by
    ///   [`crate::stream::number`] behind the greatest key there is of the stream. `stream-2` So revisions are dense, and
    ///   in the order of positions. `stream-3`, `stream-4` Units with appends are repeated and undone as all others.
    ///   `stream-5` [`crate::write::Condition::Until`] refuses a record that is beyond a version. `stream-6` A closed
    ///   stream takes no event. `stream-7` A stream goes on where it ended.
    /// * `commit-6` `Err` of the whole call says by its effect whether anything can have been committed.
    async fn commit(&self, units: Vec<Unit>) -> Result<Vec<Result<Committed>>>;

    /// Where the log begins and ends.
    async fn bounds(&self) -> Result<LogBounds>;

    /// How often to ask for the bounds, to learn of changes that were not committed by this process.
    fn poll_every(&self) -> Duration {
        Duration::from_secs(1)
    }

    /// Whether it keeps an entity that it is asked to prepare, also one of the engine's own.
    fn keeps(&self, _entity: &Entity) -> bool {
        true
    }

    /// Has an empty log go on above a position that another log gave, in the generation after it, so that no version of
    /// that one is given again; answers the new head.
    ///
    /// * `begin-1` Later changes come directly after the answer. A log that has come to that or beyond stays as it is.
    /// * `begin-2` `invalid_input` for a log that holds changes.
    async fn begin_above(&self, _position: Position) -> Result<Position> {
        Err(Error::unsupported("the log cannot begin above that of another truth"))
    }

    /// Commits one unit in the generation after a position that another log gave, unless the log has come further already;
    /// what is in the log stays. Later changes come directly after it.
    ///
    /// * `above-1` No position of the unit is at or before the given one.
    async fn commit_above(&self, _position: Position, _unit: Unit) -> Result<Committed> {
        Err(Error::unsupported("the log cannot go on above that of another truth"))
    }

    /// Has writes of an entity refused from now on (`to`), or allowed again (`None`), if what was said of it last is
    /// `from`. The text is the engine's. Answers the head, or `None` if something else was said last.
    ///
    /// * `fence-1` No write of a refused entity is committed after the answered head, whichever process asks and however long
    ///   ago it began: its unit fails alone, with `fenced` and no effect.
    /// * `fence-2` All other units take place as before.
    /// * `fence-3` Of several that say something at the same time about the same, one is answered a head.
    async fn fence(
        &self,
        _entity: &str,
        _from: Option<&str>,
        _to: Option<&str>,
    ) -> Result<Option<Position>> {
        Err(Error::unsupported("the source cannot refuse the writes of one entity"))
    }

    /// What was said of each entity whose writes are refused.
    async fn fences(&self) -> Result<BTreeMap<String, String>> {
        Ok(BTreeMap::new())
    }

    /// The changes after a position, in order, at most `changes_max` and about `bytes_max`, but at least one if any.
    ///
    /// * `tail-1` Contiguous: the first has the position after `after`.
    /// * `tail-2` `log_truncated` if the change after `after` was trimmed.
    async fn read_log(
        &self,
        after: Position,
        changes_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Arc<Change>>>;

    /// The changes of one record, newest first, before a position if given.
    async fn history(
        &self,
        entity: &Arc<Entity>,
        key: &Key,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<Arc<Change>>>;

    /// Forgets changes up to and including a position, and idempotent outcomes from before a time.
    ///
    /// The head never moves back; answers how many changes went.
    async fn trim(&self, through: Position, outcomes_before: Timestamp) -> Result<u64>;

    /// A small durable record of the engine's own, such as a dead letter; `None` removes it.
    async fn put_state(&self, space: &str, name: &str, value: Option<String>) -> Result<()>;

    /// The engine's records of a space, ordered by name.
    async fn list_state(&self, space: &str) -> Result<Vec<(String, String)>>;
}

/// The position up to which one follower has durably applied everything of one entity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The log that the position belongs to.
    pub log: Uuid,
    /// Everything at or before it has been applied.
    pub position: Position,
    /// Set while the first copy is being made: the key up to which it has come, empty at its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backfill: Option<String>,
}

/// Moves a checkpoint in the same atomic step as a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advance {
    /// Where the checkpoint must be now; else `checkpoint_moved`, and nothing changes.
    pub from: Option<Checkpoint>,
    /// Where it is afterwards.
    pub to: Checkpoint,
}

/// Changes for one follower, each key at most once unless it wants history.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The entity of all changes.
    pub entity: Arc<Entity>,
    /// In the order of the log.
    pub changes: Vec<Arc<Change>>,
    /// Whether the changes are current states read from the truth (backfill, repair) and not news from the log;
    /// they do not belong in an archive of the log, and an equal version is written again, which repairs it.
    pub copied: bool,
    /// If set, the checkpoint moves with the batch.
    pub advance: Option<Advance>,
}

impl Batch {
    /// Whether it only puts records and leaves the checkpoint alone. Such batches may go beside each other where each
    /// row lets the newer of two puts win: no deletion is under way that one of them could overlook.
    pub fn only_puts(&self) -> bool {
        self.advance.is_none() && self.changes.iter().all(|c| c.operation == Operation::Put)
    }

    /// Whether it is one of those of which a first copy consists: records of the truth, put beside each other. To a
    /// follower that was emptied for it most of them are new.
    pub fn may_be_first_copy(&self) -> bool {
        self.copied && !self.changes.is_empty() && self.only_puts()
    }
}

/// What became of one change.
#[derive(Debug)]
pub enum Outcome {
    /// It was taken in.
    Applied,
    /// The follower had this version or a newer one.
    Stale,
    /// It never will be: a dead letter.
    Rejected(Error),
    /// It may be when tried again.
    Retry(Error),
}

/// What became of a batch.
#[derive(Debug)]
pub struct Applied {
    /// One for each change, in order.
    pub outcomes: Vec<Outcome>,
    /// Whether the checkpoint moved.
    pub advanced: bool,
}

/// Is fed from the log.
#[async_trait]
pub trait Follower: Send + Sync {
    /// Takes in a batch durably.
    ///
    /// * `apply-1` An older or equal version changes nothing (`Stale`), also when the record was deleted by a newer
    ///   one: a deletion is remembered until a later batch has moved the checkpoint to it or beyond. In a `copied`
    ///   batch an equal version is written again.
    /// * `apply-2` The checkpoint moves only if every change was `Applied` or `Stale`, in one atomic step with them.
    /// * `apply-3` If `advance.from` is not the stored checkpoint: `checkpoint_moved`, and nothing changes.
    /// * `apply-4` `Err` means that any part may have been taken in; repeating the batch is safe.
    /// * `apply-5` Afterwards, readers of the same source see the batch.
    async fn apply(&self, batch: Batch) -> Result<Applied>;

    /// The stored checkpoint, read from where it is kept; `None` if there is none, also when the data was
    /// deleted from outside while the source was open.
    async fn checkpoint(&self, entity: &Arc<Entity>) -> Result<Option<Checkpoint>>;

    /// Forgets all records and the checkpoint of an entity.
    async fn reset(&self, entity: &Arc<Entity>) -> Result<()>;

    /// Told when nothing more is applied for now: the delivery ends, or its source is paused.
    async fn rest(&self) {}
}

/// What a cache knows of a key.
#[derive(Clone, Debug)]
pub struct Lookup {
    /// The live entry, if there is one.
    pub entry: Option<Entry>,
    /// Everything up to here has been taken into account: an entry is never older.
    pub applied: Position,
    /// Which life of the cache answered; a fill must name it.
    pub epoch: u64,
}

/// A cached record, or the knowledge that there is none.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The record; `None` if there is none.
    pub stored: Option<Arc<Stored>>,
    /// Version of the record; for an absent one, the position at which it was absent.
    pub version: Version,
    /// When it was put in.
    pub filled: Timestamp,
    /// When it stops being served.
    pub expires: Timestamp,
}

/// What became of a fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// It is cached.
    Stored,
    /// Something newer is cached, or changed since the read.
    Outdated,
    /// The cache began a new life since the lookup.
    OtherEpoch,
}

/// Who reads a record that a cache does not have, among the processes that share the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// Whoever needs it: an entry is live, or the cache gives no leases.
    Free,
    /// The process that asked.
    Held,
    /// Another process, which is about to fill.
    Taken,
}

/// Holds some records. The protocol is `lessons/caching.md` 5.1–5.4: epoch, fence, and compare-and-set of `applied`.
#[async_trait]
pub trait Cache: Send + Sync {
    /// What it knows of a key at `now`.
    async fn lookup(&self, entity: &Arc<Entity>, key: &Key, now: Timestamp) -> Result<Lookup>;

    /// The same for a caller that reads the record and fills unless an entry is live at `now`, and waits a little while
    /// another process does so. Only efficiency rests on a lease: it may be lost, and then be given twice.
    ///
    /// * `lease-1` A live entry needs none. Without one, the first process holds the lease of the key, and others find
    ///   it taken.
    /// * `lease-2` It ends when its holder fills, whether or not the entry is taken in, or releases it, and after `at_most`.
    async fn lookup_or_lease(
        &self,
        entity: &Arc<Entity>,
        key: &Key,
        now: Timestamp,
        _at_most: Duration,
    ) -> Result<(Lookup, Lease)> {
        Ok((self.lookup(entity, key, now).await?, Lease::Free))
    }

    /// Ends the lease of a key if this process holds it, and will not fill.
    async fn release(&self, _entity: &Arc<Entity>, _key: &Key) -> Result<()> {
        Ok(())
    }

    /// Takes over other values of its kind's [live options](crate::kind::SourceKind::live_options): they hold for what
    /// is filled from now on.
    fn adjust(&self, _entity: &Arc<Entity>, _options: &Options) -> Result<()> {
        Ok(())
    }

    /// Offers what a reader found at `read`, the contiguous position of its snapshot.
    ///
    /// * `fill-1` Refused if the epoch is not the current one.
    /// * `fill-2` Refused if the key changed after `read`, as far as the cache has applied the log.
    /// * `fill-3` Refused if the cached version is the same or newer.
    async fn fill(
        &self,
        entity: &Arc<Entity>,
        key: &Key,
        entry: Entry,
        read: Position,
        epoch: u64,
    ) -> Result<Filled>;

    /// Takes in the changes in `(from, to]`: cached keys get the new state, a deleted one its absence.
    ///
    /// * `follow-1` Passes over what another process that shares the cache has taken in; fails with `checkpoint_moved`
    ///   if `applied` is before `from`.
    /// * `follow-2` No entry is ever older than `applied`.
    async fn follow(
        &self,
        entity: &Arc<Entity>,
        changes: &[Arc<Change>],
        from: Position,
        to: Position,
        expires: Timestamp,
    ) -> Result<()>;

    /// Drops the entries of some keys.
    ///
    /// * `invalidate-1` Afterwards none that was there is found any more, and nothing else has changed: like an
    ///   eviction, it is harmless at any time.
    async fn invalidate(&self, entity: &Arc<Entity>, keys: &[Key]) -> Result<()>;

    /// The life of an entity's entries that goes on, if it follows this log: whoever carries the changes after its
    /// position to it keeps what others have filled.
    ///
    /// * `join-1` There is none if none was begun, it follows another log, or a part of it was lost.
    async fn join(&self, entity: &Arc<Entity>, log: Uuid) -> Result<Option<Life>>;

    /// Begins a new life of an entity's entries: empty, applied up to `at` of this log, under a new epoch, which is
    /// returned.
    async fn restart(&self, entity: &Arc<Entity>, log: Uuid, at: Position) -> Result<u64>;
}

/// The entries of an entity from one restart to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// Tells it from every other; never 0.
    pub epoch: u64,
    /// Every entry contains the changes up to here.
    pub applied: Position,
}

/// Where an empty log goes on after [`Truth::begin_above`]; `None` if it has come that far.
pub fn begins_above(bounds: &LogBounds, position: Position) -> Result<Option<Position>> {
    let head = position.next_generation();
    if bounds.head >= head {
        return Ok(None);
    }
    match bounds.head == bounds.trimmed {
        true => Ok(Some(head)),
        false => Err(Error::invalid("the log holds changes, so that it cannot begin anew")
            .with("head", bounds.head)
            .hint("use a truth in which nothing was written yet")),
    }
}

/// Why a write of an entity is refused of which [`Truth::fence`] has said something.
pub fn fenced(entity: &str) -> Error {
    Error::new(ErrorKind::Fenced, "the source is not the truth of the entity any more")
        .effect(Effect::None)
        .of(entity)
        .hint("repeat the request; a process that still has the old configuration takes in the present one (unisono reload)")
}

/// The role of a source, or an error that says that it cannot play it.
pub fn require<T: ?Sized>(
    role: Option<Arc<T>>,
    source: &str,
    role_name: &'static str,
) -> Result<Arc<T>> {
    role.ok_or_else(|| {
        Error::new(ErrorKind::Unsupported, "the source cannot play this role")
            .at(source)
            .with("role", role_name)
    })
}
