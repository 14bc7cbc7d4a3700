//! Group commit: many units in one transaction, each of them all or nothing.

use std::sync::Arc;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, params};
use unisono_core::write::{Action, Committed, Idempotency, Resolved, Unit, Write, resolve};
use unisono_core::{
    Change, Error, ErrorKind, Position, Record, Result, Role, Stored, Version, json,
};

use crate::client::Tables;
use crate::codec::encode_key;
use crate::error::{is_of_statement, translate};
use crate::table::{Refused, Table};
use crate::tombstones;
use crate::truth::{bounds, log, transaction};

/// Commits units in order; one that fails leaves nothing behind.
pub(super) fn commit(
    connection: &mut Connection,
    tables: &Tables,
    units: &[Unit],
) -> Result<Vec<Result<Committed>>> {
    if units.is_empty() {
        return Ok(Vec::new());
    }
    transaction(connection, |connection| {
        let begun = bounds(connection)?.head;
        let mut batch = Batch { connection, tables, head: begun };
        let mut results = Vec::with_capacity(units.len());
        for unit in units {
            match batch.unit(unit) {
                Ok(committed) => results.push(Ok(committed)),
                Err(Failure::Unit(error)) => results.push(Err(error)),
                Err(Failure::Batch(error)) => return Err(error),
            }
        }
        if batch.head != begun {
            let sql = "UPDATE unisono_head SET position = ?1";
            let mut statement = connection.prepare_cached(sql).map_err(translate)?;
            statement.execute([batch.head.as_i64()]).map_err(translate)?;
        }
        Ok(results)
    })
}

/// Whom a failure concerns.
enum Failure {
    /// One unit; the others go on.
    Unit(Error),
    /// The whole transaction.
    Batch(Error),
}

impl Failure {
    /// A failure that says nothing about the unit's own data.
    fn batch(native: rusqlite::Error) -> Self {
        Failure::Batch(translate(native))
    }
}

/// The transaction of one call.
struct Batch<'a> {
    connection: &'a Connection,
    tables: &'a Tables,
    /// The position of the last change so far.
    head: Position,
}

