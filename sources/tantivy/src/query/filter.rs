//! Filter → engine query. What the index cannot decide exactly becomes a superset, decided by the record itself.

use std::ops::Bound;

use tantivy::Term;
use tantivy::query::{AllQuery, BooleanQuery, EmptyQuery, Occur, Query, TermQuery, TermSetQuery};
use tantivy::schema::IndexRecordOption;
use unisono_core::query::{Comparison, Filter, Like, Path, Step};
use unisono_core::{FieldType, Value};

use crate::codec::{self, Form, INDEXED_BYTES_MAX};
use crate::query::lookup::term;
use crate::query::range::Within;
use crate::schema::{Layout, Mark, Slot};

/// An engine query that finds at least the records that a filter means.
pub(crate) struct Compiled {
    /// The query.
    pub(crate) query: Box<dyn Query>,
    /// Whether it finds no others.
    pub(crate) exact: bool,
}

impl Compiled {
    fn exact(query: impl Query) -> Self {
        Compiled { query: Box::new(query), exact: true }
    }

    fn superset(query: impl Query) -> Self {
        Compiled { query: Box::new(query), exact: false }
    }
}

/// Compiles a filter.
pub(crate) fn compile(layout: &Layout, filter: &Filter) -> Compiled {
    match filter {
        Filter::All => Compiled::exact(AllQuery),
        Filter::And(all) => combine(layout, Occur::Must, all),
        Filter::Or(any) => combine(layout, Occur::Should, any),
        Filter::Not(inner) => {
            let inner = compile(layout, inner);
            // The complement of a superset says nothing.
            if inner.exact {
                Compiled::exact(not(inner.query))
            } else {
                Compiled::superset(AllQuery)
            }
        }
        Filter::IsNull(path) => match layout.code(path) {
            Some(code) => Compiled::exact(mark(layout, Mark::Null, code)),
            None => Compiled::superset(AllQuery),
        },
        Filter::Compare(path, comparison, value) => match element(layout, path, value) {
            Some((slot, form)) => compare(slot, *comparison, &form),
            None => present(layout, path),
        },
        Filter::In(path, values) => one_of(layout, path, values),
        Filter::Between(path, low, high) => {
            match (element(layout, path, low), element(layout, path, high)) {
                (Some((slot, low)), Some((_, high))) => between(slot, &low, &high),
                _ => present(layout, path),
            }
        }
        Filter::Prefix(path, prefix) => match text_slot(layout, path) {
            Some(slot) => begins_with(slot, prefix.as_bytes()),
            None => present(layout, path),
        },
        Filter::Like(path, pattern) => match text_slot(layout, path) {
            Some(slot) => {
                Compiled { exact: false, ..begins_with(slot, literal_head(pattern).as_bytes()) }
            }
            None => present(layout, path),
        },
        Filter::Contains(path, value) => contains(layout, path, value),
    }
}

fn combine(layout: &Layout, occur: Occur, parts: &[Filter]) -> Compiled {
    let parts: Vec<_> = parts.iter().map(|part| compile(layout, part)).collect();
    let exact = parts.iter().all(|part| part.exact);
    if parts.is_empty() {
        return match occur {
            Occur::Must => Compiled::exact(AllQuery),
            _ => Compiled::exact(EmptyQuery),
        };
    }
    let clauses = parts.into_iter().map(|part| (occur, part.query)).collect();
    Compiled { query: Box::new(BooleanQuery::new(clauses)), exact }
}

/// A scalar path with a value of its type in native form.
///
/// A list as a whole has no such form, although its elements are indexed under its path, nor has a decimal that the
/// declared scale cannot hold.
fn element<'a>(layout: &'a Layout, path: &Path, value: &Value) -> Option<(&'a Slot, Form)> {
    let slot = layout.slot(path)?;
    if matches!((&path.step, path.ty(&layout.entity)), (Step::Whole, FieldType::List(_))) {
        return None;
    }
    Some((slot, codec::to_form(&slot.ty, value)?))
}

fn text_slot<'a>(layout: &'a Layout, path: &Path) -> Option<&'a Slot> {
    let slot = layout.slot(path)?;
    path.ty(&layout.entity).is_text().then_some(slot)
}

/// All that the index knows of a test it cannot make: no test but `IsNull` is satisfied by null.
fn present(layout: &Layout, path: &Path) -> Compiled {
    match layout.code(&Path { field: path.field, step: Step::Whole }) {
        Some(code) => Compiled::superset(not(Box::new(mark(layout, Mark::Null, code)))),
        None => Compiled::superset(AllQuery),
    }
}

