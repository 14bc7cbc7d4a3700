//! Which records match: an engine query, and what only the record itself can decide.

use tantivy::query::{BooleanQuery, ConstScoreQuery, EnableScoring, Occur, Query, Weight};
use tantivy::{DocId, SegmentReader};
use unisono_core::query::{Filter, Search, eval};
use unisono_core::{Result, Stored};

use crate::client::Snapshot;
use crate::error::OrError;
use crate::query::lookup::{fetch_from, readers};
use crate::query::{filter, search};

/// How many blocks are kept while records of one segment are read in their order.
const BLOCKS_IN_ORDER: usize = 2;

/// A compiled question for records of one snapshot.
pub(crate) struct Matching<'a> {
    snapshot: &'a Snapshot,
    query: Box<dyn Query>,
    /// Decided by the record, because the index finds too many.
    rest: Option<&'a Filter>,
}

/// A matching record within its segment.
#[derive(Clone, Copy)]
pub(crate) struct Match {
    /// Its place in the segment.
    pub(crate) doc: DocId,
    /// How relevant it is; 0 unless asked for.
    pub(crate) score: f32,
}

impl<'a> Matching<'a> {
    /// Compiles a filter and a search.
    pub(crate) fn new(
        snapshot: &'a Snapshot,
        filter: &'a Filter,
        text: Option<&str>,
    ) -> Result<Self> {
        let compiled = filter::compile(&snapshot.layout, filter);
        let query = match text.map(Search::parse).transpose()? {
            None => compiled.query,
            Some(words) => {
                let words = search::compile(&snapshot.layout, &words);
                match filter {
                    Filter::All => words,
                    // Only the words make a record relevant, not that it passes the filter.
                    _ => Box::new(BooleanQuery::new(vec![
                        (Occur::Must, words),
                        (Occur::Must, Box::new(ConstScoreQuery::new(compiled.query, 0.0))),
                    ])),
                }
            }
        };
        Ok(Matching { snapshot, query, rest: (!compiled.exact).then_some(filter) })
    }

    /// The query, ready to be run on each segment.
    pub(crate) fn weight(&self, scored: bool) -> Result<Box<dyn Weight>> {
        let searcher = &self.snapshot.searcher;
        let scoring = match scored {
            true => EnableScoring::enabled_from_searcher(searcher),
            false => EnableScoring::disabled_from_searcher(searcher),
        };
        self.query.weight(scoring).or_error()
    }

    /// Calls `found` for each match of a segment.
    pub(crate) fn each(
        &self,
        weight: &dyn Weight,
        segment: &SegmentReader,
        scored: bool,
        mut found: impl FnMut(Match) -> Result<()>,
    ) -> Result<()> {
        let entity = &self.snapshot.layout.entity;
        let store = match self.rest {
            Some(_) => Some(segment.get_store_reader(BLOCKS_IN_ORDER).or_error()?),
            None => None,
        };
        let decided = |doc: DocId| match (self.rest, &store) {
            (Some(filter), Some(store)) => {
                Ok(eval::matches(entity, filter, &fetch_from(entity, store, doc)?.record))
            }
            _ => Ok(true),
        };
        let mut outcome = Ok(());
        let mut visit = |m: Match| {
            // The engine cannot be stopped by a callback: after a failure the rest is passed over.
            if outcome.is_ok() && !segment.is_deleted(m.doc) {
                outcome = decided(m.doc).and_then(|yes| if yes { found(m) } else { Ok(()) });
            }
        };
        if scored {
            weight.for_each(segment, &mut |doc, score| visit(Match { doc, score })).or_error()?;
        } else {
            let each = &mut |docs: &[DocId]| {
                docs.iter().for_each(|doc| visit(Match { doc: *doc, score: 0.0 }));
            };
            weight.for_each_no_score(segment, each).or_error()?;
        }
        outcome
    }

    /// How many records match.
    pub(crate) fn count(&self) -> Result<u64> {
        let weight = self.weight(false)?;
        let mut count = 0;
        for segment in readers(&self.snapshot.searcher) {
            match self.rest {
                None => count += u64::from(weight.count(segment).or_error()?),
                Some(_) => self.each(weight.as_ref(), segment, false, |_| {
                    count += 1;
                    Ok(())
                })?,
            }
        }
        Ok(count)
    }

    /// Calls `found` with each matching record, read from the index.
    pub(crate) fn each_record(&self, mut found: impl FnMut(Stored) -> Result<()>) -> Result<()> {
        let weight = self.weight(false)?;
        for segment in readers(&self.snapshot.searcher) {
            let store = segment.get_store_reader(BLOCKS_IN_ORDER).or_error()?;
            self.each(weight.as_ref(), segment, false, |m| {
                found(fetch_from(&self.snapshot.layout.entity, &store, m.doc)?)
            })?;
        }
        Ok(())
    }
}
