//! [`State`]: what is known of one record, as both truths last wrote it.

use std::sync::Arc;

use unisono_core::{Record, Timestamp, Value};

use super::entry::{Entry, Pair, Stamp, join};

/// What is known of one record. What two sides know is brought together by [`State::join`], in any order and any
/// number of times, and what the record is follows from it alone ([`Plan::resolve`](super::Plan::resolve)): so sides that
/// know the same hold the same.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Whether the record is there.
    pub exist: Pair,
    /// Its parts, in the order of the plan; empty while nothing is known.
    pub units: Vec<Pair>,
}

/// What a truth wrote to a record by itself since the last merge.
#[derive(Clone, Debug)]
pub struct LocalWrite {
    /// Its position.
    pub dot: u64,
    /// The position up to which everything of the other truth was known before, whatever is remembered of the record.
    pub floor: u64,
    /// When; the beginning of time if that is not known any more.
    pub time: Timestamp,
    /// The record as it is now; `None` if it was deleted.
    pub record: Option<Arc<Record>>,
    /// Whether the record was there before its truth was synchronised.
    pub old: bool,
}

impl State {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.exist.iter().all(Option::is_none)
    }

    /// All that is known on both sides.
    #[must_use]
    pub fn join(&self, other: &State) -> State {
        let units = match (self.units.as_slice(), other.units.as_slice()) {
            ([], units) | (units, []) => units.to_vec(),
            (mine, theirs) => mine.iter().zip(theirs).map(|(a, b)| join(a, b)).collect(),
        };
        State { exist: join(&self.exist, &other.exist), units }
    }

    /// The entries that say what `other` does not. Of a record that is not `there`, its parts do not matter.
    pub fn news_to<'a>(&'a self, other: &'a State, there: bool) -> impl Iterator<Item = &'a Entry> {
        const NONE: &Pair = &[None, None];
        let units = self.units.iter().enumerate().filter(move |_| there);
        let units = units.map(|(n, unit)| (unit, other.units.get(n).unwrap_or(NONE)));
        std::iter::once((&self.exist, &other.exist)).chain(units).flat_map(|(mine, theirs)| {
            let both = mine.iter().zip(theirs);
            both.filter_map(|(mine, theirs)| {
                mine.as_ref().filter(|e| e.is_news_to(theirs.as_ref()))
            })
        })
    }

    /// Whether this says nothing that `other` does not, and `other` nothing about the same writes that this does not. Of
    /// the write at `undated`, of one side, it is left out when it was made.
    pub fn is_within(&self, other: &State, undated: Option<(usize, u64)>) -> bool {
        const NONE: &Pair = &[None, None];
        let units = self.units.iter().enumerate();
        let units = units.map(|(n, unit)| (unit, other.units.get(n).unwrap_or(NONE)));
        let within = |side: usize, mine: &Option<Entry>, theirs: &Option<Entry>| {
            let Some(mine) = mine else { return true };
            let Some(theirs) = theirs else { return false };
            let known = |e: &Entry| (e.dot, e.seen, e.old);
            let values = mine.values.as_ref().zip(theirs.values.as_ref());
            let alike = values.is_none_or(|(mine, theirs)| mine == theirs);
            let dated = mine.stamp <= theirs.stamp || undated == Some((side, theirs.dot));
            mine.dot < theirs.dot || known(mine) == known(theirs) && alike && dated
        };
        std::iter::once((&self.exist, &other.exist))
            .chain(units)
            .all(|(mine, theirs)| (0..2).all(|n| within(n, &mine[n], &theirs[n])))
    }

    /// The greatest stamp.
    pub fn stamp(&self) -> Stamp {
        self.entries().map(|entry| entry.stamp).max().unwrap_or_default()
    }

    /// The position of the last write of a truth.
    pub fn dot(&self, side: usize) -> u64 {
        self.exist[side].as_ref().map_or(0, |entry| entry.dot)
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        std::iter::once(&self.exist).chain(&self.units).flatten().flatten()
    }
}

/// Whether an entry of existence says that the record is there.
pub(super) fn is_there(entry: &Entry) -> bool {
    entry.values.as_deref() == Some(&[Value::Boolean(true)])
}
