//! Sums of versions by slices, which the engine makes of a column that every document has.

use std::ops::ControlFlow;

use serde::Deserialize;
use serde_json::{Map, json};
use unisono_core::query::Filter;
use unisono_core::slice::{Scramble, SliceDigest, Slices};
use unisono_core::{Key, Result, Version};

use crate::error;
use crate::handle::View;
use crate::query::ask::{PAGE, Request};
use crate::query::matching::Matching;
use crate::query::rank::Ranking;

/// Slices of one request. The engine refuses more than 65,535 buckets.
const SLICES_PAGE: usize = 32_768;
/// Ranges of one query. The engine refuses more than 1,024 clauses.
const RANGES_MAX: usize = 1_000;

#[derive(Deserialize)]
struct Buckets {
    buckets: Vec<Bucket>,
}

#[derive(Deserialize)]
struct Bucket {
    key: Slice,
    doc_count: u64,
    one: Sum,
    other: Sum,
}

/// The engine's numbers are doubles. The beginning of a slice is exact in one where it is a multiple of the width below
/// 2^53 widths, which covers all positions; versions above 2^53 may fall into the slice beside their own, which then
/// differs, and is listed.
#[derive(Deserialize)]
struct Slice {
    from: f64,
}

#[derive(Deserialize)]
struct Sum {
    value: f64,
}

/// The digests of an index, in ascending order of slices.
pub(crate) async fn digests(view: &View<'_>, slices: Slices) -> Result<Vec<SliceDigest>> {
    let layout = &view.handle.layout;
    let matching = Matching::new(layout, &Filter::All, None)?;
    let ranking = Ranking::by_key(layout, None);
    let [one, other] = Scramble::BOTH.map(|scramble| {
        let source = format!("long v = doc['version'].value; return {}", scramble.expression("v"));
        json!({"sum": {"script": {"source": source}}})
    });
    let width = slices.width() as f64;
    let (mut digests, mut after) = (Vec::new(), None);
    loop {
        let mut composite = json!({
            "size": SLICES_PAGE,
            "sources": [{"from": {"histogram": {"field": "version", "interval": slices.width()}}}],
        });
        if let Some(from) = after {
            composite["after"] = json!({"from": from});
        }
        let sums = json!({
            "composite": composite,
            "aggs": {"one": one, "other": other},
        });
        let aggregations = Map::from_iter([("slices".to_owned(), sums)]);
        let request = Request { query: &matching.query, ranking: &ranking, size: 0, aggregations };
        let result = view.search(&request).await?.aggregations.remove("slices").unwrap_or_default();
        let found: Buckets = serde_json::from_value(result).map_err(error::unreadable)?;
        after =
            found.buckets.last().map(|b| b.key.from).filter(|_| found.buckets.len() >= SLICES_PAGE);
        digests.extend(found.buckets.into_iter().map(|bucket| SliceDigest {
            slice: (bucket.key.from / width) as u64,
            records: bucket.doc_count,
            sums: [bucket.one.value as u64, bucket.other.value as u64],
        }));
        if after.is_none() {
            return Ok(digests);
        }
    }
}

/// The keys and versions of the records in some slices.
pub(crate) async fn versions(
    view: &View<'_>,
    slices: Slices,
    among: &[u64],
) -> Result<Vec<(Key, Version)>> {
    let layout = &view.handle.layout;
    let matching = Matching::new(layout, &Filter::All, None)?;
    let ranking = Ranking::by_key(layout, None);
    let mut found = Vec::new();
    for ranges in slices.ranges(among).chunks(RANGES_MAX) {
        let range = |range: &std::ops::RangeInclusive<Version>| json!({"range": {"version": {"gte": range.start().as_u64(), "lte": range.end().as_u64()}}});
        let within: Vec<_> = ranges.iter().map(range).collect();
        let query = json!({"bool": {"filter": [matching.query, {"bool": {"should": within}}]}});
        let walked = view.walk(&query, &ranking, PAGE, |hit| {
            found.push((hit.stored.key, hit.stored.version));
            Ok(ControlFlow::Continue(()))
        });
        walked.await?;
    }
    Ok(found)
}
