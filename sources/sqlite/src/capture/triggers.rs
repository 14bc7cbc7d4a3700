//! The triggers on a captured table. They run in the programs that write it, whatever release of SQLite those have.

use std::collections::BTreeMap;

use rusqlite::Connection;
use unisono_core::source::Binding;
use unisono_core::{Capture, Result};

use crate::capture::NOW;
use crate::error::translate;
use crate::table::quote;

/// Triggers by their names, each with the statement that makes it.
pub(super) type Triggers = BTreeMap<String, String>;

/// What the names of all begin with; then come the event and the table.
const PREFIX: &str = "unisono_capture_";
/// Those without which writes have been missed.
const NEEDED: [&str; 3] = ["insert", "update", "delete"];

/// Whether writes can have been missed with the triggers that were found.
pub(super) fn has_gap(found: &Triggers, expected: &Triggers, place: &str) -> bool {
    let mut needed = NEEDED.iter().map(|event| format!("{PREFIX}{event}_{place}"));
    needed.any(|name| expected.contains_key(&name) && found.get(&name) != expected.get(&name))
}

/// The triggers that are there.
pub(super) fn found(connection: &Connection, place: &str) -> Result<Triggers> {
    let sql = "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND lower(tbl_name) = lower(?2) \
               AND substr(name, 1, length(?1)) = ?1";
    let mut statement = connection.prepare(sql).map_err(translate)?;
    let rows = statement
        .query_map([PREFIX, place], |row| Ok((row.get(0)?, row.get(1)?)))
        .map_err(translate)?;
    rows.collect::<rusqlite::Result<_>>().map_err(translate)
}

/// The triggers that a captured table must have.
pub(super) fn expected(connection: &Connection, binding: &Binding) -> Result<Triggers> {
    if Capture::of(&binding.options) != Some(Capture::Trigger) {
        return Ok(Triggers::new());
    }
    let key = quote(&binding.entity.key_field().name);
    let (table, entity) = (quote(&binding.place), binding.entity.name());
    let mut all = Triggers::new();
    let mut add = |name: &str, event: &str, body: String| {
        let name = format!("{PREFIX}{name}_{}", binding.place);
        let sql = format!("CREATE TRIGGER {} {event} ON {table} BEGIN {body} END", quote(&name));
        all.insert(name, sql);
    };
    // A null key is that of no record.
    let note = |key: &str, condition: &str| {
        format!(
            "INSERT INTO unisono_intake (entity, key, time) SELECT '{entity}', {key}, {NOW} \
             WHERE {key} IS NOT NULL{condition};"
        )
    };
    let (old, new) = (format!("OLD.{key}"), format!("NEW.{key}"));
    add("insert", "AFTER INSERT", note(&new, ""));
    let moved = format!(" AND {old} IS NOT {new}");
    add("update", "AFTER UPDATE", format!("{} {}", note(&old, &moved), note(&new, "")));
    add("delete", "AFTER DELETE", note(&old, ""));
    // REPLACE removes rows that share a unique value without a word to the triggers, unless these are recursive.
    let taken: Vec<String> = (uniques(connection, binding)?.iter())
        .map(|columns| {
            let same: Vec<_> = columns.iter().map(|c| format!("{0} = NEW.{0}", quote(c))).collect();
            same.join(" AND ")
        })
        .collect();
    let replaced = |self_row: &str| -> String {
        let notes = taken.iter().map(|same| {
            format!(
                "INSERT INTO unisono_intake (entity, key, time) SELECT '{entity}', {key}, {NOW} FROM {table} \
                 WHERE {same} AND {key} IS NOT NULL AND {key} IS NOT {self_row};"
            )
        });
        notes.collect::<Vec<_>>().join(" ")
    };
    if !taken.is_empty() {
        add("replace_insert", "BEFORE INSERT", replaced(&new));
        add("replace_update", "BEFORE UPDATE", replaced(&old));
    }
    Ok(all)
}

/// What must be unique beside the key, column by column.
fn uniques(connection: &Connection, binding: &Binding) -> Result<Vec<Vec<String>>> {
    let place = binding.place.as_ref();
    let key = binding.entity.key_field().name.as_ref();
    let sql = "SELECT i.name, c.name FROM pragma_index_list(?1) AS i, pragma_index_info(i.name) AS c \
               WHERE i.\"unique\" ORDER BY i.name, c.seqno";
    let mut statement = connection.prepare(sql).map_err(translate)?;
    let rows = statement
        .query_map([place], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Option<String>>(1)?)))
        .map_err(translate)?;
    let mut indexes: BTreeMap<String, Option<Vec<String>>> = BTreeMap::new();
    for row in rows {
        let (index, column) = row.map_err(translate)?;
        let columns = indexes.entry(index).or_insert_with(|| Some(Vec::new()));
        // An index over an expression is left out: see the limits in docs/capture.md.
        *columns = columns.take().zip(column).map(|(mut all, one)| {
            all.push(one);
            all
        });
    }
    let sql = "SELECT name FROM pragma_table_info(?1) WHERE pk > 0 ORDER BY pk";
    let mut statement = connection.prepare(sql).map_err(translate)?;
    let primary = statement.query_map([place], |row| row.get(0)).map_err(translate)?;
    let primary: Vec<String> = primary.collect::<rusqlite::Result<_>>().map_err(translate)?;
    let mut all: Vec<_> = indexes.into_values().flatten().collect();
    if !primary.is_empty() && !all.contains(&primary) {
        all.push(primary);
    }
    all.retain(|columns| !matches!(columns.as_slice(), [one] if one.eq_ignore_ascii_case(key)));
    Ok(all)
}
