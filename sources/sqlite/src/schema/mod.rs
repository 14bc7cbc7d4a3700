//! Tables and indexes: made, brought up to the declaration, or adopted from an application that had them before.

mod adopt;
mod index;
mod migrate;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};
use serde_json::{Map, Value as Json};
use unisono_core::entity::SYSTEM;
use unisono_core::source::Binding;
use unisono_core::{Capture, Error, ErrorKind, FieldType, Result, Role, Uuid};
use unisono_sql::types::{describe, type_mismatch};

use crate::capture::{self, Origin};
use crate::client::Tables;
use crate::codec::{Form, declared_type};
use crate::error::translate;
use crate::table::{Table, claimed_twice, quote};
use crate::truth::mark::Mark;
use crate::truth::{bounds, transaction};

/// The source's own tables. `unisono_schema` says which declared types the data was written under.
const OWN_TABLES: &str = "
CREATE TABLE IF NOT EXISTS unisono_schema (
    entity TEXT PRIMARY KEY, place TEXT NOT NULL, fields TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unisono_log (
    position INTEGER PRIMARY KEY, entity TEXT NOT NULL, key NOT NULL, operation TEXT NOT NULL,
    replaced INTEGER, previous INTEGER, image TEXT, time INTEGER NOT NULL, actor TEXT, trace TEXT);
CREATE TABLE IF NOT EXISTS unisono_head (
    only INTEGER PRIMARY KEY CHECK (only = 1), log TEXT NOT NULL, trimmed INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS unisono_outcomes (
    key TEXT PRIMARY KEY, fingerprint BLOB NOT NULL, first INTEGER NOT NULL, changes INTEGER NOT NULL,
    time INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS unisono_outcomes_first ON unisono_outcomes (first);
CREATE INDEX IF NOT EXISTS unisono_outcomes_time ON unisono_outcomes (time);
CREATE TABLE IF NOT EXISTS unisono_state (
    space TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (space, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unisono_checkpoints (
    entity TEXT PRIMARY KEY, checkpoint TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unisono_tombstones (
    entity TEXT NOT NULL, key NOT NULL, version INTEGER NOT NULL, PRIMARY KEY (entity, key)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS unisono_tombstones_version ON unisono_tombstones (entity, version);
";

/// Makes the database match the bindings; answers the tables and what was done, for people.
///
/// One transaction: a mismatch changes nothing.
pub(crate) fn prepare(
    connection: &mut Connection,
    bindings: &[Binding],
    mark: &Mark,
) -> Result<(Tables, Vec<String>)> {
    check_places(bindings)?;
    let is_truth = bindings.iter().any(|b| b.role == Role::Truth);
    let (tables, notes, bounds) = transaction(connection, |connection| {
        connection.execute_batch(OWN_TABLES).map_err(translate)?;
        connection.execute_batch(capture::TABLES).map_err(translate)?;
        connection
            .execute(
                "INSERT OR IGNORE INTO unisono_head (only, log, trimmed) VALUES (1, ?1, 0)",
                [Uuid::now_v7().to_string()],
            )
            .map_err(translate)?;
        let mut notes = Vec::new();
        if is_truth {
            notes.extend(mark.begin_anew(connection)?);
        }
        let mut tables = Tables::new();
        for binding in bindings {
            let mut step = Step { connection, binding, notes: &mut notes };
            let table = step.prepare().map_err(|e| e.of(binding.entity.name()))?;
            tables.insert(Arc::clone(binding.entity.name()), Arc::new(table));
        }
        for place in capture::undeclared(connection, &tables)? {
            notes.push(format!(
                "the writes of others to {place} are still noted down, although its entity is no longer declared: drop \
                 the triggers unisono_capture_… if it will not be again"
            ));
        }
        Ok((tables, notes, bounds(connection)?))
    })?;
    if is_truth {
        mark.begin(&bounds)?;
    }
    Ok((tables, notes))
}

fn check_places(bindings: &[Binding]) -> Result<()> {
    let mut seen = HashSet::new();
    for Binding { place, entity, role, .. } in bindings {
        let lower = place.to_lowercase();
        if *role == Role::Cache {
            return Err(Error::unsupported("a sqlite source is no cache").of(entity.name()));
        }
        if lower.is_empty()
            || lower.contains('\0')
            || (lower.starts_with(SYSTEM) && !entity.is_system())
            || lower.starts_with("sqlite_")
        {
            return Err(Error::new(ErrorKind::InvalidConfig, "the table cannot have this name")
                .of(entity.name())
                .with("table", place)
                .hint("names beginning with unisono_ or sqlite_ are reserved"));
        }
        if !seen.insert(lower) {
            return Err(claimed_twice(place).of(entity.name()));
        }
    }
    Ok(())
}

/// A column as it is in the database.
struct Found {
    declared: String,
    required: bool,
    has_default: bool,
    /// Its place in the primary key, from 1; 0 if it is not part of it.
    key_part: i64,
}

/// The columns of a table by name.
type FoundColumns = BTreeMap<String, Found>;

/// Preparing one binding.
pub(crate) struct Step<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) binding: &'a Binding,
    pub(crate) notes: &'a mut Vec<String>,
}

impl Step<'_> {
    fn prepare(&mut self) -> Result<Table> {
        let found = self.columns()?;
        let recorded = self.recorded()?;
        let (forms, origin) = match recorded {
            _ if found.is_empty() => {
                self.check_not_gone()?;
                (self.create()?, Origin::Made)
            }
            Some(fields) => (self.migrate(&found, &fields)?, Origin::Known),
            None => (self.adopt(&found)?, Origin::Adopted),
        };
        self.indexes()?;
        self.record()?;
        let version = self.versions(&found)?;
        self.set_capture(origin, version)?;
        Ok(Table::new(self.binding, &forms))
    }

    fn create(&mut self) -> Result<Vec<Form>> {
        let entity = &self.binding.entity;
        let columns: String = (entity.fields().iter().enumerate())
            .map(|(n, field)| {
                let key = if n == entity.key_index() { " PRIMARY KEY NOT NULL" } else { "" };
                format!("{} {}{key}, ", quote(&field.name), declared_type(&field.ty))
            })
            .collect();
        let columns = match Capture::of(&self.binding.options) {
            None => columns + "unisono_version INTEGER NOT NULL",
            Some(_) => columns.trim_end_matches(", ").to_owned(),
        };
        self.execute(&format!("CREATE TABLE {} ({columns})", self.table()))?;
        self.notes.push(format!("made the table {}", self.binding.place));
        Ok(entity.fields().iter().map(|f| Form::of(&f.ty)).collect())
    }

    fn columns(&self) -> Result<FoundColumns> {
        let place = self.binding.place.as_ref();
        let kind: Option<String> = self
            .connection
            .query_row(
                "SELECT type FROM sqlite_schema WHERE lower(name) = lower(?1)",
                [place],
                |row| row.get(0),
            )
            .optional()
            .map_err(translate)?;
        if kind.is_some_and(|kind| kind != "table") {
            return Err(self
                .mismatch("there is a view or an index with the name of the table")
                .hint("choose another table"));
        }
        // The fourth kind of hidden column are those that are computed; they cannot be written.
        let sql = "SELECT name, type, \"notnull\", dflt_value IS NOT NULL OR hidden > 0, pk FROM pragma_table_xinfo(?1)";
        let mut statement = self.connection.prepare(sql).map_err(translate)?;
        let columns = statement.query_map([place], |row| {
            let found = Found {
                declared: row.get::<_, String>(1)?.to_uppercase(),
                required: row.get(2)?,
                has_default: row.get(3)?,
                key_part: row.get(4)?,
            };
            Ok((row.get::<_, String>(0)?.to_lowercase(), found))
        });
        columns.map_err(translate)?.collect::<rusqlite::Result<_>>().map_err(translate)
    }

    /// The types under which the table was written, if it is known; the same entity in another table is a mismatch.
    fn recorded(&self) -> Result<Option<Map<String, Json>>> {
        let row: Option<(String, String)> = self
            .connection
            .query_row(
                "SELECT place, fields FROM unisono_schema WHERE entity = ?1",
                [self.binding.entity.name().as_ref()],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .optional()
            .map_err(translate)?;
        let Some((place, fields)) = row else { return Ok(None) };
        if place != *self.binding.place {
            let exists = "SELECT count(*) FROM sqlite_schema WHERE name = ?1";
            let exists: i64 =
                self.connection.query_row(exists, [&place], |row| row.get(0)).map_err(translate)?;
            if exists > 0 && self.any(&format!("SELECT 1 FROM {}", quote(&place)))? {
                return Err(self
                    .mismatch("the records of the entity are in another table")
                    .with("found_in", &place)
                    .hint("declare that table, or rename it (ALTER TABLE … RENAME TO …) while Unisono is stopped"));
            }
            return Ok(None);
        }
        serde_json::from_str(&fields).map(Some).map_err(|e| {
            Error::new(ErrorKind::Corrupt, "unisono_schema cannot be decoded").caused_by(e)
        })
    }

    fn record(&self) -> Result<()> {
        let entity = &self.binding.entity;
        let fields: Map<String, Json> =
            entity.fields().iter().map(|f| (f.name.to_string(), describe(&f.ty))).collect();
        let sql = "INSERT INTO unisono_schema (entity, place, fields) VALUES (?1, ?2, ?3) \
                   ON CONFLICT (entity) DO UPDATE SET place = excluded.place, fields = excluded.fields";
        let row = params![
            entity.name().as_ref(),
            self.binding.place.as_ref(),
            Json::Object(fields).to_string()
        ];
        self.connection.execute(sql, row).map(drop).map_err(translate)
    }

    pub(crate) fn table(&self) -> String {
        quote(&self.binding.place)
    }

    pub(crate) fn execute(&self, sql: &str) -> Result<()> {
        self.connection.execute_batch(sql).map_err(translate)
    }

    /// Whether a statement has any row.
    fn any(&self, sql: &str) -> Result<bool> {
        let mut statement = self.connection.prepare(sql).map_err(translate)?;
        statement.exists([]).map_err(translate)
    }

    pub(crate) fn mismatch(&self, message: &'static str) -> Error {
        Error::new(ErrorKind::SchemaMismatch, message).with("table", &self.binding.place)
    }

    /// The mismatch of a field whose stored data would be lost.
    fn field_mismatch(
        &self,
        field: &str,
        stored: impl std::fmt::Display,
        declared: &FieldType,
    ) -> Error {
        type_mismatch(&self.binding.place, field, stored, declared)
    }
}
