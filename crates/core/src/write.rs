//! Writes: what a caller asks for, and how a truth turns it into a change. Pure: every truth calls [`resolve`].

use std::sync::Arc;

use serde_json::Value as Json;

use crate::change::{Change, Operation};
use crate::entity::{Entity, FieldType};
use crate::error::{Error, ErrorKind, Result};
use crate::json;
use crate::key::Key;
use crate::position::Version;
use crate::record::{Record, Stored};
use crate::stream::Append;
use crate::time::Timestamp;
use crate::value::Value;

/// What to do with one record.
#[derive(Clone, Debug)]
pub enum Action {
    /// Store the whole record, new or not.
    Put(Record),
    /// Change the named fields of a record that is there: a JSON merge patch (RFC 7396).
    Patch(Json),
    /// Remove a record that is there.
    Delete,
    /// Add an event to the end of its stream: a truth does what [`crate::stream::number`] makes of it.
    Append(Box<Append>),
}

/// What must hold for a write to take place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    #[default]
    None,
    /// The record must not be there; else `already_exists`. A create.
    Absent,
    /// The record must be at this version, or not be there (`None`); else `version_conflict`.
    Version(Option<Version>),
    /// The record must be there, at any version; else `version_conflict`.
    Present,
    /// The record must not be there, or be at this version or an earlier one; else `version_conflict`.
    Until(Version),
}

/// One write to one record.
#[derive(Clone, Debug)]
pub struct Write {
    /// What kind of record.
    pub entity: Arc<Entity>,
    /// Which one.
    pub key: Key,
    /// What to do.
    pub action: Action,
    /// What must hold.
    pub condition: Condition,
}

/// Makes a repeated request have the effect of one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Idempotency {
    /// The caller's key, within its principal: `principal` and key joined by the engine.
    pub key: Arc<str>,
    /// Hash of the request. The same key with another fingerprint is refused.
    pub fingerprint: u128,
}

/// Writes that take place together or not at all, with what the log says about them.
#[derive(Clone, Debug)]
pub struct Unit {
    /// In order; a later write sees the earlier ones.
    pub writes: Vec<Write>,
    /// Set if the caller gave an idempotency key.
    pub idempotency: Option<Idempotency>,
    /// When the engine took the request.
    pub time: Timestamp,
    /// Who asked.
    pub actor: Option<Arc<str>>,
    /// Trace of the request (W3C `traceparent`).
    pub trace: Option<Arc<str>>,
}

/// A unit that took place.
#[derive(Clone, Debug)]
pub struct Committed {
    /// One change for each write, in order.
    pub changes: Vec<Arc<Change>>,
    /// Whether the unit had taken place before, under the same idempotency key.
    pub replayed: bool,
}

/// What a truth has to do for one write: the new state of the record, not yet at a position.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// Put with an image, or delete.
    pub operation: Operation,
    /// The new state; `None` for a delete.
    pub image: Option<Arc<Record>>,
    /// The version that is replaced; `None` if the record is new.
    pub replaced: Option<Version>,
}

/// Checks the condition of a write against the current record and works out the new one.
///
/// `current` is the record as the truth's transaction sees it. Constraints between records (unique) are the
/// truth's own to check.
pub fn resolve(write: &Write, current: Option<&Stored>) -> Result<Resolved> {
    check_condition(write, current)
        .map_err(|e| e.of(write.entity.name()).with("key", &write.key))?;
    let missing = || {
        Error::new(ErrorKind::NotFound, "there is no record with this key")
            .of(write.entity.name())
            .with("key", &write.key)
    };
    let image = match &write.action {
        Action::Put(record) => Some(Arc::new(record.clone())),
        Action::Patch(patch) => {
            let current = current.ok_or_else(missing)?;
            Some(Arc::new(merge(&write.entity, &current.record, patch)?))
        }
        Action::Delete => {
            current.ok_or_else(missing)?;
            None
        }
        Action::Append(_) => {
            return Err(Error::internal("an append was not numbered").of(write.entity.name()));
        }
    };
    if let Some(record) = &image {
        write.entity.check(record)?;
        if write.entity.key_of(record)? != write.key {
            return Err(key_changed(write));
        }
    }
    let operation = if image.is_some() { Operation::Put } else { Operation::Delete };
    Ok(Resolved { operation, image, replaced: current.map(|c| c.version) })
}

