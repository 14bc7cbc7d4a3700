//! `priority`: followers are the more urgent the earlier they are declared, unless they say how urgent they are. Under a
//! backlog the later ones give way, for at most a quarter of a second per batch: they lag more, the first ones less.

use super::{Contradiction, Given, Resolved};

pub(super) fn resolve(given: &Given) -> Result<Resolved, Contradiction> {
    let mut resolved = given.resolve();
    let urgencies = (1..=given.followers.len() as i64).rev();
    let followers = given.followers.iter().zip(&mut resolved.deliveries).zip(urgencies);
    for ((follower, delivery), urgency) in followers {
        delivery.priority = follower.priority.unwrap_or(urgency);
    }
    Ok(resolved)
}
