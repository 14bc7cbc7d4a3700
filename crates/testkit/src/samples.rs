//! [`Sample`]: the two entities that examples and tests speak of.

use std::sync::Arc;

use serde_json::{Value as Json, json};
use unisono_core::{Entity, Field, FieldType, Key, Record, json as record_json};

/// Entities that examples and tests speak of, and records of them.
pub struct Sample;

impl Sample {
    /// A product: searchable name and description, exact price, stock, tags, free attributes.
    pub fn product() -> Arc<Entity> {
        let fields = vec![
            Field::new("id", FieldType::String),
            Field { required: true, search: true, ..Field::new("name", FieldType::String) },
            Field { search: true, ..Field::new("description", FieldType::Text) },
            Field {
                index: true,
                ..Field::new("price", FieldType::Decimal { precision: 12, scale: 2 })
            },
            Field { index: true, ..Field::new("stock", FieldType::Integer) },
            Field::new("active", FieldType::Boolean),
            Field::new("tags", FieldType::List(Box::new(FieldType::String))),
            Field::new("attributes", FieldType::Json),
            Field::new("updated_at", FieldType::Timestamp { precision: 6 }),
        ];
        entity("product", fields)
    }

    /// An order with its lines.
    pub fn order() -> Arc<Entity> {
        let line = [
            Field { required: true, ..Field::new("product_id", FieldType::String) },
            Field { required: true, ..Field::new("quantity", FieldType::Integer) },
            Field::new("amount", FieldType::Decimal { precision: 12, scale: 2 }),
        ];
        let fields = vec![
            Field::new("id", FieldType::String),
            Field { index: true, ..Field::new("user_id", FieldType::String) },
            Field { index: true, ..Field::new("status", FieldType::String) },
            Field::new("created_at", FieldType::Timestamp { precision: 6 }),
            Field::new("total_amount", FieldType::Decimal { precision: 12, scale: 2 }),
            Field::new("items", FieldType::Objects(line.into())),
        ];
        entity("order", fields)
    }

    /// A person with a unique e-mail address, by number.
    pub fn person() -> Arc<Entity> {
        let fields = vec![
            Field::new("number", FieldType::Integer),
            Field { unique: true, ..Field::new("email", FieldType::String) },
            Field::new("name", FieldType::String),
        ];
        let entity = Entity::new("person", "number", fields);
        Arc::new(entity.unwrap_or_else(|e| unreachable!("the declaration is good: {e}")))
    }

    /// A product that differs by its number.
    pub fn product_record(number: u32) -> Record {
        let colour = ["red", "green", "blue"][number as usize % 3];
        Sample::record(
            &Sample::product(),
            &json!({
                "id": format!("p{number}"),
                "name": format!("{colour} lamp {number}"),
                "description": format!("A {colour} lamp for desk and shelf"),
                "price": format!("{}.{:02}", number % 50, number % 100),
                "stock": i64::from(number % 7) - 1,
                "active": number.is_multiple_of(2),
                "tags": [colour, "lamp"],
                "attributes": {"colour": colour, "size": number % 5},
                "updated_at": "2026-01-02T03:04:05.678901Z",
            }),
        )
    }

    /// A record from its JSON, which must be valid.
    pub fn record(entity: &Entity, json: &Json) -> Record {
        record_json::parse(entity, json)
            .unwrap_or_else(|e| unreachable!("tests give valid records: {e}"))
    }

    /// A string key, which must be valid.
    pub fn key(text: &str) -> Key {
        Key::String(text.into())
    }
}

fn entity(name: &str, fields: Vec<Field>) -> Arc<Entity> {
    let entity = Entity::new(name, "id", fields);
    Arc::new(entity.unwrap_or_else(|e| unreachable!("the declaration is good: {e}")))
}
