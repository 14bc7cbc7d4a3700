//! What happened, as seen from outside the engine: what the truth committed, what callers were told, what caches said.
//! The checkers judge it when everything is over.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use unisono_core::source::Lookup;
use unisono_core::{Change, Key, Position, Record, Version};

/// What happened.
#[derive(Default)]
pub(crate) struct History(Mutex<Seen>);

/// Everything that was seen.
#[derive(Default)]
pub(crate) struct Seen {
    /// Every change that the truth committed, whoever was told of it.
    pub(crate) log: BTreeMap<Position, Arc<Change>>,
    /// Changes that a caller was told of.
    pub(crate) acknowledged: Vec<Arc<Change>>,
    /// Idempotency keys with the requests made under them: every one must have had one effect at most, and the ones
    /// that were acknowledged exactly one.
    pub(crate) repeated: BTreeMap<String, Vec<Position>>,
    /// Reads by key.
    pub(crate) reads: Vec<Read>,
    /// Lookups in caches.
    pub(crate) lookups: Vec<CacheView>,
}

/// One answered read.
pub(crate) struct Read {
    pub(crate) key: Key,
    /// What the caller demanded to see.
    pub(crate) token: Position,
    pub(crate) version: Option<Version>,
    pub(crate) image: Option<Arc<Record>>,
    /// What answered, for the message.
    pub(crate) source: String,
}

/// What a cache held when it was asked.
pub(crate) struct CacheView {
    pub(crate) key: Key,
    pub(crate) applied: Position,
    /// The version of the entry, and whether it held a record; `None` without entry.
    pub(crate) entry: Option<(Version, bool)>,
}

impl History {
    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn committed(&self, changes: &[Arc<Change>]) {
        self.seen().log.extend(changes.iter().map(|c| (c.position, Arc::clone(c))));
    }

    pub(crate) fn acknowledged(&self, changes: &[Arc<Change>], idempotency: Option<&str>) {
        let mut seen = self.seen();
        seen.acknowledged.extend(changes.iter().cloned());
        if let Some(key) = idempotency {
            let positions = changes.iter().map(|c| c.position);
            seen.repeated.entry(key.to_owned()).or_default().extend(positions);
        }
    }

    pub(crate) fn read(&self, read: Read) {
        self.seen().reads.push(read);
    }

    pub(crate) fn looked_up(&self, key: &Key, lookup: &Lookup) {
        let entry = lookup.entry.as_ref().map(|e| (e.version, e.stored.is_some()));
        self.seen().lookups.push(CacheView { key: key.clone(), applied: lookup.applied, entry });
    }
}
