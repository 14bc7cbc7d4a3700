//! `batch`: changes gather for up to a second, or until there are 500, unless a follower says otherwise. Costs that second
//! of lag, and saves round trips where each is dear.

use std::time::Duration;

use super::{Contradiction, Given, Resolved};
use crate::delivery::BatchPolicy;

const BATCH: BatchPolicy =
    BatchPolicy { size: Some(500), bytes: None, age: Duration::from_secs(1) };

pub(super) fn resolve(given: &Given) -> Result<Resolved, Contradiction> {
    let mut resolved = given.resolve();
    for (follower, delivery) in given.followers.iter().zip(&mut resolved.deliveries) {
        delivery.batch = follower.batch.unwrap_or(BATCH);
    }
    Ok(resolved)
}
