//! [`State`]: what one field of a group has come to, so that contributions can be added and taken back exactly.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use unisono_core::json::{parse_value, value_to_json};
use unisono_core::query::{Accumulator, Metric, Path};
use unisono_core::value::Ordered;
use unisono_core::{Error, ErrorKind, FieldType, Result, Value, Version};

use super::{DISTINCT_MAX, Function, Kept};

/// How many of the best values are kept beside the best one: so many can be taken back before records must be
/// looked at again.
const BEST_MAX: usize = 64;

/// Too little is known to go on: the group must be worked out from its records.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Exhausted;

/// What one field of a group has come to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum State {
    Count(i64),
    /// The digits at the scale of the input, and how many values.
    Sum(i128, u64),
    /// The best values with how often each is there.
    Best(Best<Ordered>),
    /// The values of the records that changed last, by version and place among those of the record.
    Latest(Best<(Version, usize), Value>),
    /// Every value with how often it is there.
    Distinct(BTreeMap<Ordered, u64>),
}

/// The greatest of what is there.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Best<K: Ord, V = u64> {
    kept: BTreeMap<K, V>,
    /// How many there are, those included that are not kept.
    total: u64,
}

impl State {
    pub(super) fn empty(kept: &Kept) -> State {
        match kept.function {
            Function::Count => State::Count(0),
            Function::Sum | Function::Avg => State::Sum(0, 0),
            Function::Min | Function::Max => State::Best(Best::empty()),
            Function::Latest => State::Latest(Best::empty()),
            Function::Distinct => State::Distinct(BTreeMap::new()),
        }
    }

    /// Adds a value that is part of the `at.1`-th contribution of a record of version `at.0`.
    pub(super) fn add(&mut self, kept: &Kept, value: &Value, at: (Version, usize)) -> Result<()> {
        match self {
            State::Count(count) => *count += i64::from(*value == Value::Boolean(true)),
            _ if value.is_null() => {}
            State::Sum(sum, count) => {
                let more = digits(&kept.input, value);
                *sum = sum.checked_add(more).ok_or_else(|| too_large(kept))?;
                *count += 1;
            }
            State::Best(best) => best.add_value(kept.function == Function::Min, value),
            State::Latest(latest) => {
                latest.total += 1;
                // As long as nothing was left out, everything is kept; then only what is newer than something kept.
                let is_all = latest.kept.len() as u64 + 1 == latest.total;
                if is_all || latest.kept.keys().next().is_some_and(|oldest| at > *oldest) {
                    latest.kept.insert(at, value.clone());
                }
                while latest.kept.len() > BEST_MAX {
                    latest.kept.pop_first();
                }
            }
            State::Distinct(values) => {
                *values.entry(Ordered(plain(value))).or_default() += 1;
                if values.len() > DISTINCT_MAX {
                    return Err(Error::new(
                        ErrorKind::LimitExceeded,
                        "has too many different values",
                    )
                    .with("field", &kept.name)
                    .with("limit", DISTINCT_MAX));
                }
            }
        }
        Ok(())
    }

    /// Takes back what was added.
    pub(super) fn remove(
        &mut self,
        kept: &Kept,
        value: &Value,
        at: (Version, usize),
    ) -> Result<(), Exhausted> {
        match self {
            State::Count(count) => *count -= i64::from(*value == Value::Boolean(true)),
            _ if value.is_null() => {}
            State::Sum(sum, count) => {
                let less = digits(&kept.input, value);
                *sum = sum.checked_sub(less).ok_or(Exhausted)?;
                *count = count.checked_sub(1).ok_or(Exhausted)?;
            }
            State::Best(best) => best.remove_value(kept.function == Function::Min, value)?,
            State::Latest(latest) => {
                latest.kept.remove(&at);
                latest.one_less()?;
            }
            State::Distinct(values) => {
                let value = Ordered(plain(value));
                let count = values.get_mut(&value).ok_or(Exhausted)?;
                *count -= 1;
                if *count == 0 {
                    values.remove(&value);
                }
            }
        }
        Ok(())
    }

    pub(super) fn result(&self, kept: &Kept) -> Result<Value> {
        Ok(match self {
            State::Count(count) => Value::Integer(*count),
            State::Sum(sum, count) => {
                let path = Path::whole(0);
                let metric = match kept.function {
                    Function::Avg => Metric::Avg(path),
                    _ => Metric::Sum(path),
                };
                let mut exact = Accumulator::new(&metric, &kept.input);
                exact.add_exact(*sum, *count);
                let result = exact.finish().map_err(|_| too_large(kept))?;
                at_scale(&kept.output, result).ok_or_else(|| too_large(kept))?
            }
            State::Best(best) if kept.function == Function::Min => {
                best.kept.first_key_value().map_or(Value::Null, |(value, _)| value.0.clone())
            }
            State::Best(best) => {
                best.kept.last_key_value().map_or(Value::Null, |(value, _)| value.0.clone())
            }
            State::Latest(latest) => {
                latest.kept.last_key_value().map_or(Value::Null, |(_, value)| value.clone())
            }
            State::Distinct(values) => Value::Integer(values.len() as i64),
        })
    }

