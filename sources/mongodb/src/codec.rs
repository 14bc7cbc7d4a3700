//! Single values to and from BSON, by declared type.

use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, DateTime, Decimal128};
use unisono_core::{
    Date, Decimal, Error, ErrorKind, FieldType, Key, Result, Timestamp, Uuid, Value,
};

use crate::error::corrupt;

const MILLIS_PER_DAY: i64 = 86_400_000;
/// The digits of a second's fraction that a BSON date keeps.
pub(crate) const DATE_DIGITS: u8 = 3;

/// A scalar as BSON that compares and orders like it, but for [`orders_alike`]; `None` for what is none.
///
/// A timestamp of more than three fractional digits is text here, as in lists: a date has only milliseconds. As a
/// field of its own it is a date and its microseconds, which is [`crate::document`]'s to write.
pub(crate) fn encode(ty: &FieldType, value: &Value) -> Option<Bson> {
    Some(match (ty, value) {
        (FieldType::String | FieldType::Text, Value::String(text)) => Bson::String(text.clone()),
        (FieldType::Integer, Value::Integer(n)) => Bson::Int64(*n),
        (FieldType::Decimal { .. }, Value::Decimal(n)) => Bson::Decimal128(decimal128(*n)?),
        (FieldType::Boolean, Value::Boolean(b)) => Bson::Boolean(*b),
        (FieldType::Float, Value::Float(n)) => Bson::Double(*n),
        (FieldType::Date, Value::Date(date)) => {
            Bson::DateTime(DateTime::from_millis(i64::from(date.days()) * MILLIS_PER_DAY))
        }
        (FieldType::Timestamp { precision }, Value::Timestamp(time)) => {
            match (split(*time), *precision <= DATE_DIGITS) {
                ((date, 0), true) => Bson::DateTime(date),
                // Finer than the field: fits nowhere, but is asked for.
                (_, true) => return None,
                (_, false) => Bson::String(time.to_text(6)),
            }
        }
        (FieldType::Uuid, Value::Uuid(uuid)) => uuid_bson(*uuid),
        (FieldType::Bytes, Value::Bytes(bytes)) => {
            Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: bytes.clone() })
        }
        _ => return None,
    })
}

/// Whether the order of a type's BSON is the order of its values: binary data is ordered by length first.
pub(crate) fn orders_alike(ty: &FieldType) -> bool {
    ty.is_scalar() && *ty != FieldType::Bytes
}

/// A scalar from BSON. Numbers that another program wrote in a narrower type are taken too.
pub(crate) fn decode(ty: &FieldType, bson: &Bson) -> Result<Value> {
    let wrong = || corrupt(ty, bson);
    Ok(match (ty, bson) {
        (_, Bson::Null) => Value::Null,
        (FieldType::String | FieldType::Text, Bson::String(text)) => Value::String(text.clone()),
        (FieldType::Integer, Bson::Int64(n)) => Value::Integer(*n),
        (FieldType::Integer, Bson::Int32(n)) => Value::Integer(i64::from(*n)),
        (FieldType::Decimal { scale, .. }, bson) => {
            let digits = digits(bson, *scale).ok_or_else(wrong)?;
            let number = Decimal::try_from_i128_with_scale(digits, u32::from(*scale));
            Value::Decimal(number.map_err(|_| wrong())?)
        }
        (FieldType::Boolean, Bson::Boolean(b)) => Value::Boolean(*b),
        (FieldType::Float, Bson::Double(n)) if n.is_finite() => Value::Float(*n),
        (FieldType::Float, Bson::Int32(n)) => Value::Float(f64::from(*n)),
        (FieldType::Date, Bson::DateTime(time)) => {
            let (days, rest) = (
                time.timestamp_millis().div_euclid(MILLIS_PER_DAY),
                time.timestamp_millis() % MILLIS_PER_DAY,
            );
            let days = i32::try_from(days).ok().filter(|_| rest == 0).ok_or_else(wrong)?;
            Value::Date(Date::from_days(days).map_err(|_| wrong())?)
        }
        (FieldType::Timestamp { .. }, Bson::DateTime(date)) => {
            Value::Timestamp(join(*date, 0).ok_or_else(wrong)?)
        }
        (FieldType::Timestamp { .. }, Bson::String(text)) => {
            Value::Timestamp(text.parse().map_err(|_| wrong())?)
        }
        (FieldType::Uuid, Bson::Binary(binary)) if binary.subtype == BinarySubtype::Uuid => {
            Value::Uuid(Uuid::from_slice(&binary.bytes).map_err(|_| wrong())?)
        }
        (FieldType::Bytes, Bson::Binary(binary)) => Value::Bytes(binary.bytes.clone()),
        _ => return Err(wrong()),
    })
}

