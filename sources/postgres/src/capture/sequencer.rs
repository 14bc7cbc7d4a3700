//! The sequencer: gives what others have committed its positions, and brings the versions up to them.
//!
//! An entry of the intake says only that a record changed; what it is now is read from the row, after the entry. So no
//! order of entries can turn the changes of a record around, and a record that was changed several times is one change.
//! A row can be newer than the entries that were seen: its newer entry then stays in the intake, and is a change of its
//! own next time. That is also why entries are removed by their ids, never by the keys that they name.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use unisono_core::{Key, Position, Result, Version};

use crate::capture::BEGIN;
use crate::capture::changes::{Changes, Column, Known};
use crate::client::Tables;
use crate::codec::{decode_key_text, key_array, key_text};
use crate::error::Failed;
use crate::parameter::{Parameter, cell, integer, optional_text, text};
use crate::session::{Session, Use};
use crate::table::Table;

/// The most entries in one transaction, so that writes are not held up for long.
const ENTRIES_MAX: usize = 2000;

/// One session that works on the intake; but for `waiting` and `spread`, in a transaction.
pub(crate) struct Sequencer<'a> {
    pub(crate) session: &'a Session,
    /// Quoted for SQL.
    pub(crate) schema: &'a str,
    pub(crate) tables: &'a Tables,
}

/// What is in the intake.
pub(crate) struct Waiting {
    /// Whether there is anything.
    pub(crate) any: bool,
    /// Whether there is an entry of a whole table.
    pub(crate) whole: bool,
}

/// What others noted down about one record.
pub(super) struct Entry {
    pub(super) table: Arc<Table>,
    /// As it stands in the intake.
    pub(super) key: String,
    pub(super) time: Option<Vec<u8>>,
    pub(super) actor: Option<Vec<u8>>,
    pub(super) trace: Option<Vec<u8>>,
}

