//! Comparing followers with the truth, and repairing what differs.

pub(crate) mod compare;
pub mod report;
