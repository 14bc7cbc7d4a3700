//! Sources that end with their process: after so many steps of a move nothing of them can be reached any more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use unisono::core::kind::{Environment, OptionSpec, Options, SourceKind};
use unisono::core::source::*;
use unisono::core::write::{Committed, Unit};
use unisono::core::{
    Capability, Change, Entity, Error, ErrorKind, Key, Position, Result, Role, Timestamp,
};

/// How many steps are still carried out.
pub(crate) type Fuse = Arc<AtomicI64>;

/// A kind whose sources end when the fuse has burnt down.
pub(crate) struct Fragile {
    pub(crate) inner: &'static dyn SourceKind,
    pub(crate) fuse: Fuse,
}

#[async_trait]
impl SourceKind for Fragile {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn summary(&self) -> &'static str {
        self.inner.summary()
    }

    fn options(&self) -> &'static [OptionSpec] {
        self.inner.options()
    }

    fn entity_options(&self, role: Role) -> &'static [OptionSpec] {
        self.inner.entity_options(role)
    }

    fn capability(&self) -> Capability {
        self.inner.capability()
    }

    async fn open(
        &self,
        name: &str,
        options: &Options,
        environment: &Environment,
    ) -> Result<Arc<dyn Source>> {
        let inner = self.inner.open(name, options, environment).await?;
        Ok(Arc::new(Ending { inner, fuse: Arc::clone(&self.fuse) }))
    }
}

struct Ending {
    inner: Arc<dyn Source>,
    fuse: Fuse,
}

impl Ending {
    fn truth_of(&self) -> Result<Arc<dyn Truth>> {
        self.lives()?;
        require(Arc::clone(&self.inner).truth(), self.inner.name(), "truth")
    }

    fn lives(&self) -> Result<()> {
        match self.fuse.load(Ordering::SeqCst) {
            0 => Err(Error::new(ErrorKind::Unavailable, "the process has ended")),
            _ => Ok(()),
        }
    }

    /// One step more.
    fn step(&self) -> Result<()> {
        let burn = |left: i64| (left > 0).then(|| left - 1);
        self.lives()?;
        // Below 0 nothing ends.
        let _ = self.fuse.fetch_update(Ordering::SeqCst, Ordering::SeqCst, burn);
        Ok(())
    }
}

#[async_trait]
impl Source for Ending {
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
        self.step()?;
        self.inner.prepare(bindings).await
    }

    async fn probe(&self) -> Result<Probe> {
        self.inner.probe().await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }

    fn reader(self: Arc<Self>) -> Option<Arc<dyn Reader>> {
        Arc::clone(&self.inner).reader()
    }

    fn follower(self: Arc<Self>) -> Option<Arc<dyn Follower>> {
        Arc::clone(&self.inner).follower()
    }

    fn auditor(self: Arc<Self>) -> Option<Arc<dyn Auditor>> {
        Arc::clone(&self.inner).auditor()
    }

    fn truth(self: Arc<Self>) -> Option<Arc<dyn Truth>> {
        Some(self)
    }
}

#[async_trait]
impl Truth for Ending {
    async fn commit(&self, units: Vec<Unit>) -> Result<Vec<Result<Committed>>> {
        self.truth_of()?.commit(units).await
    }

    async fn bounds(&self) -> Result<LogBounds> {
        self.truth_of()?.bounds().await
    }

    async fn begin_above(&self, position: Position) -> Result<Position> {
        self.truth_of()?.begin_above(position).await
    }

    async fn commit_above(&self, position: Position, unit: Unit) -> Result<Committed> {
        self.step()?;
        self.truth_of()?.commit_above(position, unit).await
    }

    async fn fence(
        &self,
        entity: &str,
        from: Option<&str>,
        to: Option<&str>,
    ) -> Result<Option<Position>> {
        self.step()?;
        self.truth_of()?.fence(entity, from, to).await
    }

    async fn fences(&self) -> Result<BTreeMap<String, String>> {
        self.truth_of()?.fences().await
    }

    async fn read_log(
        &self,
        after: Position,
        changes_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Arc<Change>>> {
        self.truth_of()?.read_log(after, changes_max, bytes_max).await
    }

    async fn history(
        &self,
        entity: &Arc<Entity>,
        key: &Key,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<Arc<Change>>> {
        self.truth_of()?.history(entity, key, before, limit).await
    }

    async fn trim(&self, through: Position, outcomes_before: Timestamp) -> Result<u64> {
        self.truth_of()?.trim(through, outcomes_before).await
    }

    async fn put_state(&self, space: &str, name: &str, value: Option<String>) -> Result<()> {
        self.step()?;
        self.truth_of()?.put_state(space, name, value).await
    }

    async fn list_state(&self, space: &str) -> Result<Vec<(String, String)>> {
        self.truth_of()?.list_state(space).await
    }
}
