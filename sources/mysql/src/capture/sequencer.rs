//! The sequencer: gives what others have committed its positions, and brings the versions up to them.
//!
//! An entry of the intake says only that a record changed; what it is now is read from the row, after the entry. So no
//! order of entries can turn the changes of a record around, and a record that was changed several times is one change.
//! A row can be newer than the entries that were seen: its newer entry then stays in the intake, and is a change of its
//! own next time. That is also why entries are removed by their ids, never by the keys that they name.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use mysql_async::Row;
use unisono_core::{
    Change, Error, ErrorKind, Key, Operation, Position, Result, Stored, Timestamp, Version,
};

use crate::capture::keys::{list, parse};
use crate::capture::{NOW, captured};
use crate::client::Tables;
use crate::codec::{number_of, text_of};
use crate::error::Failed;
use crate::literal::text;
use crate::mutation::packets;
use crate::pool::Session;
use crate::table::{Table, cell};
use crate::tombstones;
use crate::truth::{Pending, STATEMENT_OVERHEAD};

/// The most entries in one transaction, so that writes are not held up for long.
const ENTRIES_MAX: usize = 2000;
/// Records that are read and written at once.
const RECORDS_MAX: usize = 200;
/// About how many bytes of records go in one transaction.
const BYTES_MAX: usize = 8 << 20;

/// A transaction that holds the head row.
pub(crate) struct Sequencer<'a> {
    session: &'a mut Session,
    tables: &'a Tables,
    /// The position of the last change so far.
    pub(crate) head: Position,
}

/// What others noted down about one record.
struct Entry {
    table: Arc<Table>,
    text: String,
    /// All entries that were seen.
    ids: Vec<i64>,
    /// Of the last of them.
    time: Timestamp,
    actor: Option<Arc<str>>,
    trace: Option<Arc<str>>,
}

/// What is there of some records of one entity.
#[derive(Default)]
struct Known {
    rows: HashMap<Key, Result<Stored>>,
    versions: HashMap<String, Version>,
    deleted: HashMap<Key, Version>,
}

/// What is to be written for some entries.
#[derive(Default)]
struct Work {
    pending: Pending,
    done: Vec<i64>,
    /// By entity, the literals of keys whose earlier refusals are settled.
    settled: HashMap<Arc<str>, Vec<String>>,
    refusals: Vec<String>,
    bytes: usize,
}

impl<'a> Sequencer<'a> {
    /// Goes on behind a position, which the caller holds locked.
    pub(crate) fn new(session: &'a mut Session, tables: &'a Tables, head: Position) -> Self {
        Sequencer { session, tables, head }
    }

    /// Takes the oldest entries.
    pub(crate) async fn oldest(&mut self) -> Result<(), Failed> {
        // An entity's name needs no quoting: lower case letters, digits and underscores.
        let names: Vec<_> =
            captured(self.tables).iter().map(|t| format!("'{}'", t.entity.name())).collect();
        self.take(&format!("`entity` IN ({})", names.join(", "))).await
    }

    /// Takes the entries of some records, also of those whose rows have gone without one.
    pub(crate) async fn of(
        &mut self,
        table: &Table,
        keys: impl Iterator<Item = &Key> + Clone,
    ) -> Result<(), Failed> {
        let keys = list(keys);
        self.note_ghosts(table, Some(&keys)).await?;
        self.take(&format!("`entity` = '{}' AND `key` IN ({keys})", table.entity.name())).await
    }

    /// Makes entries for records that have a version and no row, of the oldest or of those given as literals.
    pub(crate) async fn note_ghosts(
        &mut self,
        table: &Table,
        keys: Option<&str>,
    ) -> Result<(), Failed> {
        let (entity, name, key) = (table.entity.name(), &table.name, table.key_column());
        let among = keys.map_or(String::new(), |keys| format!(" AND v.`unisono_key` IN ({keys})"));
        let sql = format!(
            "INSERT INTO unisono_intake (`entity`, `key`, `time`) \
             SELECT '{entity}', v.`unisono_key`, {NOW} FROM unisono_versions AS v LEFT JOIN {name} AS t ON t.{key} = {} \
             WHERE v.`unisono_entity` = '{entity}' AND t.{key} IS NULL{among} \
             AND NOT EXISTS (SELECT 1 FROM unisono_intake AS i WHERE i.`entity` = '{entity}' AND i.`key` = v.`unisono_key`) \
             ORDER BY v.`unisono_version` LIMIT {ENTRIES_MAX}",
            table.key.native("v.`unisono_key`")
        );
        self.session.run(&sql).await.map(drop)
    }

