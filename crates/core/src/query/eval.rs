//! The reference meaning of queries: what every source must answer. Used by `memory` and by the tests.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};

use serde_json::Value as Json;

use crate::entity::Entity;
use crate::error::Result;
use crate::query::aggregate::{Aggregate, Grouping, Groups, canonical};
use crate::query::ast::{Comparison, Facet, Filter, Hit, Order, Page, Path, Query, Step};
use crate::query::cursor::Cursor;
use crate::query::search::Search;
use crate::record::{Record, Stored};
use crate::value::{Ordered, Value, order_json};

/// Whether a record satisfies a filter.
pub fn matches(_entity: &Entity, filter: &Filter, record: &Record) -> bool {
    satisfies(filter, record)
}

fn satisfies(filter: &Filter, record: &Record) -> bool {
    match filter {
        Filter::All => true,
        Filter::And(all) => all.iter().all(|f| satisfies(f, record)),
        Filter::Or(any) => any.iter().any(|f| satisfies(f, record)),
        Filter::Not(inner) => !satisfies(inner, record),
        Filter::Compare(path, comparison, given) => {
            any(path, record, |v| v.compares(*comparison, given))
        }
        Filter::In(path, given) => {
            any(path, record, |v| given.iter().any(|g| v.order(g) == Some(Ordering::Equal)))
        }
        Filter::Between(path, low, high) => any(path, record, |v| {
            v.order(low).is_some_and(Ordering::is_ge) && v.order(high).is_some_and(Ordering::is_le)
        }),
        Filter::Like(path, like) => {
            any(path, record, |v| v.text().is_some_and(|text| like.matches(text)))
        }
        Filter::Prefix(path, start) => {
            any(path, record, |v| v.text().is_some_and(|text| text.starts_with(start.as_str())))
        }
        Filter::Contains(path, part) => any(path, record, |v| v.contains(part)),
        Filter::IsNull(path) => !any(path, record, |_| true),
    }
}

/// The values at a path, nulls left out: none means that the path is null there.
///
/// Below a list of objects there is one for each element, below a `json` field at most one, as [`Value::Json`].
pub fn values<'a>(path: &Path, record: &'a Record) -> Vec<Cow<'a, Value>> {
    let mut found = Vec::new();
    any(path, record, |v| {
        found.push(match v {
            At::Value(value) => Cow::Borrowed(value),
            At::Json(json) => Cow::Owned(Value::Json(json.clone())),
        });
        false
    });
    found
}

/// A value that is not null, at the end of a path.
#[derive(Clone, Copy)]
enum At<'a> {
    Value(&'a Value),
    Json(&'a Json),
}

/// Whether any value at the path that is not null passes the test.
fn any<'a>(path: &Path, record: &'a Record, mut test: impl FnMut(At<'a>) -> bool) -> bool {
    let Some(value) = record.values().get(path.field) else { return false };
    match (&path.step, value) {
        (Step::Whole, value) => At::of(value).is_some_and(test),
        (Step::Each(n), Value::Objects(items)) => {
            items.iter().filter_map(|item| At::of(item.get(*n)?)).any(test)
        }
        (Step::Json(steps), Value::Json(json)) => {
            member(json, steps).is_some_and(|json| !json.is_null() && test(At::Json(json)))
        }
        _ => false,
    }
}

fn member<'a>(json: &'a Json, steps: &[String]) -> Option<&'a Json> {
    steps.iter().try_fold(json, |json, step| match json {
        Json::Object(members) => members.get(step),
        Json::Array(items) => items.get(step.parse::<usize>().ok()?),
        _ => None,
    })
}

impl<'a> At<'a> {
    fn of(value: &'a Value) -> Option<Self> {
        match value {
            Value::Null | Value::Json(Json::Null) => None,
            Value::Json(json) => Some(At::Json(json)),
            value => Some(At::Value(value)),
        }
    }

