//! Holding: a write waits while its truth cannot be reached, instead of failing at once.

use std::time::Duration;

use unisono_core::write::{Committed, Unit};
use unisono_core::{Effect, ErrorKind, Result};
use unisono_policy::retry;

use crate::runtime::Runtime;
use crate::write::commit::Committer;

/// The longest pause between two attempts: who waits is to notice soon that the truth is back.
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// Commits a unit, and tries again for as long as `hold` while the truth cannot be reached. What may have been committed
/// is not tried again.
pub(crate) async fn commit(
    committer: &Committer,
    unit: Unit,
    hold: Duration,
    runtime: &Runtime,
) -> Result<Committed> {
    if hold.is_zero() {
        return committer.commit(unit).await;
    }
    let watch = runtime.stopwatch();
    let mut attempt = 0;
    loop {
        let error = match committer.commit(unit.clone()).await {
            Err(error) => error,
            committed => return committed,
        };
        let left = hold.saturating_sub(watch.elapsed());
        let nothing_happened = error.effect_on_data() == Effect::None;
        let unreachable = matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::NotPrimary);
        if !nothing_happened || !unreachable || left.is_zero() {
            return Err(error);
        }
        attempt += 1;
        let pause = retry::backoff(attempt, runtime.random());
        runtime.sleep(pause.min(PAUSE_MAX).min(left)).await;
    }
}
