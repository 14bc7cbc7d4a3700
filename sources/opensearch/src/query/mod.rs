//! Questions: compiled to the engine's queries where they decide exactly, and to a superset otherwise, of which the
//! records themselves decide.

mod aggregate;
mod ask;
mod facets;
mod filter;
mod matching;
mod page;
mod pattern;
mod rank;
mod search;
pub(crate) mod slices;

use std::ops::ControlFlow;

use serde_json::{Value as Json, json};
use unisono_core::query::Filter;
use unisono_core::source::ScanPage;
use unisono_core::{Key, Result};

use crate::handle::View;
use crate::query::ask::PAGE;
use crate::query::matching::Matching;
use crate::query::rank::Ranking;
use crate::schema::Slot;

pub(crate) use aggregate::aggregate;
pub(crate) use page::page;

/// The most documents in one answer: `index.max_result_window`, which indexes are made with unless they are told otherwise.
const WINDOW: usize = 10_000;

/// How many records match.
pub(crate) async fn count(view: &View<'_>, filter: &Filter, search: Option<&str>) -> Result<u64> {
    let layout = &view.handle.layout;
    let matching = Matching::new(layout, filter, search)?;
    if matching.is_exact() {
        return view.count(&matching.query).await;
    }
    let (mut count, by_key) = (0, Ranking::by_key(layout, None));
    let walked = view.walk(&matching.query, &by_key, PAGE, |found| {
        count += u64::from(matching.includes(&found.stored.record));
        Ok(ControlFlow::Continue(()))
    });
    walked.await?;
    Ok(count)
}

/// The records after a key, in the order of keys, at most `limit`.
pub(crate) async fn scan(view: &View<'_>, after: Option<&Key>, limit: usize) -> Result<ScanPage> {
    let layout = &view.handle.layout;
    let matching = Matching::new(layout, &Filter::All, None)?;
    let (mut records, mut end) = (Vec::new(), true);
    let by_key = Ranking::by_key(layout, after);
    let size = limit.saturating_add(1).min(WINDOW);
    let walked = view.walk(&matching.query, &by_key, size, |found| {
        // One more tells that there are any after the last.
        if records.len() == limit {
            end = false;
            return Ok(ControlFlow::Break(()));
        }
        records.push(found.stored);
        Ok(ControlFlow::Continue(()))
    });
    walked.await?;
    Ok(ScanPage { records, end })
}

/// A query for documents with a value, in one of the slots, that is longer than what is indexed of it; `None` if there
/// cannot be any.
fn long_among<'a>(slots: impl Iterator<Item = &'a Slot>) -> Option<Json> {
    let paths: Vec<_> = slots.filter(|slot| slot.may_be_cut()).map(|slot| &slot.path).collect();
    (!paths.is_empty()).then(|| json!({"terms": {"long": paths}}))
}

/// Whether a query finds any such document.
async fn any_long<'a>(
    view: &View<'_>,
    query: &Json,
    slots: impl Iterator<Item = &'a Slot>,
) -> Result<bool> {
    match long_among(slots) {
        Some(long) => Ok(view.count(&json!({"bool": {"filter": [query, long]}})).await? > 0),
        None => Ok(false),
    }
}
