//! Values ↔ native forms that sort alike, and whole records ↔ bytes, without loss.

use std::sync::Arc;

use serde_json::{Map, Number, Value as Json};
use unisono_core::{
    Date, Decimal, Entity, FieldType, Key, Record, Result, Stored, Timestamp, Uuid, Value, Version,
};

use crate::error::unreadable;

/// Longer values are indexed by so many of their first bytes. A key always fits.
pub(crate) const INDEXED_BYTES_MAX: usize = Key::BYTES_MAX;

const SIGN: u64 = 1 << 63;

/// A scalar in the form in which it is indexed; sorts like the value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Form {
    /// See [`crate::schema::Shape::Number`].
    Number(i64),
    /// See [`crate::schema::Shape::Bytes`].
    Bytes(Vec<u8>),
}

/// The form of a scalar of a type; `None` for null and for a value that the type cannot hold.
pub(crate) fn to_form(ty: &FieldType, value: &Value) -> Option<Form> {
    Some(match (ty, value) {
        (FieldType::Integer, Value::Integer(n)) => Form::Number(*n),
        (FieldType::Boolean, Value::Boolean(b)) => Form::Number(i64::from(*b)),
        (FieldType::Float, Value::Float(f)) => Form::Number(float_to_number(*f)),
        (FieldType::Date, Value::Date(d)) => Form::Number(i64::from(d.days())),
        (FieldType::Timestamp { .. }, Value::Timestamp(t)) => Form::Number(t.micros()),
        (FieldType::Decimal { precision, scale }, Value::Decimal(d)) => {
            let mut d = *d;
            d.rescale(u32::from(*scale));
            // Rescaling rounds what does not fit: such a value cannot be in the field.
            if d.scale() != u32::from(*scale) || !matches!(value, Value::Decimal(v) if *v == d) {
                return None;
            }
            match *precision {
                ..=18 => Form::Number(i64::try_from(d.mantissa()).ok()?),
                _ => Form::Bytes(wide_to_bytes(d.mantissa())),
            }
        }
        (FieldType::String | FieldType::Text, Value::String(text)) => {
            Form::Bytes(text.as_bytes().to_vec())
        }
        (FieldType::Uuid, Value::Uuid(uuid)) => Form::Bytes(uuid.as_bytes().to_vec()),
        (FieldType::Bytes, Value::Bytes(bytes)) => Form::Bytes(bytes.clone()),
        _ => return None,
    })
}

/// The value of a form that was not cut; `None` if the type has no such value.
pub(crate) fn from_form(ty: &FieldType, form: &Form) -> Option<Value> {
    Some(match (ty, form) {
        (FieldType::Integer, Form::Number(n)) => Value::Integer(*n),
        (FieldType::Boolean, Form::Number(n)) => Value::Boolean(*n != 0),
        (FieldType::Float, Form::Number(n)) => Value::Float(number_to_float(*n)),
        (FieldType::Date, Form::Number(n)) => {
            Value::Date(Date::from_days(i32::try_from(*n).ok()?).ok()?)
        }
        (FieldType::Timestamp { .. }, Form::Number(n)) => {
            Value::Timestamp(Timestamp::from_micros(*n).ok()?)
        }
        (FieldType::Decimal { scale, .. }, Form::Number(n)) => Value::Decimal(
            Decimal::try_from_i128_with_scale(i128::from(*n), u32::from(*scale)).ok()?,
        ),
        (FieldType::Decimal { scale, .. }, Form::Bytes(b)) => Value::Decimal(
            Decimal::try_from_i128_with_scale(bytes_to_wide(b)?, u32::from(*scale)).ok()?,
        ),
        (FieldType::String | FieldType::Text, Form::Bytes(b)) => {
            Value::String(String::from_utf8(b.clone()).ok()?)
        }
        (FieldType::Uuid, Form::Bytes(b)) => Value::Uuid(Uuid::from_slice(b).ok()?),
        (FieldType::Bytes, Form::Bytes(b)) => Value::Bytes(b.clone()),
        _ => return None,
    })
}

