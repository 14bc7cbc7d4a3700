//! Verification: every follower against its truth, at three depths, while everything goes on.

mod audit;
mod deep;
mod ledger;
mod observed;
pub(crate) mod projected;
pub mod report;
mod sweep;

pub(crate) use audit::{Audit, Repair};
pub(crate) use sweep::run as sweep;