    async fn take(&mut self, condition: &str) -> Result<(), Failed> {
        let sql = format!(
            "SELECT `id`, `entity`, `key`, `time`, `actor`, `trace` FROM unisono_intake WHERE {condition} \
             ORDER BY `id` LIMIT {ENTRIES_MAX}"
        );
        let rows = self.session.run(&sql).await?.into_iter().next().unwrap_or_default();
        let entries = self.entries(&rows)?;
        let mut bytes = 0;
        for some in entries.chunks(RECORDS_MAX) {
            bytes += self.sequence(some).await?;
            if bytes > BYTES_MAX {
                break;
            }
        }
        Ok(())
    }

    /// The entries of each record as one, in the order of their last ones.
    fn entries(&self, rows: &[Row]) -> Result<Vec<Entry>> {
        let mut at: HashMap<(String, String), usize> = HashMap::new();
        let mut entries: Vec<Entry> = Vec::new();
        for row in rows.iter().rev() {
            let word = |at| Ok::<_, Error>(text_of(cell(row, at)?)?.map(str::to_owned));
            let (entity, text) = (word(1)?.unwrap_or_default(), word(2)?.unwrap_or_default());
            let Some(table) = self.tables.get(entity.as_str()) else { continue };
            let id = number_of(cell(row, 0)?)?.unwrap_or_default();
            if let Some(entry) = at.get(&(entity.clone(), text.clone())) {
                entries.get_mut(*entry).into_iter().for_each(|entry| entry.ids.push(id));
                continue;
            }
            at.insert((entity, text.clone()), entries.len());
            let time = number_of(cell(row, 3)?)?.unwrap_or_default();
            entries.push(Entry {
                table: Arc::clone(table),
                text,
                ids: vec![id],
                time: Timestamp::from_micros_clamped(time),
                actor: word(4)?.map(Arc::from),
                trace: word(5)?.map(Arc::from),
            });
        }
        entries.reverse();
        Ok(entries)
    }

    /// Writes the changes of some records; answers about how many bytes they have.
    async fn sequence(&mut self, entries: &[Entry]) -> Result<usize, Failed> {
        let keys: Vec<Result<Key>> =
            (entries.iter()).map(|e| parse(&e.table.entity.key_field().ty, &e.text)).collect();
        let mut known = self.known(entries, &keys).await?;
        let packet_bytes = self.session.connection().server.packet_bytes_max.saturating_sub(1024);
        let begun = self.head;
        let mut work = Work::default();
        for (entry, key) in entries.iter().zip(keys) {
            work.done.extend(&entry.ids);
            let table = &entry.table;
            let known = known.entry(Arc::clone(table.entity.name())).or_default();
            work.settled
                .entry(Arc::clone(table.entity.name()))
                .or_default()
                .push(text(&entry.text));
            let change = key.and_then(|key| self.change(entry, key, known));
            let written = change.and_then(|change| match change {
                Some((change, previous)) => {
                    let limit = packet_bytes.saturating_sub(STATEMENT_OVERHEAD);
                    work.write(table, &change, previous, known, limit)?;
                    self.head = change.position;
                    Ok(())
                }
                None => Ok(()),
            });
            if let Err(error) = written {
                work.refuse(entry, &error);
            }
        }
        let bytes = work.bytes;
        let head = (self.head != begun).then_some(self.head);
        for packet in packets(work.into_statements(head), packet_bytes) {
            self.session.run(&packet).await?;
        }
        Ok(bytes)
    }

    /// What became of a record, with the version before it in its history; `None` if it came and went between two runs.
    fn change(
        &self,
        entry: &Entry,
        key: Key,
        known: &mut Known,
    ) -> Result<Option<(Change, Option<Version>)>> {
        let image = known.rows.remove(&key).transpose()?.map(|stored| stored.record);
        let replaced = known.versions.get(&entry.text).copied();
        if image.is_none() && replaced.is_none() {
            return Ok(None);
        }
        let previous = replaced.or_else(|| known.deleted.get(&key).copied());
        let change = Change {
            position: self.head.next(),
            entity: Arc::clone(entry.table.entity.name()),
            key,
            operation: if image.is_some() { Operation::Put } else { Operation::Delete },
            replaced,
            image,
            time: entry.time,
            actor: entry.actor.clone(),
            trace: entry.trace.clone(),
        };
        Ok(Some((change, previous)))
    }

