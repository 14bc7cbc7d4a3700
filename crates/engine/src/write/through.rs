//! Writing through: caches hold what was written before the writer is answered, where that is declared.

use std::time::Duration;

use futures::future::join_all;
use unisono_core::write::Committed;
use unisono_policy::write::WriteStrategy;

use crate::policies::Policies;
use crate::runtime::Runtime;

/// How long an answer waits for caches; one that takes longer learns of the write from the log.
const WAIT_MAX: Duration = Duration::from_millis(500);

/// Has the caches of the changed entities hold what was committed.
pub(crate) async fn write(policies: &Policies, committed: &Committed, runtime: &Runtime) {
    let fills = committed.changes.iter().filter_map(|change| {
        let serving = policies.servings.get(&change.entity)?;
        let policies = policies.of(&serving.policies);
        let (feed, declared) = serving.cache.as_ref().zip(policies.cache.as_ref())?;
        let through = policies.write.strategy == WriteStrategy::WriteThrough;
        through.then(|| feed.write_through(declared, change))
    });
    let fills: Vec<_> = fills.collect();
    if fills.is_empty() {
        return;
    }
    let all = async {
        join_all(fills).await;
        Ok(())
    };
    let _ = runtime.within(WAIT_MAX, all).await;
}
