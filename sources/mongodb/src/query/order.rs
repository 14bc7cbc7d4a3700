//! Orders and places after a cursor.

use mongodb::bson::Document;
use unisono_core::query::{Comparison, Cursor, Filter, Order, Path, Query};
use unisono_core::{Entity, Value};

use crate::codec::orders_alike;
use crate::document::{MICROS, has_micros};

/// The native order; `None` if it would not be that of the values.
pub(crate) fn sort(entity: &Entity, order: &[Order]) -> Option<Document> {
    let mut sort = Document::new();
    for Order { path, descending } in order {
        let field = entity.fields().get(path.field).filter(|f| orders_alike(&f.ty))?;
        let direction = if *descending { -1 } else { 1 };
        if path.field == entity.key_index() {
            // Keys differ, so that nothing after them counts.
            sort.insert("_id", direction);
            return Some(sort);
        }
        // Of a field named twice, the first mention counts.
        sort.entry(field.name.to_string()).or_insert(direction.into());
        if has_micros(&field.ty) {
            sort.entry(format!("{MICROS}.{}", field.name)).or_insert(direction.into());
        }
    }
    sort.insert("_id", 1);
    Some(sort)
}

/// The records after a cursor, as a filter.
pub(crate) fn after(entity: &Entity, query: &Query, cursor: &Cursor) -> Filter {
    let mut equal: Vec<Filter> = Vec::new();
    let mut alternatives = Vec::new();
    for (n, order) in query.order.iter().enumerate() {
        let value = cursor.values.get(n).unwrap_or(&Value::Null);
        if let Some(beyond) = beyond(&order.path, order.descending, value) {
            alternatives.push(Filter::And([equal.clone(), vec![beyond]].concat()));
        }
        equal.push(match value {
            Value::Null => Filter::IsNull(order.path.clone()),
            value => Filter::Compare(order.path.clone(), Comparison::Eq, value.clone()),
        });
    }
    let key = Path::whole(entity.key_index());
    equal.push(Filter::Compare(key, Comparison::Gt, cursor.key.to_value()));
    alternatives.push(Filter::And(equal));
    let places = Filter::Or(alternatives);
    match (query.order.first(), cursor.values.first()) {
        // Says nothing more, but is where an index can begin.
        (Some(Order { path, descending: false }), Some(value)) if !value.is_null() => {
            Filter::Compare(path.clone(), Comparison::Gte, value.clone()).and(places)
        }
        _ => places,
    }
}

/// The values that come after one; null is the least. `None` if there are none.
fn beyond(path: &Path, descending: bool, value: &Value) -> Option<Filter> {
    let compare = |comparison| Filter::Compare(path.clone(), comparison, value.clone());
    let null = Filter::IsNull(path.clone());
    match (value, descending) {
        (Value::Null, true) => None,
        (Value::Null, false) => Some(Filter::Not(Box::new(null))),
        (_, false) => Some(compare(Comparison::Gt)),
        (_, true) => Some(Filter::Or(vec![compare(Comparison::Lt), null])),
    }
}
