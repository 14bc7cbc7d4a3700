//! [`Link`]: a source at the end of a line. Calls take their time, so that a crash can come between any two steps, and
//! fail while the line is cut.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use unisono_core::capability::Capability;
use unisono_core::relay::{Front, Relay};
use unisono_core::source::{Auditor, Binding, Follower, Probe, Reader, Source, Truth};
use unisono_core::{Effect, Error, ErrorKind, Result};

/// A source, and the line to it.
pub struct Link {
    inner: Arc<dyn Source>,
    cut: Arc<AtomicBool>,
    /// In microseconds.
    delay: AtomicU64,
    random: Mutex<StdRng>,
}

impl Link {
    /// A line to a source, over which nothing goes while `cut` is set.
    pub fn new(inner: Arc<dyn Source>, cut: &Arc<AtomicBool>, seed: u64) -> Arc<Self> {
        let random = Mutex::new(StdRng::seed_from_u64(seed));
        Arc::new(Link { inner, cut: Arc::clone(cut), delay: AtomicU64::new(0), random })
    }

    /// Has every call take so much longer from now on.
    pub fn delay(&self, by: Duration) {
        self.delay.store(u64::try_from(by.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// A call over the line. It may take place although its answer is lost.
    async fn over<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let pause = || {
            let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
            Duration::from_micros(random.random_range(0..3_000))
        };
        let delay = Duration::from_micros(self.delay.load(Ordering::Relaxed));
        let (before, after) = (delay + pause(), pause());
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
}

impl Front for Link {
    fn inner(&self) -> Result<Arc<dyn Source>> {
        Ok(Arc::clone(&self.inner))
    }

    async fn carry<T: Send + Debug>(
        &self,
        _operation: &'static str,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        self.over(call).await
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
        Some(Relay::of(self))
    }

    fn truth(self: Arc<Self>) -> Option<Arc<dyn Truth>> {
        Arc::clone(&self.inner).truth()?;
        Some(Relay::of(self))
    }

    fn follower(self: Arc<Self>) -> Option<Arc<dyn Follower>> {
        Arc::clone(&self.inner).follower()?;
        Some(Relay::of(self))
    }

    fn auditor(self: Arc<Self>) -> Option<Arc<dyn Auditor>> {
        Arc::clone(&self.inner).auditor()?;
        Some(Relay::of(self))
    }
}
