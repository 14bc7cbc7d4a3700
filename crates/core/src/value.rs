//! [`Value`]: the one data type that every source translates to and from.

use std::cmp::Ordering;

use rust_decimal::Decimal;
use uuid::Uuid;

pub use crate::time::{Date, Timestamp};

/// The data of one field. Which variants a field can hold is decided by its [`FieldType`](crate::FieldType).
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// Nothing there. An absent field and a null field are the same.
    #[default]
    Null,
    /// True or false.
    Boolean(bool),
    /// A 64-bit signed integer.
    Integer(i64),
    /// A finite double; never NaN or infinite. Its zero may be negative.
    Float(f64),
    /// An exact number, held at the scale that its field declares.
    Decimal(Decimal),
    /// Unicode text, compared by its UTF-8 bytes. Used by `string` and `text` fields.
    String(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A calendar day.
    Date(Date),
    /// An instant.
    Timestamp(Timestamp),
    /// A UUID.
    Uuid(Uuid),
    /// Any JSON. Object keys are held sorted.
    Json(serde_json::Value),
    /// The elements of a list of scalars.
    List(Vec<Value>),
    /// The elements of a list of objects: for each, the values in the order of the declared fields.
    Objects(Vec<Vec<Value>>),
}

impl Value {
    /// Whether nothing is there.
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// The text of a string value.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// About how many bytes the value occupies, for batch and cache budgets.
    pub fn weight(&self) -> usize {
        match self {
            Value::String(text) => 24 + text.len(),
            Value::Bytes(bytes) => 24 + bytes.len(),
            Value::Json(json) => 32 + json_weight(json),
            Value::List(items) => 24 + items.iter().map(Value::weight).sum::<usize>(),
            Value::Objects(items) => {
                24 + items.iter().flatten().map(|v| 8 + v.weight()).sum::<usize>()
            }
            _ => 24,
        }
    }

    /// The order of values within one field: null first, numbers by size, text by UTF-8 bytes, false before true.
    ///
    /// Negative and positive zero are equal. Values of different variants are ordered by variant, which happens
    /// only inside JSON. Lists compare element by element.
    pub fn order(&self, other: &Value) -> Ordering {
        use Value::*;
        match (self, other) {
            (Boolean(a), Boolean(b)) => a.cmp(b),
            (Integer(a), Integer(b)) => a.cmp(b),
            (Float(a), Float(b)) => a.partial_cmp(b).unwrap_or(Ordering::Equal),
            (Decimal(a), Decimal(b)) => a.cmp(b),
            (String(a), String(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Bytes(a), Bytes(b)) => a.cmp(b),
            (Date(a), Date(b)) => a.cmp(b),
            (Timestamp(a), Timestamp(b)) => a.cmp(b),
            (Uuid(a), Uuid(b)) => a.cmp(b),
            (Json(a), Json(b)) => order_json(a, b),
            (List(a), List(b)) => order_slices(a, b),
            (Objects(a), Objects(b)) => {
                let rows = a.iter().zip(b).map(|(x, y)| order_slices(x, y));
                rows.into_iter().find(|o| o.is_ne()).unwrap_or_else(|| a.len().cmp(&b.len()))
            }
            _ => self.rank().cmp(&other.rank()),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Value::Null => 0,
            Value::Boolean(_) => 1,
            Value::Integer(_) => 2,
            Value::Float(_) => 3,
            Value::Decimal(_) => 4,
            Value::String(_) => 5,
            Value::Bytes(_) => 6,
            Value::Date(_) => 7,
            Value::Timestamp(_) => 8,
            Value::Uuid(_) => 9,
            Value::Json(_) => 10,
            Value::List(_) => 11,
            Value::Objects(_) => 12,
        }
    }
}

/// A value that sorts, and equals others, by [`Value::order`]: for keys of sorted maps.
#[derive(Clone, Debug)]
pub struct Ordered(pub Value);

impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.order(&other.0)
    }
}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ordered {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ordered {}

fn order_slices(a: &[Value], b: &[Value]) -> Ordering {
    let pairs = a.iter().zip(b).map(|(x, y)| x.order(y));
    pairs.into_iter().find(|o| o.is_ne()).unwrap_or_else(|| a.len().cmp(&b.len()))
}

/// Scalars of the same JSON type by size or bytes; otherwise null, booleans, numbers, strings, arrays, objects.
pub fn order_json(a: &serde_json::Value, b: &serde_json::Value) -> Ordering {
    use serde_json::Value as J;
    fn rank(v: &J) -> u8 {
        match v {
            J::Null => 0,
            J::Bool(_) => 1,
            J::Number(_) => 2,
            J::String(_) => 3,
            J::Array(_) => 4,
            J::Object(_) => 5,
        }
    }
    match (a, b) {
        (J::Bool(a), J::Bool(b)) => a.cmp(b),
        (J::Number(a), J::Number(b)) => order_numbers(a, b),
        (J::String(a), J::String(b)) => a.as_bytes().cmp(b.as_bytes()),
        (J::Array(_), J::Array(_)) | (J::Object(_), J::Object(_)) => {
            a.to_string().as_bytes().cmp(b.to_string().as_bytes())
        }
        _ => rank(a).cmp(&rank(b)),
    }
}

/// JSON numbers by size, exactly: an integer and a fraction are not brought to a common type first, which would
/// make numbers above 2^53 equal that are not.
pub fn order_numbers(a: &serde_json::Number, b: &serde_json::Number) -> Ordering {
    match (whole(a), whole(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        // At most one is whole, so that doubles compare exactly: a fraction is below 2^53, where neighbouring
        // integers have doubles of their own, or it is beyond 2^100, above every 64-bit integer.
        _ => a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal),
    }
}

/// A JSON number without a fraction, such as `7` and `7.0`; `None` for others and for those beyond 2^100.
pub(crate) fn whole(n: &serde_json::Number) -> Option<i128> {
    const BOUND: f64 = (1_u128 << 100) as f64;
    let integer = n.as_i64().map(i128::from).or(n.as_u64().map(i128::from));
    integer
        .or_else(|| n.as_f64().filter(|f| f.fract() == 0.0 && f.abs() <= BOUND).map(|f| f as i128))
}

fn json_weight(json: &serde_json::Value) -> usize {
    use serde_json::Value as J;
    match json {
        J::String(text) => 24 + text.len(),
        J::Array(items) => 24 + items.iter().map(json_weight).sum::<usize>(),
        J::Object(map) => {
            24 + map.iter().map(|(k, v)| 24 + k.len() + json_weight(v)).sum::<usize>()
        }
        _ => 24,
    }
}

#[cfg(test)]
mod tests;
