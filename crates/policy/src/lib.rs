//! Pure decisions of Unisono: no I/O, no clock, no randomness of its own. Same facts, same plan.

pub mod declaration;
pub mod rule;
