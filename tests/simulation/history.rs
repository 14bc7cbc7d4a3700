//! What happened, as seen from outside the engine: what the truth committed, what callers were told, what caches said.
//! The checkers judge it when everything is over.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use unisono_core::source::Lookup;
use unisono_core::write::{Action, Condition, Write};
use unisono_core::{Change, ErrorKind, Key, Position, Record, Version};

use crate::coverage::Coverage;

/// What happened.
pub(crate) struct History {
    seen: Mutex<Seen>,
    begin: Instant,
    traced: bool,
}

/// Everything that was seen.
#[derive(Default)]
pub(crate) struct Seen {
    /// Every change that the truth committed, whoever was told of it.
    pub(crate) log: BTreeMap<Position, Arc<Change>>,
    /// By key, changes that were acknowledged, and how many sources had them then.
    pub(crate) spread: BTreeMap<Key, Vec<(Position, usize)>>,
    /// Followers that refuse some records.
    pub(crate) refusing: BTreeSet<&'static str>,
    /// Up to where the truth has forgotten its log.
    pub(crate) trimmed: Position,
    /// The last change from before the first life.
    pub(crate) preloaded: Position,
    /// Changes that a caller was told of.
    pub(crate) acknowledged: Vec<Arc<Change>>,
    /// Requests made under an idempotency key, with the effects that callers were told of: where they begin, and how
    /// many changes they are.
    pub(crate) repeated: BTreeMap<String, Vec<(Option<Position>, usize)>>,
    /// Writes that were acknowledged by the journal, by their sequence.
    pub(crate) accepted: BTreeMap<u64, AcceptedWrite>,
    /// Traces of refused writes that an operator had tried again.
    pub(crate) replayed: BTreeSet<String>,
    /// Writes that were refused.
    pub(crate) refusals: Vec<Refusal>,
    /// Reads by key.
    pub(crate) reads: Vec<Read>,
    /// Questions for many records.
    pub(crate) questions: Vec<Question>,
    /// Lookups in caches.
    pub(crate) lookups: Vec<CacheView>,
    /// What was seen to be wrong at once.
    pub(crate) breaches: Vec<String>,
    /// A follower was wiped or set back in this life of the process.
    pub(crate) tampered: bool,
    /// A dead letter was discarded: who comes after that follower may have what it lacks.
    pub(crate) discarded: bool,
    pub(crate) coverage: Coverage,
}

impl Seen {
    /// Whether a caller was told that a request took place, or will be tried.
    pub(crate) fn knows(&self, idempotency: &str) -> bool {
        self.repeated.contains_key(idempotency)
            || self.accepted.values().any(|write| write.trace == idempotency)
    }
}

/// A write that the journal acknowledged.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AcceptedWrite {
    pub(crate) key: Key,
    /// What tells its change in the log, together with the key.
    pub(crate) trace: String,
    /// Whether it replaces the record whatever is there.
    pub(crate) plain: bool,
}

/// What a read demanded and what the answer says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    /// What the answer must contain: the token of a session read, everything committed before a strong one.
    pub(crate) demanded: Position,
    /// The last write of a journal that a session read must see.
    pub(crate) seen: u64,
    /// What the answer says it contains.
    pub(crate) position: Position,
    /// The token given with it.
    pub(crate) token: Position,
    pub(crate) source: Arc<str>,
    pub(crate) stale: bool,
    /// What answered and how, for the message.
    pub(crate) shown: String,
    /// Whether a follower had been wiped or set back in this life of the process.
    pub(crate) tampered: bool,
}

/// One answered read.
pub(crate) struct Read {
    pub(crate) key: Key,
    pub(crate) claim: Claim,
    pub(crate) version: Option<Version>,
    pub(crate) image: Option<Arc<Record>>,
}

/// One answered question: which records have at least so much stock.
pub(crate) struct Question {
    pub(crate) stock_min: i64,
    pub(crate) claim: Claim,
    /// The newest change when the answer came.
    pub(crate) end: Position,
    pub(crate) answer: Answered,
}

