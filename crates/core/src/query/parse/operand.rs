//! One test of a filter: an operator and its operand, checked against the type at its path.

use serde_json::Value as Json;

use crate::entity::{Entity, FieldType};
use crate::error::{Error, Result};
use crate::json;
use crate::query::ast::{Comparison, Filter, Like, Path, Query};
use crate::query::format::element;
use crate::spelling::closest;
use crate::value::Value;

/// What a value is compared with, as it was given.
#[derive(Clone, Copy)]
pub(super) enum Operand<'a> {
    /// From a URL.
    Text(&'a str),
    /// From a JSON body.
    Json(&'a Json),
}

/// An operator with one or several operands.
pub(super) enum Test<'a> {
    One(Op, Operand<'a>),
    In(Vec<Operand<'a>>),
    Between(Vec<Operand<'a>>),
}

/// An operator with one operand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Compare(Comparison),
    Like,
    Prefix,
    Contains,
}

/// The names of operators in JSON.
pub(super) const OPERATORS: [&str; 12] = [
    "eq", "ne", "lt", "lte", "gt", "gte", "in", "between", "like", "prefix", "contains", "is_null",
];

impl Op {
    pub(super) fn parse(name: &str) -> Option<Op> {
        use Comparison::*;
        let compare = [Eq, Ne, Lt, Lte, Gt, Gte].into_iter().find(|c| c.as_str() == name);
        compare.map(Op::Compare).or(match name {
            "like" => Some(Op::Like),
            "prefix" => Some(Op::Prefix),
            "contains" => Some(Op::Contains),
            _ => None,
        })
    }
}

/// The error for an operator that is none of the known ones.
pub(super) fn unknown_operator<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Error {
    let error = Error::invalid("there is no such operator").with("operator", super::clip(name));
    match closest(name, known) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error.hint(format!("operators are {}", OPERATORS.join(", "))),
    }
}

/// The filter of a test, if the type at its path allows it.
pub(super) fn filter(entity: &Entity, path: Path, test: Test<'_>) -> Result<Filter> {
    let ty = path.ty(entity);
    match test {
        Test::One(Op::Compare(comparison), operand) => {
            let value = operand.comparable(ty)?;
            Ok(Filter::Compare(path, comparison, value))
        }
        Test::One(Op::Like, operand) => {
            let pattern = operand.pattern(ty)?;
            if ends_in_escape(&pattern) {
                return Err(Error::invalid("the pattern ends in a single \\")
                    .hint("write \\\\ for a literal backslash"));
            }
            Ok(Filter::Like(path, Like(pattern)))
        }
        Test::One(Op::Prefix, operand) => Ok(Filter::Prefix(path, operand.pattern(ty)?)),
        Test::One(Op::Contains, operand) => {
            if !(ty.is_text() || matches!(ty, FieldType::List(_) | FieldType::Json)) {
                return Err(not_allowed(
                    "contains",
                    ty,
                    "it works on text, lists of scalars and JSON",
                ));
            }
            Ok(Filter::Contains(path, operand.value(element(ty))?))
        }
        Test::In(operands) => {
            if operands.is_empty() || operands.len() > Query::IN_VALUES_MAX {
                return Err(Error::invalid(format!(
                    "`in` takes 1 to {} values",
                    Query::IN_VALUES_MAX
                )));
            }
            let values =
                operands.iter().map(|operand| operand.comparable(ty)).collect::<Result<_>>()?;
            Ok(Filter::In(path, values))
        }
        Test::Between(operands) => {
            let [low, high] = operands[..] else {
                return Err(Error::invalid("`between` takes two values, the lower one first"));
            };
            let (low, high) = (low.comparable(ty)?, high.comparable(ty)?);
            Ok(Filter::Between(path, low, high))
        }
    }
}

fn not_allowed(operator: &'static str, ty: &FieldType, hint: &'static str) -> Error {
    Error::invalid(format!("a value of type {ty} cannot be tested in this way"))
        .with("operator", operator)
        .hint(hint)
}

/// Whether the last `\` of a pattern has nothing left to make literal.
fn ends_in_escape(pattern: &str) -> bool {
    pattern.bytes().rev().take_while(|b| *b == b'\\').count() % 2 == 1
}

impl Operand<'_> {
    /// For comparisons: a scalar, or below a `json` field a scalar of JSON.
    fn comparable(self, ty: &FieldType) -> Result<Value> {
        if !(ty.is_scalar() || *ty == FieldType::Json) {
            return Err(Error::invalid(format!("a value of type {ty} cannot be compared"))
                .hint("use `contains` for lists, and a path such as `items.quantity` for lists of objects"));
        }
        self.value(ty)
    }

    /// For patterns: text.
    fn pattern(self, ty: &FieldType) -> Result<String> {
        if !(ty.is_text() || *ty == FieldType::Json) {
            return Err(not_allowed(
                "like or prefix",
                ty,
                "it works on string and text fields and below json",
            ));
        }
        match self {
            Operand::Text(text) => Ok(text.to_owned()),
            Operand::Json(Json::String(text)) => Ok(text.clone()),
            Operand::Json(_) => Err(Error::invalid("a pattern is text")),
        }
    }

    /// A value of a type; null is refused.
    fn value(self, ty: &FieldType) -> Result<Value> {
        match (self, ty) {
            (Operand::Json(Json::Null), _) => {
                Err(Error::invalid("nothing equals null").hint("test with the operator `is_null`"))
            }
            (Operand::Json(Json::Array(_) | Json::Object(_)), FieldType::Json) => {
                Err(Error::invalid("is not a single value")
                    .hint("compare JSON with a string, a number, true or false"))
            }
            (Operand::Json(json), ty) => json::parse_value(ty, json),
            (Operand::Text(text), FieldType::Json) => Ok(Value::Json(json_scalar(text))),
            (Operand::Text(text), ty) => json::parse_text(ty, text),
        }
    }
}

/// The number, boolean or quoted string that a text is in JSON, else the text itself as a string.
fn json_scalar(text: &str) -> Json {
    match serde_json::from_str(text) {
        Ok(scalar @ (Json::Bool(_) | Json::Number(_) | Json::String(_))) => scalar,
        _ => Json::String(text.to_owned()),
    }
}
