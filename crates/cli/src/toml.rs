//! Declarations as they are written in a configuration.

use std::fmt::Write as _;

use serde_json::Value as Json;
use unisono::core::{Entity, Field, FieldType, Value, json};

/// A text in quotes, with nothing in it that a configuration would replace.
pub(crate) fn quoted(text: &str) -> String {
    let json = Json::String(text.replace("${", "$${")).to_string();
    // The one character that JSON writes as it is and TOML does not allow.
    json.replace('\u{7f}', "\\u007f")
}

/// Lines of a comment, without anything that could end it.
pub(crate) fn comment(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("# {}\n", text.trim_end())
}

/// The fields of an entity, one line each.
pub(crate) fn fields(entity: &Entity) -> String {
    let key = entity.key_field();
    let mut text = String::new();
    for field in entity.fields() {
        // A key is required and unique by being one.
        let declared = match field.name == key.name {
            true => Field { required: false, unique: false, index: false, ..field.clone() },
            false => field.clone(),
        };
        // Writing to a string does not fail.
        let _ = writeln!(text, "{} = {}", field.name, declaration(&declared, true));
    }
    text
}

/// What stands behind the name of a field; those of a record are searched by default if they are of type `text`.
fn declaration(field: &Field, of_record: bool) -> String {
    let mut parts = Vec::new();
    let ty = match &field.ty {
        FieldType::List(of) => {
            parts.push(format!("of = {}", quoted(&of.to_string())));
            "list".to_owned()
        }
        FieldType::Objects(of) => {
            let of: Vec<_> =
                of.iter().map(|f| format!("{} = {}", f.name, declaration(f, false))).collect();
            parts.push(format!("of = {{ {} }}", of.join(", ")));
            "list".to_owned()
        }
        ty => ty.to_string(),
    };
    let flags = [("required", field.required), ("unique", field.unique), ("index", field.index)];
    parts.extend(flags.iter().filter(|(_, on)| *on).map(|(name, _)| format!("{name} = true")));
    if field.search != (of_record && field.ty == FieldType::Text) {
        parts.push(format!("search = {}", field.search));
    }
    if let Some(max) = field.max_length {
        parts.push(format!("max_length = {max}"));
    }
    if !field.allowed.is_empty() {
        let all: Vec<_> = field.allowed.iter().map(|v| value(&field.ty, v)).collect();
        parts.push(format!("enum = [{}]", all.join(", ")));
    }
    if let Some(default) = field.default.as_ref().filter(|v| !v.is_null()) {
        parts.push(format!("default = {}", value(&field.ty, default)));
    }
    if parts.is_empty() {
        return quoted(&ty);
    }
    format!("{{ type = {}, {} }}", quoted(&ty), parts.join(", "))
}

fn value(ty: &FieldType, value: &Value) -> String {
    inline(&json::value_to_json(ty, value))
}

/// A JSON value as TOML, which has no null: no declaration can hold one.
fn inline(json: &Json) -> String {
    match json {
        Json::Null => "\"\"".to_owned(),
        Json::String(text) => quoted(text),
        Json::Bool(_) | Json::Number(_) => json.to_string(),
        Json::Array(all) => {
            format!("[{}]", all.iter().map(inline).collect::<Vec<_>>().join(", "))
        }
        Json::Object(all) => {
            let all: Vec<_> =
                all.iter().map(|(k, v)| format!("{} = {}", quoted(k), inline(v))).collect();
            format!("{{ {} }}", all.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use unisono::Registry;
    use unisono::config::{Process, parse};

    use super::*;

    fn parsed(declared: &str) -> Arc<Entity> {
        let text = format!(
            "[sources.main]\nkind = \"sqlite\"\npath = \"main.db\"\n[entities.thing]\ntruth = \"main\"\nkey = \"id\"\n\
             [entities.thing.fields]\n{declared}"
        );
        let configuration = parse(&text, "test.toml", &Registry::builtin(), &Process)
            .unwrap_or_else(|problems| panic!("{problems}\n{text}"));
        Arc::clone(&configuration.declaration.entities["thing"].entity)
    }

    /// Every type and every rule, as people write them.
    const EVERYTHING: &str = r#"
id = "uuid"
name = { type = "string", required = true, unique = true, max_length = 20 }
status = { type = "string", index = true, enum = ["open", "it's \"done\"", "$${HOME}", "tab\tand\u007f"], default = "open" }
story = "text"
silent = { type = "text", search = false }
title = { type = "string", search = true }
count = { type = "integer", enum = [-1, 0, 9007199254740993] }
price = { type = "decimal(12,2)", required = true, default = "0.50" }
rate = { type = "float", default = 0.1 }
whole = { type = "float", default = 3.0 }
on_sale = { type = "boolean", default = false }
born = { type = "date", enum = ["2026-01-02"] }
seen = "timestamp"
made = { type = "timestamp(3)", default = "2026-01-02T03:04:05.678Z" }
data = { type = "bytes", max_length = 100, default = "AAECAw==" }
more = { type = "json", default = { "a b" = [1, "x", { c = true }] } }
tags = { type = "list", of = "string", max_length = 3, default = ["a", "b"] }
prices = { type = "list", of = "decimal(6,2)" }
lines = { type = "list", of = { sku = { type = "string", required = true, max_length = 9 }, note = "text", n = { type = "integer", enum = [1, 2] } } }
"#;

    #[test]
    fn what_is_written_declares_the_same_entity() {
        let entity = parsed(EVERYTHING);
        let written = fields(&entity);
        assert_eq!(*parsed(&written), *entity, "{written}");
        assert!(
            written.contains("\nstory = \"text\"\n"),
            "nothing that need not be said: {written}"
        );
        assert!(written.starts_with("id = \"uuid\"\n"), "{written}");
    }

    #[test]
    fn a_comment_stays_one() {
        assert_eq!(comment("a\nb = 1\r\u{0}"), "# a b = 1\n");
    }
}
