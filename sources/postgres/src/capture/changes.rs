//! [`Changes`]: what a sequencer has found and is about to write, column by column.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_postgres::types::Type;
use unisono_core::{Error, Key, Record, Result, Version, json};

use crate::capture::sequencer::Entry;
use crate::error::Failed;
use crate::parameter::Parameter;
use crate::session::{Session, Use};

/// The values of one column in their binary form.
pub(crate) type Column = Vec<Option<Vec<u8>>>;

/// What the rows and the source's own tables say of some keys of one entity.
pub(super) struct Known {
    /// The records that are there, or why no entity can hold the row.
    pub(super) rows: HashMap<Key, Result<Arc<Record>>>,
    pub(super) versions: HashMap<String, Version>,
    pub(super) deleted: HashMap<String, Version>,
}

/// What entries and changes have in common.
#[derive(Default)]
struct Records {
    entity: Column,
    key: Column,
    time: Column,
    actor: Column,
    trace: Column,
}

impl Records {
    fn add(&mut self, entry: Entry) {
        self.entity.push(Some(entry.table.entity.name().as_bytes().to_vec()));
        self.key.push(Some(entry.key.into_bytes()));
        self.time.push(entry.time);
        self.actor.push(entry.actor);
        self.trace.push(entry.trace);
    }

    fn parameters(&self) -> [Parameter; 5] {
        [
            Parameter::array(&Type::TEXT, &self.entity),
            Parameter::array(&Type::TEXT, &self.key),
            Parameter::array(&Type::TIMESTAMPTZ, &self.time),
            Parameter::array(&Type::TEXT, &self.actor),
            Parameter::array(&Type::TEXT, &self.trace),
        ]
    }
}

/// What a sequencer is about to write.
#[derive(Default)]
pub(super) struct Changes {
    logged: Records,
    replaced: Column,
    previous: Column,
    image: Column,
    refused: Records,
    reason: Column,
    /// The records that were read, whether there is a change or not.
    read: [Column; 2],
}

impl Changes {
    /// A record is now so, or gone.
    pub(super) fn add(&mut self, known: &Known, entry: Entry, image: Option<&Record>) {
        let number = |version: Option<&Version>| version.map(|v| v.as_i64().to_be_bytes().to_vec());
        let entity = entry.table.entity.name().as_bytes().to_vec();
        let [entities, keys] = &mut self.read;
        entities.push(Some(entity));
        keys.push(Some(entry.key.clone().into_bytes()));
        let replaced = known.versions.get(&entry.key);
        // A record that came and went again between two runs was never there.
        if image.is_none() && replaced.is_none() {
            return;
        }
        self.replaced.push(number(replaced));
        self.previous.push(number(replaced.or_else(|| known.deleted.get(&entry.key))));
        self.image.push(image.map(|record| json::to_vec(&entry.table.entity, record)));
        self.logged.add(entry);
    }

    /// A row that no entity can hold is set aside with the reason. It waits for the next write to its key.
    pub(super) fn refuse(&mut self, entry: Entry, error: &Error) {
        let entity = entry.table.entity.name();
        tracing::warn!(%entity, key = entry.key, %error, "what another program wrote cannot be kept");
        self.reason.push(Some(error.to_string().replace('\0', "").into_bytes()));
        self.refused.add(entry);
    }

    /// Writes everything, and removes the entries.
    pub(super) async fn write(
        self,
        session: &Session,
        schema: &str,
        ids: &[Option<Vec<u8>>],
    ) -> Result<(), Failed> {
        if !self.image.is_empty() {
            self.append(session, schema).await?;
        }
        if ids.is_empty() && self.reason.is_empty() && self.read[0].is_empty() {
            return Ok(());
        }
        let sql = format!(
            "WITH taken AS (DELETE FROM {schema}.unisono_intake WHERE id = ANY ($1)), \
             healed AS (DELETE FROM {schema}.unisono_intake i USING \
              (SELECT * FROM unnest($2, $3) UNION SELECT * FROM unnest($4, $5)) AS r(entity, key) \
              WHERE i.refused IS NOT NULL AND i.entity = r.entity AND i.key = r.key) \
             INSERT INTO {schema}.unisono_intake (entity, key, time, actor, trace, refused) \
             SELECT * FROM unnest($4, $5, $6, $7, $8, $9)"
        );
        let [entities, keys] = &self.read;
        let mut parameters = vec![
            Parameter::array(&Type::INT8, ids),
            Parameter::array(&Type::TEXT, entities),
            Parameter::array(&Type::TEXT, keys),
        ];
        parameters.extend(self.refused.parameters());
        parameters.push(Parameter::array(&Type::TEXT, &self.reason));
        session.execute(Use::Often, &sql, &parameters).await.map(drop)
    }

    /// Writes the log, the versions, the tombstones and the head.
    async fn append(&self, session: &Session, schema: &str) -> Result<(), Failed> {
        let mut parameters = vec![
            Parameter::integer(self.image.len() as i64),
            Parameter::array(&Type::INT8, &self.replaced),
            Parameter::array(&Type::INT8, &self.previous),
            Parameter::array(&Type::JSON, &self.image),
        ];
        parameters.extend(self.logged.parameters());
        let sql = format!(
            "WITH head AS (UPDATE {schema}.unisono_head SET position = position + $1 RETURNING position - $1 AS base), \
             entry AS (SELECT head.base + e.at AS position, e.* FROM head, unnest($2, $3, $4, $5, $6, $7, $8, $9) WITH ORDINALITY \
              AS e(replaced, previous, image, entity, key, time, actor, trace, at)), \
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
        session.execute(Use::Often, &sql, &parameters).await.map(drop)
    }
}
