//! Full-text search: how text becomes words, what a search asks for, and how hits are shown.

use crate::entity::Entity;
use crate::error::Result;
use crate::record::Record;

/// One word of a text: lower-cased, with the byte range that it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// Lower-cased.
    pub text: String,
    /// Start of the byte range.
    pub start: usize,
    /// End of the byte range.
    pub end: usize,
}

/// The words of a text: maximal runs of alphanumeric characters (`char::is_alphanumeric`), lower-cased by
/// `char::to_lowercase`. Words longer than [`Search::WORD_BYTES_MAX`] bytes are left out.
/// Every kind that searches must use this, so that all of them find the same.
pub fn words(_text: &str) -> Vec<Word> {
    Vec::new()
}

/// One thing that must be found in a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clause {
    /// The word, in any search field.
    Word(String),
    /// A word beginning like this, in any search field. Written `shel*`.
    Prefix(String),
    /// The words next to each other, in one search field. Written `"ice cream"`.
    Phrase(Vec<String>),
}

/// A search: all clauses must match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// What must be found; never empty.
    pub clauses: Vec<Clause>,
}

impl Search {
    /// Words longer than this are neither indexed nor found.
    pub const WORD_BYTES_MAX: usize = 200;
    /// The most clauses.
    pub const CLAUSES_MAX: usize = 32;
    /// The longest search text in bytes.
    pub const BYTES_MAX: usize = 1024;

    /// Parses a search text. No input is a syntax error except one without any word, one too long, or one with
    /// too many clauses: all are `invalid_input`.
    pub fn parse(_text: &str) -> Result<Search> {
        Err(crate::error::Error::internal("not built"))
    }

    /// Whether a record matches, by its fields with `search = true`: the reference meaning.
    pub fn matches(&self, _entity: &Entity, _record: &Record) -> bool {
        false
    }

    /// The matching search fields with `<mark>` around matching words, HTML-escaped; long texts are cut to about
    /// 240 characters around the first match.
    pub fn highlight(&self, _entity: &Entity, _record: &Record) -> std::collections::BTreeMap<String, String> {
        Default::default()
    }
}
