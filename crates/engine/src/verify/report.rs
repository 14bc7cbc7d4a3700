//! What verification finds, as plain data.

use std::sync::Arc;

use serde::Serialize;
use unisono_core::{Position, Version};

/// What to verify.
#[derive(Clone, Debug, Default)]
pub struct VerifyOptions {
    /// Only this entity.
    pub entity: Option<Arc<str>>,
    /// Only this follower.
    pub source: Option<Arc<str>>,
    /// Repair what differs by delivering the truth's current record again.
    pub repair: bool,
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
    /// Records compared.
    pub records: u64,
    /// The position of the truth up to which the follower was compared.
    pub position: Position,
    /// Records that differ; the first [`Comparison::DIFFERENCES_MAX`] of them.
    pub differences: Vec<Difference>,
    /// How many differ in all.
    pub different: u64,
    /// How many of them were repaired.
    pub repaired: u64,
    /// Why the comparison could not be finished.
    pub error: Option<String>,
}

impl Comparison {
    /// The most differences that are listed.
    pub const DIFFERENCES_MAX: usize = 1000;

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
