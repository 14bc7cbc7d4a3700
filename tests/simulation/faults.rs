//! The fault model, and the wrapper that injects it around every call of a source.
//!
//! Only faults that a promise covers are injected, so every failure found is a bug:
//!
//! * any call may take long, so that calls overtake each other;
//! * any call may fail before it did anything, for a moment or for a while (outage, disk full);
//! * any call may take effect and its answer be lost;
//! * a batch may be taken in partly before it fails, or be delivered twice;
//! * the process may end before or after any call, with everything in memory;
//! * between two lives of the process, a follower may be wiped or restored from an older copy;
//! * a follower may refuse a record for good.
//!
//! The truth is never wiped or set back: that is another promise.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Notify;
use unisono_core::capability::Capability;
use unisono_core::query::{Aggregate, Filter, Groups, Page, Query};
use unisono_core::source::*;
use unisono_core::write::{Committed, Unit};
use unisono_core::{
    Change, Effect, Entity, Error, ErrorKind, Key, Position, Record, Result, Stored, Timestamp,
    Value,
};

use crate::history::History;

/// A record with this note is refused by every follower that is told to refuse.
pub(crate) const POISON: &str = "poison";

/// The faults of one world, drawn from its seed.
#[derive(Clone)]
pub(crate) struct Faults(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    crash: Notify,
}

struct State {
    random: StdRng,
    /// Share of calls that something happens to; 0 ends all faults.
    level: f64,
    crashed: bool,
    /// Sources that fail until this many more calls were made.
    outages: Vec<(String, u32)>,
    calls: u64,
}

/// What happens to one call.
enum Fate {
    Nothing,
    Slow(Duration),
    FailsBefore,
    FailsAfter,
    CrashBefore,
    CrashAfter,
    Partly,
    Twice,
}

impl Faults {
    pub(crate) fn new(seed: u64, level: f64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        let state = State { random, level, crashed: false, outages: Vec::new(), calls: 0 };
        Faults(Arc::new(Inner { state: Mutex::new(state), crash: Notify::new() }))
    }

    /// Ends all faults, for good.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        state.level = 0.0;
        state.outages.clear();
        state.crashed = false;
    }

    /// Begins a new life of the process.
    pub(crate) fn reborn(&self) {
        self.state().crashed = false;
    }

    /// Waits for the end of the process.
    pub(crate) async fn crashed(&self) {
        loop {
            let notified = self.0.crash.notified();
            if self.state().crashed {
                return;
            }
            notified.await;
        }
    }

    /// A random number below `n`, for decisions between two lives.
    pub(crate) fn below(&self, n: u32) -> u32 {
        self.state().random.random_range(0..n)
    }

    /// Calls made so far: the length of the run, and a fingerprint of its course.
    pub(crate) fn calls(&self) -> u64 {
        self.state().calls
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fate(&self, source: &str) -> Fate {
        let mut state = self.state();
        state.calls += 1;
        if let Some(outage) =
            state.outages.iter_mut().find(|(name, left)| name == source && *left > 0)
        {
            outage.1 -= 1;
            return Fate::FailsBefore;
        }
        let level = state.level;
        if level == 0.0 || !state.random.random_bool(level) {
            return Fate::Nothing;
        }
        match state.random.random_range(0..100) {
            0..40 => Fate::Slow(Duration::from_micros(state.random.random_range(1..30_000))),
            40..58 => Fate::FailsBefore,
            58..74 => Fate::FailsAfter,
            74..79 => Fate::CrashBefore,
            79..84 => Fate::CrashAfter,
            84..90 => Fate::Partly,
            90..96 => Fate::Twice,
            _ => {
                let calls = state.random.random_range(1..40);
                state.outages.push((source.to_owned(), calls));
                Fate::FailsBefore
            }
        }
    }

    async fn crash<T>(&self) -> T {
        self.state().crashed = true;
        self.0.crash.notify_waiters();
        std::future::pending().await
    }

    /// Runs a call under its fate.
    async fn around<T>(&self, source: &str, call: impl Future<Output = Result<T>>) -> Result<T> {
        match self.fate(source) {
            Fate::Nothing | Fate::Partly | Fate::Twice => call.await,
            Fate::Slow(pause) => {
                tokio::time::sleep(pause).await;
                let result = call.await;
                tokio::time::sleep(pause / 2).await;
                result
            }
            Fate::FailsBefore => Err(failure(Effect::None)),
            Fate::FailsAfter => {
                call.await?;
                Err(failure(Effect::Unknown))
            }
            Fate::CrashBefore => self.crash().await,
            Fate::CrashAfter => {
                call.await?;
                self.crash().await
            }
        }
    }
}

