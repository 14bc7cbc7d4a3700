//! Trimming: forgets changes that every follower has and that are older than the retention.

use std::sync::Arc;
use std::time::Duration;

use unisono_core::{Position, Result, Timestamp};
use unisono_policy::declaration::LogDeclaration;

use crate::archive::Archive;
use crate::delivery::Delivery;
use crate::log::Log;
use crate::policies::Present;
use crate::runtime::Runtime;

/// How often trimming is considered.
const EVERY: Duration = Duration::from_secs(60);
/// How many changes are looked at in one step to find those beyond the retention.
const STEP: usize = 10_000;

/// What has a log kept for it.
pub(crate) struct Needed {
    pub(crate) deliveries: Vec<Arc<Delivery>>,
    pub(crate) archive: Option<Arc<Archive>>,
}

impl Needed {
    /// Up to where each of them has come.
    fn positions(&self) -> impl Iterator<Item = Position> {
        let deliveries = self.deliveries.iter().map(|delivery| delivery.saved_position());
        deliveries.chain(self.archive.iter().map(|archive| archive.position()))
    }
}

/// Trims a log from time to time, until the engine ends.
pub(crate) async fn run(log: Arc<Log>, needed: Needed, present: Present, runtime: Runtime) {
    loop {
        runtime.sleep(EVERY).await;
        let declaration = Arc::clone(&present.load().declaration);
        if let Err(error) = once(&log, &needed, &declaration.log, runtime.now()).await {
            tracing::warn!(%error, log = %log.name, "the log cannot be trimmed");
        }
    }
}

/// Forgets what is older than the retention and needed by nobody; answers how many changes went.
///
/// A follower that lags by more than `changes_max` does not count: it is copied anew when it returns, so that a
/// dead follower never fills the truth's disk.
pub(crate) async fn once(
    log: &Log,
    needed: &Needed,
    keep: &LogDeclaration,
    now: Timestamp,
) -> Result<u64> {
    let bounds = log.truth.bounds().await?;
    let needed = needed
        .positions()
        .filter_map(|position| held(bounds.head, position, keep.changes_max))
        .min()
        .unwrap_or(bounds.head);
    let through = expired(log, bounds.trimmed, needed, now.minus(keep.retention)).await?;
    log.truth.trim(through, now.minus(keep.outcomes)).await
}

/// The position after which a follower with this checkpoint has the log kept for it; `None` if it lags too much to count.
pub(crate) fn held(head: Position, saved: Position, changes_max: u64) -> Option<Position> {
    (head.since(saved) <= changes_max).then_some(saved)
}

/// The last position, at most `needed`, of the changes committed before `before`.
async fn expired(
    log: &Log,
    trimmed: Position,
    needed: Position,
    before: Timestamp,
) -> Result<Position> {
    let mut through = trimmed;
    while through < needed {
        let changes = log.truth.read_log(through, STEP, 64 << 20).await?;
        let old = changes.iter().take_while(|c| c.time < before && c.position <= needed).last();
        let Some(last_old) = old.map(|c| c.position) else { break };
        through = last_old;
        if changes.last().is_some_and(|c| c.position > last_old) {
            break;
        }
    }
    Ok(through)
}
