//! Group commit: many units in one transaction and, as a rule, two exchanges. The first locks the head of the log,
//! which makes the transactions of all processes serial, and reads and locks the rows; the second writes and commits.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use unisono_core::write::{Action, Committed, Unit};
use unisono_core::{Error, ErrorKind, Key, Position, Record, Result, Stored, Value, json};

use crate::client::{Client, Tables, head_missing};
use crate::codec::{comparable, decode, number_of};
use crate::connection::ATTEMPTS;
use crate::error::{Class, Failed};
use crate::literal::text;
use crate::mutation::packets;
use crate::pool::{Session, Sets};
use crate::table::{Table, cell};
use crate::tombstones;
use crate::truth::batch::{Batch, Earlier, table};
use crate::truth::log;
use crate::truth::pending::{Pending, hash};

/// What a statement has beside its row: names of columns, mostly.
const STATEMENT_OVERHEAD: usize = 64 << 10;

/// Commits units in order; one that fails leaves nothing behind.
pub(super) async fn commit(
    client: &Client,
    units: &[Unit],
) -> Result<Vec<Result<Committed>>, Failed> {
    if units.is_empty() {
        return Ok(Vec::new());
    }
    let tables = client.tables();
    let mut one_by_one = false;
    let mut attempt = 1;
    loop {
        let failed = match transaction(client, &tables, units, one_by_one).await {
            Ok(results) => return Ok(results),
            Err(failed) => failed,
        };
        match failed.class {
            // A constraint that only the server knows: find the unit that it refuses.
            Class::Refused if !one_by_one => one_by_one = true,
            Class::Conflict if attempt < ATTEMPTS => attempt += 1,
            _ => return Err(failed),
        }
    }
}

async fn transaction(
    client: &Client,
    tables: &Tables,
    units: &[Unit],
    one_by_one: bool,
) -> Result<Vec<Result<Committed>>, Failed> {
    let reading = Reading::of(tables, units);
    let (mut session, sets) = client.writer().begin(&reading.sql()).await?;
    let done = written(client, tables, units, one_by_one, &mut session, &reading, &sets).await;
    match &done {
        Ok((_, head)) => {
            client.heard_of(*head);
            session.release();
        }
        Err(failed) if matches!(failed.class, Class::Refused | Class::Conflict) => {
            session.run("ROLLBACK").await?;
            session.release();
        }
        // The connection is closed, which undoes the transaction.
        Err(_) => {}
    }
    done.map(|(results, _)| results)
}

async fn written(
    client: &Client,
    tables: &Tables,
    units: &[Unit],
    one_by_one: bool,
    session: &mut Session,
    reading: &Reading<'_>,
    sets: &Sets,
) -> Result<(Vec<Result<Committed>>, Position), Failed> {
    let packet_bytes = client.server().packet_bytes_max.saturating_sub(1024);
    let row_bytes = packet_bytes.saturating_sub(STATEMENT_OVERHEAD);
    let mut batch = reading.batch(tables, sets, row_bytes)?;
    reading.outcomes(tables, session, sets, &mut batch).await?;
    let begun = batch.head;
    let mut pending = Pending::default();
    let mut results = Vec::with_capacity(units.len());
    for unit in units {
        results.push(match one_by_one {
            false => batch.unit(unit, &mut pending),
            true => alone(&mut batch, unit, session, packet_bytes).await?,
        });
    }
    let mut statements = pending.into_statements();
    if batch.head != begun {
        statements
            .push(format!("UPDATE unisono_head SET `position` = {} WHERE `only` = 1", batch.head));
    }
    statements.push("COMMIT".into());
    let mut packets = packets(statements, packet_bytes);
    let last = packets.pop().unwrap_or_default();
    for packet in packets {
        session.run(&packet).await?;
    }
    session.run(&last).await.map_err(Failed::at_commit)?;
    Ok((results, batch.head))
}

