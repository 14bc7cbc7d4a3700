//! Writes of others: noted down in the intake by their own transactions, and moved into the log by ours.
//!
//! Whoever has the file's write lock is alone, so that the lock is also the lease of the sequencer: what it reads (the
//! intake, the rows, the versions) and what it writes (the log, the versions, the head) are of one moment.

mod describe;
mod record;
mod sequencer;
mod setup;
mod triggers;

use std::time::Duration;

use rusqlite::Connection;
use unisono_core::{Error, ErrorKind, Result};

pub(crate) use describe::describe;
pub use record::record_in;
pub(crate) use sequencer::Sequencer;
pub(crate) use setup::Origin;

use crate::client::Tables;
use crate::error::translate;
use crate::source::SqliteSource;
use crate::table::Table;
use crate::truth::{bounds, mark, transaction};

/// The tables of capture. A refused entry is one whose row no entity can hold; it waits for the next write to its key.
pub(crate) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS unisono_intake (
    id INTEGER PRIMARY KEY, entity TEXT NOT NULL, key NOT NULL, time INTEGER NOT NULL, actor TEXT, trace TEXT,
    refused TEXT);
CREATE INDEX IF NOT EXISTS unisono_intake_key ON unisono_intake (entity, key);
CREATE INDEX IF NOT EXISTS unisono_intake_waiting ON unisono_intake (id) WHERE refused IS NULL;
CREATE TABLE IF NOT EXISTS unisono_versions (
    entity TEXT NOT NULL, key NOT NULL, version INTEGER NOT NULL, PRIMARY KEY (entity, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unisono_captures (
    entity TEXT PRIMARY KEY, place TEXT NOT NULL, made INTEGER NOT NULL) WITHOUT ROWID;
";

/// Now in microseconds, in words that every release of SQLite knows: the triggers run in other programs.
const NOW: &str = "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)";
/// How often to look for what others have committed.
pub(crate) const PACE: Duration = Duration::from_millis(20);
/// How long the sequencer waits for another process that is writing; the entries can wait longer.
const LOCK_WAIT: Duration = Duration::from_millis(50);
/// The most transactions in which the intake is sequenced at one go: others can write in between.
const ROUNDS_MAX: u32 = 16;

/// Whether entries of an entity wait in the intake, as the current transaction sees it, so that rows may be newer than
/// their versions.
pub(crate) fn lags(connection: &Connection, table: &Table) -> Result<bool> {
    if table.capture.is_none() {
        return Ok(false);
    }
    let sql = "SELECT EXISTS (SELECT 1 FROM unisono_intake WHERE entity = ?1 AND refused IS NULL)";
    let mut statement = connection.prepare_cached(sql).map_err(translate)?;
    statement.query_row([table.entity.name()], |row| row.get(0)).map_err(translate)
}

/// The tables that have triggers for entities that are no longer declared.
pub(crate) fn undeclared(connection: &Connection, tables: &Tables) -> Result<Vec<String>> {
    let sql = "SELECT entity, place FROM unisono_captures";
    let mut statement = connection.prepare(sql).map_err(translate)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(translate)?;
    let all = rows.collect::<rusqlite::Result<Vec<(String, String)>>>().map_err(translate)?;
    let mut places = Vec::new();
    for (entity, place) in all {
        let is_declared = tables.contains_key(entity.as_str());
        if !is_declared && !triggers::found(connection, &place)?.is_empty() {
            places.push(place);
        }
    }
    Ok(places)
}

/// The names of the triggers that captured tables should have and do not.
pub(crate) fn missing_triggers(connection: &Connection, tables: &Tables) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    for table in tables.values().filter(|t| t.capture.is_some()) {
        let there = triggers::found(connection, table.binding().place.as_ref())?;
        let expected = triggers::expected(connection, &table.binding())?;
        let gone = expected.into_iter().filter(|(name, sql)| there.get(name) != Some(sql));
        missing.extend(gone.map(|(name, _)| name));
    }
    Ok(missing)
}

impl SqliteSource {
    /// Moves what others have committed into the log.
    ///
    /// Another process that is writing is not waited for: what is in the intake stays there until the next time.
    pub(crate) async fn sequence(&self) -> Result<()> {
        let tables = self.client().tables();
        if !tables.values().any(|t| t.capture.is_some()) {
            return Ok(());
        }
        let waits = self.client().read("sequence", move |session| {
            for table in tables.values() {
                if lags(&session.connection, table)? {
                    return Ok(true);
                }
            }
            Ok(false)
        });
        if !waits.await? {
            return Ok(());
        }
        for _ in 0..ROUNDS_MAX {
            match self.sequence_oldest().await {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) if error.kind() == ErrorKind::Unavailable => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sequences as much as goes into one transaction; answers whether that was all.
    async fn sequence_oldest(&self) -> Result<bool> {
        let (tables, mark) = (self.client().tables(), self.client().mark());
        let busy_timeout = self.client().busy_timeout();
        self.client()
            .write("sequence", move |connection| {
                connection.busy_timeout(LOCK_WAIT.min(busy_timeout)).map_err(translate)?;
                let done = transaction(connection, |connection| {
                    let head = bounds(connection)?.head;
                    mark::check(head, mark.head())?;
                    let mut sequencer = Sequencer { connection, tables: &tables, head };
                    let is_all = sequencer.oldest()?;
                    Ok((is_all, sequencer.head))
                });
                connection.busy_timeout(busy_timeout).map_err(translate)?;
                let (is_all, head) = done?;
                mark.raise(head);
                Ok(is_all)
            })
            .await
    }
}

/// The error of a captured table whose triggers are gone.
pub(crate) fn triggers_gone(missing: &[String]) -> Error {
    Error::new(ErrorKind::SchemaMismatch, "triggers that capture the writes of others are gone")
        .with("triggers", missing.join(","))
        .hint("somebody made the table anew or dropped them: restart, so that they are made again and every record is read")
}
