//! The OpenAPI 3.1 description, made from the declared entities: their real names, fields, types and limits.

use std::sync::Arc;

use serde_json::{Map, Value as Json, json};
use unisono::config::RouteDeclaration;
use unisono::core::json::value_to_json;
use unisono::core::query::{Aggregate, Query};
use unisono::core::{Entity, ErrorKind, Field, FieldType};

mod operations;
mod projections;
mod streams;

/// The whole description.
pub(crate) fn document(
    name: &str,
    version: &str,
    entities: &[Arc<Entity>],
    routes: &[RouteDeclaration],
) -> Json {
    let mut paths = Map::new();
    let mut schemas = fixed_schemas();
    for entity in entities {
        schemas.insert(entity.name().to_string(), record_schema(entity));
        schemas.insert(format!("{}_patch", entity.name()), patch_schema(entity));
        operations::of_entity(&mut paths, entity);
        for route in routes.iter().filter(|r| r.entity == *entity.name()) {
            operations::of_route(&mut paths, entity, route);
        }
    }
    streams::paths(&mut paths);
    operations::of_service(&mut paths);
    operations::of_operators(&mut paths);
    projections::of_projections(&mut paths);
    let tags = entities
        .iter()
        .map(|e| json!({ "name": e.name(), "description": format!("Records of `{}`.", e.name()) }));
    let tags: Vec<Json> = tags
        .chain([
            json!({ "name": "streams", "description": "Streams of events." }),
            json!({ "name": "changes", "description": "The change log." }),
            json!({ "name": "operation", "description": "Health, metrics and administration." }),
        ])
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": name, "version": version,
            "description": "Every answer names its source, its version and its age. Every failure is a problem that \
                says what happened, whether the write took place, and whether to try again.",
        },
        "servers": [{ "url": "/" }],
        "security": [{ "token": [] }],
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": schemas,
            "parameters": operations::parameters(),
            "headers": operations::headers(),
            "responses": { "problem": {
                "description": "A failure; `code` and `type` say which.",
                "content": { "application/problem+json": { "schema": reference("problem") } },
            } },
            "securitySchemes": { "token": {
                "type": "http", "scheme": "bearer", "bearerFormat": "usn_…",
                "description": "An access token. Not needed where none are declared.",
            } },
        },
    })
}

