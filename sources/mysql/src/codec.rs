//! Values to SQL literals and back from what the server answers, by declared type and by the form of the column.

use std::fmt::Write;

use mysql_async::Value as Sql;
use unisono_core::{
    Date, Decimal, Error, ErrorKind, FieldType, Key, Result, Timestamp, Uuid, Value, json,
};
use unisono_sql::text::{escape, unescape};

use crate::images;
use crate::literal::{push_bytes, push_text};

/// How a column keeps its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Text without U+0000 and U+0001: see [`unisono_sql::text`]. The server fills up what it sorts with U+0000, so that
    /// texts that end in it could not be told apart.
    Text,
    /// A whole number.
    Integer,
    /// DECIMAL, with this many digits after the point as they are declared.
    Decimal(u8),
    /// 0 or 1.
    Boolean,
    /// DOUBLE, which keeps no sign of a zero: that is in a column of its own, see [`crate::table`].
    Float,
    /// DATE.
    Date,
    /// DATETIME in UTC, with this many digits of the second's fraction as they are declared.
    Timestamp(u8),
    /// The canonical text.
    Uuid,
    /// BINARY(16), in a table that an application made.
    UuidBytes,
    /// Bytes.
    Bytes,
    /// JSON as text.
    Json,
}

impl Form {
    /// The form of a type in a table of our own.
    pub(crate) fn of(ty: &FieldType) -> Self {
        match ty {
            FieldType::String | FieldType::Text => Form::Text,
            FieldType::Integer => Form::Integer,
            FieldType::Decimal { scale, .. } => Form::Decimal(*scale),
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

/// Appends a value as a literal; fails for one that the declared type cannot hold.
pub(crate) fn push(out: &mut String, form: Form, ty: &FieldType, value: &Value) -> Result<()> {
    // Writing to memory does not fail.
    match (form, value) {
        (_, Value::Null) | (Form::Json, Value::Json(serde_json::Value::Null)) => {
            out.push_str("NULL");
        }
        (Form::Text, Value::String(text)) => push_text(out, &escape(text)),
        (Form::Integer, Value::Integer(n)) => _ = write!(out, "{n}"),
        (Form::Decimal(scale), Value::Decimal(n)) => {
            let n = rescaled(*n, scale).ok_or_else(|| unfit(ty))?;
            let _ = write!(out, "{n}");
        }
        (Form::Boolean, Value::Boolean(b)) => out.push(if *b { '1' } else { '0' }),
        // With an exponent it is a double; without one the server reads a decimal.
        (Form::Float, Value::Float(n)) => _ = write!(out, "{n:e}"),
        (Form::Date, Value::Date(date)) => _ = write!(out, "'{date}'"),
        (Form::Timestamp(digits), Value::Timestamp(time)) if time.fraction_digits() <= digits => {
            push_time(out, *time);
        }
        (Form::Uuid, Value::Uuid(uuid)) => _ = write!(out, "'{uuid}'"),
        (Form::UuidBytes, Value::Uuid(uuid)) => push_bytes(out, uuid.as_bytes()),
        (Form::Bytes, Value::Bytes(bytes)) => push_bytes(out, bytes),
        (Form::Json, Value::Json(tree)) => push_text(out, &tree.to_string()),
        (Form::Json, Value::List(_) | Value::Objects(_)) => {
            push_text(out, &json::value_to_json(ty, value).to_string());
        }
        _ => return Err(unfit(ty)),
    }
    Ok(())
}

/// A value as a literal to compare its column with; `None` if only Rust can tell.
pub(crate) fn comparable(form: Form, ty: &FieldType, value: &Value) -> Option<String> {
    if form == Form::Json || value.is_null() {
        return None;
    }
    let mut out = String::new();
    push(&mut out, form, ty, value).ok()?;
    Some(out)
}

/// A value from its column, as the server writes it in an answer to a query.
pub(crate) fn decode(form: Form, ty: &FieldType, cell: &Sql) -> Result<Value> {
    let bytes = match cell {
        Sql::NULL => return Ok(Value::Null),
        Sql::Bytes(bytes) => bytes.as_slice(),
        _ => return Err(corrupt(ty)),
    };
    if form == Form::Bytes {
        return Ok(Value::Bytes(bytes.to_vec()));
    }
    if form == Form::UuidBytes {
        return Uuid::from_slice(bytes).map(Value::Uuid).map_err(|_| corrupt(ty));
    }
    let text = utf8(bytes)?;
    let value = match form {
        Form::Text => Some(Value::String(unescape(text)?.into_owned())),
        Form::Integer => text.parse().ok().map(Value::Integer),
        Form::Decimal(scale) => {
            let number = Decimal::from_str_exact(text).ok();
            number.and_then(|n| rescaled(n, scale)).map(Value::Decimal)
        }
        Form::Boolean => match text {
            "0" => Some(Value::Boolean(false)),
            "1" => Some(Value::Boolean(true)),
            _ => None,
        },
        Form::Float => text.parse().ok().filter(|n: &f64| n.is_finite()).map(Value::Float),
        Form::Date => text.parse::<Date>().ok().map(Value::Date),
        Form::Timestamp(digits) => {
            parse_time(text).filter(|time| time.fraction_digits() <= digits).map(Value::Timestamp)
        }
        Form::Uuid => Uuid::try_parse(text).ok().map(Value::Uuid),
        Form::Json => images::value(ty, text).ok(),
        Form::Bytes | Form::UuidBytes => None,
    };
    value.ok_or_else(|| corrupt(ty))
}

/// The text of a cell; `None` if it is null.
pub(crate) fn text_of(cell: &Sql) -> Result<Option<&str>> {
    match cell {
        Sql::NULL => Ok(None),
        Sql::Bytes(bytes) => utf8(bytes).map(Some),
        _ => Err(corrupt("text")),
    }
}

/// The number in a cell; `None` if it is null.
pub(crate) fn number_of(cell: &Sql) -> Result<Option<i64>> {
    let text = text_of(cell)?;
    text.map(|text| text.parse().map_err(|_| corrupt("integer"))).transpose()
}

/// Appends a key as the source's own tables keep it: its text.
pub(crate) fn push_key_text(out: &mut String, key: &Key) {
    match key {
        Key::String(text) => push_text(out, text),
        key => _ = write!(out, "'{key}'"),
    }
}

fn push_time(out: &mut String, time: Timestamp) {
    let text = time.to_text(6);
    let _ = write!(out, "'{}'", text.trim_end_matches('Z').replacen('T', " ", 1));
}

/// From `2026-12-31 23:59:59.123456`.
fn parse_time(text: &str) -> Option<Timestamp> {
    let (day, time) = text.split_once(' ')?;
    format!("{day}T{time}Z").parse().ok()
}

/// A decimal with this many digits after the point, if it has no further ones and fits.
fn rescaled(number: Decimal, scale: u8) -> Option<Decimal> {
    let mut exact = number;
    exact.rescale(u32::from(scale));
    if exact.is_zero() {
        exact.set_sign_positive(true);
    }
    (exact.scale() == u32::from(scale) && exact == number).then_some(exact)
}

fn utf8(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes)
        .map_err(|e| Error::new(ErrorKind::Corrupt, "stored text is not UTF-8").caused_by(e))
}

fn unfit(ty: &FieldType) -> Error {
    Error::invalid("the value does not fit the declared type").with("type", ty)
}

fn corrupt(expected: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, "a stored value is not of the declared type")
        .with("type", expected)
        .hint("somebody wrote to the table past Unisono: correct the value by hand")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(ty: &FieldType, value: &Value) -> String {
        let mut out = String::new();
        push(&mut out, Form::of(ty), ty, value).unwrap();
        out
    }

    #[test]
    fn literals_are_exact() {
        let money = FieldType::Decimal { precision: 12, scale: 2 };
        let time = FieldType::Timestamp { precision: 6 };
        for (ty, value, expected) in [
            (&FieldType::Integer, Value::Integer(i64::MIN), "-9223372036854775808"),
            (&FieldType::Float, Value::Float(0.1), "1e-1"),
            (&FieldType::Float, Value::Float(9_007_199_254_740_993.0), "9.007199254740992e15"),
            (&money, Value::Decimal(Decimal::new(-125, 1)), "-12.50"),
            (&FieldType::Boolean, Value::Boolean(true), "1"),
            (&FieldType::Bytes, Value::Bytes(vec![0xc3, 0x28]), "x'c328'"),
            (&FieldType::Json, Value::Json(serde_json::json!({"a": "'"})), r#"'{"a":"\'"}'"#),
            (&FieldType::String, Value::Null, "NULL"),
            (&time, Value::Timestamp(Timestamp::EPOCH), "'1970-01-01 00:00:00.000000'"),
        ] {
            assert_eq!(literal(ty, &value), expected);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let money = FieldType::Decimal { precision: 12, scale: 2 };
        let second = FieldType::Timestamp { precision: 0 };
        for (ty, value) in [
            (&money, Value::Decimal(Decimal::new(1234, 3))),
            (&second, Value::Timestamp(Timestamp::from_micros(1).unwrap())),
            (&FieldType::Integer, Value::String("1".into())),
        ] {
            assert!(push(&mut String::new(), Form::of(ty), ty, &value).is_err(), "{ty}");
        }
    }

    #[test]
    fn answers_are_read_by_type() {
        let read = |ty: &FieldType, text: &str| {
            decode(Form::of(ty), ty, &Sql::Bytes(text.into())).map_err(|e| e.kind())
        };
        let time = FieldType::Timestamp { precision: 6 };
        assert_eq!(read(&FieldType::Float, "5e-324"), Ok(Value::Float(5e-324)));
        assert_eq!(read(&time, "0000-01-01 00:00:00.000000").map(|_| ()), Ok(()), "the first year");
        assert_eq!(read(&FieldType::Date, "0000-00-00"), Err(ErrorKind::Corrupt));
        assert_eq!(read(&FieldType::Boolean, "2"), Err(ErrorKind::Corrupt));
        let money = FieldType::Decimal { precision: 12, scale: 2 };
        assert_eq!(read(&money, "12.5000"), Ok(Value::Decimal(Decimal::new(1250, 2))));
        assert_eq!(read(&money, "12.5010"), Err(ErrorKind::Corrupt));
    }
}
