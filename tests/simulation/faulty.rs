//! The wrapper that puts every call of a source under its fate, and notes what a judge must know.

use std::fmt::Debug;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use unisono_core::capability::Capability;
use unisono_core::journal::Journal;
use unisono_core::relay::{Front, Relay};
use unisono_core::source::*;
use unisono_core::write::{Committed, Unit};
use unisono_core::{Change, Entity, ErrorKind, Key, Position, Result, Timestamp, Uuid};

use crate::disks::{Disks, JOURNAL};
use crate::faults::{Fate, Faults};
use crate::history::History;

/// A source under faults.
pub(crate) struct Faulty {
    pub(crate) inner: Arc<dyn Source>,
    pub(crate) capability: Capability,
    /// The follower that must have a change before this one, and where that can be seen.
    pub(crate) before: Option<(&'static str, Arc<Disks>)>,
    pub(crate) faults: Faults,
    pub(crate) history: Arc<History>,
    /// Which opening of the engine it belongs to.
    pub(crate) life: u64,
    /// Whether it refuses records with the note [`POISON`].
    pub(crate) refuses: bool,
    /// The log that its cache follows.
    pub(crate) followed: OnceLock<Uuid>,
}

impl Faulty {
    pub(crate) async fn around<T: Debug>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let fate = self.faults.fate(self.inner.name(), operation);
        let result = self.faults.under(fate, call).await;
        if operation == "append" && matches!(fate, Fate::FailsAfter | Fate::CrashAfter) {
            self.history.count("append answer lost");
        }
        self.note(operation, fate, &result);
        result
    }

    pub(crate) fn note<T: Debug>(&self, operation: &str, fate: Fate, result: &Result<T>) {
        if result.as_ref().is_err_and(|e| e.kind() == ErrorKind::CheckpointMoved) {
            self.history.count("checkpoint moved");
        }
        let who = || format!("    {}.{operation} [{fate:?}]", self.inner.name());
        self.history.trace(|| match result {
            Ok(value) => format!("{} -> {value:?}", who()),
            Err(error) => format!("{} -> {error}", who()),
        });
    }

    pub(crate) fn role<T: ?Sized>(&self, role: Option<Arc<T>>) -> Result<Arc<T>> {
        require(role, self.inner.name(), "any")
    }

    fn note_committed(&self, results: &[Result<Committed>]) {
        if results.len() > 1 {
            self.history.count("commits gathered");
        }
        for committed in results.iter().flatten() {
            match committed.replayed {
                true => self.history.count("repetition answered from the ledger"),
                false => self.history.committed(&committed.changes),
            }
        }
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
        &self.capability
    }

    async fn prepare(&self, bindings: &[Binding]) -> Result<Vec<String>> {
        self.around("prepare", self.inner.prepare(bindings)).await
    }

    async fn probe(&self) -> Result<Probe> {
        self.around("probe", self.inner.probe()).await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }

    fn reader(self: Arc<Self>) -> Option<Arc<dyn Reader>> {
        Some(Relay::of(self))
    }

    /// Followers own nothing here, so that nobody looks whether a truth has moved to one of them at each of many starts.
    fn truth(self: Arc<Self>) -> Option<Arc<dyn Truth>> {
        if **self.inner.name() == *"truth" { Some(self) } else { None }
    }

    fn follower(self: Arc<Self>) -> Option<Arc<dyn Follower>> {
        Some(self)
    }

    fn cache(self: Arc<Self>) -> Option<Arc<dyn Cache>> {
        Some(self)
    }

    fn journal(self: Arc<Self>) -> Option<Arc<dyn Journal>> {
        (**self.inner.name() == *JOURNAL).then(|| Relay::of(self) as _)
    }

    fn auditor(self: Arc<Self>) -> Option<Arc<dyn Auditor>> {
        Some(Relay::of(self))
    }
}

impl Front for Faulty {
    fn inner(&self) -> Result<Arc<dyn Source>> {
        Ok(Arc::clone(&self.inner))
    }

    async fn carry<T: Send + Debug>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        self.around(operation, call).await
    }
}

#[async_trait]
impl Truth for Faulty {
    async fn commit(&self, units: Vec<Unit>) -> Result<Vec<Result<Committed>>> {
        let role = self.role(Arc::clone(&self.inner).truth())?;
        let fate = self.faults.fate(self.inner.name(), "commit");
        let commit = async {
            let results = role.commit(units).await?;
            self.note_committed(&results);
            if matches!(fate, Fate::FailsAfter | Fate::CrashAfter) {
                self.history.count("commit answer lost");
            }
            Ok(results)
        };
        let result = self.faults.under(fate, commit).await;
        self.note("commit", fate, &result);
        result
    }

