//! `quorum`: a write is answered when more than half of the sources that keep the entity have it, the truth among them.
//! Costs the time of the median follower, and goes on while fewer than half are away.

use unisono_core::Ack;

use super::{Contradiction, Given, Resolved};

pub(super) fn resolve(given: &Given) -> Result<Resolved, Contradiction> {
    given.at_the_same_time()?;
    let sources = given.followers.len() + 1;
    given.acknowledged_by(Ack::Count(sources / 2 + 1))
}