fn failure(effect: Effect) -> Error {
    Error::new(ErrorKind::Unavailable, "a fault was injected").effect(effect)
}

/// A source under faults.
pub(crate) struct Faulty {
    pub(crate) inner: Arc<dyn Source>,
    pub(crate) faults: Faults,
    pub(crate) history: Arc<History>,
    /// Whether it refuses records with the note [`POISON`].
    pub(crate) refuses: bool,
}

impl Faulty {
    async fn around<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        self.faults.around(self.inner.name(), call).await
    }

    fn role<T: ?Sized>(&self, role: Option<Arc<T>>) -> Result<Arc<T>> {
        require(role, self.inner.name(), "any")
    }

    fn is_poison(&self, change: &Change) -> bool {
        let poisoned = |record: &Arc<Record>| {
            record.values().iter().any(|v| *v == Value::String(POISON.into()))
        };
        self.refuses && change.image.as_ref().is_some_and(poisoned)
    }

    /// Refuses poison, and has the rest taken in without moving the checkpoint.
    async fn apply_under_faults(&self, batch: Batch) -> Result<Applied> {
        let follower = self.role(Arc::clone(&self.inner).follower())?;
        if !batch.changes.iter().any(|c| self.is_poison(c)) {
            return follower.apply(batch).await;
        }
        let rest = batch.changes.iter().filter(|c| !self.is_poison(c)).cloned().collect();
        let taken = follower.apply(Batch { changes: rest, advance: None, ..batch.clone() }).await?;
        let mut taken = taken.outcomes.into_iter();
        let outcome = |change: &Arc<Change>| {
            if self.is_poison(change) {
                return Some(Outcome::Rejected(Error::new(
                    ErrorKind::ConstraintViolated,
                    "refused for good",
                )));
            }
            taken.next()
        };
        Ok(Applied {
            outcomes: batch.changes.iter().filter_map(outcome).collect(),
            advanced: false,
        })
    }
}

#[async_trait]
impl Source for Faulty {
    fn name(&self) -> &Arc<str> {
        self.inner.name()
    }

    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    fn capability(&self) -> &Capability {
        self.inner.capability()
    }

    async fn prepare(&self, bindings: &[Binding]) -> Result<Vec<String>> {
        self.around(self.inner.prepare(bindings)).await
    }

    async fn probe(&self) -> Result<Probe> {
        self.around(self.inner.probe()).await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }

    fn reader(self: Arc<Self>) -> Option<Arc<dyn Reader>> {
        Some(self)
    }

    fn truth(self: Arc<Self>) -> Option<Arc<dyn Truth>> {
        Some(self)
    }

    fn follower(self: Arc<Self>) -> Option<Arc<dyn Follower>> {
        Some(self)
    }

    fn cache(self: Arc<Self>) -> Option<Arc<dyn Cache>> {
        Some(self)
    }

    fn auditor(self: Arc<Self>) -> Option<Arc<dyn Auditor>> {
        Some(self)
    }
}

#[async_trait]
impl Reader for Faulty {
    async fn get(&self, entity: &Arc<Entity>, keys: &[Key]) -> Result<At<Vec<Option<Stored>>>> {
        let role = self.role(Arc::clone(&self.inner).reader())?;
        self.around(role.get(entity, keys)).await
    }

    async fn query(&self, entity: &Arc<Entity>, query: &Query) -> Result<At<Page>> {
        let role = self.role(Arc::clone(&self.inner).reader())?;
        self.around(role.query(entity, query)).await
    }

    async fn count(
        &self,
        entity: &Arc<Entity>,
        filter: &Filter,
        search: Option<&str>,
    ) -> Result<At<u64>> {
        let role = self.role(Arc::clone(&self.inner).reader())?;
        self.around(role.count(entity, filter, search)).await
    }

    async fn aggregate(&self, entity: &Arc<Entity>, aggregate: &Aggregate) -> Result<At<Groups>> {
        let role = self.role(Arc::clone(&self.inner).reader())?;
        self.around(role.aggregate(entity, aggregate)).await
    }
}

