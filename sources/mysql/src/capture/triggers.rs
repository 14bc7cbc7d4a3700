//! The triggers on a captured table. They run in the sessions of whoever writes it, with the rights of whoever prepared
//! it.

use std::collections::BTreeMap;

use unisono_core::source::Binding;
use unisono_core::{Capture, Result};

use crate::capture::keys::KeyColumn;
use crate::capture::{NOW, OWN};
use crate::error::Failed;
use crate::literal::{quote, text};
use crate::pool::Session;
use crate::schema::word;

/// What a trigger reacts to.
const EVENTS: [&str; 3] = ["INSERT", "UPDATE", "DELETE"];

/// A trigger of ours that is there.
struct FoundTrigger {
    /// `AFTER INSERT`.
    event: String,
    body: String,
    /// When it was made.
    made: String,
}

/// What triggers a table has.
pub(crate) struct Found {
    /// Ours, by name.
    own: BTreeMap<String, FoundTrigger>,
    /// Whether a trigger of the application can change rows before they are written.
    pub(crate) has_before: bool,
}

impl Found {
    /// The triggers of a table that is captured for an entity. While it is looked at, nobody can empty or change it: the
    /// server would then tell of none.
    pub(crate) async fn look(
        session: &mut Session,
        entity: &str,
        place: &str,
    ) -> Result<Self, Failed> {
        let sql = format!(
            "START TRANSACTION; SELECT 1 FROM {} LIMIT 1; SELECT trigger_name, action_timing, event_manipulation, action_statement, created \
             FROM information_schema.triggers \
             WHERE event_object_schema = DATABASE() AND event_object_table = {}; COMMIT",
            quote(place),
            text(place)
        );
        let sets = session.run(&sql).await?;
        let mut found = Found { own: BTreeMap::new(), has_before: false };
        let ours: Vec<_> = EVENTS.iter().map(|event| name(entity, event)).collect();
        for row in sets.iter().skip(1).flatten() {
            let (name, timing) = (word(row, 0)?, word(row, 1)?);
            found.has_before |= timing == "BEFORE";
            if ours.contains(&name) {
                let event = format!("{timing} {}", word(row, 2)?);
                let trigger = FoundTrigger { event, body: word(row, 3)?, made: word(row, 4)? };
                found.own.insert(name, trigger);
            }
        }
        Ok(found)
    }

    /// Tells these triggers from all that were made before or will be made after them; empty unless all are there.
    pub(crate) fn signature(&self) -> String {
        match self.own.len() == EVENTS.len() {
            true => self.own.values().map(|t| t.made.as_str()).collect::<Vec<_>>().join(" "),
            false => String::new(),
        }
    }

    /// Whether all are there and do what they should.
    pub(super) fn is_complete(&self, binding: &Binding, key: &KeyColumn) -> bool {
        EVENTS.iter().all(|event| {
            self.own.get(&name(binding.entity.name(), event)).is_some_and(|found| {
                found.event == format!("AFTER {event}") && found.body == body(binding, key, event)
            })
        })
    }

    /// Statements that take them away.
    pub(super) fn drops(&self) -> impl Iterator<Item = String> {
        self.own.keys().map(|name| format!("DROP TRIGGER IF EXISTS {}", quote(name)))
    }
}

/// The statements that make the triggers of a table, if it is to have any. The server lets a transaction that is
/// writing the table end first, so that none slips through.
pub(super) fn creates(binding: &Binding, key: &KeyColumn) -> Vec<String> {
    if Capture::of(&binding.options) != Some(Capture::Trigger) {
        return Vec::new();
    }
    let one = |event: &&str| {
        format!(
            "CREATE TRIGGER {} AFTER {event} ON {} FOR EACH ROW {}",
            quote(&name(binding.entity.name(), event)),
            quote(&binding.place),
            body(binding, key, event)
        )
    };
    EVENTS.iter().map(one).collect()
}

/// By the entity, whose name is short enough to fit with what stands before it.
fn name(entity: &str, event: &str) -> String {
    format!("unisono_{}_{entity}", event.to_lowercase())
}

fn body(binding: &Binding, key: &KeyColumn, event: &str) -> String {
    // An entity's name needs no quoting: lower case letters, digits and underscores.
    let entity = binding.entity.name();
    // A null key is that of no record. With `VALUES` writers do not wait for each other's ids.
    let note = |row: &str, condition: &str| {
        format!(
            "IF {row}{column} IS NOT NULL{condition} THEN INSERT INTO unisono_intake (`entity`, `key`, `time`, `actor`) \
             VALUES ('{entity}', {key}, {NOW}, USER()); END IF;",
            column = key.name,
            key = key.textual(row),
        )
    };
    let moved = format!(" AND NOT ({} <=> {})", key.textual("OLD."), key.textual("NEW."));
    let notes = match event {
        "INSERT" => note("NEW.", ""),
        "DELETE" => note("OLD.", ""),
        _ => format!("{} {}", note("OLD.", &moved), note("NEW.", "")),
    };
    format!("BEGIN IF NOT ({OWN} <=> '{entity}') THEN {notes} END IF; END")
}
