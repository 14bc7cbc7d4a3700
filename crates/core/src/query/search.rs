//! Full-text search: how text becomes words, what a search asks for, and how hits are shown.

use std::collections::{BTreeMap, BTreeSet};

use crate::entity::{Entity, Field};
use crate::error::{Error, Result};
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
pub fn words(text: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut rest = 0;
    while let Some(skipped) = text[rest..].find(char::is_alphanumeric) {
        let start = rest + skipped;
        let end =
            text[start..].find(|c: char| !c.is_alphanumeric()).map_or(text.len(), |n| start + n);
        let lower: String = text[start..end].chars().flat_map(char::to_lowercase).collect();
        if lower.len() <= Search::WORD_BYTES_MAX {
            words.push(Word { text: lower, start, end });
        }
        rest = end;
    }
    words
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

impl Clause {
    fn of_words(mut words: Vec<String>) -> Option<Clause> {
        match words.len() {
            0 => None,
            1 => words.pop().map(Clause::Word),
            _ => Some(Clause::Phrase(words)),
        }
    }

    /// The indexes of the words at which the clause is found; each occurrence covers [`Clause::len`] words.
    fn found_in<'a>(&'a self, words: &'a [Word]) -> impl Iterator<Item = usize> + 'a {
        words.windows(self.len()).enumerate().filter(|(_, at)| self.is_at(at)).map(|(n, _)| n)
    }

    /// How many words one occurrence has; at least one.
    fn len(&self) -> usize {
        match self {
            Clause::Word(_) | Clause::Prefix(_) => 1,
            Clause::Phrase(words) => words.len().max(1),
        }
    }

    fn is_at(&self, at: &[Word]) -> bool {
        match self {
            Clause::Word(word) => at.iter().all(|w| w.text == *word),
            Clause::Prefix(start) => at.iter().all(|w| w.text.starts_with(start.as_str())),
            Clause::Phrase(words) => at.iter().map(|w| &w.text).eq(words),
        }
    }
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
    /// About how many characters of a text a highlight shows.
    pub const HIGHLIGHT_CHARS: usize = 240;

    /// Parses a search text. No input is a syntax error except one without any word, one too long, or one with
    /// too many clauses: all are `invalid_input`.
    ///
    /// A token that is several words, such as `ice-cream`, is a phrase; a quotation mark that is not closed reaches
    /// to the end. Of `ice-crea*` the last word is a prefix of its own.
    pub fn parse(text: &str) -> Result<Search> {
        if text.len() > Self::BYTES_MAX {
            return Err(Error::invalid("the search text is too long")
                .with("bytes", text.len())
                .with("limit", Self::BYTES_MAX));
        }
        let mut clauses = Vec::new();
        for (n, part) in text.split('"').enumerate() {
            if n % 2 == 1 {
                clauses.extend(Clause::of_words(texts(part)));
            } else {
                part.split_whitespace().for_each(|token| clauses.extend(bare(token)));
            }
        }
        let mut seen: Vec<Clause> = Vec::with_capacity(clauses.len());
        for clause in clauses {
            if !seen.contains(&clause) {
                seen.push(clause);
            }
        }
        if seen.is_empty() {
            return Err(Error::invalid("the search text has no word").hint(
                "search for at least one word of letters or digits, at most 200 bytes long",
            ));
        }
        if seen.len() > Self::CLAUSES_MAX {
            return Err(
                Error::invalid("the search has too many words").with("limit", Self::CLAUSES_MAX)
            );
        }
        Ok(Search { clauses: seen })
    }

    /// Whether a record matches, by its text fields with `search = true`: the reference meaning.
    pub fn matches(&self, entity: &Entity, record: &Record) -> bool {
        self.score(entity, record).is_some()
    }

    /// The reference relevance of a record: how often the clauses occur in it; `None` if it does not match.
    pub fn score(&self, entity: &Entity, record: &Record) -> Option<f32> {
        let fields: Vec<_> = search_texts(entity, record).map(|(_, text)| words(text)).collect();
        let mut score = 0;
        for clause in &self.clauses {
            let found: usize = fields.iter().map(|words| clause.found_in(words).count()).sum();
            if found == 0 {
                return None;
            }
            score += found;
        }
        Some(score as f32)
    }

    /// The matching search fields with `<mark>` around matching words, HTML-escaped; long texts are cut to about
    /// 240 characters around the first match.
    pub fn highlight(&self, entity: &Entity, record: &Record) -> BTreeMap<String, String> {
        let mut shown = BTreeMap::new();
        for (field, text) in search_texts(entity, record) {
            let words = words(text);
            let found = |clause: &Clause| {
                let len = clause.len();
                clause.found_in(&words).flat_map(|n| n..n + len).collect::<Vec<_>>()
            };
            let marked: BTreeSet<usize> = self.clauses.iter().flat_map(found).collect();
            if let Some(first) = marked.first().and_then(|n| words.get(*n)) {
                let marked =
                    words.iter().enumerate().filter(|(n, _)| marked.contains(n)).map(|(_, w)| w);
                shown.insert(field.name.to_string(), excerpt(text, first, marked));
            }
        }
        shown
    }
}

/// The clauses of a token outside quotation marks.
fn bare(token: &str) -> Vec<Clause> {
    let mut found = words(token);
    let prefix = match found.last() {
        Some(last) if token[last.end..].starts_with('*') => {
            found.pop().map(|w| Clause::Prefix(w.text))
        }
        _ => None,
    };
    Clause::of_words(found.into_iter().map(|w| w.text).collect())
        .into_iter()
        .chain(prefix)
        .collect()
}

fn texts(text: &str) -> Vec<String> {
    words(text).into_iter().map(|w| w.text).collect()
}

fn search_texts<'a>(
    entity: &'a Entity,
    record: &'a Record,
) -> impl Iterator<Item = (&'a Field, &'a str)> {
    entity.search_fields().filter_map(|(n, field)| Some((field, record.values().get(n)?.as_str()?)))
}

/// The text around `first`, escaped, with marks; `…` where it was cut.
fn excerpt<'a>(text: &str, first: &Word, marked: impl Iterator<Item = &'a Word>) -> String {
    let (from, to) = window(text, first);
    let mut out = String::with_capacity(to - from + 64);
    if from > 0 {
        out.push('…');
    }
    let mut at = from;
    for word in marked.take_while(|w| w.end <= to) {
        escape(&text[at..word.start], &mut out);
        out.push_str("<mark>");
        escape(&text[word.start..word.end], &mut out);
        out.push_str("</mark>");
        at = word.end;
    }
    escape(&text[at..to], &mut out);
    if to < text.len() {
        out.push('…');
    }
    out
}

/// The byte range shown: the whole of a short text; of a long one a third before the first match, and the rest
/// from it on. Never cuts the match itself.
fn window(text: &str, first: &Word) -> (usize, usize) {
    if text.chars().nth(Search::HIGHLIGHT_CHARS).is_none() {
        return (0, text.len());
    }
    let before = Search::HIGHLIGHT_CHARS / 3;
    let from = text[..first.start].char_indices().rev().nth(before - 1).map_or(0, |(n, _)| n);
    // Begin after a space, so that no half word leads, if there is one before the match.
    let from = match (from, text[from..first.start].find(char::is_whitespace)) {
        (0, _) | (_, None) => from,
        (_, Some(n)) => text[from + n..].char_indices().nth(1).map_or(from, |(m, _)| from + n + m),
    };
    let to = text[from..]
        .char_indices()
        .nth(Search::HIGHLIGHT_CHARS)
        .map_or(text.len(), |(n, _)| from + n);
    (from, to.max(first.end))
}

fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests;
