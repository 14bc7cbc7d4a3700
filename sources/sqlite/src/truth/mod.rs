//! The truth: rows and log in one transaction.

mod commit;
mod log;
pub(crate) mod mark;

pub(crate) use log::append;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use unisono_core::source::{LogBounds, Truth, begins_above};
use unisono_core::write::{Committed, Unit};
use unisono_core::{
    Change, Entity, Error, ErrorKind, Key, Operation, Position, Result, Timestamp, Uuid,
};

use crate::capture;
use crate::error::{at_commit, translate};
use crate::source::SqliteSource;

/// Where the log begins and ends, as the current transaction sees it.
///
/// Every position has a line, so the last line says where the log ends; a row that kept it too would be one page more
/// in every commit.
pub(crate) fn bounds(connection: &Connection) -> Result<LogBounds> {
    let sql = "SELECT log, trimmed, max(trimmed, coalesce((SELECT max(position) FROM unisono_log), 0)) \
               FROM unisono_head";
    let mut statement = connection.prepare_cached(sql).map_err(translate)?;
    let row = statement
        .query_row([], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        })
        .optional()
        .map_err(translate)?;
    let (log, trimmed, head) = row.ok_or_else(|| {
        Error::new(ErrorKind::Corrupt, "the head row of the log is missing")
            .hint("restore the database from a backup")
    })?;
    let log = Uuid::try_parse(&log).map_err(|e| {
        Error::new(ErrorKind::Corrupt, "the identity of the log is not a UUID").caused_by(e)
    })?;
    Ok(LogBounds { log, trimmed: Position::from_i64(trimmed)?, head: Position::from_i64(head)? })
}

#[async_trait]
impl Truth for SqliteSource {
    async fn commit(&self, units: Vec<Unit>) -> Result<Vec<Result<Committed>>> {
        let (tables, mark) = (self.client().tables(), self.client().mark());
        let name = Arc::clone(self.client().name());
        self.client()
            .write("commit", move |connection| {
                let results = commit::commit(connection, &tables, &mark, &units, None)?;
                Ok(results.into_iter().map(|r| r.map_err(|e| e.on("commit").at(&name))).collect())
            })
            .await
    }

    async fn bounds(&self) -> Result<LogBounds> {
        self.sequence().await?;
        let mark = self.client().mark();
        self.client()
            .read("bounds", move |session| {
                // What is known before the snapshot is in it.
                let committed = mark.head();
                let bounds = bounds(&session.connection)?;
                mark::check(bounds.head, committed)?;
                mark.raise(bounds.head);
                Ok(bounds)
            })
            .await
    }

    fn poll_every(&self) -> Duration {
        let captures = self.client().tables().values().any(|t| t.capture.is_some());
        if captures { capture::PACE } else { Duration::from_secs(1) }
    }

    async fn begin_above(&self, position: Position) -> Result<Position> {
        let mark = self.client().mark();
        self.client()
            .write("begin_above", move |connection| {
                let bounds = bounds(connection)?;
                let Some(head) = begins_above(&bounds, position)? else { return Ok(bounds.head) };
                let sql = "UPDATE unisono_head SET trimmed = ?1";
                connection.execute(sql, [head.as_i64()]).map_err(translate)?;
                mark.raise(head);
                Ok(head)
            })
            .await
    }

    async fn commit_above(&self, position: Position, unit: Unit) -> Result<Committed> {
        let (tables, mark) = (self.client().tables(), self.client().mark());
        let committed = self.client().write("commit_above", move |connection| {
            commit::commit(connection, &tables, &mark, &[unit], Some(position))
        });
        let missing = || Err(Error::internal("a unit has no outcome"));
        committed.await?.pop().unwrap_or_else(missing)
    }

    async fn fence(
        &self,
        entity: &str,
        from: Option<&str>,
        to: Option<&str>,
    ) -> Result<Option<Position>> {
        let entity = entity.to_owned();
        let (from, to) = (from.map(str::to_owned), to.map(str::to_owned));
        self.client()
            .write("fence", move |connection| {
                transaction(connection, |connection| {
                    if fences(connection)?.get(&entity) != from.as_ref() {
                        return Ok(None);
                    }
                    put(connection, FENCES, &entity, to.as_deref()).map_err(translate)?;
                    Ok(Some(bounds(connection)?.head))
                })
            })
            .await
    }

