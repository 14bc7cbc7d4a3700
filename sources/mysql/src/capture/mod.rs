//! Writes of others: noted down in the intake by their own transactions, and moved into the log by ours.
//!
//! An entry stays in the intake until its change is in the log, and goes in the same transaction. So it does not matter
//! in which order transactions commit or how long one is open: what is not visible now is found later.
//!
//! `TRUNCATE` fires no triggers. It is noticed by what it leaves: every record that is there afterwards has been
//! written since, so that its version is newer than those of all that are gone, or an entry waits for it. Hence the
//! record with the oldest version, among those without an entry, has its row unless the table was emptied.

pub(crate) mod keys;
mod lease;
mod record;
mod sequencer;
mod setup;
pub(crate) mod triggers;
pub(crate) mod versions;

use std::sync::Arc;
use std::time::Duration;

use unisono_core::{Error, ErrorKind, Position, Result};

pub use record::record_in;
pub(crate) use sequencer::Sequencer;
pub(crate) use setup::{Capturing, captured as is_captured, end, is_there};

use crate::client::{Client, Tables, head_missing};
use crate::codec::number_of;
use crate::error::{Class, Failed};
use crate::pool::Session;
use crate::table::{Table, cell};

/// The tables of capture. The columns of the versions have names that no field has, because statements on captured
/// tables look into them. A refused entry is one whose row no entity can hold; it waits for the next write to its key.
pub(crate) const TABLES: &[(&str, &str)] = &[
    (
        // Another program's write must not fail because of a key that is longer than an index allows.
        "unisono_intake",
        "`id` BIGINT AUTO_INCREMENT PRIMARY KEY, `entity` VARCHAR(48) CHARACTER SET ascii COLLATE ascii_bin NOT NULL, \
         `key` LONGTEXT NOT NULL, `time` BIGINT NOT NULL, `actor` LONGTEXT, `trace` LONGTEXT, \
         INDEX unisono_key (`entity`, `key`(191))",
    ),
    (
        "unisono_refused",
        "`id` BIGINT AUTO_INCREMENT PRIMARY KEY, `entity` VARCHAR(48) CHARACTER SET ascii COLLATE ascii_bin NOT NULL, \
         `key` LONGTEXT NOT NULL, `time` BIGINT NOT NULL, `reason` LONGTEXT NOT NULL, \
         INDEX unisono_key (`entity`, `key`(191))",
    ),
    (
        "unisono_versions",
        "`unisono_entity` VARCHAR(48) CHARACTER SET ascii COLLATE ascii_bin NOT NULL, \
         `unisono_key` VARCHAR(700) NOT NULL, `unisono_version` BIGINT NOT NULL, \
         PRIMARY KEY (`unisono_entity`, `unisono_key`), INDEX unisono_oldest (`unisono_entity`, `unisono_version`)",
    ),
    (
        "unisono_captures",
        "`entity` VARCHAR(48) PRIMARY KEY, `made` TINYINT(1) NOT NULL, `triggers` VARCHAR(255) NOT NULL",
    ),
    (
        "unisono_sequencer",
        "`only` TINYINT PRIMARY KEY, `holder` CHAR(36) NOT NULL, `until` DATETIME(6) NOT NULL, `epoch` BIGINT NOT NULL",
    ),
];

/// Now in microseconds, whatever the time zone of the session.
const NOW: &str = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))";
/// Names the entity whose table is being written by Unisono itself: its triggers are silent then, while those of tables
/// that triggers of the application write to are not.
const OWN: &str = "@unisono_own";
/// Ends what [`own`] begins.
pub(crate) const NOT_OWN: &str = "SET @unisono_own = NULL";
/// How long is waited for a record that another transaction is writing, in seconds.
pub(crate) const LOCK_SECONDS: u64 = 1;

/// How often the intake is looked at: what others write is in the log about so long after their commit.
pub(crate) const PACE: Duration = Duration::from_millis(20);

/// On whose account the sequencer runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The log is being followed: one process at a time does it, the holder of the lease.
    Tail,
    /// Somebody reads rows that have no version of their own yet.
    Read,
}

/// Begins statements of our own on the table of an entity.
pub(crate) fn own(entity: &str) -> String {
    format!("SET {OWN} = '{entity}'")
}

/// The version of a row of a captured table.
pub(crate) fn version(entity: &str, key: &keys::KeyColumn) -> String {
    format!(
        "COALESCE((SELECT `unisono_version` FROM unisono_versions FORCE INDEX (PRIMARY) \
         WHERE `unisono_entity` = '{entity}' AND `unisono_key` = {}), 0)",
        key.textual("")
    )
}

/// Asks whether entries of a captured table wait.
pub(crate) fn waiting(entity: &str) -> String {
    format!("EXISTS (SELECT 1 FROM unisono_intake WHERE `entity` = '{entity}')")
}

/// The captured tables.
fn captured(tables: &Tables) -> Vec<&Arc<Table>> {
    tables.values().filter(|t| t.capture.is_some()).collect()
}

