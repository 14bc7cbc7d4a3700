//! Facets: how often each value of a field occurs among the matches.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value as Json, json};
use unisono_core::query::Query;
use unisono_core::query::aggregate::canonical;
use unisono_core::query::ast::Facet;
use unisono_core::value::Ordered;
use unisono_core::{Error, Record, Result};

use crate::codec::from_json;
use crate::error;
use crate::schema::{Layout, Slot};

/// Values that each shard offers: with fewer in all, the counts of several shards are exact.
const SHARD_VALUES: usize = 1_000;

/// The facets that a query asks for.
pub(crate) struct Facets<'a> {
    /// Field and slot of each.
    pub(crate) fields: Vec<(usize, &'a Slot)>,
}

#[derive(Deserialize)]
struct Terms {
    doc_count_error_upper_bound: i64,
    buckets: Vec<Bucket>,
}

#[derive(Deserialize)]
struct Bucket {
    key: Json,
    doc_count: u64,
}

impl<'a> Facets<'a> {
    /// Fails with `invalid_input` for a field that is not scalar.
    pub(crate) fn new(layout: &'a Layout, query: &Query) -> Result<Self> {
        let slot = |field: &usize| {
            layout.scalar(*field).map(|slot| (*field, slot)).ok_or_else(|| {
                let name = layout.entity.fields().get(*field).map_or("", |f| &f.name);
                Error::invalid("a facet is a scalar field").with("field", name)
            })
        };
        Ok(Facets { fields: query.facets.iter().map(slot).collect::<Result<_>>()? })
    }

    /// The aggregations that count them.
    pub(crate) fn aggregations(&self) -> Map<String, Json> {
        let one = |(n, (_, slot)): (usize, &(usize, &Slot))| {
            let terms = json!({
                "field": slot.name,
                "size": Query::FACET_VALUES,
                "shard_size": SHARD_VALUES,
            });
            (format!("facet{n}"), json!({"terms": terms}))
        };
        self.fields.iter().enumerate().map(one).collect()
    }

    /// The facets from the results; `None` if the engine is not sure of its counts.
    pub(crate) fn of_results(&self, results: &mut Map<String, Json>) -> Result<Option<Vec<Facet>>> {
        let mut facets = Vec::with_capacity(self.fields.len());
        for (n, (_, slot)) in self.fields.iter().enumerate() {
            let result = results.remove(&format!("facet{n}")).unwrap_or_default();
            let terms: Terms = serde_json::from_value(result).map_err(error::unreadable)?;
            if terms.doc_count_error_upper_bound != 0 {
                return Ok(None);
            }
            let value = |bucket: Bucket| {
                let value = from_json(&slot.ty, &bucket.key);
                let value = value.ok_or_else(|| error::corrupt("an indexed value is none"))?;
                Ok((value, bucket.doc_count))
            };
            facets.push(terms.buckets.into_iter().map(value).collect::<Result<_>>()?);
        }
        Ok(Some(facets))
    }

    /// Nothing counted yet.
    pub(crate) fn counts(&self) -> Vec<BTreeMap<Ordered, u64>> {
        vec![BTreeMap::new(); self.fields.len()]
    }

    /// Counts one record by its own values.
    pub(crate) fn count(&self, counts: &mut [BTreeMap<Ordered, u64>], record: &Record) {
        for ((field, _), counts) in self.fields.iter().zip(counts) {
            if let Some(value) = record.values().get(*field).filter(|value| !value.is_null()) {
                *counts.entry(Ordered(canonical(value))).or_default() += 1;
            }
        }
    }
}

/// The most frequent values of each.
pub(crate) fn most_frequent(counts: Vec<BTreeMap<Ordered, u64>>) -> Vec<Facet> {
    let facet = |counts: BTreeMap<Ordered, u64>| {
        let mut facet: Facet = counts.into_iter().map(|(value, count)| (value.0, count)).collect();
        // The sort is stable, and the values were in order.
        facet.sort_by_key(|(_, count)| Reverse(*count));
        facet.truncate(Query::FACET_VALUES);
        facet
    };
    counts.into_iter().map(facet).collect()
}
