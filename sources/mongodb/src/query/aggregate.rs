//! Groups and totals: by the server where it is certainly exact, else by core's [`Grouping`] over the fields needed.

use std::collections::BTreeSet;

use mongodb::bson::{Bson, Document, doc};
use unisono_core::query::aggregate::{Accumulator, Group, Grouping, canonical, finish_groups};
use unisono_core::query::{Aggregate, Groups, Metric, Path, Step};
use unisono_core::{Entity, Error, ErrorKind, FieldType, Result, Value};

use crate::client::Client;
use crate::codec::{decode, digits, orders_alike};
use crate::collection::Place;
use crate::document::has_micros;
use crate::query::filter::{Condition, condition};
use crate::query::rows::{Rows, Wanted, fields_of};

/// The digits that a decimal sum of the server keeps.
const SUM_DIGITS: u32 = 34;

/// The groups of an aggregate.
pub(crate) async fn aggregate(
    client: &Client,
    place: &Place,
    aggregate: &Aggregate,
) -> Result<Groups> {
    let condition = condition(&place.entity, &aggregate.filter);
    if condition.exact
        && let Some(stages) = stages(place, aggregate, &condition)
        && let Some(groups) = by_server(client, place, aggregate, stages).await?
    {
        return Ok(groups);
    }
    by_reading(client, place, aggregate, condition).await
}

async fn by_reading(
    client: &Client,
    place: &Place,
    aggregate: &Aggregate,
    condition: Condition,
) -> Result<Groups> {
    let mut fields: BTreeSet<usize> = (aggregate.group_by.iter())
        .chain(aggregate.metrics.iter().filter_map(|(_, metric)| metric.path()))
        .map(|path| path.field)
        .chain(aggregate.unnest)
        .collect();
    if !condition.exact {
        fields_of(&aggregate.filter, &mut fields);
    }
    let wanted = Wanted { fields: Some(fields), ..Wanted::default() };
    let mut rows = Rows::ask(client, place, &aggregate.filter, condition, wanted).await?;
    let mut grouping = Grouping::new(&place.entity, aggregate);
    while let Some(stored) = rows.next().await? {
        grouping.add(&stored.record)?;
    }
    grouping.finish()
}

/// The stages of a pipeline; `None` if the server's answer would not be exact.
fn stages(place: &Place, aggregate: &Aggregate, condition: &Condition) -> Option<Vec<Document>> {
    let entity = &place.entity;
    let mut keys = Document::new();
    for (n, path) in aggregate.group_by.iter().enumerate() {
        let (name, ty) = value_at(entity, aggregate, path)?;
        // Several forms of one value, or one form for a part of it, would make several groups or one too few.
        if !ty.is_scalar() || has_micros(ty) {
            return None;
        }
        keys.insert(format!("k{n}"), doc! { "$ifNull": [name, Bson::Null] });
    }
    let mut group = doc! { "_id": keys };
    for (n, (_, metric)) in aggregate.metrics.iter().enumerate() {
        add_metric(entity, aggregate, n, metric, &mut group)?;
    }
    let mut stages = vec![doc! { "$match": place.records(condition.document.clone()) }];
    if let Some(list) = aggregate.unnest {
        stages.push(doc! { "$unwind": format!("${}", entity.fields().get(list)?.name) });
    }
    stages.push(doc! { "$group": group });
    Some(stages)
}

/// What a path is called in a pipeline, and its type; `None` for what has no single value there.
fn value_at<'a>(
    entity: &'a Entity,
    aggregate: &Aggregate,
    path: &Path,
) -> Option<(String, &'a FieldType)> {
    let field = entity.fields().get(path.field)?;
    match (&path.step, &field.ty) {
        (Step::Whole, ty) if path.field == entity.key_index() => Some(("$_id".to_owned(), ty)),
        (Step::Whole, ty) => Some((format!("${}", field.name), ty)),
        (Step::Each(n), FieldType::Objects(below)) if aggregate.unnest == Some(path.field) => {
            let below = below.get(*n)?;
            Some((format!("${}.{}", field.name, below.name), &below.ty))
        }
        _ => None,
    }
}

/// Adds what a metric needs to a group stage; `None` if the server cannot work it out exactly.
fn add_metric(
    entity: &Entity,
    aggregate: &Aggregate,
    n: usize,
    metric: &Metric,
    group: &mut Document,
) -> Option<()> {
    let Some(path) = metric.path() else {
        group.insert(format!("n{n}"), doc! { "$sum": 1 });
        return Some(());
    };
    let (name, ty) = value_at(entity, aggregate, path)?;
    match metric {
        Metric::Min(_) | Metric::Max(_) if !orders_alike(ty) || has_micros(ty) => return None,
        Metric::Count => {}
        Metric::Min(_) => _ = group.insert(format!("v{n}"), doc! { "$min": &name }),
        Metric::Max(_) => _ = group.insert(format!("v{n}"), doc! { "$max": &name }),
        // The sum of doubles would depend on the order of addition.
        Metric::Sum(_) | Metric::Avg(_) => {
            if !matches!(ty, FieldType::Integer | FieldType::Decimal { .. }) {
                return None;
            }
            let there = doc! { "$cond": [{ "$gt": [&name, Bson::Null] }, 1, 0] };
            group.insert(format!("n{n}"), doc! { "$sum": there });
            group.insert(format!("v{n}"), doc! { "$sum": &name });
            group.insert(format!("least{n}"), doc! { "$min": &name });
            group.insert(format!("greatest{n}"), doc! { "$max": &name });
        }
    }
    Some(())
}

