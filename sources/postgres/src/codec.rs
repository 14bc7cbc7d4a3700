//! Values to and from the binary form of PostgreSQL, by declared type.

use tokio_postgres::types::Type;
use unisono_core::{
    Date, Decimal, Error, ErrorKind, FieldType, Key, Result, Timestamp, Uuid, Value, json,
};
use unisono_sql::{objects, text};

use crate::parameter::Parameter;

/// Days from 1970 to 2000, where PostgreSQL begins to count.
const DAYS: i32 = 10_957;
const MICROS: i64 = 10_957 * 86_400_000_000;

/// How a value travels. In every form but `Json` the order of the engine is the order of the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `text`, with U+0000 escaped.
    Text,
    /// `bigint`.
    Integer,
    /// `numeric`.
    Decimal,
    /// `boolean`.
    Boolean,
    /// `double precision`.
    Float,
    /// `date`.
    Date,
    /// `timestamptz`.
    Timestamp,
    /// `uuid`.
    Uuid,
    /// `bytea`.
    Bytes,
    /// `json`: the text as it was written, so that numbers and U+0000 come back.
    Json,
}

impl Form {
    /// The form of a declared type.
    pub(crate) fn of(ty: &FieldType) -> Self {
        match ty {
            FieldType::String | FieldType::Text => Form::Text,
            FieldType::Integer => Form::Integer,
            FieldType::Decimal { .. } => Form::Decimal,
            FieldType::Boolean => Form::Boolean,
            FieldType::Float => Form::Float,
            FieldType::Date => Form::Date,
            FieldType::Timestamp { .. } => Form::Timestamp,
            FieldType::Uuid => Form::Uuid,
            FieldType::Bytes => Form::Bytes,
            FieldType::Json | FieldType::List(_) | FieldType::Objects(_) => Form::Json,
        }
    }

    /// The type that parameters have.
    pub(crate) fn wire(self) -> Type {
        match self {
            Form::Text => Type::TEXT,
            Form::Integer => Type::INT8,
            Form::Decimal => Type::NUMERIC,
            Form::Boolean => Type::BOOL,
            Form::Float => Type::FLOAT8,
            Form::Date => Type::DATE,
            Form::Timestamp => Type::TIMESTAMPTZ,
            Form::Uuid => Type::UUID,
            Form::Bytes => Type::BYTEA,
            Form::Json => Type::JSON,
        }
    }
}

/// The type of a column of our own.
pub(crate) fn declared_type(ty: &FieldType) -> String {
    match ty {
        FieldType::String | FieldType::Text => "text COLLATE \"C\"".into(),
        FieldType::Integer => "bigint".into(),
        FieldType::Decimal { precision, scale } => format!("numeric({precision},{scale})"),
        FieldType::Boolean => "boolean".into(),
        FieldType::Float => "double precision".into(),
        FieldType::Date => "date".into(),
        FieldType::Timestamp { precision } => format!("timestamptz({precision})"),
        FieldType::Uuid => "uuid".into(),
        FieldType::Bytes => "bytea".into(),
        FieldType::Json | FieldType::List(_) | FieldType::Objects(_) => "json".into(),
    }
}

/// A value in its binary form, none for null; fails for one that the declared type cannot hold.
pub(crate) fn encode(ty: &FieldType, value: &Value) -> Result<Option<Vec<u8>>> {
    let mut out = Vec::new();
    Ok(push(ty, value, &mut out)?.then_some(out))
}

/// Appends a value in its binary form, and answers whether it has one: null has none. Fails, perhaps with something
/// appended, for a value that the declared type cannot hold.
pub(crate) fn push(ty: &FieldType, value: &Value, out: &mut Vec<u8>) -> Result<bool> {
    match (Form::of(ty), value) {
        (_, Value::Null) | (Form::Json, Value::Json(serde_json::Value::Null)) => return Ok(false),
        (Form::Text, Value::String(s)) => out.extend_from_slice(text::escape(s).as_bytes()),
        (Form::Integer, Value::Integer(n)) => out.extend(n.to_be_bytes()),
        (Form::Decimal, Value::Decimal(d)) => push_numeric(*d, out),
        (Form::Boolean, Value::Boolean(b)) => out.push(u8::from(*b)),
        (Form::Float, Value::Float(n)) => out.extend(n.to_be_bytes()),
        (Form::Date, Value::Date(date)) => out.extend((date.days() - DAYS).to_be_bytes()),
        (Form::Timestamp, Value::Timestamp(time)) => out.extend(timestamp(*time)),
        (Form::Uuid, Value::Uuid(uuid)) => out.extend_from_slice(uuid.as_bytes()),
        (Form::Bytes, Value::Bytes(bytes)) => out.extend_from_slice(bytes),
        (Form::Json, Value::Json(tree)) => out.extend(tree.to_string().into_bytes()),
        (Form::Json, Value::List(_) | Value::Objects(_)) => {
            out.extend(json::value_to_json(ty, value).to_string().into_bytes());
        }
        _ => {
            return Err(Error::invalid("the value does not fit the declared type").with("type", ty));
        }
    }
    Ok(true)
}

