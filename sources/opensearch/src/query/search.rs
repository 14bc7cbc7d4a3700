//! Search → engine query: every clause must match, each in any of the search fields. Exact, since the words are ours.

use serde_json::{Value as Json, json};
use unisono_core::query::Search;
use unisono_core::query::search::Clause;

use crate::query::filter::{any, none};
use crate::schema::Layout;

/// The queries that must all match.
pub(crate) fn compile(layout: &Layout, search: &Search) -> Vec<Json> {
    let clause = |clause: &Clause| {
        let fields =
            layout.words.iter().map(|(_, name)| in_field(&format!("words.{name}"), clause));
        let fields: Vec<_> = fields.collect();
        if fields.is_empty() { none() } else { any(fields) }
    };
    search.clauses.iter().map(clause).collect()
}

fn in_field(field: &str, clause: &Clause) -> Json {
    match clause {
        Clause::Word(word) => json!({"term": {field: {"value": word}}}),
        Clause::Prefix(start) => json!({"prefix": {field: {"value": start}}}),
        Clause::Phrase(words) => {
            json!({"match_phrase": {field: {"query": words.join(" "), "analyzer": "whitespace"}}})
        }
    }
}