impl Sequencer<'_> {
    /// Looks into the intake.
    pub(crate) async fn waiting(&self) -> Result<Waiting, Failed> {
        let intake = format!(
            "FROM {}.unisono_intake WHERE refused IS NULL AND entity = ANY ($1)",
            self.schema
        );
        let sql = format!(
            "SELECT EXISTS (SELECT {intake})::int::bigint, EXISTS (SELECT {intake} AND key IS NULL)::int::bigint"
        );
        let rows = self.session.rows(Use::Often, &sql, &[self.names()]).await?;
        let is = |column| -> Result<bool> {
            rows.first().map_or(Ok(false), |row| Ok(integer(row, column)? == 1))
        };
        Ok(Waiting { any: is(0)?, whole: is(1)? })
    }

    /// Takes the head row. What is read from now on is what everybody before has left.
    pub(crate) async fn hold(&self) -> Result<(), Failed> {
        let sql = format!("SELECT position FROM {}.unisono_head FOR UPDATE", self.schema);
        self.session.run(&sql).await
    }

    /// Makes one entry for every record of a table that was emptied, or captured without a trigger for a while.
    ///
    /// The head row is taken and let go before: a sequencer that has read rows from before the entry of the whole table
    /// is done then, and the versions that it gave are seen. Meanwhile nobody is held up, however large the table is.
    pub(crate) async fn spread(&self) -> Result<(), Failed> {
        self.session.run(BEGIN).await?;
        self.hold().await?;
        self.session.run("COMMIT").await?;
        for table in self.tables.values() {
            let sql = format!(
                "WITH whole AS (DELETE FROM {schema}.unisono_intake WHERE entity = '{entity}' AND key IS NULL RETURNING actor), \
                 record AS (SELECT unisono_key AS key FROM {schema}.unisono_versions WHERE unisono_entity = '{entity}' \
                  UNION SELECT {key}::text COLLATE \"C\" FROM {name}) \
                 INSERT INTO {schema}.unisono_intake (entity, key, actor) \
                 SELECT '{entity}', record.key, (SELECT max(actor) FROM whole) FROM record WHERE EXISTS (SELECT FROM whole)",
                schema = self.schema,
                entity = table.entity.name(),
                key = table.key(),
                name = table.name,
            );
            let done = self.session.execute(Use::Once, &sql, &[]).await;
            done.map_err(|failed| failed.of(table.entity.name()))?;
        }
        Ok(())
    }

    /// Takes the oldest entries; answers whether there may be more.
    pub(crate) async fn oldest(&self) -> Result<bool, Failed> {
        let sql = format!(
            "SELECT id, entity, key, time, actor, trace FROM {}.unisono_intake \
             WHERE refused IS NULL AND key IS NOT NULL AND entity = ANY ($1) ORDER BY id LIMIT {ENTRIES_MAX}",
            self.schema
        );
        let rows = self.session.rows(Use::Often, &sql, &[self.names()]).await?;
        self.take(&rows, &[]).await?;
        Ok(rows.len() == ENTRIES_MAX)
    }

    /// Takes the entries of some records; answers the ids of those of whole tables, which stay.
    pub(crate) async fn of(&self, places: &[(&Table, &Key)]) -> Result<Column, Failed> {
        let columns = columns_of(places);
        let sql = format!(
            "SELECT i.id, i.entity, i.key, i.time, i.actor, i.trace FROM unnest($1, $2) AS p(entity, key) \
             JOIN {0}.unisono_intake i ON i.entity = p.entity AND i.key = p.key WHERE i.refused IS NULL \
             UNION SELECT id, entity, key, time, actor, trace FROM {0}.unisono_intake \
             WHERE entity = ANY ($1) AND key IS NULL ORDER BY id",
            self.schema
        );
        let rows = self.session.rows(Use::Often, &sql, &columns).await?;
        self.take(&rows, places).await
    }

    /// Whether another transaction has written one of these records since [`Sequencer::of`], which answered `whole`.
    /// What had been refused of them is forgotten.
    pub(crate) async fn was_overtaken(
        &self,
        places: &[(&Table, &Key)],
        whole: &[Option<Vec<u8>>],
    ) -> Result<bool, Failed> {
        let sql = format!(
            "WITH healed AS (DELETE FROM {0}.unisono_intake i USING unnest($1, $2) AS s(entity, key) \
              WHERE i.entity = s.entity AND i.key = s.key AND i.refused IS NOT NULL) \
             SELECT 1 FROM unnest($1, $2) AS p(entity, key) JOIN {0}.unisono_intake i ON i.entity = p.entity AND i.key = p.key \
              WHERE i.refused IS NULL AND i.xid <> pg_current_xact_id() \
             UNION ALL SELECT 1 FROM {0}.unisono_intake WHERE entity = ANY ($1) AND key IS NULL AND id <> ALL ($3)",
            self.schema
        );
        let [entities, keys] = columns_of(places);
        let whole = Parameter::array(&Type::INT8, whole);
        let rows = self.session.rows(Use::Often, &sql, &[entities, keys, whole]).await?;
        Ok(!rows.is_empty())
    }

    /// The captured entities.
    fn names(&self) -> Parameter {
        let captured = self.tables.values().filter(|t| t.capture.is_some());
        let names: Vec<_> = captured.map(|t| Some(t.entity.name().as_bytes().to_vec())).collect();
        Parameter::array(&Type::TEXT, &names)
    }

    /// Writes the changes that entries tell of. One of a whole table stands for each of the `places` in it.
    async fn take(&self, rows: &[Row], places: &[(&Table, &Key)]) -> Result<Column, Failed> {
        let (mut ids, mut whole) = (Column::new(), Column::new());
        let mut entries: Vec<Entry> = Vec::with_capacity(rows.len());
        for row in rows {
            let id = bytes(row, 0)?;
            let Some(table) = self.tables.get(text(row, 1)?) else { continue };
            let entry = |key: String| -> Result<Entry> {
                let (time, actor, trace) = (bytes(row, 3)?, bytes(row, 4)?, bytes(row, 5)?);
                Ok(Entry { table: Arc::clone(table), key, time, actor, trace })
            };
            match optional_text(row, 2)? {
                Some(key) => {
                    entries.push(entry(key.to_owned())?);
                    ids.push(id);
                }
                None => {
                    let of_table =
                        places.iter().filter(|(t, _)| t.entity.name() == table.entity.name());
                    for (_, key) in of_table {
                        entries.push(entry(key_text(key))?);
                    }
                    whole.push(id);
                }
            }
        }
        let changes = self.changes(last_of_each(entries)).await?;
        changes.write(self.session, self.schema, &ids).await?;
        Ok(whole)
    }

    async fn changes(&self, entries: Vec<Entry>) -> Result<Changes, Failed> {
        let mut changes = Changes::default();
        let mut by_table: HashMap<Arc<str>, (Arc<Table>, Vec<Key>)> = HashMap::new();
        let mut decoded: Vec<(Entry, Key)> = Vec::with_capacity(entries.len());
        for entry in entries {
            match decode_key_text(Some(entry.table.key_type()), &entry.key) {
                Ok(key) => {
                    let table = || (Arc::clone(&entry.table), Vec::new());
                    let name = Arc::clone(entry.table.entity.name());
                    by_table.entry(name).or_insert_with(table).1.push(key.clone());
                    decoded.push((entry, key));
                }
                Err(error) => changes.refuse(entry, &error),
            }
        }
        let mut known: HashMap<Arc<str>, Known> = HashMap::new();
        for (name, (table, keys)) in by_table {
            let of_table = self.known(&table, &keys).await;
            let of_table = of_table.map_err(|failed| failed.of(&name))?;
            known.insert(name, of_table);
        }
        for (entry, key) in decoded {
            let Some(of_table) = known.get_mut(entry.table.entity.name()) else { continue };
            match of_table.rows.remove(&key) {
                Some(Err(error)) => changes.refuse(entry, &error),
                Some(Ok(record)) => changes.add(of_table, entry, Some(&record)),
                None => changes.add(of_table, entry, None),
            }
        }
        Ok(changes)
    }

    /// Reads what is there now.
    async fn known(&self, table: &Table, keys: &[Key]) -> Result<Known, Failed> {
        let sql = format!(
            "SELECT {} FROM {} WHERE {} = ANY ($1)",
            table.selected,
            table.name,
            table.key()
        );
        let array = key_array(table.key_type(), &keys.iter().collect::<Vec<_>>());
        let mut rows = HashMap::new();
        for row in &self.session.rows(Use::Often, &sql, &[array]).await? {
            let field = table.entity.key_index();
            let key = Key::from_value(&table.value(field, row, field)?)?;
            rows.insert(key, table.stored(row, 0).map(|stored| stored.record));
        }
        let texts: Vec<_> = keys.iter().map(|key| Some(key_text(key).into_bytes())).collect();
        let parameters =
            [Parameter::text(table.entity.name()), Parameter::array(&Type::TEXT, &texts)];
        let schema = self.schema;
        let versions = format!(
            "SELECT unisono_key, unisono_version FROM {schema}.unisono_versions \
             WHERE unisono_entity = $1 AND unisono_key = ANY ($2)"
        );
        let deleted = format!(
            "SELECT key, version FROM {schema}.unisono_tombstones WHERE entity = $1 AND key = ANY ($2)"
        );
        Ok(Known {
            rows,
            versions: self.versions(&versions, &parameters).await?,
            deleted: self.versions(&deleted, &parameters).await?,
        })
    }

    async fn versions(
        &self,
        sql: &str,
        parameters: &[Parameter],
    ) -> Result<HashMap<String, Version>, Failed> {
        let rows = self.session.rows(Use::Often, sql, parameters).await?;
        let pair =
            |row: &Row| Ok((text(row, 0)?.to_owned(), Position::from_i64(integer(row, 1)?)?));
        Ok(rows.iter().map(pair).collect::<Result<_>>()?)
    }
}

