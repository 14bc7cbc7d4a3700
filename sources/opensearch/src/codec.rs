//! Records ↔ documents: the exact record as JSON, and beside it forms of its values that compare and sort like them.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value as Json;
use serde_json::value::RawValue;
use unisono_core::{
    Date, Decimal, Entity, Error, FieldType, Record, Result, Stored, Timestamp, Uuid, Value,
    Version, json,
};

use crate::error;
use crate::schema::{Layout, Slot};

/// Longer texts are indexed by so many of their first characters; far below the engine's 32766 bytes, and a key always
/// fits. Cut by characters and not by bytes, so that cut texts keep their order.
pub(crate) const KEYWORD_CHARS_MAX: usize = 512;

/// Decimals up to so many digits are integers of their last digit.
pub(crate) const LONG_DIGITS_MAX: u8 = 18;

/// Added to a longer decimal before it is written as text of a fixed length, so that none is negative.
const WIDE_OFFSET: i128 = 10_i128.pow(28);

/// A scalar as it is indexed; compares and sorts like the value.
#[derive(Clone, Debug, PartialEq, PartialOrd)]
pub(crate) enum Form<'a> {
    /// See [`crate::schema::Shape::Long`].
    Long(i64),
    /// See [`crate::schema::Shape::Double`].
    Double(f64),
    /// See [`crate::schema::Shape::Boolean`].
    Boolean(bool),
    /// See [`crate::schema::Shape::Keyword`].
    Keyword(Cow<'a, str>),
}

/// The form of a scalar of a type; `None` for null and for a value that the type cannot hold.
pub(crate) fn to_form<'a>(ty: &FieldType, value: &'a Value) -> Option<Form<'a>> {
    Some(match (ty, value) {
        (FieldType::Integer, Value::Integer(n)) => Form::Long(*n),
        (FieldType::Boolean, Value::Boolean(b)) => Form::Boolean(*b),
        // The engine tells a negative zero from a positive one; adding zero turns the one into the other.
        (FieldType::Float, Value::Float(f)) => Form::Double(f + 0.0),
        (FieldType::Date, Value::Date(d)) => Form::Long(i64::from(d.days())),
        (FieldType::Timestamp { .. }, Value::Timestamp(t)) => Form::Long(t.micros()),
        (FieldType::Decimal { precision, scale }, Value::Decimal(given)) => {
            let mut d = *given;
            d.rescale(u32::from(*scale));
            // Rescaling rounds what does not fit: such a value cannot be in the field.
            if d.scale() != u32::from(*scale) || d != *given {
                return None;
            }
            match *precision {
                ..=LONG_DIGITS_MAX => Form::Long(i64::try_from(d.mantissa()).ok()?),
                _ => Form::Keyword(wide_to_text(d.mantissa())?.into()),
            }
        }
        (FieldType::String | FieldType::Text, Value::String(text)) => {
            Form::Keyword(Cow::Borrowed(text))
        }
        (FieldType::Uuid, Value::Uuid(uuid)) => Form::Keyword(uuid.to_string().into()),
        (FieldType::Bytes, Value::Bytes(bytes)) => Form::Keyword(to_hex(bytes).into()),
        _ => return None,
    })
}

/// The value of a form that was not cut, from the engine's JSON; `None` if the type has no such value.
pub(crate) fn from_json(ty: &FieldType, form: &Json) -> Option<Value> {
    Some(match ty {
        FieldType::Integer => Value::Integer(form.as_i64()?),
        FieldType::Boolean => {
            Value::Boolean(form.as_bool().or_else(|| form.as_i64().map(|n| n != 0))?)
        }
        FieldType::Float => Value::Float(form.as_f64()?),
        FieldType::Date => Value::Date(Date::from_days(i32::try_from(form.as_i64()?).ok()?).ok()?),
        FieldType::Timestamp { .. } => {
            Value::Timestamp(Timestamp::from_micros(form.as_i64()?).ok()?)
        }
        FieldType::Decimal { scale, .. } => {
            let digits = match form.as_str() {
                Some(text) => text.parse::<i128>().ok()?.checked_sub(WIDE_OFFSET)?,
                None => i128::from(form.as_i64()?),
            };
            Value::Decimal(Decimal::try_from_i128_with_scale(digits, u32::from(*scale)).ok()?)
        }
        FieldType::String | FieldType::Text => Value::String(form.as_str()?.to_owned()),
        FieldType::Uuid => Value::Uuid(Uuid::try_parse(form.as_str()?).ok()?),
        FieldType::Bytes => Value::Bytes(from_hex(form.as_str()?)?),
        FieldType::Json | FieldType::List(_) | FieldType::Objects(_) => return None,
    })
}

