//! Values to and from columns, by declared type and by the form that the column keeps it in.

use rusqlite::types::{ToSqlOutput, Type, Value as Sql, ValueRef};
use unisono_core::{Decimal, Error, ErrorKind, FieldType, Key, Result, Uuid, Value, json};
use unisono_sql::objects;

/// The most digits that a double keeps of a decimal number.
pub(crate) const APPROXIMATE_DIGITS_MAX: u8 = 15;
/// The most digits of a decimal that is kept as a 64-bit integer.
pub(crate) const SCALED_DIGITS_MAX: u8 = 18;

/// How a column keeps its values. In every form the order of the column is the order of the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// TEXT as it is.
    Text,
    /// INTEGER.
    Integer,
    /// INTEGER: the decimal without its point.
    Scaled(u8),
    /// A number of an adopted table with at most 15 digits, the given number of them after the point.
    Approximate(u8),
    /// INTEGER 0 or 1.
    Boolean,
    /// REAL in a column without affinity, so that a negative zero stays one.
    Float,
    /// TEXT `2026-12-31`.
    Date,
    /// TEXT in RFC 3339, UTC, with this many digits of the second's fraction.
    Timestamp(u8),
    /// TEXT in the canonical form.
    Uuid,
    /// BLOB.
    Bytes,
    /// TEXT holding JSON.
    Json,
}

impl Form {
    /// The form of a type in a table of our own.
    pub(crate) fn of(ty: &FieldType) -> Self {
        match ty {
            FieldType::String | FieldType::Text => Form::Text,
            FieldType::Integer => Form::Integer,
            FieldType::Decimal { scale, .. } => Form::Scaled(*scale),
            FieldType::Boolean => Form::Boolean,
            FieldType::Float => Form::Float,
            FieldType::Date => Form::Date,
            FieldType::Timestamp { precision } => Form::Timestamp(*precision),
            FieldType::Uuid => Form::Uuid,
            FieldType::Bytes => Form::Bytes,
            FieldType::Json | FieldType::List(_) | FieldType::Objects(_) => Form::Json,
        }
    }
}

/// The declared type of a column of our own. SQLite takes the affinity from the letters in it: `INT`, `TEXT`, `BLOB`.
pub(crate) fn declared_type(ty: &FieldType) -> String {
    match ty {
        FieldType::String | FieldType::Text => "TEXT".into(),
        FieldType::Integer => "INTEGER".into(),
        FieldType::Decimal { precision, scale } => format!("DECIMAL_INT({precision},{scale})"),
        FieldType::Boolean => "BOOLEAN".into(),
        FieldType::Float => "FLOAT_BLOB".into(),
        FieldType::Date => "DATE_TEXT".into(),
        FieldType::Timestamp { precision } => format!("TIMESTAMP_TEXT({precision})"),
        FieldType::Uuid => "UUID_TEXT".into(),
        FieldType::Bytes => "BLOB".into(),
        FieldType::Json | FieldType::List(_) | FieldType::Objects(_) => "JSON_TEXT".into(),
    }
}

/// A value as its column keeps it; fails for one that the declared type cannot hold.
pub(crate) fn encode<'a>(form: Form, ty: &FieldType, value: &'a Value) -> Result<ToSqlOutput<'a>> {
    let borrowed = |v: ValueRef<'a>| Ok(ToSqlOutput::Borrowed(v));
    let text = |text: String| Ok(ToSqlOutput::Owned(Sql::Text(text)));
    match (form, value) {
        (_, Value::Null) => borrowed(ValueRef::Null),
        (Form::Text, Value::String(s)) => borrowed(ValueRef::Text(s.as_bytes())),
        (Form::Integer, Value::Integer(n)) => borrowed(ValueRef::Integer(*n)),
        (Form::Scaled(scale), Value::Decimal(d)) => match mantissa(*d, scale) {
            Some(n) => borrowed(ValueRef::Integer(n)),
            None => Err(unfit(ty)),
        },
        (Form::Approximate(scale), Value::Decimal(d)) => match mantissa(*d, scale) {
            Some(n) => borrowed(ValueRef::Real(n as f64 / 10f64.powi(i32::from(scale)))),
            None => Err(unfit(ty)),
        },
        (Form::Boolean, Value::Boolean(b)) => borrowed(ValueRef::Integer(i64::from(*b))),
        (Form::Float, Value::Float(n)) => borrowed(ValueRef::Real(*n)),
        (Form::Date, Value::Date(date)) => text(date.to_string()),
        (Form::Timestamp(digits), Value::Timestamp(time)) if time.fraction_digits() <= digits => {
            text(time.to_text(digits))
        }
        (Form::Uuid, Value::Uuid(uuid)) => text(uuid.to_string()),
        (Form::Bytes, Value::Bytes(bytes)) => borrowed(ValueRef::Blob(bytes)),
        (Form::Json, Value::Json(serde_json::Value::Null)) => borrowed(ValueRef::Null),
        (Form::Json, Value::Json(tree)) => text(tree.to_string()),
        (Form::Json, Value::List(_) | Value::Objects(_)) => {
            text(json::value_to_json(ty, value).to_string())
        }
        _ => Err(unfit(ty)),
    }
}