/// The form of a key.
pub(crate) fn key_form(key: &Key) -> Form {
    match key {
        Key::Integer(n) => Form::Number(*n),
        Key::String(text) => Form::Bytes(text.as_bytes().to_vec()),
        Key::Uuid(uuid) => Form::Bytes(uuid.as_bytes().to_vec()),
    }
}

/// At most [`INDEXED_BYTES_MAX`] of the bytes, and whether that was not all.
pub(crate) fn cut(bytes: &[u8]) -> (&[u8], bool) {
    match bytes.get(..INDEXED_BYTES_MAX) {
        Some(head) => (head, bytes.len() > INDEXED_BYTES_MAX),
        None => (bytes, false),
    }
}

/// A double as an integer of the same order; both zeros are equal.
fn float_to_number(f: f64) -> i64 {
    let bits = (f + 0.0).to_bits();
    let ordered = if bits & SIGN == 0 { bits | SIGN } else { !bits };
    (ordered ^ SIGN) as i64
}

fn number_to_float(n: i64) -> f64 {
    let ordered = n as u64 ^ SIGN;
    f64::from_bits(if ordered & SIGN == 0 { !ordered } else { ordered ^ SIGN })
}

/// A signed number as bytes of the same order.
fn wide_to_bytes(n: i128) -> Vec<u8> {
    (n as u128 ^ (1 << 127)).to_be_bytes().to_vec()
}

fn bytes_to_wide(bytes: &[u8]) -> Option<i128> {
    let n = u128::from_be_bytes(bytes.try_into().ok()?);
    Some((n ^ (1 << 127)) as i128)
}

/// A record with its version as bytes. JSON text would not do: a double does not survive its parser to the last bit.
pub(crate) fn encode(version: Version, record: &Record) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 + record.weight());
    out.extend_from_slice(&version.as_u64().to_le_bytes());
    for value in record.values() {
        put_value(&mut out, value);
    }
    out
}

/// The inverse of [`encode`].
pub(crate) fn decode(entity: &Entity, bytes: &[u8]) -> Result<Stored> {
    let corrupt = || unreadable("a stored record cannot be decoded").of(entity.name());
    let mut input = Input(bytes);
    let version = u64::from_le_bytes(input.array().ok_or_else(corrupt)?);
    let version = Version::new(version).map_err(|_| corrupt())?;
    let values = (0..entity.fields().len()).map(|_| input.value());
    let values = values.collect::<Option<Vec<_>>>().ok_or_else(corrupt)?;
    let record = Record::new(values);
    let key = entity.key_of(&record).map_err(|_| corrupt())?;
    if !input.0.is_empty() {
        return Err(corrupt());
    }
    Ok(Stored::new(key, version, Arc::new(record)))
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.push(0),
        Value::Boolean(b) => out.push(1 + u8::from(*b)),
        Value::Integer(n) => put(out, 3, &n.to_le_bytes()),
        Value::Float(f) => put(out, 4, &f.to_bits().to_le_bytes()),
        Value::Decimal(d) => put(out, 5, &d.serialize()),
        Value::String(text) => put_long(out, 6, text.as_bytes()),
        Value::Bytes(bytes) => put_long(out, 7, bytes),
        Value::Date(d) => put(out, 8, &d.days().to_le_bytes()),
        Value::Timestamp(t) => put(out, 9, &t.micros().to_le_bytes()),
        Value::Uuid(uuid) => put(out, 10, uuid.as_bytes()),
        Value::Json(json) => {
            out.push(11);
            put_json(out, json);
        }
        Value::List(items) => {
            put(out, 12, &count(items.len()));
            items.iter().for_each(|item| put_value(out, item));
        }
        Value::Objects(rows) => {
            put(out, 13, &count(rows.len()));
            for row in rows {
                out.extend_from_slice(&count(row.len()));
                row.iter().for_each(|value| put_value(out, value));
            }
        }
    }
}