    /// Reads what is there now, table by table, in one exchange.
    async fn known(
        &mut self,
        entries: &[Entry],
        keys: &[Result<Key>],
    ) -> Result<HashMap<Arc<str>, Known>, Failed> {
        let mut by_table: Vec<(&Arc<Table>, Vec<&Key>)> = Vec::new();
        for (entry, key) in entries.iter().zip(keys) {
            let Ok(key) = key else { continue };
            match by_table.iter_mut().find(|(table, _)| Arc::ptr_eq(table, &entry.table)) {
                Some((_, keys)) => keys.push(key),
                None => by_table.push((&entry.table, vec![key])),
            }
        }
        let mut sql = Vec::new();
        for (table, keys) in &by_table {
            let (name, selected, entity) = (&table.name, &table.selected, table.entity.name());
            let listed = table.keys(keys.iter().copied());
            sql.push(format!(
                "SELECT {selected} FROM {name} WHERE {} IN ({listed})",
                table.key_column()
            ));
            sql.push(format!(
                "SELECT `unisono_key`, `unisono_version` FROM unisono_versions WHERE `unisono_entity` = '{entity}' \
                 AND `unisono_key` IN ({})",
                list(keys.iter().copied())
            ));
            sql.push(tombstones::find(entity, keys.iter().copied()));
        }
        if sql.is_empty() {
            return Ok(HashMap::new());
        }
        let sets = self.session.run(&sql.join("; ")).await?;
        let mut all = HashMap::new();
        for ((table, _), sets) in by_table.iter().zip(sets.chunks(3)) {
            let [rows, versions, deleted] = sets else { continue };
            let mut known = Known::default();
            for row in rows {
                known
                    .rows
                    .insert(table.key_in(cell(row, table.entity.key_index())?)?, table.stored(row));
            }
            for row in versions {
                let key = text_of(cell(row, 0)?)?.unwrap_or_default().to_owned();
                let version = number_of(cell(row, 1)?)?.unwrap_or_default();
                known.versions.insert(key, Position::from_i64(version)?);
            }
            known.deleted.extend(tombstones::found(&table.entity, deleted)?);
            all.insert(Arc::clone(table.entity.name()), known);
        }
        Ok(all)
    }
}

impl Work {
    fn write(
        &mut self,
        table: &Arc<Table>,
        change: &Change,
        previous: Option<Version>,
        known: &Known,
        limit: usize,
    ) -> Result<()> {
        let mut own = Pending::default();
        let bytes = own.logged(table, change, previous);
        if bytes > limit {
            return Err(Error::new(ErrorKind::LimitExceeded, "the record is too big for the log")
                .with("bytes", bytes)
                .with("limit", limit)
                .hint("raise max_allowed_packet of the server"));
        }
        match &change.image {
            None => own.tombstone(&change.entity, &change.key, Some(change.position)),
            Some(_) if change.replaced.is_none() && known.deleted.contains_key(&change.key) => {
                own.tombstone(&change.entity, &change.key, None);
            }
            Some(_) => {}
        }
        self.bytes += bytes;
        self.pending.append(own);
        Ok(())
    }

    /// Sets the entries of a record aside, which no entity can hold as it is.
    fn refuse(&mut self, entry: &Entry, error: &Error) {
        let (entity, key) = (entry.table.entity.name(), text(&entry.text));
        tracing::warn!(%entity, key = %entry.text, %error, "a row that others have written is no record");
        self.refusals.push(format!(
            "INSERT INTO unisono_refused (`entity`, `key`, `time`, `reason`) VALUES ('{entity}', {key}, {}, {})",
            entry.time.micros(),
            text(&error.to_string())
        ));
    }

    fn into_statements(self, head: Option<Position>) -> Vec<String> {
        let mut out = self.pending.into_statements();
        for (entity, keys) in &self.settled {
            let keys: HashSet<&str> = keys.iter().map(String::as_str).collect();
            let keys = keys.into_iter().collect::<Vec<_>>().join(", ");
            out.push(format!(
                "DELETE FROM unisono_refused WHERE `entity` = '{entity}' AND `key` IN ({keys})"
            ));
        }
        out.extend(self.refusals);
        let ids: Vec<_> = self.done.iter().map(i64::to_string).collect();
        out.push(format!("DELETE FROM unisono_intake WHERE `id` IN ({})", ids.join(", ")));
        out.extend(
            head.map(|head| {
                format!("UPDATE unisono_head SET `position` = {head} WHERE `only` = 1")
            }),
        );
        out
    }
}
