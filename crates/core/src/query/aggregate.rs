//! Groups and totals: the question, and the grouping that every source shares so that all of them agree.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::entity::Entity;
use crate::error::{Error, ErrorKind, Result};
pub use crate::query::accumulator::Accumulator;
use crate::query::ast::{Filter, Path, Step};
use crate::record::Record;
use crate::value::{Ordered, Value};

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

impl Metric {
    /// The path whose values are taken; `None` for a count.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Metric::Count => None,
            Metric::Sum(path) | Metric::Min(path) | Metric::Max(path) | Metric::Avg(path) => {
                Some(path)
            }
        }
    }
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
    /// Where groups and metrics look.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        let metrics = self.metrics.iter().filter_map(|(_, metric)| metric.path());
        self.group_by.iter().chain(metrics)
    }

    /// The groups of one answer if no number is asked for.
    pub const LIMIT_DEFAULT: usize = 100;
    /// The most paths to group by.
    pub const GROUP_BY_MAX: usize = 8;
    /// The most metrics.
    pub const METRICS_MAX: usize = 32;
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

/// Forms groups from records and works out their metrics: for every source that reads records to do so.
pub struct Grouping<'a> {
    entity: &'a Entity,
    aggregate: &'a Aggregate,
    groups: BTreeMap<Vec<Ordered>, Vec<Accumulator>>,
}

impl<'a> Grouping<'a> {
    /// No record taken in yet.
    pub fn new(entity: &'a Entity, aggregate: &'a Aggregate) -> Self {
        Grouping { entity, aggregate, groups: BTreeMap::new() }
    }

    /// Takes in a record that satisfies the filter; its lines one by one when unnesting.
    ///
    /// Fails with `limit_exceeded` above [`Aggregate::GROUPS_MAX`] groups.
    pub fn add(&mut self, record: &Record) -> Result<()> {
        match self.aggregate.unnest {
            None => self.add_line(record, &[]),
            Some(field) => match record.values().get(field) {
                Some(Value::Objects(lines)) => {
                    lines.iter().try_for_each(|line| self.add_line(record, line))
                }
                _ => Ok(()),
            },
        }
    }

    /// The answer, within the aggregate's order and limit.
    pub fn finish(mut self) -> Result<Groups> {
        if self.aggregate.group_by.is_empty() && self.groups.is_empty() {
            self.groups.insert(Vec::new(), accumulators(self.entity, self.aggregate));
        }
        let mut groups = Vec::with_capacity(self.groups.len());
        for (keys, accumulators) in self.groups {
            let metrics = accumulators.into_iter().map(Accumulator::finish).collect::<Result<_>>();
            let metrics = metrics.map_err(|e| e.on("aggregate").of(self.entity.name()))?;
            groups.push(Group { keys: keys.into_iter().map(|key| key.0).collect(), metrics });
        }
        Ok(finish_groups(self.aggregate, groups))
    }

    fn add_line(&mut self, record: &Record, line: &[Value]) -> Result<()> {
        let key = |path| Ordered(group_value(path, record, line));
        let keys: Vec<_> = self.aggregate.group_by.iter().map(key).collect();
        if !self.groups.contains_key(&keys) && self.groups.len() >= Aggregate::GROUPS_MAX {
            return Err(Error::new(ErrorKind::LimitExceeded, "there are too many groups")
                .on("aggregate")
                .of(self.entity.name())
                .with("limit", Aggregate::GROUPS_MAX)
                .hint("narrow the filter, or group by a field with fewer values"));
        }
        let fresh = || accumulators(self.entity, self.aggregate);
        let group = self.groups.entry(keys).or_insert_with(fresh);
        for (accumulator, (_, metric)) in group.iter_mut().zip(&self.aggregate.metrics) {
            accumulator
                .add(metric.path().map_or(&Value::Null, |path| line_value(path, record, line)));
        }
        Ok(())
    }
}

/// Puts worked out groups in order and cuts them to the limit: for every source whose engine forms the groups.
pub fn finish_groups(aggregate: &Aggregate, mut groups: Vec<Group>) -> Groups {
    let total_groups = groups.len() as u64;
    groups.sort_unstable_by(|a, b| order_groups(&aggregate.order, a, b));
    groups.truncate(aggregate.limit);
    Groups { groups, total_groups }
}

fn order_groups(order: &[AggregateOrder], a: &Group, b: &Group) -> Ordering {
    let criteria = order.iter().map(|criterion| {
        let (a, b, index, descending) = match *criterion {
            AggregateOrder::Group { index, descending } => (&a.keys, &b.keys, index, descending),
            AggregateOrder::Metric { index, descending } => {
                (&a.metrics, &b.metrics, index, descending)
            }
        };
        let order = a.get(index).zip(b.get(index)).map_or(Ordering::Equal, |(a, b)| a.order(b));
        if descending { order.reverse() } else { order }
    });
    let keys = a.keys.iter().zip(&b.keys).map(|(a, b)| a.order(b));
    criteria.chain(keys).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
}

/// The one form of all values that are equal to this one: what a group shows does not depend on which it met first.
pub fn canonical(value: &Value) -> Value {
    match value {
        // Adding zero turns a negative zero into a positive one and changes nothing else.
        Value::Float(n) => Value::Float(n + 0.0),
        Value::Json(serde_json::Value::Number(n)) => {
            let whole = crate::value::whole(n).and_then(|n| i64::try_from(n).ok());
            Value::Json(whole.map_or_else(|| n.clone(), Into::into).into())
        }
        other => other.clone(),
    }
}

fn accumulators(entity: &Entity, aggregate: &Aggregate) -> Vec<Accumulator> {
    let of = |(_, metric): &(String, Metric)| {
        let ty = metric.path().map_or(&entity.key_field().ty, |path| path.ty(entity));
        Accumulator::new(metric, ty)
    };
    aggregate.metrics.iter().map(of).collect()
}

fn group_value(path: &Path, record: &Record, line: &[Value]) -> Value {
    match path.step {
        Step::Json(_) => {
            super::eval::values(path, record).first().map_or(Value::Null, |v| canonical(v))
        }
        _ => canonical(line_value(path, record, line)),
    }
}

/// The line's own value below the unnested list, else the record's.
fn line_value<'v>(path: &Path, record: &'v Record, line: &'v [Value]) -> &'v Value {
    let found = match path.step {
        Step::Each(n) => line.get(n),
        _ => record.values().get(path.field),
    };
    found.unwrap_or(&Value::Null)
}

#[cfg(test)]
mod tests;