    pub(super) fn to_json(&self, kept: &Kept) -> Json {
        let value = |value: &Value| value_to_json(&kept.input, value);
        let counted = |values: &BTreeMap<Ordered, u64>| {
            let pairs = values.iter().map(|(of, count)| json!([value(&of.0), count]));
            Json::Array(pairs.collect())
        };
        match self {
            State::Count(count) => json!(count),
            State::Sum(sum, count) => json!([sum.to_string(), count]),
            State::Best(best) => json!([best.total, counted(&best.kept)]),
            State::Latest(latest) => {
                let one = |((version, n), of): (&(Version, usize), &Value)| {
                    json!([version, n, value(of)])
                };
                json!([latest.total, latest.kept.iter().map(one).collect::<Vec<_>>()])
            }
            State::Distinct(values) => counted(values),
        }
    }

    /// `None` if it is not as [`State::to_json`] writes it.
    pub(super) fn parse(kept: &Kept, json: &Json) -> Option<State> {
        let value = |json: &Json| parse_value(&kept.input, json).ok();
        let counted = |json: &Json| -> Option<BTreeMap<Ordered, u64>> {
            let pair = |json: &Json| Some((Ordered(value(&json[0])?), json[1].as_u64()?));
            json.as_array()?.iter().map(pair).collect()
        };
        Some(match State::empty(kept) {
            State::Count(_) => State::Count(json.as_i64()?),
            State::Sum(..) => State::Sum(json[0].as_str()?.parse().ok()?, json[1].as_u64()?),
            State::Best(_) => {
                State::Best(Best { kept: counted(&json[1])?, total: json[0].as_u64()? })
            }
            State::Latest(_) => {
                let one = |json: &Json| {
                    let version: Version = json[0].as_str()?.parse().ok()?;
                    let n = usize::try_from(json[1].as_u64()?).ok()?;
                    Some(((version, n), value(&json[2])?))
                };
                let kept = json[1].as_array()?.iter().map(one).collect::<Option<_>>()?;
                State::Latest(Best { kept, total: json[0].as_u64()? })
            }
            State::Distinct(_) => State::Distinct(counted(json)?),
        })
    }
}

impl<K: Ord, V> Best<K, V> {
    fn empty() -> Self {
        Best { kept: BTreeMap::new(), total: 0 }
    }

    fn one_less(&mut self) -> Result<(), Exhausted> {
        self.total = self.total.checked_sub(1).ok_or(Exhausted)?;
        match self.kept.is_empty() && self.total > 0 {
            true => Err(Exhausted),
            false => Ok(()),
        }
    }
}

impl Best<Ordered> {
    /// Keeps a value if it is among the best that are kept; what is left out is worse than all of them.
    fn add_value(&mut self, least: bool, value: &Value) {
        let value = Ordered(plain(value));
        let is_all = self.kept.values().sum::<u64>() == self.total;
        let worst = if least { self.kept.last_key_value() } else { self.kept.first_key_value() };
        let is_better = worst.is_some_and(|(worst, _)| match least {
            true => value <= *worst,
            false => value >= *worst,
        });
        self.total += 1;
        if is_all || is_better {
            *self.kept.entry(value).or_default() += 1;
        }
        while self.kept.len() > BEST_MAX {
            if least {
                self.kept.pop_last()
            } else {
                self.kept.pop_first()
            };
        }
    }

    fn remove_value(&mut self, least: bool, value: &Value) -> Result<(), Exhausted> {
        let value = Ordered(plain(value));
        if let Some(count) = self.kept.get_mut(&value) {
            *count -= 1;
            if *count == 0 {
                self.kept.remove(&value);
            }
        } else {
            let best = if least { self.kept.first_key_value() } else { self.kept.last_key_value() };
            // Better than all that are kept, and not among them: what is kept is not what was added.
            let is_lost =
                best.is_none_or(|(best, _)| if least { value < *best } else { value > *best });
            if is_lost {
                return Err(Exhausted);
            }
        }
        self.one_less()
    }
}

/// A value as it is told apart from others: zero has no sign.
fn plain(value: &Value) -> Value {
    match value {
        Value::Float(f) => Value::Float(f + 0.0),
        value => value.clone(),
    }
}

/// The digits of an integer, or of a decimal at the scale of its type.
fn digits(ty: &FieldType, value: &Value) -> i128 {
    match (ty, value) {
        (_, Value::Integer(n)) => i128::from(*n),
        (FieldType::Decimal { scale, .. }, Value::Decimal(n)) => {
            let mut n = *n;
            n.rescale(u32::from(*scale));
            n.mantissa()
        }
        // Other values were refused when they were contributed.
        _ => 0,
    }
}

/// A number at the scale of its type; `None` if it does not fit.
fn at_scale(ty: &FieldType, value: Value) -> Option<Value> {
    match (ty, value) {
        (FieldType::Decimal { precision, scale }, Value::Decimal(mut n)) => {
            let (before, scale) = (n, u32::from(*scale));
            n.rescale(scale);
            // Where there is no room for all digits, an average has fewer.
            let fits = n.scale() == scale
                && n.mantissa().unsigned_abs() < 10_u128.pow((*precision).into());
            (fits && n == before).then_some(Value::Decimal(n))
        }
        (_, value) => Some(value),
    }
}

fn too_large(kept: &Kept) -> Error {
    Error::new(ErrorKind::LimitExceeded, "the result is too large for its type")
        .with("field", &kept.name)
}
