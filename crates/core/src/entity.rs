//! [`Entity`]: a declared kind of record, its fields and their rules.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::personal::{self, Personal};
use crate::query::Step;
use crate::record::Record;
use crate::value::Value;

/// What a field can hold.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldType {
    /// Unicode text compared as a whole.
    String,
    /// Unicode text meant for full-text search.
    Text,
    /// A 64-bit signed integer.
    Integer,
    /// An exact number with `precision` digits (1 to 28), `scale` of them after the point.
    Decimal {
        /// All digits, 1 to 28.
        precision: u8,
        /// Digits after the point, 0 to `precision`.
        scale: u8,
    },
    /// True or false.
    Boolean,
    /// A finite IEEE 754 double.
    Float,
    /// A calendar day.
    Date,
    /// An instant in UTC.
    Timestamp {
        /// Digits of the second's fraction, 0 to 6.
        precision: u8,
    },
    /// A UUID.
    Uuid,
    /// Bytes; base64 in JSON.
    Bytes,
    /// Any JSON value.
    Json,
    /// A list of scalars of one type.
    List(Box<FieldType>),
    /// A list of objects with declared fields, such as the lines of an order.
    Objects(Arc<[Field]>),
}

impl FieldType {
    /// Whether the type is a single value that can be compared, ordered and be a list element.
    pub fn is_scalar(&self) -> bool {
        !matches!(self, FieldType::Json | FieldType::List(_) | FieldType::Objects(_))
    }

    /// Whether sums and averages make sense.
    pub fn is_number(&self) -> bool {
        matches!(self, FieldType::Integer | FieldType::Decimal { .. } | FieldType::Float)
    }

    /// Whether the type is `string` or `text`.
    pub fn is_text(&self) -> bool {
        matches!(self, FieldType::String | FieldType::Text)
    }
}

impl fmt::Display for FieldType {
    /// The form used in configurations: `decimal(12,2)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FieldType::String => f.write_str("string"),
            FieldType::Text => f.write_str("text"),
            FieldType::Integer => f.write_str("integer"),
            FieldType::Decimal { precision, scale } => write!(f, "decimal({precision},{scale})"),
            FieldType::Boolean => f.write_str("boolean"),
            FieldType::Float => f.write_str("float"),
            FieldType::Date => f.write_str("date"),
            FieldType::Timestamp { precision: 6 } => f.write_str("timestamp"),
            FieldType::Timestamp { precision } => write!(f, "timestamp({precision})"),
            FieldType::Uuid => f.write_str("uuid"),
            FieldType::Bytes => f.write_str("bytes"),
            FieldType::Json => f.write_str("json"),
            FieldType::List(of) => write!(f, "list of {of}"),
            FieldType::Objects(_) => f.write_str("list of objects"),
        }
    }
}

/// One declared field.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Its name: lower case letters, digits and underscores, starting with a letter.
    pub name: Arc<str>,
    /// What it can hold.
    pub ty: FieldType,
    /// Whether null is refused.
    pub required: bool,
    /// Whether no two records may share a value; nulls do not count.
    pub unique: bool,
    /// Whether sources that can should index it.
    pub index: bool,
    /// Whether full-text search looks at it.
    pub search: bool,
    /// The value that a new record gets when none is given.
    pub default: Option<Value>,
    /// If not empty, the only values allowed.
    pub allowed: Vec<Value>,
    /// Greatest length in characters (text), bytes (`bytes`) or elements (lists).
    pub max_length: Option<u32>,
    /// Whether the whole field is [personal](Personal), so that sources hold something else in its place.
    pub personal: bool,
}

impl Field {
    /// A field without any rule.
    pub fn new(name: &str, ty: FieldType) -> Self {
        Field {
            name: name.into(),
            ty,
            required: false,
            unique: false,
            index: false,
            search: false,
            default: None,
            allowed: Vec::new(),
            max_length: None,
            personal: false,
        }
    }

