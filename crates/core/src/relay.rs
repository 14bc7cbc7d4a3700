//! [`Relay`]: the roles of a source that stands in front of another one. Every call of every role is handed on in one
//! place, so that none that is added to the contract can be forgotten by one of them.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use crate::auditor::{Auditor, ScanPage};
use crate::change::Change;
use crate::entity::Entity;
use crate::error::Result;
use crate::journal::{Appended, Entry as Kept, Journal, NewEntry};
use crate::key::Key;
use crate::kind::Options;
use crate::position::{Position, Version};
use crate::query::{Aggregate, Filter, Groups, Page, Query};
use crate::record::Stored;
use crate::slice::{SliceDigest, Slices};
use crate::source::{
    Applied, At, Batch, Cache, Checkpoint, Entry, Filled, Follower, Lease, Life, LogBounds, Lookup,
    Reader, Source, Truth, require,
};
use crate::time::Timestamp;
use crate::vault::Vault;
use crate::write::{Committed, Unit};

/// A source that stands in front of another one.
pub trait Front: Source + 'static {
    /// The source that calls go to, or why there is none at present.
    fn inner(&self) -> Result<Arc<dyn Source>>;

    /// Has a call take place, which is named after its method; nothing else happens unless a front says so.
    fn carry<T: Send + Debug>(
        &self,
        _operation: &'static str,
        call: impl Future<Output = Result<T>> + Send,
    ) -> impl Future<Output = Result<T>> + Send {
        call
    }
}

/// The roles of a [`Front`]: each call goes to the source behind it by way of [`Front::carry`].
pub struct Relay<F>(pub Arc<F>);

impl<F: Front> Relay<F> {
    /// The roles of a source.
    pub fn of(front: Arc<F>) -> Arc<Self> {
        Arc::new(Relay(front))
    }

    fn role<R: ?Sized>(
        &self,
        role: impl FnOnce(Arc<dyn Source>) -> Option<Arc<R>>,
        name: &'static str,
    ) -> Result<Arc<R>> {
        require(role(self.0.inner()?), self.0.name(), name)
    }

    fn reader(&self) -> Result<Arc<dyn Reader>> {
        self.role(|source| source.reader(), "reader")
    }

    fn truth(&self) -> Result<Arc<dyn Truth>> {
        self.role(|source| source.truth(), "truth")
    }

    fn follower(&self) -> Result<Arc<dyn Follower>> {
        self.role(|source| source.follower(), "follower")
    }

    fn cache(&self) -> Result<Arc<dyn Cache>> {
        self.role(|source| source.cache(), "cache")
    }

    fn auditor(&self) -> Result<Arc<dyn Auditor>> {
        self.role(|source| source.auditor(), "auditor")
    }

    fn journal(&self) -> Result<Arc<dyn Journal>> {
        self.role(|source| source.journal(), "journal")
    }

    fn vault(&self) -> Result<Arc<dyn Vault>> {
        self.role(|source| source.vault(), "vault")
    }
}

#[async_trait]
impl<F: Front> Reader for Relay<F> {
    async fn get(&self, entity: &Arc<Entity>, keys: &[Key]) -> Result<At<Vec<Option<Stored>>>> {
        self.0.carry("get", async { self.reader()?.get(entity, keys).await }).await
    }

    async fn query(&self, entity: &Arc<Entity>, query: &Query) -> Result<At<Page>> {
        self.0.carry("query", async { self.reader()?.query(entity, query).await }).await
    }

    async fn count(
        &self,
        entity: &Arc<Entity>,
        filter: &Filter,
        search: Option<&str>,
    ) -> Result<At<u64>> {
        self.0.carry("count", async { self.reader()?.count(entity, filter, search).await }).await
    }

    async fn aggregate(&self, entity: &Arc<Entity>, aggregate: &Aggregate) -> Result<At<Groups>> {
        let call = async { self.reader()?.aggregate(entity, aggregate).await };
        self.0.carry("aggregate", call).await
    }
}

