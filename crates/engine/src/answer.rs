//! What callers get: the value, and where it came from, how old it is and what it cost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use unisono_core::{Ack, Change, Error, Key, Position, Role, Token};

/// An answer to a read. Every answer names its source, its position and its age.
#[derive(Clone, Debug)]
pub struct Answer<T> {
    /// What was asked for.
    pub value: T,
    /// The source that answered.
    pub source: Arc<str>,
    /// What that source is for the entity.
    pub role: Role,
    /// Whether a read replica of the source answered.
    pub replica: bool,
    /// The position up to which the source had taken in everything.
    pub position: Position,
    /// What the caller should send with later reads to never see anything older.
    pub token: Token,
    /// For how long the answer has been known to that source unrefreshed; 0 from the truth.
    pub age: Duration,
    /// Whether newer data may exist that the source has not taken in.
    pub stale: bool,
    /// What the cache did.
    pub cache: CacheStatus,
    /// The rule that decided whom to ask.
    pub rule: Arc<str>,
    /// The sources that were asked before and failed, in order, with the reason in one line.
    pub failed: Vec<(Arc<str>, String)>,
}

impl<T> Answer<T> {
    /// The same answer with another value.
    pub(crate) fn map<U>(self, change: impl FnOnce(T) -> U) -> Answer<U> {
        let Answer {
            value,
            source,
            role,
            replica,
            position,
            token,
            age,
            stale,
            cache,
            rule,
            failed,
        } = self;
        let value = change(value);
        Answer { value, source, role, replica, position, token, age, stale, cache, rule, failed }
    }

    /// Notes that the answer stands in for that of sources that could not be asked.
    pub(crate) fn instead_of(mut self, error: &Error) -> Self {
        let source = error.source_name().map_or("search".into(), Into::into);
        self.failed.insert(0, (source, error.to_string()));
        self
    }
}

/// What the cache did for a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheStatus {
    /// The entity has no cache, or the request did not want it.
    Bypass,
    /// The journal answered: the record is shown as it will be when acknowledged writes are flushed to the truth. It has
    /// no version yet.
    Pending,
    /// It answered; the entry lives this much longer.
    Hit {
        /// Time left to live.
        ttl: Duration,
        /// Whether its time is over and it is being read again.
        refreshing: bool,
    },
    /// It had nothing usable; the answer was offered to it.
    Miss {
        /// Whether it took the answer in.
        stored: bool,
        /// Whether the answer was read by another request that asked for the same at the same time.
        shared: bool,
    },
}

/// A write that took place, or is sure to be tried.
#[derive(Clone, Debug)]
pub struct Written {
    /// One change for each write, in order; none for a write that was accepted only.
    pub changes: Vec<Arc<Change>>,
    /// Set if the write waits in a journal: whether it takes place is decided when it is flushed.
    pub accepted: Option<Accepted>,
    /// What the answer waited for, by entity, where that was more than the truth.
    pub acknowledged: BTreeMap<Arc<str>, Ack>,
    /// What the caller should send with later reads to see this write.
    pub token: Token,
    /// Whether it had taken place before, under the same idempotency key.
    pub replayed: bool,
}

/// A write that a journal keeps until it is flushed to the truth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The source that keeps it.
    pub journal: Arc<str>,
    /// The record.
    pub key: Key,
    /// Its place among the writes of its entity.
    pub sequence: u64,
}
