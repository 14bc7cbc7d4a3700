//! Decides a resolved condition for one record. Nothing is copied but numbers.

use std::cmp::Ordering;

use serde_json::Value as Json;
use unisono_core::{Date, Decimal, Record, Timestamp, Uuid, Value};

use super::tree::{Arithmetic, Comparison, Node, TextTest};

/// The condition cannot be decided: CEL's error.
struct Undecided;

type Decided<T> = Result<T, Undecided>;

/// What a part of the condition gives for a record.
#[derive(Clone, Copy)]
enum Datum<'a> {
    Null,
    Boolean(bool),
    Integer(i64),
    Decimal(Decimal),
    Float(f64),
    /// A literal with a point: exact beside exact numbers, a double beside doubles.
    Number(Decimal, f64),
    Text(&'a str),
    Bytes(&'a [u8]),
    Date(Date),
    Timestamp(Timestamp),
    /// In microseconds.
    Duration(i64),
    Uuid(Uuid),
    List(&'a [Value]),
    Objects(&'a [Vec<Value>]),
    Object(&'a [Value]),
    /// An array or object below a `json` field; its scalars are the variants above.
    Json(&'a Json),
}

/// Whether the record satisfies the condition at a time, which only rules of caches look at.
pub(super) fn holds(root: &Node, record: &Record, now: Option<Timestamp>) -> bool {
    let mut scope = Scope { record: record.values(), now, elements: Vec::new() };
    matches!(scope.decide(root), Ok(true))
}

/// How many elements the list that a node gives has.
pub(super) fn elements(list: &Node, record: &Record) -> usize {
    let mut scope = Scope { record: record.values(), now: None, elements: Vec::new() };
    scope.evaluate(list).and_then(length).unwrap_or(0)
}

/// What a node gives for a record and the n-th element of a list; null if it cannot be told.
pub(super) fn value(node: &Node, record: &Record, item: Option<(&Node, usize)>) -> Value {
    let mut scope = Scope { record: record.values(), now: None, elements: Vec::new() };
    if let Some((list, n)) = item {
        let found = scope.evaluate(list).ok().and_then(|list| element(list, n));
        scope.elements.push(found.unwrap_or(Datum::Null));
    }
    scope.evaluate(node).map_or(Value::Null, owned)
}

fn owned(datum: Datum<'_>) -> Value {
    match datum {
        Datum::Null | Datum::Duration(_) | Datum::Object(_) => Value::Null,
        Datum::Boolean(b) => Value::Boolean(b),
        Datum::Integer(n) => Value::Integer(n),
        Datum::Decimal(d) | Datum::Number(d, _) => Value::Decimal(d),
        Datum::Float(f) => Value::Float(f),
        Datum::Text(text) => Value::String(text.to_owned()),
        Datum::Bytes(bytes) => Value::Bytes(bytes.to_vec()),
        Datum::Date(d) => Value::Date(d),
        Datum::Timestamp(t) => Value::Timestamp(t),
        Datum::Uuid(u) => Value::Uuid(u),
        Datum::List(items) => Value::List(items.to_vec()),
        Datum::Objects(items) => Value::Objects(items.to_vec()),
        Datum::Json(json) => Value::Json(json.clone()),
    }
}

struct Scope<'a> {
    record: &'a [Value],
    now: Option<Timestamp>,
    /// The current elements of the enclosing `exists` and `all`, outermost first.
    elements: Vec<Datum<'a>>,
}

impl<'a> Scope<'a> {
    fn decide(&mut self, node: &'a Node) -> Decided<bool> {
        match self.evaluate(node)? {
            Datum::Boolean(b) => Ok(b),
            _ => Err(Undecided),
        }
    }

    fn evaluate(&mut self, node: &'a Node) -> Decided<Datum<'a>> {
        Ok(match node {
            Node::Constant(value) => datum(value),
            Node::Number(exact, double) => Datum::Number(*exact, *double),
            Node::Duration(duration) => {
                Datum::Duration(i64::try_from(duration.as_micros()).map_err(|_| Undecided)?)
            }
            Node::Now => Datum::Timestamp(self.now.ok_or(Undecided)?),
            Node::Field(n) => self.record.get(*n).map_or(Datum::Null, datum),
            Node::Element(n) => *self.elements.get(*n).ok_or(Undecided)?,
            Node::SubField(object, n) => match self.evaluate(object)? {
                Datum::Object(values) => values.get(*n).map_or(Datum::Null, datum),
                _ => return Err(Undecided),
            },
            Node::Member(object, name) => match self.evaluate(object)? {
                Datum::Json(Json::Object(map)) => map.get(name).map(json).ok_or(Undecided)?,
                _ => return Err(Undecided),
            },
            Node::At(list, n) => element(self.evaluate(list)?, *n).ok_or(Undecided)?,
            // What cannot be reached is not there.
            Node::Has(inner) => {
                Datum::Boolean(!matches!(self.evaluate(inner), Err(_) | Ok(Datum::Null)))
            }
            Node::Not(inner) => Datum::Boolean(!self.decide(inner)?),
            Node::And(parts) => Datum::Boolean(self.any(parts, false)?),
            Node::Or(parts) => Datum::Boolean(self.any(parts, true)?),
            Node::Choose(parts) => {
                let [when, then, other] = parts.as_ref();
                let chosen = if self.decide(when)? { then } else { other };
                self.evaluate(chosen)?
            }
            Node::Compare(operator, parts) => {
                let (a, b) = self.both(parts)?;
                Datum::Boolean(compare(*operator, a, b)?)
            }
            Node::Calculate(operator, parts) => {
                let (a, b) = self.both(parts)?;
                calculate(*operator, a, b)?
            }
            Node::Negate(inner) => {
                calculate(Arithmetic::Subtract, Datum::Integer(0), self.evaluate(inner)?)?
            }
            Node::In(parts) => {
                let (value, list) = self.both(parts)?;
                Datum::Boolean(contains(list, value)?)
            }
            Node::Among(value, among) => {
                let value = self.evaluate(value)?;
                let mut found = false;
                for one in among {
                    found |= equal(value, self.evaluate(one)?);
                }
                Datum::Boolean(found)
            }
            Node::Text(test, parts) => match self.both(parts)? {
                (Datum::Text(a), Datum::Text(b)) => Datum::Boolean(match test {
                    TextTest::Contains => a.contains(b),
                    TextTest::StartsWith => a.starts_with(b),
                    TextTest::EndsWith => a.ends_with(b),
                }),
                _ => return Err(Undecided),
            },
            Node::Size(inner) => {
                Datum::Integer(i64::try_from(size(self.evaluate(inner)?)?).map_err(|_| Undecided)?)
            }
            Node::Exists(parts) => Datum::Boolean(self.any_element(parts, true)?),
            Node::All(parts) => Datum::Boolean(self.any_element(parts, false)?),
        })
    }

    fn both(&mut self, parts: &'a [Node; 2]) -> Decided<(Datum<'a>, Datum<'a>)> {
        Ok((self.evaluate(&parts[0])?, self.evaluate(&parts[1])?))
    }

    /// `||` with `settles` true, `&&` with `settles` false: one part that settles it outweighs those undecided.
    fn any(&mut self, parts: &'a [Node], settles: bool) -> Decided<bool> {
        let mut undecided = false;
        for part in parts {
            match self.decide(part) {
                Ok(b) if b == settles => return Ok(settles),
                Ok(_) => {}
                Err(Undecided) => undecided = true,
            }
        }
        if undecided { Err(Undecided) } else { Ok(!settles) }
    }

    /// `exists` with `settles` true, `all` with `settles` false.
    fn any_element(&mut self, parts: &'a [Node; 2], settles: bool) -> Decided<bool> {
        let [list, test] = parts;
        let list = self.evaluate(list)?;
        let length = length(list)?;
        let mut undecided = false;
        for n in 0..length {
            self.elements.push(element(list, n).ok_or(Undecided)?);
            let decided = self.decide(test);
            self.elements.pop();
            match decided {
                Ok(b) if b == settles => return Ok(settles),
                Ok(_) => {}
                Err(Undecided) => undecided = true,
            }
        }
        if undecided { Err(Undecided) } else { Ok(!settles) }
    }
}

fn datum(value: &Value) -> Datum<'_> {
    match value {
        Value::Null => Datum::Null,
        Value::Boolean(b) => Datum::Boolean(*b),
        Value::Integer(n) => Datum::Integer(*n),
        Value::Float(f) => Datum::Float(*f),
        Value::Decimal(d) => Datum::Decimal(*d),
        Value::String(text) => Datum::Text(text),
        Value::Bytes(bytes) => Datum::Bytes(bytes),
        Value::Date(d) => Datum::Date(*d),
        Value::Timestamp(t) => Datum::Timestamp(*t),
        Value::Uuid(u) => Datum::Uuid(*u),
        Value::Json(j) => json(j),
        Value::List(items) => Datum::List(items),
        Value::Objects(items) => Datum::Objects(items),
    }
}

fn json(value: &Json) -> Datum<'_> {
    match value {
        Json::Null => Datum::Null,
        Json::Bool(b) => Datum::Boolean(*b),
        Json::String(text) => Datum::Text(text),
        Json::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
            (Some(n), _, _) => Datum::Integer(n),
            (_, Some(n), _) => Datum::Decimal(Decimal::from(n)),
            (_, _, Some(f)) => Datum::Float(f),
            _ => Datum::Null,
        },
        other => Datum::Json(other),
    }
}

fn length(list: Datum<'_>) -> Decided<usize> {
    match list {
        Datum::List(items) => Ok(items.len()),
        Datum::Objects(items) => Ok(items.len()),
        Datum::Json(Json::Array(items)) => Ok(items.len()),
        _ => Err(Undecided),
    }
}

fn element(list: Datum<'_>, n: usize) -> Option<Datum<'_>> {
    match list {
        Datum::List(items) => items.get(n).map(datum),
        Datum::Objects(items) => items.get(n).map(|values| Datum::Object(values)),
        Datum::Json(Json::Array(items)) => items.get(n).map(json),
        _ => None,
    }
}

fn size(value: Datum<'_>) -> Decided<usize> {
    match value {
        Datum::Text(text) => Ok(text.chars().count()),
        Datum::Bytes(bytes) => Ok(bytes.len()),
        Datum::Json(Json::Object(map)) => Ok(map.len()),
        list => length(list),
    }
}

fn contains(list: Datum<'_>, value: Datum<'_>) -> Decided<bool> {
    match (list, value) {
        (Datum::Json(Json::Object(map)), Datum::Text(name)) => Ok(map.contains_key(name)),
        _ => Ok((0..length(list)?).filter_map(|n| element(list, n)).any(|e| equal(e, value))),
    }
}

fn compare(operator: Comparison, a: Datum<'_>, b: Datum<'_>) -> Decided<bool> {
    Ok(match operator {
        Comparison::Eq => equal(a, b),
        Comparison::Ne => !equal(a, b),
        Comparison::Lt => order(a, b)?.is_lt(),
        Comparison::Lte => order(a, b)?.is_le(),
        Comparison::Gt => order(a, b)?.is_gt(),
        Comparison::Gte => order(a, b)?.is_ge(),
    })
}

/// Values of different types are not equal.
fn equal(a: Datum<'_>, b: Datum<'_>) -> bool {
    match (a, b) {
        (Datum::Null, Datum::Null) => true,
        (Datum::Json(a), Datum::Json(b)) => a == b,
        (
            Datum::List(_) | Datum::Objects(_) | Datum::Json(_),
            Datum::List(_) | Datum::Objects(_) | Datum::Json(_),
        ) => match (length(a), length(b)) {
            (Ok(x), Ok(y)) if x == y => {
                (0..x).all(|n| element(a, n).zip(element(b, n)).is_some_and(|(a, b)| equal(a, b)))
            }
            _ => false,
        },
        (Datum::Object(a), Datum::Object(b)) => a == b,
        _ => order(a, b).is_ok_and(Ordering::is_eq),
    }
}

fn order(a: Datum<'_>, b: Datum<'_>) -> Decided<Ordering> {
    Ok(match (a, b) {
        (Datum::Boolean(a), Datum::Boolean(b)) => a.cmp(&b),
        (Datum::Text(a), Datum::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
        (Datum::Bytes(a), Datum::Bytes(b)) => a.cmp(b),
        (Datum::Date(a), Datum::Date(b)) => a.cmp(&b),
        (Datum::Timestamp(a), Datum::Timestamp(b)) => a.cmp(&b),
        (Datum::Duration(a), Datum::Duration(b)) => a.cmp(&b),
        (Datum::Uuid(a), Datum::Uuid(b)) => a.cmp(&b),
        (Datum::Integer(a), Datum::Integer(b)) => a.cmp(&b),
        _ => match pair(a, b)? {
            Pair::Exact(a, b) => a.cmp(&b),
            Pair::Double(a, b) => a.partial_cmp(&b).ok_or(Undecided)?,
        },
    })
}

/// Two numbers in one form: doubles where a float takes part, exact otherwise.
enum Pair {
    Exact(Decimal, Decimal),
    Double(f64, f64),
}

fn pair(a: Datum<'_>, b: Datum<'_>) -> Decided<Pair> {
    if matches!(a, Datum::Float(_)) || matches!(b, Datum::Float(_)) {
        return Ok(Pair::Double(double(a)?, double(b)?));
    }
    Ok(Pair::Exact(exact(a)?, exact(b)?))
}

fn exact(number: Datum<'_>) -> Decided<Decimal> {
    match number {
        Datum::Integer(n) => Ok(Decimal::from(n)),
        Datum::Decimal(d) | Datum::Number(d, _) => Ok(d),
        _ => Err(Undecided),
    }
}

fn double(number: Datum<'_>) -> Decided<f64> {
    match number {
        Datum::Integer(n) => Ok(n as f64),
        Datum::Float(f) | Datum::Number(_, f) => Ok(f),
        // By its text, because that is rounded correctly.
        Datum::Decimal(d) => d.to_string().parse().map_err(|_| Undecided),
        _ => Err(Undecided),
    }
}

/// A time and a duration as a time, two times as the duration between them; nothing if they are numbers.
fn shift<'a>(operator: Arithmetic, a: Datum<'_>, b: Datum<'_>) -> Option<Decided<Datum<'a>>> {
    let time = |micros: Option<i64>| {
        let time = Timestamp::from_micros(micros.ok_or(Undecided)?).map_err(|_| Undecided)?;
        Ok(Datum::Timestamp(time))
    };
    Some(match (operator, a, b) {
        (Arithmetic::Add, Datum::Timestamp(t), Datum::Duration(d))
        | (Arithmetic::Add, Datum::Duration(d), Datum::Timestamp(t)) => {
            time(t.micros().checked_add(d))
        }
        (Arithmetic::Subtract, Datum::Timestamp(t), Datum::Duration(d)) => {
            time(t.micros().checked_sub(d))
        }
        (Arithmetic::Subtract, Datum::Timestamp(a), Datum::Timestamp(b)) => {
            a.micros().checked_sub(b.micros()).map(Datum::Duration).ok_or(Undecided)
        }
        _ => return None,
    })
}

/// Integers stay integers, as in CEL: `7 / 2` is 3. What overflows or divides by zero is undecided.
fn calculate<'a>(operator: Arithmetic, a: Datum<'_>, b: Datum<'_>) -> Decided<Datum<'a>> {
    if let (Datum::Integer(a), Datum::Integer(b)) = (a, b) {
        let result = match operator {
            Arithmetic::Add => a.checked_add(b),
            Arithmetic::Subtract => a.checked_sub(b),
            Arithmetic::Multiply => a.checked_mul(b),
            Arithmetic::Divide => a.checked_div(b),
            Arithmetic::Modulo => a.checked_rem(b),
        };
        return result.map(Datum::Integer).ok_or(Undecided);
    }
    if let Some(result) = shift(operator, a, b) {
        return result;
    }
    match pair(a, b)? {
        Pair::Exact(a, b) => {
            let result = match operator {
                Arithmetic::Add => a.checked_add(b),
                Arithmetic::Subtract => a.checked_sub(b),
                Arithmetic::Multiply => a.checked_mul(b),
                Arithmetic::Divide => a.checked_div(b),
                Arithmetic::Modulo => a.checked_rem(b),
            };
            result.map(Datum::Decimal).ok_or(Undecided)
        }
        Pair::Double(a, b) => {
            let result = match operator {
                Arithmetic::Add => a + b,
                Arithmetic::Subtract => a - b,
                Arithmetic::Multiply => a * b,
                Arithmetic::Divide => a / b,
                Arithmetic::Modulo => a % b,
            };
            if result.is_finite() { Ok(Datum::Float(result)) } else { Err(Undecided) }
        }
    }
}
