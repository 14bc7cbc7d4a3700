//! `parallel`: a write is answered when every follower has it; they get it at the same time. Costs the slowest follower's
//! time for each write, and writes fail to be acknowledged while one is away.

use unisono_core::Ack;

use super::{Contradiction, Given, Resolved};

pub(super) fn resolve(given: &Given) -> Result<Resolved, Contradiction> {
    given.at_the_same_time()?;
    given.acknowledged_by(Ack::All)
}