#[async_trait]
impl Truth for Faulty {
    async fn commit(&self, units: Vec<Unit>) -> Result<Vec<Result<Committed>>> {
        let role = self.role(Arc::clone(&self.inner).truth())?;
        let commit = async {
            let results = role.commit(units).await?;
            for committed in results.iter().flatten().filter(|c| !c.replayed) {
                self.history.committed(&committed.changes);
            }
            Ok(results)
        };
        self.around(commit).await
    }

    async fn bounds(&self) -> Result<LogBounds> {
        let role = self.role(Arc::clone(&self.inner).truth())?;
        self.around(role.bounds()).await
    }

    async fn read_log(
        &self,
        after: Position,
        changes_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Arc<Change>>> {
        let role = self.role(Arc::clone(&self.inner).truth())?;
        self.around(role.read_log(after, changes_max, bytes_max)).await
    }

    async fn history(
        &self,
        entity: &Arc<Entity>,
        key: &Key,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<Arc<Change>>> {
        let role = self.role(Arc::clone(&self.inner).truth())?;
        self.around(role.history(entity, key, before, limit)).await
    }

    async fn trim(&self, through: Position, outcomes_before: Timestamp) -> Result<u64> {
        let role = self.role(Arc::clone(&self.inner).truth())?;
        self.around(role.trim(through, outcomes_before)).await
    }

    async fn put_state(&self, space: &str, name: &str, value: Option<String>) -> Result<()> {
        let role = self.role(Arc::clone(&self.inner).truth())?;
        self.around(role.put_state(space, name, value)).await
    }

    async fn list_state(&self, space: &str) -> Result<Vec<(String, String)>> {
        let role = self.role(Arc::clone(&self.inner).truth())?;
        self.around(role.list_state(space)).await
    }
}

#[async_trait]
impl Follower for Faulty {
    async fn apply(&self, batch: Batch) -> Result<Applied> {
        let name = Arc::clone(self.inner.name());
        match self.faults.fate(&name) {
            Fate::Partly => {
                let half = batch.changes[..batch.changes.len() / 2].to_vec();
                self.apply_under_faults(Batch { changes: half, advance: None, ..batch }).await?;
                Err(failure(Effect::Unknown))
            }
            Fate::Twice => {
                self.apply_under_faults(Batch { advance: None, ..batch.clone() }).await?;
                self.apply_under_faults(batch).await
            }
            Fate::Nothing => self.apply_under_faults(batch).await,
            _ => self.around(self.apply_under_faults(batch)).await,
        }
    }

    async fn checkpoint(&self, entity: &Arc<Entity>) -> Result<Option<Checkpoint>> {
        let role = self.role(Arc::clone(&self.inner).follower())?;
        self.around(role.checkpoint(entity)).await
    }

    async fn reset(&self, entity: &Arc<Entity>) -> Result<()> {
        let role = self.role(Arc::clone(&self.inner).follower())?;
        self.around(role.reset(entity)).await
    }
}

#[async_trait]
impl Cache for Faulty {
    async fn lookup(&self, entity: &Arc<Entity>, key: &Key, now: Timestamp) -> Result<Lookup> {
        let role = self.role(Arc::clone(&self.inner).cache())?;
        let lookup = role.lookup(entity, key, now).await?;
        self.history.looked_up(key, &lookup);
        self.around(async { Ok(lookup) }).await
    }

    async fn fill(
        &self,
        entity: &Arc<Entity>,
        key: &Key,
        entry: Entry,
        read: Position,
        epoch: u64,
    ) -> Result<Filled> {
        let role = self.role(Arc::clone(&self.inner).cache())?;
        self.around(role.fill(entity, key, entry, read, epoch)).await
    }

    async fn follow(
        &self,
        entity: &Arc<Entity>,
        changes: &[Arc<Change>],
        from: Position,
        to: Position,
        expires: Timestamp,
    ) -> Result<()> {
        let role = self.role(Arc::clone(&self.inner).cache())?;
        self.around(role.follow(entity, changes, from, to, expires)).await
    }

    async fn restart(&self, entity: &Arc<Entity>, at: Position) -> Result<u64> {
        let role = self.role(Arc::clone(&self.inner).cache())?;
        self.around(role.restart(entity, at)).await
    }
}

#[async_trait]
impl Auditor for Faulty {
    async fn scan(
        &self,
        entity: &Arc<Entity>,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<At<ScanPage>> {
        let role = self.role(Arc::clone(&self.inner).auditor())?;
        self.around(role.scan(entity, after, limit)).await
    }
}
