//! The order of a query as the engine's sort criteria, and a cursor as the place after which they go on.

use serde_json::{Value as Json, json};
use unisono_core::query::{Query, Step};
use unisono_core::{FieldType, Key, Value};

use crate::codec::to_form;
use crate::schema::{Layout, Shape, Slot};

/// Criteria for sorting, the key last.
pub(crate) struct Ranking<'a> {
    /// The criteria.
    pub(crate) sort: Vec<Json>,
    /// Their values at the cursor.
    pub(crate) after: Option<Vec<Json>>,
    /// The slots whose values decide.
    pub(crate) slots: Vec<&'a Slot>,
}

impl<'a> Ranking<'a> {
    /// By key.
    pub(crate) fn by_key(layout: &Layout, after: Option<&Key>) -> Self {
        let after = after.map(|key| vec![key_form(layout, key)]);
        Ranking { sort: vec![by_key(layout)], after, slots: Vec::new() }
    }

    /// By relevance, then by key.
    pub(crate) fn by_relevance(layout: &Layout) -> Self {
        let sort = vec![json!({"_score": "desc"}), by_key(layout)];
        Ranking { sort, after: None, slots: Vec::new() }
    }

    /// By the order of a query; `None` if the index cannot sort like that.
    pub(crate) fn new(layout: &'a Layout, query: &Query) -> Option<Self> {
        let cursor = query.cursor.as_ref();
        if query.by_relevance() {
            let after = cursor.map(|cursor| {
                let score = match cursor.values.first() {
                    Some(Value::Float(score)) => *score,
                    _ => 0.0,
                };
                vec![score.into(), key_form(layout, &cursor.key)]
            });
            return Some(Ranking { after, ..Ranking::by_relevance(layout) });
        }
        let (mut sort, mut after, mut slots) = (Vec::new(), Vec::new(), Vec::new());
        for (n, order) in query.order.iter().enumerate() {
            let slot =
                layout.scalar(order.path.field).filter(|_| order.path.step == Step::Whole)?;
            // Null is less than every value.
            let (order, missing) =
                if order.descending { ("desc", "_last") } else { ("asc", "_first") };
            let last = cursor.and_then(|cursor| cursor.values.get(n)).unwrap_or(&Value::Null);
            if to_form(&slot.ty, last).is_some_and(|form| form.is_long()) {
                return None;
            }
            if slot.ty == FieldType::Integer {
                // The engine takes null for the least integer; among doubles it comes before it.
                let criterion = json!({&slot.name: {"order": order, "missing": missing, "numeric_type": "double"}});
                sort.push(criterion);
                after.push(match last {
                    Value::Integer(n) => (*n as f64).into(),
                    _ => null(Shape::Double),
                });
            }
            let missing = match slot.shape {
                // Truth values are sorted as 0 and 1; what else would stand for null differs between engines.
                Shape::Boolean => null(Shape::Boolean),
                _ => missing.into(),
            };
            sort.push(json!({&slot.name: {"order": order, "missing": missing}}));
            after.push(match (slot.shape, to_form(&slot.ty, last)) {
                (Shape::Boolean, Some(form)) => {
                    i64::from(form.to_json() == Json::Bool(true)).into()
                }
                (_, Some(form)) => form.to_json(),
                (shape, None) => null(shape),
            });
            slots.push(slot);
        }
        sort.push(by_key(layout));
        let after = cursor.map(|cursor| {
            after.push(key_form(layout, &cursor.key));
            after
        });
        Some(Ranking { sort, after, slots })
    }
}

fn by_key(layout: &Layout) -> Json {
    json!({&layout.key().name: "asc"})
}

/// A key is never longer than what is indexed, and has a form of its own type.
fn key_form(layout: &Layout, key: &Key) -> Json {
    let value = key.to_value();
    to_form(&layout.key().ty, &value).map_or(Json::Null, |form| form.to_json())
}

/// What the engine sorts by where nothing is there.
fn null(shape: Shape) -> Json {
    match shape {
        Shape::Long => i64::MIN.into(),
        Shape::Boolean => (-1).into(),
        Shape::Double => "-Infinity".into(),
        Shape::Keyword => Json::Null,
    }
}
