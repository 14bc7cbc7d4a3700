//! `counter`: what each truth has added is kept apart, and the value is the sum: no addition is lost or counted twice.

use unisono_core::{Decimal, Error, ErrorKind, FieldType, Result, Value};

use super::{How, Merge, Sum};

pub(super) const COUNTER: Merge = Merge {
    name: "counter",
    takes: "integer and decimal fields",
    fits: |ty| matches!(ty, FieldType::Integer | FieldType::Decimal { .. }),
    loses: false,
    how: How::Sum,
};

/// What one truth has added, if the field is to be `value` beside what the other has added.
pub fn part(value: &Value, other: Option<&Value>) -> Result<Value> {
    let other = other.map_or(Ok(Decimal::ZERO), number)?;
    number(value)?.checked_sub(other).map(Value::Decimal).ok_or_else(too_large)
}

/// The value of a field of a type from what both have added.
pub fn sum(ty: &FieldType, parts: [Option<&Value>; 2]) -> Sum {
    let [a, b] = parts.map(|part| part.map_or(Ok(Decimal::ZERO), number));
    let sum = a?.checked_add(b?).ok_or_else(too_large)?;
    match ty {
        FieldType::Integer => i64::try_from(sum).map(Value::Integer).map_err(|_| too_large()),
        FieldType::Decimal { precision, scale } => {
            let mut sum = sum;
            sum.rescale(u32::from(*scale));
            let limit = 10_i128.checked_pow(u32::from(*precision)).unwrap_or(i128::MAX);
            match sum.mantissa().abs() < limit {
                true => Ok(Value::Decimal(sum)),
                false => Err(too_large()),
            }
        }
        _ => Err(Error::internal("only numbers are counted")),
    }
}

fn number(value: &Value) -> Result<Decimal> {
    match value {
        Value::Null => Ok(Decimal::ZERO),
        Value::Integer(n) => Ok(Decimal::from(*n)),
        Value::Decimal(d) => Ok(*d),
        _ => Err(Error::internal("only numbers are counted")),
    }
}

fn too_large() -> Error {
    Error::new(ErrorKind::LimitExceeded, "what both sides have counted is too large for the field")
}
