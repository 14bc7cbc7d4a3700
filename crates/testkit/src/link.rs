//! [`Link`]: a source at the end of a line. Calls take their time, so that a crash can come between any two steps, and
//! fail while the line is cut.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use unisono_core::capability::Capability;
use unisono_core::query::{Aggregate, Filter, Groups, Page, Query};
use unisono_core::source::*;
use unisono_core::write::{Committed, Unit};
use unisono_core::{
    Change, Effect, Entity, Error, ErrorKind, Key, Position, Result, Stored, Timestamp,
};

/// A source, and the line to it.
pub struct Link {
    inner: Arc<dyn Source>,
    cut: Arc<AtomicBool>,
    random: Mutex<StdRng>,
}

impl Link {
    /// A line to a source, over which nothing goes while `cut` is set.
    pub fn new(inner: Arc<dyn Source>, cut: &Arc<AtomicBool>, seed: u64) -> Arc<Self> {
        let random = Mutex::new(StdRng::seed_from_u64(seed));
        Arc::new(Link { inner, cut: Arc::clone(cut), random })
    }

    /// A call over the line. It may take place although its answer is lost.
    async fn over<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let pause = || {
            let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
            Duration::from_micros(random.random_range(0..3_000))
        };
        let (before, after) = (pause(), pause());
        tokio::time::sleep(before).await;
        let cut = |effect| {
            Error::new(ErrorKind::Unavailable, "the line is cut")
                .at(self.inner.name())
                .effect(effect)
        };
        if self.cut.load(Ordering::Relaxed) {
            return Err(cut(Effect::None));
        }
        let result = call.await;
        tokio::time::sleep(after).await;
        if self.cut.load(Ordering::Relaxed) {
            return Err(cut(Effect::Unknown));
        }
        result
    }

    fn truth_of(&self) -> Result<Arc<dyn Truth>> {
        self.role(Arc::clone(&self.inner).truth())
    }

    fn reader_of(&self) -> Result<Arc<dyn Reader>> {
        self.role(Arc::clone(&self.inner).reader())
    }

    fn follower_of(&self) -> Result<Arc<dyn Follower>> {
        self.role(Arc::clone(&self.inner).follower())
    }

    fn auditor_of(&self) -> Result<Arc<dyn Auditor>> {
        self.role(Arc::clone(&self.inner).auditor())
    }

    /// A role that was given away only if there is one; a source does not lose it.
    fn role<T>(&self, role: Option<T>) -> Result<T> {
        role.ok_or_else(|| Error::unsupported("the source has no such role").at(self.inner.name()))
    }
}

#[async_trait]
impl Source for Link {
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
        self.inner.prepare(bindings).await
    }

    async fn probe(&self) -> Result<Probe> {
        self.over(self.inner.probe()).await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }

    fn reader(self: Arc<Self>) -> Option<Arc<dyn Reader>> {
        Arc::clone(&self.inner).reader()?;
        Some(self)
    }

    fn truth(self: Arc<Self>) -> Option<Arc<dyn Truth>> {
        Arc::clone(&self.inner).truth()?;
        Some(self)
    }

    fn follower(self: Arc<Self>) -> Option<Arc<dyn Follower>> {
        Arc::clone(&self.inner).follower()?;
        Some(self)
    }

    fn auditor(self: Arc<Self>) -> Option<Arc<dyn Auditor>> {
        Arc::clone(&self.inner).auditor()?;
        Some(self)
    }
}

#[async_trait]
impl Reader for Link {
    async fn get(&self, entity: &Arc<Entity>, keys: &[Key]) -> Result<At<Vec<Option<Stored>>>> {
        self.over(self.reader_of()?.get(entity, keys)).await
    }

    async fn query(&self, entity: &Arc<Entity>, query: &Query) -> Result<At<Page>> {
        self.over(self.reader_of()?.query(entity, query)).await
    }

    async fn count(
        &self,
        entity: &Arc<Entity>,
        filter: &Filter,
        search: Option<&str>,
    ) -> Result<At<u64>> {
        self.over(self.reader_of()?.count(entity, filter, search)).await
    }

    async fn aggregate(&self, entity: &Arc<Entity>, aggregate: &Aggregate) -> Result<At<Groups>> {
        self.over(self.reader_of()?.aggregate(entity, aggregate)).await
    }
}

#[async_trait]
impl Truth for Link {
    async fn commit(&self, units: Vec<Unit>) -> Result<Vec<Result<Committed>>> {
        self.over(self.truth_of()?.commit(units)).await
    }

    async fn bounds(&self) -> Result<LogBounds> {
        self.over(self.truth_of()?.bounds()).await
    }

    async fn read_log(
        &self,
        after: Position,
        changes_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Arc<Change>>> {
        self.over(self.truth_of()?.read_log(after, changes_max, bytes_max)).await
    }

    async fn history(
        &self,
        entity: &Arc<Entity>,
        key: &Key,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<Arc<Change>>> {
        self.over(self.truth_of()?.history(entity, key, before, limit)).await
    }

    async fn trim(&self, through: Position, outcomes_before: Timestamp) -> Result<u64> {
        self.over(self.truth_of()?.trim(through, outcomes_before)).await
    }

    async fn fence(
        &self,
        entity: &str,
        from: Option<&str>,
        to: Option<&str>,
    ) -> Result<Option<Position>> {
        self.over(self.truth_of()?.fence(entity, from, to)).await
    }

    async fn fences(&self) -> Result<BTreeMap<String, String>> {
        self.over(self.truth_of()?.fences()).await
    }

    async fn put_state(&self, space: &str, name: &str, value: Option<String>) -> Result<()> {
        self.over(self.truth_of()?.put_state(space, name, value)).await
    }

    async fn list_state(&self, space: &str) -> Result<Vec<(String, String)>> {
        self.over(self.truth_of()?.list_state(space)).await
    }
}

#[async_trait]
impl Follower for Link {
    async fn apply(&self, batch: Batch) -> Result<Applied> {
        self.over(self.follower_of()?.apply(batch)).await
    }

    async fn checkpoint(&self, entity: &Arc<Entity>) -> Result<Option<Checkpoint>> {
        self.over(self.follower_of()?.checkpoint(entity)).await
    }

    async fn reset(&self, entity: &Arc<Entity>) -> Result<()> {
        self.over(self.follower_of()?.reset(entity)).await
    }
}

#[async_trait]
impl Auditor for Link {
    async fn scan(
        &self,
        entity: &Arc<Entity>,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<At<ScanPage>> {
        self.over(self.auditor_of()?.scan(entity, after, limit)).await
    }
}
