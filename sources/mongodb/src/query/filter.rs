//! Filters as native conditions.
//!
//! A condition is exact, or it holds for more documents than the filter, never for fewer; then the evaluator decides.
//! What makes the difference: a native test also looks inside of arrays, which matters below `json` fields; binary
//! data is ordered by length; and regular expressions are a dialect of their own. A negation of what is not exact
//! says nothing natively.

use mongodb::bson::{Bson, Document, doc};
use serde_json::Value as Json;
use unisono_core::query::{Comparison, Filter, Path, Step, successor};
use unisono_core::{Entity, FieldType, Timestamp, Value};

use crate::codec::{encode, orders_alike, split};
use crate::document::{MICROS, TEXT, has_micros};
use crate::json;
use crate::query::pattern::{containing, literals};

/// A native condition.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Condition {
    /// What the driver is given.
    pub(crate) document: Document,
    /// Whether it holds for the filter's records only.
    pub(crate) exact: bool,
}

impl Condition {
    /// Both conditions.
    pub(crate) fn and(self, other: Condition) -> Condition {
        let document = all(vec![self.document, other.document]);
        Condition { document, exact: self.exact && other.exact }
    }
}

fn exactly(document: Document) -> Condition {
    Condition { document, exact: true }
}

fn roughly(document: Document) -> Condition {
    Condition { document, exact: false }
}

fn nothing() -> Document {
    doc! { "_id": { "$in": [] } }
}

fn all(documents: Vec<Document>) -> Document {
    join("$and", documents.into_iter().filter(|d| !d.is_empty()).collect()).unwrap_or_default()
}

/// Documents under a connective; `None` for no document, the document itself for one.
fn join(connective: &str, mut documents: Vec<Document>) -> Option<Document> {
    match documents.len() {
        0 | 1 => documents.pop(),
        _ => Some(doc! { connective: documents }),
    }
}

/// The condition that a filter's records satisfy.
pub(crate) fn condition(entity: &Entity, filter: &Filter) -> Condition {
    let parts = |filters: &[Filter]| {
        let conditions: Vec<_> = filters.iter().map(|f| condition(entity, f)).collect();
        let exact = conditions.iter().all(|c| c.exact);
        (conditions.into_iter().map(|c| c.document).collect::<Vec<_>>(), exact)
    };
    match filter {
        Filter::All => exactly(Document::new()),
        Filter::And(filters) => {
            let (documents, exact) = parts(filters);
            Condition { document: all(documents), exact }
        }
        Filter::Or(filters) => {
            let (documents, exact) = parts(filters);
            let document = match documents.iter().any(Document::is_empty) {
                true => Document::new(),
                false => join("$or", documents).unwrap_or_else(nothing),
            };
            Condition { document, exact }
        }
        Filter::Not(inner) => match condition(entity, inner) {
            Condition { document, exact: true } if document.is_empty() => exactly(nothing()),
            Condition { document, exact: true } => exactly(doc! { "$nor": [document] }),
            _ => roughly(Document::new()),
        },
        Filter::Compare(path, ..)
        | Filter::In(path, _)
        | Filter::Between(path, ..)
        | Filter::Like(path, _)
        | Filter::Prefix(path, _)
        | Filter::Contains(path, _)
        | Filter::IsNull(path) => test(entity, path, filter),
    }
}

/// The condition of one test.
fn test(entity: &Entity, path: &Path, filter: &Filter) -> Condition {
    let Some(field) = entity.fields().get(path.field) else { return exactly(nothing()) };
    let name = match path.field == entity.key_index() {
        true => "_id",
        false => field.name.as_ref(),
    };
    match (&path.step, &field.ty) {
        (Step::Whole, FieldType::Json) => json_test(name, &[], filter),
        (Step::Json(steps), FieldType::Json) => json_test(name, steps, filter),
        (Step::Whole, FieldType::List(of)) => list_test(name, of, filter),
        (Step::Whole, FieldType::Objects(_)) => match filter {
            Filter::IsNull(_) => exactly(null(name)),
            _ => roughly(present(name)),
        },
        (Step::Whole, ty) => scalar_test(name, ty, filter),
        (Step::Each(n), FieldType::Objects(fields)) => match fields.get(*n) {
            Some(below) if below.ty.is_scalar() => each_test(name, &below.name, &below.ty, filter),
            _ => roughly(Document::new()),
        },
        _ => roughly(Document::new()),
    }
}