    /// Checks the rules that need only this value: required, allowed, length.
    ///
    /// The type itself was checked when the value was parsed.
    pub fn check(&self, value: &Value) -> Result<()> {
        let refuse = |message: String| {
            Err(Error::new(ErrorKind::InvalidInput, message).with("field", &self.name))
        };
        if value.is_null() {
            return if self.required { refuse("is required".into()) } else { Ok(()) };
        }
        if self.personal && personal::is_sealed(value) {
            // It was checked before it was sealed.
            return Ok(());
        }
        if !self.allowed.is_empty() && !self.allowed.contains(value) {
            return refuse("is not one of the allowed values".into());
        }
        if let Some(max) = self.max_length {
            let (length, unit) = match value {
                Value::String(text) => (text.chars().count(), "characters"),
                Value::Bytes(bytes) => (bytes.len(), "bytes"),
                Value::List(items) => (items.len(), "elements"),
                Value::Objects(items) => (items.len(), "elements"),
                _ => (0, ""),
            };
            if length > max as usize {
                return refuse(format!("has {length} {unit}; at most {max} are allowed"));
            }
        }
        if let (FieldType::Objects(fields), Value::Objects(rows)) = (&self.ty, value) {
            for row in rows {
                for (field, value) in fields.iter().zip(row) {
                    field.check(value).map_err(|e| e.with("in", &self.name))?;
                }
            }
        }
        Ok(())
    }
}

/// What the names of entities, tables and indexes begin with that are the engine's own.
pub const SYSTEM: &str = "unisono_";

/// A declared kind of record.
#[derive(Clone, Debug)]
pub struct Entity {
    name: Arc<str>,
    fields: Vec<Field>,
    key: usize,
    by_name: HashMap<Arc<str>, usize>,
    is_of_events: bool,
    personal: Option<Arc<Personal>>,
    is_derived: bool,
}

impl Entity {
    /// The most fields that an entity may declare.
    pub const FIELDS_MAX: usize = 200;

    /// Declares an entity whose identity is the field named `key`.
    ///
    /// The key must be a `string`, `integer` or `uuid` field; it becomes required.
    pub fn new(name: &str, key: &str, fields: Vec<Field>) -> Result<Self> {
        check_name(name)?;
        Self::named(name, key, fields)
    }

    /// An entity that the engine declares for itself, beside those of the application: kept, ordered and carried to
    /// followers as any other. Its name begins with [`SYSTEM`], which [`Entity::new`] refuses.
    pub fn system(name: &str, key: &str, fields: Vec<Field>) -> Result<Self> {
        check_name(name)?;
        Self::named(&format!("{SYSTEM}{name}"), key, fields)
    }

    /// An entity whose records are events: they are appended to streams, and not changed.
    pub fn of_events(name: &str, key: &str, fields: Vec<Field>) -> Result<Self> {
        check_name(name)?;
        Ok(Entity { is_of_events: true, ..Self::named(name, key, fields)? })
    }

    /// The same entity with values that are about persons: `fields` and `subject` as for [`Personal::new`].
    pub fn with_personal(mut self, fields: &[&str], subject: &str) -> Result<Self> {
        let personal = Personal::new(&self, fields, subject).map_err(|e| e.of(&self.name))?;
        for path in personal.fields.iter().filter(|path| path.step == Step::Whole) {
            self.fields[path.field].personal = true;
        }
        self.personal = Some(Arc::new(personal));
        Ok(self)
    }

    /// Which of its values are about persons, if any are.
    pub fn personal(&self) -> Option<&Arc<Personal>> {
        self.personal.as_ref()
    }

    /// An entity whose records are worked out from those of another one: they are read, and not written.
    pub fn derived(name: &str, key: &str, fields: Vec<Field>) -> Result<Self> {
        check_name(name)?;
        Ok(Entity { is_derived: true, ..Self::named(name, key, fields)? })
    }

    /// Whether its records are worked out from those of another one.
    pub fn is_derived(&self) -> bool {
        self.is_derived
    }

    /// Whether its records are events: see [`crate::stream`].
    pub fn is_of_events(&self) -> bool {
        self.is_of_events
    }

    /// Whether the engine declared it for itself.
    pub fn is_system(&self) -> bool {
        self.name.starts_with(SYSTEM)
    }