fn compare(slot: &Slot, comparison: Comparison, form: &Form) -> Compiled {
    let (at, exact) = limit(form);
    // Beside a value that was cut, every bound is taken in, and the record decides.
    let beside = |at| if exact { Bound::Excluded(at) } else { Bound::Included(at) };
    let within = |low, high| Box::new(Within::new(slot, low, high));
    let query: Box<dyn Query> = match comparison {
        Comparison::Eq => Box::new(TermQuery::new(term(slot, &at), IndexRecordOption::Basic)),
        Comparison::Ne => Box::new(BooleanQuery::union(vec![
            within(Bound::Unbounded, beside(at.clone())),
            within(beside(at), Bound::Unbounded),
        ])),
        Comparison::Lt => within(Bound::Unbounded, beside(at)),
        Comparison::Lte => within(Bound::Unbounded, Bound::Included(at)),
        Comparison::Gt => within(beside(at), Bound::Unbounded),
        Comparison::Gte => within(Bound::Included(at), Bound::Unbounded),
    };
    Compiled { query, exact }
}

fn between(slot: &Slot, low: &Form, high: &Form) -> Compiled {
    if low > high {
        return Compiled::exact(EmptyQuery);
    }
    let ((low, low_exact), (high, high_exact)) = (limit(low), limit(high));
    let within = Within::new(slot, Bound::Included(low), Bound::Included(high));
    Compiled { query: Box::new(within), exact: low_exact && high_exact }
}

fn one_of(layout: &Layout, path: &Path, values: &[Value]) -> Compiled {
    let mut exact = true;
    let mut terms = Vec::with_capacity(values.len());
    for value in values {
        let Some((slot, form)) = element(layout, path, value) else { return present(layout, path) };
        let (form, decided) = limit(&form);
        exact &= decided;
        terms.push(term(slot, &form));
    }
    if terms.is_empty() {
        return Compiled::exact(EmptyQuery);
    }
    Compiled { query: Box::new(TermSetQuery::new(terms)), exact }
}

fn contains(layout: &Layout, path: &Path, value: &Value) -> Compiled {
    let is_list = matches!(path.ty(&layout.entity), FieldType::List(_));
    let slot = layout.slot(path).filter(|_| is_list);
    match slot.and_then(|slot| Some((slot, codec::to_form(&slot.ty, value)?))) {
        Some((slot, form)) => compare(slot, Comparison::Eq, &form),
        None => present(layout, path),
    }
}

fn begins_with(slot: &Slot, prefix: &[u8]) -> Compiled {
    let (head, was_cut) = codec::cut(prefix);
    let low = Bound::Included(Form::Bytes(head.to_vec()));
    let high = successor(head).map_or(Bound::Unbounded, |next| Bound::Excluded(Form::Bytes(next)));
    Compiled { query: Box::new(Within::new(slot, low, high)), exact: !was_cut }
}

/// The least bytes greater than all that begin with `prefix`.
pub(crate) fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|b| *b < u8::MAX)?;
    let mut next = prefix.get(..=last)?.to_vec();
    *next.last_mut()? += 1;
    Some(next)
}

/// The form as far as it is indexed, and whether comparing with it decides: with one that is as long as the index
/// keeps, a value that was cut could be equal or greater.
fn limit(form: &Form) -> (Form, bool) {
    match form {
        Form::Bytes(bytes) if bytes.len() >= INDEXED_BYTES_MAX => {
            (Form::Bytes(codec::cut(bytes).0.to_vec()), false)
        }
        form => (form.clone(), true),
    }
}

/// What every text that matches begins with.
fn literal_head(Like(pattern): &Like) -> String {
    let mut head = String::new();
    let mut rest = pattern.chars();
    while let Some(c) = rest.next() {
        match c {
            '%' | '_' => break,
            '\\' => match rest.next() {
                Some(literal) => head.push(literal),
                None => break,
            },
            c => head.push(c),
        }
    }
    head
}

fn mark(layout: &Layout, mark: Mark, code: u64) -> TermQuery {
    TermQuery::new(Term::from_field_u64(layout.marks, mark.of(code)), IndexRecordOption::Basic)
}

fn not(query: Box<dyn Query>) -> BooleanQuery {
    BooleanQuery::new(vec![(Occur::Must, Box::new(AllQuery)), (Occur::MustNot, query)])
}