    /// How the value relates to a given one; `None` if their types differ, which happens only in JSON.
    fn order(self, given: &Value) -> Option<Ordering> {
        match (self, given) {
            (At::Value(value), given) => Some(value.order(given)),
            (At::Json(json), Value::Json(given)) => {
                same_type(json, given).then(|| order_json(json, given))
            }
            (At::Json(_), _) => None,
        }
    }

    fn compares(self, comparison: Comparison, given: &Value) -> bool {
        let order = self.order(given);
        match comparison {
            Comparison::Eq => order == Some(Ordering::Equal),
            Comparison::Ne => order != Some(Ordering::Equal),
            Comparison::Lt => order == Some(Ordering::Less),
            Comparison::Lte => order.is_some_and(Ordering::is_le),
            Comparison::Gt => order == Some(Ordering::Greater),
            Comparison::Gte => order.is_some_and(Ordering::is_ge),
        }
    }

    fn text(self) -> Option<&'a str> {
        match self {
            At::Value(value) => value.as_str(),
            At::Json(json) => json.as_str(),
        }
    }

    fn contains(self, part: &Value) -> bool {
        match (self, part) {
            (At::Value(Value::List(items)), part) => {
                items.iter().any(|item| item.order(part).is_eq())
            }
            (At::Value(Value::String(text)), Value::String(part)) => text.contains(part.as_str()),
            (At::Json(Json::String(text)), Value::Json(Json::String(part))) => {
                text.contains(part.as_str())
            }
            (At::Json(Json::Array(items)), Value::Json(part)) => {
                items.iter().any(|item| same_type(item, part) && order_json(item, part).is_eq())
            }
            _ => false,
        }
    }
}

fn same_type(a: &Json, b: &Json) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
}

/// Whether a record belongs to an answer, and its relevance (0 without a search).
fn score(
    entity: &Entity,
    filter: &Filter,
    search: Option<&Search>,
    record: &Record,
) -> Option<f32> {
    if !satisfies(filter, record) {
        return None;
    }
    search.map_or(Some(0.0), |search| search.score(entity, record))
}

/// One page over all records given, in any order.
///
/// Fails with `invalid_input` for a search text that is none.
pub fn page<'a>(
    entity: &Entity,
    query: &Query,
    records: impl Iterator<Item = &'a Stored>,
) -> Result<Page> {
    let search = query.search.as_deref().map(Search::parse).transpose()?;
    let mut facets = vec![BTreeMap::new(); query.facets.len()];
    // The records after the cursor that come first, the last of them on top; one more than the page holds.
    let mut first: BinaryHeap<Row<'_>> = BinaryHeap::with_capacity(query.limit + 2);
    for stored in records {
        let Some(score) = score(entity, &query.filter, search.as_ref(), &stored.record) else {
            continue;
        };
        for (counts, field) in facets.iter_mut().zip(&query.facets) {
            count_facet(counts, stored.record.values().get(*field).unwrap_or(&Value::Null));
        }
        let row = Row { query, stored, score };
        let full = first.len() > query.limit;
        if query.cursor.as_ref().is_none_or(|cursor| row.is_after(cursor))
            && (!full || first.peek().is_none_or(|last| row < *last))
        {
            first.push(row);
            if full {
                first.pop();
            }
        }
    }
    let mut rows = first.into_sorted_vec();
    let more = rows.len() > query.limit;
    rows.truncate(query.limit);
    let score = |row: &Row<'_>| query.by_relevance().then_some(row.score);
    let next = rows
        .last()
        .filter(|_| more)
        .map(|row| Cursor::after(entity, query, row.stored, score(row)));
    let highlighter = search.as_ref().filter(|_| query.highlight);
    let hit = |row: &Row<'_>| Hit {
        stored: row.stored.clone(),
        score: score(row),
        highlights: highlighter
            .map(|s| s.highlight(entity, &row.stored.record))
            .unwrap_or_default(),
    };
    Ok(Page {
        hits: rows.iter().map(hit).collect(),
        next,
        facets: facets.into_iter().map(top_facet).collect(),
    })
}

