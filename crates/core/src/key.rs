//! [`Key`]: identity of one record, its order, text form and hash.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use uuid::Uuid;

use crate::entity::{Entity, FieldType};
use crate::error::{Error, Result};
use crate::value::Value;

/// Identity of one record within its entity. All keys of an entity have the same variant.
///
/// Integers are ordered by size, text by its UTF-8 bytes, UUIDs by their bytes; every source scans in this order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// From an `integer` field.
    Integer(i64),
    /// From a `string` field; 1 to 512 bytes.
    String(Arc<str>),
    /// From a `uuid` field.
    Uuid(Uuid),
}

impl Key {
    /// The longest key in bytes.
    pub const BYTES_MAX: usize = 512;

    /// The key in the text that callers use in paths, parsed by the key type of the entity.
    pub fn parse(entity: &Entity, text: &str) -> Result<Self> {
        let key = match entity.key_field().ty {
            FieldType::Integer => Key::Integer(text.parse().map_err(|_| {
                Error::invalid("key is not a 64-bit integer").with("key", clip(text))
            })?),
            FieldType::Uuid => Key::Uuid(
                Uuid::try_parse(text)
                    .map_err(|_| Error::invalid("key is not a UUID").with("key", clip(text)))?,
            ),
            _ => Key::from_text(text)?,
        };
        Ok(key)
    }

    /// A string key, 1 to 512 bytes.
    pub fn from_text(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(Error::invalid("key is empty"));
        }
        if text.len() > Self::BYTES_MAX {
            return Err(Error::invalid("key is longer than 512 bytes").with("bytes", text.len()));
        }
        Ok(Key::String(text.into()))
    }

    /// The key held by a value of the key field.
    pub fn from_value(value: &Value) -> Result<Self> {
        match value {
            Value::Integer(n) => Ok(Key::Integer(*n)),
            Value::Uuid(u) => Ok(Key::Uuid(*u)),
            Value::String(text) => Key::from_text(text),
            _ => Err(Error::invalid("key is missing").hint("give the key field a value")),
        }
    }

    /// The value that the key field holds.
    pub fn to_value(&self) -> Value {
        match self {
            Key::Integer(n) => Value::Integer(*n),
            Key::String(text) => Value::String(text.to_string()),
            Key::Uuid(u) => Value::Uuid(*u),
        }
    }

    /// A hash that is the same on every node and release: lanes and shards are chosen by it.
    pub fn stable_hash(&self) -> u64 {
        use xxhash_rust::xxh3::xxh3_64;
        match self {
            Key::Integer(n) => xxh3_64(&n.to_be_bytes()),
            Key::String(text) => xxh3_64(text.as_bytes()),
            Key::Uuid(u) => xxh3_64(u.as_bytes()),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Integer(n) => fmt::Display::fmt(n, f),
            Key::String(text) => f.write_str(text),
            Key::Uuid(u) => fmt::Display::fmt(u, f),
        }
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn clip(text: &str) -> String {
    text.chars().take(40).collect()
}