impl Batch<'_> {
    fn unit(&mut self, unit: &Unit) -> Result<Committed, Failure> {
        if let Some(idempotency) = &unit.idempotency
            && let Some(earlier) = self.earlier(idempotency)?
        {
            return Ok(earlier);
        }
        // A lone write is one statement on the row, which undoes itself when it fails, before anything else is written.
        if unit.writes.len() <= 1 {
            return self.writes(unit);
        }
        let begun = self.head;
        self.run("SAVEPOINT unisono_unit")?;
        let result = self.writes(unit);
        if matches!(result, Err(Failure::Unit(_))) {
            self.run("ROLLBACK TO unisono_unit")?;
            self.head = begun;
        }
        self.run("RELEASE unisono_unit")?;
        result
    }

    fn run(&self, sql: &str) -> Result<(), Failure> {
        let executed = self.connection.prepare_cached(sql).and_then(|mut s| s.execute([]));
        executed.map(drop).map_err(Failure::batch)
    }

    fn writes(&mut self, unit: &Unit) -> Result<Committed, Failure> {
        let begun = self.head;
        let changes = unit
            .writes
            .iter()
            .map(|write| self.write(unit, write))
            .collect::<Result<Vec<_>, _>>()?;
        if let Some(idempotency) = &unit.idempotency {
            self.remember(unit, idempotency, begun, changes.len()).map_err(Failure::batch)?;
        }
        Ok(Committed { changes, replayed: false })
    }

    fn write(&mut self, unit: &Unit, write: &Write) -> Result<Arc<Change>, Failure> {
        let entity = write.entity.name();
        let Some(table) = self.tables.get(entity).filter(|t| t.role == Role::Truth) else {
            return Err(Failure::Unit(
                Error::internal("the source was not prepared as the truth of the entity")
                    .of(entity),
            ));
        };
        let current = self.current(table, write).map_err(Failure::Batch)?;
        let Resolved { operation, image, replaced } =
            resolve(write, current.as_ref()).map_err(Failure::Unit)?;
        let position = self.head.next();
        // The history of a record goes on behind its deletion.
        let previous = match replaced {
            Some(version) => Some(version),
            None => {
                tombstones::find(self.connection, entity, &write.key).map_err(Failure::Batch)?
            }
        };
        let stored = match &image {
            Some(record) => table.write(self.connection, record, position, replaced.is_some()),
            None => table.delete(self.connection, &write.key).map(drop).map_err(Refused::Native),
        };
        stored.map_err(|refused| match refused {
            Refused::Native(native) if !is_of_statement(&native) => Failure::batch(native),
            Refused::Native(native) => {
                Failure::Unit(translate(native).of(entity).with("key", &write.key))
            }
            Refused::Value(error) => Failure::Unit(error),
        })?;
        self.head = position;
        let change = Change {
            position,
            entity: Arc::clone(entity),
            key: write.key.clone(),
            operation,
            replaced,
            image,
            time: unit.time,
            actor: unit.actor.clone(),
            trace: unit.trace.clone(),
        };
        self.append(table, &change, previous).map_err(Failure::batch)?;
        self.mark_deletion(&change, previous).map_err(Failure::Batch)?;
        Ok(Arc::new(change))
    }

    /// The record that is there, as far as the write needs it: only a patch looks at more than the version.
    fn current(&self, table: &Table, write: &Write) -> Result<Option<Stored>> {
        if matches!(write.action, Action::Patch(_)) {
            return table.read(self.connection, &write.key);
        }
        let version = table.version(self.connection, &write.key)?;
        let without_data = || Arc::new(Record::new(Vec::new()));
        Ok(version.map(|version| Stored::new(write.key.clone(), version, without_data())))
    }

    /// Keeps a tombstone for a record that is gone, as the end of its history.
    fn mark_deletion(&self, change: &Change, previous: Option<Version>) -> Result<()> {
        match &change.image {
            None => tombstones::put(self.connection, change),
            Some(_) if change.replaced.is_none() && previous.is_some() => {
                tombstones::remove(self.connection, &change.entity, &change.key)
            }
            Some(_) => Ok(()),
        }
    }

    fn append(
        &self,
        table: &Table,
        change: &Change,
        previous: Option<Version>,
    ) -> rusqlite::Result<()> {
        let image = change.image.as_ref().map(|record| json::to_vec(&table.entity, record));
        let mut statement = self.connection.prepare_cached(
            "INSERT INTO unisono_log (position, entity, key, operation, replaced, previous, image, time, actor, trace) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?;
        statement.raw_bind_parameter(1, change.position.as_i64())?;
        statement.raw_bind_parameter(2, change.entity.as_ref())?;
        statement.raw_bind_parameter(3, encode_key(&change.key))?;
        statement.raw_bind_parameter(4, change.operation.as_str())?;
        statement.raw_bind_parameter(5, change.replaced.map(Position::as_i64))?;
        statement.raw_bind_parameter(6, previous.map(Position::as_i64))?;
        let image = image.as_deref().map_or(ValueRef::Null, ValueRef::Text);
        statement.raw_bind_parameter(7, ToSqlOutput::Borrowed(image))?;
        statement.raw_bind_parameter(8, change.time.micros())?;
        statement.raw_bind_parameter(9, change.actor.as_deref())?;
        statement.raw_bind_parameter(10, change.trace.as_deref())?;
        statement.raw_execute()?;
        Ok(())
    }

    /// The outcome of an earlier unit with the same idempotency key.
    fn earlier(&self, idempotency: &Idempotency) -> Result<Option<Committed>, Failure> {
        let sql = "SELECT fingerprint, first, changes FROM unisono_outcomes WHERE key = ?1";
        let mut statement = self.connection.prepare_cached(sql).map_err(Failure::batch)?;
        let found = statement
            .query_row([&idempotency.key], |row| {
                Ok((row.get::<_, [u8; 16]>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
            })
            .optional()
            .map_err(Failure::batch)?;
        let Some((fingerprint, first, count)) = found else { return Ok(None) };
        if u128::from_be_bytes(fingerprint) != idempotency.fingerprint {
            return Err(Failure::Unit(
                Error::new(ErrorKind::IdempotencyKeyReused, "the idempotency key was used for another request")
                    .hint("take a new idempotency key for every request; repeat a request with exactly the same content"),
            ));
        }
        let changes =
            log::range(self.connection, self.tables, first, count).map_err(Failure::Batch)?;
        Ok(Some(Committed { changes, replayed: true }))
    }

    /// Keeps where the unit's changes are in the log; trimming spares them as long as the outcome is kept.
    fn remember(
        &self,
        unit: &Unit,
        idempotency: &Idempotency,
        begun: Position,
        changes: usize,
    ) -> rusqlite::Result<()> {
        let first = if changes == 0 { Position::ZERO } else { begun.next() };
        self.connection
            .prepare_cached(
                "INSERT INTO unisono_outcomes (key, fingerprint, first, changes, time) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                idempotency.key,
                idempotency.fingerprint.to_be_bytes(),
                first.as_i64(),
                changes as i64,
                unit.time.micros()
            ])?;
        Ok(())
    }
}
