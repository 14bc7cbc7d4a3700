//! The seam for time, randomness and tasks: the whole engine can run on virtual time from one seed, and a crash
//! ends every task at once.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use unisono_core::clock::{Clock, SystemClock};
use unisono_core::{Error, ErrorKind, Result, Timestamp, Uuid};

/// Time, randomness and tasks of one engine. Cheap to clone.
#[derive(Clone)]
pub struct Runtime(Arc<Inner>);

struct Inner {
    clock: Arc<dyn Clock>,
    random: Mutex<StdRng>,
    tasks: Mutex<JoinSet<()>>,
    ended: AtomicBool,
}

impl Runtime {
    /// The machine's clock and its source of randomness.
    pub fn system() -> Self {
        Runtime::new(Arc::new(SystemClock), StdRng::from_os_rng())
    }

    /// A given clock and a given seed, for the simulator. Timers are tokio's, which can be paused.
    pub fn seeded(clock: Arc<dyn Clock>, seed: u64) -> Self {
        Runtime::new(clock, StdRng::seed_from_u64(seed))
    }

    fn new(clock: Arc<dyn Clock>, random: StdRng) -> Self {
        Runtime(Arc::new(Inner {
            clock,
            random: Mutex::new(random),
            tasks: Mutex::new(JoinSet::new()),
            ended: AtomicBool::new(false),
        }))
    }

    /// The wall-clock time.
    pub fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    /// The clock itself.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.0.clock)
    }

    /// A random number in `0.0..1.0`.
    pub fn random(&self) -> f64 {
        self.rng().random()
    }

    /// A UUID of version 7: ordered by the time of its making.
    pub fn uuid(&self) -> Uuid {
        let millis = (self.now().micros() / 1000).max(0) as u64;
        let bytes: [u8; 10] = self.rng().random();
        uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid()
    }

    /// Random bytes that nobody can foretell, unless the seed is given.
    pub(crate) fn secret<const N: usize>(&self) -> [u8; N] {
        self.rng().random()
    }

    fn rng(&self) -> std::sync::MutexGuard<'_, StdRng> {
        self.0.random.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a task that ends with the engine; does nothing when that has ended.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if self.has_ended() || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let mut tasks = self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Starts measuring a duration, in virtual time where time is virtual.
    pub fn stopwatch(&self) -> Stopwatch {
        Stopwatch(tokio::time::Instant::now())
    }

    /// Waits.
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    /// Gives `work` a limit of time; afterwards it is dropped and the answer is `timeout`.
    pub async fn within<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        match tokio::time::timeout(limit, work).await {
            Ok(result) => result,
            Err(_) => Err(Error::new(ErrorKind::Timeout, "the deadline passed")
                .with("limit", format!("{limit:?}"))),
        }
    }

    /// Ends every task at its next await, as a crash would.
    pub fn abort(&self) {
        self.0.ended.store(true, Ordering::Release);
        self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }

    /// Whether tasks have been ended for good.
    pub fn has_ended(&self) -> bool {
        self.0.ended.load(Ordering::Acquire)
    }

    /// Waits until every task has ended.
    pub async fn join(&self) {
        let mut tasks =
            std::mem::take(&mut *self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        while tasks.join_next().await.is_some() {}
    }
}

/// Measures a duration.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(tokio::time::Instant);

impl Stopwatch {
    /// How long ago it was started.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}
