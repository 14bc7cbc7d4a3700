//! Records and values to and from JSON, by declared type.
//!
//! Decimals are strings, bytes are base64, times are RFC 3339; a number is never rounded silently.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rust_decimal::Decimal;
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};
use serde_json::Value as Json;
use uuid::Uuid;

use crate::entity::{Entity, Field, FieldType};
use crate::error::{Error, Result};
use crate::record::Record;
use crate::value::Value;

pub mod change;
mod decode;

pub use decode::decode;

/// A record as a JSON object with every declared field, null ones included.
pub fn to_vec(entity: &Entity, record: &Record) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + 24 * record.values().len());
    let object = Object { fields: entity.fields(), values: record.values() };
    // Serialising to memory fails only for map keys that are not strings; field names are.
    serde_json::to_writer(&mut out, &object).unwrap_or_default();
    out
}

/// A record as a JSON value.
pub fn to_json(entity: &Entity, record: &Record) -> Json {
    serde_json::to_value(Object { fields: entity.fields(), values: record.values() })
        .unwrap_or_default()
}

/// One value as JSON.
pub fn value_to_json(ty: &FieldType, value: &Value) -> Json {
    serde_json::to_value(Typed { ty, value }).unwrap_or_default()
}

/// A record from a JSON object; absent fields become null. Unknown fields are refused by name.
///
/// Defaults and rules are not applied here: see [`crate::write`].
pub fn parse(entity: &Entity, json: &Json) -> Result<Record> {
    let Json::Object(map) = json else {
        return Err(Error::invalid("a record is a JSON object").of(entity.name()));
    };
    parse_object(entity.fields(), map).map(Record::new).map_err(|e| e.of(entity.name()))
}

/// A record from the bytes of a JSON object.
pub fn parse_slice(entity: &Entity, bytes: &[u8]) -> Result<Record> {
    let json: Json = serde_json::from_slice(bytes)
        .map_err(|e| Error::invalid("is not valid JSON").with("reason", e).of(entity.name()))?;
    parse(entity, &json)
}

fn parse_object(fields: &[Field], map: &serde_json::Map<String, Json>) -> Result<Vec<Value>> {
    let mut found = 0;
    let mut values = Vec::with_capacity(fields.len());
    for field in fields {
        values.push(match map.get(field.name.as_ref()) {
            Some(json) => {
                found += 1;
                parse_value(&field.ty, json).map_err(|e| e.with("field", &field.name))?
            }
            None => Value::Null,
        });
    }
    if found < map.len() {
        let known = |name: &&String| !fields.iter().any(|f| f.name.as_ref() == name.as_str());
        let unknown: Vec<_> = map.keys().filter(known).map(String::as_str).take(5).collect();
        return Err(Error::invalid("has a field that is not declared")
            .with("field", unknown.join(","))
            .hint("remove it, or declare it in the configuration"));
    }
    Ok(values)
}

/// One value from JSON, by declared type. Null is accepted for every type.
pub fn parse_value(ty: &FieldType, json: &Json) -> Result<Value> {
    let wrong = || Error::invalid(format!("is not a value of type {ty}"));
    Ok(match (ty, json) {
        (_, Json::Null) => Value::Null,
        (FieldType::Json, json) => Value::Json(json.clone()),
        (FieldType::Integer, Json::Number(n)) => match (n.as_i64(), n.as_f64()) {
            (Some(n), _) => Value::Integer(n),
            (None, Some(f))
                if n.is_f64() && f.fract() == 0.0 && f.abs() <= 9_007_199_254_740_992.0 =>
            {
                Value::Integer(f as i64)
            }
            _ => {
                return Err(wrong().hint(
                    "64-bit integers range from -9223372036854775808 to 9223372036854775807",
                ));
            }
        },
        (FieldType::Decimal { .. }, Json::Number(n)) => parse_decimal_number(ty, n)?,
        (FieldType::Float, Json::Number(n)) => Value::Float(n.as_f64().ok_or_else(wrong)?),
        (FieldType::Boolean, Json::Bool(b)) => Value::Boolean(*b),
        (FieldType::List(of), Json::Array(items)) => {
            let parsed = items.iter().map(|item| match item {
                Json::Null => Err(Error::invalid("list elements cannot be null")),
                item => parse_value(of, item),
            });
            Value::List(parsed.collect::<Result<_>>()?)
        }
        (FieldType::Objects(fields), Json::Array(items)) => {
            let parsed = items.iter().map(|item| match item {
                Json::Object(map) => parse_object(fields, map),
                _ => Err(Error::invalid("list elements are not all objects")),
            });
            Value::Objects(parsed.collect::<Result<_>>()?)
        }
        (FieldType::Boolean | FieldType::Integer | FieldType::Float, Json::String(_)) => {
            return Err(wrong());
        }
        (ty, Json::String(text)) if ty.is_scalar() => parse_text(ty, text)?,
        _ => return Err(wrong()),
    })
}

