//! `partition`: every follower holds the part that its `where` names, such as the records of one type. What no condition
//! names is in the truth alone. Costs one evaluation for each change and follower.

use super::{Contradiction, Given, Resolved};

pub(super) fn resolve(given: &Given) -> Result<Resolved, Contradiction> {
    given.no_follower(
        |follower| !follower.filtered,
        Contradiction {
            follower: None,
            field: "where",
            message: "needs a `where` for every follower",
            hint: "name its part, or choose the strategy conditional, which has a default follower",
        },
    )?;
    Ok(given.resolve())
}
