//! What a transaction has yet to write: rows, log entries, tombstones and outcomes, as literals.

use std::sync::Arc;

use unisono_core::write::Unit;
use unisono_core::{Change, Key, Position, Version, json};

use crate::capture::versions;
use crate::codec::push_key_text;
use crate::literal::{push_bytes, push_optional_number, push_optional_text, push_text, text};
use crate::mutation::{Mutation, inserts, statements};
use crate::table::Table;
use crate::tombstones;

const LOG: &str = "unisono_log (`position`, `entity`, `key`, `operation`, `replaced`, `previous`, `image`, `time`, \
                   `actor`, `trace`)";
const OUTCOMES: &str =
    "unisono_outcomes (`hash`, `key`, `fingerprint`, `first`, `changes`, `time`)";

/// What is to be kept beside the rows of one entity, or no longer: when records were deleted, or their versions.
type Versions = (Arc<str>, Vec<(Key, Option<Version>)>);

/// Statements to come.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    mutations: Vec<Mutation>,
    log: Vec<String>,
    outcomes: Vec<String>,
    tombstones: Vec<Versions>,
    /// Of captured tables.
    versions: Vec<Versions>,
    /// Records whose rows are to be read again.
    notes: versions::Notes,
}

impl Pending {
    /// A change of a row with its log entry; answers the bytes of the longer one.
    pub(super) fn change(
        &mut self,
        table: &Arc<Table>,
        change: &Change,
        previous: Option<Version>,
        mutation: Mutation,
    ) -> usize {
        let row_bytes: usize = mutation.row.iter().flatten().map(|literal| literal.len() + 2).sum();
        self.mutations.push(mutation);
        if table.is_reread {
            self.notes.push((Arc::clone(&change.entity), change.key.clone()));
        }
        row_bytes.max(self.logged(table, change, previous))
    }

    /// A change of a row that is made already, with its version if that has a table of its own; answers the bytes of
    /// the log entry.
    pub(crate) fn logged(
        &mut self,
        table: &Arc<Table>,
        change: &Change,
        previous: Option<Version>,
    ) -> usize {
        if table.capture.is_some() {
            let version = change.image.is_some().then_some(change.position);
            keep(&mut self.versions, &change.entity, &change.key, version);
        }
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
                push_text(&mut row, &String::from_utf8_lossy(&json::to_vec(&table.entity, image)));
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
        log_bytes
    }

    /// Remembers that a record was deleted, or no longer that it was.
    pub(crate) fn tombstone(&mut self, entity: &Arc<str>, key: &Key, deleted: Option<Version>) {
        keep(&mut self.tombstones, entity, key, deleted);
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
    pub(crate) fn append(&mut self, mut later: Pending) {
        self.mutations.append(&mut later.mutations);
        self.log.append(&mut later.log);
        self.outcomes.append(&mut later.outcomes);
        self.notes.append(&mut later.notes);
        for (mine, theirs) in
            [(&mut self.tombstones, later.tombstones), (&mut self.versions, later.versions)]
        {
            for (entity, all) in theirs {
                for (key, version) in all {
                    keep(mine, &entity, &key, version);
                }
            }
        }
    }

    /// The statements that write it.
    pub(crate) fn into_statements(self) -> Vec<String> {
        let mut out = statements(self.mutations);
        inserts(LOG, self.log, "", &mut out);
        inserts(OUTCOMES, self.outcomes, "", &mut out);
        for (entity, all) in &self.tombstones {
            tombstones::change(entity, all, &mut out);
        }
        for (entity, all) in &self.versions {
            versions::change(entity, all, &mut out);
        }
        versions::note(&self.notes, &mut out);
        out
    }
}

fn keep(all: &mut Vec<Versions>, entity: &Arc<str>, key: &Key, version: Option<Version>) {
    let change = (key.clone(), version);
    match all.iter_mut().find(|(name, _)| name == entity) {
        Some((_, all)) => all.push(change),
        None => all.push((Arc::clone(entity), vec![change])),
    }
}

/// The hash by which an idempotency key, given as a literal, is found.
pub(super) fn hash(key: &str) -> String {
    format!("UNHEX(SHA2({key}, 256))")
}
