//! A search without its search engine: words as parts of text, for as long as no source that searches can be asked.
//!
//! It finds what the words occur in as parts of the search fields, written small, capitalised or all in capitals. It
//! knows no relevance: the order is by key unless another is asked for, and there are no highlights and facets.

use unisono_core::query::search::{Clause, Search};
use unisono_core::query::{Filter, Path, Query};
use unisono_core::{Entity, ErrorKind, Result, Value};

/// Whether a search failed because those who search cannot be asked at present. An entity without any is not meant.
pub(crate) fn is_away(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::TooStale | ErrorKind::RateLimited
    )
}

/// A question without words that finds about the same; `invalid_input` for words that no search takes.
pub(crate) fn without(entity: &Entity, query: &Query, words: &str) -> Result<Query> {
    let filter = query.filter.clone().and(filter(entity, words)?);
    Ok(Query { filter, search: None, highlight: false, facets: Vec::new(), ..query.clone() })
}

/// The records in which each word occurs as a part of a search field.
pub(crate) fn filter(entity: &Entity, words: &str) -> Result<Filter> {
    let paths: Vec<_> = entity.search_fields().map(|(n, _)| Path::whole(n)).collect();
    let words = Search::parse(words)?.clauses.into_iter().flat_map(|clause| match clause {
        Clause::Word(word) | Clause::Prefix(word) => vec![word],
        Clause::Phrase(words) => words,
    });
    let occurs = |word: String| {
        let ways = spellings(&word).into_iter().flat_map(|way| {
            paths.iter().map(move |path| Filter::Contains(path.clone(), Value::String(way.clone())))
        });
        Filter::Or(ways.collect())
    };
    Ok(Filter::And(words.map(occurs).collect()))
}

/// `word`, `Word` and `WORD`, as far as they differ.
fn spellings(word: &str) -> Vec<String> {
    let mut chars = word.chars();
    let first = chars.next().map(|c| c.to_uppercase().collect::<String>()).unwrap_or_default();
    let mut ways = vec![word.to_owned(), first + chars.as_str(), word.to_uppercase()];
    ways.dedup();
    ways
}
