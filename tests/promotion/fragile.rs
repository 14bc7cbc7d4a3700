//! Sources that end with their process: after so many steps of a move nothing of them can be reached any more.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use async_trait::async_trait;
use unisono::core::kind::{Environment, OptionSpec, Options, SourceKind};
use unisono::core::relay::{Front, Relay};
use unisono::core::source::{Auditor, Binding, Follower, Probe, Reader, Source, Truth};
use unisono::core::{Capability, Error, ErrorKind, Result, Role};

/// What becomes of sources, for all of them.
#[derive(Clone)]
pub(crate) struct Fate {
    /// How many steps are still carried out; below 0 nothing ends.
    pub(crate) fuse: Arc<AtomicI64>,
    /// Whether nothing can be delivered to the source `one`.
    pub(crate) stuck: Arc<AtomicBool>,
}

impl Default for Fate {
    fn default() -> Self {
        Fate { fuse: Arc::new(AtomicI64::new(-1)), stuck: Arc::default() }
    }
}

/// A kind whose sources end when the fuse has burnt down.
pub(crate) struct Fragile {
    pub(crate) inner: &'static dyn SourceKind,
    pub(crate) fate: Fate,
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
        Ok(Arc::new(Ending { inner, fate: self.fate.clone() }))
    }
}

struct Ending {
    inner: Arc<dyn Source>,
    fate: Fate,
}

impl Ending {
    fn lives(&self) -> Result<()> {
        match self.fate.fuse.load(Ordering::SeqCst) {
            0 => Err(Error::new(ErrorKind::Unavailable, "the process has ended")),
            _ => Ok(()),
        }
    }

    fn is_stuck(&self) -> bool {
        **self.inner.name() == *"one" && self.fate.stuck.load(Ordering::SeqCst)
    }

    /// One step more.
    fn step(&self) -> Result<()> {
        let burn = |left: i64| (left > 0).then(|| left - 1);
        self.lives()?;
        let _ = self.fate.fuse.fetch_update(Ordering::SeqCst, Ordering::SeqCst, burn);
        Ok(())
    }
}

impl Front for Ending {
    fn inner(&self) -> Result<Arc<dyn Source>> {
        Ok(Arc::clone(&self.inner))
    }

    async fn carry<T: Send + Debug>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        match operation {
            "commit_above" | "fence" | "put_state" => self.step()?,
            "apply" if self.is_stuck() => {
                return Err(Error::new(ErrorKind::Unavailable, "nothing can be delivered"));
            }
            "apply" | "checkpoint" | "reset" => {}
            _ => self.lives()?,
        }
        call.await
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
        Some(Relay::of(self))
    }

    fn auditor(self: Arc<Self>) -> Option<Arc<dyn Auditor>> {
        Arc::clone(&self.inner).auditor()
    }

    fn truth(self: Arc<Self>) -> Option<Arc<dyn Truth>> {
        Some(Relay::of(self))
    }
}