/// One scalar from the text used in URLs, paths and files: `42`, `12.50`, `true`, `2026-12-31`.
pub fn parse_text(ty: &FieldType, text: &str) -> Result<Value> {
    let wrong = || {
        Error::invalid(format!("is not a value of type {ty}"))
            .with("value", text.chars().take(40).collect::<String>())
    };
    Ok(match ty {
        FieldType::String | FieldType::Text => Value::String(text.to_owned()),
        FieldType::Integer => Value::Integer(text.parse().map_err(|_| wrong())?),
        FieldType::Float => {
            let number: f64 = text.parse().map_err(|_| wrong())?;
            if !number.is_finite() {
                return Err(wrong().hint("floats are finite; 1e400 and NaN cannot be stored"));
            }
            Value::Float(number)
        }
        FieldType::Boolean => match text {
            "true" => Value::Boolean(true),
            "false" => Value::Boolean(false),
            _ => return Err(wrong()),
        },
        FieldType::Decimal { precision, scale } => parse_decimal(text, *precision, *scale)?,
        FieldType::Date => Value::Date(text.parse()?),
        FieldType::Timestamp { precision } => {
            let time: crate::time::Timestamp = text.parse()?;
            if time.fraction_digits() > *precision {
                return Err(Error::invalid(format!("has more fractional digits than {ty} keeps"))
                    .with("value", text.chars().take(40).collect::<String>()));
            }
            Value::Timestamp(time)
        }
        FieldType::Uuid => Value::Uuid(Uuid::try_parse(text).map_err(|_| wrong())?),
        FieldType::Bytes => {
            Value::Bytes(BASE64.decode(text).map_err(|_| wrong().hint("bytes are base64 in JSON"))?)
        }
        FieldType::Json => Value::Json(serde_json::from_str(text).map_err(|_| wrong())?),
        FieldType::List(_) | FieldType::Objects(_) => return Err(wrong()),
    })
}

/// One scalar as text, the inverse of [`parse_text`]; `None` for null. Lists and JSON come as their JSON.
pub fn to_text(ty: &FieldType, value: &Value) -> Option<String> {
    match (value, value_to_json(ty, value)) {
        (_, Json::Null) => None,
        (Value::Json(json), _) => Some(json.to_string()),
        (_, Json::String(text)) => Some(text),
        (_, json) => Some(json.to_string()),
    }
}

/// A decimal from its text: digits that do not fit the declared scale or precision are refused, not rounded.
fn parse_decimal(text: &str, precision: u8, scale: u8) -> Result<Value> {
    let wrong = |message: String| {
        Error::invalid(message).with("value", text.chars().take(40).collect::<String>())
    };
    let plain = !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'+'));
    let parsed = if plain {
        Decimal::from_str_exact(text).ok()
    } else {
        Decimal::from_scientific(text).ok()
    };
    let Some(mut number) = parsed else {
        return Err(wrong(format!("is not a value of type decimal({precision},{scale})")));
    };
    if number.normalize().scale() > u32::from(scale) {
        return Err(wrong(format!("has more than {scale} digits after the point")));
    }
    number.rescale(u32::from(scale));
    // At 28 digits `rescale` keeps the value by a smaller scale when the mantissa would overflow.
    let digits = number.mantissa().unsigned_abs().checked_ilog10().map_or(1, |n| n + 1);
    if number.scale() != u32::from(scale) || digits > u32::from(precision) {
        return Err(wrong(format!("has more than {precision} digits")));
    }
    if number.is_zero() {
        number.set_sign_positive(true);
    }
    Ok(Value::Decimal(number))
}

/// A decimal given as a JSON number: taken by its shortest text, so only up to 15 digits are certain to be exact.
fn parse_decimal_number(ty: &FieldType, n: &serde_json::Number) -> Result<Value> {
    let text = n.to_string();
    if n.is_f64() && text.bytes().filter(u8::is_ascii_digit).count() > 15 {
        return Err(Error::invalid("has too many digits for a JSON number")
            .with("value", text)
            .hint("send decimals as strings, for example \"12.50\""));
    }
    parse_text(ty, &text)
}

struct Object<'a> {
    fields: &'a [Field],
    values: &'a [Value],
}

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.fields.len()))?;
        for (field, value) in self.fields.iter().zip(self.values) {
            map.serialize_entry(field.name.as_ref(), &Typed { ty: &field.ty, value })?;
        }
        map.end()
    }
}

struct Typed<'a> {
    ty: &'a FieldType,
    value: &'a Value,
}

impl Serialize for Typed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match (self.ty, self.value) {
            (_, Value::Null) => serializer.serialize_unit(),
            (_, Value::Boolean(b)) => serializer.serialize_bool(*b),
            (_, Value::Integer(n)) => serializer.serialize_i64(*n),
            (_, Value::Float(n)) => serializer.serialize_f64(*n),
            (_, Value::Decimal(n)) => serializer.collect_str(n),
            (_, Value::String(text)) => serializer.serialize_str(text),
            (_, Value::Bytes(bytes)) => {
                serializer.collect_str(&base64::display::Base64Display::new(bytes, &BASE64))
            }
            (_, Value::Date(date)) => serializer.collect_str(date),
            (FieldType::Timestamp { precision }, Value::Timestamp(time)) => {
                serializer.serialize_str(&time.to_text(*precision))
            }
            (_, Value::Timestamp(time)) => serializer.collect_str(time),
            (_, Value::Uuid(uuid)) => serializer.collect_str(uuid),
            (_, Value::Json(json)) => json.serialize(serializer),
            (FieldType::List(of), Value::List(items)) => {
                let mut seq = serializer.serialize_seq(Some(items.len()))?;
                for value in items {
                    seq.serialize_element(&Typed { ty: of, value })?;
                }
                seq.end()
            }
            (FieldType::Objects(fields), Value::Objects(items)) => {
                let mut seq = serializer.serialize_seq(Some(items.len()))?;
                for values in items {
                    seq.serialize_element(&Object { fields, values })?;
                }
                seq.end()
            }
            // A value is parsed by its field's type, so a list value outside a list type cannot be.
            (_, Value::List(_) | Value::Objects(_)) => serializer.serialize_unit(),
        }
    }
}

#[cfg(test)]
mod tests;