/// Checks what can be told of a write without the record that is there: its fields, their types and rules, its key.
pub fn check(write: &Write) -> Result<()> {
    match &write.action {
        Action::Put(_) => {
            resolve(&Write { condition: Condition::None, ..write.clone() }, None).map(drop)
        }
        Action::Patch(patch) => {
            let entity = &write.entity;
            let mut blank = Record::new(vec![Value::Null; entity.fields().len()]);
            if let Some(key) = blank.values_mut().get_mut(entity.key_index()) {
                *key = write.key.to_value();
            }
            let merged = merge(entity, &blank, patch)?;
            match entity.key_of(&merged)? == write.key {
                true => Ok(()),
                false => Err(key_changed(write)),
            }
        }
        Action::Delete | Action::Append(_) => Ok(()),
    }
}

fn key_changed(write: &Write) -> Error {
    Error::invalid("the key of a record cannot be changed")
        .of(write.entity.name())
        .with("key", &write.key)
        .hint("delete the record and create another")
}

fn check_condition(write: &Write, current: Option<&Stored>) -> Result<()> {
    let version = current.map(|c| c.version);
    match write.condition {
        Condition::None => Ok(()),
        Condition::Absent if version.is_none() => Ok(()),
        Condition::Absent => {
            Err(Error::new(ErrorKind::AlreadyExists, "a record with this key is already there"))
        }
        Condition::Present if version.is_some() => Ok(()),
        Condition::Version(expected) if expected == version => Ok(()),
        Condition::Until(newest) if version.is_none_or(|v| v <= newest) => Ok(()),
        Condition::Present | Condition::Version(_) | Condition::Until(_) => {
            let actual = version.map_or("absent".to_owned(), |v| v.to_string());
            Err(Error::new(ErrorKind::VersionConflict, "the record is not at the expected version")
                .with("actual", actual)
                .hint("read the record again and repeat the change on its current version"))
        }
    }
}

/// Applies a JSON merge patch (RFC 7396) to a record. Fields of type `json` are merged deeply, all others replaced.
fn merge(entity: &Entity, current: &Record, patch: &Json) -> Result<Record> {
    let Json::Object(patch) = patch else {
        return Err(Error::invalid("a patch is a JSON object").of(entity.name()));
    };
    let mut next = current.clone();
    for (name, json) in patch {
        let index = entity.index_of(name).ok_or_else(|| {
            Error::invalid("has a field that is not declared").of(entity.name()).with("field", name)
        })?;
        let field = &entity.fields()[index];
        let value = match (&field.ty, &next.values()[index], json) {
            (FieldType::Json, Value::Json(old), Json::Object(_)) => {
                let mut merged = old.clone();
                merge_json(&mut merged, json);
                Value::Json(merged)
            }
            _ => json::parse_value(&field.ty, json)
                .map_err(|e| e.of(entity.name()).with("field", &field.name))?,
        };
        next.values_mut()[index] = value;
    }
    Ok(next)
}

fn merge_json(target: &mut Json, patch: &Json) {
    let Json::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Json::Object(serde_json::Map::new());
    }
    if let Json::Object(target) = target {
        for (name, value) in patch {
            if value.is_null() {
                target.remove(name);
            } else {
                merge_json(target.entry(name.clone()).or_insert(Json::Null), value);
            }
        }
    }
}

