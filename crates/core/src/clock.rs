//! Wall-clock time as an interface, so that the simulator can own it.

use crate::time::Timestamp;

/// Tells the wall-clock time. The engine's runtime provides the real and the simulated one.
pub trait Clock: Send + Sync {
    /// Now, in microseconds UTC.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the seam behind which the clock is read"
    )]
    fn now(&self) -> Timestamp {
        let since_epoch =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_micros_clamped(i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX))
    }
}
