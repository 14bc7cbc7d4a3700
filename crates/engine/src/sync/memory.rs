//! What is remembered of each record, beside it in its truth, in entities of the engine's own: what of both truths is in
//! it, and which writes were given up.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use unisono_core::json;
use unisono_core::write::{Action, Condition, Write};
use unisono_core::{
    Entity, Error, ErrorKind, Field, FieldType, Key, Position, Record, Result, Stored, Timestamp,
    Value, Version,
};
use unisono_policy::conflict::{Plan, State, codec};

/// The entities of the engine's own that go with a synchronised one.
#[derive(Clone)]
pub(crate) struct Memories {
    /// What is known of each record; its key is that of the record.
    pub(super) known: Arc<Entity>,
    /// What was given up.
    pub(super) conflicts: Arc<Entity>,
}

impl Memories {
    /// Those of an entity; `invalid_config` if its name is too long for theirs.
    pub(crate) fn of(entity: &Entity) -> Result<Self> {
        let field = |name: &str, ty| Field { required: true, ..Field::new(name, ty) };
        let optional = |name: &str| Field::new(name, FieldType::Text);
        let known = vec![
            field("record", entity.key_field().ty.clone()),
            field("pair", FieldType::String),
            field("state", FieldType::Text),
            Field::new("at", FieldType::Integer),
            field("wrote", FieldType::Boolean),
            Field { index: true, ..field("gone", FieldType::Boolean) },
        ];
        let conflicts = vec![
            field("id", FieldType::String),
            Field { index: true, ..field("record", FieldType::String) },
            Field { index: true, ..field("found_at", FieldType::Timestamp { precision: 6 }) },
            field("winner", FieldType::String),
            field("decisions", FieldType::Text),
            field("stamps", FieldType::Text),
            optional("local"),
            optional("remote"),
            optional("result"),
        ];
        let (name, of) = (entity.name(), Entity::system);
        Ok(Memories {
            known: Arc::new(of(&format!("sync_{name}"), "record", known)?),
            conflicts: Arc::new(of(&format!("conflict_{name}"), "id", conflicts)?),
        })
    }

    /// Both.
    pub(crate) fn all(&self) -> [&Arc<Entity>; 2] {
        [&self.known, &self.conflicts]
    }
}

/// What is remembered of one record.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// Where this stands in the log.
    pub(super) version: Version,
    pub(super) state: State,
    /// The version of the record that the state is about, unless it was written with it.
    at: Option<Version>,
    /// Whether the record was written with it, at the next position.
    wrote: bool,
    /// Whether the record is deleted.
    pub(super) gone: bool,
}

impl Known {
    /// From how it is kept; `None` if it is about another pair of logs, or about resolving otherwise.
    pub(super) fn parse(plan: &Plan, pair: &str, stored: &Stored) -> Result<Option<Self>> {
        let [_, of, state, at, wrote, gone] = stored.record.values() else { return Err(corrupt()) };
        if of.as_str() != Some(pair) {
            return Ok(None);
        }
        let at = match at {
            Value::Integer(at) => Some(Position::from_i64(*at)?),
            _ => None,
        };
        let state = codec::parse(plan, state.as_str().ok_or_else(corrupt)?)?;
        let (wrote, gone) = (*wrote == Value::Boolean(true), *gone == Value::Boolean(true));
        Ok(Some(Known { version: stored.version, state, at, wrote, gone }))
    }

    /// Whether nobody has written the record since.
    pub(super) fn is_about(&self, record: Option<&Stored>) -> bool {
        let version = record.map(|record| record.version);
        match (self.wrote, self.gone) {
            (true, false) => version == Some(self.version.next()),
            (true, true) => version.is_none(),
            (false, _) => version == self.at,
        }
    }
}

/// The write that remembers a state. `about` is the version of the record if that is not written with it.
pub(super) fn remember(
    memories: &Memories,
    pair: &str,
    key: &Key,
    state: (String, bool),
    about: Option<Option<Version>>,
    replaces: Option<Version>,
) -> Write {
    let at = about.flatten().map_or(Value::Null, |version| Value::Integer(version.as_i64()));
    let (text, gone) = state;
    let record = Record::new(vec![
        key.to_value(),
        Value::String(pair.to_owned()),
        Value::String(text),
        at,
        Value::Boolean(about.is_none()),
        Value::Boolean(gone),
    ]);
    Write {
        entity: Arc::clone(&memories.known),
        key: key.clone(),
        action: Action::Put(record),
        condition: Condition::Version(replaces),
    }
}

/// Two writes of one record that had not seen each other, and of which not both could stay as they were.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conflict {
    /// The entity.
    pub entity: Arc<str>,
    /// The record.
    pub key: String,
    /// The same on both sides.
    pub id: String,
    /// When this side resolved it.
    pub found_at: Timestamp,
    /// The source whose write was kept where one had to give way; both, separated by a comma, if it is another one for
    /// different fields.
    pub winner: String,
    /// What was decided: by which way, for which fields, and for whom.
    pub decisions: serde_json::Value,
    /// When each side wrote: source, position, milliseconds since 1970 and count.
    pub stamps: serde_json::Value,
    /// The record as it was on this side; absent if it was deleted.
    pub local: Option<serde_json::Value>,
    /// The same on the other side.
    pub remote: Option<serde_json::Value>,
    /// What became of it.
    pub result: Option<serde_json::Value>,
}

impl Conflict {
    /// The write that records it. Repeating it changes nothing but its time.
    pub(super) fn write(&self, memories: &Memories) -> Result<Write> {
        let entity = &memories.conflicts;
        let text = |json: &serde_json::Value| Value::String(json.to_string());
        let optional = |json: &Option<serde_json::Value>| json.as_ref().map_or(Value::Null, text);
        let record = Record::new(vec![
            Value::String(self.id.clone()),
            Value::String(self.key.clone()),
            Value::Timestamp(self.found_at),
            Value::String(self.winner.clone()),
            text(&self.decisions),
            text(&self.stamps),
            optional(&self.local),
            optional(&self.remote),
            optional(&self.result),
        ]);
        let (entity, key) = (Arc::clone(entity), Key::from_text(&self.id)?);
        Ok(Write { entity, key, action: Action::Put(record), condition: Condition::None })
    }

    /// From how it is kept.
    pub(super) fn parse(entity: &Arc<str>, stored: &Stored) -> Result<Self> {
        let [id, key, found_at, winner, decisions, stamps, local, remote, result] =
            stored.record.values()
        else {
            return Err(corrupt());
        };
        let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(corrupt);
        let parse = |value: &Value| {
            value.as_str().and_then(|text| serde_json::from_str(text).ok()).ok_or_else(corrupt)
        };
        let optional =
            |value: &Value| if value.is_null() { Ok(None) } else { parse(value).map(Some) };
        let Value::Timestamp(found_at) = found_at else { return Err(corrupt()) };
        Ok(Conflict {
            entity: Arc::clone(entity),
            key: text(key)?,
            id: text(id)?,
            found_at: *found_at,
            winner: text(winner)?,
            decisions: parse(decisions)?,
            stamps: parse(stamps)?,
            local: optional(local)?,
            remote: optional(remote)?,
            result: optional(result)?,
        })
    }
}

/// A record as JSON, if there is one.
pub(super) fn image(entity: &Entity, record: Option<&Record>) -> Option<serde_json::Value> {
    record.map(|record| json::to_json(entity, record))
}

fn corrupt() -> Error {
    Error::new(ErrorKind::Corrupt, "what is remembered of a record cannot be read")
}