/// The last entry of each record, in their order.
fn last_of_each(entries: Vec<Entry>) -> Vec<Entry> {
    let mut last: HashMap<(Arc<str>, String), usize> = HashMap::new();
    for (n, entry) in entries.iter().enumerate() {
        last.insert((Arc::clone(entry.table.entity.name()), entry.key.clone()), n);
    }
    let is_last = |(n, entry): &(usize, Entry)| {
        let place = (Arc::clone(entry.table.entity.name()), entry.key.clone());
        last.get(&place) == Some(n)
    };
    entries.into_iter().enumerate().filter(is_last).map(|(_, entry)| entry).collect()
}

/// Records as the columns `entity` and `key` of the intake.
fn columns_of(places: &[(&Table, &Key)]) -> [Parameter; 2] {
    let entity = |(table, _): &(&Table, &Key)| Some(table.entity.name().as_bytes().to_vec());
    let key = |(_, key): &(&Table, &Key)| Some(key_text(key).into_bytes());
    let entities: Vec<_> = places.iter().map(entity).collect();
    let keys: Vec<_> = places.iter().map(key).collect();
    [Parameter::array(&Type::TEXT, &entities), Parameter::array(&Type::TEXT, &keys)]
}

fn bytes(row: &Row, column: usize) -> Result<Option<Vec<u8>>> {
    Ok(cell(row, column)?.map(<[u8]>::to_vec))
}
