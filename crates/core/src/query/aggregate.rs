//! Groups and totals: the question, and the arithmetic that every source shares so that all of them agree.

use crate::query::ast::{Filter, Path};
use crate::value::Value;

/// What is worked out for each group.
#[derive(Clone, Debug, PartialEq)]
pub enum Metric {
    /// How many records, or lines when unnesting.
    Count,
    /// The exact sum of a number; null if there is no value.
    Sum(Path),
    /// The least value.
    Min(Path),
    /// The greatest value.
    Max(Path),
    /// The mean of a number; null if there is no value. See [`Accumulator`] for its exactness.
    Avg(Path),
}

/// What groups are ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AggregateOrder {
    /// The n-th of `group_by`.
    Group {
        /// Index into `group_by`.
        index: usize,
        /// Greatest first.
        descending: bool,
    },
    /// The n-th of `metrics`.
    Metric {
        /// Index into `metrics`.
        index: usize,
        /// Greatest first.
        descending: bool,
    },
}

/// A question for groups and totals.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// Which records; tests on an unnested list select records, not lines.
    pub filter: Filter,
    /// If given, the lines of this list of objects are grouped instead of the records; a record without lines
    /// contributes nothing. Paths with `Each` then mean the line's own value.
    pub unnest: Option<usize>,
    /// What makes a group; empty for one total.
    pub group_by: Vec<Path>,
    /// Name and meaning of each result.
    pub metrics: Vec<(String, Metric)>,
    /// In which order; ties by the groups' own values, ascending.
    pub order: Vec<AggregateOrder>,
    /// How many groups at most, 1 to [`Aggregate::LIMIT_MAX`].
    pub limit: usize,
}

impl Aggregate {
    /// The most groups of one answer.
    pub const LIMIT_MAX: usize = 10_000;
    /// The most distinct groups that are worked out; more are `limit_exceeded`.
    pub const GROUPS_MAX: usize = 1_000_000;
}

/// One group.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// The values of `group_by`.
    pub keys: Vec<Value>,
    /// The values of `metrics`.
    pub metrics: Vec<Value>,
}

/// The answer. Without `group_by` there is always exactly one group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Groups {
    /// The groups within the limit.
    pub groups: Vec<Group>,
    /// How many there are in all.
    pub total_groups: u64,
}

/// Works out one metric over the values of one group; the only arithmetic for aggregates, in every source.
///
/// `Sum` of integers is exact and fails with `limit_exceeded` above 64 bits; of decimals exact at their scale up to
/// 28 digits; of floats a compensated sum. `Avg` of integers and decimals is a decimal rounded half-even to four
/// digits more than the field's scale; of floats a float. `Min` and `Max` use [`Value::order`].
#[derive(Clone, Debug)]
pub struct Accumulator {}
