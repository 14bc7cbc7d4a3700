//! What the files of an entity were declared to hold, so that a later declaration that cannot read them is refused.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use unisono_core::{Entity, Error, ErrorKind, Field, FieldType, Result, entity};

use crate::error::corrupt;
use crate::place::Place;
use crate::store::Store;

/// The content of `schema.json`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Schema {
    key: String,
    fields: BTreeMap<String, Declared>,
}

/// One declared field.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Declared {
    #[serde(rename = "type")]
    ty: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    fields: BTreeMap<String, Declared>,
}

impl Schema {
    fn of(entity: &Entity) -> Self {
        Schema { key: entity.key_field().name.to_string(), fields: declared(entity.fields()) }
    }
}

fn declared(fields: &[Field]) -> BTreeMap<String, Declared> {
    let inner = |ty: &FieldType| match ty {
        FieldType::Objects(fields) => declared(fields),
        _ => BTreeMap::new(),
    };
    let of =
        |f: &Field| (f.name.to_string(), Declared { ty: f.ty.to_string(), fields: inner(&f.ty) });
    fields.iter().map(of).collect()
}

/// Makes the folders of entities exist and match. Nothing is changed if any of them cannot.
pub(crate) fn prepare(places: &[(Arc<Entity>, Arc<Place>)]) -> Result<Vec<String>> {
    let mut said = Vec::new();
    let mut changed = Vec::new();
    for (entity, place) in places {
        let path = place.folder().join("schema.json");
        let wanted = Schema::of(entity);
        let found = read(&*place.store, &path)
            .map_err(|e| e.of(entity.name()).hint(way_out(place.folder())))?;
        match &found {
            None => {
                said.push(format!("{}: folder {} made", entity.name(), place.folder().display()))
            }
            Some(found) => {
                let differences = compare(found, &wanted)
                    .map_err(|e| e.of(entity.name()).hint(way_out(place.folder())))?;
                said.extend(
                    differences.into_iter().map(|text| format!("{}: {text}", entity.name())),
                );
            }
        }
        if found.as_ref() != Some(&wanted) {
            changed.push((place, path, wanted));
        }
    }
    for (place, path, schema) in changed {
        place.store.create_folder(place.records())?;
        let content = serde_json::to_vec_pretty(&schema)
            .map_err(|e| Error::internal("the schema cannot be written").caused_by(e))?;
        place.store.replace(&path, &content)?;
    }
    Ok(said)
}

fn read(store: &dyn Store, path: &Path) -> Result<Option<Schema>> {
    let found = store.read(path)?;
    let read = |content: Vec<u8>| serde_json::from_slice(&content).map_err(|e| corrupt(path, e));
    found.map(|found| read(found.content)).transpose()
}

fn way_out(folder: &Path) -> String {
    format!("move {} away: the files are written again from the truth", folder.display())
}

/// What differs and does no harm; `schema_mismatch` for what files written so far cannot be read as.
fn compare(found: &Schema, wanted: &Schema) -> Result<Vec<String>> {
    if found.key != wanted.key {
        return Err(mismatch("the key is another field", &found.key, &wanted.key));
    }
    let mut said = Vec::new();
    compare_fields("", &found.fields, &wanted.fields, &mut said)?;
    Ok(said)
}

fn compare_fields(
    above: &str,
    found: &BTreeMap<String, Declared>,
    wanted: &BTreeMap<String, Declared>,
    said: &mut Vec<String>,
) -> Result<()> {
    for (name, field) in wanted {
        let path = format!("{above}{name}");
        match found.get(name) {
            None => said.push(format!("field {path} added as {}", field.ty)),
            Some(old) if old.ty == field.ty => {
                compare_fields(&format!("{path}."), &old.fields, &field.fields, said)?;
            }
            Some(old) if is_wider(&old.ty, &field.ty) => {
                said.push(format!("field {path} widened from {} to {}", old.ty, field.ty));
            }
            Some(old) => {
                return Err(
                    mismatch("a field has another type", &old.ty, &field.ty).with("field", path)
                );
            }
        }
    }
    for name in found.keys().filter(|name| !wanted.contains_key(*name)) {
        said.push(format!(
            "field {above}{name} is no longer declared; it leaves each file with its next change"
        ));
    }
    Ok(())
}

fn mismatch(message: &'static str, found: &str, wanted: &str) -> Error {
    Error::new(ErrorKind::SchemaMismatch, message).with("found", found).with("declared", wanted)
}

/// Whether every value written as `old` reads back as the same value of `new`.
fn is_wider(old: &str, new: &str) -> bool {
    if let (Some(old), Some(new)) = (old.strip_prefix("list of "), new.strip_prefix("list of ")) {
        return is_wider(old, new);
    }
    entity::is_wider(old, new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_types_that_read_every_stored_value_are_wider() {
        for (old, new) in [
            ("string", "text"),
            ("decimal(12,2)", "decimal(14,2)"),
            ("decimal(12,2)", "decimal(14,4)"),
            ("timestamp(3)", "timestamp"),
            ("list of decimal(4,1)", "list of decimal(5,2)"),
        ] {
            assert!(is_wider(old, new), "{old} to {new}");
            assert!(new == "text" || !is_wider(new, old), "{new} to {old}");
        }
        assert!(!is_wider("decimal(12,2)", "decimal(12,3)"), "a digit before the point is lost");
        assert!(!is_wider("integer", "string") && !is_wider("string", "integer"));
    }
}
