//! Records from JSON that [`to_vec`](super::to_vec) has written, without a tree of values in between.

use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::Value as Json;

use super::{parse_text, parse_value};
use crate::entity::{Entity, Field, FieldType};
use crate::error::{Error, ErrorKind, Result};
use crate::record::Record;
use crate::value::Value;

/// A record from the bytes of a JSON object that a source has kept. Absent fields are null, and those that are no
/// longer declared are left out.
///
/// # Errors
/// `corrupt` if it is no such object, or a value is not of its field's type.
pub fn decode(entity: &Entity, bytes: &[u8]) -> Result<Record> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let decoded = Row(entity.fields()).deserialize(&mut json);
    let values = decoded.and_then(|values| json.end().map(|()| values)).map_err(|e| {
        Error::new(ErrorKind::Corrupt, "a stored record cannot be decoded")
            .of(entity.name())
            .caused_by(e)
    })?;
    Ok(Record::new(values))
}

/// An object with declared fields.
struct Row<'e>(&'e [Field]);

impl<'de> DeserializeSeed<'de> for Row<'_> {
    type Value = Vec<Value>;

    fn deserialize<D: Deserializer<'de>>(
        self,
        json: D,
    ) -> std::result::Result<Vec<Value>, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Row<'_> {
    type Value = Vec<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Vec<Value>, A::Error> {
        let fields = self.0;
        let mut values = vec![Value::Null; fields.len()];
        let mut next = 0;
        while let Some(place) = map.next_key_seed(Name { fields, next })? {
            match place.and_then(|n| Some((n, fields.get(n)?, values.get_mut(n)?))) {
                Some((n, field, slot)) => {
                    *slot = map.next_value_seed(Cell(&field.ty))?;
                    next = n + 1;
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(values)
    }
}

/// The place of a field, which is mostly the one after the last.
struct Name<'e> {
    fields: &'e [Field],
    next: usize,
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(
        self,
        json: D,
    ) -> std::result::Result<Self::Value, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> std::result::Result<Self::Value, E> {
        let is_next = self.fields.get(self.next).is_some_and(|f| *f.name == *name);
        let found = || self.fields.iter().position(|f| *f.name == *name);
        Ok(if is_next { Some(self.next) } else { found() })
    }
}

/// A value of a declared type.
struct Cell<'e>(&'e FieldType);

impl<'de> DeserializeSeed<'de> for Cell<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> std::result::Result<Value, D::Error> {
        match self.0 {
            FieldType::Json | FieldType::List(_) => {
                let json = <Json as serde::Deserialize>::deserialize(json)?;
                parse_value(self.0, &json).map_err(D::Error::custom)
            }
            _ => json.deserialize_any(self),
        }
    }
}

impl Cell<'_> {
    /// What is not read directly goes by the same rules as JSON of callers.
    fn parsed<E: serde::de::Error>(self, json: impl Into<Json>) -> std::result::Result<Value, E> {
        parse_value(self.0, &json.into()).map_err(E::custom)
    }
}

impl<'de> Visitor<'de> for Cell<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value of type {}", self.0)
    }

    fn visit_unit<E>(self) -> std::result::Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: serde::de::Error>(self, bool: bool) -> std::result::Result<Value, E> {
        self.parsed(bool)
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> std::result::Result<Value, E> {
        match self.0 {
            FieldType::Integer => Ok(Value::Integer(number)),
            _ => self.parsed(number),
        }
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> std::result::Result<Value, E> {
        match i64::try_from(number) {
            Ok(number) => self.visit_i64(number),
            Err(_) => self.parsed(number),
        }
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> std::result::Result<Value, E> {
        self.parsed(number)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> std::result::Result<Value, E> {
        match self.0 {
            FieldType::Boolean | FieldType::Integer | FieldType::Float | FieldType::Objects(_) => {
                self.parsed(text)
            }
            ty => parse_text(ty, text).map_err(E::custom),
        }
    }

    fn visit_string<E: serde::de::Error>(self, text: String) -> std::result::Result<Value, E> {
        match self.0 {
            FieldType::String | FieldType::Text => Ok(Value::String(text)),
            _ => self.visit_str(&text),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> std::result::Result<Value, A::Error> {
        let FieldType::Objects(fields) = self.0 else {
            return Err(A::Error::invalid_type(serde::de::Unexpected::Seq, &self));
        };
        let mut values = Vec::new();
        while let Some(row) = rows.next_element_seed(Row(fields))? {
            values.push(row);
        }
        Ok(Value::Objects(values))
    }
}
