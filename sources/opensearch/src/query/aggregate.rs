//! Groups and totals: counts of groups by the engine, which is exact in that; everything else by the records.

use std::ops::ControlFlow;

use serde::Deserialize;
use serde_json::{Map, Value as Json, json};
use unisono_core::query::aggregate::{Grouping, finish_groups};
use unisono_core::query::{Aggregate, Group, Groups, Metric, Step};
use unisono_core::{Error, ErrorKind, Result, Value};

use crate::codec::from_json;
use crate::error;
use crate::handle::View;
use crate::query::any_long;
use crate::query::ask::{PAGE, Request};
use crate::query::matching::Matching;
use crate::query::rank::Ranking;
use crate::schema::{Layout, Slot};

/// Groups of one request.
const GROUPS_PAGE: usize = 1_000;

#[derive(Deserialize)]
struct Composite {
    #[serde(default)]
    after_key: Option<Json>,
    buckets: Vec<Bucket>,
}

#[derive(Deserialize)]
struct Bucket {
    key: Map<String, Json>,
    doc_count: u64,
}

/// Groups and totals.
pub(crate) async fn aggregate(view: &View<'_>, question: &Aggregate) -> Result<Groups> {
    let layout = &view.handle.layout;
    let matching = Matching::new(layout, &question.filter, None)?;
    if let Some(slots) = countable(layout, question).filter(|_| matching.is_exact())
        && !any_long(view, &matching.query, slots.iter().copied()).await?
    {
        return Ok(finish_groups(question, counted(view, question, &matching, &slots).await?));
    }
    let mut grouping = Grouping::new(&layout.entity, question);
    let ranking = Ranking::by_key(layout, None);
    let walked = view.walk(&matching.query, &ranking, PAGE, |found| {
        if matching.includes(&found.stored.record) {
            grouping.add(&found.stored.record)?;
        }
        Ok(ControlFlow::Continue(()))
    });
    walked.await?;
    grouping.finish()
}

/// The slots to group by, if groups are only counted. The engine adds up everything as doubles, which are not exact.
fn countable<'a>(layout: &'a Layout, question: &Aggregate) -> Option<Vec<&'a Slot>> {
    let counts = question.metrics.iter().all(|(_, metric)| *metric == Metric::Count);
    if !counts || question.unnest.is_some() {
        return None;
    }
    let slot = |path: &unisono_core::query::Path| {
        layout.scalar(path.field).filter(|_| path.step == Step::Whole)
    };
    question.group_by.iter().map(slot).collect()
}

async fn counted(
    view: &View<'_>,
    question: &Aggregate,
    matching: &Matching<'_>,
    slots: &[&Slot],
) -> Result<Vec<Group>> {
    let metrics = |count: u64| {
        let count = Value::Integer(i64::try_from(count).unwrap_or(i64::MAX));
        vec![count; question.metrics.len()]
    };
    if slots.is_empty() {
        let count = view.count(&matching.query).await?;
        return Ok(vec![Group { keys: Vec::new(), metrics: metrics(count) }]);
    }
    let ranking = Ranking::by_key(&view.handle.layout, None);
    let source = |(n, slot): (usize, &&Slot)| json!({n.to_string(): {"terms": {"field": slot.name, "missing_bucket": true}}});
    let sources: Vec<_> = slots.iter().enumerate().map(source).collect();
    let mut groups = Vec::new();
    let mut after = None;
    loop {
        let mut composite = json!({"size": GROUPS_PAGE, "sources": sources});
        if let Some(after) = after {
            composite["after"] = after;
        }
        let aggregations = Map::from_iter([("groups".to_owned(), json!({"composite": composite}))]);
        let request = Request { query: &matching.query, ranking: &ranking, size: 0, aggregations };
        let result = view.search(&request).await?.aggregations.remove("groups").unwrap_or_default();
        let found: Composite = serde_json::from_value(result).map_err(error::unreadable)?;
        let full = found.buckets.len() >= GROUPS_PAGE;
        for bucket in found.buckets {
            let keys =
                slots.iter().enumerate().map(|(n, slot)| key(slot, bucket.key.get(&n.to_string())));
            groups.push(Group {
                keys: keys.collect::<Result<_>>()?,
                metrics: metrics(bucket.doc_count),
            });
        }
        if groups.len() > Aggregate::GROUPS_MAX {
            return Err(Error::new(ErrorKind::LimitExceeded, "there are too many groups")
                .on("aggregate")
                .with("limit", Aggregate::GROUPS_MAX)
                .hint("narrow the filter, or group by a field with fewer values"));
        }
        after = found.after_key.filter(|_| full);
        if after.is_none() {
            return Ok(groups);
        }
    }
}

fn key(slot: &Slot, form: Option<&Json>) -> Result<Value> {
    match form {
        None | Some(Json::Null) => Ok(Value::Null),
        Some(form) => {
            from_json(&slot.ty, form).ok_or_else(|| error::corrupt("an indexed value is none"))
        }
    }
}
