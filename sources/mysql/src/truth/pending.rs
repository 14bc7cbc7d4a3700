//! What a transaction has yet to write: rows, log entries, tombstones and outcomes, as literals.

use std::sync::Arc;

use unisono_core::write::Unit;
use unisono_core::{Change, Entity, Key, Position, Version, json};

use crate::codec::push_key_text;
use crate::literal::{push_bytes, push_optional_number, push_optional_text, push_text, text};
use crate::mutation::{Mutation, inserts, statements};
use crate::tombstones;

const LOG: &str = "unisono_log (`position`, `entity`, `key`, `operation`, `replaced`, `previous`, `image`, `time`, \
                   `actor`, `trace`)";
const OUTCOMES: &str =
    "unisono_outcomes (`hash`, `key`, `fingerprint`, `first`, `changes`, `time`)";

/// The deletions of one entity that are to be remembered or forgotten.
type Deletions = (Arc<str>, Vec<(Key, Option<Version>)>);

/// Statements to come.
#[derive(Debug, Default)]
pub(super) struct Pending {
    mutations: Vec<Mutation>,
    log: Vec<String>,
    outcomes: Vec<String>,
    tombstones: Vec<Deletions>,
}

impl Pending {
    /// A change of a row with its log entry; answers the bytes of the longer one.
    pub(super) fn change(
        &mut self,
        entity: &Entity,
        change: &Change,
        previous: Option<Version>,
        mutation: Mutation,
    ) -> usize {
        let row_bytes: usize = mutation.row.iter().flatten().map(|literal| literal.len() + 2).sum();
        self.mutations.push(mutation);
        let mut row = format!("{}, ", change.position);
        push_text(&mut row, &change.entity);
        row.push_str(", ");
        push_key_text(&mut row, &change.key);
        row.push_str(", ");
        push_text(&mut row, change.operation.as_str());
        for number in [change.replaced, previous] {
            row.push_str(", ");
            push_optional_number(&mut row, number.map(Position::as_i64));
        }
        row.push_str(", ");
        match &change.image {
            // JSON is UTF-8.
            Some(image) => {
                push_text(&mut row, &String::from_utf8_lossy(&json::to_vec(entity, image)));
            }
            None => row.push_str("NULL"),
        }
        row.push_str(", ");
        push_optional_number(&mut row, Some(change.time.micros()));
        for word in [&change.actor, &change.trace] {
            row.push_str(", ");
            push_optional_text(&mut row, word.as_deref());
        }
        let log_bytes = row.len();
        self.log.push(row);
        row_bytes.max(log_bytes)
    }

    /// Remembers that a record was deleted, or no longer that it was.
    pub(super) fn tombstone(&mut self, entity: &Arc<str>, key: &Key, deleted: Option<Version>) {
        let change = (key.clone(), deleted);
        match self.tombstones.iter_mut().find(|(name, _)| name == entity) {
            Some((_, all)) => all.push(change),
            None => self.tombstones.push((Arc::clone(entity), vec![change])),
        }
    }

    /// Keeps where a unit's changes are in the log; trimming spares them as long as the outcome is kept.
    pub(super) fn outcome(&mut self, unit: &Unit, begun: Position, changes: usize) {
        let Some(idempotency) = &unit.idempotency else { return };
        let first = if changes == 0 { Position::ZERO } else { begun.next() };
        let key = text(&idempotency.key);
        let mut fingerprint = String::new();
        push_bytes(&mut fingerprint, &idempotency.fingerprint.to_be_bytes());
        let time = unit.time.micros();
        self.outcomes
            .push(format!("{}, {key}, {fingerprint}, {first}, {changes}, {time}", hash(&key)));
    }

    /// Takes in what comes after.
    pub(super) fn append(&mut self, mut later: Pending) {
        self.mutations.append(&mut later.mutations);
        self.log.append(&mut later.log);
        self.outcomes.append(&mut later.outcomes);
        for (entity, all) in later.tombstones {
            for (key, deleted) in all {
                self.tombstone(&entity, &key, deleted);
            }
        }
    }

    /// The statements that write it.
    pub(super) fn into_statements(self) -> Vec<String> {
        let mut out = statements(self.mutations);
        inserts(LOG, self.log, "", &mut out);
        inserts(OUTCOMES, self.outcomes, "", &mut out);
        for (entity, all) in &self.tombstones {
            tombstones::change(entity, all, &mut out);
        }
        out
    }
}

/// The hash by which an idempotency key, given as a literal, is found.
pub(super) fn hash(key: &str) -> String {
    format!("UNHEX(SHA2({key}, 256))")
}