/// Asks for the record with the oldest version that no entry concerns, if it has no row.
fn oldest_ghost(table: &Table) -> String {
    let (entity, name, key) = (table.entity.name(), &table.name, table.key_column());
    let has_none = |of: &str| {
        format!(
            "NOT EXISTS (SELECT 1 FROM {of} AS e WHERE e.`entity` = '{entity}' AND e.`key` = v.`unisono_key`)"
        )
    };
    format!(
        "SELECT 1 FROM (SELECT v.`unisono_key` FROM unisono_versions AS v WHERE v.`unisono_entity` = '{entity}' \
         AND {} AND {} ORDER BY v.`unisono_version` LIMIT 1) AS o \
         LEFT JOIN {name} AS t ON t.{key} = {} WHERE t.{key} IS NULL",
        has_none("unisono_intake"),
        has_none("unisono_refused"),
        table.key.native("o.`unisono_key`"),
    )
}

impl Client {
    /// Moves what others have committed into the log, as much as goes into one transaction; answers whether it did.
    pub(crate) async fn sequence(&self, reason: Reason) -> Result<bool> {
        let tables = self.tables();
        if captured(&tables).is_empty() {
            return Ok(false);
        }
        match self.sequenced(reason, &tables).await {
            // The log goes on being read; that a table is gone is told by the probe.
            Err(Failed { class, error })
                if class == Class::Gone
                    || matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::NotPrimary) =>
            {
                tracing::debug!(source = %self.name(), %error, "the intake waits");
                Ok(false)
            }
            done => done.map_err(|f| f.error.on("sequence").at(self.name())),
        }
    }

    async fn sequenced(&self, reason: Reason, tables: &Tables) -> Result<bool, Failed> {
        let captured = captured(tables);
        // Somebody who has locked a whole table must not hold up those who follow the others.
        let waits = captured.iter().map(|t| waiting(t.entity.name())).collect::<Vec<_>>();
        let ghosts = captured.iter().map(|t| oldest_ghost(t)).collect::<Vec<_>>();
        let seconds = self.server().lock_seconds;
        let sql = format!(
            "SET SESSION lock_wait_timeout = {LOCK_SECONDS}; SELECT {}; {}; SET SESSION lock_wait_timeout = {seconds}",
            waits.join(" OR "),
            ghosts.join("; ")
        );
        let sets = self.reader().run(&sql).await?;
        let waits = match sets.first().and_then(|rows| rows.first()) {
            Some(row) => number_of(cell(row, 0)?)? == Some(1),
            None => false,
        };
        let emptied: Vec<_> = (captured.iter().zip(sets.iter().skip(1)))
            .filter(|(_, rows)| !rows.is_empty())
            .map(|(table, _)| table.as_ref())
            .collect();
        if !waits && emptied.is_empty() {
            return Ok(false);
        }
        let Some(mut session) = self.holding(reason).await? else { return Ok(false) };
        let head = head(&mut session).await?;
        let mut sequencer = Sequencer::new(&mut session, tables, head);
        for table in emptied {
            tracing::warn!(source = %self.name(), entity = %table.entity.name(), "the table was emptied without a trigger");
            sequencer.note_ghosts(table, None).await?;
        }
        sequencer.oldest().await?;
        let head = sequencer.head;
        session.run("COMMIT").await?;
        session.release();
        self.heard_of(head);
        Ok(true)
    }

    /// A transaction that may sequence, unless another process has the lease.
    async fn holding(&self, reason: Reason) -> Result<Option<Session>, Failed> {
        if reason == Reason::Read {
            return self
                .writer()
                .begin("START TRANSACTION")
                .await
                .map(|(session, _)| Some(session));
        }
        let begin = format!("START TRANSACTION; {}", lease::ask(self.holder()));
        let (mut session, sets) = self.writer().begin(&begin).await?;
        if lease::is_free(&sets)? {
            session.run(&lease::renew(self.holder())).await?;
            return Ok(Some(session));
        }
        session.end().await?;
        Ok(None)
    }

    /// What is wrong with the triggers of the captured tables.
    pub(crate) async fn check_triggers(&self) -> Result<(), Failed> {
        for table in captured(&self.tables()) {
            let (mut session, sets) =
                self.reader().begin(&setup::recorded_signature(table.entity.name())).await?;
            let recorded = match sets.first().and_then(|rows| rows.first()) {
                Some(row) => crate::schema::word(row, 0)?,
                None => String::new(),
            };
            let place = table.binding().place;
            let found = triggers::Found::look(&mut session, table.entity.name(), &place).await?;
            session.release();
            if found.signature() != recorded {
                return Err(Error::new(
                    ErrorKind::SchemaMismatch,
                    "triggers that capture the writes of others are gone, or were made anew by others",
                )
                .of(table.entity.name())
                .with("table", &place)
                .hint("somebody made the table anew, restored it or dropped them: restart, so that they are made again and every record is read")
                .into());
            }
        }
        Ok(())
    }
}

/// Locks the head of the log.
async fn head(session: &mut Session) -> Result<Position, Failed> {
    let sets =
        session.run("SELECT `position` FROM unisono_head WHERE `only` = 1 FOR UPDATE").await?;
    let row = sets.first().and_then(|rows| rows.first()).ok_or_else(head_missing)?;
    Ok(Position::from_i64(number_of(cell(row, 0)?)?.unwrap_or_default())?)
}
