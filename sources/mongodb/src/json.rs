//! JSON to and from BSON, where BSON can hold it exactly.

use mongodb::bson::{Bson, Document};
use serde_json::{Map, Value as Json};

/// The deepest nesting that is written as BSON: servers refuse documents nested more than 100 deep.
const DEPTH_MAX: usize = 80;

/// JSON as BSON; `None` if it would come back changed or not be reached by a path: integers above 64 bits with sign,
/// names that are empty, begin with `$` or hold a point or U+0000, and deep nesting.
pub(crate) fn encode(json: &Json) -> Option<Bson> {
    encode_at(json, DEPTH_MAX)
}

fn encode_at(json: &Json, depth: usize) -> Option<Bson> {
    let depth = depth.checked_sub(1)?;
    Some(match json {
        Json::Null => Bson::Null,
        Json::Bool(b) => Bson::Boolean(*b),
        Json::Number(n) => match n.as_i64() {
            Some(n) => Bson::Int64(n),
            None if n.is_f64() => Bson::Double(n.as_f64()?),
            None => return None,
        },
        Json::String(text) => Bson::String(text.clone()),
        Json::Array(items) => {
            Bson::Array(items.iter().map(|item| encode_at(item, depth)).collect::<Option<_>>()?)
        }
        Json::Object(members) => {
            let mut document = Document::new();
            for (name, member) in members {
                if !is_name(name) {
                    return None;
                }
                document.insert(name.clone(), encode_at(member, depth)?);
            }
            Bson::Document(document)
        }
    })
}

/// Whether a name can stand in a document, and in a path to it.
pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('$') && !name.contains(['.', '\0'])
}

/// JSON from BSON; `None` for types that JSON does not have.
pub(crate) fn decode(bson: &Bson) -> Option<Json> {
    Some(match bson {
        Bson::Null => Json::Null,
        Bson::Boolean(b) => Json::Bool(*b),
        Bson::Int32(n) => Json::from(*n),
        Bson::Int64(n) => Json::from(*n),
        Bson::Double(n) => Json::Number(serde_json::Number::from_f64(*n)?),
        Bson::String(text) => Json::String(text.clone()),
        Bson::Array(items) => Json::Array(items.iter().map(decode).collect::<Option<_>>()?),
        Bson::Document(document) => {
            let members = document.iter().map(|(name, bson)| Some((name.clone(), decode(bson)?)));
            Json::Object(members.collect::<Option<Map<_, _>>>()?)
        }
        _ => return None,
    })
}
