//! Dead letters: changes that a follower refuses for good, and acknowledged writes that the truth refuses, kept in the
//! truth with their reason.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use unisono_core::{Timestamp, Version};

pub use crate::write::behind::entry::{AcceptedAction, AcceptedCondition, AcceptedWrite};

/// A change that a follower refuses: it holds up its own key only, and a newer state of the record supersedes it. Or a
/// write that was acknowledged from a journal and refused by the truth when it was flushed: it holds up nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The entity.
    pub entity: Arc<str>,
    /// The follower's source, or that of the journal.
    pub source: Arc<str>,
    /// The record.
    pub key: String,
    /// The version that was refused last; 0 for a refused write.
    pub version: Version,
    /// Why.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u64,
    /// When it was refused first.
    pub since: Timestamp,
    /// Set for a refused write: who wrote what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write: Option<Box<RefusedWrite>>,
}

/// An acknowledged write that the truth refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RefusedWrite {
    /// Its place in the journal.
    pub sequence: u64,
    /// The write, as it was acknowledged.
    #[serde(flatten)]
    pub accepted: AcceptedWrite,
}

/// The space of the truth's state records that holds dead letters.
pub(crate) const SPACE: &str = "dead_letter";

impl DeadLetter {
    /// The name of its state record.
    pub(crate) fn name(&self) -> String {
        match &self.write {
            None => state_name(&self.entity, &self.source, &self.key),
            // A record can have several.
            Some(write) => {
                let key = format!("{}/{}", write.accepted.id, self.key);
                state_name(&self.entity, &self.source, &key)
            }
        }
    }
}

/// The name of the state record for a key: names cannot contain `/`, keys come last.
pub(crate) fn state_name(entity: &str, source: &str, key: &str) -> String {
    format!("{entity}/{source}/{key}")
}