/// A match in the order of its query.
struct Row<'a> {
    query: &'a Query,
    stored: &'a Stored,
    score: f32,
}

impl Row<'_> {
    fn is_after(&self, cursor: &Cursor) -> bool {
        if !self.query.by_relevance() {
            return is_after(self.query, self.stored, cursor);
        }
        // The greatest score comes first.
        let score = Value::Float(f64::from(self.score));
        let order = cursor.values.first().map_or(Ordering::Equal, |last| last.order(&score));
        order.then_with(|| self.stored.key.cmp(&cursor.key)).is_gt()
    }
}

impl Ord for Row<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_relevance = || other.score.total_cmp(&self.score);
        let first = if self.query.by_relevance() { by_relevance() } else { Ordering::Equal };
        first.then_with(|| order(self.query, self.stored, other.stored))
    }
}

impl PartialOrd for Row<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Row<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Row<'_> {}

/// How two records follow each other: by the query's order, then by key. Relevance is not looked at.
pub fn order(query: &Query, a: &Stored, b: &Stored) -> Ordering {
    order_by(&query.order, |_, path| (value_of(a, path), value_of(b, path)))
        .then_with(|| a.key.cmp(&b.key))
}

/// Whether a record comes after a cursor of an order by fields.
pub fn is_after(query: &Query, stored: &Stored, cursor: &Cursor) -> bool {
    let last = |n| cursor.values.get(n).unwrap_or(&Value::Null);
    order_by(&query.order, |n, path| (value_of(stored, path), last(n)))
        .then_with(|| stored.key.cmp(&cursor.key))
        .is_gt()
}

fn order_by<'v>(
    order: &[Order],
    pair: impl Fn(usize, &Path) -> (&'v Value, &'v Value),
) -> Ordering {
    let mut criteria = order.iter().enumerate().map(|(n, criterion)| {
        let (a, b) = pair(n, &criterion.path);
        if criterion.descending { b.order(a) } else { a.order(b) }
    });
    criteria.find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
}

fn value_of<'v>(stored: &'v Stored, path: &Path) -> &'v Value {
    stored.record.values().get(path.field).unwrap_or(&Value::Null)
}

fn count_facet(counts: &mut BTreeMap<Ordered, u64>, value: &Value) {
    if !value.is_null() {
        *counts.entry(Ordered(canonical(value))).or_default() += 1;
    }
}

/// The most frequent values of a facet; the map gives ties in the order of values.
fn top_facet(counts: BTreeMap<Ordered, u64>) -> Facet {
    let mut facet: Facet = counts.into_iter().map(|(value, count)| (value.0, count)).collect();
    facet.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    facet.truncate(Query::FACET_VALUES);
    facet
}

/// How many of the records match.
///
/// Fails with `invalid_input` for a search text that is none.
pub fn count<'a>(
    entity: &Entity,
    filter: &Filter,
    search: Option<&str>,
    records: impl Iterator<Item = &'a Stored>,
) -> Result<u64> {
    let search = search.map(Search::parse).transpose()?;
    let matching =
        records.filter(|stored| score(entity, filter, search.as_ref(), &stored.record).is_some());
    Ok(matching.count() as u64)
}

/// Groups and totals over the records given.
///
/// Fails with `limit_exceeded` for too many groups and for sums that are too large for their type.
pub fn aggregate<'a>(
    entity: &Entity,
    aggregate: &Aggregate,
    records: impl Iterator<Item = &'a Stored>,
) -> Result<Groups> {
    let mut grouping = Grouping::new(entity, aggregate);
    for stored in records.filter(|stored| satisfies(&aggregate.filter, &stored.record)) {
        grouping.add(&stored.record)?;
    }
    grouping.finish()
}

#[cfg(test)]
mod tests;