/// A reference to a schema.
fn reference(name: &str) -> Json {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// A record as it is read and written as a whole.
fn record_schema(entity: &Entity) -> Json {
    let key = &entity.key_field().name;
    let required: Vec<&str> = entity
        .fields()
        .iter()
        .filter(|f| f.required && f.default.is_none() && f.name != *key)
        .map(|f| f.name.as_ref())
        .collect();
    let mut schema = object(entity.fields());
    schema["required"] = json!(required);
    schema["examples"] = json!([example(entity)]);
    schema["description"] = json!(format!("One `{}`; its key is `{key}`.", entity.name()));
    schema
}

/// The fields to change, all of them optional.
fn patch_schema(entity: &Entity) -> Json {
    let mut schema = object(entity.fields());
    schema["description"] = json!("The fields to change; null removes a value (RFC 7396).");
    schema["minProperties"] = json!(1);
    schema
}

fn object(fields: &[Field]) -> Json {
    let properties: Map<String, Json> =
        fields.iter().map(|f| (f.name.to_string(), field_schema(f))).collect();
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

fn field_schema(field: &Field) -> Json {
    let mut schema = type_schema(&field.ty);
    let Json::Object(map) = &mut schema else { return schema };
    if !field.required
        && let Some(Json::String(ty)) = map.get("type").cloned()
    {
        map.insert("type".into(), json!([ty, "null"]));
    }
    if !field.allowed.is_empty() {
        let null = (!field.required).then_some(Json::Null);
        let allowed = field.allowed.iter().map(|v| value_to_json(&field.ty, v)).chain(null);
        map.insert("enum".into(), allowed.collect());
    }
    if let Some(default) = &field.default {
        map.insert("default".into(), value_to_json(&field.ty, default));
    }
    if let Some(max) = field.max_length {
        let name = match field.ty {
            FieldType::List(_) | FieldType::Objects(_) => Some("maxItems"),
            FieldType::String | FieldType::Text => Some("maxLength"),
            _ => None,
        };
        map.extend(name.map(|name| (name.to_owned(), json!(max))));
    }
    let notes = [
        (field.unique, "Unique."),
        (field.search, "Found by full-text search."),
        (field.index, "Indexed."),
    ];
    let notes: Vec<&str> = notes.into_iter().filter(|(is, _)| *is).map(|(_, note)| note).collect();
    if !notes.is_empty() {
        map.insert("description".into(), json!(notes.join(" ")));
    }
    schema
}

fn type_schema(ty: &FieldType) -> Json {
    match ty {
        FieldType::String | FieldType::Text => json!({ "type": "string" }),
        FieldType::Integer => json!({ "type": "integer", "format": "int64" }),
        FieldType::Decimal { precision, scale } => {
            let digits = precision.saturating_sub(*scale).max(1);
            let fraction =
                if *scale == 0 { String::new() } else { format!("(\\.[0-9]{{1,{scale}}})?") };
            json!({ "type": "string", "format": "decimal", "pattern": format!("^-?[0-9]{{1,{digits}}}{fraction}$") })
        }
        FieldType::Boolean => json!({ "type": "boolean" }),
        FieldType::Float => json!({ "type": "number", "format": "double" }),
        FieldType::Date => json!({ "type": "string", "format": "date" }),
        FieldType::Timestamp { .. } => json!({ "type": "string", "format": "date-time" }),
        FieldType::Uuid => json!({ "type": "string", "format": "uuid" }),
        FieldType::Bytes => json!({ "type": "string", "contentEncoding": "base64" }),
        FieldType::Json => json!({}),
        FieldType::List(of) => json!({ "type": "array", "items": type_schema(of) }),
        FieldType::Objects(fields) => json!({ "type": "array", "items": object(fields) }),
    }
}

/// A record that the entity would accept.
pub(crate) fn example(entity: &Entity) -> Json {
    entity.fields().iter().map(|f| (f.name.to_string(), example_value(f))).collect()
}

fn example_value(field: &Field) -> Json {
    let given = field.default.as_ref().or(field.allowed.first());
    given
        .map_or_else(|| example_of(&field.ty, &field.name), |value| value_to_json(&field.ty, value))
}

fn example_of(ty: &FieldType, name: &str) -> Json {
    match ty {
        FieldType::String if name == "id" || name.ends_with("_id") => json!("42"),
        FieldType::String | FieldType::Text => json!(name.replace('_', " ")),
        FieldType::Integer => json!(7),
        FieldType::Decimal { precision, scale } if precision == scale => {
            json!(format!("0.{:0<1$}", 5, usize::from(*scale)))
        }
        FieldType::Decimal { scale: 0, .. } => json!("9"),
        FieldType::Decimal { scale, .. } => json!(format!("9.{:0<1$}", 5, usize::from(*scale))),
        FieldType::Boolean => json!(true),
        FieldType::Float => json!(0.5),
        FieldType::Date => json!("2026-12-31"),
        FieldType::Timestamp { .. } => json!("2026-12-31T12:00:00Z"),
        FieldType::Uuid => json!("01940000-0000-7000-8000-000000000000"),
        FieldType::Bytes => json!("AAEC"),
        FieldType::Json => json!({ "colour": "red" }),
        FieldType::List(of) => json!([example_of(of, name)]),
        FieldType::Objects(fields) => {
            let fields = fields.iter().map(|f| (f.name.to_string(), example_value(f)));
            Json::Array(vec![fields.collect()])
        }
    }
}

/// The schemas that every service has.
fn fixed_schemas() -> Map<String, Json> {
    let codes: Vec<&str> = ErrorKind::ALL.iter().map(|k| k.code()).collect();
    let position = json!({ "type": "string", "pattern": "^[0-9]{1,19}$", "description": "A 63-bit number as a string." });
    let text = json!({ "type": "string" });
    let problem = json!({
        "type": "object",
        "required": ["type", "title", "status", "detail", "code", "retryable", "committed"],
        "properties": {
            "type": { "type": "string", "format": "uri-reference", "description": "A page of this server." },
            "title": text, "status": { "type": "integer" }, "detail": text,
            "code": { "type": "string", "enum": codes },
            "retryable": { "type": "boolean" },
            "retry_after_ms": { "type": "integer" },
            "committed": { "type": "string", "enum": ["no", "yes", "unknown"],
                "description": "Whether the write took place." },
            "source": text, "entity": text, "hint": text, "trace": text,
            "context": { "type": "object", "additionalProperties": text },
            "errors": { "type": "array", "items": { "type": "object", "properties": {
                "pointer": text, "field": text, "message": text } } },
            "index": { "type": "integer", "description": "The operation of a batch that failed." },
            "oldest": position, "problems": { "type": "array", "items": { "type": "object" } },
        },
    });
    let filter = json!({
        "type": "object",
        "description": "`{}` is every record; `and`, `or` and `not` join tests.",
        "examples": [{ "and": [{ "field": "status", "op": "eq", "value": "paid" }] }],
    });
    let query = json!({
        "type": "object", "additionalProperties": false,
        "properties": {
            "where": reference("filter"), "search": text,
            "order": { "type": "array", "items": text, "maxItems": Query::ORDER_MAX },
            "limit": { "type": "integer", "minimum": 1, "maximum": Query::LIMIT_MAX, "default": Query::LIMIT_DEFAULT },
            "cursor": text, "fields": { "type": "array", "items": text },
            "highlight": { "type": "boolean" }, "facets": { "type": "array", "items": text },
        },
    });
    let aggregate = json!({
        "type": "object", "additionalProperties": false,
        "properties": {
            "where": reference("filter"), "unnest": text,
            "group_by": { "type": "array", "items": text },
            "metrics": { "type": "object", "description": "`\"count\"`, or `{\"sum\": \"field\"}` with sum, min, max or avg." },
            "order": { "type": "array", "items": text },
            "limit": { "type": "integer", "minimum": 1, "maximum": Aggregate::LIMIT_MAX },
        },
    });
    [
        ("position", position),
        ("problem", problem),
        ("change", change_schema()),
        ("filter", filter),
        ("query", query),
        ("aggregate", aggregate),
    ]
    .into_iter()
    .chain(streams::schemas())
    .map(|(name, schema)| (name.to_owned(), schema))
    .collect()
}

fn change_schema() -> Json {
    let text = json!({ "type": "string" });
    json!({
        "type": "object",
        "properties": {
            "log": text, "position": reference("position"), "entity": text, "key": text,
            "operation": { "type": "string", "enum": ["put", "delete"] },
            "replaced": { "anyOf": [reference("position"), { "type": "null" }] },
            "record": { "type": ["object", "null"] }, "time": { "type": "string", "format": "date-time" },
            "actor": { "type": ["string", "null"] }, "trace": { "type": ["string", "null"] },
        },
    })
}

#[cfg(test)]
mod tests;
