//! [`Accumulator`]: the only arithmetic for aggregates, in every source.

use rust_decimal::Decimal;

use crate::entity::FieldType;
use crate::error::{Error, ErrorKind, Result};
use crate::query::aggregate::{Metric, canonical};
use crate::value::Value;

/// Works out one metric over the values of one group; the only arithmetic for aggregates, in every source.
///
/// The result does not depend on the order of the values. `Sum` of integers is exact and fails with `limit_exceeded`
/// above 64 bits; of decimals exact at their scale up to 28 digits; of floats the exact sum, rounded once. `Avg` of
/// integers and decimals is a decimal rounded half-even to four digits more than the field's scale, or as many more
/// as 28 digits leave room for; of floats a float. `Min` and `Max` use [`Value::order`].
#[derive(Clone, Debug)]
pub struct Accumulator(State);

#[derive(Clone, Debug)]
enum State {
    Count(i64),
    /// Integers (scale 0) and decimals by their digits at the field's scale.
    Exact {
        sum: Option<i128>,
        count: i128,
        scale: u32,
        result: Exact,
    },
    Float {
        sum: FloatSum,
        count: u64,
        average: bool,
    },
    Least(Value),
    Greatest(Value),
}

/// What the sum of exact numbers is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exact {
    SumInteger,
    SumDecimal,
    Average,
}

/// The first number that does not fit in the 28 digits of a decimal.
const DECIMAL_BOUND: u128 = 10_u128.pow(28);
/// The digits that an average has beyond those of its field.
const AVERAGE_DIGITS: u32 = 4;

impl Accumulator {
    /// Nothing added yet. `ty` is the type at the metric's path; without meaning for a count.
    pub fn new(metric: &Metric, ty: &FieldType) -> Self {
        let scale = match ty {
            FieldType::Decimal { scale, .. } => u32::from(*scale),
            _ => 0,
        };
        let exact = |result| State::Exact { sum: Some(0), count: 0, scale, result };
        let float = |average| State::Float { sum: FloatSum::default(), count: 0, average };
        Accumulator(match (metric, ty) {
            (Metric::Count, _) => State::Count(0),
            (Metric::Min(_), _) => State::Least(Value::Null),
            (Metric::Max(_), _) => State::Greatest(Value::Null),
            (Metric::Sum(_), FieldType::Integer) => exact(Exact::SumInteger),
            (Metric::Sum(_), FieldType::Decimal { .. }) => exact(Exact::SumDecimal),
            (Metric::Avg(_), FieldType::Integer | FieldType::Decimal { .. }) => {
                exact(Exact::Average)
            }
            (Metric::Sum(_), _) => float(false),
            (Metric::Avg(_), _) => float(true),
        })
    }

    /// Takes in one value. A count counts every call; all others ignore nulls.
    pub fn add(&mut self, value: &Value) {
        match (&mut self.0, value) {
            (State::Count(count), _) => *count += 1,
            (_, Value::Null) => {}
            (State::Exact { sum, count, .. }, Value::Integer(n)) => {
                *sum = sum.and_then(|sum| sum.checked_add(i128::from(*n)));
                *count += 1;
            }
            (State::Exact { sum, count, scale, .. }, Value::Decimal(n)) => {
                *sum = sum.and_then(|sum| sum.checked_add(digits(*n, *scale)));
                *count += 1;
            }
            (State::Float { sum, count, .. }, Value::Float(n)) => {
                sum.add(*n);
                *count += 1;
            }
            (State::Least(least), value) if least.is_null() || value.order(least).is_lt() => {
                *least = canonical(value);
            }
            (State::Greatest(greatest), value) if value.order(greatest).is_gt() => {
                *greatest = canonical(value);
            }
            // A value that is not better; or not of the declared type, which parsing has ruled out.
            _ => {}
        }
    }

    /// Takes in `count` values of an integer or decimal field whose exact sum an engine has worked out; `more` is in
    /// units of the last digit of the field's scale. Without effect on metrics other than their sum and average.
    pub fn add_exact(&mut self, more: i128, values: u64) {
        if let State::Exact { sum, count, .. } = &mut self.0 {
            *sum = sum.and_then(|sum| sum.checked_add(more));
            *count += i128::from(values);
        }
    }

