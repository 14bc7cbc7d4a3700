//! Records and lists from their JSON text, which may have been written under an earlier declaration: members that are
//! no longer declared are passed over, and decimals take the scale that is declared now.

use serde_json::{Map, Value as Json};
use unisono_core::{Entity, Error, ErrorKind, Field, FieldType, Record, Result, Value, json};

/// A record from the JSON object of a log entry.
pub(crate) fn record(entity: &Entity, text: &str) -> Result<Record> {
    match tree(text)? {
        Json::Object(members) => values(entity.fields(), members).map(Record::new),
        _ => Err(corrupt()),
    }
}

/// The value of a `json`, list or objects field.
pub(crate) fn value(ty: &FieldType, text: &str) -> Result<Value> {
    typed(ty, tree(text)?)
}

fn tree(text: &str) -> Result<Json> {
    serde_json::from_str(text).map_err(|e| corrupt().caused_by(e))
}

fn values(fields: &[Field], mut members: Map<String, Json>) -> Result<Vec<Value>> {
    let member = |field: &Field| match members.remove(field.name.as_ref()) {
        Some(json) => typed(&field.ty, json),
        None => Ok(Value::Null),
    };
    fields.iter().map(member).collect()
}

fn typed(ty: &FieldType, json: Json) -> Result<Value> {
    match (ty, json) {
        (FieldType::Json, Json::Null) => Ok(Value::Null),
        (FieldType::Json, json) => Ok(Value::Json(json)),
        (FieldType::Objects(fields), Json::Array(items)) => {
            let item = |json| match json {
                Json::Object(members) => values(fields, members),
                _ => Err(corrupt()),
            };
            items.into_iter().map(item).collect::<Result<_>>().map(Value::Objects)
        }
        (ty, json) => json::parse_value(ty, &json).map_err(|e| corrupt().caused_by(e)),
    }
}

fn corrupt() -> Error {
    Error::new(ErrorKind::Corrupt, "stored JSON cannot be decoded")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_of_an_earlier_declaration_is_read() {
        let line = [Field::new("price", FieldType::Decimal { precision: 12, scale: 2 })];
        let fields = vec![
            Field::new("id", FieldType::String),
            Field::new("lines", FieldType::Objects(line.into())),
            Field::new("added", FieldType::Integer),
        ];
        let entity = Entity::new("order", "id", fields).unwrap();
        let text = r#"{"gone":1,"id":"a","lines":[{"price":"1.5","gone":[]}]}"#;
        let read = record(&entity, text).unwrap();
        let expected = serde_json::json!({"id": "a", "lines": [{"price": "1.50"}], "added": null});
        assert_eq!(json::to_json(&entity, &read), expected);
    }
}
