//! What a run has met: a simulator that never gets into a situation proves nothing about it.

use std::collections::BTreeMap;

/// Everything that a run over many seeds must meet.
pub(crate) const WANTED: &[&str] = &[
    "accepted write repeated",
    "adaptive moved down",
    "adaptive moved up",
    "adaptive write answered by a quorum",
    "adaptive write answered by all",
    "answer lost",
    "append answer lost",
    "batch arrives late",
    "batch taken in after another follower",
    "batch taken in partly",
    "batch taken in twice",
    "cache begins anew",
    "cache fill refused",
    "cache fill taken in",
    "cache goes on",
    "cache hit",
    "cache hit, read again meanwhile",
    "cache hit, stale",
    "checkpoint moved",
    "closed and reopened",
    "commit answer lost",
    "commits gathered",
    "copy again, asked for",
    "copy from nothing",
    "copy of a follower that lags beyond the log",
    "copy step after the first",
    "corrupted by hand",
    "crash",
    "dead letter",
    "dead letter discarded",
    "dead letter forgotten",
    "dead letter replayed",
    "idempotency key reused for another request",
    "hot keys kept",
    "if-match refused",
    "if-match taken",
    "log trimmed",
    "log truncated for a reader",
    "long outage",
    "outage",
    "paused and resumed",
    "process ended quietly",
    "question answered by a follower",
    "question answered by the truth",
    "question answered, stale",
    "read answered by a quorum",
    "read answered by a follower",
    "read answered by the journal",
    "read answered by the truth",
    "read shared",
    "repetition answered from the ledger",
    "restored from another installation",
    "restored from an older copy",
    "restored under the engine",
    "slow for a while",
    "truth takes no commits",
    "verified while clients write",
    "verified with repair while clients write",
    "wiped",
    "wiped under the engine",
    "write accepted",
    "write acknowledged by followers",
    "write committed and not acknowledged",
    "write refused that could not be acknowledged",
    "write flushed",
    "write refused when flushed",
    "write superseded",
    "writes each for itself",
];

/// Counters by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Coverage(BTreeMap<&'static str, u64>);

impl Coverage {
    pub(crate) fn count(&mut self, name: &'static str) {
        debug_assert!(WANTED.contains(&name), "{name} is not on the list");
        *self.0.entry(name).or_default() += 1;
    }

    pub(crate) fn merge(&mut self, other: &Coverage) {
        for (name, count) in &other.0 {
            *self.0.entry(name).or_default() += count;
        }
    }

    /// Each name with its count.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        WANTED.iter().map(|name| (*name, self.0.get(name).copied().unwrap_or(0)))
    }
}