    /// Takes in everything that another accumulator of the same metric has taken in.
    pub fn merge(&mut self, other: Accumulator) {
        match (&mut self.0, other.0) {
            (State::Count(a), State::Count(b)) => *a += b,
            (State::Exact { sum, count, .. }, State::Exact { sum: other, count: more, .. }) => {
                *sum = sum.zip(other).and_then(|(a, b)| a.checked_add(b));
                *count += more;
            }
            (State::Float { sum, count, .. }, State::Float { sum: other, count: more, .. }) => {
                other.partials.into_iter().for_each(|n| sum.add(n));
                *count += more;
            }
            (_, State::Least(value) | State::Greatest(value)) => self.add(&value),
            _ => {}
        }
    }

    /// The metric; null if there was no value, and 0 for a count.
    pub fn finish(self) -> Result<Value> {
        match self.0 {
            State::Count(count) => Ok(Value::Integer(count)),
            State::Least(value) | State::Greatest(value) => Ok(value),
            State::Exact { count: 0, .. } | State::Float { count: 0, .. } => Ok(Value::Null),
            State::Exact { sum, count, scale, result } => {
                let sum = sum.ok_or_else(too_large)?;
                match result {
                    Exact::SumInteger => {
                        i64::try_from(sum).map(Value::Integer).map_err(|_| too_large())
                    }
                    Exact::SumDecimal => decimal(sum, scale).ok_or_else(too_large),
                    Exact::Average => average(sum, count, scale).ok_or_else(too_large),
                }
            }
            State::Float { sum, count, average } => {
                let sum = sum.total();
                let result = if average { sum / count as f64 } else { sum };
                if result.is_finite() { Ok(Value::Float(result + 0.0)) } else { Err(too_large()) }
            }
        }
    }
}

fn too_large() -> Error {
    Error::new(ErrorKind::LimitExceeded, "the result is too large for its type")
        .hint("narrow the filter, or group by more fields")
}

/// The digits of a decimal at a scale; a stored value has the scale of its field already.
fn digits(mut n: Decimal, scale: u32) -> i128 {
    if n.scale() != scale {
        n.rescale(scale);
    }
    n.mantissa()
}

fn decimal(digits: i128, scale: u32) -> Option<Value> {
    let fits = digits.unsigned_abs() < DECIMAL_BOUND;
    fits.then(|| Decimal::try_from_i128_with_scale(digits, scale).ok().map(Value::Decimal))
        .flatten()
}

/// The mean, with as many further digits as fit.
fn average(sum: i128, count: i128, scale: u32) -> Option<Value> {
    (0..=AVERAGE_DIGITS).rev().find_map(|further| {
        let factor = 10_i128.pow(further);
        // Whole part and remainder apart, so that scaling up cannot overflow: the remainder is below the count.
        let (whole, rest) = (sum.div_euclid(count), sum.rem_euclid(count));
        let digits =
            whole.checked_mul(factor)?.checked_add(divide_half_even(rest * factor, count))?;
        decimal(digits, scale + further)
    })
}

/// `a / b`, a tie to the even neighbour; `a` is not negative and `b` positive.
fn divide_half_even(a: i128, b: i128) -> i128 {
    let (quotient, rest) = (a / b, a % b);
    let up = match (2 * rest).cmp(&b) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Equal => quotient % 2 != 0,
        std::cmp::Ordering::Greater => true,
    };
    quotient + i128::from(up)
}

/// The exact sum of doubles, as doubles that do not overlap, of growing size: the algorithm of J. R. Shewchuk,
/// "Adaptive Precision Floating-Point Arithmetic" (grow-expansion).
#[derive(Clone, Debug, Default)]
struct FloatSum {
    partials: Vec<f64>,
}

impl FloatSum {
    fn add(&mut self, mut n: f64) {
        let mut kept = 0;
        for at in 0..self.partials.len() {
            let partial = self.partials[at];
            let (large, small) = if n.abs() < partial.abs() { (partial, n) } else { (n, partial) };
            n = large + small;
            let error = small - (n - large);
            if error != 0.0 {
                self.partials[kept] = error;
                kept += 1;
            }
        }
        self.partials.truncate(kept);
        self.partials.push(n);
    }

    /// The sum, rounded once, a tie to the even neighbour.
    fn total(&self) -> f64 {
        let mut rest = self.partials.iter().rev().copied();
        let mut total = rest.next().unwrap_or(0.0);
        while let Some(partial) = rest.next() {
            let before = total;
            total = before + partial;
            let error = partial - (total - before);
            if error == 0.0 {
                continue;
            }
            // A tie was broken without regard to what is below: half a step more in its direction decides it.
            if let Some(below) = rest.next()
                && (below < 0.0) == (error < 0.0)
            {
                let (step, rounded) = (error * 2.0, total + error * 2.0);
                if rounded - total == step {
                    total = rounded;
                }
            }
            break;
        }
        total
    }
}
