//! [`Late`]: a source that could not be opened or prepared at the start, and will be as soon as it can.
//!
//! Until then its calls fail with `unavailable`, as those of any source that is down: deliveries wait, caches are
//! passed by, questions go elsewhere. Only a source that is not `required` gets this treatment.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use unisono_core::capability::{Capability, Role};
use unisono_core::query::{Aggregate, Filter, Groups, Page, Query};
use unisono_core::slice::{SliceDigest, Slices};
use unisono_core::source::{
    Applied, At, Auditor, Batch, Binding, Cache, Checkpoint, Entry, Filled, Follower, Lease, Life,
    LogBounds, Lookup, Probe, Reader, ScanPage, Source, Truth, require,
};
use unisono_core::vault::Vault;
use unisono_core::write::{Committed, Unit};
use unisono_core::{
    Change, Effect, Entity, Error, ErrorKind, Key, Position, Result, Stored, Timestamp, Uuid,
    Version,
};
use unisono_policy::retry;

use crate::runtime::Runtime;

/// Opens the source anew.
pub type Opener = Box<dyn Fn() -> BoxFuture<'static, Result<Arc<dyn Source>>> + Send + Sync>;

/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A source that is not there yet. From `prepare` on it is tried again and again, in a task of its own.
pub struct Late(Arc<Inner>);

struct Inner {
    name: Arc<str>,
    kind: &'static str,
    capability: Capability,
    opener: Opener,
    runtime: Runtime,
    opened: OnceLock<Arc<dyn Source>>,
    reason: Mutex<Error>,
}

impl Late {
    /// A source that `opener` will open. `reason` says why it is not open now.
    pub fn new(
        name: &Arc<str>,
        kind: &'static str,
        capability: Capability,
        opener: Opener,
        reason: Error,
        runtime: &Runtime,
    ) -> Arc<Self> {
        tracing::warn!(source = %name, error = %reason, "a source cannot be opened; it will be tried again");
        Arc::new(Late(Arc::new(Inner {
            name: Arc::clone(name),
            kind,
            capability,
            opener,
            runtime: runtime.clone(),
            opened: OnceLock::new(),
            reason: Mutex::new(reason),
        })))
    }

    /// A source that is open but could not be prepared.
    pub(crate) fn unprepared(
        source: Arc<dyn Source>,
        reason: Error,
        runtime: &Runtime,
    ) -> Arc<Self> {
        let (name, kind) = (Arc::clone(source.name()), source.kind());
        let capability = source.capability().clone();
        let opener: Opener = Box::new(move || {
            let source = Arc::clone(&source);
            Box::pin(async move { Ok(source) })
        });
        Late::new(&name, kind, capability, opener, reason, runtime)
    }

    fn plays(self: Arc<Self>, roles: &[Role]) -> Option<Arc<Self>> {
        self.0.capability.roles.iter().any(|role| roles.contains(role)).then_some(self)
    }

    fn reading(&self) -> Result<Arc<dyn Reader>> {
        require(self.0.source()?.reader(), &self.0.name, "reader")
    }

    fn following(&self) -> Result<Arc<dyn Follower>> {
        require(self.0.source()?.follower(), &self.0.name, "follower")
    }

    fn deciding(&self) -> Result<Arc<dyn Truth>> {
        require(self.0.source()?.truth(), &self.0.name, "truth")
    }

    fn keeping(&self) -> Result<Arc<dyn Vault>> {
        require(self.0.source()?.vault(), &self.0.name, "vault")
    }

    fn caching(&self) -> Result<Arc<dyn Cache>> {
        require(self.0.source()?.cache(), &self.0.name, "cache")
    }
}

impl Inner {
    async fn keep_trying(self: Arc<Self>, bindings: Vec<Binding>) {
        let mut attempt = 0;
        while let Err(error) = self.attempt(&bindings).await {
            *self.reason() = error;
            attempt += 1;
            let pause = retry::backoff(attempt, self.runtime.random());
            self.runtime.sleep(pause.min(PAUSE_MAX)).await;
        }
    }

