//! What a commit has to read: the head of the log, and everything that its units may look at.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use mysql_async::Row;
use unisono_core::stream;
use unisono_core::write::{Action, Unit};
use unisono_core::{Error, ErrorKind, Key, Position, Record, Result, Stored, Value, json};

use crate::capture::keys;
use crate::client::{Client, Tables, head_missing};
use crate::codec::{comparable, decode, number_of, text_of};
use crate::error::Failed;
use crate::literal::text;
use crate::pool::{Session, Sets};
use crate::table::{Table, cell};
use crate::tombstones;
use crate::truth::batch::{Batch, Earlier, table};
use crate::truth::log;
use crate::truth::pending::hash;

/// Locks the head of the log.
pub(super) const HEAD: &str =
    "SELECT `position`, `fences` FROM unisono_head WHERE `only` = 1 FOR UPDATE";

/// What was said of the entities whose writes are refused, by the row of the head.
pub(super) fn fences(head: &Row) -> Result<BTreeMap<String, String>> {
    let Some(json) = text_of(cell(head, 1)?)? else { return Ok(BTreeMap::new()) };
    serde_json::from_str(json).map_err(|e| {
        Error::new(ErrorKind::Corrupt, "what is refused cannot be decoded").caused_by(e)
    })
}

/// Records that other programs are writing.
pub(super) type Busy = HashSet<(Arc<str>, Key)>;

/// Whether a unit writes one of these records.
pub(super) fn is_busy(unit: &Unit, busy: &Busy) -> bool {
    let place = |w: &unisono_core::write::Write| (Arc::clone(w.entity.name()), w.key.clone());
    !busy.is_empty() && unit.writes.iter().any(|write| busy.contains(&place(write)))
}

/// What has to be read for the units, in the order of the statements.
pub(super) struct Reading<'a> {
    /// The keys of idempotency.
    keys: BTreeSet<&'a Arc<str>>,
    tables: Vec<Touched<'a>>,
}

/// What the units touch in one table.
pub(super) struct Touched<'a> {
    pub(super) table: &'a Arc<Table>,
    pub(super) keys: BTreeSet<&'a Key>,
    /// Those of which the whole record is needed.
    patched: BTreeSet<&'a Key>,
    /// For each unique field, the values that records want to have, as literals.
    wanted: Vec<HashSet<String>>,
    /// The streams whose ends decide.
    streams: BTreeSet<&'a Arc<str>>,
}

