//! The sequencer: gives what others have committed its positions, and brings the versions up to them.
//!
//! An entry of the intake says only that a record changed; what it is now is read from the row, in the same
//! transaction. So no order of entries can turn the changes of a record around, and a record that was changed several
//! times is one change.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::types::{Value as Sql, ValueRef};
use rusqlite::{Connection, params};
use unisono_core::{Change, ErrorKind, Key, Operation, Position, Result, Timestamp};

use crate::client::Tables;
use crate::codec::encode_key;
use crate::error::translate;
use crate::table::Table;
use crate::tombstones;
use crate::truth::append;

/// The most entries in one transaction, so that writes are not held up for long.
const ENTRIES_MAX: usize = 2000;

/// What others noted down about one record.
struct Entry {
    entity: String,
    key: Sql,
    time: i64,
    actor: Option<Arc<str>>,
    trace: Option<Arc<str>>,
}

/// A transaction that has the write lock.
pub(crate) struct Sequencer<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) tables: &'a Tables,
    /// The position of the last change so far; the caller stores it.
    pub(crate) head: Position,
}

impl Sequencer<'_> {
    /// Takes the oldest entries; answers whether these were all.
    pub(crate) fn oldest(&mut self) -> Result<bool> {
        // An entity's name needs no quoting: lower case letters, digits and underscores.
        let captured = self.tables.values().filter(|t| t.capture.is_some());
        let names: Vec<_> = captured.map(|t| format!("'{}'", t.entity.name())).collect();
        let condition = format!("refused IS NULL AND entity IN ({})", names.join(", "));
        let entries = self.entries(&condition, &[])?;
        let all = entries.len() < ENTRIES_MAX;
        self.take(entries)?;
        Ok(all)
    }

    /// Takes the entries of one record.
    pub(crate) fn of(&mut self, table: &Table, key: &Key) -> Result<()> {
        let condition =
            format!("refused IS NULL AND entity = '{}' AND key = ?1", table.entity.name());
        let entries = self.entries(&condition, &[crate::codec::owned(encode_key(key))])?;
        self.take(entries)
    }

    fn entries(&self, condition: &str, parameters: &[Sql]) -> Result<Vec<Entry>> {
        let sql = format!(
            "SELECT entity, key, time, actor, trace FROM unisono_intake WHERE {condition} \
             ORDER BY id LIMIT {ENTRIES_MAX}"
        );
        let mut statement = self.connection.prepare_cached(&sql).map_err(translate)?;
        let read = |row: &rusqlite::Row<'_>| {
            Ok(Entry {
                entity: row.get(0)?,
                key: row.get(1)?,
                time: row.get(2)?,
                actor: row.get(3)?,
                trace: row.get(4)?,
            })
        };
        let entries =
            statement.query_map(rusqlite::params_from_iter(parameters), read).map_err(translate)?;
        entries.collect::<rusqlite::Result<_>>().map_err(translate)
    }

    /// One change for each record, where its last entry stands.
    fn take(&mut self, entries: Vec<Entry>) -> Result<()> {
        let mut last: HashMap<(String, Cell), usize> = HashMap::new();
        for (n, entry) in entries.iter().enumerate() {
            last.insert((entry.entity.clone(), Cell::of(&entry.key)), n);
        }
        for (n, entry) in entries.iter().enumerate() {
            if last.get(&(entry.entity.clone(), Cell::of(&entry.key))) == Some(&n)
                && let Some(table) = self.tables.get(entry.entity.as_str())
            {
                self.record(&Arc::clone(table), entry)?;
            }
        }
        Ok(())
    }

    fn record(&mut self, table: &Table, entry: &Entry) -> Result<()> {
        let entity = table.entity.name();
        let read = table
            .decode_key(ValueRef::from(&entry.key))
            .and_then(|key| Ok((table.read(self.connection, &key)?, key)));
        let (stored, key) = match read {
            Ok(read) => read,
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::InvalidInput) => {
                let sql = "UPDATE unisono_intake SET refused = ?3 WHERE entity = ?1 AND key = ?2";
                let row = params![entity.as_ref(), entry.key, error.to_string()];
                return self.connection.execute(sql, row).map(drop).map_err(translate);
            }
            Err(error) => return Err(error),
        };
        let replaced = table.version(self.connection, &key)?;
        let previous = match replaced {
            Some(version) => Some(version),
            None => tombstones::find(self.connection, entity, &key)?,
        };
        let operation = if stored.is_some() { Operation::Put } else { Operation::Delete };
        // A record that came and went again between two runs was never there.
        if stored.is_some() || replaced.is_some() {
            let change = Change {
                position: self.head.next(),
                entity: Arc::clone(entity),
                key,
                operation,
                replaced,
                image: stored.map(|s| s.record),
                time: Timestamp::from_micros_clamped(entry.time),
                actor: entry.actor.clone(),
                trace: entry.trace.clone(),
            };
            append(self.connection, table, &change, previous)?;
            table.set_version(
                self.connection,
                &change.key,
                change.image.is_some().then_some(change.position),
            )?;
            self.head = change.position;
        }
        let sql = "DELETE FROM unisono_intake WHERE entity = ?1 AND key = ?2";
        let mut statement = self.connection.prepare_cached(sql).map_err(translate)?;
        statement.execute(params![entity.as_ref(), entry.key]).map(drop).map_err(translate)
    }
}

/// A key as it stands in the intake, to tell entries apart.
#[derive(PartialEq, Eq, Hash)]
enum Cell {
    Integer(i64),
    Bytes(u8, Vec<u8>),
}

impl Cell {
    fn of(cell: &Sql) -> Self {
        match cell {
            Sql::Null => Cell::Bytes(0, Vec::new()),
            Sql::Integer(n) => Cell::Integer(*n),
            Sql::Real(n) => Cell::Bytes(1, n.to_bits().to_be_bytes().to_vec()),
            Sql::Text(text) => Cell::Bytes(2, text.clone().into_bytes()),
            Sql::Blob(bytes) => Cell::Bytes(3, bytes.clone()),
        }
    }
}
