//! The JSON Schema (draft 2020-12) of the configuration, for editors.

use serde_json::{Map, Value as Json, json};
use unisono_core::Ack;
use unisono_core::kind::SourceKind;

use crate::options::{self, Key, Section, Shape};
use crate::sections::{FIELD, FILE};

const TYPE: &str = r"^(string|text|integer|boolean|float|date|timestamp(\([0-6]\))?|uuid|bytes|json|decimal\(\d{1,2}, ?\d{1,2}\)|\$\{.*)$";
const TYPE_OR_LIST: &str = r"^(string|text|integer|boolean|float|date|timestamp(\([0-6]\))?|uuid|bytes|json|list|decimal\(\d{1,2}, ?\d{1,2}\)|\$\{.*)$";
const NAME: &str = "^[a-z][a-z0-9_]{0,47}$";

/// The schema of a file that uses the given kinds.
pub fn schema(kinds: &[&'static dyn SourceKind]) -> Json {
    let mut schema = section(&FILE, kinds);
    let head =
        [("$schema", "https://json-schema.org/draft/2020-12/schema"), ("title", "unisono.toml")];
    if let Json::Object(map) = &mut schema {
        map.extend(head.map(|(name, value)| (name.to_owned(), Json::from(value))));
    }
    schema
}

fn section(section: &Section, kinds: &[&'static dyn SourceKind]) -> Json {
    let own = section.keys.iter().map(|key| (key.name.to_owned(), property(key, kinds)));
    let mut properties = Map::from_iter(own);
    // Which kind a source has is not known to a schema: what any kind adds is allowed.
    for option in kinds.iter().flat_map(|k| section.role.map_or(&[][..], |r| k.entity_options(r))) {
        let value = property(&options::key(option), kinds);
        match properties.get_mut(option.name) {
            None => drop(properties.insert(option.name.to_owned(), value)),
            Some(other) if *other == value => {}
            Some(other) => *other = json!({"anyOf": [other.take(), value]}),
        }
    }
    let required: Vec<&str> = section.keys.iter().filter(|k| k.required).map(|k| k.name).collect();
    let mut object = json!({
        "type": "object",
        "description": section.doc,
        "properties": properties,
        "additionalProperties": false,
    });
    if let (Json::Object(map), false) = (&mut object, required.is_empty()) {
        map.insert("required".to_owned(), required.into());
    }
    object
}

fn property(key: &Key, kinds: &[&'static dyn SourceKind]) -> Json {
    let mut value = shape(key, kinds);
    if let Json::Object(map) = &mut value {
        map.insert("description".to_owned(), key.doc.into());
        if let Some(default) = default(key) {
            map.insert("default".to_owned(), default);
        }
    }
    value
}

fn shape(key: &Key, kinds: &[&'static dyn SourceKind]) -> Json {
    // Any value may be written as text with `${…}` in it.
    let replaced = json!({"type": "string", "pattern": r"\$\{"});
    match key.shape {
        Shape::Text if key.name == "type" => json!({"type": "string", "pattern": TYPE_OR_LIST}),
        Shape::Text | Shape::Path | Shape::Secret => json!({"type": "string", "minLength": 1}),
        Shape::Boolean => json!({"anyOf": [{"type": "boolean"}, replaced]}),
        Shape::Integer { min, max } => {
            json!({"anyOf": [{"type": "integer", "minimum": min, "maximum": max}, replaced]})
        }
        Shape::Duration { .. } => {
            json!({"type": "string", "pattern": r"^(\d+ ?(ms|s|m|h|d)|.*\$\{.*)$"})
        }
        Shape::Size { .. } => {
            json!({"type": "string", "pattern": r"^(\d+ ?(B|KB|MB|GB)|.*\$\{.*)$"})
        }
        Shape::Choice(words) => json!({"anyOf": [{"enum": words}, replaced]}),
        Shape::Texts => json!({"type": "array", "items": {"type": "string"}}),
        Shape::Ack => json!({"anyOf": [
            {"type": "integer", "minimum": 1},
            {"enum": Ack::WORDS},
            {"type": "array", "items": {"type": "string"}, "minItems": 1},
            replaced,
        ]}),
        // Editors hand a TOML time over as text.
        Shape::Time => json!({"type": "string"}),
        Shape::Body => json!({"type": "object"}),
        Shape::Value => json!({}),
        Shape::Values => json!({"type": "array", "minItems": 1}),
        Shape::Table(inner) => section(inner, kinds),
        Shape::Tables(inner) => json!({"type": "array", "items": section(inner, kinds)}),
        Shape::Named(inner) => named(section(inner, kinds)),
        Shape::Sources => of_kinds(kinds, false),
        Shape::Outlets => of_kinds(kinds, true),
        Shape::Fields(inner) => {
            named(json!({"anyOf": [{"type": "string", "pattern": TYPE}, section(inner, kinds)]}))
        }
        Shape::Words(words) => named(json!({"anyOf": [{"enum": words}, replaced]})),
        Shape::Expressions => named(json!({"type": "string", "minLength": 1})),
        Shape::Groups => {
            json!({"type": "array", "items": {"type": "array", "items": {"type": "string"}, "minItems": 2}})
        }
        Shape::Elements => {
            let scalar = json!({"type": "string", "pattern": TYPE});
            let rules = ["type", "required", "enum", "max_length"].map(|name| {
                let key = FIELD.key(name);
                (name.to_owned(), key.map_or(json!({}), |k| shape(k, kinds)))
            });
            let object = json!({"type": "object", "properties": Map::from_iter(rules), "required": ["type"], "additionalProperties": false});
            json!({"anyOf": [scalar, named(json!({"anyOf": [scalar, object]}))]})
        }
    }
}

/// What sources, or outlets, of each kind have.
fn of_kinds(kinds: &[&'static dyn SourceKind], outlets: bool) -> Json {
    let mine = kinds.iter().filter(|kind| options::is_outlet(**kind) == outlets);
    let of_kind = |kind: &&'static dyn SourceKind| {
        let options = if outlets { options::outlet(*kind) } else { options::source(*kind) };
        let mut of_kind = section(&options, kinds);
        of_kind["properties"]["kind"] =
            json!({"const": kind.name(), "description": kind.summary()});
        of_kind
    };
    named(json!({"oneOf": mine.map(of_kind).collect::<Vec<_>>()}))
}

fn named(of: Json) -> Json {
    json!({"type": "object", "propertyNames": {"pattern": NAME}, "additionalProperties": of})
}

fn default(key: &Key) -> Option<Json> {
    let toml = key.default_toml()?;
    // Texts, numbers, switches and lists of texts are written alike in TOML and JSON.
    serde_json::from_str(&toml).ok()
}