/// What a question was answered with.
pub(crate) enum Answered {
    /// Every record that matches.
    Page(BTreeMap<Key, (Version, Arc<Record>)>),
    /// The length of a page that is not the last.
    AtLeast(u64),
    /// Their number.
    Count(u64),
    /// Their number by stock.
    Groups(BTreeMap<i64, u64>),
}

/// One refused write.
pub(crate) struct Refusal {
    pub(crate) idempotency: String,
    pub(crate) key: Key,
    pub(crate) condition: Condition,
    pub(crate) kind: ErrorKind,
    /// The newest change when it was asked for, and when it was refused.
    pub(crate) between: (Position, Position),
}

/// What a cache held when it was asked.
pub(crate) struct CacheView {
    pub(crate) key: Key,
    pub(crate) applied: Position,
    /// Which life of the process and of the cache.
    pub(crate) life: (u64, u64),
    /// The version of the entry, and whether it held a record; `None` without entry.
    pub(crate) entry: Option<(Version, bool)>,
}

impl History {
    pub(crate) fn new(traced: bool) -> Self {
        History { seen: Mutex::default(), begin: Instant::now(), traced }
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Microseconds since the beginning.
    pub(crate) fn micros(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Tells what happens, if the run is traced.
    #[expect(clippy::print_stdout, reason = "a trace is asked for to be read")]
    pub(crate) fn trace(&self, what: impl FnOnce() -> String) {
        if self.traced {
            let text: String = what().chars().take(240).collect();
            println!("{:>12.6}  {text}", self.begin.elapsed().as_secs_f64());
        }
    }

    /// Tells a result, if the run is traced.
    pub(crate) fn trace_result<T: fmt::Debug>(&self, who: &str, result: &unisono_core::Result<T>) {
        self.trace(|| match result {
            Ok(value) => format!("{who} -> {value:?}"),
            Err(error) => format!("{who} -> {error}"),
        });
    }

    /// Counts something that a run must have met.
    pub(crate) fn count(&self, name: &'static str) {
        self.seen().coverage.count(name);
    }

    /// Notes something that is wrong whatever comes later.
    pub(crate) fn breach(&self, what: String) {
        self.trace(|| format!("BREACH {what}"));
        self.seen().breaches.push(what);
    }

    /// The newest change.
    pub(crate) fn head(&self) -> Position {
        self.seen().log.last_key_value().map_or(Position::ZERO, |(position, _)| *position)
    }

    pub(crate) fn committed(&self, changes: &[Arc<Change>]) {
        self.seen().log.extend(changes.iter().map(|c| (c.position, Arc::clone(c))));
    }

    pub(crate) fn acknowledged(&self, changes: &[Arc<Change>], idempotency: Option<&str>) {
        let mut seen = self.seen();
        seen.acknowledged.extend(changes.iter().cloned());
        if let Some(key) = idempotency {
            let effect = (changes.first().map(|c| c.position), changes.len());
            seen.repeated.entry(key.to_owned()).or_default().push(effect);
        }
    }

    /// The journal has acknowledged a write.
    pub(crate) fn accepted(&self, sequence: u64, write: &Write, trace: &str) {
        let plain = matches!(write.action, Action::Put(_)) && write.condition == Condition::None;
        let trace = trace.to_owned();
        let accepted = AcceptedWrite { key: write.key.clone(), trace, plain };
        let before = self.seen().accepted.insert(sequence, accepted.clone());
        match before {
            None => self.count("write accepted"),
            Some(before) if before == accepted => {}
            Some(before) => self.breach(format!(
                "P1: {before:?} and {accepted:?} were both acknowledged as {sequence}"
            )),
        }
    }

    pub(crate) fn looked_up(&self, key: &Key, lookup: &Lookup, life: u64) {
        let entry = lookup.entry.as_ref().map(|e| (e.version, e.stored.is_some()));
        let life = (life, lookup.epoch);
        let view = CacheView { key: key.clone(), applied: lookup.applied, life, entry };
        self.seen().lookups.push(view);
    }
}
