//! What verification finds, as plain data.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use unisono_core::{Position, Version};

/// What to verify.
#[derive(Clone, Debug, Default)]
pub struct VerifyOptions {
    /// Only this entity.
    pub entity: Option<Arc<str>>,
    /// Only this follower.
    pub source: Option<Arc<str>>,
    /// How thoroughly.
    pub depth: Depth,
    /// Repair what differs by delivering the truth's current record again.
    pub repair: bool,
    /// The most records a second that are read back in a deep comparison, or repaired; as many as can be if absent.
    pub rate: Option<u32>,
}

/// How thoroughly followers are compared with the truth; each finds what those before it find.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Depth {
    /// What the follower has acknowledged, by its own word: in milliseconds, whatever it holds.
    Ledger,
    /// Which records it holds and at which versions, summed up by the engines themselves. What was changed without
    /// touching the version is not seen.
    #[default]
    Observed,
    /// The data of every record, read back from both sides.
    Deep,
}

/// How a record differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Divergence {
    /// The follower lacks it.
    Missing,
    /// The follower has an older version.
    Stale,
    /// Same version, other data.
    Corrupt,
    /// The follower has a record that the truth lacks, or that its `where` excludes.
    Orphan,
    /// The follower has a version that the truth never gave.
    Ahead,
}

/// One record that differs.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// Which record.
    pub key: String,
    /// How it differs.
    pub class: Divergence,
    /// The truth's version.
    pub truth: Option<Version>,
    /// The follower's version.
    pub follower: Option<Version>,
    /// Whether it has been repaired and checked again.
    pub repaired: bool,
}

/// The comparison of one follower with the truth.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The entity.
    pub entity: Arc<str>,
    /// The follower's source.
    pub source: Arc<str>,
    /// How thoroughly they were compared.
    pub depth: Depth,
    /// Records compared; of the truth, unless the comparison was deep.
    pub records: u64,
    /// The position of the truth up to which the follower was compared.
    pub position: Position,
    /// Records that differ; the first [`Comparison::DIFFERENCES_MAX`] of them.
    pub differences: Vec<Difference>,
    /// How many differ in all.
    pub different: u64,
    /// How many of them in which way.
    pub classes: BTreeMap<Divergence, u64>,
    /// How many of them were repaired.
    pub repaired: u64,
    /// Why the comparison could not be finished.
    pub error: Option<String>,
}

impl Comparison {
    /// The most differences that are listed.
    pub const DIFFERENCES_MAX: usize = 1000;

    pub(crate) fn new(entity: &Arc<str>, source: &Arc<str>, depth: Depth) -> Self {
        Comparison {
            entity: Arc::clone(entity),
            source: Arc::clone(source),
            depth,
            records: 0,
            position: Position::ZERO,
            differences: Vec::new(),
            different: 0,
            classes: BTreeMap::new(),
            repaired: 0,
            error: None,
        }
    }

    pub(crate) fn add(&mut self, difference: Difference) {
        self.different += 1;
        self.repaired += u64::from(difference.repaired);
        *self.classes.entry(difference.class).or_default() += 1;
        if self.differences.len() < Self::DIFFERENCES_MAX {
            self.differences.push(difference);
        }
    }

    /// Whether every record agrees, or does after repair.
    pub fn agrees(&self) -> bool {
        self.error.is_none() && self.different == self.repaired
    }
}

/// Everything that was compared.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// One for each follower and entity.
    pub comparisons: Vec<Comparison>,
}

impl Report {
    /// Whether every follower agrees with the truth.
    pub fn agrees(&self) -> bool {
        self.comparisons.iter().all(Comparison::agrees)
    }
}

/// How far a verification has come.
#[derive(Clone, Debug, Serialize)]
pub struct Progress {
    /// The entity.
    pub entity: Arc<str>,
    /// The follower's source.
    pub source: Arc<str>,
    /// Records compared so far.
    pub records: u64,
    /// Records of the truth, counted at the start.
    pub total: u64,
    /// Differences so far.
    pub different: u64,
}
