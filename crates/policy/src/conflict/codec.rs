//! A [`State`] as text, as it is kept beside the records.

use serde_json::{Value as Json, json};
use unisono_core::json::{parse_value, value_to_json};
use unisono_core::{Decimal, Error, ErrorKind, FieldType, Result, Value};

use super::entry::{Entry, Pair, Stamp};
use super::{Plan, State};

/// The text of a state.
pub fn to_text(plan: &Plan, state: &State) -> String {
    let pairs = state.units.iter().zip(&plan.units);
    let units = pairs.map(|(pair, unit)| {
        write(pair, |n, value| match (unit.ty(&plan.entity, n), value) {
            (Some(ty), value) => value_to_json(ty, value),
            (None, Value::Decimal(part)) => Json::from(part.to_string()),
            (None, _) => Json::Null,
        })
    });
    let units = units.collect::<Vec<_>>();
    let exist = write(&state.exist, |_, value| value_to_json(&FieldType::Boolean, value));
    json!([exist, units]).to_string()
}

fn write(pair: &Pair, value: impl Fn(usize, &Value) -> Json) -> Json {
    let entry = |entry: &Entry| {
        let values = entry.values.as_ref();
        let values = values
            .map(|values| values.iter().enumerate().map(|(n, v)| value(n, v)).collect::<Vec<_>>());
        let Stamp { millis, count } = entry.stamp;
        json!([entry.dot, entry.seen, millis, count, entry.old, entry.reset, values])
    };
    Json::Array(pair.iter().map(|e| e.as_ref().map_or(Json::Null, entry)).collect())
}

/// From its text; `corrupt` if it is not one of this plan.
pub fn parse(plan: &Plan, text: &str) -> Result<State> {
    let json: Json = serde_json::from_str(text).map_err(|_| corrupt())?;
    let exist = read(json.get(0), |_, value| parse_value(&FieldType::Boolean, value))?;
    let units = json.get(1).and_then(Json::as_array).ok_or_else(corrupt)?;
    if !units.is_empty() && units.len() != plan.units.len() {
        return Err(corrupt());
    }
    let units = units.iter().zip(&plan.units).map(|(pair, unit)| {
        read(Some(pair), |n, value| match unit.ty(&plan.entity, n) {
            Some(ty) => parse_value(ty, value),
            None => part(value),
        })
    });
    Ok(State { exist, units: units.collect::<Result<_>>()? })
}

fn read(pair: Option<&Json>, value: impl Fn(usize, &Json) -> Result<Value>) -> Result<Pair> {
    let entry = |n: usize| -> Result<Option<Entry>> {
        let json = pair.and_then(|pair| pair.get(n)).ok_or_else(corrupt)?;
        if json.is_null() {
            return Ok(None);
        }
        let number = |n: usize| json.get(n).and_then(Json::as_u64).ok_or_else(corrupt);
        let millis = json.get(2).and_then(Json::as_i64).ok_or_else(corrupt)?;
        let count = u32::try_from(number(3)?).map_err(|_| corrupt())?;
        let values = match json.get(6).and_then(Json::as_array) {
            None => None,
            Some(values) => Some(
                values.iter().enumerate().map(|(n, v)| value(n, v)).collect::<Result<Vec<_>>>()?,
            ),
        };
        Ok(Some(Entry {
            dot: number(0)?,
            seen: number(1)?,
            stamp: Stamp { millis, count },
            old: json.get(4).and_then(Json::as_bool).unwrap_or_default(),
            reset: number(5)?,
            values,
        }))
    };
    Ok([entry(0)?, entry(1)?])
}

fn part(json: &Json) -> Result<Value> {
    let text = json.as_str().ok_or_else(corrupt)?;
    text.parse::<Decimal>().map(Value::Decimal).map_err(|_| corrupt())
}

fn corrupt() -> Error {
    Error::new(ErrorKind::Corrupt, "what is remembered of a record cannot be read")
}
