//! Queries from URLs and from JSON, within the limits of [`Query`](super::Query). Unknown names are errors.

use serde_json::Value as Json;

use crate::entity::Entity;
use crate::error::Result;
use crate::query::aggregate::Aggregate;
use crate::query::ast::{Filter, Path, Query};

/// A query from URL parameters: `status=eq.paid&amount=gt.100&order=created_at.desc&limit=50&cursor=…&q=words`.
pub fn url(_entity: &Entity, _parameters: &[(String, String)]) -> Result<Query> {
    Err(crate::error::Error::internal("not built"))
}

/// A query from the body of `_query`.
pub fn query(_entity: &Entity, _body: &Json) -> Result<Query> {
    Err(crate::error::Error::internal("not built"))
}

/// An aggregate from the body of `_aggregate`.
pub fn aggregate(_entity: &Entity, _body: &Json) -> Result<Aggregate> {
    Err(crate::error::Error::internal("not built"))
}

/// A filter from JSON: `{"and": [{"field": "status", "op": "eq", "value": "paid"}]}`; `{}` is every record.
pub fn filter(_entity: &Entity, _body: &Json) -> Result<Filter> {
    Err(crate::error::Error::internal("not built"))
}

/// A path from its text: `status`, `items.product_id`, `tags.colour`.
pub fn path(_entity: &Entity, _text: &str) -> Result<Path> {
    Err(crate::error::Error::internal("not built"))
}
