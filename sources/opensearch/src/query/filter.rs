//! Filter → engine query. What the index cannot decide exactly becomes a superset, decided by the record itself.

use serde_json::{Value as Json, json};
use unisono_core::query::{Comparison, Filter, Like, Path, Step};
use unisono_core::{FieldType, Value};

use crate::codec::{Form, KEYWORD_CHARS_MAX, head, to_form};
use crate::query::pattern;
use crate::schema::{Layout, Slot};

/// An engine query that finds at least the records that a filter means.
#[derive(Debug)]
pub(crate) struct Compiled {
    /// The query.
    pub(crate) query: Json,
    /// Whether it finds no others.
    pub(crate) exact: bool,
}

impl Compiled {
    fn exact(query: Json) -> Self {
        Compiled { query, exact: true }
    }

    fn superset(query: Json) -> Self {
        Compiled { query, exact: false }
    }
}

/// Compiles a filter.
pub(crate) fn compile(layout: &Layout, filter: &Filter) -> Compiled {
    match filter {
        Filter::All => Compiled::exact(all()),
        Filter::And(parts) => {
            combine(layout, parts, all, |parts| json!({"bool": {"filter": parts}}))
        }
        Filter::Or(parts) => combine(layout, parts, none, any),
        Filter::Not(inner) => {
            let inner = compile(layout, inner);
            // The complement of a superset says nothing.
            if inner.exact { Compiled::exact(not(inner.query)) } else { Compiled::superset(all()) }
        }
        Filter::IsNull(path) => match there(layout, path) {
            Some(there) => Compiled::exact(not(there)),
            None => Compiled::superset(all()),
        },
        Filter::Compare(path, comparison, value) => match element(layout, path, value) {
            Some((slot, form)) => compare(slot, &path.step, *comparison, form),
            None => candidates(layout, path),
        },
        Filter::In(path, values) => one_of(layout, path, values),
        Filter::Between(path, low, high) => {
            match (element(layout, path, low), element(layout, path, high)) {
                (Some((slot, low)), Some((_, high))) => between(slot, low, high),
                _ => candidates(layout, path),
            }
        }
        Filter::Prefix(path, start) => match text_slot(layout, path) {
            Some(slot) => begins_with(slot, start),
            None => candidates(layout, path),
        },
        Filter::Like(path, like) => match text_slot(layout, path) {
            Some(slot) => looks_like(slot, like),
            None => candidates(layout, path),
        },
        Filter::Contains(path, part) => contains(layout, path, part),
    }
}

/// A query that finds every document.
pub(crate) fn all() -> Json {
    json!({"match_all": {}})
}

/// A query that finds none.
pub(crate) fn none() -> Json {
    json!({"match_none": {}})
}

/// A query that finds what one of several finds.
pub(crate) fn any(parts: Vec<Json>) -> Json {
    json!({"bool": {"should": parts, "minimum_should_match": 1}})
}

fn not(query: Json) -> Json {
    json!({"bool": {"must_not": [query]}})
}

fn exists(slot: &Slot) -> Json {
    json!({"exists": {"field": slot.name}})
}

fn combine(
    layout: &Layout,
    parts: &[Filter],
    of_none: fn() -> Json,
    of_some: fn(Vec<Json>) -> Json,
) -> Compiled {
    let parts: Vec<_> = parts.iter().map(|part| compile(layout, part)).collect();
    let exact = parts.iter().all(|part| part.exact);
    let queries: Vec<_> = parts.into_iter().map(|part| part.query).collect();
    let query = if queries.is_empty() { of_none() } else { of_some(queries) };
    Compiled { query, exact }
}

/// A query for the records that have something at a path; `None` if the index does not know.
fn there(layout: &Layout, path: &Path) -> Option<Json> {
    let field = layout.entity.fields().get(path.field)?;
    match path.step {
        Step::Whole if field.ty.is_scalar() => layout.slot(path).map(exists),
        Step::Whole => Some(json!({"term": {"present": &*field.name}})),
        Step::Each(_) => layout.slot(path).map(exists),
        Step::Json(_) => None,
    }
}

/// All that the index knows of a test it cannot make: no test but `IsNull` is satisfied by null.
fn candidates(layout: &Layout, path: &Path) -> Compiled {
    let whole = || there(layout, &Path::whole(path.field));
    Compiled::superset(there(layout, path).or_else(whole).unwrap_or_else(all))
}