/// Gives absent fields of a new record their declared defaults.
pub fn apply_defaults(entity: &Entity, record: &mut Record) {
    for (field, value) in entity.fields().iter().zip(record.values_mut()) {
        if value.is_null()
            && let Some(default) = &field.default
        {
            *value = default.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::Field;
    use serde_json::json;

    fn entity() -> Arc<Entity> {
        let fields = vec![
            Field::new("id", FieldType::String),
            Field { required: true, ..Field::new("name", FieldType::String) },
            Field::new("tags", FieldType::Json),
        ];
        Arc::new(Entity::new("thing", "id", fields).unwrap())
    }

    fn stored(entity: &Entity, json: Json) -> Stored {
        let record = json::parse(entity, &json).unwrap();
        Stored::new(entity.key_of(&record).unwrap(), Version::new(7).unwrap(), Arc::new(record))
    }

    fn write(action: Action, condition: Condition) -> Write {
        Write { entity: entity(), key: Key::from_text("a").unwrap(), action, condition }
    }

    #[test]
    fn a_patch_merges_json_deeply_and_replaces_the_rest() {
        let e = entity();
        let current = stored(&e, json!({"id": "a", "name": "x", "tags": {"p": 1, "q": {"r": 2}}}));
        let patch = json!({"name": "y", "tags": {"p": null, "q": {"s": 3}}});
        let resolved =
            resolve(&write(Action::Patch(patch), Condition::None), Some(&current)).unwrap();
        let after = json::to_json(&e, &resolved.image.unwrap());
        assert_eq!(after, json!({"id": "a", "name": "y", "tags": {"q": {"r": 2, "s": 3}}}));
        assert_eq!(resolved.replaced, Some(Version::new(7).unwrap()));
    }

    #[test]
    fn conditions_decide_by_presence_and_version() {
        let e = entity();
        let current = stored(&e, json!({"id": "a", "name": "x"}));
        let kind = |c, current| {
            resolve(&write(Action::Delete, c), current).map(|_| ()).map_err(|e| e.kind())
        };
        assert_eq!(kind(Condition::Absent, Some(&current)), Err(ErrorKind::AlreadyExists));
        assert_eq!(kind(Condition::Present, None), Err(ErrorKind::VersionConflict));
        assert_eq!(
            kind(Condition::Version(Some(Version::new(6).unwrap())), Some(&current)),
            Err(ErrorKind::VersionConflict)
        );
        assert_eq!(
            kind(Condition::Version(Some(Version::new(7).unwrap())), Some(&current)),
            Ok(())
        );
        assert_eq!(kind(Condition::Version(None), Some(&current)), Err(ErrorKind::VersionConflict));
        assert_eq!(kind(Condition::None, None), Err(ErrorKind::NotFound));
    }

    #[test]
    fn what_is_wrong_with_any_record_is_told_without_one() {
        let e = entity();
        let put = |json| write(Action::Put(json::parse(&e, &json).unwrap()), Condition::Present);
        assert!(check(&put(json!({"id": "a", "name": "x"}))).is_ok());
        let other_key = put(json!({"id": "b", "name": "x"}));
        let of_patch = |json| write(Action::Patch(json), Condition::None);
        assert!(check(&of_patch(json!({"tags": 3}))).is_ok(), "the name is of the record there");
        assert!(check(&write(Action::Delete, Condition::None)).is_ok());
        for bad in [
            put(json!({"id": "a"})),
            other_key,
            of_patch(json!({"id": "b"})),
            of_patch(json!({"nope": 1})),
            of_patch(json!(3)),
        ] {
            assert_eq!(check(&bad).unwrap_err().kind(), ErrorKind::InvalidInput, "{bad:?}");
        }
    }

    #[test]
    fn a_patch_may_not_change_the_key_or_break_a_rule() {
        let e = entity();
        let current = stored(&e, json!({"id": "a", "name": "x"}));
        for patch in [json!({"id": "b"}), json!({"name": null}), json!({"nope": 1}), json!(3)] {
            let result =
                resolve(&write(Action::Patch(patch.clone()), Condition::None), Some(&current));
            assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidInput, "{patch}");
        }
    }
}