fn put_json(out: &mut Vec<u8>, json: &Json) {
    match json {
        Json::Null => out.push(0),
        Json::Bool(b) => out.push(1 + u8::from(*b)),
        Json::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
            (Some(n), ..) => put(out, 3, &n.to_le_bytes()),
            (None, Some(n), _) => put(out, 4, &n.to_le_bytes()),
            (None, None, f) => put(out, 5, &f.unwrap_or_default().to_bits().to_le_bytes()),
        },
        Json::String(text) => put_long(out, 6, text.as_bytes()),
        Json::Array(items) => {
            put(out, 7, &count(items.len()));
            items.iter().for_each(|item| put_json(out, item));
        }
        Json::Object(map) => {
            put(out, 8, &count(map.len()));
            for (name, item) in map {
                put_long(out, 0, name.as_bytes());
                put_json(out, item);
            }
        }
    }
}

fn put(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    out.extend_from_slice(bytes);
}

fn put_long(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    put(out, tag, &count(bytes.len()));
    out.extend_from_slice(bytes);
}

/// Lengths within one record; a record of 4 GB fits no store.
fn count(n: usize) -> [u8; 4] {
    u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes()
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[b]| b)
    }

    fn count(&mut self) -> Option<usize> {
        self.array().map(|n| u32::from_le_bytes(n) as usize)
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        let n = self.count()?;
        self.take(n).map(<[u8]>::to_vec)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?).ok()
    }

    fn value(&mut self) -> Option<Value> {
        Some(match self.byte()? {
            0 => Value::Null,
            1 => Value::Boolean(false),
            2 => Value::Boolean(true),
            3 => Value::Integer(i64::from_le_bytes(self.array()?)),
            4 => Value::Float(f64::from_bits(u64::from_le_bytes(self.array()?))),
            5 => Value::Decimal(Decimal::deserialize(self.array()?)),
            6 => Value::String(self.text()?),
            7 => Value::Bytes(self.bytes()?),
            8 => Value::Date(Date::from_days(i32::from_le_bytes(self.array()?)).ok()?),
            9 => Value::Timestamp(Timestamp::from_micros(i64::from_le_bytes(self.array()?)).ok()?),
            10 => Value::Uuid(Uuid::from_bytes(self.array()?)),
            11 => Value::Json(self.json()?),
            12 => {
                let n = self.count()?;
                Value::List((0..n).map(|_| self.value()).collect::<Option<_>>()?)
            }
            13 => {
                let n = self.count()?;
                Value::Objects((0..n).map(|_| self.row()).collect::<Option<_>>()?)
            }
            _ => return None,
        })
    }

    fn row(&mut self) -> Option<Vec<Value>> {
        let n = self.count()?;
        (0..n).map(|_| self.value()).collect()
    }

    fn json(&mut self) -> Option<Json> {
        Some(match self.byte()? {
            0 => Json::Null,
            1 => Json::Bool(false),
            2 => Json::Bool(true),
            3 => Json::Number(Number::from(i64::from_le_bytes(self.array()?))),
            4 => Json::Number(Number::from(u64::from_le_bytes(self.array()?))),
            5 => Json::Number(Number::from_f64(f64::from_bits(u64::from_le_bytes(self.array()?)))?),
            6 => Json::String(self.text()?),
            7 => {
                let n = self.count()?;
                Json::Array((0..n).map(|_| self.json()).collect::<Option<_>>()?)
            }
            8 => {
                let n = self.count()?;
                let member = |_| {
                    self.byte()?;
                    Some((self.text()?, self.json()?))
                };
                Json::Object((0..n).map(member).collect::<Option<Map<_, _>>>()?)
            }
            _ => return None,
        })
    }
}