/// Writes one unit behind a savepoint, so that a refusal concerns it alone.
async fn alone(
    batch: &mut Batch<'_>,
    unit: &Unit,
    session: &mut Session,
    packet_bytes: usize,
) -> Result<Result<Committed>, Failed> {
    let begun = batch.head;
    let mut pending = Pending::default();
    let committed = match batch.unit(unit, &mut pending) {
        Ok(committed) if !committed.replayed => committed,
        answered => return Ok(answered),
    };
    let mut statements = pending.into_statements();
    statements.insert(0, "SAVEPOINT unisono_unit".into());
    for packet in packets(statements, packet_bytes) {
        match session.run(&packet).await {
            Ok(_) => {}
            Err(failed) if failed.class == Class::Refused => {
                if failed.error.detail("field") == Some("PRIMARY") {
                    // Somebody inserted the row after it was looked for: look again.
                    return Err(Failed { class: Class::Conflict, ..failed });
                }
                session.run("ROLLBACK TO SAVEPOINT unisono_unit").await?;
                batch.undo(begun);
                batch.forget_outcome(unit);
                let write = unit.writes.first();
                let entity = write.map_or("", |write| write.entity.name());
                let error = failed.error.of(entity);
                return Ok(Err(match write.filter(|_| unit.writes.len() == 1) {
                    Some(write) => error.with("key", &write.key),
                    None => error,
                }));
            }
            Err(failed) => return Err(failed),
        }
    }
    Ok(Ok(committed))
}

/// What has to be read for the units, in the order of the statements.
struct Reading<'a> {
    /// The keys of idempotency.
    keys: BTreeSet<&'a Arc<str>>,
    tables: Vec<Touched<'a>>,
}

/// What the units touch in one table.
struct Touched<'a> {
    table: &'a Arc<Table>,
    keys: BTreeSet<&'a Key>,
    /// Those of which the whole record is needed.
    patched: BTreeSet<&'a Key>,
    /// For each unique field, the values that records want to have, as literals.
    wanted: Vec<HashSet<String>>,
}

impl<'a> Reading<'a> {
    fn of(tables: &'a Tables, units: &'a [Unit]) -> Self {
        let keys = units.iter().filter_map(|u| u.idempotency.as_ref().map(|i| &i.key)).collect();
        let mut touched: Vec<Touched<'a>> = Vec::new();
        for write in units.iter().flat_map(|unit| &unit.writes) {
            // An entity that is not there fails its unit later.
            let Ok(table) = table(tables, write.entity.name()) else { continue };
            let at = touched.iter().position(|t| Arc::ptr_eq(t.table, table));
            let at = at.unwrap_or_else(|| {
                touched.push(Touched::new(table));
                touched.len() - 1
            });
            if let Some(touched) = touched.get_mut(at) {
                touched.add(&write.key, &write.action);
            }
        }
        Reading { keys, tables: touched }
    }

    fn sql(&self) -> String {
        let mut sql = String::from(
            "START TRANSACTION; SELECT `position` FROM unisono_head WHERE `only` = 1 FOR UPDATE",
        );
        if !self.keys.is_empty() {
            let hashes: Vec<_> = self.keys.iter().map(|key| hash(&text(key))).collect();
            sql += &format!(
                "; SELECT `key`, `fingerprint`, `first`, `changes` FROM unisono_outcomes WHERE `hash` IN ({})",
                hashes.join(", ")
            );
        }
        for touched in &self.tables {
            let Table { name, selected, columns, entity, unique, .. } = touched.table.as_ref();
            let key = touched.table.key_column();
            let keys = touched.table.keys(touched.keys.iter().copied());
            sql += &format!("; {}", tombstones::find(entity.name(), touched.keys.iter().copied()));
            sql += &format!(
                "; SELECT {key}, unisono_version FROM {name} WHERE {key} IN ({keys}) FOR UPDATE"
            );
            if !touched.patched.is_empty() {
                let keys = touched.table.keys(touched.patched.iter().copied());
                sql +=
                    &format!("; SELECT {selected} FROM {name} WHERE {key} IN ({keys}) FOR UPDATE");
            }
            for ((field, hashed), wanted) in unique.iter().zip(&touched.wanted) {
                let Some(column) = columns.get(*field).filter(|_| !wanted.is_empty()) else {
                    continue;
                };
                let found_by = match hashed {
                    true => format!("`unisono_hash_{}`", column.field),
                    false => column.name.clone(),
                };
                let values: Vec<_> = (wanted.iter())
                    .map(|literal| if *hashed { hash(literal) } else { literal.clone() })
                    .collect();
                sql += &format!(
                    "; SELECT {key}, {} FROM {name} WHERE {found_by} IN ({}) FOR UPDATE",
                    column.name,
                    values.join(", ")
                );
            }
        }
        sql
    }

