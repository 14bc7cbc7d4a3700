//! [`Journal`]: keeps writes that were acknowledged and have not been flushed to their truth yet.
//!
//! What an entry says is the engine's own; a journal only keeps it, in order, until it is told to let go of it. Each
//! entity has a space of its own, in which one process writes.

use async_trait::async_trait;

use crate::error::Result;
use crate::time::Timestamp;
use crate::write::Idempotency;

/// An entry to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEntry {
    /// What it says.
    pub body: String,
    /// Set if the caller gave an idempotency key, by which a repetition is told.
    pub idempotency: Option<Idempotency>,
    /// When it was accepted.
    pub time: Timestamp,
}

/// A kept entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place in its space, from 1.
    pub sequence: u64,
    /// What it says.
    pub body: String,
}

/// What became of an entry that was to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its place in its space; that of the first one if it repeats an earlier one.
    pub sequence: u64,
    /// Whether it repeats an earlier one, under the same idempotency key, and was not kept again.
    pub repeated: bool,
}

/// Keeps entries durably, in order.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Makes what a space needs exist; called before anything else. It can be repeated without effect.
    async fn begin(&self, space: &str) -> Result<()>;

    /// Keeps entries behind all others of a space, in one durable step.
    ///
    /// * `journal-1` What it answered survives the end of the process at any instant.
    /// * `journal-2` Sequences rise in the order of the entries and are never used again, also when every entry was
    ///   removed and the journal opened anew.
    /// * `journal-3` An entry whose idempotency key is known is not kept: the answer has the earlier sequence if the
    ///   fingerprint is the same, `idempotency_key_reused` otherwise. It fails alone.
    /// * `journal-4` `Err` of the whole call says by its effect whether anything can have been kept: all of it or nothing.
    async fn append(&self, space: &str, entries: Vec<NewEntry>) -> Result<Vec<Result<Appended>>>;

    /// The entries after a sequence, in order, at most `entries_max`.
    async fn read(&self, space: &str, after: u64, entries_max: usize) -> Result<Vec<Entry>>;

    /// Lets go of entries, all in one step, and of idempotency keys from before a time. Entries that are not there any
    /// more are no failure.
    async fn remove(
        &self,
        space: &str,
        sequences: &[u64],
        outcomes_before: Timestamp,
    ) -> Result<()>;

    /// The spaces that hold entries, with their number, by name.
    async fn spaces(&self) -> Result<Vec<(String, u64)>>;
}