/// A scalar path with a value of its type in the form that is indexed.
///
/// A list as a whole has no such form, although its elements are indexed under its path, nor has a decimal that the
/// declared scale cannot hold.
fn element<'a>(layout: &'a Layout, path: &Path, value: &'a Value) -> Option<(&'a Slot, Form<'a>)> {
    let slot = layout.slot(path)?;
    if matches!((&path.step, path.ty(&layout.entity)), (Step::Whole, FieldType::List(_))) {
        return None;
    }
    Some((slot, to_form(&slot.ty, value)?))
}

fn text_slot<'a>(layout: &'a Layout, path: &Path) -> Option<&'a Slot> {
    let slot = layout.slot(path)?;
    path.ty(&layout.entity).is_text().then_some(slot)
}

/// A form as far as it is indexed, and whether comparing with it decides: with one that is as long as what is indexed,
/// a value that was cut could be equal or greater.
fn limit(form: Form<'_>) -> (Json, bool) {
    let full = |text: &str| text.chars().nth(KEYWORD_CHARS_MAX - 1).is_some();
    let decides = !matches!(&form, Form::Keyword(text) if full(text));
    (form.cut().0.to_json(), decides)
}

fn compare(slot: &Slot, step: &Step, comparison: Comparison, form: Form<'_>) -> Compiled {
    let (at, exact) = limit(form);
    // Beside a value that was cut, every bound is taken in, and the record decides.
    let (below, above) = if exact { ("lt", "gt") } else { ("lte", "gte") };
    let range = |bound: &str| json!({"range": {&slot.name: {bound: at}}});
    let query = match comparison {
        Comparison::Eq => json!({"term": {&slot.name: at}}),
        // One of several values may differ from the given one although another is equal.
        Comparison::Ne if matches!(step, Step::Each(_)) => any(vec![range(below), range(above)]),
        Comparison::Ne if exact => {
            json!({"bool": {"filter": [exists(slot)], "must_not": [{"term": {&slot.name: at}}]}})
        }
        Comparison::Ne => exists(slot),
        Comparison::Lt => range(below),
        Comparison::Lte => range("lte"),
        Comparison::Gt => range(above),
        Comparison::Gte => range("gte"),
    };
    Compiled { query, exact }
}

fn between(slot: &Slot, low: Form<'_>, high: Form<'_>) -> Compiled {
    if low > high {
        return Compiled::exact(none());
    }
    let ((low, low_exact), (high, high_exact)) = (limit(low), limit(high));
    let query = json!({"range": {&slot.name: {"gte": low, "lte": high}}});
    Compiled { query, exact: low_exact && high_exact }
}

fn one_of(layout: &Layout, path: &Path, values: &[Value]) -> Compiled {
    let (mut exact, mut forms, mut name) = (true, Vec::with_capacity(values.len()), None);
    for value in values {
        let Some((slot, form)) = element(layout, path, value) else {
            return candidates(layout, path);
        };
        let (form, decides) = limit(form);
        exact &= decides;
        forms.push(form);
        name = Some(&slot.name);
    }
    match name {
        Some(name) => Compiled { query: json!({"terms": {name: forms}}), exact },
        None => Compiled::exact(none()),
    }
}

fn begins_with(slot: &Slot, start: &str) -> Compiled {
    if start.is_empty() {
        return Compiled::exact(exists(slot));
    }
    let cut = head(start);
    let query = json!({"prefix": {&slot.name: {"value": cut.unwrap_or(start)}}});
    Compiled { query, exact: cut.is_none() }
}

/// The engine's patterns mean the same, but of a long text only the beginning is indexed.
fn looks_like(slot: &Slot, like: &Like) -> Compiled {
    match pattern::of_like(like) {
        Some(pattern) => Compiled::superset(matching(slot, &pattern)),
        None => Compiled { exact: false, ..begins_with(slot, &pattern::literal_head(like)) },
    }
}

fn contains(layout: &Layout, path: &Path, part: &Value) -> Compiled {
    match (layout.slot(path), path.ty(&layout.entity), part) {
        (Some(slot), FieldType::List(_), part) => match to_form(&slot.ty, part) {
            Some(form) => compare(slot, &Step::Whole, Comparison::Eq, form),
            None => candidates(layout, path),
        },
        (Some(slot), ty, Value::String(part)) if ty.is_text() => match pattern::of_part(part) {
            Some(pattern) => Compiled::superset(matching(slot, &pattern)),
            None => candidates(layout, path),
        },
        _ => candidates(layout, path),
    }
}

fn matching(slot: &Slot, pattern: &str) -> Json {
    any(vec![
        json!({"wildcard": {&slot.name: {"value": pattern}}}),
        json!({"term": {"long": slot.path}}),
    ])
}