impl<'a> Reading<'a> {
    /// What units need that write no busy record.
    pub(super) fn of(tables: &'a Tables, units: &'a [Unit], busy: &Busy) -> Self {
        let units = || units.iter().filter(|unit| !is_busy(unit, busy));
        let keys = units().filter_map(|u| u.idempotency.as_ref().map(|i| &i.key)).collect();
        let mut touched: Vec<Touched<'a>> = Vec::new();
        for write in units().flat_map(|unit| &unit.writes) {
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

    /// What is touched in captured tables.
    pub(super) fn captured(&self) -> impl Iterator<Item = &Touched<'a>> {
        self.tables.iter().filter(|t| t.table.capture.is_some())
    }

    /// Statements that lock the records of captured tables that are there; none without such a table.
    pub(super) fn locks(&self) -> Vec<String> {
        let lock = |t: &Touched<'a>| alone(t.table, t.keys.iter().copied(), "", "FOR UPDATE");
        self.captured().flat_map(lock).collect()
    }

    /// The records of captured tables that other transactions have locked, also those that they have made just now.
    pub(super) async fn busy(&self, client: &Client) -> Result<Busy, Failed> {
        let (mut session, _) = client.writer().begin("DO 1").await?;
        let mut busy = Busy::new();
        for Touched { table, keys, .. } in self.captured() {
            let keys: Vec<&Key> = keys.iter().copied().collect();
            let mut parts = vec![&keys[..]];
            while let Some(part) = parts.pop() {
                let sql = alone(table, part.iter().copied(), "", "FOR UPDATE NOWAIT");
                match (session.run(&sql.join("; ")).await, part) {
                    (Ok(_), _) => {}
                    (Err(failed), [key]) if failed.is_lock_wait() => {
                        busy.insert((Arc::clone(table.entity.name()), (*key).clone()));
                    }
                    (Err(failed), _) if failed.is_lock_wait() => {
                        let (first, second) = part.split_at(part.len() / 2);
                        parts.extend([second, first]);
                    }
                    (Err(failed), _) => return Err(failed),
                }
            }
        }
        session.release();
        Ok(busy)
    }

    /// The statements to run when the head is locked.
    pub(super) fn sql(&self) -> String {
        let mut sql = Vec::new();
        if !self.keys.is_empty() {
            let hashes: Vec<_> = self.keys.iter().map(|key| hash(&text(key))).collect();
            sql.push(format!(
                "SELECT `key`, `fingerprint`, `first`, `changes` FROM unisono_outcomes WHERE `hash` IN ({})",
                hashes.join(", ")
            ));
        }
        for touched in &self.tables {
            touched.sql(&mut sql);
        }
        sql.join("; ")
    }

    /// The state that the rows of the answer describe, behind the row of the head; and whether others have written
    /// captured records whose changes are not in the log yet.
    pub(super) fn batch(
        &self,
        tables: &'a Tables,
        sets: &Sets,
        row_bytes: usize,
    ) -> Result<(Batch<'a>, bool)> {
        let mut sets = sets.iter().map(Vec::as_slice);
        let head = sets.next().and_then(<[Row]>::first).ok_or_else(head_missing)?;
        let fences = fences(head)?;
        let head = Position::from_i64(number_of(cell(head, 0)?)?.unwrap_or_default())?;
        let mut batch = Batch::new(tables, head, row_bytes, fences);
        if !self.keys.is_empty() {
            // Read by `outcomes`.
            sets.next();
        }
        let mut was_overtaken = false;
        for touched in &self.tables {
            was_overtaken |= touched.know(&mut batch, &mut || sets.next().unwrap_or_default())?;
        }
        Ok((batch, was_overtaken))
    }

    /// Reads the changes of earlier units with the same keys of idempotency.
    pub(super) async fn outcomes(
        &self,
        tables: &Tables,
        session: &mut Session,
        sets: &Sets,
        batch: &mut Batch<'_>,
    ) -> Result<(), Failed> {
        let Some(rows) = sets.get(1).filter(|_| !self.keys.is_empty()) else { return Ok(()) };
        for row in rows {
            let key = text_of(cell(row, 0)?)?.unwrap_or_default();
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
            streams: BTreeSet::new(),
        }
    }

    fn add(&mut self, key: &'a Key, action: &'a Action) {
        match action {
            // The key of the event depends on the end of its stream, and is free.
            Action::Append(append) if !append.closes => drop(self.streams.insert(&append.stream)),
            _ => drop(self.keys.insert(key)),
        }
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
                Action::Append(append) => append.event.values().get(*field).cloned(),
            };
            let literal = comparable(column.form, &column.ty, &value.unwrap_or(Value::Null));
            wanted.extend(literal);
        }
    }

    fn sql(&self, sql: &mut Vec<String>) {
        let Table { name, selected, version, columns, entity, unique, .. } = self.table.as_ref();
        let (key, entity) = (self.table.key_column(), entity.name());
        let is_captured = self.table.capture.is_some();
        if !self.keys.is_empty() {
            sql.push(tombstones::find(entity, self.keys.iter().copied()));
        }
        let keys = || self.keys.iter().copied();
        if !self.streams.is_empty() {
            sql.push(self.ends());
        }
        if !is_captured && !self.keys.is_empty() {
            let keys = self.table.keys(keys());
            sql.push(format!(
                "SELECT {key}, {version} FROM {name} WHERE {key} IN ({keys}) FOR UPDATE"
            ));
        }
        if is_captured {
            sql.extend(alone(self.table, keys(), &format!(", {version}"), "FOR UPDATE"));
            // Now that the rows are locked, whoever has written them has committed.
            let texts = keys::list(keys());
            sql.push(format!(
                "SELECT 1 FROM unisono_intake WHERE `entity` = '{entity}' AND `key` IN ({texts}) LIMIT 1"
            ));
            sql.push(format!(
                "SELECT `unisono_key` FROM unisono_versions WHERE `unisono_entity` = '{entity}' \
                 AND `unisono_key` IN ({texts})"
            ));
        }
        // In a captured table the rows are locked by now, and of other rows the server's own index has the last word: here
        // nobody waits for locks of others.
        let lock = if is_captured { "" } else { " FOR UPDATE" };
        if !self.patched.is_empty() {
            let keys = self.table.keys(self.patched.iter().copied());
            sql.push(format!("SELECT {selected} FROM {name} WHERE {key} IN ({keys}){lock}"));
        }
        for ((field, hashed), wanted) in unique.iter().zip(&self.wanted) {
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
            sql.push(format!(
                "SELECT {key}, {} FROM {name} WHERE {found_by} IN ({}){lock}",
                column.name,
                values.join(", ")
            ));
        }
    }

    /// The greatest keys of streams: a step into the index for each. The head of the log is locked: nobody appends meanwhile.
    fn ends(&self) -> String {
        let Table { name, .. } = self.table.as_ref();
        let key = self.table.key_column();
        let ranges = self.streams.iter().filter_map(|stream| stream::range(stream).ok());
        let end = |(first, last): (Key, Key)| {
            let (first, last) = (self.table.literal(&first), self.table.literal(&last));
            format!(
                "(SELECT {key} FROM {name} WHERE {key} >= {first} AND {key} <= {last} ORDER BY {key} DESC LIMIT 1)"
            )
        };
        ranges.map(end).collect::<Vec<_>>().join(" UNION ALL ")
    }

    /// Takes note of what [`Touched::sql`] has found; answers whether others were faster.
    fn know<'r>(&self, batch: &mut Batch<'_>, next: &mut dyn FnMut() -> &'r [Row]) -> Result<bool> {
        let table = self.table;
        let entity = table.entity.name();
        if !self.keys.is_empty() {
            for (key, at) in tombstones::found(&table.entity, next())? {
                batch.know_deleted(entity, key, at);
            }
        }
        if !self.streams.is_empty() {
            for row in next() {
                batch.know_end(entity, table.key_in(cell(row, 0)?)?);
            }
        }
        let mut there = HashSet::new();
        let sets = match table.capture {
            Some(_) => self.keys.len(),
            None => usize::from(!self.keys.is_empty()),
        };
        for row in (0..sets).flat_map(|_| next()) {
            let key = table.key_in(cell(row, 0)?)?;
            there.insert(key.clone());
            let version = number_of(cell(row, 1)?)?.unwrap_or_default();
            if table.capture.is_some() && version == 0 {
                batch.know_row(entity, key, None);
                continue;
            }
            let without_data = Arc::new(Record::new(Vec::new()));
            batch.know(entity, Stored::new(key, Position::from_i64(version)?, without_data));
        }
        let was_overtaken = match table.capture {
            Some(_) => !next().is_empty() || has_ghost(table, next(), &there)?,
            None => false,
        };
        if !self.patched.is_empty() {
            for row in next() {
                match table.stored(row) {
                    Ok(stored) if table.capture.is_none() || stored.version != Position::ZERO => {
                        batch.know(entity, stored);
                    }
                    Ok(_) => {}
                    Err(damage) => {
                        let key = table.key_in(cell(row, table.entity.key_index())?)?;
                        batch.know_row(entity, key, Some(damage));
                    }
                }
            }
        }
        for ((field, _), wanted) in table.unique.iter().zip(&self.wanted) {
            let Some(column) = table.columns.get(*field).filter(|_| !wanted.is_empty()) else {
                continue;
            };
            for row in next() {
                let key = table.key_in(cell(row, 0)?)?;
                let value = decode(column.form, &column.ty, cell(row, 1)?)?;
                batch.know_owner(entity, *field, value, key);
            }
        }
        Ok(was_overtaken)
    }
}

/// Selects the keys that are there, each by a statement of its own: a list would have the server scan a small table,
/// and wait for locks on rows that nobody has asked for.
fn alone<'k>(
    table: &Table,
    keys: impl Iterator<Item = &'k Key>,
    more: &str,
    lock: &str,
) -> Vec<String> {
    let (name, column) = (&table.name, table.key_column());
    let one = |key| {
        format!("SELECT {column}{more} FROM {name} WHERE {column} = {} {lock}", table.literal(key))
    };
    keys.map(one).collect()
}

/// Whether a record has a version and no row.
fn has_ghost(table: &Table, versions: &[Row], there: &HashSet<Key>) -> Result<bool> {
    for row in versions {
        let text = text_of(cell(row, 0)?)?.unwrap_or_default();
        if !there.contains(&keys::parse(&table.entity.key_field().ty, text)?) {
            return Ok(true);
        }
    }
    Ok(false)
}
