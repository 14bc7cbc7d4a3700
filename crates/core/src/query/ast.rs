//! The query as data: resolved against an entity, values parsed by type, within limits.

use std::collections::BTreeMap;

use crate::entity::{Entity, FieldType};
use crate::query::cursor::Cursor;
use crate::record::Stored;
use crate::value::Value;

/// Where a value is found in a record, resolved against its entity.
#[derive(Clone, Debug, PartialEq)]
pub struct Path {
    /// The index of the declared field.
    pub field: usize,
    /// What follows below it.
    pub step: Step,
}

/// What follows below a field.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Nothing: the field itself.
    Whole,
    /// The declared sub-field with this index, in every element of a list of objects: any of them may match.
    Each(usize),
    /// The named members below a `json` field; a step that is a number also selects from an array.
    Json(Vec<String>),
}

impl Path {
    /// The field itself.
    pub fn whole(field: usize) -> Self {
        Path { field, step: Step::Whole }
    }

    /// The declared type at the end of the path; `Json` below a `json` field.
    pub fn ty<'a>(&self, entity: &'a Entity) -> &'a FieldType {
        let ty = &entity.fields()[self.field].ty;
        match (&self.step, ty) {
            (Step::Each(n), FieldType::Objects(fields)) => &fields[*n].ty,
            _ => ty,
        }
    }

    /// The text form: `items.product_id`.
    pub fn to_text(&self, entity: &Entity) -> String {
        let field = &entity.fields()[self.field];
        match (&self.step, &field.ty) {
            (Step::Each(n), FieldType::Objects(fields)) => {
                format!("{}.{}", field.name, fields[*n].name)
            }
            (Step::Json(steps), _) => format!("{}.{}", field.name, steps.join(".")),
            _ => field.name.to_string(),
        }
    }
}

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Less.
    Lt,
    /// Less or equal.
    Lte,
    /// Greater.
    Gt,
    /// Greater or equal.
    Gte,
}

/// A text pattern: `%` stands for any characters, `_` for one character, `\` makes the next one literal.
/// Case matters, and a character is a Unicode scalar value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Like(pub String);

impl Like {
    /// Whether a text matches, from its beginning to its end. A `\` at the very end stands for itself.
    pub fn matches(&self, text: &str) -> bool {
        let (mut pattern, mut rest) = (self.0.as_str(), text.chars());
        // Where to go on after a mismatch: the pattern after the last `%`, and the text that it gave up so far.
        let mut retry: Option<(&str, std::str::Chars<'_>)> = None;
        loop {
            let (token, after) = LikeToken::first(pattern);
            if token == LikeToken::Any {
                retry = Some((after, rest.clone()));
                pattern = after;
                continue;
            }
            let mut ahead = rest.clone();
            let fits = match (token, ahead.next()) {
                (LikeToken::End, None) => return true,
                (LikeToken::One, Some(_)) => true,
                (LikeToken::Char(p), Some(c)) => p == c,
                _ => false,
            };
            if fits {
                (pattern, rest) = (after, ahead);
            } else if let Some((after_any, given_up)) = &mut retry {
                if given_up.next().is_none() {
                    return false;
                }
                (pattern, rest) = (*after_any, given_up.clone());
            } else {
                return false;
            }
        }
    }
}

/// One element of a [`Like`] pattern.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LikeToken {
    Any,
    One,
    Char(char),
    End,
}

impl LikeToken {
    /// The first element of a pattern and what follows it.
    fn first(pattern: &str) -> (LikeToken, &str) {
        let mut chars = pattern.chars();
        let token = match chars.next() {
            None => LikeToken::End,
            Some('%') => LikeToken::Any,
            Some('_') => LikeToken::One,
            Some('\\') => LikeToken::Char(chars.next().unwrap_or('\\')),
            Some(c) => LikeToken::Char(c),
        };
        (token, chars.as_str())
    }
}

/// Which records are meant.
///
/// Logic has two values. A null (or absent) value satisfies no test but [`Filter::IsNull`], not even `Ne`;
/// [`Filter::Not`] then turns "does not satisfy" into "satisfies". A path through a list of objects is satisfied
/// if any element satisfies it, and is null if there are no elements or all of them are null there. Below a `json`
/// field only values of the same JSON type compare; others satisfy nothing but `Ne`.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// Every record.
    All,
    /// All of these.
    And(Vec<Filter>),
    /// At least one of these.
    Or(Vec<Filter>),
    /// Not this.
    Not(Box<Filter>),
    /// A value compared with a given one.
    Compare(Path, Comparison, Value),
    /// A value that is one of the given ones.
    In(Path, Vec<Value>),
    /// A value between two given ones, both included.
    Between(Path, Value, Value),
    /// Text that matches a pattern.
    Like(Path, Like),
    /// Text that begins with the given one.
    Prefix(Path, String),
    /// A list that has the given element, or text that has the given part.
    Contains(Path, Value),
    /// Nothing there.
    IsNull(Path),
}

