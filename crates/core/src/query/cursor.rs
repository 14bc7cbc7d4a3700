//! [`Cursor`]: where a page ended.

use crate::error::Result;
use crate::key::Key;
use crate::query::ast::Query;
use crate::entity::Entity;
use crate::record::Stored;
use crate::value::Value;

/// Where a page ended: the order's values and the key of its last record, bound to the query it belongs to.
#[derive(Clone, Debug, PartialEq)]
pub struct Cursor {
    /// The values of the query's order at the last record; by relevance, one `Float` with the score.
    pub values: Vec<Value>,
    /// The key of the last record.
    pub key: Key,
    /// [`Cursor::fingerprint`] of the query.
    pub fingerprint: u64,
}

impl Cursor {
    /// The cursor after `last`.
    pub fn after(_entity: &Entity, _query: &Query, _last: &Stored, _score: Option<f32>) -> Cursor {
        Cursor { values: Vec::new(), key: Key::Integer(0), fingerprint: 0 }
    }

    /// A hash of everything in a query but its cursor, limit, highlight, facets and projection.
    pub fn fingerprint(_entity: &Entity, _query: &Query) -> u64 {
        0
    }

    /// The opaque text that callers send back.
    pub fn encode(&self, _entity: &Entity, _query: &Query) -> String {
        String::new()
    }

    /// From its text; fails for a text that is not a cursor of this query.
    pub fn decode(_entity: &Entity, _query: &Query, _text: &str) -> Result<Cursor> {
        Err(crate::error::Error::internal("not built"))
    }
}
