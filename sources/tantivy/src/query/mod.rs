//! Questions: compiled to the engine's queries and columns where they decide exactly, to the records otherwise.

mod facets;
mod filter;
pub(crate) mod lookup;
mod matching;
mod range;
mod rank;
mod search;

use std::collections::BTreeMap;

use tantivy::Term;
use unisono_core::query::aggregate::Grouping;
use unisono_core::query::{Aggregate, Cursor, Filter, Groups, Hit, Page, Query, Search, eval};
use unisono_core::{Result, Stored};

use crate::client::Snapshot;
use crate::query::facets::Facets;
use crate::query::lookup::{fetch, readers};
use crate::query::matching::Matching;
use crate::query::rank::Ranking;
use crate::schema::{Mark, Slot};

/// One page.
pub(crate) fn page(snapshot: &Snapshot, query: &Query) -> Result<Page> {
    let layout = snapshot.layout.as_ref();
    let matching = Matching::new(snapshot, &query.filter, query.search.as_deref())?;
    // One more than asked for tells whether there is a next page.
    let ranking = Ranking::new(layout, query, query.limit.saturating_add(1))?;
    let Some(ranking) = ranking.filter(|r| !any_cut(snapshot, r.slots())) else {
        return page_by_records(snapshot, query, &matching);
    };
    let mut facets = Facets::new(layout, query)?;
    let by_columns = !any_cut(snapshot, facets.slots());
    let scored = ranking.scored();
    let weight = matching.weight(scored)?;
    let mut ranked = Vec::new();
    for (ordinal, segment) in readers(&snapshot.searcher).iter().enumerate() {
        let mut best = ranking.segment(segment)?;
        let mut counts = facets.segment(segment)?;
        matching.each(weight.as_ref(), segment, scored, |m| {
            best.add(m);
            if by_columns {
                counts.count(m.doc);
            }
            Ok(())
        })?;
        ranked.extend(best.finish(ordinal)?);
        if by_columns {
            facets.add(counts)?;
        }
    }
    if !by_columns {
        matching.each_record(|stored| {
            facets.add_record(&stored.record);
            Ok(())
        })?;
    }
    let mut ranked = ranking.merge(ranked);
    let more = ranked.len() > query.limit;
    ranked.truncate(query.limit);
    let search = query.search.as_deref().filter(|_| query.highlight);
    let search = search.map(Search::parse).transpose()?;
    let hits = ranked.into_iter().map(|r| {
        let stored = fetch(snapshot, r.at)?;
        let highlights = search.as_ref().map(|s| s.highlight(&layout.entity, &stored.record));
        let score = scored.then_some(r.score);
        Ok(Hit { stored, score, highlights: highlights.unwrap_or_else(BTreeMap::new) })
    });
    let hits = hits.collect::<Result<Vec<_>>>()?;
    let last = hits.last().filter(|_| more);
    let next = last.map(|hit| Cursor::after(&layout.entity, query, &hit.stored, hit.score));
    Ok(Page { hits, next, facets: facets.finish()? })
}

/// The same from the records themselves: for orders by values that are longer than the index keeps.
fn page_by_records(snapshot: &Snapshot, query: &Query, matching: &Matching<'_>) -> Result<Page> {
    let mut records: Vec<Stored> = Vec::new();
    matching.each_record(|stored| {
        records.push(stored);
        Ok(())
    })?;
    eval::page(&snapshot.layout.entity, query, records.iter())
}

/// How many records match.
pub(crate) fn count(snapshot: &Snapshot, filter: &Filter, search: Option<&str>) -> Result<u64> {
    Matching::new(snapshot, filter, search)?.count()
}

/// Groups and totals.
pub(crate) fn aggregate(snapshot: &Snapshot, aggregate: &Aggregate) -> Result<Groups> {
    let matching = Matching::new(snapshot, &aggregate.filter, None)?;
    let mut grouping = Grouping::new(&snapshot.layout.entity, aggregate);
    matching.each_record(|stored| grouping.add(&stored.record))?;
    grouping.finish()
}

/// Whether any record has a longer value than the index keeps in one of the slots.
fn any_cut<'a>(snapshot: &Snapshot, mut slots: impl Iterator<Item = &'a Slot>) -> bool {
    slots.any(|slot| {
        let cut = Term::from_field_u64(snapshot.layout.marks, Mark::Cut.of(slot.code));
        // If that cannot be read, the records decide, and say what is wrong.
        !snapshot.searcher.doc_freq(&cut).is_ok_and(|records| records == 0)
    })
}
