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
use unisono_core::{Error, ErrorKind, Key, Position, Record, Result, Version, json};

use crate::client::Tables;
use crate::codec::{decode_key_text, key_array, key_text};
use crate::error::Failed;
use crate::parameter::{Parameter, cell, integer, text};
use crate::session::{Session, Use};
use crate::table::Table;

/// The most entries in one transaction, so that writes are not held up for long.
const ENTRIES_MAX: usize = 2000;

/// A transaction that holds the head row.
pub(crate) struct Sequencer<'a> {
    pub(crate) session: &'a Session,
    /// Quoted for SQL.
    pub(crate) schema: &'a str,
    pub(crate) tables: &'a Tables,
}

/// What others noted down about one record, most lately.
struct Entry {
    table: Arc<Table>,
    key: Key,
    time: Vec<u8>,
    actor: Option<Vec<u8>>,
    trace: Option<Vec<u8>>,
}

/// The values of one column, as text.
type Column = Vec<Option<Vec<u8>>>;

/// What is to be written; every column of the log but the operation.
#[derive(Default)]
struct Changes {
    entity: Column,
    key: Column,
    replaced: Column,
    previous: Column,
    image: Column,
    time: Column,
    actor: Column,
    trace: Column,
}

/// What the rows and the source's own tables say of some keys of one entity.
struct Known {
    rows: HashMap<Key, Result<Arc<Record>>>,
    versions: HashMap<String, Version>,
    deleted: HashMap<String, Version>,
}