/// An instant in its binary form.
pub(crate) fn timestamp(time: Timestamp) -> Vec<u8> {
    (time.micros() - MICROS).to_be_bytes().to_vec()
}

/// An instant from its binary form.
pub(crate) fn decode_timestamp(bytes: &[u8]) -> Result<Timestamp> {
    let micros = bytes.try_into().ok().map(i64::from_be_bytes).and_then(|n| n.checked_add(MICROS));
    let time = micros.and_then(|micros| Timestamp::from_micros(micros).ok());
    time.ok_or_else(|| corrupt("timestamp"))
}

/// A value from its binary form.
pub(crate) fn decode(ty: &FieldType, bytes: &[u8]) -> Result<Value> {
    let wrong = || corrupt(ty);
    Ok(match Form::of(ty) {
        Form::Text => Value::String(text::unescape(utf8(bytes)?)?.into_owned()),
        Form::Integer => Value::Integer(i64::from_be_bytes(bytes.try_into().map_err(|_| wrong())?)),
        Form::Decimal => {
            let FieldType::Decimal { scale, .. } = ty else { return Err(wrong()) };
            Value::Decimal(decode_numeric(bytes, *scale).ok_or_else(wrong)?)
        }
        Form::Boolean => match bytes {
            [0] => Value::Boolean(false),
            [1] => Value::Boolean(true),
            _ => return Err(wrong()),
        },
        Form::Float => match f64::from_be_bytes(bytes.try_into().map_err(|_| wrong())?) {
            n if n.is_finite() => Value::Float(n),
            _ => return Err(wrong()),
        },
        Form::Date => {
            let days = i32::from_be_bytes(bytes.try_into().map_err(|_| wrong())?);
            let days = days.checked_add(DAYS).ok_or_else(wrong)?;
            Value::Date(Date::from_days(days).map_err(|_| wrong())?)
        }
        Form::Timestamp => Value::Timestamp(decode_timestamp(bytes).map_err(|_| wrong())?),
        Form::Uuid => Value::Uuid(Uuid::from_slice(bytes).map_err(|_| wrong())?),
        Form::Bytes => Value::Bytes(bytes.to_vec()),
        Form::Json => objects::value(ty, utf8(bytes)?).map_err(|e| wrong().caused_by(e))?,
    })
}

/// A key as a log or tombstone keeps it, whatever its type.
pub(crate) fn key_text(key: &Key) -> String {
    match key {
        Key::String(plain) => text::escape(plain).into_owned(),
        other => other.to_string(),
    }
}

/// A key from a log or tombstone, by the type of the key field if it is known.
pub(crate) fn decode_key_text(ty: Option<&FieldType>, stored: &str) -> Result<Key> {
    let wrong = || corrupt("key");
    match ty {
        Some(FieldType::Integer) => stored.parse().map(Key::Integer).map_err(|_| wrong()),
        Some(FieldType::Uuid) => Uuid::try_parse(stored).map(Key::Uuid).map_err(|_| wrong()),
        _ => Key::from_text(&text::unescape(stored)?).map_err(|_| wrong()),
    }
}

/// A key in the binary form of its column.
pub(crate) fn encode_key(key: &Key) -> Vec<u8> {
    match key {
        Key::Integer(n) => n.to_be_bytes().to_vec(),
        Key::String(plain) => text::escape(plain).into_owned().into_bytes(),
        Key::Uuid(uuid) => uuid.as_bytes().to_vec(),
    }
}

/// Keys as the one parameter of `= ANY(…)`.
pub(crate) fn key_array(ty: &FieldType, keys: &[&Key]) -> Parameter {
    let keys: Vec<_> = keys.iter().map(|key| Some(encode_key(key))).collect();
    Parameter::array(&Form::of(ty).wire(), &keys)
}

/// Digits to the base of 10,000 behind a header: how many, the weight of the first, sign, and digits after the point.
fn push_numeric(decimal: Decimal, out: &mut Vec<u8>) {
    let scale = decimal.scale();
    let padding = (4 - scale % 4) % 4;
    // At most 29 digits and three zeros: below 128 bits.
    let mut rest = decimal.mantissa().unsigned_abs() * 10_u128.pow(padding);
    let after_point = ((scale + padding) / 4) as i16;
    let mut digits: Vec<i16> = Vec::with_capacity(9);
    while rest > 0 {
        digits.push((rest % 10_000) as i16);
        rest /= 10_000;
    }
    let weight = digits.len() as i16 - after_point - 1;
    let zeros = digits.iter().take_while(|digit| **digit == 0).count();
    digits.drain(..zeros);
    digits.reverse();
    let negative = decimal.is_sign_negative() && !digits.is_empty();
    let header = [
        digits.len() as i16,
        if digits.is_empty() { 0 } else { weight },
        if negative { 0x4000 } else { 0 },
        scale as i16,
    ];
    out.extend(header.into_iter().chain(digits).flat_map(i16::to_be_bytes));
}

