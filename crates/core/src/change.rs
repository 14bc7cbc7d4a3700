//! [`Change`]: one committed mutation, as the log carries it to everything that is derived.

use std::sync::Arc;

use crate::key::Key;
use crate::position::{Position, Version};
use crate::record::{Record, Stored};
use crate::time::Timestamp;

/// What a change did. An event that was appended to a stream is a record that was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// The record now has the state of the image.
    Put,
    /// The record is gone.
    Delete,
}

impl Operation {
    /// The word stored in logs and shown to callers.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Put => "put",
            Operation::Delete => "delete",
        }
    }

    /// From the stored word.
    pub fn parse(text: &str) -> Option<Self> {
        [Operation::Put, Operation::Delete].into_iter().find(|o| o.as_str() == text)
    }
}

/// One committed mutation of one record.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Its place in the log; the version of the record from now on.
    pub position: Position,
    /// The kind of record.
    pub entity: Arc<str>,
    /// Which record.
    pub key: Key,
    /// What was done.
    pub operation: Operation,
    /// The version that was replaced; `None` if the record was new. Tells "next" from "conflict".
    pub replaced: Option<Version>,
    /// The state after the change; `None` for a delete.
    pub image: Option<Arc<Record>>,
    /// When the engine took the request.
    pub time: Timestamp,
    /// Who asked.
    pub actor: Option<Arc<str>>,
    /// Trace of the request.
    pub trace: Option<Arc<str>>,
}

impl Change {
    /// The record as the change left it; `None` for a delete.
    pub fn stored(&self) -> Option<Stored> {
        let image = self.image.as_ref()?;
        Some(Stored::new(self.key.clone(), self.position, Arc::clone(image)))
    }

    /// About how many bytes the change occupies, for batch budgets.
    pub fn weight(&self) -> usize {
        128 + self.image.as_ref().map_or(0, |r| r.weight())
    }
}
