//! Writes of others: noted down in the intake by their own transactions, and moved into the log by ours.
//!
//! An entry stays in the intake until its change is in the log, and goes in the same transaction. So it does not matter
//! in which order transactions commit, how long one is open, or what their numbers are: what is not visible now is
//! found later. A horizon such as `pg_snapshot_xmin`, which any open transaction of the cluster holds back, is not needed.

mod describe;
mod lease;
mod record;
mod sequencer;
mod setup;
mod triggers;

use std::sync::Arc;

use unisono_core::{ErrorKind, Result};

pub(crate) use describe::describe;
pub use record::record_in;
pub(crate) use sequencer::Sequencer;

use crate::error::Failed;
use crate::session::{Session, Use};
use crate::source::PostgresSource;
use crate::table::quote;

/// Stands before a position that was read while entries waited in the intake.
pub(crate) const LAGS: char = '!';

/// Sets what the triggers leave out: the statements of this transaction themselves, but not what other triggers do.
pub(crate) const OWN: &str = "SET LOCAL unisono.own = 'on'";

/// The version of a row of a captured table.
pub(crate) fn version(schema: &str, entity: &str, key: &str) -> String {
    // An entity's name needs no quoting: lower case letters, digits and underscores.
    format!(
        "coalesce((SELECT v.unisono_version FROM {schema}.unisono_versions v WHERE v.unisono_entity = '{entity}' \
         AND v.unisono_key = {key}::text COLLATE \"C\"), 0)"
    )
}

/// The position of a captured table, as text, which says whether rows may be newer than their versions.
pub(crate) fn position(schema: &str) -> String {
    format!(
        "(SELECT CASE WHEN {} THEN '{LAGS}' ELSE '' END || position::text FROM {schema}.unisono_head)",
        waiting(schema)
    )
}

/// Whether entries wait in the intake.
fn waiting(schema: &str) -> String {
    format!("EXISTS (SELECT FROM {schema}.unisono_intake WHERE refused IS NULL)")
}

/// On whose account the sequencer runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The log is being followed: one process at a time does it, the holder of the lease.
    Tail,
    /// Somebody reads rows that have no version of their own yet.
    Read,
}

impl PostgresSource {
    /// Moves what others have committed into the log, as much as goes into one transaction; answers whether it did.
    pub(crate) async fn sequence(&self, reason: Reason) -> Result<bool> {
        let client = self.client();
        let tables = &*client.tables();
        if !tables.values().any(|t| t.capture.is_some()) {
            return Ok(false);
        }
        let (schema, holder) = (&quote(client.schema()), self.holder());
        let done = client.primary(move |session: Arc<Session>| {
            Box::pin(async move {
                let sql = format!("SELECT 1 WHERE {}", waiting(schema));
                if session.rows(Use::Often, &sql, &[]).await?.is_empty() {
                    return Ok(false);
                }
                // A process that is stopped in here must not stop the others for long.
                session.run("BEGIN; SET LOCAL idle_in_transaction_session_timeout = '10s'").await?;
                if reason == Reason::Tail && !lease::renew(&session, schema, holder).await? {
                    session.run("ROLLBACK").await?;
                    return Ok(false);
                }
                let hold = format!("SELECT position FROM {schema}.unisono_head FOR UPDATE");
                session.run(&hold).await?;
                Sequencer { session: &session, schema, tables }.run().await?;
                session.run("COMMIT").await?;
                Ok(true)
            })
        });
        match done.await {
            Err(Failed { error, .. }) if error.kind() == ErrorKind::Unavailable => {
                tracing::debug!(source = %client.name(), %error, "the intake waits");
                Ok(false)
            }
            done => done.map_err(|e| e.error.on("sequence").at(client.name())),
        }
    }
}