    /// The state that the rows of the answer describe.
    fn batch(&self, tables: &'a Tables, sets: &Sets, row_bytes: usize) -> Result<Batch<'a>> {
        let mut sets = sets.iter();
        let mut next = || sets.next().map_or(&[][..], Vec::as_slice);
        let head = next().first().ok_or_else(head_missing)?;
        let head = Position::from_i64(number_of(cell(head, 0)?)?.unwrap_or_default())?;
        let mut batch = Batch::new(tables, head, row_bytes);
        if !self.keys.is_empty() {
            // Read by `outcomes`.
            next();
        }
        for touched in &self.tables {
            let table = touched.table;
            let entity = table.entity.name();
            for (key, at) in tombstones::found(&table.entity, next())? {
                batch.know_deleted(entity, key, at);
            }
            for row in next() {
                let key = table.key_in(cell(row, 0)?)?;
                let version = number_of(cell(row, 1)?)?.unwrap_or_default();
                let without_data = Arc::new(Record::new(Vec::new()));
                batch.know(entity, Stored::new(key, Position::from_i64(version)?, without_data));
            }
            if !touched.patched.is_empty() {
                for stored in table.records(next())? {
                    batch.know(entity, stored);
                }
            }
            for ((field, _), wanted) in table.unique.iter().zip(&touched.wanted) {
                let Some(column) = table.columns.get(*field).filter(|_| !wanted.is_empty()) else {
                    continue;
                };
                for row in next() {
                    let key = table.key_in(cell(row, 0)?)?;
                    let value = decode(column.form, &column.ty, cell(row, 1)?)?;
                    batch.know_owner(entity, *field, value, key);
                }
            }
        }
        Ok(batch)
    }

    /// Reads the changes of earlier units with the same keys of idempotency.
    async fn outcomes(
        &self,
        tables: &Tables,
        session: &mut Session,
        sets: &Sets,
        batch: &mut Batch<'_>,
    ) -> Result<(), Failed> {
        let Some(rows) = sets.get(1).filter(|_| !self.keys.is_empty()) else { return Ok(()) };
        for row in rows {
            let key = crate::codec::text_of(cell(row, 0)?)?.unwrap_or_default();
            let (first, count) = (number_of(cell(row, 2)?)?, number_of(cell(row, 3)?)?);
            let (first, count) = (first.unwrap_or_default(), count.unwrap_or_default());
            let fingerprint = match cell(row, 1)? {
                mysql_async::Value::Bytes(bytes) => <[u8; 16]>::try_from(bytes.as_slice()).ok(),
                _ => None,
            };
            let fingerprint = fingerprint.map(u128::from_be_bytes).ok_or_else(|| {
                Error::new(ErrorKind::Corrupt, "the fingerprint of an outcome cannot be decoded")
            })?;
            let changes = log::range(session, tables, first, count).await?;
            batch.outcomes.insert(key.into(), Earlier { fingerprint, changes });
        }
        Ok(())
    }
}

impl<'a> Touched<'a> {
    fn new(table: &'a Arc<Table>) -> Self {
        Touched {
            table,
            keys: BTreeSet::new(),
            patched: BTreeSet::new(),
            wanted: vec![HashSet::new(); table.unique.len()],
        }
    }

    fn add(&mut self, key: &'a Key, action: &Action) {
        self.keys.insert(key);
        if matches!(action, Action::Patch(_)) {
            self.patched.insert(key);
        }
        for ((field, _), wanted) in self.table.unique.iter().zip(&mut self.wanted) {
            let Some(column) = self.table.columns.get(*field) else { continue };
            let value = match action {
                Action::Put(record) => record.values().get(*field).cloned(),
                // A value that is none fails the patch later.
                Action::Patch(patch) => patch
                    .get(&*column.field)
                    .and_then(|value| json::parse_value(&column.ty, value).ok()),
                Action::Delete => None,
            };
            let literal = comparable(column.form, &column.ty, &value.unwrap_or(Value::Null));
            wanted.extend(literal);
        }
    }
}
