//! [`Damage`]: what somebody does to a follower by hand, and how in each kind.

pub(crate) mod mongodb;
pub(crate) mod opensearch;
pub(crate) mod redis;
pub(crate) mod sql;

use std::collections::BTreeMap;

use unisono::engine::verify::report::Divergence;

const CHANGED: u64 = 100;
const DELETED: u64 = 50;
const ADDED: u64 = 50;
/// So many get an earlier version, and so many a later one.
const FORGED: u64 = 10;

/// The key of a record.
pub(crate) fn id(n: u64) -> String {
    format!("item-{n:07}")
}

/// Which records are damaged, and how.
#[derive(Clone, Debug)]
pub(crate) struct Damage {
    records: u64,
    /// Their name is another one.
    pub(crate) changed: Vec<String>,
    /// They are gone.
    pub(crate) deleted: Vec<String>,
    /// The truth has never heard of them.
    pub(crate) added: Vec<String>,
    /// Their version is less by one.
    pub(crate) older: Vec<String>,
    /// Their version is greater by [`Damage::shift`].
    pub(crate) newer: Vec<String>,
}

impl Damage {
    /// Damage all over a number of records.
    pub(crate) fn of(records: u64) -> Self {
        let spread = |from: u64, count: u64| {
            // Every seventh is damaged in no way, so that there is something to write.
            let place = |n: u64| id((from + n * records / count / 2) / 7 * 7 + from % 6 + 1);
            (0..count).map(place).collect::<Vec<_>>()
        };
        Damage {
            records,
            changed: spread(0, CHANGED),
            deleted: spread(1, DELETED),
            added: (0..ADDED).map(|n| format!("{}x", id(n * records / ADDED))).collect(),
            // The version that each gets is that of a record that is not damaged: those of two that are exchanged for each
            // other are no difference to an observed comparison.
            older: spread(5, FORGED),
            newer: spread(3, FORGED),
        }
    }

    /// By how much a version is made greater: to one that another record has.
    pub(crate) fn shift(&self) -> u64 {
        self.records / 4 / 7 * 7 + 1
    }

    /// The number of a record that is not damaged.
    pub(crate) fn untouched(&self, n: u64) -> u64 {
        n % (self.records / 7) * 7
    }

    /// What verification has to say.
    pub(crate) fn classes(&self) -> BTreeMap<String, Divergence> {
        let of = |keys: &[String], class| {
            keys.iter().map(move |key| (key.clone(), class)).collect::<Vec<_>>()
        };
        [
            of(&self.changed, Divergence::Corrupt),
            of(&self.deleted, Divergence::Missing),
            of(&self.added, Divergence::Orphan),
            of(&self.older, Divergence::Stale),
            of(&self.newer, Divergence::Ahead),
        ]
        .concat()
        .into_iter()
        .collect()
    }
}
