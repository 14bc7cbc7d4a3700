//! `adaptive`: a write is answered when all followers have it while they can afford that, when more than half of the
//! sources have it, or else when the truth has it; [`crate::adaptive`] decides which at any time. What it stands for here is
//! the most that it demands. Costs a writer a bounded time, and tells nobody beforehand where a write will be.

use unisono_core::Ack;

use super::{Contradiction, Given, Resolved};

pub(super) fn resolve(given: &Given) -> Result<Resolved, Contradiction> {
    let wrong = |field, message, hint| Contradiction { follower: None, field, message, hint };
    if given.ack.is_some() {
        let message = "decides itself when a write is answered";
        return Err(wrong("ack", message, "remove `ack`, or the strategy"));
    }
    if given.followers.is_empty() {
        let message = "needs followers to decide about";
        return Err(wrong("followers", message, "declare a follower, or remove it"));
    }
    given.at_the_same_time()?;
    Ok(Resolved { ack: Ack::All, ..given.resolve() })
}
