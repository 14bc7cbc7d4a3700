//! The triggers on a captured table. They run in the programs that write it, whatever release of SQLite those have.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension};
use unisono_core::source::Binding;
use unisono_core::{Capture, Result};

use crate::capture::NOW;
use crate::error::translate;
use crate::table::quote;

/// Triggers by their names, each with the statement that makes it.
pub(super) type Triggers = BTreeMap<String, String>;

/// What the names of all begin with; then come the event and the table.
const PREFIX: &str = "unisono_capture_";

/// Whether writes can have been missed with the triggers that were found.
pub(super) fn has_gap(found: &Triggers, expected: &Triggers) -> bool {
    expected.iter().any(|(name, sql)| found.get(name) != Some(sql))
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
            let same = columns.iter().map(|Part { column, collation }| {
                format!("{0} = NEW.{0} COLLATE {1}", quote(column), quote(collation))
            });
            same.collect::<Vec<_>>().join(" AND ")
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

/// A column of what must be unique, and how its values are compared.
#[derive(Clone)]
struct Part {
    column: String,
    collation: String,
}

/// What must be unique beside the key, column by column.
fn uniques(connection: &Connection, binding: &Binding) -> Result<Vec<Vec<Part>>> {
    let place = binding.place.as_ref();
    let key = binding.entity.key_field().name.as_ref();
    let sql = "SELECT i.name, x.name, x.coll FROM pragma_index_list(?1) AS i, pragma_index_xinfo(i.name) AS x \
               WHERE i.\"unique\" AND x.\"key\" ORDER BY i.name, x.seqno";
    let mut statement = connection.prepare(sql).map_err(translate)?;
    let rows = statement.query_map([place], |row| {
        let column: Option<String> = row.get(1)?;
        let collation = row.get(2)?;
        Ok((row.get::<_, String>(0)?, column.map(|column| Part { column, collation })))
    });
    let mut indexes: BTreeMap<String, Option<Vec<Part>>> = BTreeMap::new();
    for row in rows.map_err(translate)? {
        let (index, part) = row.map_err(translate)?;
        let parts = indexes.entry(index).or_insert_with(|| Some(Vec::new()));
        // An index over an expression is left out: see the limits in docs/capture.md.
        *parts = parts.take().zip(part).map(|(mut all, one)| {
            all.push(one);
            all
        });
    }
    let mut all: Vec<_> = indexes.into_values().flatten().collect();
    if let Some(column) = row_number(connection, place)? {
        all.push(vec![Part { column, collation: "BINARY".to_owned() }]);
    }
    all.retain(|parts| {
        !matches!(parts.as_slice(), [Part { column, collation }]
            if column.eq_ignore_ascii_case(key) && collation.eq_ignore_ascii_case("BINARY"))
    });
    Ok(all)
}

/// The column that is another name of the row number; it is unique without an index.
fn row_number(connection: &Connection, place: &str) -> Result<Option<String>> {
    let sql = "SELECT max(name) FROM pragma_table_info(?1) WHERE pk > 0 HAVING count(*) = 1 AND NOT EXISTS \
               (SELECT 1 FROM pragma_index_list(?1) WHERE origin = 'pk')";
    let mut statement = connection.prepare(sql).map_err(translate)?;
    statement.query_row([place], |row| row.get(0)).optional().map_err(translate)
}
