//! One page of an answer: by the engine alone where it decides exactly, else by the records that it finds.

use std::ops::ControlFlow;

use serde_json::json;
use unisono_core::query::{Cursor, Hit, Page, Query, Search, eval};
use unisono_core::{Result, Value};

use crate::handle::View;
use crate::query::ask::{Found, PAGE, Request};
use crate::query::facets::{Facets, most_frequent};
use crate::query::matching::Matching;
use crate::query::rank::Ranking;
use crate::query::{any_long, long_among};

/// One page.
pub(crate) async fn page(view: &View<'_>, query: &Query) -> Result<Page> {
    let layout = &view.handle.layout;
    let matching = Matching::new(layout, &query.filter, query.search.as_deref())?;
    let facets = Facets::new(layout, query)?;
    let page = match Ranking::new(layout, query) {
        Some(ranking) if matching.is_exact() => {
            by_engine(view, query, &matching, &ranking, &facets).await?
        }
        Some(ranking) if facets.fields.is_empty() => {
            by_order(view, query, &matching, &ranking).await?
        }
        _ => None,
    };
    match page {
        Some(page) => Ok(page),
        None => by_records(view, query, &matching, &facets).await,
    }
}

/// The page from one request; `None` if values decide that are longer than what is indexed.
async fn by_engine(
    view: &View<'_>,
    query: &Query,
    matching: &Matching<'_>,
    ranking: &Ranking<'_>,
    facets: &Facets<'_>,
) -> Result<Option<Page>> {
    let mut aggregations = facets.aggregations();
    let slots = ranking.slots.iter().chain(facets.fields.iter().map(|(_, slot)| slot)).copied();
    if let Some(long) = long_among(slots) {
        aggregations.insert("long".to_owned(), json!({"filter": long}));
    }
    // One more than asked for tells whether there is a next page.
    let size = query.limit.saturating_add(1);
    let request = Request { query: &matching.query, ranking, size, aggregations };
    let mut answer = view.search(&request).await?;
    let long = answer.aggregations.get("long").and_then(|long| long["doc_count"].as_u64());
    if long.unwrap_or(0) > 0 {
        return Ok(None);
    }
    let Some(facets) = facets.of_results(&mut answer.aggregations)? else { return Ok(None) };
    Ok(Some(Page { facets, ..finish(view, query, answer.found)? }))
}

/// The page from records in the order that the engine gives them, as many as it takes.
async fn by_order(
    view: &View<'_>,
    query: &Query,
    matching: &Matching<'_>,
    ranking: &Ranking<'_>,
) -> Result<Option<Page>> {
    if any_long(view, &matching.query, ranking.slots.iter().copied()).await? {
        return Ok(None);
    }
    let mut first = Vec::new();
    let take = |found: Found| {
        if matching.includes(&found.stored.record) {
            first.push(found);
        }
        Ok(if first.len() > query.limit {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    };
    let size = query.limit.saturating_mul(2).clamp(PAGE / 10, PAGE);
    view.walk(&matching.query, ranking, size, take).await?;
    finish(view, query, first).map(Some)
}

/// The page from all records that match, of which no more are kept at a time than a few pages.
async fn by_records(
    view: &View<'_>,
    query: &Query,
    matching: &Matching<'_>,
    facets: &Facets<'_>,
) -> Result<Page> {
    let ranking = match query.by_relevance() {
        true => Ranking::by_relevance(&view.handle.layout),
        false => Ranking::by_key(&view.handle.layout, None),
    };
    let mut counts = facets.counts();
    let mut first: Vec<Found> = Vec::new();
    let most = query.limit.saturating_add(1);
    let take = |found: Found| {
        if matching.includes(&found.stored.record) {
            facets.count(&mut counts, &found.stored.record);
            if query.cursor.as_ref().is_none_or(|cursor| is_after(query, &found, cursor)) {
                first.push(found);
                if first.len() >= most.saturating_mul(2) {
                    keep_first(query, &mut first, most);
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    };
    view.walk(&matching.query, &ranking, PAGE, take).await?;
    keep_first(query, &mut first, most);
    Ok(Page { facets: most_frequent(counts), ..finish(view, query, first)? })
}

fn keep_first(query: &Query, found: &mut Vec<Found>, most: usize) {
    // By relevance they come in their order.
    if !query.by_relevance() {
        found.sort_unstable_by(|a, b| eval::order(query, &a.stored, &b.stored));
    }
    found.truncate(most);
}

fn is_after(query: &Query, found: &Found, cursor: &Cursor) -> bool {
    if !query.by_relevance() {
        return eval::is_after(query, &found.stored, cursor);
    }
    // The greatest score comes first.
    let score = Value::Float(f64::from(found.score));
    let order = cursor.values.first().map_or(std::cmp::Ordering::Equal, |last| last.order(&score));
    order.then_with(|| found.stored.key.cmp(&cursor.key)).is_gt()
}

/// The page of records in order, of which one more than the limit tells that there is another page.
fn finish(view: &View<'_>, query: &Query, mut found: Vec<Found>) -> Result<Page> {
    let entity = &view.handle.layout.entity;
    let more = found.len() > query.limit;
    found.truncate(query.limit);
    let score = |found: &Found| query.by_relevance().then_some(found.score);
    let last = found.last().filter(|_| more);
    let next = last.map(|last| Cursor::after(entity, query, &last.stored, score(last)));
    let search = query.search.as_deref().filter(|_| query.highlight);
    let search = search.map(Search::parse).transpose()?;
    let hit = |found: Found| {
        let highlights = search.as_ref().map(|s| s.highlight(entity, &found.stored.record));
        Hit {
            score: score(&found),
            stored: found.stored,
            highlights: highlights.unwrap_or_default(),
        }
    };
    Ok(Page { hits: found.into_iter().map(hit).collect(), next, facets: Vec::new() })
}