/// The server's groups; `None` if one of them may not be exact.
async fn by_server(
    client: &Client,
    place: &Place,
    aggregate: &Aggregate,
    stages: Vec<Document>,
) -> Result<Option<Groups>> {
    let entity = &place.entity;
    let request = place.documents.aggregate(stages).allow_disk_use(true);
    let mut cursor = client.call(request).await?;
    let mut groups = Vec::new();
    while let Some(document) = client.next(&mut cursor).await? {
        if groups.len() >= Aggregate::GROUPS_MAX {
            return Err(Error::new(ErrorKind::LimitExceeded, "there are too many groups")
                .with("limit", Aggregate::GROUPS_MAX)
                .hint("narrow the filter, or group by a field with fewer values"));
        }
        let Some(group) = group(entity, aggregate, &document)? else { return Ok(None) };
        groups.push(group);
    }
    if groups.is_empty() {
        // One total over nothing is a group all the same.
        return Grouping::new(entity, aggregate).finish().map(Some);
    }
    Ok(Some(finish_groups(aggregate, groups)))
}

fn group(entity: &Entity, aggregate: &Aggregate, document: &Document) -> Result<Option<Group>> {
    let named = document.get_document("_id").ok();
    let mut keys = Vec::with_capacity(aggregate.group_by.len());
    for (n, path) in aggregate.group_by.iter().enumerate() {
        let key = named.and_then(|keys| keys.get(format!("k{n}"))).unwrap_or(&Bson::Null);
        keys.push(canonical(&decode(path.ty(entity), key)?));
    }
    let mut metrics = Vec::with_capacity(aggregate.metrics.len());
    for (n, (_, metric)) in aggregate.metrics.iter().enumerate() {
        match metric_of(entity, n, metric, document)? {
            Some(value) => metrics.push(value),
            None => return Ok(None),
        }
    }
    Ok(Some(Group { keys, metrics }))
}

/// A metric of a group; `None` if it may not be exact.
fn metric_of(
    entity: &Entity,
    n: usize,
    metric: &Metric,
    group: &Document,
) -> Result<Option<Value>> {
    let ty = metric.path().map_or(&entity.key_field().ty, |path| path.ty(entity));
    let value = group.get(format!("v{n}")).unwrap_or(&Bson::Null);
    let count = group.get(format!("n{n}")).and_then(whole);
    match metric {
        Metric::Count => Ok(count.and_then(|n| i64::try_from(n).ok()).map(Value::Integer)),
        Metric::Min(_) | Metric::Max(_) => decode(ty, value).map(|v| Some(canonical(&v))),
        Metric::Sum(_) | Metric::Avg(_) => {
            let scale = if let FieldType::Decimal { scale, .. } = ty { *scale } else { 0 };
            let Some(count) = count.and_then(|n| u64::try_from(n).ok()) else { return Ok(None) };
            let mut total = Accumulator::new(metric, ty);
            if count > 0 {
                let bound = |name| group.get(format!("{name}{n}")).and_then(|b| digits(b, scale));
                let bounds = bound("least").zip(bound("greatest"));
                let fits = bounds.is_some_and(|(least, greatest)| {
                    let most = least.unsigned_abs().max(greatest.unsigned_abs());
                    sum_is_exact(ty, most, count)
                });
                let Some(sum) = digits(value, scale).filter(|_| fits) else { return Ok(None) };
                total.add_exact(sum, count);
            }
            total.finish().map(Some)
        }
    }
}

/// Whether no sum of `count` numbers up to `most` can have left the range in which the server adds exactly.
fn sum_is_exact(ty: &FieldType, most: u128, count: u64) -> bool {
    let limit = match ty {
        FieldType::Decimal { .. } => 10_u128.pow(SUM_DIGITS),
        _ => 1 << 63,
    };
    most.checked_mul(u128::from(count)).is_some_and(|sum| sum < limit)
}

/// A count, in whatever number type the server gives it.
pub(crate) fn whole(bson: &Bson) -> Option<i128> {
    match bson {
        Bson::Double(n) if n.fract() == 0.0 && n.abs() < 9e15 => Some(*n as i128),
        other => digits(other, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_taken_from_the_server_only_within_its_exact_range() {
        let decimal = FieldType::Decimal { precision: 28, scale: 2 };
        let most = 10_u128.pow(28) - 1;
        assert!(sum_is_exact(&decimal, most, 1_000_000));
        assert!(!sum_is_exact(&decimal, most, 1_000_002));
        assert!(sum_is_exact(&FieldType::Integer, (1 << 63) - 1, 1));
        assert!(!sum_is_exact(&FieldType::Integer, 1 << 62, 2));
    }
}
