//! What becomes of a record that two truths wrote, where each follows the other. Pure functions of what both wrote
//! last: each side computes the same, whatever it learnt first.
//!
//! A record consists of *units*: each field with a way of its own ([`merge`]), each group of fields that travel together,
//! and the rest. Of every unit each side knows the last write of either truth ([`Entry`]). A write that had seen the other
//! one counts; of two that had not seen each other the unit's way decides. Only these two writes are ever compared, so a
//! way needs no algebra of its own: that sides come to agree rests on [`State::join`] alone.

pub mod codec;
pub mod entry;
pub mod merge;
mod plan;
mod state;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::rule::Rule;
pub use entry::{Entry, Stamp};
pub use merge::Merge;
pub use plan::{Lost, Plan, Resolution};
pub use state::{LocalWrite, State};

/// How the truth of an entity follows, and is followed by, another one.
#[derive(Clone, Debug, PartialEq)]
pub struct SyncDeclaration {
    /// The source that is the other truth.
    pub with: Arc<str>,
    /// Name of the entity's table there, if it is not the entity's name.
    pub table: Option<Arc<str>>,
    /// The source, one of the two, whose write wins over a concurrent one; the later one does if absent.
    pub prefer: Option<Arc<str>>,
    /// Where this holds for the `older` and the `newer` of two concurrent writes, the older one wins.
    pub older_wins: Option<Arc<Rule>>,
    /// Whether a deletion wins over a concurrent write.
    pub delete_wins: bool,
    /// How concurrent values of a field are brought together, by its name.
    pub fields: BTreeMap<Arc<str>, &'static Merge>,
    /// Fields that travel together, apart from the rest.
    pub groups: Vec<Vec<Arc<str>>>,
    /// How far the other clock may be ahead; what is further in the future waits until then.
    pub max_drift: Duration,
    /// How long it stays recorded what gave way; zero for good.
    pub conflicts: Duration,
}

#[cfg(test)]
mod tests;
