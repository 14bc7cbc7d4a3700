//! Filters as JSON: the inverse of [`parse::filter`](super::parse::filter).

use serde_json::{Value as Json, json};

use crate::entity::{Entity, FieldType};
use crate::json::value_to_json;
use crate::query::ast::{Comparison, Filter, Order, Path};
use crate::value::Value;

/// A filter as the JSON that it is parsed from.
pub fn filter(entity: &Entity, filter: &Filter) -> Json {
    let all = |filters: &[Filter]| Json::from_iter(filters.iter().map(|f| self::filter(entity, f)));
    let value = |path: &Path, value: &Value| value_to_json(path.ty(entity), value);
    let test = |path: &Path, op: &str, value: Json| json!({"field": path.to_text(entity), "op": op, "value": value});
    match filter {
        Filter::All => json!({}),
        Filter::And(filters) => json!({"and": all(filters)}),
        Filter::Or(filters) => json!({"or": all(filters)}),
        Filter::Not(inner) => json!({"not": self::filter(entity, inner)}),
        Filter::Compare(path, comparison, v) => test(path, comparison.as_str(), value(path, v)),
        Filter::In(path, list) => {
            test(path, "in", Json::from_iter(list.iter().map(|v| value(path, v))))
        }
        Filter::Between(path, low, high) => {
            test(path, "between", json!([value(path, low), value(path, high)]))
        }
        Filter::Like(path, like) => test(path, "like", like.0.as_str().into()),
        Filter::Prefix(path, start) => test(path, "prefix", start.as_str().into()),
        Filter::Contains(path, part) => {
            test(path, "contains", value_to_json(element(path.ty(entity)), part))
        }
        Filter::IsNull(path) => test(path, "is_null", Json::Bool(true)),
    }
}

/// An order criterion as text: `-created_at`.
pub fn order(entity: &Entity, order: &Order) -> String {
    format!("{}{}", if order.descending { "-" } else { "" }, order.path.to_text(entity))
}

/// The type of what a value of this type can contain.
pub(crate) fn element(ty: &FieldType) -> &FieldType {
    match ty {
        FieldType::List(of) => of,
        ty => ty,
    }
}

impl Comparison {
    /// The word used in queries, such as `lte`.
    pub fn as_str(self) -> &'static str {
        match self {
            Comparison::Eq => "eq",
            Comparison::Ne => "ne",
            Comparison::Lt => "lt",
            Comparison::Lte => "lte",
            Comparison::Gt => "gt",
            Comparison::Gte => "gte",
        }
    }
}
