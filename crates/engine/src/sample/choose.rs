//! Choosing: every so often a change of a log becomes a sample. Those between are not even read.

use std::sync::Arc;

use unisono_policy::sample::gap;

use super::Sampler;
use crate::log::Log;
use crate::runtime::Runtime;

/// Who is further behind the head than this leaves out what is between: a sample is of what was just committed.
const BEHIND_MAX: u64 = 4096;

/// Takes samples from a log, from its present head on, until the engine ends.
pub(super) async fn run(sampler: Arc<Sampler>, log: Arc<Log>, runtime: Runtime) {
    let mut last = log.tail.head();
    loop {
        let one_in = sampler.policy().map_or(1, |policy| policy.one_in);
        let before = last.plus(gap(runtime.random(), one_in) - 1);
        log.tail.beyond(before).await;
        let head = log.tail.head();
        last = head;
        if head.since(before) > BEHIND_MAX {
            continue;
        }
        // A log that cannot be read has no sample now; there will be others.
        let Ok(changes) = log.tail.read(before, 1, 1).await else { continue };
        if let Some(change) = changes.first().filter(|c| c.position == before.next()) {
            sampler.take(change, runtime.now());
            last = change.position;
        }
    }
}