    async fn fences(&self) -> Result<BTreeMap<String, String>> {
        self.client().read("fences", |session| fences(&session.connection)).await
    }

    async fn read_log(
        &self,
        after: Position,
        changes_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Arc<Change>>> {
        self.sequence().await?;
        let (tables, mark) = (self.client().tables(), self.client().mark());
        self.client()
            .read("read_log", move |session| {
                let changes =
                    log::read(&session.connection, &tables, after, changes_max, bytes_max)?;
                mark.raise(changes.last().map_or(Position::ZERO, |change| change.position));
                Ok(changes)
            })
            .await
    }

    async fn history(
        &self,
        entity: &Arc<Entity>,
        key: &Key,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<Arc<Change>>> {
        self.sequence().await?;
        let (tables, key) = (self.client().tables(), key.clone());
        let table = self.client().table(entity.name())?;
        self.client()
            .read("history", move |session| {
                log::history(&session.connection, &table, &tables, &key, before, limit)
            })
            .await
    }

    async fn trim(&self, through: Position, outcomes_before: Timestamp) -> Result<u64> {
        let tables = self.client().tables();
        self.client()
            .write("trim", move |connection| {
                log::trim(connection, &tables, through, outcomes_before)
            })
            .await
    }

    async fn put_state(&self, space: &str, name: &str, value: Option<String>) -> Result<()> {
        let (space, name) = (space.to_owned(), name.to_owned());
        self.client()
            .write("put_state", move |connection| {
                put(connection, &space, &name, value.as_deref()).map_err(at_commit)
            })
            .await
    }

    async fn list_state(&self, space: &str) -> Result<Vec<(String, String)>> {
        let space = space.to_owned();
        self.client()
            .read("list_state", move |session| {
                let sql = "SELECT name, value FROM unisono_state WHERE space = ?1 ORDER BY name";
                let mut statement = session.connection.prepare_cached(sql).map_err(translate)?;
                let rows = statement
                    .query_map([space], |row| Ok((row.get(0)?, row.get(1)?)))
                    .map_err(translate)?;
                rows.collect::<rusqlite::Result<_>>().map_err(translate)
            })
            .await
    }
}

/// The space of what was said of entities whose writes are refused.
const FENCES: &str = "unisono_fences";

/// What was said of them, as the current transaction sees it.
fn fences(connection: &Connection) -> Result<BTreeMap<String, String>> {
    let sql = "SELECT name, value FROM unisono_state WHERE space = ?1";
    let mut statement = connection.prepare_cached(sql).map_err(translate)?;
    let rows = statement.query_map([FENCES], |row| Ok((row.get(0)?, row.get(1)?)));
    rows.map_err(translate)?.collect::<rusqlite::Result<_>>().map_err(translate)
}

/// Keeps a small record of a space, or removes it.
fn put(
    connection: &Connection,
    space: &str,
    name: &str,
    value: Option<&str>,
) -> rusqlite::Result<()> {
    let written = match value {
        Some(value) => connection.execute(
            "INSERT INTO unisono_state (space, name, value) VALUES (?1, ?2, ?3) \
             ON CONFLICT (space, name) DO UPDATE SET value = excluded.value",
            [space, name, value],
        ),
        None => connection
            .execute("DELETE FROM unisono_state WHERE space = ?1 AND name = ?2", [space, name]),
    };
    written.map(drop)
}

/// Runs work in a transaction that has the right to write from its beginning.
pub(crate) fn transaction<T>(
    connection: &mut Connection,
    work: impl FnOnce(&Connection) -> Result<T>,
) -> Result<T> {
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(translate)?;
    let answer = work(&transaction)?;
    transaction.commit().map_err(at_commit)?;
    Ok(answer)
}

/// Whether a change has what its operation needs: a put an image, a delete none.
pub(crate) fn is_whole(operation: Operation, has_image: bool) -> bool {
    (operation == Operation::Put) == has_image
}