    fn named(name: &str, key: &str, mut fields: Vec<Field>) -> Result<Self> {
        if fields.len() > Self::FIELDS_MAX {
            return Err(config("has too many fields", name).with("limit", Self::FIELDS_MAX));
        }
        let mut by_name = HashMap::with_capacity(fields.len());
        for (n, field) in fields.iter().enumerate() {
            check_name(&field.name)?;
            if by_name.insert(Arc::clone(&field.name), n).is_some() {
                return Err(config("declares a field twice", name).with("field", &field.name));
            }
        }
        let Some(&key) = by_name.get(key) else {
            return Err(config("names a key that is not among its fields", name).with("key", key));
        };
        if !matches!(fields[key].ty, FieldType::String | FieldType::Integer | FieldType::Uuid) {
            return Err(config("needs a key of type string, integer or uuid", name));
        }
        fields[key].required = true;
        let (is_of_events, is_derived, personal) = (false, false, None);
        Ok(Entity { name: name.into(), fields, key, by_name, is_of_events, personal, is_derived })
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The declared fields, in order; a [`Record`] holds its values in the same order.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The index of the key among the fields.
    pub fn key_index(&self) -> usize {
        self.key
    }

    /// The key's field.
    pub fn key_field(&self) -> &Field {
        &self.fields[self.key]
    }

    /// The index of a field by its name.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// A field by its name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.index_of(name).map(|n| &self.fields[n])
    }

    /// The fields that full-text search looks at, with their indexes.
    pub fn search_fields(&self) -> impl Iterator<Item = (usize, &Field)> {
        self.fields.iter().enumerate().filter(|(_, f)| f.search)
    }

    /// The key of a record of this entity.
    pub fn key_of(&self, record: &Record) -> Result<Key> {
        Key::from_value(&record.values()[self.key]).map_err(|e| e.of(&self.name))
    }

    /// Checks every rule that needs only the record itself.
    pub fn check(&self, record: &Record) -> Result<()> {
        debug_assert_eq!(
            record.values().len(),
            self.fields.len(),
            "a record has one value per field"
        );
        for (field, value) in self.fields.iter().zip(record.values()) {
            field.check(value).map_err(|e| e.of(&self.name))?;
        }
        Ok(())
    }
}

impl PartialEq for Entity {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && self.key == other.key
            && self.fields == other.fields
            && self.personal == other.personal
    }
}

/// Checks that a name is 1 to 48 characters of `a-z`, `0-9` and `_`, starts with a letter and is not reserved.
pub fn check_name(name: &str) -> Result<()> {
    let well_formed = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.len() <= 48
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if !well_formed {
        return Err(Error::new(
            ErrorKind::InvalidConfig,
            "a name is 1 to 48 characters of a-z, 0-9 and _, and starts with a letter",
        )
        .with("name", name));
    }
    if name.starts_with(SYSTEM) || name.starts_with("sqlite_") {
        return Err(Error::new(
            ErrorKind::InvalidConfig,
            "names starting with unisono_ or sqlite_ are reserved",
        )
        .with("name", name));
    }
    Ok(())
}

fn config(message: &'static str, entity: &str) -> Error {
    Error::new(ErrorKind::InvalidConfig, message).of(entity)
}

/// Whether every value of the scalar type written `old` is, and compares as, the same value of the type written `new`,
/// such as `decimal(12,2)` and `decimal(14,4)`, so that what was stored under the one can be read as the other.
pub fn is_wider(old: &str, new: &str) -> bool {
    match (arguments(old), arguments(new)) {
        (("string", _), ("text", _)) | (("text", _), ("string", _)) => true,
        (("decimal", old), ("decimal", new)) => match (&old[..], &new[..]) {
            ([p, s], [wider_p, wider_s]) => {
                s <= wider_s && p.saturating_sub(*s) <= wider_p.saturating_sub(*wider_s)
            }
            _ => false,
        },
        (("timestamp", old), ("timestamp", new)) => digits(&old) <= digits(&new),
        _ => false,
    }
}

/// `decimal(12,2)` as `("decimal", [12, 2])`.
fn arguments(ty: &str) -> (&str, Vec<u8>) {
    let Some((name, rest)) = ty.split_once('(') else { return (ty, Vec::new()) };
    (name, rest.trim_end_matches(')').split(',').filter_map(|n| n.parse().ok()).collect())
}

/// The digits of a timestamp's fraction: all six unless declared.
fn digits(arguments: &[u8]) -> u8 {
    arguments.first().copied().unwrap_or(6)
}

#[cfg(test)]
mod tests;