/// None for NaN, infinity, and what has more digits than the scale or a decimal has.
fn decode_numeric(bytes: &[u8], scale: u8) -> Option<Decimal> {
    let words: Vec<i16> = bytes
        .chunks(2)
        .map(|c| c.try_into().ok().map(i16::from_be_bytes))
        .collect::<Option<_>>()?;
    let [count, weight, sign, _, digits @ ..] = words.as_slice() else { return None };
    if usize::try_from(*count) != Ok(digits.len()) || !matches!(sign, 0 | 0x4000) {
        return None;
    }
    let mut mantissa: i128 = 0;
    for digit in digits {
        mantissa = mantissa.checked_mul(10_000)?.checked_add(i128::from(*digit))?;
    }
    // The digits after the point, of which the last may be zeros.
    let present = (digits.len() as i32 - 1 - i32::from(*weight)) * 4;
    let wanted = i32::from(scale);
    if mantissa != 0 && wanted > present {
        mantissa = mantissa.checked_mul(10_i128.checked_pow((wanted - present) as u32)?)?;
    } else if mantissa != 0 && wanted < present {
        let unit = 10_i128.checked_pow((present - wanted) as u32)?;
        if mantissa % unit != 0 {
            return None;
        }
        mantissa /= unit;
    }
    let signed = if *sign == 0 { mantissa } else { -mantissa };
    Decimal::try_from_i128_with_scale(signed, u32::from(scale)).ok()
}

fn utf8(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes)
        .map_err(|e| Error::new(ErrorKind::Corrupt, "stored text is not UTF-8").caused_by(e))
}

fn corrupt(expected: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, "a stored value is not of the declared type")
        .with("type", expected)
        .hint("somebody wrote to the table past Unisono: correct the value by hand")
}

#[cfg(test)]
mod tests {
    use unisono_core::{Field, Key};
    use unisono_testkit::Generator;

    use super::*;

    #[test]
    fn every_value_comes_back_from_its_binary_form() {
        let mut g = Generator::new(7);
        for _ in 0..20_000 {
            let ty = match g.scalar_type() {
                FieldType::Bytes => FieldType::List(Box::new(g.scalar_type())),
                ty => ty,
            };
            let value = g.field_value(&Field::new("x", ty.clone()));
            let decoded = match encode(&ty, &value).unwrap() {
                None => Value::Null,
                Some(bytes) => decode(&ty, &bytes).unwrap(),
            };
            let text = |v: &Value| json::value_to_json(&ty, v).to_string();
            assert_eq!((&decoded, text(&decoded)), (&value, text(&value)), "{ty}");
        }
    }

    #[test]
    fn numbers_have_the_form_of_the_manual() {
        let words = |text: &str| -> Vec<i16> {
            let mut bytes = Vec::new();
            push_numeric(text.parse().unwrap(), &mut bytes);
            bytes.chunks(2).map(|c| i16::from_be_bytes([c[0], c[1]])).collect()
        };
        assert_eq!(words("0.00"), [0, 0, 0, 2]);
        assert_eq!(words("12345.6"), [3, 1, 0, 1, 1, 2345, 6000]);
        assert_eq!(words("-0.0001"), [1, -1, 0x4000, 4, 1]);
        assert_eq!(words("120000"), [1, 1, 0, 0, 12]);
    }

    #[test]
    fn numbers_that_do_not_fit_are_corrupt_and_not_rounded() {
        let ty = FieldType::Decimal { precision: 12, scale: 2 };
        let one = FieldType::Decimal { precision: 12, scale: 3 };
        let thousandth = encode(&one, &Value::Decimal("0.001".parse().unwrap())).unwrap().unwrap();
        let nan = [0i16, 0, -0x4000, 0].map(i16::to_be_bytes).concat();
        for bytes in [thousandth.as_slice(), &nan, &[], &[0, 1]] {
            assert_eq!(decode(&ty, bytes).unwrap_err().kind(), ErrorKind::Corrupt, "{bytes:?}");
        }
    }

    #[test]
    fn keys_come_back_from_their_text() {
        let keys = [Key::Integer(-5), Key::Uuid(Uuid::max()), Key::String("a\0\u{1}".into())];
        let types = [FieldType::Integer, FieldType::Uuid, FieldType::String];
        for (key, ty) in keys.iter().zip(&types) {
            assert!(!key_text(key).contains('\0'));
            assert_eq!(decode_key_text(Some(ty), &key_text(key)).unwrap(), *key);
        }
    }
}
