//! Records and lists from their JSON text, straight into values without a tree in between.
//!
//! The text is our own, possibly written under an earlier declaration: fields that are no longer declared are passed
//! over, and decimals take the scale that is declared now.

use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::Value as Json;
use unisono_core::{
    Decimal, Entity, Error, ErrorKind, Field, FieldType, Record, Result, Value, json,
};

/// A record from the JSON object of a log entry; `corrupt` for a text that is none.
pub fn record(entity: &Entity, text: &[u8]) -> Result<Record> {
    let mut input = serde_json::Deserializer::from_slice(text);
    Object(entity.fields()).deserialize(&mut input).map(Record::new).map_err(corrupt)
}

/// The value of a `json`, list or objects field; `corrupt` for a text that is none.
pub fn value(ty: &FieldType, text: &str) -> Result<Value> {
    Typed(ty).deserialize(&mut serde_json::Deserializer::from_str(text)).map_err(corrupt)
}

fn corrupt(cause: serde_json::Error) -> Error {
    Error::new(ErrorKind::Corrupt, "stored JSON cannot be decoded").caused_by(cause)
}

/// One value per declared field.
struct Object<'a>(&'a [Field]);

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = Vec<Value>;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Vec<Value>, D::Error> {
        input.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = Vec<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<Value>, A::Error> {
        let mut values = vec![Value::Null; self.0.len()];
        let mut expected = 0;
        while let Some(at) = map.next_key_seed(Name { fields: self.0, expected })? {
            match self.0.get(at).zip(values.get_mut(at)) {
                Some((field, value)) => *value = map.next_value_seed(Typed(&field.ty))?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            expected = at + 1;
        }
        Ok(values)
    }
}

/// The index of a field by its name, tried first where it is expected; one beyond the end for an unknown name.
struct Name<'a> {
    fields: &'a [Field],
    expected: usize,
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<usize, D::Error> {
        input.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E>(self, name: &str) -> Result<usize, E> {
        if self.fields.get(self.expected).is_some_and(|f| f.name.as_ref() == name) {
            return Ok(self.expected);
        }
        let found = self.fields.iter().position(|f| f.name.as_ref() == name);
        Ok(found.unwrap_or(self.fields.len()))
    }
}

/// One value by its declared type.
struct Typed<'a>(&'a FieldType);

impl<'de> DeserializeSeed<'de> for Typed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Value, D::Error> {
        match self.0 {
            FieldType::String
            | FieldType::Text
            | FieldType::Decimal { .. }
            | FieldType::Integer
            | FieldType::List(_)
            | FieldType::Objects(_) => input.deserialize_any(self),
            ty => {
                let tree = <Json as serde::Deserialize>::deserialize(input)?;
                json::parse_value(ty, &tree).map_err(D::Error::custom)
            }
        }
    }
}

impl<'de> Visitor<'de> for Typed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value of type {}", self.0)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
        match self.0 {
            FieldType::String | FieldType::Text => Ok(Value::String(text.to_owned())),
            FieldType::Decimal { scale, .. } => {
                decimal(text, *scale).ok_or_else(|| E::custom("is not a decimal"))
            }
            _ => Err(E::invalid_type(serde::de::Unexpected::Str(text), &self)),
        }
    }

    fn visit_i64<E: serde::de::Error>(self, n: i64) -> Result<Value, E> {
        match self.0 {
            FieldType::Integer => Ok(Value::Integer(n)),
            _ => Err(E::invalid_type(serde::de::Unexpected::Signed(n), &self)),
        }
    }

    fn visit_u64<E: serde::de::Error>(self, n: u64) -> Result<Value, E> {
        let signed = i64::try_from(n).map_err(E::custom)?;
        self.visit_i64(signed)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        match self.0 {
            FieldType::List(of) => {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element_seed(Typed(of))? {
                    items.push(item);
                }
                Ok(Value::List(items))
            }
            FieldType::Objects(fields) => {
                let mut rows = Vec::new();
                while let Some(row) = seq.next_element_seed(Object(fields))? {
                    rows.push(row);
                }
                Ok(Value::Objects(rows))
            }
            _ => Err(A::Error::custom("is a list")),
        }
    }
}

fn decimal(text: &str, scale: u8) -> Option<Value> {
    let mut number = Decimal::from_str_exact(text).ok()?;
    let exact = number;
    number.rescale(u32::from(scale));
    (number == exact).then_some(Value::Decimal(number))
}