    async fn bounds(&self) -> Result<LogBounds> {
        let role = self.role(Arc::clone(&self.inner).truth())?;
        self.around("bounds", role.bounds()).await
    }

    async fn read_log(
        &self,
        after: Position,
        changes_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Arc<Change>>> {
        let role = self.role(Arc::clone(&self.inner).truth())?;
        let result = self.around("read_log", role.read_log(after, changes_max, bytes_max)).await;
        if result.as_ref().is_err_and(|e| e.kind() == ErrorKind::LogTruncated) {
            self.history.count("log truncated for a reader");
        }
        result
    }

    async fn history(
        &self,
        entity: &Arc<Entity>,
        key: &Key,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<Arc<Change>>> {
        let role = self.role(Arc::clone(&self.inner).truth())?;
        self.around("history", role.history(entity, key, before, limit)).await
    }

    async fn trim(&self, through: Position, outcomes_before: Timestamp) -> Result<u64> {
        let role = self.role(Arc::clone(&self.inner).truth())?;
        let trim = async {
            let gone = role.trim(through, outcomes_before).await?;
            if gone > 0 {
                self.history.count("log trimmed");
            }
            let mut seen = self.history.seen();
            seen.trimmed = seen.trimmed.max(through);
            Ok(gone)
        };
        self.around("trim", trim).await
    }

    async fn put_state(&self, space: &str, name: &str, value: Option<String>) -> Result<()> {
        let role = self.role(Arc::clone(&self.inner).truth())?;
        let (is_letter, kept) = (space == "dead_letter", value.is_some());
        self.around("put_state", role.put_state(space, name, value)).await?;
        self.history.count(match (is_letter, kept) {
            (true, true) => "dead letter",
            (true, false) => "dead letter forgotten",
            (false, _) => "hot keys kept",
        });
        Ok(())
    }

    async fn list_state(&self, space: &str) -> Result<Vec<(String, String)>> {
        let role = self.role(Arc::clone(&self.inner).truth())?;
        self.around("list_state", role.list_state(space)).await
    }
}

#[async_trait]
impl Cache for Faulty {
    async fn lookup(&self, entity: &Arc<Entity>, key: &Key, now: Timestamp) -> Result<Lookup> {
        let role = self.role(Arc::clone(&self.inner).cache())?;
        let lookup = role.lookup(entity, key, now).await?;
        self.history.looked_up(key, &lookup, self.life);
        self.around("lookup", async { Ok(lookup) }).await
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
        let filled = self.around("fill", role.fill(entity, key, entry, read, epoch)).await?;
        self.history.count(match filled {
            Filled::Stored => "cache fill taken in",
            Filled::Outdated | Filled::OtherEpoch => "cache fill refused",
        });
        Ok(filled)
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
        let fate = self.faults.fate(self.inner.name(), "follow");
        if let Fate::Forgets(back) = fate {
            // As if another node, which knew less of the log, had begun a new life of the cache.
            let at = Position::new(from.as_u64().saturating_sub(back))?;
            role.restart(entity, self.followed.get().copied().unwrap_or_default(), at).await?;
            self.history.count("cache begins anew");
        }
        let follow = role.follow(entity, changes, from, to, expires);
        let result = self.faults.under(fate, follow).await;
        self.note("follow", fate, &result);
        result
    }

    async fn invalidate(&self, entity: &Arc<Entity>, keys: &[Key]) -> Result<()> {
        let role = self.role(Arc::clone(&self.inner).cache())?;
        self.around("invalidate", role.invalidate(entity, keys)).await
    }

    async fn join(&self, entity: &Arc<Entity>, log: Uuid) -> Result<Option<Life>> {
        let role = self.role(Arc::clone(&self.inner).cache())?;
        let joined = self.around("join", role.join(entity, log)).await?;
        if joined.is_some() {
            self.history.count("cache goes on");
        }
        Ok(joined)
    }

    async fn restart(&self, entity: &Arc<Entity>, log: Uuid, at: Position) -> Result<u64> {
        let role = self.role(Arc::clone(&self.inner).cache())?;
        self.followed.set(log).ok();
        self.around("restart", role.restart(entity, log, at)).await
    }
}
