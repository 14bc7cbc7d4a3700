//! The truth: rows and log in one transaction.

mod commit;
mod known;
mod log;
mod plan;
mod statement;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use tokio_postgres::types::Type;
use unisono_core::source::{LogBounds, Truth, begins_above};
use unisono_core::write::{Committed, Unit};
use unisono_core::{Change, Entity, Error, ErrorKind, Key, Position, Result, Timestamp, Uuid};
use unisono_sql::text as escaped;

use crate::capture::PACE;
use crate::error::Failed;
use crate::parameter::{Parameter, cell, integer, text};
use crate::session::{Session, Use};
use crate::source::PostgresSource;
use crate::table::quote;

/// Where the log begins and ends.
pub(crate) async fn bounds_of(session: &Session, schema: &str) -> Result<LogBounds, Failed> {
    let sql = format!("SELECT log, trimmed, position FROM {schema}.unisono_head");
    let rows = session.rows(Use::Often, &sql, &[]).await?;
    let row = rows.first().ok_or_else(|| {
        Error::new(ErrorKind::Corrupt, "the head row of the log is missing")
            .hint("restore the database from a backup")
    })?;
    let log = cell(row, 0)?.and_then(|bytes| Uuid::from_slice(bytes).ok());
    Ok(LogBounds {
        log: log.ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, "the identity of the log is not a UUID")
        })?,
        trimmed: Position::from_i64(integer(row, 1)?)?,
        head: Position::from_i64(integer(row, 2)?)?,
    })
}

/// What was said of the entities whose writes are refused.
async fn fences(session: &Session, schema: &str) -> Result<BTreeMap<String, String>, Failed> {
    let sql = format!("SELECT fences::text FROM {schema}.unisono_head");
    let rows = session.rows(Use::Once, &sql, &[]).await?;
    let json = rows.first().map(|row| text(row, 0)).transpose()?.unwrap_or("{}");
    Ok(serde_json::from_str(json).map_err(|e| {
        Error::new(ErrorKind::Corrupt, "what is refused cannot be decoded").caused_by(e)
    })?)
}

impl PostgresSource {
    async fn on_log<'w, T>(
        &self,
        operation: &'static str,
        work: impl Fn(Arc<Session>) -> BoxFuture<'w, Result<T, Failed>> + Send + Sync,
    ) -> Result<T> {
        let done = self.client().primary(work).await;
        done.map_err(|e| e.error.on(operation).at(self.client().name()))
    }
}

#[async_trait]
impl Truth for PostgresSource {
    async fn commit(&self, units: Vec<Unit>) -> Result<Vec<Result<Committed>>> {
        let name = self.client().name();
        let results = commit::commit(self.client(), &units).await;
        let results = results.map_err(|e| e.error.on("commit").at(name))?;
        for change in results.iter().flatten().filter_map(|committed| committed.changes.last()) {
            self.client().life().raise(change.position);
        }
        Ok(results.into_iter().map(|r| r.map_err(|e| e.on("commit").at(name))).collect())
    }

    async fn bounds(&self) -> Result<LogBounds> {
        self.follow().await?;
        let schema = &quote(self.client().schema());
        let read = self.on_log("bounds", move |session| {
            Box::pin(async move { bounds_of(&session, schema).await })
        });
        let life = self.client().life();
        // What is known before is in the answer.
        let known = life.head();
        let bounds = read.await?;
        life.check(&bounds, known).map(|()| bounds).map_err(|e| {
            self.client().distrust();
            e.on("bounds").at(self.client().name())
        })
    }

    fn poll_every(&self) -> Duration {
        let is_captured = self.client().tables().values().any(|table| table.capture.is_some());
        if is_captured { PACE } else { Duration::from_secs(1) }
    }

    async fn begin_above(&self, position: Position) -> Result<Position> {
        let schema = &quote(self.client().schema());
        // Done again, it changes nothing: a lost answer does no harm.
        let begun = self.on_log("begin_above", move |session| {
            Box::pin(async move {
                let bounds = bounds_of(&session, schema).await?;
                let Some(head) = begins_above(&bounds, position)? else { return Ok(bounds.head) };
                let sql = format!(
                    "UPDATE {schema}.unisono_head SET trimmed = $1, position = $1 WHERE position = $2"
                );
                let at = |position: Position| Parameter::integer(position.as_i64());
                session.execute(Use::Once, &sql, &[at(head), at(bounds.head)]).await?;
                Ok(bounds_of(&session, schema).await?.head)
            })
        });
        let head = begun.await?;
        self.client().life().raise(head);
        Ok(head)
    }

