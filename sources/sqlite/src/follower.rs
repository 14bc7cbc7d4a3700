//! The follower: changes, tombstones and checkpoint in one transaction.

use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension};
use unisono_core::source::{Advance, Applied, Batch, Checkpoint, Follower, Outcome};
use unisono_core::{Change, Entity, Error, ErrorKind, Result};

use crate::error::{is_of_statement, translate};
use crate::source::SqliteSource;
use crate::table::{Refused, Table};
use crate::tombstones;
use crate::truth::{is_whole, transaction};

/// The stored checkpoint of an entity, as the current transaction sees it.
pub(crate) fn checkpoint(connection: &Connection, entity: &str) -> Result<Option<Checkpoint>> {
    let sql = "SELECT checkpoint FROM unisono_checkpoints WHERE entity = ?1";
    let mut statement = connection.prepare_cached(sql).map_err(translate)?;
    let text: Option<String> =
        statement.query_row([entity], |row| row.get(0)).optional().map_err(translate)?;
    text.map(|text| {
        serde_json::from_str(&text).map_err(|e| {
            Error::new(ErrorKind::Corrupt, "the stored checkpoint cannot be decoded").caused_by(e)
        })
    })
    .transpose()
}

#[async_trait]
impl Follower for SqliteSource {
    async fn apply(&self, batch: Batch) -> Result<Applied> {
        let table = self.client().table(batch.entity.name())?;
        let entity = Arc::clone(&batch.entity);
        let name = Arc::clone(self.client().name());
        let applied = self.client().write("apply", move |connection| {
            transaction(connection, |connection| apply(connection, &table, &batch, &name))
        });
        applied.await.map_err(|e| e.of(entity.name()))
    }

    async fn checkpoint(&self, entity: &Arc<Entity>) -> Result<Option<Checkpoint>> {
        let entity = Arc::clone(entity);
        // The writer looks whether the file is still the one that was opened; a reader would not notice.
        self.client()
            .write("checkpoint", move |connection| checkpoint(connection, entity.name()))
            .await
    }

    async fn reset(&self, entity: &Arc<Entity>) -> Result<()> {
        let table = self.client().table(entity.name())?;
        let reset = self.client().write("reset", move |connection| {
            transaction(connection, |connection| {
                let entity = table.entity.name().as_ref();
                connection
                    .execute(&format!("DELETE FROM {}", table.name), [])
                    .map_err(translate)?;
                for of in ["unisono_tombstones", "unisono_checkpoints"] {
                    let sql = format!("DELETE FROM {of} WHERE entity = ?1");
                    connection.execute(&sql, [entity]).map_err(translate)?;
                }
                Ok(())
            })
        });
        reset.await.map_err(|e| e.of(entity.name()))
    }
}

fn apply(connection: &Connection, table: &Table, batch: &Batch, source: &str) -> Result<Applied> {
    let entity = table.entity.name().as_ref();
    if let Some(advance) = &batch.advance {
        let stored = checkpoint(connection, entity)?;
        if stored != advance.from {
            return Err(moved(stored.as_ref(), advance));
        }
    }
    let mut outcomes = Vec::with_capacity(batch.changes.len());
    let mut deleted = Vec::new();
    for change in &batch.changes {
        outcomes.push(match apply_one(connection, table, change, batch.copied)? {
            Outcome::Rejected(error) => Outcome::Rejected(error.on("apply").at(source).of(entity)),
            outcome => {
                if matches!(outcome, Outcome::Applied) && change.image.is_none() {
                    deleted.push(change);
                }
                outcome
            }
        });
    }
    let settled = outcomes.iter().all(|o| matches!(o, Outcome::Applied | Outcome::Stale));
    let advance = batch.advance.as_ref().filter(|_| settled);
    // While the first copy is made, records that were read before a deletion may still be under way.
    if let Some(Advance { from: Some(passed), .. }) = advance
        && passed.backfill.is_none()
    {
        // Everything up to a position that the checkpoint has left behind is never sent again.
        tombstones::forget(connection, entity, passed.position)?;
    }
    // After the old ones were forgotten: a deletion outlives the batch that brought it.
    for change in deleted {
        tombstones::put(connection, change)?;
    }
    if let Some(advance) = advance {
        save_checkpoint(connection, entity, &advance.to)?;
    }
    Ok(Applied { outcomes, advanced: advance.is_some() })
}

fn apply_one(
    connection: &Connection,
    table: &Table,
    change: &Change,
    copied: bool,
) -> Result<Outcome> {
    if !is_whole(change.operation, change.image.is_some()) {
        return Ok(Outcome::Rejected(
            Error::new(ErrorKind::Corrupt, "the change has no image, or one too many")
                .with("key", &change.key),
        ));
    }
    let current = table.version(connection, &change.key)?;
    let deletion = tombstones::find(connection, &change.entity, &change.key)?;
    let known = current.max(deletion);
    if known.is_some_and(
        |known| if copied { change.position < known } else { change.position <= known },
    ) {
        return Ok(Outcome::Stale);
    }
    let written = match &change.image {
        Some(record) => table.write(connection, record, change.position, current.is_some()),
        None => table.delete(connection, &change.key).map(drop).map_err(Refused::Native),
    };
    match written {
        Ok(()) => {}
        Err(Refused::Value(error)) => return Ok(Outcome::Rejected(error.with("key", &change.key))),
        Err(Refused::Native(native)) if is_of_statement(&native) => {
            return Ok(Outcome::Rejected(translate(native).with("key", &change.key)));
        }
        Err(Refused::Native(native)) => return Err(translate(native)),
    }
    if deletion.is_some() && change.image.is_some() {
        tombstones::remove(connection, &change.entity, &change.key)?;
    }
    Ok(Outcome::Applied)
}

fn save_checkpoint(connection: &Connection, entity: &str, checkpoint: &Checkpoint) -> Result<()> {
    let text = serde_json::to_string(checkpoint)
        .map_err(|e| Error::internal("the checkpoint cannot be encoded").caused_by(e))?;
    let sql = "INSERT INTO unisono_checkpoints (entity, checkpoint) VALUES (?1, ?2) \
               ON CONFLICT (entity) DO UPDATE SET checkpoint = excluded.checkpoint";
    let mut statement = connection.prepare_cached(sql).map_err(translate)?;
    statement.execute([entity, &text]).map(drop).map_err(translate)
}

fn moved(stored: Option<&Checkpoint>, advance: &Advance) -> Error {
    let show = |checkpoint: Option<&Checkpoint>| {
        checkpoint.map_or("none".to_owned(), |c| c.position.to_string())
    };
    Error::new(ErrorKind::CheckpointMoved, "the checkpoint is not where the delivery left it")
        .with("expected", show(advance.from.as_ref()))
        .with("stored", show(stored))
}