impl Sequencer<'_> {
    /// Takes the oldest entries, and if these were not all, those of the given records.
    pub(crate) async fn run_for(&self, places: &[(&Table, &Key)]) -> Result<(), Failed> {
        if self.run().await? || places.is_empty() {
            return Ok(());
        }
        let (entities, keys) = columns_of(places);
        let parameters =
            [Parameter::array(&Type::TEXT, &entities), Parameter::array(&Type::TEXT, &keys)];
        let condition = "(entity, key) IN (SELECT * FROM unnest($1, $2))";
        self.take(condition, &parameters).await.map(drop)
    }

    /// Takes the oldest entries; answers whether these were all.
    pub(crate) async fn run(&self) -> Result<bool, Failed> {
        let captured = self.tables.values().filter(|t| t.capture.is_some());
        let names: Vec<_> = captured.map(|t| Some(t.entity.name().as_bytes().to_vec())).collect();
        let names = Parameter::array(&Type::TEXT, &names);
        self.spread(&names).await?;
        self.take("key IS NOT NULL AND entity = ANY ($1)", &[names]).await
    }

    /// Takes entries; answers whether there were fewer than are taken at once.
    async fn take(&self, condition: &str, parameters: &[Parameter]) -> Result<bool, Failed> {
        let sql = format!(
            "SELECT id, entity, key, time, actor, trace FROM {}.unisono_intake \
             WHERE refused IS NULL AND {condition} ORDER BY id LIMIT {ENTRIES_MAX}",
            self.schema
        );
        let rows = self.session.rows(Use::Often, &sql, parameters).await?;
        if rows.is_empty() {
            return Ok(true);
        }
        let ids: Vec<_> = rows.iter().map(|row| bytes(row, 0)).collect::<Result<_>>()?;
        let ids = Parameter::array(&Type::INT8, &ids);
        let entries = self.entries(&rows, &ids).await?;
        self.write(entries, &ids).await?;
        let sql = format!(
            "DELETE FROM {}.unisono_intake WHERE id = ANY ($1) AND refused IS NULL",
            self.schema
        );
        self.session.execute(Use::Often, &sql, &[ids]).await?;
        Ok(rows.len() < ENTRIES_MAX)
    }

    /// Whether another transaction than the current one has written one of these records, and the entry still waits.
    pub(crate) async fn was_overtaken(&self, places: &[(&Table, &Key)]) -> Result<bool, Failed> {
        let (entities, keys) = columns_of(places);
        let sql = format!(
            "SELECT 1 FROM {}.unisono_intake WHERE (entity, key) IN (SELECT * FROM unnest($1, $2)) \
             AND refused IS NULL AND xid <> pg_current_xact_id() LIMIT 1",
            self.schema
        );
        let parameters =
            [Parameter::array(&Type::TEXT, &entities), Parameter::array(&Type::TEXT, &keys)];
        Ok(!self.session.rows(Use::Often, &sql, &parameters).await?.is_empty())
    }

    /// Makes one entry for every record of a table that was emptied, or captured without a trigger for a while.
    async fn spread(&self, names: &Parameter) -> Result<(), Failed> {
        let sql = format!(
            "DELETE FROM {}.unisono_intake WHERE key IS NULL AND entity = ANY ($1) RETURNING entity, actor",
            self.schema
        );
        let rows = self.session.rows(Use::Often, &sql, std::slice::from_ref(names)).await?;
        for row in &rows {
            let Some(table) = self.tables.get(text(row, 0)?) else { continue };
            let sql = format!(
                "INSERT INTO {schema}.unisono_intake (entity, key, actor) SELECT '{entity}', k, $1 FROM \
                 (SELECT unisono_key AS k FROM {schema}.unisono_versions WHERE unisono_entity = '{entity}' \
                  UNION SELECT {key}::text COLLATE \"C\" FROM {name}) k",
                schema = self.schema,
                entity = table.entity.name(),
                key = table.key(),
                name = table.name,
            );
            let actor = Parameter::new(Type::TEXT, cell(row, 1)?.map(<[u8]>::to_vec));
            self.session.execute(Use::Once, &sql, &[actor]).await?;
        }
        Ok(())
    }

    /// The last entry of each record, in their order; a key that no record can have is refused.
    async fn entries(&self, rows: &[Row], ids: &Parameter) -> Result<Vec<Entry>, Failed> {
        let mut last: HashMap<(&str, &str), usize> = HashMap::new();
        for (n, row) in rows.iter().enumerate() {
            last.insert((text(row, 1)?, text(row, 2)?), n);
        }
        let mut entries = Vec::with_capacity(last.len());
        for (n, row) in rows.iter().enumerate() {
            let (entity, key) = (text(row, 1)?, text(row, 2)?);
            let Some(table) =
                self.tables.get(entity).filter(|_| last.get(&(entity, key)) == Some(&n))
            else {
                continue;
            };
            match decode_key_text(Some(table.key_type()), key) {
                Ok(decoded) => entries.push(Entry {
                    table: Arc::clone(table),
                    key: decoded,
                    time: bytes(row, 3)?.unwrap_or_default(),
                    actor: bytes(row, 4)?,
                    trace: bytes(row, 5)?,
                }),
                Err(error) => self.refuse(entity, key, &error, ids).await?,
            }
        }
        Ok(entries)
    }

    /// Sets the entries of a record aside, which no entity can hold as it is.
    async fn refuse(
        &self,
        entity: &str,
        key: &str,
        error: &Error,
        ids: &Parameter,
    ) -> Result<(), Failed> {
        let sql = format!(
            "UPDATE {}.unisono_intake SET refused = $3 WHERE entity = $1 AND key = $2 AND id = ANY ($4)",
            self.schema
        );
        let [entity, key, reason] = [entity, key, &error.to_string()].map(Parameter::text);
        self.session.execute(Use::Once, &sql, &[entity, key, reason, ids.clone()]).await.map(drop)
    }

    async fn write(&self, entries: Vec<Entry>, ids: &Parameter) -> Result<(), Failed> {
        let mut by_table: HashMap<&str, Vec<&Entry>> = HashMap::new();
        for entry in &entries {
            by_table.entry(entry.table.entity.name()).or_default().push(entry);
        }
        let mut known = HashMap::new();
        for (entity, of_table) in by_table {
            known.insert(entity.to_owned(), self.known(&of_table).await?);
        }
        let mut changes = Changes::default();
        for entry in entries {
            let entity = Arc::clone(entry.table.entity.name());
            let Some(known) = known.get_mut(entity.as_ref()) else { continue };
            let image = match known.rows.remove(&entry.key) {
                None => None,
                Some(Ok(record)) => Some(record),
                Some(Err(error)) => {
                    self.refuse(&entity, &key_text(&entry.key), &error, ids).await?;
                    continue;
                }
            };
            changes.add(known, &entry, image.as_deref());
        }
        match changes.key.is_empty() {
            true => Ok(()),
            false => self.append(changes).await,
        }
    }

    /// Reads what is there now.
    async fn known(&self, entries: &[&Entry]) -> Result<Known, Failed> {
        let Some(Entry { table, .. }) = entries.first() else {
            return Err(Error::internal("no entries of a table").into());
        };
        let keys: Vec<_> = entries.iter().map(|e| &e.key).collect();
        let sql = format!(
            "SELECT {} FROM {} WHERE {} = ANY ($1)",
            table.selected,
            table.name,
            table.key()
        );
        let mut rows = HashMap::new();
        for row in
            &self.session.rows(Use::Often, &sql, &[key_array(table.key_type(), &keys)]).await?
        {
            let field = table.entity.key_index();
            let key = Key::from_value(&table.value(field, row, field)?)?;
            let record = match table.stored(row, 0) {
                Ok(stored) => Ok(stored.record),
                Err(e) if matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::InvalidInput) => {
                    Err(e)
                }
                Err(e) => return Err(e.into()),
            };
            rows.insert(key, record);
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

    /// Writes the log, the versions, the tombstones and the head.
    async fn append(&self, changes: Changes) -> Result<(), Failed> {
        let schema = self.schema;
        let count = Parameter::integer(changes.key.len() as i64);
        let parameters = [
            count,
            Parameter::array(&Type::TEXT, &changes.entity),
            Parameter::array(&Type::TEXT, &changes.key),
            Parameter::array(&Type::INT8, &changes.replaced),
            Parameter::array(&Type::INT8, &changes.previous),
            Parameter::array(&Type::JSON, &changes.image),
            Parameter::array(&Type::TIMESTAMPTZ, &changes.time),
            Parameter::array(&Type::TEXT, &changes.actor),
            Parameter::array(&Type::TEXT, &changes.trace),
        ];
        let sql = format!(
            "WITH head AS (UPDATE {schema}.unisono_head SET position = position + $1 RETURNING position - $1 AS base), \
             entry AS (SELECT head.base + e.at AS position, e.* FROM head, unnest($2, $3, $4, $5, $6, $7, $8, $9) WITH ORDINALITY \
              AS e(entity, key, replaced, previous, image, time, actor, trace, at)), \
             put AS (INSERT INTO {schema}.unisono_versions (unisono_entity, unisono_key, unisono_version) \
              SELECT entity, key, position FROM entry WHERE image IS NOT NULL \
              ON CONFLICT (unisono_entity, unisono_key) DO UPDATE SET unisono_version = excluded.unisono_version), \
             cut AS (DELETE FROM {schema}.unisono_versions v USING entry e \
              WHERE e.image IS NULL AND v.unisono_entity = e.entity AND v.unisono_key = e.key), \
             grave AS (INSERT INTO {schema}.unisono_tombstones (entity, key, version) \
              SELECT entity, key, position FROM entry WHERE image IS NULL \
              ON CONFLICT (entity, key) DO UPDATE SET version = excluded.version) \
             INSERT INTO {schema}.unisono_log (position, entity, key, operation, replaced, previous, image, time, actor, trace) \
             SELECT position, entity, key, CASE WHEN image IS NULL THEN 'delete' ELSE 'put' END, replaced, previous, \
              image, time, actor, trace FROM entry ORDER BY position"
        );
        self.session.execute(Use::Often, &sql, &parameters).await?;
        // What had been refused of these records is now in the log.
        let sql = format!(
            "DELETE FROM {schema}.unisono_intake i USING unnest($1, $2) AS e(entity, key) \
             WHERE i.refused IS NOT NULL AND i.entity = e.entity AND i.key = e.key"
        );
        let [_, entity, key, ..] = parameters;
        self.session.execute(Use::Often, &sql, &[entity, key]).await.map(drop)
    }
}