    async fn attempt(&self, bindings: &[Binding]) -> Result<()> {
        let source = (self.opener)().await?;
        for note in source.prepare(bindings).await.map_err(|e| e.on("prepare").at(&self.name))? {
            tracing::info!(source = %self.name, %note, "prepared");
        }
        tracing::info!(source = %self.name, "the source is open now");
        // There is one task that sets it.
        let _ = self.opened.set(source);
        Ok(())
    }

    fn reason(&self) -> MutexGuard<'_, Error> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn source(&self) -> Result<Arc<dyn Source>> {
        if let Some(source) = self.opened.get() {
            return Ok(Arc::clone(source));
        }
        let reason = self.reason();
        let error = Error::new(ErrorKind::Unavailable, "the source is not open yet")
            .at(&self.name)
            .effect(Effect::None)
            .with("reason", &*reason);
        Err(match reason.hint_text() {
            Some(hint) => error.hint(hint.to_owned()),
            None => error,
        })
    }
}

#[async_trait]
impl Source for Late {
    fn name(&self) -> &Arc<str> {
        &self.0.name
    }

    fn kind(&self) -> &'static str {
        self.0.kind
    }

    fn capability(&self) -> &Capability {
        &self.0.capability
    }

    async fn prepare(&self, bindings: &[Binding]) -> Result<Vec<String>> {
        let note = format!("not ready yet, and tried again meanwhile: {}", *self.0.reason());
        self.0.runtime.spawn(Arc::clone(&self.0).keep_trying(bindings.to_vec()));
        Ok(vec![note])
    }

    async fn probe(&self) -> Result<Probe> {
        match self.0.opened.get() {
            Some(source) => source.probe().await,
            None => Err(self.0.reason().duplicate()),
        }
    }

    async fn close(&self) -> Result<()> {
        match self.0.opened.get() {
            Some(source) => source.close().await,
            None => Ok(()),
        }
    }

    fn reader(self: Arc<Self>) -> Option<Arc<dyn Reader>> {
        self.plays(&[Role::Follower, Role::Truth]).map(|late| late as _)
    }

    fn truth(self: Arc<Self>) -> Option<Arc<dyn Truth>> {
        self.plays(&[Role::Truth]).map(|late| late as _)
    }

    fn vault(self: Arc<Self>) -> Option<Arc<dyn Vault>> {
        self.plays(&[Role::Vault]).map(|late| late as _)
    }

    fn follower(self: Arc<Self>) -> Option<Arc<dyn Follower>> {
        self.plays(&[Role::Follower]).map(|late| late as _)
    }

    fn cache(self: Arc<Self>) -> Option<Arc<dyn Cache>> {
        self.plays(&[Role::Cache]).map(|late| late as _)
    }

    fn auditor(self: Arc<Self>) -> Option<Arc<dyn Auditor>> {
        self.plays(&[Role::Follower, Role::Truth]).map(|late| late as _)
    }
}

#[async_trait]
impl Reader for Late {
    async fn get(&self, entity: &Arc<Entity>, keys: &[Key]) -> Result<At<Vec<Option<Stored>>>> {
        self.reading()?.get(entity, keys).await
    }

    async fn query(&self, entity: &Arc<Entity>, query: &Query) -> Result<At<Page>> {
        self.reading()?.query(entity, query).await
    }

    async fn count(
        &self,
        entity: &Arc<Entity>,
        filter: &Filter,
        search: Option<&str>,
    ) -> Result<At<u64>> {
        self.reading()?.count(entity, filter, search).await
    }

    async fn aggregate(&self, entity: &Arc<Entity>, aggregate: &Aggregate) -> Result<At<Groups>> {
        self.reading()?.aggregate(entity, aggregate).await
    }
}

#[async_trait]
impl Truth for Late {
    async fn commit(&self, units: Vec<Unit>) -> Result<Vec<Result<Committed>>> {
        let truth = self.deciding()?;
        // The units are the committer's; this only hands them on.
        Truth::commit(truth.as_ref(), units).await
    }

    async fn bounds(&self) -> Result<LogBounds> {
        self.deciding()?.bounds().await
    }

