//! Dead letters: changes that a follower refuses for good, kept in the truth with their reason.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use unisono_core::{Timestamp, Version};

/// A change that a follower refuses. It holds up its own key only, and a newer state of the record supersedes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The entity.
    pub entity: Arc<str>,
    /// The follower's source.
    pub source: Arc<str>,
    /// The record.
    pub key: String,
    /// The version that was refused last.
    pub version: Version,
    /// Why.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u64,
    /// When it was refused first.
    pub since: Timestamp,
}

/// The space of the truth's state records that holds dead letters.
pub(crate) const SPACE: &str = "dead_letter";

impl DeadLetter {
    /// The name of its state record.
    pub(crate) fn name(&self) -> String {
        state_name(&self.entity, &self.source, &self.key)
    }
}

/// The name of the state record for a key: names cannot contain `/`, keys come last.
pub(crate) fn state_name(entity: &str, source: &str, key: &str) -> String {
    format!("{entity}/{source}/{key}")
}
