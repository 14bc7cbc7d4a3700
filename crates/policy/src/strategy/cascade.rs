//! `cascade`: each follower gets a change when the one declared before it has it durably. Costs lag that adds up from step
//! to step; a step that stops holds up all behind it, and they go on when it does.

use std::sync::Arc;

use super::{Contradiction, Given, Resolved};

pub(super) fn resolve(given: &Given) -> Result<Resolved, Contradiction> {
    if given.followers.len() < 2 {
        return Err(Contradiction {
            follower: None,
            field: "followers",
            message: "needs at least two followers",
            hint: "declare more, or choose the strategy best_effort",
        });
    }
    let mut resolved = given.resolve();
    let mut before: Option<&Arc<str>> = None;
    for (n, (follower, delivery)) in
        given.followers.iter().zip(&mut resolved.deliveries).enumerate()
    {
        if follower.after.is_some() && follower.after.as_ref() != before {
            return Err(Contradiction {
                follower: Some(n),
                field: "after",
                message: "puts each follower after the one declared before it",
                hint: "remove `after`, or the strategy",
            });
        }
        delivery.after = before.cloned();
        before = Some(&follower.source);
    }
    Ok(resolved)
}
