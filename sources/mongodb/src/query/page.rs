//! Pages, counts and facets.

use std::collections::{BTreeMap, BTreeSet};

use unisono_core::query::ast::Facet;
use unisono_core::query::{
    Aggregate, AggregateOrder, Cursor, Filter, Hit, Metric, Page, Path, Query, eval,
};
use unisono_core::{Error, Result, Stored, Value};

use crate::client::Client;
use crate::collection::Place;
use crate::query::aggregate::aggregate;
use crate::query::filter::condition;
use crate::query::order::{after, sort};
use crate::query::rows::{Rows, Wanted, fields_of};

/// How many records are put in order at a time when the server cannot do it.
const CHUNK: usize = 1000;

/// The page of a query.
pub(crate) async fn page(client: &Client, place: &Place, query: &Query) -> Result<Page> {
    let entity = &place.entity;
    let mut records = match sort(entity, &query.order) {
        Some(sort) => {
            let limit = query.limit.saturating_add(1);
            let mut condition = condition(entity, &query.filter);
            if let Some(cursor) = &query.cursor {
                condition = condition.and(self::condition(entity, &after(entity, query, cursor)));
            }
            let wanted = Wanted { sort: Some(sort), limit: Some(limit), fields: None };
            let mut rows = Rows::ask(client, place, &query.filter, condition, wanted).await?;
            let mut records = Vec::with_capacity(limit);
            while records.len() < limit {
                let Some(stored) = rows.next().await? else { break };
                let is_after = |cursor| eval::is_after(query, &stored, cursor);
                if query.cursor.as_ref().is_none_or(is_after) {
                    records.push(stored);
                }
            }
            records
        }
        None => in_order(client, place, query).await?,
    };
    let more = records.len() > query.limit;
    records.truncate(query.limit);
    let last = records.last().filter(|_| more);
    let next = last.map(|last| Cursor::after(entity, query, last, None));
    let mut facets = Vec::with_capacity(query.facets.len());
    for field in &query.facets {
        facets.push(facet(client, place, &query.filter, *field).await?);
    }
    let hit = |stored| Hit { stored, score: None, highlights: BTreeMap::new() };
    Ok(Page { hits: records.into_iter().map(hit).collect(), next, facets })
}

/// The records of a page and one more, put in order here: all that satisfy the filter are read, but only those that
/// may be on the page are kept.
async fn in_order(client: &Client, place: &Place, query: &Query) -> Result<Vec<Stored>> {
    let entity = &place.entity;
    let one_more =
        Query { limit: query.limit.saturating_add(1), facets: Vec::new(), ..query.clone() };
    let condition = condition(entity, &query.filter);
    let mut rows = Rows::ask(client, place, &query.filter, condition, Wanted::default()).await?;
    let mut kept: Vec<Stored> = Vec::new();
    loop {
        let before = kept.len();
        while kept.len() < before + CHUNK {
            let Some(stored) = rows.next().await? else { break };
            kept.push(stored);
        }
        let end = kept.len() < before + CHUNK;
        let first = eval::page(entity, &one_more, kept.iter())?;
        kept = first.hits.into_iter().map(|hit| hit.stored).collect();
        if end {
            return Ok(kept);
        }
    }
}

/// How many records satisfy a filter.
pub(crate) async fn count(client: &Client, place: &Place, filter: &Filter) -> Result<u64> {
    let condition = condition(&place.entity, filter);
    if condition.exact {
        let filter = place.records(condition.document);
        return client.call(place.documents.count_documents(filter)).await;
    }
    let mut fields = BTreeSet::new();
    fields_of(filter, &mut fields);
    let wanted = Wanted { fields: Some(fields), ..Wanted::default() };
    let mut rows = Rows::ask(client, place, filter, condition, wanted).await?;
    let mut count = 0;
    while rows.next().await?.is_some() {
        count += 1;
    }
    Ok(count)
}

/// The most frequent values of a field among all records that satisfy a filter.
async fn facet(client: &Client, place: &Place, filter: &Filter, field: usize) -> Result<Facet> {
    let path = Path::whole(field);
    if !path.ty(&place.entity).is_scalar() {
        return Err(Error::invalid("only a single value of the record can be a facet"));
    }
    let there = Filter::Not(Box::new(Filter::IsNull(path.clone())));
    let question = Aggregate {
        filter: filter.clone().and(there),
        unnest: None,
        group_by: vec![path],
        metrics: vec![("count".to_owned(), Metric::Count)],
        order: vec![AggregateOrder::Metric { index: 0, descending: true }],
        limit: Query::FACET_VALUES,
    };
    let groups = aggregate(client, place, &question).await?.groups;
    let counted = groups.into_iter().filter_map(|mut group| match group.metrics.pop() {
        Some(Value::Integer(count)) => Some((group.keys.pop()?, count.unsigned_abs())),
        _ => None,
    });
    Ok(counted.collect())
}
