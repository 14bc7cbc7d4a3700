//! [`Entry`]: the last write of one truth to one part of a record, with its place in causal order.

use std::cmp::Ordering;

use unisono_core::{Timestamp, Value};

/// A hybrid logical clock: milliseconds since 1970, and a count among what these cannot order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// Milliseconds since 1970.
    pub millis: i64,
    /// Orders writes of the same millisecond, and those made while the clock was behind what had been seen.
    pub count: u32,
}

impl Stamp {
    /// The stamp of a write at a time whose writer had seen another stamp: after both.
    pub fn after(time: Timestamp, seen: Stamp) -> Stamp {
        let millis = time.micros().div_euclid(1_000);
        match millis > seen.millis {
            true => Stamp { millis, count: 0 },
            false => Stamp { millis: seen.millis, count: seen.count.saturating_add(1) },
        }
    }
}

/// The last write of one truth to one part of a record.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its position in the log of its truth.
    pub dot: u64,
    /// The position up to which its truth had taken in the other's writes to the record when it was made.
    pub seen: u64,
    /// When.
    pub stamp: Stamp,
    /// Whether the record was there before its truth was synchronised, so that both may have it from a common past.
    pub old: bool,
    /// Of a counter: what the other truth had counted up to here was of a record that had been deleted since.
    pub reset: u64,
    /// What was written; absent where it is known to be the record itself.
    pub values: Option<Vec<Value>>,
}

impl Entry {
    /// A total order of all that can be known of the last write: of two, the greater one counts. What is known of one
    /// write can differ only by having been learnt earlier or later.
    fn order(&self, other: &Entry) -> Ordering {
        let rank = |e: &Entry| (e.dot, e.seen, e.stamp, !e.old, e.reset);
        rank(self).cmp(&rank(other)).then_with(|| match (&self.values, &other.values) {
            (Some(a), Some(b)) => order(a, b),
            _ => Ordering::Equal,
        })
    }

    /// Whether it says what `other` does not.
    pub fn is_news_to(&self, other: Option<&Entry>) -> bool {
        other.is_none_or(|other| self.order(other).is_gt())
    }
}

fn order(a: &[Value], b: &[Value]) -> Ordering {
    let pairs = a.iter().zip(b).map(|(a, b)| a.order(b));
    pairs.into_iter().find(|o| o.is_ne()).unwrap_or_else(|| a.len().cmp(&b.len()))
}

/// What both truths wrote last to a part of a record, in the order of the identities of their logs.
pub type Pair = [Option<Entry>; 2];

/// How the two stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nobody wrote.
    Nothing,
    /// This one alone, or it had seen the other.
    Of(usize),
    /// Neither had seen the other.
    Concurrent,
}

/// How the last writes of both stand to each other.
pub fn standing(pair: &Pair) -> Standing {
    match pair {
        [None, None] => Standing::Nothing,
        [Some(_), None] => Standing::Of(0),
        [None, Some(_)] => Standing::Of(1),
        [Some(a), Some(b)] => match (a.seen >= b.dot, b.seen >= a.dot) {
            (true, false) => Standing::Of(0),
            (false, true) => Standing::Of(1),
            _ => Standing::Concurrent,
        },
    }
}

/// The number of the one whose write is the newer by its stamp; of equal stamps that of the second truth.
pub fn newer(pair: &Pair) -> usize {
    let stamp = |n: usize| pair[n].as_ref().map(|entry| entry.stamp);
    usize::from(stamp(1) >= stamp(0))
}

/// The greater of what is known on both sides, for each truth: commutative, associative and idempotent.
pub fn join(mine: &Pair, theirs: &Pair) -> Pair {
    let of = |n: usize| match (&mine[n], &theirs[n]) {
        (mine, None) => mine.clone(),
        (None, theirs) => theirs.clone(),
        (Some(a), Some(b)) => Some(match a.order(b) {
            Ordering::Less => b.clone(),
            Ordering::Equal if a.values.is_none() => b.clone(),
            _ => a.clone(),
        }),
    };
    [of(0), of(1)]
}