impl Filter {
    /// Both filters, without needless nesting.
    #[must_use]
    pub fn and(self, other: Filter) -> Filter {
        match (self, other) {
            (Filter::All, f) | (f, Filter::All) => f,
            (Filter::And(mut a), Filter::And(b)) => {
                a.extend(b);
                Filter::And(a)
            }
            (Filter::And(mut a), f) => {
                a.push(f);
                Filter::And(a)
            }
            (a, b) => Filter::And(vec![a, b]),
        }
    }

    /// How many tests and connectives the filter has.
    pub fn nodes(&self) -> usize {
        1 + match self {
            Filter::And(all) | Filter::Or(all) => all.iter().map(Filter::nodes).sum(),
            Filter::Not(inner) => inner.nodes(),
            _ => 0,
        }
    }

    /// Where its tests look: a path for each.
    pub fn paths(&self) -> Vec<&Path> {
        match self {
            Filter::All => Vec::new(),
            Filter::And(all) | Filter::Or(all) => all.iter().flat_map(Filter::paths).collect(),
            Filter::Not(inner) => inner.paths(),
            Filter::Compare(path, ..)
            | Filter::In(path, _)
            | Filter::Between(path, ..)
            | Filter::Like(path, _)
            | Filter::Prefix(path, _)
            | Filter::Contains(path, _)
            | Filter::IsNull(path) => vec![path],
        }
    }

    /// How deep connectives are nested; 1 for a single test.
    pub fn depth(&self) -> usize {
        1 + match self {
            Filter::And(all) | Filter::Or(all) => all.iter().map(Filter::depth).max().unwrap_or(0),
            Filter::Not(inner) => inner.depth(),
            _ => 0,
        }
    }
}

/// One criterion of an order. Null is less than every value.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    /// A scalar field of the record itself (its step is [`Step::Whole`]).
    pub path: Path,
    /// Greatest first.
    pub descending: bool,
}

/// A question for records.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// Which records.
    pub filter: Filter,
    /// If given, only records that match these words: see [`Search`](super::Search).
    pub search: Option<String>,
    /// In which order; ties, and an empty order, are decided by the key, ascending.
    /// With `search` and an empty order: by relevance.
    pub order: Vec<Order>,
    /// How many at most, 1 to [`Query::LIMIT_MAX`].
    pub limit: usize,
    /// Where the previous page ended.
    pub cursor: Option<Cursor>,
    /// If given, only these fields are returned; the caller cuts them out, sources return whole records.
    pub fields: Option<Vec<usize>>,
    /// Whether hits show where they match.
    pub highlight: bool,
    /// For which scalar fields to count the most frequent values among all matches, at most
    /// [`Query::FACET_VALUES`] each.
    pub facets: Vec<usize>,
}

impl Query {
    /// The most records of one page.
    pub const LIMIT_MAX: usize = 1000;
    /// The records of one page if none is asked for.
    pub const LIMIT_DEFAULT: usize = 50;
    /// The most sort criteria.
    pub const ORDER_MAX: usize = 8;
    /// The most tests and connectives of a filter.
    pub const FILTER_NODES_MAX: usize = 64;
    /// The deepest nesting of a filter.
    pub const FILTER_DEPTH_MAX: usize = 8;
    /// The longest text of a filter in bytes.
    pub const FILTER_BYTES_MAX: usize = 4096;
    /// The most values of one `in` list.
    pub const IN_VALUES_MAX: usize = 200;
    /// The most facets.
    pub const FACETS_MAX: usize = 16;
    /// The most values of one facet.
    pub const FACET_VALUES: usize = 20;

    /// All records, by key.
    pub fn all() -> Self {
        Query {
            filter: Filter::All,
            search: None,
            order: Vec::new(),
            limit: Self::LIMIT_DEFAULT,
            cursor: None,
            fields: None,
            highlight: false,
            facets: Vec::new(),
        }
    }

    /// Whether the order is by relevance.
    pub fn by_relevance(&self) -> bool {
        self.search.is_some() && self.order.is_empty()
    }
}

/// One record of a page.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// The record.
    pub stored: Stored,
    /// How relevant it is, for a search by relevance; comparable within one answer only.
    pub score: Option<f32>,
    /// For each search field that matches: its text, HTML-escaped, with `<mark>` around matching words.
    pub highlights: BTreeMap<String, String>,
}

/// The most frequent values of one field: `(value, count)`, most frequent first, ties by value; nulls do not count.
pub type Facet = Vec<(Value, u64)>;

/// One page of an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// The records.
    pub hits: Vec<Hit>,
    /// Where the next page begins; `None` if this is the last.
    pub next: Option<Cursor>,
    /// For each facet asked for, in the same order.
    pub facets: Vec<Facet>,
}
