//! Collections and indexes: made, and held against the types under which the documents were written.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use mongodb::IndexModel;
use mongodb::bson::{Bson, Document, doc};
use mongodb::options::IndexOptions;
use unisono_core::entity::is_wider;
use unisono_core::source::Binding;
use unisono_core::{Entity, Error, ErrorKind, Field, FieldType, Result, Role};

use crate::client::Client;
use crate::collection::{Place, note_id};
use crate::document::{MICROS, NOTE, VERSION, has_micros};
use crate::error::translate;

/// The note that says under which types the documents were written.
const SCHEMA: &str = "schema";
/// The index of the notes, which remembered deletions are found by.
const NOTES_INDEX: &str = "unisono_notes";

/// Makes the collections match the bindings; answers them and what was done, for people.
///
/// All are looked at before anything is changed.
pub(crate) async fn prepare(
    client: &Client,
    bindings: &[Binding],
) -> Result<(Vec<Place>, Vec<String>)> {
    check_bindings(bindings)?;
    let mut notes = Vec::new();
    let mut wanted = Vec::with_capacity(bindings.len());
    for binding in bindings {
        let place = Place::new(client, Arc::clone(&binding.entity), &binding.place);
        let changed = compare(client, &place, &mut notes).await;
        wanted.push((place, changed.map_err(|e| e.of(binding.entity.name()))?));
    }
    let mut places = Vec::with_capacity(wanted.len());
    for (place, changed) in wanted {
        let named = |e: Error| e.of(place.entity.name());
        if changed {
            record(client, &place).await.map_err(named)?;
        }
        make_indexes(client, &place, &mut notes).await.map_err(named)?;
        place.look_for_deletions(client).await.map_err(named)?;
        places.push(place);
    }
    Ok((places, notes))
}

/// Forgets all documents of a collection and makes it again.
pub(crate) async fn reset(client: &Client, place: &Place) -> Result<()> {
    client.write(place.documents.drop()).await?;
    record(client, place).await?;
    make_indexes(client, place, &mut Vec::new()).await
}

fn check_bindings(bindings: &[Binding]) -> Result<()> {
    let mut seen = HashSet::new();
    for Binding { place, entity, role, .. } in bindings {
        let wrong = |message| Error::new(ErrorKind::InvalidConfig, message).of(entity.name());
        if *role != Role::Follower {
            return Err(Error::unsupported("a mongodb source can only be a follower")
                .of(entity.name())
                .with("role", role.as_str())
                .hint("choose another source for this role, for example one of kind sqlite"));
        }
        let plain = !place.is_empty()
            && place.len() <= 120
            && !place.starts_with("system.")
            && !place.contains(['$', '\0'])
            && !place.starts_with('.')
            && !place.ends_with('.');
        if !plain {
            return Err(wrong("the collection cannot have this name")
                .with("collection", place)
                .hint("use letters, digits and underscores"));
        }
        if !seen.insert(Arc::clone(place)) {
            return Err(wrong("two entities have the same collection").with("collection", place));
        }
    }
    Ok(())
}

/// Whether the types are to be recorded; `schema_mismatch` for documents that could not be read under them.
async fn compare(client: &Client, place: &Place, notes: &mut Vec<String>) -> Result<bool> {
    let found = client.call(place.documents.find_one(doc! { "_id": note_id(SCHEMA) })).await?;
    let wanted = types(&place.entity);
    let Some(found) = found else {
        refuse_foreign(client, place).await?;
        notes.push(format!("made the collection {}", place.name()));
        return Ok(true);
    };
    let key = place.entity.key_field().name.as_ref();
    if !found.get_str("key").is_ok_and(|recorded| recorded == key) {
        return Err(mismatch(place, "the key is another field").with("declared", key));
    }
    let recorded = recorded(&found);
    let mut changed = false;
    for (name, ty) in &wanted {
        match recorded.get(name) {
            None => notes.push(format!("field {name} added as {ty}")),
            Some(old) if old == ty => continue,
            Some(old) if is_wider(old, ty) => {
                notes.push(format!("field {name} widened from {old} to {ty}"));
            }
            Some(old) => {
                return Err(mismatch(place, "a field has another type")
                    .with("field", name)
                    .with("stored", old)
                    .with("declared", ty));
            }
        }
        changed = true;
    }
    for name in recorded.keys().filter(|name| !wanted.contains_key(*name)) {
        notes.push(format!(
            "field {name} is no longer declared; it leaves each document with its next change"
        ));
        changed = true;
    }
    Ok(changed)
}

/// A collection without the note must not hold what somebody else wrote: it would be taken for records.
async fn refuse_foreign(client: &Client, place: &Place) -> Result<()> {
    let foreign = place.documents.find_one(doc! { VERSION: Bson::Null, NOTE: Bson::Null });
    match client.call(foreign).await? {
        None => Ok(()),
        Some(_) => Err(mismatch(place, "the collection holds documents of another program")
            .hint("declare another collection for the entity, or drop this one")),
    }
}