    async fn commit_above(&self, position: Position, unit: Unit) -> Result<Committed> {
        let at = |error: Error| error.on("commit_above").at(self.client().name());
        let committed = commit::commit_above(self.client(), position, &unit).await;
        let committed = committed.map_err(|e| at(e.error))?.map_err(at)?;
        if let Some(last) = committed.changes.last() {
            self.client().life().raise(last.position);
        }
        Ok(committed)
    }

    async fn fence(
        &self,
        entity: &str,
        from: Option<&str>,
        to: Option<&str>,
    ) -> Result<Option<Position>> {
        let head = format!("{}.unisono_head", quote(self.client().schema()));
        // The text of the engine is ASCII without NUL.
        let sql = &match to {
            Some(_) => format!(
                "UPDATE {head} SET fences = fences || jsonb_build_object($1, $3) \
                 WHERE fences ->> $1 IS NOT DISTINCT FROM $2 RETURNING position"
            ),
            None => format!(
                "UPDATE {head} SET fences = fences - $1 \
                 WHERE fences ->> $1 IS NOT DISTINCT FROM $2 AND $3 IS NULL RETURNING position"
            ),
        };
        let optional = |text: Option<&str>| {
            Parameter::new(Type::TEXT, text.map(|text| text.as_bytes().to_vec()))
        };
        let parameters = &[Parameter::text(entity), optional(from), optional(to)];
        let said = self.client().primary(move |session| {
            Box::pin(async move { session.rows(Use::Once, sql, parameters).await })
        });
        let rows = said.await;
        let rows = rows.map_err(|e| e.at_commit().error.on("fence").at(self.client().name()))?;
        rows.first().map(|row| Position::from_i64(integer(row, 0)?)).transpose()
    }

    async fn fences(&self) -> Result<BTreeMap<String, String>> {
        let schema = &quote(self.client().schema());
        let read = self.on_log("fences", move |session| {
            Box::pin(async move { fences(&session, schema).await })
        });
        read.await
    }

    async fn read_log(
        &self,
        after: Position,
        changes_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Arc<Change>>> {
        self.follow().await?;
        let (schema, tables) = (&quote(self.client().schema()), &*self.client().tables());
        self.on_log("read_log", move |session| {
            Box::pin(async move {
                log::read(&session, schema, tables, after, changes_max, bytes_max).await
            })
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
        let (tables, table) = (&*self.client().tables(), &*self.client().table(entity.name())?);
        let settled = self.settle_waiting(table, key).await;
        settled.map_err(|e| e.error.on("history").at(self.client().name()))?;
        let read = self.on_log("history", move |session| {
            Box::pin(async move { log::history(&session, table, tables, key, before, limit).await })
        });
        read.await
    }

    async fn trim(&self, through: Position, outcomes_before: Timestamp) -> Result<u64> {
        let (schema, tables) = (&quote(self.client().schema()), &*self.client().tables());
        let trimmed = self.on_log("trim", move |session| {
            Box::pin(
                async move { log::trim(&session, schema, tables, through, outcomes_before).await },
            )
        });
        trimmed.await
    }

    async fn put_state(&self, space: &str, name: &str, value: Option<String>) -> Result<()> {
        let table = format!("{}.unisono_state", quote(self.client().schema()));
        let escape = |text: &str| Parameter::text(&escaped::escape(text));
        let mut parameters = vec![escape(space), escape(name)];
        let sql = match &value {
            Some(value) => {
                parameters.push(escape(value));
                format!(
                    "INSERT INTO {table} (space, name, value) VALUES ($1, $2, $3) \
                     ON CONFLICT (space, name) DO UPDATE SET value = excluded.value"
                )
            }
            None => format!("DELETE FROM {table} WHERE space = $1 AND name = $2"),
        };
        // Put again, the same is there: a lost answer does no harm.
        let (sql, parameters) = (sql.as_str(), parameters.as_slice());
        let done = self.client().primary(move |session| {
            Box::pin(async move { session.execute(Use::Often, sql, parameters).await })
        });
        let done = done.await;
        done.map(drop).map_err(|e| e.at_commit().error.on("put_state").at(self.client().name()))
    }

    async fn list_state(&self, space: &str) -> Result<Vec<(String, String)>> {
        let sql = format!(
            "SELECT name, value FROM {}.unisono_state WHERE space = $1 ORDER BY name",
            quote(self.client().schema())
        );
        let (sql, parameters) = (&sql, &[Parameter::text(&escaped::escape(space))]);
        let rows = self
            .on_log("list_state", move |session| {
                Box::pin(async move { session.rows(Use::Often, sql, parameters).await })
            })
            .await?;
        let unescape = |row, column| -> Result<String> {
            Ok(escaped::unescape(text(row, column)?)?.into_owned())
        };
        rows.iter().map(|row| Ok((unescape(row, 0)?, unescape(row, 1)?))).collect()
    }
}