impl Changes {
    fn add(&mut self, known: &Known, entry: &Entry, image: Option<&Record>) {
        let number = |version: Option<&Version>| version.map(|v| v.as_i64().to_be_bytes().to_vec());
        let key = key_text(&entry.key);
        let replaced = known.versions.get(&key);
        // A record that came and went again between two runs was never there.
        if image.is_none() && replaced.is_none() {
            return;
        }
        self.entity.push(Some(entry.table.entity.name().as_bytes().to_vec()));
        self.replaced.push(number(replaced));
        self.previous.push(number(replaced.or_else(|| known.deleted.get(&key))));
        self.key.push(Some(key.into_bytes()));
        self.image.push(image.map(|record| json::to_vec(&entry.table.entity, record)));
        self.time.push(Some(entry.time.clone()));
        self.actor.push(entry.actor.clone());
        self.trace.push(entry.trace.clone());
    }
}

/// Records as the columns `entity` and `key` of the intake.
fn columns_of(places: &[(&Table, &Key)]) -> (Column, Column) {
    let pair = |(table, key): &(&Table, &Key)| {
        let entity = table.entity.name().as_bytes().to_vec();
        (Some(entity), Some(key_text(key).into_bytes()))
    };
    places.iter().map(pair).unzip()
}

fn bytes(row: &Row, column: usize) -> Result<Option<Vec<u8>>> {
    Ok(cell(row, column)?.map(<[u8]>::to_vec))
}
