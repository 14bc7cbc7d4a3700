//! [`Object`]: a JSON object with its members in the order in which they were declared.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value as Json;
use serde_json::value::RawValue;
use unisono::core::{Error, Result};

/// The members of a JSON object, in order. Objects within are ordered by name.
#[derive(Debug, PartialEq)]
pub(crate) struct Object(pub(crate) Vec<(String, Json)>);

impl Object {
    /// Of a record as it came.
    pub(crate) fn of(record: &RawValue) -> Result<Self> {
        serde_json::from_str(record.get())
            .map_err(|e| Error::internal("a record came that is not a JSON object").caused_by(e))
    }

    /// A member's value.
    pub(crate) fn get(&self, name: &str) -> Option<&Json> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value)
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Object(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_order() {
        let text = r#"{"id":"1","brand":null,"amount":"2.50"}"#;
        let object = Object::of(&RawValue::from_string(text.to_owned()).unwrap()).unwrap();
        assert_eq!(serde_json::to_string(&object).unwrap(), text);
        assert_eq!(object.get("amount"), Some(&Json::from("2.50")));
    }
}