#[async_trait]
impl<F: Front> Truth for Relay<F> {
    async fn commit(&self, units: Vec<Unit>) -> Result<Vec<Result<Committed>>> {
        // The units are the committer's; this only hands them on.
        let call = async { Truth::commit(self.truth()?.as_ref(), units).await };
        self.0.carry("commit", call).await
    }

    async fn bounds(&self) -> Result<LogBounds> {
        self.0.carry("bounds", async { self.truth()?.bounds().await }).await
    }

    fn poll_every(&self) -> Duration {
        self.truth().map_or(Duration::from_secs(1), |truth| truth.poll_every())
    }

    fn keeps(&self, entity: &Entity) -> bool {
        self.truth().map_or(true, |truth| truth.keeps(entity))
    }

    async fn begin_above(&self, position: Position) -> Result<Position> {
        self.0.carry("begin_above", async { self.truth()?.begin_above(position).await }).await
    }

    async fn commit_above(&self, position: Position, unit: Unit) -> Result<Committed> {
        let call = async { self.truth()?.commit_above(position, unit).await };
        self.0.carry("commit_above", call).await
    }

    async fn fence(
        &self,
        entity: &str,
        from: Option<&str>,
        to: Option<&str>,
    ) -> Result<Option<Position>> {
        self.0.carry("fence", async { self.truth()?.fence(entity, from, to).await }).await
    }

    async fn fences(&self) -> Result<BTreeMap<String, String>> {
        self.0.carry("fences", async { self.truth()?.fences().await }).await
    }