fn null(name: &str) -> Document {
    doc! { name: Bson::Null }
}

fn present(name: &str) -> Document {
    doc! { name: { "$ne": Bson::Null } }
}

/// A test of any element of a list of objects.
fn each_test(name: &str, below: &str, ty: &FieldType, filter: &Filter) -> Condition {
    if matches!(filter, Filter::IsNull(_)) {
        return exactly(doc! { name: { "$not": { "$elemMatch": present(below) } } });
    }
    let inner = scalar_test(below, ty, filter);
    Condition { document: doc! { name: { "$elemMatch": inner.document } }, exact: inner.exact }
}

fn list_test(name: &str, of: &FieldType, filter: &Filter) -> Condition {
    match filter {
        Filter::IsNull(_) => exactly(null(name)),
        Filter::Contains(_, part) => match encode(of, part) {
            // No element is a list, so that only elements are compared.
            Some(part) => exactly(doc! { name: { "$elemMatch": { "$eq": part } } }),
            None => roughly(present(name)),
        },
        _ => roughly(present(name)),
    }
}

fn scalar_test(name: &str, ty: &FieldType, filter: &Filter) -> Condition {
    let native = match filter {
        Filter::IsNull(_) => Some(null(name)),
        Filter::Compare(_, comparison, value) => compare(name, ty, *comparison, value),
        Filter::In(_, values) => {
            let each = values.iter().map(|value| compare(name, ty, Comparison::Eq, value));
            match has_micros(ty) {
                true => each
                    .collect::<Option<Vec<_>>>()
                    .map(|each| join("$or", each).unwrap_or_else(nothing)),
                false => (values.iter().map(|v| encode(ty, v)).collect::<Option<Vec<_>>>())
                    .map(|values| doc! { name: { "$in": values } }),
            }
        }
        Filter::Between(_, low, high) => {
            let low = compare(name, ty, Comparison::Gte, low);
            low.zip(compare(name, ty, Comparison::Lte, high)).map(|(a, b)| all(vec![a, b]))
        }
        Filter::Prefix(_, start) if ty.is_text() => Some(begins_with(name, start)),
        _ => None,
    };
    let narrowed = match (native, filter) {
        (Some(document), _) => return exactly(document),
        (None, Filter::Like(_, like)) => like_test(name, &like.0),
        (None, Filter::Contains(_, Value::String(part))) => contains(name, part),
        (None, _) => None,
    };
    roughly(narrowed.unwrap_or_else(|| present(name)))
}

/// A comparison, if the type orders like its BSON and can hold the value.
fn compare(name: &str, ty: &FieldType, comparison: Comparison, value: &Value) -> Option<Document> {
    let equality = matches!(comparison, Comparison::Eq | Comparison::Ne);
    if !equality && !orders_alike(ty) {
        return None;
    }
    if has_micros(ty) {
        let Value::Timestamp(time) = value else { return None };
        return Some(compare_micros(name, comparison, *time));
    }
    let value = encode(ty, value)?;
    Some(match comparison {
        Comparison::Eq => doc! { name: { "$eq": value } },
        // Nothing is unequal to something that is not there.
        Comparison::Ne => doc! { name: { "$nin": [value, Bson::Null] } },
        Comparison::Lt => doc! { name: { "$lt": value } },
        Comparison::Lte => doc! { name: { "$lte": value } },
        Comparison::Gt => doc! { name: { "$gt": value } },
        Comparison::Gte => doc! { name: { "$gte": value } },
    })
}

/// A comparison with a date and the microseconds beside it; none are there for none.
fn compare_micros(name: &str, comparison: Comparison, time: Timestamp) -> Document {
    let (date, micros) = split(time);
    let beside = format!("{MICROS}.{name}");
    let same = |test: Document| doc! { name: { "$eq": date }, beside.as_str(): test };
    let either = |sign: &str, test| doc! { "$or": [{ name: { sign: date } }, same(test)] };
    match comparison {
        Comparison::Eq if micros == 0 => {
            doc! { name: { "$eq": date }, beside.as_str(): Bson::Null }
        }
        Comparison::Lt if micros == 0 => doc! { name: { "$lt": date } },
        Comparison::Gte if micros == 0 => doc! { name: { "$gte": date } },
        Comparison::Eq => same(doc! { "$eq": micros }),
        Comparison::Ne => {
            all(vec![present(name), doc! { "$nor": [compare_micros(name, Comparison::Eq, time)] }])
        }
        Comparison::Lt => either("$lt", doc! { "$not": { "$gte": micros } }),
        Comparison::Lte => either("$lt", doc! { "$not": { "$gt": micros } }),
        Comparison::Gt => either("$gt", doc! { "$gt": micros }),
        Comparison::Gte => either("$gt", doc! { "$gte": micros }),
    }
}

