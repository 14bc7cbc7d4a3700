//! Group commit: many units in one transaction, each of them all or nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};
use unisono_core::source::fenced;
use unisono_core::stream;
use unisono_core::write::{Action, Committed, Idempotency, Resolved, Unit, Write, resolve};
use unisono_core::{Change, Error, ErrorKind, Position, Record, Result, Role, Stored};

use crate::capture::Sequencer;
use crate::client::Tables;
use crate::error::{is_of_statement, translate};
use crate::table::{Refused, Table};
use crate::tombstones;
use crate::truth::mark::{self, Mark};
use crate::truth::{append, bounds, fences, log, transaction};

/// Commits units in order; one that fails leaves nothing behind.
///
/// If they are to be `above` a position, they are in the generation after it, unless the log has come further already.
pub(super) fn commit(
    connection: &mut Connection,
    tables: &Tables,
    mark: &Mark,
    units: &[Unit],
    above: Option<Position>,
) -> Result<Vec<Result<Committed>>> {
    if units.is_empty() {
        return Ok(Vec::new());
    }
    let (results, head) = transaction(connection, |connection| {
        let head = bounds(connection)?.head;
        mark::check(head, mark.head())?;
        let head = above.filter(|above| head <= *above).map_or(head, Position::next_generation);
        let fences = fences(connection)?;
        let mut batch = Batch { connection, tables, head, drained: true, fences };
        batch.sequence()?;
        let mut results = Vec::with_capacity(units.len());
        for unit in units {
            match batch.unit(unit) {
                Ok(committed) => results.push(Ok(committed)),
                Err(Failure::Unit(error)) => results.push(Err(error)),
                Err(Failure::Batch(error)) => return Err(error),
            }
        }
        // Without a change the log ends where it did.
        let written =
            results.iter().flatten().any(|c: &Committed| !c.replayed && !c.changes.is_empty());
        Ok((results, if written { batch.head } else { Position::ZERO }))
    })?;
    mark.raise(head);
    Ok(results)
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
    /// Whether the intake held no more than has been sequenced.
    drained: bool,
    /// The entities whose writes are refused.
    fences: BTreeMap<String, String>,
}

impl Batch<'_> {
    /// What others have committed comes first, so that no condition overlooks it.
    fn sequence(&mut self) -> Result<()> {
        if self.tables.values().any(|t| t.capture.is_some()) {
            let mut sequencer = self.sequencer();
            let drained = sequencer.oldest()?;
            (self.head, self.drained) = (sequencer.head, drained);
        }
        Ok(())
    }

    fn sequencer(&self) -> Sequencer<'_> {
        Sequencer { connection: self.connection, tables: self.tables, head: self.head }
    }

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
            return Err(Failure::Unit(match self.fences.contains_key(entity.as_ref()) {
                true => fenced(entity),
                false => Error::internal("the source was not prepared as the truth of the entity")
                    .of(entity),
            }));
        };
        if self.fences.contains_key(entity.as_ref()) {
            return Err(Failure::Unit(fenced(entity)));
        }
        if table.capture.is_some() && !self.drained {
            let mut sequencer = self.sequencer();
            sequencer.of(table, &write.key).map_err(Failure::Batch)?;
            self.head = sequencer.head;
        }
        let position = self.head.next();
        let numbered = match &write.action {
            Action::Append(append) => {
                let (first, last) = stream::range(&append.stream).map_err(Failure::Unit)?;
                let newest =
                    table.newest(self.connection, &first, &last).map_err(Failure::Batch)?;
                let numbered = stream::number(write, append, newest.as_ref(), position);
                Some(numbered.map_err(Failure::Unit)?)
            }
            _ => None,
        };
        let write = numbered.as_ref().unwrap_or(write);
        let current = self.current(table, write).map_err(Failure::Batch)?;
        let Resolved { operation, image, replaced } =
            resolve(write, current.as_ref()).map_err(Failure::Unit)?;
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
        append(self.connection, table, &change, previous).map_err(Failure::Batch)?;
        let version = change.image.is_some().then_some(position);
        table.written(self.connection, &change.key, version).map_err(Failure::Batch)?;
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
