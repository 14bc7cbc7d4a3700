//! Writes of others: noted down in the intake by their own transactions, and moved into the log by ours.
//!
//! An entry stays in the intake until its change is in the log, and goes in the same transaction. So it does not matter
//! in which order transactions commit, how long one is open, or what their numbers are: what is not visible now is
//! found later. A horizon such as `pg_snapshot_xmin`, which any open transaction of the cluster holds back, is not needed.
//!
//! Positions are given out by whoever holds the head row, in the transaction that uses them: two sequencers, or a
//! sequencer and a commit, are one after the other, and one that lost its connection has given out nothing.

mod changes;
mod check;
mod describe;
mod lease;
mod record;
mod sequencer;
mod setup;
mod triggers;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use unisono_core::{ErrorKind, Key, Result};

pub(crate) use changes::Column;
pub(crate) use check::{check, undeclared};
pub(crate) use describe::describe;
pub use record::record_in;
pub(crate) use sequencer::Sequencer;
pub(crate) use setup::Origin;

use crate::client::Tables;
use crate::error::Failed;
use crate::parameter::integer;
use crate::session::{Session, Use};
use crate::source::PostgresSource;
use crate::table::{Table, quote};

/// Begins a transaction that will hold the head row. A process that is stopped in the middle of it must not stop all
/// others for long; and of tables that are empty most of the time, plans are made as if they were not.
pub(crate) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL idle_in_transaction_session_timeout = '5s'; \
     SET LOCAL enable_seqscan = off";

/// Sets what the triggers leave out: the statements of this transaction themselves, but not what other triggers do.
pub(crate) const OWN: &str = "SET LOCAL unisono.own = 'on'";

/// How often the intake is looked at. A notification by each writer would make their commits wait for each other.
pub(crate) const PACE: Duration = Duration::from_millis(10);

/// The most transactions in which the intake is sequenced at one go.
const ROUNDS_MAX: u32 = 16;

/// The version of a row of a captured table.
pub(crate) fn version(schema: &str, entity: &str, key: &str) -> String {
    // An entity's name needs no quoting: lower case letters, digits and underscores.
    format!(
        "coalesce((SELECT v.unisono_version FROM {schema}.unisono_versions v WHERE v.unisono_entity = '{entity}' \
         AND v.unisono_key = {key}::text COLLATE \"C\"), 0)"
    )
}

/// Whether entries of an entity wait in the intake, those of some keys or of all, so that rows may be newer than their
/// versions. `keys` is a condition on the column `key`.
pub(crate) fn lags(schema: &str, entity: &str, keys: &str) -> String {
    let waits = |condition: &str| {
        format!(
            "EXISTS (SELECT FROM {schema}.unisono_intake i WHERE i.entity = '{entity}' AND {condition} AND i.refused IS NULL)"
        )
    };
    format!("({} OR {})", waits(keys), waits("i.key IS NULL"))
}

/// Captured tables of which somebody has changed something: they are left alone until they are as they were.
#[derive(Default)]
pub(crate) struct Ailing(Mutex<HashSet<Arc<str>>>);

impl Ailing {
    fn entities(&self) -> MutexGuard<'_, HashSet<Arc<str>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives all of them another chance.
    pub(crate) fn clear(&self) {
        self.entities().clear();
    }
}

impl PostgresSource {
    /// Moves what others have committed into the log, if this process is the one whose turn it is.
    pub(crate) async fn follow(&self) -> Result<()> {
        let all = self.client().tables();
        for _ in 0..ROUNDS_MAX {
            let ailing = self.ailing().entities().clone();
            let followed =
                |table: &Table| table.capture.is_some() && !ailing.contains(table.entity.name());
            let tables: Tables = (all.iter())
                .filter(|(_, table)| followed(table))
                .map(|(name, table)| (Arc::clone(name), Arc::clone(table)))
                .collect();
            if tables.is_empty() || !self.round(&tables).await? {
                break;
            }
        }
        Ok(())
    }

    /// One transaction of following; answers whether more waits.
    async fn round(&self, tables: &Tables) -> Result<bool> {
        let client = self.client();
        let (schema, holder) = (&quote(client.schema()), self.holder());
        let done = client.primary(move |session: Arc<Session>| {
            Box::pin(async move {
                let sequencer = Sequencer { session: &session, schema, tables };
                let waiting = sequencer.waiting().await?;
                if !waiting.any {
                    return Ok(false);
                }
                if waiting.whole {
                    sequencer.spread().await?;
                }
                session.run(BEGIN).await?;
                if !lease::renew(&session, schema, holder).await? {
                    session.run("ROLLBACK").await?;
                    return Ok(false);
                }
                sequencer.hold().await?;
                let has_more = sequencer.oldest().await?;
                session.run("COMMIT").await?;
                Ok(has_more)
            })
        });
        let Failed { error, .. } = match done.await {
            Ok(has_more) => return Ok(has_more),
            Err(failed) => failed,
        };
        let error = error.on("sequence").at(client.name());
        let table = error.entity().and_then(|entity| tables.get(entity));
        match (error.kind(), table) {
            (ErrorKind::Unavailable, _) => {
                tracing::debug!(%error, "the intake waits");
                Ok(false)
            }
            (ErrorKind::SchemaMismatch, Some(table)) => {
                tracing::warn!(%error, "a captured table was changed: what others write to it is not seen");
                self.ailing().entities().insert(Arc::clone(table.entity.name()));
                Ok(true)
            }
            _ => Err(error),
        }
    }

    /// Moves what others have committed of some records into the log: somebody reads them.
    pub(crate) async fn settle(&self, table: &Table, keys: &[Key]) -> Result<(), Failed> {
        let (schema, tables) = (&quote(self.client().schema()), &*self.client().tables());
        let places: &Vec<_> = &keys.iter().map(|key| (table, key)).collect();
        self.client()
            .primary(move |session: Arc<Session>| {
                Box::pin(async move {
                    let sequencer = Sequencer { session: &session, schema, tables };
                    session.run(BEGIN).await?;
                    sequencer.hold().await?;
                    sequencer.of(places).await?;
                    session.run("COMMIT").await
                })
            })
            .await
    }

    /// Sequences what waits of a record before its history is read.
    pub(crate) async fn settle_waiting(&self, table: &Table, key: &Key) -> Result<(), Failed> {
        if table.capture.is_none() {
            return Ok(());
        }
        let (sql, parameter) = &table.waits(key);
        let asked = self.client().primary(move |session: Arc<Session>| {
            let parameters = std::slice::from_ref(parameter);
            Box::pin(async move { session.rows(Use::Often, sql, parameters).await })
        });
        let waits = asked.await?.first().map(|row| integer(row, 0)).transpose()? == Some(1);
        if waits { self.settle(table, std::slice::from_ref(key)).await } else { Ok(()) }
    }
}
