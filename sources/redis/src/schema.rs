//! What a follower's records were written under, kept beside them, and what may change about it.

use serde_json::{Map, Value as Json, json};
use unisono_core::{Entity, Error, ErrorKind, Field, FieldType, Result};

use crate::codec::Format;
use crate::keys::Layout;
use crate::shown::Shown;

/// The declaration as it is kept: format, keys, and every field ever declared with its type.
pub(crate) fn describe(entity: &Entity, format: Format, layout: &Layout) -> Json {
    let mut described = json!({
        "format": format.as_str(),
        "template": layout.template().to_string(),
        "parts": layout.parts(),
        "key": entity.key_field().name.as_ref(),
        "fields": fields(entity.fields()),
    });
    for (option, shown) in layout.shown().describe(entity) {
        described[option] = shown;
    }
    described
}

fn fields(declared: &[Field]) -> Json {
    Json::Object(declared.iter().map(|f| (f.name.to_string(), ty(&f.ty))).collect())
}

fn ty(declared: &FieldType) -> Json {
    match declared {
        FieldType::Objects(inner) => fields(inner),
        // Both are kept as the same text.
        FieldType::Text => "string".into(),
        other => other.to_string().into(),
    }
}

/// What has to be done about a declaration that differs from the one that was kept.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Difference {
    /// Fields that were added.
    pub(crate) added: Vec<String>,
    /// Whether other fields are kept beside the records, or under other keys.
    pub(crate) shown: bool,
    /// The description to be kept from now on; fields that are gone stay in it.
    pub(crate) merged: Json,
}

/// Compares; fails with `schema_mismatch` for what would make stored records unreadable.
pub(crate) fn compare(kept: &Json, declared: &Json) -> Result<Difference> {
    for name in ["format", "template", "parts", "key"] {
        if kept.get(name) != declared.get(name) {
            return Err(mismatch(
                "records are kept in another way than is declared",
                name,
                kept,
                declared,
            ));
        }
    }
    let mut merged = kept.clone();
    let mut added = Vec::new();
    let empty = Map::new();
    let members = |json: &Json| json.get("fields").and_then(Json::as_object).cloned();
    let (old, new) = (members(kept).unwrap_or_default(), members(declared).unwrap_or(empty));
    if let Some(fields) = merged.get_mut("fields").and_then(Json::as_object_mut) {
        merge("", &old, &new, fields, &mut added)?;
    }
    let mut shown = false;
    for option in Shown::OPTIONS {
        shown |= kept.get(option) != declared.get(option);
        if let Some(all) = merged.as_object_mut() {
            all.remove(option);
            all.extend(declared.get(option).map(|new| (option.to_owned(), new.clone())));
        }
    }
    Ok(Difference { added, shown, merged })
}

fn merge(
    path: &str,
    old: &Map<String, Json>,
    new: &Map<String, Json>,
    merged: &mut Map<String, Json>,
    added: &mut Vec<String>,
) -> Result<()> {
    for (name, declared) in new {
        let full = format!("{path}{name}");
        match (old.get(name), declared) {
            (None, _) => {
                merged.insert(name.clone(), declared.clone());
                added.push(full);
            }
            (Some(kept), declared) if kept == declared => {}
            (Some(Json::Object(kept)), Json::Object(declared)) => {
                if let Some(inner) = merged.get_mut(name).and_then(Json::as_object_mut) {
                    merge(&format!("{full}."), kept, declared, inner, added)?;
                }
            }
            (Some(kept), declared) => {
                return Err(mismatch(
                    "a field has another type than its records",
                    &full,
                    kept,
                    declared,
                ));
            }
        }
    }
    Ok(())
}

fn mismatch(message: &'static str, what: &str, kept: &Json, declared: &Json) -> Error {
    let show = |json: &Json| match json.get(what).unwrap_or(json) {
        Json::String(text) => text.clone(),
        Json::Object(_) => "list of objects".to_owned(),
        other => other.to_string(),
    };
    Error::new(ErrorKind::SchemaMismatch, message)
        .with("field", what)
        .with("kept", show(kept))
        .with("declared", show(declared))
        .hint("give the follower another place and key_template, or delete its keys: they are filled again from the truth")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(fields: Json) -> Json {
        json!({"format": "json", "template": "a:{key}", "parts": 1, "key": "id", "fields": fields})
    }

    #[test]
    fn additions_are_merged_and_fields_that_are_gone_are_remembered() {
        let kept = declared(json!({"id": "string", "old": "integer", "lines": {"a": "string"}}));
        let new = declared(
            json!({"id": "string", "note": "text", "lines": {"a": "string", "b": "float"}}),
        );
        let difference = compare(&kept, &new).unwrap();
        assert_eq!(difference.added, ["lines.b", "note"]);
        assert_eq!(difference.merged["fields"]["old"], "integer");
        assert_eq!(difference.merged["fields"]["lines"]["b"], "float");
        assert_eq!(compare(&difference.merged, &new).unwrap().added, Vec::<String>::new());
    }

    #[test]
    fn what_is_shown_may_change() {
        let kept = declared(json!({"id": "string"}));
        let mut new = kept.clone();
        new["values"] = json!({"n": "a:{id}:n"});
        let difference = compare(&kept, &new).unwrap();
        assert!(difference.shown && difference.merged == new);
        assert!(!compare(&new, &new).unwrap().shown);
        let back = compare(&new, &kept).unwrap();
        assert!(back.shown && back.merged == kept);
    }

    #[test]
    fn other_types_formats_and_keys_are_refused_with_a_way_out() {
        let kept = declared(json!({"id": "string", "n": "integer", "lines": {"a": "string"}}));
        let mut format = kept.clone();
        format["format"] = "hash".into();
        for new in [
            declared(json!({"id": "string", "n": "string"})),
            declared(json!({"id": "string", "lines": {"a": "integer"}})),
            declared(json!({"id": "string", "lines": "json"})),
            format,
        ] {
            let error = compare(&kept, &new).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::SchemaMismatch);
            assert!(error.hint_text().is_some());
        }
    }
}