impl Form<'_> {
    /// The form as it is indexed, and whether that is not all of it.
    pub(crate) fn cut(self) -> (Self, bool) {
        match self {
            Form::Keyword(text) => match head(&text) {
                Some(head) => (Form::Keyword(head.to_owned().into()), true),
                None => (Form::Keyword(text), false),
            },
            whole => (whole, false),
        }
    }

    /// Whether it is longer than what is indexed.
    pub(crate) fn is_long(&self) -> bool {
        matches!(self, Form::Keyword(text) if head(text).is_some())
    }

    /// As JSON.
    pub(crate) fn to_json(&self) -> Json {
        match self {
            Form::Long(n) => (*n).into(),
            Form::Double(f) => (*f).into(),
            Form::Boolean(b) => (*b).into(),
            Form::Keyword(text) => text.as_ref().into(),
        }
    }
}

impl Serialize for Form<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Form::Long(n) => serializer.serialize_i64(*n),
            Form::Double(f) => serializer.serialize_f64(*f),
            Form::Boolean(b) => serializer.serialize_bool(*b),
            Form::Keyword(text) => serializer.serialize_str(head(text).unwrap_or(text)),
        }
    }
}

/// The first characters of a text that is longer than what is indexed.
pub(crate) fn head(text: &str) -> Option<&str> {
    if text.len() <= KEYWORD_CHARS_MAX {
        return None;
    }
    let (end, _) = text.char_indices().nth(KEYWORD_CHARS_MAX)?;
    text.get(..end)
}

/// A number of at most 28 digits as text of the same order.
fn wide_to_text(digits: i128) -> Option<String> {
    let shifted = digits.checked_add(WIDE_OFFSET).filter(|n| *n >= 0)?;
    Some(format!("{shifted:029}"))
}

fn to_hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(out, "{byte:02x}");
    }
    out
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs.map(byte).collect()
}

/// Appends the document that remembers a deletion.
pub(crate) fn encode_deletion(version: Version, out: &mut Vec<u8>) {
    out.extend(format!("{{\"version\":{version},\"deleted\":true}}").into_bytes());
}

/// Appends the document of a record, on one line.
pub(crate) fn encode(
    layout: &Layout,
    version: Version,
    record: &Record,
    out: &mut Vec<u8>,
) -> Result<()> {
    let encoded = |r: serde_json::Result<()>| {
        r.map_err(|e| Error::internal("a record cannot be encoded").caused_by(e))
    };
    out.extend(format!("{{\"version\":{version},\"record\":").into_bytes());
    out.extend_from_slice(&json::to_vec(&layout.entity, record));
    out.extend_from_slice(b",\"indexed\":");
    encoded(serde_json::to_writer(&mut *out, &Indexed { layout, record }))?;
    if !layout.words.is_empty() {
        out.extend_from_slice(b",\"words\":");
        encoded(serde_json::to_writer(&mut *out, &Words { layout, record }))?;
    }
    for (name, paths) in [("present", present(layout, record)), ("long", long(layout, record))] {
        if !paths.is_empty() {
            out.extend_from_slice(format!(",\"{name}\":").as_bytes());
            encoded(serde_json::to_writer(&mut *out, &paths))?;
        }
    }
    out.push(b'}');
    Ok(())
}

/// What a document holds, as far as it is read back.
#[derive(Deserialize)]
struct Document<'a> {
    /// Of the record. The engine counts a version too, but raises it when somebody changes the document by hand.
    #[serde(default)]
    version: i64,
    #[serde(borrow, default)]
    record: Option<&'a RawValue>,
    #[serde(default)]
    deleted: bool,
}