/// Text that begins with another lies in a range, which an index serves.
fn begins_with(name: &str, start: &str) -> Document {
    match successor(start) {
        Some(end) => doc! { name: { "$gte": start, "$lt": end } },
        None => doc! { name: { "$gte": start } },
    }
}

/// What the texts that match a pattern have natively in common; `None` if it is only wildcards.
fn like_test(name: &str, pattern: &str) -> Option<Document> {
    let (start, longest) = literals(pattern);
    let begins = (!start.is_empty()).then(|| begins_with(name, &start));
    let contains = contains(name, &longest).filter(|_| longest != start);
    join("$and", begins.into_iter().chain(contains).collect())
}

fn contains(name: &str, part: &str) -> Option<Document> {
    containing(part).filter(|_| !part.is_empty()).map(|regex| doc! { name: regex })
}

/// A test at a path of a `json` field: never exact, as the native one looks into arrays too.
fn json_test(name: &str, steps: &[String], filter: &Filter) -> Condition {
    if steps.is_empty() && matches!(filter, Filter::IsNull(_)) {
        let nowhere = [name.to_owned(), format!("{TEXT}.{name}")];
        let missing = nowhere.map(|name| doc! { name: { "$exists": false } });
        return exactly(all(missing.into()));
    }
    let there = || doc! { name: { "$exists": true } };
    let narrowed = match json_path(name, steps) {
        _ if matches!(filter, Filter::IsNull(_)) => return roughly(Document::new()),
        Some(path) => json_narrowed(&path, filter).unwrap_or_else(there),
        None => there(),
    };
    // What stands as text is looked at by the evaluator alone.
    let text = format!("{TEXT}.{name}");
    roughly(doc! { "$or": [narrowed, { text: { "$exists": true } }] })
}

/// The native path below a field; `None` if a step would be understood differently.
fn json_path(name: &str, steps: &[String]) -> Option<String> {
    let mut path = name.to_owned();
    for step in steps {
        let plain_number = step.parse::<usize>().map_or(true, |n| n.to_string() == *step);
        if !json::is_name(step) || !plain_number {
            return None;
        }
        path.push('.');
        path.push_str(step);
    }
    Some(path)
}

fn json_narrowed(path: &str, filter: &Filter) -> Option<Document> {
    Some(match filter {
        Filter::Compare(_, comparison, value) => {
            let sign = match comparison {
                Comparison::Eq => "$eq",
                Comparison::Lt => "$lt",
                Comparison::Lte => "$lte",
                Comparison::Gt => "$gt",
                Comparison::Gte => "$gte",
                Comparison::Ne => return None,
            };
            doc! { path: { sign: json_scalar(value)? } }
        }
        Filter::In(_, values) => {
            let values = values.iter().map(json_scalar).collect::<Option<Vec<_>>>()?;
            doc! { path: { "$in": values } }
        }
        Filter::Between(_, low, high) => {
            doc! { path: { "$gte": json_scalar(low)?, "$lte": json_scalar(high)? } }
        }
        Filter::Like(_, like) => like_test(path, &like.0)?,
        Filter::Prefix(_, start) => begins_with(path, start),
        Filter::Contains(_, Value::Json(Json::String(part))) => contains(path, part)?,
        Filter::Contains(_, part) => doc! { path: { "$eq": json_scalar(part)? } },
        _ => return None,
    })
}

/// A JSON value that is compared natively as the evaluator does: not null, no array and no object.
fn json_scalar(value: &Value) -> Option<Bson> {
    match value {
        Value::Json(scalar @ (Json::Bool(_) | Json::Number(_) | Json::String(_))) => {
            // Above 64 bits with sign, a decimal is still exact.
            json::encode(scalar)
                .or_else(|| Some(Bson::Decimal128(scalar.to_string().parse().ok()?)))
        }
        _ => None,
    }
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
