//! The truth: rows and log in one transaction.

mod batch;
mod commit;
pub(crate) mod log;
mod pending;
mod reading;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use unisono_core::source::{LogBounds, Truth, begins_above};
use unisono_core::write::{Committed, Unit};
use unisono_core::{Change, Entity, Error, ErrorKind, Key, Position, Result, Timestamp};
use unisono_sql::text::{escape, unescape};

pub(crate) use pending::Pending;

use crate::capture::{PACE, Reason};
use crate::codec::text_of;
use crate::error::{Class, Failed};
use crate::literal::text;
use crate::source::MysqlSource;
use crate::table::cell;

/// What a statement has beside its row: names of columns, mostly.
pub(crate) const STATEMENT_OVERHEAD: usize = 64 << 10;

impl MysqlSource {
    /// Names where a failure of the truth happened. A truth whose tables are gone must not seem merely changed.
    fn of_truth(&self, failed: Failed, operation: &'static str) -> Error {
        let error = match failed.class {
            Class::Gone => Error::new(
                ErrorKind::Unavailable,
                "tables of the truth were dropped while it was open",
            )
            .hint("restore the database from a backup and restart; the records in it are the truth")
            .caused_by(failed.error),
            _ => failed.error,
        };
        error.on(operation).at(self.client().name())
    }
}

#[async_trait]
impl Truth for MysqlSource {
    async fn commit(&self, units: Vec<Unit>) -> Result<Vec<Result<Committed>>> {
        let results = commit::commit(self.client(), &units, None)
            .await
            .map_err(|failed| self.of_truth(failed, "commit"))?;
        let name = self.client().name();
        Ok(results.into_iter().map(|r| r.map_err(|e| e.on("commit").at(name))).collect())
    }

    async fn bounds(&self) -> Result<LogBounds> {
        self.client().sequence(Reason::Tail).await?;
        log::bounds(self.client()).await.map_err(|failed| self.of_truth(failed, "bounds"))
    }

    fn poll_every(&self) -> Duration {
        let is_captured = self.client().tables().values().any(|table| table.capture.is_some());
        if is_captured { PACE } else { Duration::from_secs(1) }
    }

    async fn begin_above(&self, position: Position) -> Result<Position> {
        let bounds = self.bounds().await?;
        let Some(head) = begins_above(&bounds, position)? else { return Ok(bounds.head) };
        let sql = format!(
            "UPDATE unisono_head SET `trimmed` = {head}, `position` = {head} \
             WHERE `only` = 1 AND `position` = {}",
            bounds.head
        );
        // Repeating it has no further effect.
        let begun = self.client().writer().run(&sql).await.map_err(Failed::at_commit);
        begun.map_err(|failed| self.of_truth(failed, "begin_above"))?;
        Ok(self.bounds().await?.head)
    }

    async fn commit_above(&self, position: Position, unit: Unit) -> Result<Committed> {
        let committed = commit::commit(self.client(), &[unit], Some(position)).await;
        let committed = committed.map_err(|failed| self.of_truth(failed, "commit_above"))?.pop();
        committed.unwrap_or_else(|| Err(Error::internal("a unit has no outcome")))
    }

    async fn fence(
        &self,
        entity: &str,
        from: Option<&str>,
        to: Option<&str>,
    ) -> Result<Option<Position>> {
        let said = commit::fence(self.client(), entity, from, to).await;
        said.map_err(|failed| self.of_truth(failed, "fence"))
    }

    async fn fences(&self) -> Result<BTreeMap<String, String>> {
        log::fences(self.client()).await.map_err(|failed| self.of_truth(failed, "fences"))
    }

    async fn read_log(
        &self,
        after: Position,
        changes_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Arc<Change>>> {
        self.client().sequence(Reason::Tail).await?;
        log::read(self.client(), after, changes_max, bytes_max)
            .await
            .map_err(|failed| self.of_truth(failed, "read_log"))
    }

    async fn history(
        &self,
        entity: &Arc<Entity>,
        key: &Key,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<Arc<Change>>> {
        let table = self.client().table(entity.name())?;
        if table.capture.is_some() {
            self.client().sequence(Reason::Read).await?;
        }
        log::history(self.client(), &table, key, before, limit)
            .await
            .map_err(|failed| self.of_truth(failed, "history").of(entity.name()))
    }

    async fn trim(&self, through: Position, outcomes_before: Timestamp) -> Result<u64> {
        log::trim(self.client(), through, outcomes_before)
            .await
            .map_err(|failed| self.of_truth(failed, "trim"))
    }

    async fn put_state(&self, space: &str, name: &str, value: Option<String>) -> Result<()> {
        // Names are put in order by the server: see `Form::Text`.
        let (space, name) = (text(space), text(&escape(name)));
        let sql = match value {
            // The key is the only thing that is unique in this table.
            Some(value) => format!(
                "INSERT INTO unisono_state (`space`, `name`, `value`) VALUES ({space}, {name}, {}) \
                 ON DUPLICATE KEY UPDATE `value` = VALUES(`value`)",
                text(&value)
            ),
            None => {
                format!("DELETE FROM unisono_state WHERE `space` = {space} AND `name` = {name}")
            }
        };
        // Repeating it has no further effect.
        let written = self.client().writer().run(&sql).await.map_err(Failed::at_commit);
        written.map(drop).map_err(|failed| self.of_truth(failed, "put_state"))
    }

    async fn list_state(&self, space: &str) -> Result<Vec<(String, String)>> {
        let sql = format!(
            "SELECT `name`, `value` FROM unisono_state WHERE `space` = {} ORDER BY `name`",
            text(space)
        );
        let sets = self.client().reader().run(&sql).await;
        let sets = sets.map_err(|failed| self.of_truth(failed, "list_state"))?;
        let pair = |row| -> Result<_> {
            let word = |at| Ok::<_, Error>(text_of(cell(row, at)?)?.unwrap_or_default());
            Ok((unescape(word(0)?)?.into_owned(), word(1)?.to_owned()))
        };
        sets.iter().flatten().map(pair).collect()
    }
}