    async fn read_log(
        &self,
        after: Position,
        changes_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Arc<Change>>> {
        let call = async { self.truth()?.read_log(after, changes_max, bytes_max).await };
        self.0.carry("read_log", call).await
    }

    async fn history(
        &self,
        entity: &Arc<Entity>,
        key: &Key,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<Arc<Change>>> {
        let call = async { self.truth()?.history(entity, key, before, limit).await };
        self.0.carry("history", call).await
    }

    async fn trim(&self, through: Position, outcomes_before: Timestamp) -> Result<u64> {
        // What may go is trimming's to say; this only hands it on.
        let call = async { Truth::trim(self.truth()?.as_ref(), through, outcomes_before).await };
        self.0.carry("trim", call).await
    }

    async fn put_state(&self, space: &str, name: &str, value: Option<String>) -> Result<()> {
        let call = async { self.truth()?.put_state(space, name, value).await };
        self.0.carry("put_state", call).await
    }

    async fn list_state(&self, space: &str) -> Result<Vec<(String, String)>> {
        self.0.carry("list_state", async { self.truth()?.list_state(space).await }).await
    }
}

#[async_trait]
impl<F: Front> Follower for Relay<F> {
    async fn apply(&self, batch: Batch) -> Result<Applied> {
        // The batch is a delivery's; this only hands it on.
        let call = async { Follower::apply(self.follower()?.as_ref(), batch).await };
        self.0.carry("apply", call).await
    }

    async fn checkpoint(&self, entity: &Arc<Entity>) -> Result<Option<Checkpoint>> {
        self.0.carry("checkpoint", async { self.follower()?.checkpoint(entity).await }).await
    }

    async fn reset(&self, entity: &Arc<Entity>) -> Result<()> {
        self.0.carry("reset", async { self.follower()?.reset(entity).await }).await
    }
}

#[async_trait]
impl<F: Front> Cache for Relay<F> {
    async fn lookup(&self, entity: &Arc<Entity>, key: &Key, now: Timestamp) -> Result<Lookup> {
        self.0.carry("lookup", async { self.cache()?.lookup(entity, key, now).await }).await
    }

    async fn lookup_or_lease(
        &self,
        entity: &Arc<Entity>,
        key: &Key,
        now: Timestamp,
        at_most: Duration,
    ) -> Result<(Lookup, Lease)> {
        let call = async { self.cache()?.lookup_or_lease(entity, key, now, at_most).await };
        self.0.carry("lookup_or_lease", call).await
    }

    async fn release(&self, entity: &Arc<Entity>, key: &Key) -> Result<()> {
        self.0.carry("release", async { self.cache()?.release(entity, key).await }).await
    }

    fn adjust(&self, entity: &Arc<Entity>, options: &Options) -> Result<()> {
        self.cache()?.adjust(entity, options)
    }

    async fn fill(
        &self,
        entity: &Arc<Entity>,
        key: &Key,
        entry: Entry,
        read: Position,
        epoch: u64,
    ) -> Result<Filled> {
        let call = async { self.cache()?.fill(entity, key, entry, read, epoch).await };
        self.0.carry("fill", call).await
    }

    async fn follow(
        &self,
        entity: &Arc<Entity>,
        changes: &[Arc<Change>],
        from: Position,
        to: Position,
        expires: Timestamp,
    ) -> Result<()> {
        let call = async { self.cache()?.follow(entity, changes, from, to, expires).await };
        self.0.carry("follow", call).await
    }

    async fn invalidate(&self, entity: &Arc<Entity>, keys: &[Key]) -> Result<()> {
        self.0.carry("invalidate", async { self.cache()?.invalidate(entity, keys).await }).await
    }

    async fn join(&self, entity: &Arc<Entity>, log: Uuid) -> Result<Option<Life>> {
        self.0.carry("join", async { self.cache()?.join(entity, log).await }).await
    }

    async fn restart(&self, entity: &Arc<Entity>, log: Uuid, at: Position) -> Result<u64> {
        self.0.carry("restart", async { self.cache()?.restart(entity, log, at).await }).await
    }
}

#[async_trait]
impl<F: Front> Auditor for Relay<F> {
    async fn scan(
        &self,
        entity: &Arc<Entity>,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<At<ScanPage>> {
        self.0.carry("scan", async { self.auditor()?.scan(entity, after, limit).await }).await
    }

    async fn held(
        &self,
        entity: &Arc<Entity>,
        keys: &[Key],
    ) -> Result<Option<At<Vec<Option<Stored>>>>> {
        self.0.carry("held", async { self.auditor()?.held(entity, keys).await }).await
    }

    async fn digests(&self, entity: &Arc<Entity>, slices: Slices) -> Result<At<Vec<SliceDigest>>> {
        self.0.carry("digests", async { self.auditor()?.digests(entity, slices).await }).await
    }

    async fn versions(
        &self,
        entity: &Arc<Entity>,
        slices: Slices,
        among: &[u64],
    ) -> Result<At<Vec<(Key, Version)>>> {
        let call = async { self.auditor()?.versions(entity, slices, among).await };
        self.0.carry("versions", call).await
    }
}

/// What the source behind it shares with other processes is not shared by way of it.
#[async_trait]
impl<F: Front> Journal for Relay<F> {
    async fn begin(&self, space: &str) -> Result<()> {
        self.0.carry("begin", async { self.journal()?.begin(space).await }).await
    }

    async fn append(&self, space: &str, entries: Vec<NewEntry>) -> Result<Vec<Result<Appended>>> {
        self.0.carry("append", async { self.journal()?.append(space, entries).await }).await
    }

    async fn read(&self, space: &str, after: u64, entries_max: usize) -> Result<Vec<Kept>> {
        self.0.carry("read", async { self.journal()?.read(space, after, entries_max).await }).await
    }

    async fn remove(&self, space: &str, gone: &[u64], outcomes_before: Timestamp) -> Result<()> {
        let call = async { self.journal()?.remove(space, gone, outcomes_before).await };
        self.0.carry("remove", call).await
    }

    async fn spaces(&self) -> Result<Vec<(String, u64)>> {
        self.0.carry("spaces", async { self.journal()?.spaces().await }).await
    }
}

#[async_trait]
impl<F: Front> Vault for Relay<F> {
    async fn create(&self, path: &str, content: Vec<u8>) -> Result<bool> {
        self.0.carry("create", async { self.vault()?.create(path, content).await }).await
    }

    async fn load(&self, path: &str) -> Result<Option<Vec<u8>>> {
        self.0.carry("load", async { self.vault()?.load(path).await }).await
    }

    async fn list(&self, folder: &str) -> Result<Vec<String>> {
        self.0.carry("list", async { self.vault()?.list(folder).await }).await
    }
}
