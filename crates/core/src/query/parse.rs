//! Queries from URLs and from JSON, within the limits of [`Query`]. Unknown names are errors.

mod body;
mod names;
mod operand;
mod url;

#[cfg(test)]
mod tests;

use serde_json::Value as Json;

use crate::entity::Entity;
use crate::error::{Error, Result};
use crate::query::aggregate::Aggregate;
use crate::query::ast::{Filter, Path, Query};
use crate::query::search::Search;

/// A query from URL parameters: `status=eq.paid&amount=gt.100&order=created_at.desc&limit=50&cursor=…&q=words`.
///
/// The parameters come percent-decoded. A field may be tested several times; all tests must hold. Reserved names are
/// `q`, `order`, `limit`, `cursor`, `fields`, `highlight` and `facets`; a field with such a name can be tested with
/// the JSON form only.
pub fn url(entity: &Entity, parameters: &[(String, String)]) -> Result<Query> {
    url::query(entity, parameters).map_err(|e| e.of(entity.name()))
}

/// A query from the body of `_query`.
pub fn query(entity: &Entity, body: &Json) -> Result<Query> {
    body::query(entity, body).map_err(|e| e.of(entity.name()))
}

/// An aggregate from the body of `_aggregate`.
pub fn aggregate(entity: &Entity, body: &Json) -> Result<Aggregate> {
    body::aggregate(entity, body).map_err(|e| e.of(entity.name()))
}

/// A filter from JSON: `{"and": [{"field": "status", "op": "eq", "value": "paid"}]}`; `{}` is every record.
pub fn filter(entity: &Entity, body: &Json) -> Result<Filter> {
    body::filter(entity, body).map_err(|e| e.of(entity.name()))
}

/// A path from its text: `status`, `items.product_id`, `tags.colour`.
pub fn path(entity: &Entity, text: &str) -> Result<Path> {
    names::path(entity, text).map_err(|e| e.of(entity.name()))
}

/// Refuses a filter above the limits; `bytes` is the length of its text.
fn check_limits(filter: &Filter, bytes: usize) -> Result<()> {
    for (what, size, limit) in [
        ("the filter is too long", bytes, Query::FILTER_BYTES_MAX),
        ("the filter has too many tests", filter.nodes(), Query::FILTER_NODES_MAX),
        ("the filter is nested too deeply", filter.depth(), Query::FILTER_DEPTH_MAX),
    ] {
        if size > limit {
            return Err(Error::invalid(what).with("parameter", "where").with("limit", limit));
        }
    }
    Ok(())
}

/// Refuses a search text that is none, and a search of an entity that cannot be searched.
fn check_search(entity: &Entity, text: &str) -> Result<()> {
    if entity.search_fields().next().is_none() {
        return Err(Error::invalid("the entity has no field for full-text search")
            .hint("declare `search = true` for a string or text field"));
    }
    Search::parse(text).map(|_| ())
}

/// Refuses a number of records or groups that is not between 1 and `max`.
fn check_limit(limit: Option<u64>, max: usize) -> Result<usize> {
    let limit = limit.and_then(|n| usize::try_from(n).ok()).filter(|n| (1..=max).contains(n));
    limit.ok_or_else(|| {
        Error::invalid(format!("is not a whole number from 1 to {max}")).with("parameter", "limit")
    })
}

/// A text for an error message: its beginning.
fn clip(text: &str) -> String {
    text.chars().take(40).collect()
}