/// A key as `_id`.
pub(crate) fn encode_key(key: &Key) -> Bson {
    match key {
        Key::Integer(n) => Bson::Int64(*n),
        Key::String(text) => Bson::String(text.to_string()),
        Key::Uuid(uuid) => uuid_bson(*uuid),
    }
}

/// A key from `_id`; `None` for one that no key of this type has: the document is not Unisono's.
pub(crate) fn decode_key(ty: &FieldType, id: &Bson) -> Option<Key> {
    decode(ty, id).ok().and_then(|value| Key::from_value(&value).ok())
}

/// A timestamp as a date, which has milliseconds, and the microseconds that are missing, 0 to 999.
pub(crate) fn split(time: Timestamp) -> (DateTime, i32) {
    let micros = time.micros();
    // A remainder of 1000 fits.
    (DateTime::from_millis(micros.div_euclid(1000)), micros.rem_euclid(1000) as i32)
}

/// The timestamp of a date and its microseconds; `None` outside of what a timestamp holds.
pub(crate) fn join(date: DateTime, micros: i32) -> Option<Timestamp> {
    let micros = date.timestamp_millis().checked_mul(1000)?.checked_add(i64::from(micros))?;
    Timestamp::from_micros(micros).ok()
}

/// An exact number in units of 10^-scale; `None` for what is no number, not finite, or has further digits.
pub(crate) fn digits(bson: &Bson, scale: u8) -> Option<i128> {
    let (mantissa, exponent) = match bson {
        Bson::Int32(n) => (i128::from(*n), 0),
        Bson::Int64(n) => (i128::from(*n), 0),
        Bson::Decimal128(n) => parse(&n.to_string())?,
        _ => return None,
    };
    let shift = exponent + i32::from(scale);
    let power = 10_i128.checked_pow(shift.unsigned_abs());
    match shift {
        _ if mantissa == 0 => Some(0),
        0.. => mantissa.checked_mul(power?),
        _ => power.filter(|p| mantissa % p == 0).map(|p| mantissa / p),
    }
}

/// The whole number and the power of ten of a text such as `-12.50` or `1.5E+3`.
fn parse(text: &str) -> Option<(i128, i32)> {
    let (number, exponent) = match text.split_once(['E', 'e']) {
        Some((number, exponent)) => (number, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let mantissa = format!("{whole}{fraction}").parse().ok()?;
    Some((mantissa, exponent.checked_sub(i32::try_from(fraction.len()).ok()?)?))
}

fn decimal128(number: Decimal) -> Option<Decimal128> {
    // At most 28 of 34 digits.
    number.to_string().parse().ok()
}

fn uuid_bson(uuid: Uuid) -> Bson {
    Bson::Binary(Binary { subtype: BinarySubtype::Uuid, bytes: uuid.as_bytes().to_vec() })
}

/// The error of a value that its declared type cannot hold.
pub(crate) fn unfit(ty: &FieldType) -> Error {
    Error::new(ErrorKind::InvalidInput, "the value does not fit the declared type").with("type", ty)
}