    async fn read_log(
        &self,
        after: Position,
        changes_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Arc<Change>>> {
        self.deciding()?.read_log(after, changes_max, bytes_max).await
    }

    async fn history(
        &self,
        entity: &Arc<Entity>,
        key: &Key,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<Arc<Change>>> {
        self.deciding()?.history(entity, key, before, limit).await
    }

    async fn trim(&self, through: Position, outcomes_before: Timestamp) -> Result<u64> {
        self.deciding()?.trim(through, outcomes_before).await
    }

    async fn put_state(&self, space: &str, name: &str, value: Option<String>) -> Result<()> {
        self.deciding()?.put_state(space, name, value).await
    }

    async fn list_state(&self, space: &str) -> Result<Vec<(String, String)>> {
        self.deciding()?.list_state(space).await
    }
}

#[async_trait]
impl Follower for Late {
    async fn apply(&self, batch: Batch) -> Result<Applied> {
        self.following()?.apply(batch).await
    }

    async fn checkpoint(&self, entity: &Arc<Entity>) -> Result<Option<Checkpoint>> {
        self.following()?.checkpoint(entity).await
    }

    async fn reset(&self, entity: &Arc<Entity>) -> Result<()> {
        self.following()?.reset(entity).await
    }
}

#[async_trait]
impl Cache for Late {
    async fn lookup(&self, entity: &Arc<Entity>, key: &Key, now: Timestamp) -> Result<Lookup> {
        self.caching()?.lookup(entity, key, now).await
    }

    async fn lookup_or_lease(
        &self,
        entity: &Arc<Entity>,
        key: &Key,
        now: Timestamp,
        at_most: Duration,
    ) -> Result<(Lookup, Lease)> {
        self.caching()?.lookup_or_lease(entity, key, now, at_most).await
    }

    async fn release(&self, entity: &Arc<Entity>, key: &Key) -> Result<()> {
        self.caching()?.release(entity, key).await
    }

    async fn fill(
        &self,
        entity: &Arc<Entity>,
        key: &Key,
        entry: Entry,
        read: Position,
        epoch: u64,
    ) -> Result<Filled> {
        self.caching()?.fill(entity, key, entry, read, epoch).await
    }

    async fn follow(
        &self,
        entity: &Arc<Entity>,
        changes: &[Arc<Change>],
        from: Position,
        to: Position,
        expires: Timestamp,
    ) -> Result<()> {
        self.caching()?.follow(entity, changes, from, to, expires).await
    }

    async fn invalidate(&self, entity: &Arc<Entity>, keys: &[Key]) -> Result<()> {
        self.caching()?.invalidate(entity, keys).await
    }

    async fn join(&self, entity: &Arc<Entity>, log: Uuid) -> Result<Option<Life>> {
        self.caching()?.join(entity, log).await
    }

    async fn restart(&self, entity: &Arc<Entity>, log: Uuid, at: Position) -> Result<u64> {
        self.caching()?.restart(entity, log, at).await
    }
}

#[async_trait]
impl Auditor for Late {
    async fn scan(
        &self,
        entity: &Arc<Entity>,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<At<ScanPage>> {
        require(self.0.source()?.auditor(), &self.0.name, "auditor")?
            .scan(entity, after, limit)
            .await
    }

    async fn held(
        &self,
        entity: &Arc<Entity>,
        keys: &[Key],
    ) -> Result<Option<At<Vec<Option<Stored>>>>> {
        require(self.0.source()?.auditor(), &self.0.name, "auditor")?.held(entity, keys).await
    }

    async fn digests(&self, entity: &Arc<Entity>, slices: Slices) -> Result<At<Vec<SliceDigest>>> {
        require(self.0.source()?.auditor(), &self.0.name, "auditor")?.digests(entity, slices).await
    }

    async fn versions(
        &self,
        entity: &Arc<Entity>,
        slices: Slices,
        among: &[u64],
    ) -> Result<At<Vec<(Key, Version)>>> {
        require(self.0.source()?.auditor(), &self.0.name, "auditor")?
            .versions(entity, slices, among)
            .await
    }
}

#[async_trait]
impl Vault for Late {
    async fn create(&self, path: &str, content: Vec<u8>) -> Result<bool> {
        self.keeping()?.create(path, content).await
    }

    async fn load(&self, path: &str) -> Result<Option<Vec<u8>>> {
        self.keeping()?.load(path).await
    }

    async fn list(&self, folder: &str) -> Result<Vec<String>> {
        self.keeping()?.list(folder).await
    }
}
