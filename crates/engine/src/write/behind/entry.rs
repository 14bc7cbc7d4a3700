//! An acknowledged write, as the journal keeps it and as it waits in memory.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use tokio::sync::OwnedSemaphorePermit;
use unisono_core::write::{Action, Condition, Idempotency, Unit, Write};
use unisono_core::{Entity, Error, ErrorKind, Key, Result, Timestamp, Uuid, Version, json};

use crate::limit::Slot;
use crate::runtime::Stopwatch;

/// An acknowledged write, as it is kept: who asked for what, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AcceptedWrite {
    /// Its identity, which the truth remembers: it is flushed once, whatever ends in between.
    pub id: Uuid,
    /// The record.
    pub key: String,
    /// What is to be done with it.
    pub action: AcceptedAction,
    /// What must hold when it is flushed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<AcceptedCondition>,
    /// When it was acknowledged.
    pub accepted: Timestamp,
    /// Who asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Arc<str>>,
    /// Trace of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Arc<str>>,
    /// The caller's idempotency key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<Arc<str>>,
    /// Hash of the request under that key, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
}

/// What is to be done with the record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AcceptedAction {
    /// Store this record.
    Put(Json),
    /// Merge this into the record that is there.
    Patch(Json),
    /// Remove it.
    Delete,
}

/// What must hold when the write is flushed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AcceptedCondition {
    /// The record is not there.
    Absent,
    /// It is.
    Present,
    /// It is at this version, or not there.
    Version(Option<Version>),
    /// It is not there, or at this version or an earlier one.
    Until(Version),
}

impl AcceptedWrite {
    /// The write of a unit that has one, under a fresh identity.
    pub(crate) fn of(id: Uuid, write: &Write, unit: &Unit) -> Self {
        AcceptedWrite {
            id,
            key: write.key.to_string(),
            action: match &write.action {
                Action::Put(record) => AcceptedAction::Put(json::to_json(&write.entity, record)),
                Action::Patch(patch) => AcceptedAction::Patch(patch.clone()),
                Action::Delete => AcceptedAction::Delete,
                // Streams are not written behind. An event without its place would be refused as a dead letter.
                Action::Append(append) => {
                    AcceptedAction::Put(json::to_json(&write.entity, &append.event))
                }
            },
            condition: match write.condition {
                Condition::None => None,
                Condition::Absent => Some(AcceptedCondition::Absent),
                Condition::Present => Some(AcceptedCondition::Present),
                Condition::Version(version) => Some(AcceptedCondition::Version(version)),
                Condition::Until(version) => Some(AcceptedCondition::Until(version)),
            },
            accepted: unit.time,
            actor: unit.actor.clone(),
            trace: unit.trace.clone(),
            idempotency_key: unit.idempotency.as_ref().map(|i| Arc::clone(&i.key)),
            fingerprint: unit.idempotency.as_ref().map(|i| format!("{:032x}", i.fingerprint)),
        }
    }

    /// The text that the journal keeps.
    pub(crate) fn encode(&self) -> Result<String> {
        serde_json::to_string(self)
            .map_err(|e| Error::internal("a write cannot be encoded").caused_by(e))
    }

    /// From the text that the journal keeps; `corrupt` if it is not one.
    pub(crate) fn decode(body: &str) -> Result<Self> {
        serde_json::from_str(body).map_err(|e| {
            Error::new(ErrorKind::Corrupt, "an entry of the journal cannot be decoded").caused_by(e)
        })
    }

    /// The write itself; fails if the entity is declared in another way by now.
    pub(crate) fn write(&self, entity: &Arc<Entity>) -> Result<Write> {
        Ok(Write {
            entity: Arc::clone(entity),
            key: Key::parse(entity, &self.key)?,
            action: match &self.action {
                AcceptedAction::Put(record) => Action::Put(json::parse(entity, record)?),
                AcceptedAction::Patch(patch) => Action::Patch(patch.clone()),
                AcceptedAction::Delete => Action::Delete,
            },
            condition: match self.condition {
                None => Condition::None,
                Some(AcceptedCondition::Absent) => Condition::Absent,
                Some(AcceptedCondition::Present) => Condition::Present,
                Some(AcceptedCondition::Version(version)) => Condition::Version(version),
                Some(AcceptedCondition::Until(version)) => Condition::Until(version),
            },
        })
    }

    /// By what the truth tells a repetition: the caller's key, which repetitions at other nodes have as well, or the
    /// identity of this write.
    pub(crate) fn idempotency(&self) -> Idempotency {
        let given = self.idempotency_key.as_ref().and_then(|key| {
            let fingerprint = u128::from_str_radix(self.fingerprint.as_ref()?, 16).ok()?;
            Some(Idempotency { key: Arc::clone(key), fingerprint })
        });
        given.unwrap_or_else(|| Idempotency {
            key: format!("journal/{}", self.id).into(),
            fingerprint: self.id.as_u128(),
        })
    }

    /// Who wrote it, for people.
    pub fn writer(&self) -> String {
        let actor = self.actor.as_deref().unwrap_or("an unnamed caller");
        match &self.idempotency_key {
            Some(key) => format!("{actor}, idempotency key {key}"),
            None => actor.to_owned(),
        }
    }
}

/// The room that a waiting write takes up, given back when it is dropped.
pub(crate) type Room = (Slot, OwnedSemaphorePermit);

/// An acknowledged write that waits.
#[derive(Debug)]
pub(crate) struct Pending {
    /// Its place in the journal.
    pub(crate) sequence: u64,
    pub(crate) accepted: AcceptedWrite,
    pub(crate) write: Write,
    /// Since when this process has it.
    pub(crate) watch: Stopwatch,
    pub(crate) _room: Option<Room>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use unisono_core::{Field, FieldType, Position};

    #[test]
    fn a_write_is_the_same_after_its_text() {
        let fields = vec![
            Field::new("id", FieldType::String),
            Field::new("price", FieldType::Decimal { precision: 12, scale: 2 }),
        ];
        let entity = Arc::new(Entity::new("thing", "id", fields).unwrap());
        let record = json::parse(&entity, &json!({"id": "a/b", "price": "1.50"})).unwrap();
        let version = Condition::Version(Position::new(7).ok());
        let absent = Condition::Version(None);
        let patch = json!({"price": null});
        for (action, condition) in [
            (Action::Put(record.clone()), Condition::None),
            (Action::Put(record), version),
            (Action::Patch(patch), Condition::Present),
            (Action::Delete, Condition::Absent),
            (Action::Delete, absent),
        ] {
            let key = Key::from_text("a/b").unwrap();
            let write = Write { entity: Arc::clone(&entity), key, action, condition };
            let idempotency = Some(Idempotency { key: "k".into(), fingerprint: u128::MAX - 1 });
            let unit = Unit {
                writes: Vec::new(),
                idempotency: idempotency.clone(),
                time: Timestamp::from_micros_clamped(1_234_567),
                actor: Some("ann".into()),
                trace: None,
            };
            let before = AcceptedWrite::of(Uuid::from_u128(5), &write, &unit);
            let after = AcceptedWrite::decode(&before.encode().unwrap()).unwrap();
            assert_eq!(after, before);
            assert_eq!(format!("{:?}", after.write(&entity).unwrap()), format!("{write:?}"));
            assert_eq!(Some(after.idempotency()), idempotency);
        }
        assert_eq!(AcceptedWrite::decode("{}").unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
