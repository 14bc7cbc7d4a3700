//! [`Record`]: one instance of an entity; [`Stored`]: a record as a source holds it.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::entity::Entity;
use crate::key::Key;
use crate::position::Version;
use crate::value::Value;

/// One instance of an entity: one value per declared field, in the order of the declaration.
#[derive(Clone, Debug, PartialEq)]
pub struct Record(Vec<Value>);

impl Record {
    /// From one value per field of the entity.
    pub fn new(values: Vec<Value>) -> Self {
        Record(values)
    }

    /// The values, in the order of the declared fields.
    pub fn values(&self) -> &[Value] {
        &self.0
    }

    /// The values, to be changed in place.
    pub fn values_mut(&mut self) -> &mut [Value] {
        &mut self.0
    }

    /// The value of a field by its name; `Null` for a name that is not declared.
    pub fn get<'a>(&'a self, entity: &Entity, field: &str) -> &'a Value {
        entity.index_of(field).map_or(&Value::Null, |n| &self.0[n])
    }

    /// About how many bytes the record occupies, for batch and cache budgets.
    pub fn weight(&self) -> usize {
        32 + self.0.iter().map(Value::weight).sum::<usize>()
    }
}

/// A record as a source holds it: with its key and the version of its last change.
#[derive(Debug)]
pub struct Stored {
    /// Identity.
    pub key: Key,
    /// Position of the last change that this source has taken in for the record.
    pub version: Version,
    /// The data.
    pub record: Arc<Record>,
    json: OnceLock<Bytes>,
}

impl Stored {
    /// A record with its key and version.
    pub fn new(key: Key, version: Version, record: Arc<Record>) -> Self {
        Stored { key, version, record, json: OnceLock::new() }
    }

    /// The same where the JSON is known: exactly the bytes that [`crate::json::to_vec`] gives for the record.
    pub fn with_json(key: Key, version: Version, record: Arc<Record>, json: Bytes) -> Self {
        Stored { key, version, record, json: OnceLock::from(json) }
    }

    /// The record as a JSON object, serialised once and kept: a cached record is served without work.
    pub fn json(&self, entity: &Entity) -> Bytes {
        self.json.get_or_init(|| Bytes::from(crate::json::to_vec(entity, &self.record))).clone()
    }
}

impl Clone for Stored {
    fn clone(&self) -> Self {
        Stored {
            key: self.key.clone(),
            version: self.version,
            record: Arc::clone(&self.record),
            json: self.json.clone(),
        }
    }
}

impl PartialEq for Stored {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key && self.version == other.version && self.record == other.record
    }
}