/// A value as the column keeps it, to compare the column with; `None` if only Rust can tell, because the column
/// cannot hold the value or does not order like it.
pub(crate) fn comparable(form: Form, ty: &FieldType, value: &Value) -> Option<Sql> {
    if form == Form::Json || value.is_null() {
        return None;
    }
    encode(form, ty, value).ok().map(owned)
}

/// A key as its column keeps it.
pub(crate) fn encode_key(key: &Key) -> ToSqlOutput<'_> {
    match key {
        Key::Integer(n) => ToSqlOutput::Borrowed(ValueRef::Integer(*n)),
        Key::String(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
        Key::Uuid(uuid) => ToSqlOutput::Owned(Sql::Text(uuid.to_string())),
    }
}

/// A key from its column, by the type of the key field if it is known.
pub(crate) fn decode_key(ty: Option<&FieldType>, column: ValueRef<'_>) -> Result<Key> {
    match (ty, column) {
        (_, ValueRef::Integer(n)) => Ok(Key::Integer(n)),
        (Some(FieldType::Uuid), ValueRef::Text(bytes)) => {
            Uuid::try_parse_ascii(bytes).map(Key::Uuid).map_err(|_| corrupt("uuid", column))
        }
        (_, ValueRef::Text(bytes)) => Key::from_text(utf8(bytes)?),
        _ => Err(corrupt("key", column)),
    }
}

/// A value from its column.
pub(crate) fn decode(form: Form, ty: &FieldType, column: ValueRef<'_>) -> Result<Value> {
    let wrong = || corrupt(ty, column);
    Ok(match (form, column) {
        (_, ValueRef::Null) => Value::Null,
        (Form::Text, ValueRef::Text(bytes)) => Value::String(utf8(bytes)?.to_owned()),
        (Form::Integer, ValueRef::Integer(n)) => Value::Integer(n),
        (Form::Scaled(scale), ValueRef::Integer(n)) => {
            Value::Decimal(Decimal::new(n, u32::from(scale)))
        }
        (Form::Approximate(scale), ValueRef::Integer(n)) => {
            let n = n.checked_mul(10i64.pow(u32::from(scale))).ok_or_else(wrong)?;
            Value::Decimal(Decimal::new(n, u32::from(scale)))
        }
        (Form::Approximate(scale), ValueRef::Real(n)) => {
            let scaled = (n * 10f64.powi(i32::from(scale))).round();
            if scaled.is_nan() || scaled.abs() >= 1e15 {
                return Err(wrong());
            }
            Value::Decimal(Decimal::new(scaled as i64, u32::from(scale)))
        }
        (Form::Boolean, ValueRef::Integer(n @ (0 | 1))) => Value::Boolean(n == 1),
        (Form::Float, ValueRef::Real(n)) if n.is_finite() => Value::Float(n),
        (Form::Float, ValueRef::Integer(n)) => Value::Float(n as f64),
        (Form::Date | Form::Timestamp(_) | Form::Uuid, ValueRef::Text(bytes)) => {
            json::parse_text(ty, utf8(bytes)?).map_err(|_| wrong())?
        }
        (Form::Bytes, ValueRef::Blob(bytes)) => Value::Bytes(bytes.to_vec()),
        (Form::Json, ValueRef::Text(bytes)) => {
            objects::value(ty, utf8(bytes)?).map_err(|_| wrong())?
        }
        _ => return Err(wrong()),
    })
}

/// A decimal as a whole number of units of its last digit, if it has no further digits and fits.
fn mantissa(mut decimal: Decimal, scale: u8) -> Option<i64> {
    let scale = u32::from(scale);
    if decimal.scale() != scale {
        let exact = decimal;
        decimal.rescale(scale);
        if decimal.scale() != scale || decimal != exact {
            return None;
        }
    }
    i64::try_from(decimal.mantissa()).ok()
}

/// An encoded value that borrows nothing.
pub(crate) fn owned(output: ToSqlOutput<'_>) -> Sql {
    match output {
        // Fails for text that is not UTF-8, which no `Value` holds.
        ToSqlOutput::Borrowed(value) => value.try_into().unwrap_or(Sql::Null),
        ToSqlOutput::Owned(value) => value,
        // `encode` makes only the two above.
        _ => Sql::Null,
    }
}

fn utf8(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes)
        .map_err(|e| Error::new(ErrorKind::Corrupt, "stored text is not UTF-8").caused_by(e))
}

fn unfit(ty: &FieldType) -> Error {
    Error::invalid("the value does not fit the declared type").with("type", ty)
}

fn corrupt(expected: impl std::fmt::Display, column: ValueRef<'_>) -> Error {
    let found: Type = column.data_type();
    Error::new(ErrorKind::Corrupt, "a stored value is not of the declared type")
        .with("type", expected)
        .with("stored_as", found)
        .hint("somebody wrote to the table past Unisono: correct the value by hand")
}