fn mismatch(place: &Place, message: &'static str) -> Error {
    Error::new(ErrorKind::SchemaMismatch, message)
        .with("collection", place.name())
        .hint("drop the collection: it is filled again from the truth; or declare another one")
}

async fn record(client: &Client, place: &Place) -> Result<()> {
    let fields: Vec<Bson> = (types(&place.entity).into_iter())
        .map(|(name, ty)| Bson::Document(doc! { "name": name, "type": ty }))
        .collect();
    let note = doc! {
        "_id": note_id(SCHEMA),
        NOTE: SCHEMA,
        "key": place.entity.key_field().name.as_ref(),
        "fields": fields,
    };
    let request = place.documents.replace_one(doc! { "_id": note_id(SCHEMA) }, note).upsert(true);
    client.write(request).await.map(drop)
}

/// The declared types by path: `items`, `items.quantity`.
fn types(entity: &Entity) -> BTreeMap<String, String> {
    fn add(above: &str, fields: &[Field], types: &mut BTreeMap<String, String>) {
        for field in fields {
            let path = format!("{above}{}", field.name);
            if let FieldType::Objects(below) = &field.ty {
                add(&format!("{path}."), below, types);
            }
            types.insert(path, field.ty.to_string());
        }
    }
    let mut types = BTreeMap::new();
    add("", entity.fields(), &mut types);
    types
}

fn recorded(note: &Document) -> BTreeMap<String, String> {
    let fields = note.get_array("fields").map(Vec::as_slice).unwrap_or_default();
    let field = |field: &Bson| {
        let field = field.as_document()?;
        Some((field.get_str("name").ok()?.to_owned(), field.get_str("type").ok()?.to_owned()))
    };
    fields.iter().filter_map(field).collect()
}

async fn make_indexes(client: &Client, place: &Place, notes: &mut Vec<String>) -> Result<()> {
    let mut missing: Vec<(String, IndexModel)> = vec![(NOTES_INDEX.to_owned(), notes_index())];
    for field in place.entity.fields().iter().filter(|f| f.index || f.unique) {
        let indexable = field.ty.is_scalar() || matches!(field.ty, FieldType::List(_));
        if indexable && *field.name != *place.entity.key_field().name {
            missing.push((format!("unisono_{}", field.name), field_index(field)));
        }
    }
    let present = client.call(place.documents.list_index_names()).await?;
    missing.retain(|(name, _)| !present.contains(name));
    if missing.is_empty() {
        return Ok(());
    }
    for (name, _) in missing.iter().filter(|(name, _)| name != NOTES_INDEX) {
        notes.push(format!("made the index {name} of {}", place.name()));
    }
    // Over many documents this takes its time, so no request timeout applies.
    client.check_open()?;
    let models = missing.into_iter().map(|(_, model)| model);
    place.documents.create_indexes(models).await.map(drop).map_err(translate)
}

fn notes_index() -> IndexModel {
    let options = IndexOptions::builder()
        .name(NOTES_INDEX.to_owned())
        .partial_filter_expression(doc! { NOTE: { "$exists": true } })
        .build();
    IndexModel::builder().keys(doc! { NOTE: 1, VERSION: 1 }).options(options).build()
}

fn field_index(field: &Field) -> IndexModel {
    let mut keys = doc! { field.name.as_ref(): 1 };
    if has_micros(&field.ty) {
        keys.insert(format!("{MICROS}.{}", field.name), 1);
    }
    // Orders end with the key, so that an index without it would not serve them.
    keys.insert("_id", 1);
    let options = IndexOptions::builder().name(format!("unisono_{}", field.name)).build();
    IndexModel::builder().keys(keys).options(options).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_types_that_read_every_stored_value_are_wider() {
        for (old, new) in [
            ("decimal(12,2)", "decimal(14,2)"),
            ("decimal(12,2)", "decimal(14,4)"),
            ("timestamp(3)", "timestamp"),
        ] {
            assert!(is_wider(old, new) && !is_wider(new, old), "{old} to {new}");
        }
        assert!(is_wider("string", "text") && is_wider("text", "string"));
        assert!(!is_wider("decimal(12,2)", "decimal(12,3)"), "a digit before the point is lost");
        assert!(!is_wider("integer", "string") && !is_wider("string", "integer"));
        assert!(!is_wider("list of timestamp(3)", "list of timestamp"), "written in another form");
    }

    #[test]
    fn types_are_recorded_by_path() {
        let line = [Field::new("sku", FieldType::String), Field::new("n", FieldType::Integer)];
        let fields = vec![
            Field::new("id", FieldType::String),
            Field::new("lines", FieldType::Objects(line.into())),
        ];
        let types = types(&Entity::new("order", "id", fields).unwrap());
        let types: Vec<_> = types.iter().map(|(n, t)| (n.as_str(), t.as_str())).collect();
        assert_eq!(
            types,
            [
                ("id", "string"),
                ("lines", "list of objects"),
                ("lines.n", "integer"),
                ("lines.sku", "string")
            ]
        );
    }
}
