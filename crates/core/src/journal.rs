//! [`Journal`]: keeps writes that were acknowledged and have not been flushed to their truth yet.
//!
//! What an entry says is the engine's own; a journal only keeps it, in order, until it is told to let go of it. Each
//! entity has a space of its own, in which one process writes; several where the journal is a [`SharedJournal`] too.

use std::sync::Arc;
use std::time::Duration;

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

    /// The same journal, if several processes may write in one space.
    fn shared(self: Arc<Self>) -> Option<Arc<dyn SharedJournal>> {
        None
    }
}

/// A moment in the life of a space; the default is its beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Entries up to here were read, or were let go of before.
    pub sequence: u64,
    /// The journal's own name for the last removal that was read; empty for none.
    pub removal: String,
}

/// What happened in a space since a mark.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// The entries after the mark that are kept, in order.
    pub entries: Vec<Entry>,
    /// Entries that were let go of.
    pub removed: Vec<u64>,
    /// The moment up to which this tells.
    pub mark: Mark,
    /// Whether that is the present moment: there is no more.
    pub is_all: bool,
}

/// What several processes tell each other that keep entries in one space.
#[async_trait]
pub trait SharedJournal: Send + Sync {
    /// What happened in a space since a mark, whichever process did it.
    ///
    /// * `shared-1` With `is_all`, the entries and removals are those of one moment after the call began. At most about
    ///   `entries_max` entries; none with 0, and then only the removals and the mark.
    /// * `shared-2` From a mark without removals, the removals of before are left out.
    async fn news(&self, space: &str, since: &Mark, entries_max: usize) -> Result<News>;

    /// Asks for the right to flush a space, or to keep it, for a time; answers the number of the tenure if this process
    /// has it.
    ///
    /// * `shared-3` One process has it at a time. It goes to another one when it was released, or not asked for again
    ///   in its time.
    /// * `shared-4` The number is the same for as long as no other process had the right in between, and was not used
    ///   before. So whoever is answered with the number that it has knows that nobody had the right meanwhile.
    async fn claim(&self, space: &str, at_most: Duration) -> Result<Option<u64>>;

    /// Lets go of the right to flush, if this process has it.
    async fn release(&self, space: &str) -> Result<()>;
}
