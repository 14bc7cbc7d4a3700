//! Pure decisions of Unisono: no I/O, no clock, no randomness of its own. Same facts, same plan.
//!
//! Reading order: what is declared, conditions over records, where a read goes, whether to try again, when to stop
//! asking a source, and how much to send at once.

pub mod batch;
pub mod breaker;
pub mod declaration;
pub mod retry;
pub mod route;
pub mod rule;
