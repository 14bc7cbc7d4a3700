//! Which records match: an engine query, and what only the record itself can decide.

use serde_json::{Value as Json, json};
use unisono_core::query::{Filter, Search, eval};
use unisono_core::{Record, Result};

use crate::query::{filter, search};
use crate::schema::Layout;

/// A compiled question for records.
pub(crate) struct Matching<'a> {
    /// Finds at least the records that match.
    pub(crate) query: Json,
    layout: &'a Layout,
    /// Decided by the record, because the query finds too many.
    rest: Option<&'a Filter>,
}

impl<'a> Matching<'a> {
    /// Compiles a filter and a search.
    ///
    /// Fails with `invalid_input` for a search text that is none.
    pub(crate) fn new(layout: &'a Layout, filter: &'a Filter, text: Option<&str>) -> Result<Self> {
        let compiled = filter::compile(layout, filter);
        let words = match text.map(Search::parse).transpose()? {
            Some(search) => search::compile(layout, &search),
            None => Vec::new(),
        };
        let query = json!({"bool": {
            "must": words,
            "filter": [compiled.query],
            "must_not": [{"exists": {"field": "deleted"}}],
        }});
        Ok(Matching { query, layout, rest: (!compiled.exact).then_some(filter) })
    }

    /// Whether the query finds no others.
    pub(crate) fn is_exact(&self) -> bool {
        self.rest.is_none()
    }

    /// Whether a record that the query found matches.
    pub(crate) fn includes(&self, record: &Record) -> bool {
        self.rest.is_none_or(|filter| eval::matches(&self.layout.entity, filter, record))
    }
}
