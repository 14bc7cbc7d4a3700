//! `async_queue`: the truth answers, and followers take from the log in bounded batches, so that a backlog is worked off
//! evenly. Costs a writer nothing; a follower that was away comes back more slowly than it could.

use unisono_core::Ack;

use super::{Contradiction, Given, Resolved};

/// The most changes of a batch, where nothing else is declared.
const SIZE: usize = 500;

pub(super) fn resolve(given: &Given) -> Result<Resolved, Contradiction> {
    let mut resolved = given.acknowledged_by(Ack::Truth)?;
    for delivery in &mut resolved.deliveries {
        delivery.batch.size.get_or_insert(SIZE);
    }
    Ok(resolved)
}
