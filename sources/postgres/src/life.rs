//! [`Life`]: whether the log is still the one that it was.
//!
//! A restored copy of the database, and a standby that lacked changes when it was promoted, hold a log that has gone
//! back: its next changes would take the positions of lost ones, and followers that have those would never know. So
//! the database says where its log lives. Every new connection is asked for it, and at the start of a process a log
//! that lives elsewhere is begun anew, under another identity and above all earlier positions.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use unisono_core::source::LogBounds;
use unisono_core::{Error, ErrorKind, Position, Result, Uuid};

use crate::error::{Class, Failed};
use crate::parameter::{cell, integer, optional_integer, optional_text, text};
use crate::schema::Catalog;
use crate::session::{Session, Use};
use crate::table::quote;

/// The columns of `unisono_life`: one row.
pub(crate) const COLUMNS: &str = "(\"only\" boolean PRIMARY KEY DEFAULT TRUE CHECK (\"only\"), place text NOT NULL, timeline bigint NOT NULL)";

/// The cluster, the database and the table: each is another one in a copy that was restored from a dump.
fn place(schema: &str) -> String {
    let table = format!("{schema}.unisono_head").replace('\'', "''");
    format!(
        "format('%s/%s/%s', (SELECT system_identifier FROM pg_control_system()), \
         (SELECT oid FROM pg_database WHERE datname = current_database()), '{table}'::regclass::oid)"
    )
}

/// Raised by a promotion, and by a restore to a point in time.
const TIMELINE: &str =
    "('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint";

const ANOTHER: &str = "another log was begun";
const OLDER: &str = "the database holds an older copy of the log";

/// Begins another log if the one that is there does not live where it did; answers what to tell people.
pub(crate) async fn begin_anew(catalog: &Catalog<'_>) -> Result<Option<String>, Failed> {
    let schema = quote(catalog.schema);
    let sql = format!(
        "SELECT l.place, l.timeline, {}, {TIMELINE}, h.position FROM {schema}.unisono_head h \
         LEFT JOIN {schema}.unisono_life l ON TRUE",
        place(&schema)
    );
    let rows = catalog.rows(&sql, &[]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let before = (optional_text(row, 0)?, optional_integer(row, 1)?);
    let now = (text(row, 2)?, integer(row, 3)?);
    if before == (Some(now.0), Some(now.1)) {
        return Ok(None);
    }
    let remember = format!(
        "INSERT INTO {schema}.unisono_life (place, timeline) VALUES ('{}', {}) \
         ON CONFLICT (\"only\") DO UPDATE SET place = excluded.place, timeline = excluded.timeline",
        now.0, now.1
    );
    catalog.run(&remember).await?;
    let head = Position::from_i64(integer(row, 4)?)?;
    if before.0.is_none() || head == Position::ZERO {
        return Ok(None);
    }
    let (log, to) = (Uuid::now_v7(), head.next_generation().as_i64());
    catalog
        .run(&format!(
            "UPDATE {schema}.unisono_head SET log = '{log}', trimmed = {to}, position = {to}"
        ))
        .await?;
    Ok(Some(
        "the database was restored, or another server took over while nobody watched, so that changes may be lost; \
         began another log, and every follower is copied again"
            .into(),
    ))
}

/// What one process knows of the log.
#[derive(Default)]
pub(crate) struct Life {
    log: Mutex<Option<Uuid>>,
    /// The newest position that it knows to be committed.
    head: AtomicI64,
}

impl Life {
    /// From now on the log must be this one.
    pub(crate) fn begin(&self, bounds: &LogBounds) {
        *self.log() = Some(bounds.log);
        self.head.store(bounds.head.as_i64(), Ordering::Release);
    }

    /// A position was committed.
    pub(crate) fn raise(&self, position: Position) {
        self.head.fetch_max(position.as_i64(), Ordering::AcqRel);
    }

    /// The newest position that is known to be committed.
    pub(crate) fn head(&self) -> Position {
        Position::from_i64(self.head.load(Ordering::Acquire)).unwrap_or_default()
    }

    /// Fails if the log is another one than when this process was prepared, or ends before a position that was known
    /// to be committed when it was asked.
    pub(crate) fn check(&self, bounds: &LogBounds, known: Position) -> Result<()> {
        match *self.log() {
            Some(log) if log != bounds.log => Err(gone_back(ANOTHER)),
            Some(_) if bounds.head < known => Err(gone_back(OLDER)),
            _ => {
                self.raise(bounds.head);
                Ok(())
            }
        }
    }

    /// Fails if what a new connection leads to is not the log that this process knows, or is an older copy of it.
    pub(crate) async fn check_session(
        &self,
        session: &Session,
        schema: &str,
    ) -> Result<(), Failed> {
        let Some(log) = *self.log() else { return Ok(()) };
        // What is known before is in the answer.
        let known = self.head().as_i64();
        let schema = quote(schema);
        let sql = format!(
            "SELECT h.log, h.position, (l.place = {})::int::bigint, (l.timeline = {TIMELINE})::int::bigint \
             FROM {schema}.unisono_head h, {schema}.unisono_life l",
            place(&schema)
        );
        let rows = match session.rows(Use::Once, &sql, &[]).await {
            Ok(rows) => rows,
            // Whoever uses the tables says better what is wrong.
            Err(failed) if failed.class == Class::Gone => return Ok(()),
            Err(failed) => return Err(failed),
        };
        let Some(row) = rows.first() else { return Ok(()) };
        if cell(row, 0)? != Some(log.as_bytes().as_slice()) {
            return Err(gone_back(ANOTHER).into());
        }
        let is_here = integer(row, 2)? == 1;
        if integer(row, 1)? < known || !is_here {
            // Also if this process does not live to see it: the next one to start begins another log.
            session.run(&format!("UPDATE {schema}.unisono_life SET place = ''")).await?;
            return Err(gone_back(OLDER).into());
        }
        if integer(row, 3)? != 1 {
            // Another server took over, and nothing that is known here was lost.
            session.run(&format!("UPDATE {schema}.unisono_life SET timeline = {TIMELINE}")).await?;
        }
        Ok(())
    }

    fn log(&self) -> MutexGuard<'_, Option<Uuid>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn gone_back(what: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, what)
        .with("reason", "the database was restored, or a standby took over that lacked changes")
        .hint("restart: another log is begun, and every follower is copied again")
}
