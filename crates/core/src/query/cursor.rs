//! [`Cursor`]: where a page ended.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::json;
use xxhash_rust::xxh3::xxh3_64;

use crate::entity::{Entity, FieldType};
use crate::error::{Error, Result};
use crate::json::{parse_text, to_text};
use crate::key::Key;
use crate::query::ast::Query;
use crate::query::format;
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

/// What the text of a cursor holds: fingerprint, key, and the values as text.
type Content = (u64, String, Vec<Option<String>>);

impl Cursor {
    /// The cursor after `last`; `score` counts only for an order by relevance.
    pub fn after(entity: &Entity, query: &Query, last: &Stored, score: Option<f32>) -> Cursor {
        let values = if query.by_relevance() {
            vec![Value::Float(f64::from(score.unwrap_or(0.0)))]
        } else {
            let value = |field: usize| last.record.values().get(field).cloned().unwrap_or_default();
            query.order.iter().map(|order| value(order.path.field)).collect()
        };
        Cursor { values, key: last.key.clone(), fingerprint: Self::fingerprint(entity, query) }
    }

    /// A hash of everything in a query but its cursor, limit, highlight, facets and projection.
    pub fn fingerprint(entity: &Entity, query: &Query) -> u64 {
        let order: Vec<_> = query.order.iter().map(|order| format::order(entity, order)).collect();
        let filter = format::filter(entity, &query.filter);
        xxh3_64(json!([entity.name().as_ref(), filter, query.search, order]).to_string().as_bytes())
    }

    /// The opaque text that callers send back.
    pub fn encode(&self, entity: &Entity, query: &Query) -> String {
        let texts = types(entity, query).zip(&self.values).map(|(ty, value)| to_text(ty, value));
        let content: Content = (self.fingerprint, self.key.to_string(), texts.collect());
        BASE64.encode(json!(content).to_string())
    }

    /// From its text; `invalid_input` for a text that is not a cursor of this query.
    pub fn decode(entity: &Entity, query: &Query, text: &str) -> Result<Cursor> {
        let wrong = || {
            Error::invalid("is not a cursor")
                .of(entity.name())
                .with("parameter", "cursor")
                .hint("send back `next` of the previous page exactly as it came")
        };
        let bytes = BASE64.decode(text).map_err(|_| wrong())?;
        let (fingerprint, key, texts): Content =
            serde_json::from_slice(&bytes).map_err(|_| wrong())?;
        if fingerprint != Self::fingerprint(entity, query) {
            return Err(wrong().hint(
                "the cursor belongs to another query: filter, search and order must stay the same",
            ));
        }
        if texts.len() != types(entity, query).count() {
            return Err(wrong());
        }
        let value = |(ty, text): (&FieldType, Option<String>)| match text {
            Some(text) => parse_text(ty, &text).map_err(|_| wrong()),
            None => Ok(Value::Null),
        };
        let values = types(entity, query).zip(texts).map(value).collect::<Result<_>>()?;
        Ok(Cursor { values, key: Key::parse(entity, &key).map_err(|_| wrong())?, fingerprint })
    }
}

/// The types of a cursor's values.
fn types<'a>(entity: &'a Entity, query: &'a Query) -> Box<dyn Iterator<Item = &'a FieldType> + 'a> {
    if query.by_relevance() {
        Box::new(std::iter::once(&FieldType::Float))
    } else {
        Box::new(query.order.iter().map(|order| order.path.ty(entity)))
    }
}

#[cfg(test)]
mod tests;
