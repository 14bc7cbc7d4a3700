//! What is personal: sealed on its way to a truth, opened on its way to readers, and lost when a person's key is.
//!
//! Everything between holds sealed values: rows, logs, followers, caches, journals, archives. So there is one thing to
//! erase, the key, and nothing of it is in any log. A `clear` follower gets values as they are; an erasure is delivered
//! to it. Decision 15 has the reasons.
//!
//! `cipher.rs` is what is done to one value; `keyring.rs` finds the keys; `sealing.rs` and `opening.rs` are the two ways;
//! `clear.rs` shows a truth to the deliveries of `clear` followers; `erasing.rs` sees to these when a key is gone.

mod cipher;
pub(crate) mod clear;
pub(crate) mod erasing;
mod keyring;
mod opening;
mod sealing;

pub use erasing::{Erased, Pending};
pub(crate) use keyring::Keyring;
