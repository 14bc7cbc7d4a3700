//! `conditional`: a record goes to the followers whose `where` it satisfies, and to the one with `default = true` if it
//! satisfies none. Costs one evaluation for each change and follower; `ack` counts only those that are to hold the record.

use super::{Contradiction, Given, Resolved};

pub(super) fn resolve(given: &Given) -> Result<Resolved, Contradiction> {
    given.no_follower(
        |follower| !follower.filtered && !follower.default,
        Contradiction {
            follower: None,
            field: "where",
            message: "needs a condition for every follower",
            hint: "give it a `where` or `default = true`",
        },
    )?;
    match given.followers.iter().any(|follower| follower.default) {
        true => Ok(given.resolve()),
        false => Err(Contradiction {
            follower: None,
            field: "followers",
            message: "needs a follower for what satisfies no condition",
            hint: "give one `default = true`, or choose the strategy partition",
        }),
    }
}
