//! `best_effort`: the truth answers, deliveries follow as fast as they can. Costs a writer nothing; followers lag.

use unisono_core::Ack;

use super::{Contradiction, Given, Resolved};

pub(super) fn resolve(given: &Given) -> Result<Resolved, Contradiction> {
    given.acknowledged_by(Ack::Truth)
}
