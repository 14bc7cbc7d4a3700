//! Tests below `json` fields, lists and lists of objects, narrowed down by `jsonb` operators.
//!
//! A condition here finds every record that matches and perhaps more, so each is decided once more outside. Values for
//! which `jsonb` and the reference disagree are left to that: numbers of 2^53 and more (a float and an integer of the
//! same size have texts of different size there) and everything with U+0000, which `jsonb` cannot hold.

use serde_json::Value as Json;
use unisono_core::query::{Comparison, Filter, Path, Step};
use unisono_core::{FieldType, Value, json};
use unisono_sql::Condition;

use crate::codec::Form;
use crate::parameter::Parameter;
use crate::table::{Shape, Table};

/// From here on doubles have no digit after the point, and more than one integer has the same double.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// The condition of a test that looks below a column; none if `jsonb` cannot narrow it down.
pub(crate) fn condition(
    table: &Table,
    test: &Filter,
    bind: &mut dyn FnMut(Parameter) -> String,
) -> Option<Condition> {
    let (field, part) = match test {
        Filter::Compare(path, Comparison::Eq, value) => contained(table, path, value)?,
        Filter::Contains(path, element) => match path.ty(&table.entity) {
            FieldType::List(of) if path.step == Step::Whole => {
                (path.field, Json::Array(vec![part(of, element)?]))
            }
            _ => return None,
        },
        _ => return None,
    };
    let column = table.columns.get(field).filter(|c| c.form == Form::Json)?;
    let name = &column.name;
    let mark = bind(Parameter::text(&part.to_string()));
    let sql = match column.shape {
        Shape::Jsonb => format!("{name} @> ({mark}::jsonb)"),
        // Order of evaluation is certain only within CASE.
        _ => format!(
            "CASE WHEN strpos({name}::text, '\\u0000') > 0 THEN TRUE ELSE {name}::jsonb @> ({mark}::jsonb) END"
        ),
    };
    Some(Condition { sql, narrowed: true })
}

/// What a column must contain for the value at a path to be equal to another.
fn contained(table: &Table, path: &Path, value: &Value) -> Option<(usize, Json)> {
    let object = |name: &str, value| Json::Object([(name.to_owned(), value)].into_iter().collect());
    let whole = match (&path.step, value) {
        (Step::Json(steps), Value::Json(value)) => {
            // A step that is a number can mean a member or an element.
            if steps.iter().any(|s| s.parse::<usize>().is_ok() || s.contains('\0')) {
                return None;
            }
            steps.iter().rev().fold(plain(value)?, |value, step| object(step, value))
        }
        (Step::Each(n), value) => {
            let FieldType::Objects(fields) = &table.entity.fields().get(path.field)?.ty else {
                return None;
            };
            let field = fields.get(*n)?;
            Json::Array(vec![object(&field.name, part(&field.ty, value)?)])
        }
        _ => return None,
    };
    Some((path.field, whole))
}

/// An element of a list, or a part of one, as it is in its JSON.
fn part(ty: &FieldType, value: &Value) -> Option<Json> {
    // Written under an earlier declaration, these have fewer digits.
    match ty {
        FieldType::Decimal { .. } | FieldType::Timestamp { .. } => None,
        ty => plain(&json::value_to_json(ty, value)),
    }
}

/// A scalar that `jsonb` compares like the reference.
fn plain(value: &Json) -> Option<Json> {
    let comparable = match value {
        Json::String(text) => !text.contains('\0'),
        Json::Number(n) => n.as_f64().is_some_and(|n| n.abs() < EXACT),
        Json::Bool(_) => true,
        Json::Null | Json::Array(_) | Json::Object(_) => false,
    };
    comparable.then(|| value.clone())
}
