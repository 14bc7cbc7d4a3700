//! `geographic`: followers in the region of this process, and those that name none, are more urgent than far ones, so that
//! near reads are fresh first. Reads ask the nearest healthy source whatever the strategy is.

use super::{Contradiction, Given, GivenFollower, Resolved};

/// How much more urgent the near ones are.
const NEAR: i64 = 1;

pub(super) fn resolve(given: &Given) -> Result<Resolved, Contradiction> {
    let missing = |message, hint| Contradiction { follower: None, field: "region", message, hint };
    let Some(here) = &given.region else {
        return Err(missing(
            "needs the `region` of this process",
            "set `region` at the top of the file",
        ));
    };
    if given.followers.iter().all(|follower| follower.region.is_none()) {
        return Err(missing(
            "needs followers whose sources say where they are",
            "set `region` of their sources",
        ));
    }
    let is_near = |follower: &GivenFollower| follower.region.as_ref().is_none_or(|r| r == here);
    let mut resolved = given.resolve();
    for (follower, delivery) in given.followers.iter().zip(&mut resolved.deliveries) {
        delivery.priority = follower.priority.unwrap_or(NEAR * i64::from(is_near(follower)));
    }
    Ok(resolved)
}