/// The record of a document; `None` if it only remembers a deletion.
pub(crate) fn decode(entity: &Entity, source: &RawValue) -> Result<Option<Stored>> {
    let corrupt = |e: Error| error::corrupt("a stored record cannot be read").caused_by(e);
    let document: Document<'_> = serde_json::from_str(source.get()).map_err(error::unreadable)?;
    if document.deleted {
        return Ok(None);
    }
    let Some(record) = document.record else {
        return Err(error::corrupt("a document has no record").of(entity.name()));
    };
    let record = json::parse_slice(entity, record.get().as_bytes()).map_err(corrupt)?;
    let key = entity.key_of(&record).map_err(corrupt)?;
    let version = Version::from_i64(document.version).map_err(corrupt)?;
    Ok(Some(Stored::new(key, version, Arc::new(record))))
}

/// The forms of a record's scalars, by field.
struct Indexed<'a> {
    layout: &'a Layout,
    record: &'a Record,
}

impl Serialize for Indexed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let fields = self.layout.entity.fields().iter().zip(self.record.values());
        for (n, (field, value)) in fields.enumerate() {
            let (whole, columns) = self.layout.slots(n);
            match (whole, value) {
                (_, Value::Null) => {}
                (Some(slot), Value::List(items)) => {
                    map.serialize_entry(&*field.name, &Forms { slot, values: items.iter() })?;
                }
                (_, Value::Objects(rows)) => {
                    map.serialize_entry(&*field.name, &Columns { columns, rows })?;
                }
                (Some(slot), value) => {
                    if let Some(form) = to_form(&slot.ty, value) {
                        map.serialize_entry(&*field.name, &form)?;
                    }
                }
                (None, _) => {}
            }
        }
        map.end()
    }
}

/// The forms of several values.
struct Forms<'a, I> {
    slot: &'a Slot,
    values: I,
}

impl<'v, I: Iterator<Item = &'v Value> + Clone> Serialize for Forms<'_, I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(None)?;
        for form in self.values.clone().filter_map(|value| to_form(&self.slot.ty, value)) {
            seq.serialize_element(&form)?;
        }
        seq.end()
    }
}

/// The forms of a list of objects, by column.
struct Columns<'a> {
    columns: &'a [Option<Slot>],
    rows: &'a [Vec<Value>],
}

impl Serialize for Columns<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (n, slot) in self.columns.iter().enumerate() {
            if let Some(slot) = slot {
                let values = self.rows.iter().filter_map(move |row| row.get(n));
                map.serialize_entry(slot.last_name(), &Forms { slot, values })?;
            }
        }
        map.end()
    }
}

/// The words of a record's search fields.
struct Words<'a> {
    layout: &'a Layout,
    record: &'a Record,
}

impl Serialize for Words<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use unisono_core::query::search::words;
        let mut map = serializer.serialize_map(None)?;
        for (field, name) in &self.layout.words {
            if let Some(text) = self.record.values().get(*field).and_then(Value::as_str) {
                let words: Vec<_> = words(text).into_iter().map(|word| word.text).collect();
                map.serialize_entry(name, &words.join(" "))?;
            }
        }
        map.end()
    }
}

/// The fields that are there, of those whose values are not indexed one by one.
fn present<'a>(layout: &'a Layout, record: &Record) -> Vec<&'a str> {
    let fields = layout.entity.fields().iter().zip(record.values());
    let there = fields.filter(|(field, value)| {
        !field.ty.is_scalar() && !matches!(value, Value::Null | Value::Json(Json::Null))
    });
    there.map(|(field, _)| &*field.name).collect()
}

/// The paths with a value that is longer than what is indexed.
fn long<'a>(layout: &'a Layout, record: &Record) -> Vec<&'a str> {
    let mut paths = Vec::new();
    for (n, value) in record.values().iter().enumerate() {
        let (whole, columns) = layout.slots(n);
        let is_long = |slot: &Slot, value| to_form(&slot.ty, value).is_some_and(|f| f.is_long());
        let any = |slot: &Slot| match value {
            Value::List(items) => items.iter().any(|value| is_long(slot, value)),
            value => is_long(slot, value),
        };
        paths.extend(whole.filter(|slot| any(slot)).map(|slot| slot.path.as_str()));
        if let Value::Objects(rows) = value {
            for (n, slot) in columns.iter().enumerate() {
                let any = |slot: &Slot| {
                    rows.iter().filter_map(|row| row.get(n)).any(|v| is_long(slot, v))
                };
                paths.extend(slot.as_ref().filter(|slot| any(slot)).map(|slot| slot.path.as_str()));
            }
        }
    }
    paths
}

#[cfg(test)]
mod tests;
