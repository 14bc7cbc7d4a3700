//! `star`: the truth in the middle, every follower fed from it and none from another, and a write answered when all have
//! it. The same as `parallel`, under the name by which the shape is known.

use super::{Contradiction, Given, Resolved, parallel};

pub(super) fn resolve(given: &Given) -> Result<Resolved, Contradiction> {
    parallel::resolve(given)
}
