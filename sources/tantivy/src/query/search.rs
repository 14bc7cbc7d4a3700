//! Search → engine query: every clause must match, each in any of the search fields.

use std::ops::Bound;

use tantivy::Term;
use tantivy::query::{
    BooleanQuery, EmptyQuery, InvertedIndexRangeQuery, Occur, PhraseQuery, Query, TermQuery,
};
use tantivy::schema::{Field, IndexRecordOption};
use unisono_core::query::Search;
use unisono_core::query::search::Clause;

use crate::query::filter::successor;
use crate::schema::Layout;

/// Compiles a search; exact.
pub(crate) fn compile(layout: &Layout, search: &Search) -> Box<dyn Query> {
    let clause = |clause: &Clause| {
        let fields = layout.search.iter().map(|(_, field)| in_field(*field, clause));
        let any: Box<dyn Query> = Box::new(BooleanQuery::union(fields.collect()));
        (Occur::Must, any)
    };
    Box::new(BooleanQuery::new(search.clauses.iter().map(clause).collect()))
}

fn in_field(field: Field, clause: &Clause) -> Box<dyn Query> {
    let word = |text: &String| Term::from_field_text(field, text);
    let single = |text| Box::new(TermQuery::new(word(text), IndexRecordOption::WithFreqs));
    match clause {
        Clause::Word(text) => single(text),
        Clause::Prefix(head) => {
            let high = match successor(head.as_bytes()) {
                Some(next) => Bound::Excluded(text_term(field, &next)),
                None => Bound::Unbounded,
            };
            Box::new(InvertedIndexRangeQuery::new(Bound::Included(word(head)), high))
        }
        Clause::Phrase(texts) => match texts.as_slice() {
            [] => Box::new(EmptyQuery),
            [text] => single(text),
            texts => Box::new(PhraseQuery::new(texts.iter().map(word).collect())),
        },
    }
}

/// The successor of a text need not be text.
fn text_term(field: Field, bytes: &[u8]) -> Term {
    let mut term = Term::from_field_text(field, "");
    term.append_bytes(bytes);
    term
}
