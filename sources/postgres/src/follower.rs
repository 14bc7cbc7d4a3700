//! The follower: changes, tombstones and checkpoint in one transaction, sent in one round trip.
//!
//! A lock of the transaction on the entity makes batches of all processes serial, so that what a statement has seen
//! stays true while it writes; only the lanes of a copy share it. It is not of the session, and so goes well with
//! PgBouncer.

mod load;
mod statement;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use futures::future::{BoxFuture, try_join3};
use tokio_postgres::Row;
use unisono_core::source::{Advance, Applied, Batch, Checkpoint, Follower, Outcome};
use unisono_core::{Entity, Error, ErrorKind, Result};

use crate::error::{Class, Failed};
use crate::follower::statement::{Item, statement};
use crate::parameter::{Parameter, cell, optional_integers, optional_text};
use crate::session::{Session, Use};
use crate::source::PostgresSource;
use crate::table::Table;

/// A checkpoint from its column.
pub(crate) fn parse_checkpoint(text: &str) -> Result<Checkpoint> {
    serde_json::from_str(text).map_err(|e| {
        Error::new(ErrorKind::Corrupt, "the stored checkpoint cannot be decoded").caused_by(e)
    })
}

#[async_trait]
impl Follower for PostgresSource {
    async fn apply(&self, batch: Batch) -> Result<Applied> {
        let batch = &batch;
        if let Some(applied) = self.load(batch).await? {
            return Ok(applied);
        }
        let applied = self.following("apply", &batch.entity, |session, table| {
            Box::pin(async move { apply(&session, &table, batch).await })
        });
        let mut applied = applied.await?;
        for outcome in &mut applied.outcomes {
            if let Outcome::Rejected(error) = outcome {
                *error =
                    error.duplicate().on("apply").at(self.client().name()).of(batch.entity.name());
            }
        }
        Ok(applied)
    }

    async fn checkpoint(&self, entity: &Arc<Entity>) -> Result<Option<Checkpoint>> {
        let read = self.following("checkpoint", entity, |session, table| {
            Box::pin(async move { stored(&session, &table).await })
        });
        read.await
    }

    async fn reset(&self, entity: &Arc<Entity>) -> Result<()> {
        let done = self.following("reset", entity, |session, table| {
            Box::pin(async move { reset(&session, &table).await })
        });
        done.await
    }
}

impl PostgresSource {
    /// Takes in a batch of a first copy the quick way, if it can go that way.
    async fn load(&self, batch: &Batch) -> Result<Option<Applied>> {
        let client = self.client();
        let table = client.table(batch.entity.name())?;
        let Some(rows) = load::rows(&table, batch) else { return Ok(None) };
        let (table, rows) = (&*table, &rows);
        let loaded = client.primary(move |session| {
            Box::pin(async move { load::load(&session, table, batch, rows).await })
        });
        match loaded.await {
            Ok(true) => {
                let outcomes = batch.changes.iter().map(|_| Outcome::Applied).collect();
                return Ok(Some(Applied { outcomes, advanced: false }));
            }
            Err(failed) if failed.class == Class::Lost => {
                return Err(failed.error.on("apply").at(client.name()).of(batch.entity.name()));
            }
            // Whatever is in the way, the slow way deals with it, or says what it is.
            Ok(false) | Err(_) => table.is_filled_anew.store(false, Ordering::Relaxed),
        }
        Ok(None)
    }

    /// Runs work on the primary; if the tables were deleted from outside, they are made again first.
    async fn following<'w, T>(
        &self,
        operation: &'static str,
        entity: &'w Entity,
        work: impl Fn(Arc<Session>, Arc<Table>) -> BoxFuture<'w, Result<T, Failed>> + Send + Sync,
    ) -> Result<T> {
        let client = self.client();
        let named = |e: Failed| e.error.on(operation).at(client.name()).of(entity.name());
        let table = client.table(entity.name())?;
        let on_session = |session| work(session, Arc::clone(&table));
        match client.primary(&on_session).await {
            Err(failed) if failed.class == Class::Gone => {
                client.make_again(failed).await.map_err(named)?;
                client.primary(&on_session).await.map_err(named)
            }
            done => done.map_err(named),
        }
    }
}

async fn stored(session: &Session, table: &Table) -> Result<Option<Checkpoint>, Failed> {
    let sql = format!(
        "SELECT checkpoint, (SELECT TRUE FROM {} LIMIT 0) FROM {}.unisono_checkpoints WHERE entity = $1",
        // Without its table, a checkpoint is worth nothing.
        table.name,
        table.schema
    );
    let rows = session.rows(Use::Often, &sql, &[Parameter::text(table.entity.name())]).await?;
    let text = rows.first().map(|row| optional_text(row, 0)).transpose()?.flatten();
    Ok(text.map(parse_checkpoint).transpose()?)
}

async fn reset(session: &Session, table: &Table) -> Result<(), Failed> {
    let (schema, entity) = (&table.schema, table.entity.name());
    let reset = session
        .run(&format!(
            "BEGIN; {}; DELETE FROM {}; DELETE FROM {schema}.unisono_tombstones WHERE entity = '{entity}'; \
             DELETE FROM {schema}.unisono_checkpoints WHERE entity = '{entity}'; COMMIT",
            lock(table),
            table.name
        ))
        .await;
    table.is_filled_anew.store(reset.is_ok(), Ordering::Relaxed);
    reset
}

/// Waits until no other batch of the entity is under way, and keeps further ones waiting until the transaction ends.
fn lock(table: &Table) -> String {
    locking(table, "")
}

/// The same for a batch; those that only put records go beside each other.
fn lock_for(table: &Table, batch: &Batch) -> String {
    locking(table, if batch.only_puts() { "_shared" } else { "" })
}

fn locking(table: &Table, manner: &str) -> String {
    // The name of the table is in it, so that installations in other schemas have locks of their own.
    let name = format!("unisono {}", table.name).replace('\'', "''");
    format!("SELECT pg_advisory_xact_lock{manner}(hashtextextended('{name}', 0))")
}

async fn apply(session: &Session, table: &Table, batch: &Batch) -> Result<Applied, Failed> {
    let mut items = Vec::with_capacity(batch.changes.len());
    let mut outcomes: Vec<Option<Outcome>> = Vec::with_capacity(batch.changes.len());
    for (at, change) in batch.changes.iter().enumerate() {
        match Item::of(table, at, change) {
            Ok(item) => {
                items.push(item);
                outcomes.push(None);
            }
            Err(error) => outcomes.push(Some(Outcome::Rejected(error))),
        }
    }
    let settled = items.len() == batch.changes.len();
    match together(session, table, batch, &items, settled).await {
        Ok(applied) => {
            for (at, outcome) in outcomes.iter_mut().enumerate().filter(|(_, o)| o.is_none()) {
                *outcome =
                    Some(if applied.contains(&at) { Outcome::Applied } else { Outcome::Stale });
            }
            let outcomes = outcomes.into_iter().flatten().collect();
            Ok(Applied { outcomes, advanced: settled && batch.advance.is_some() })
        }
        Err(failed) if failed.class == Class::Refused => {
            // The transaction has failed; where nothing was sent ahead, it is still open.
            session.run("ROLLBACK").await?;
            one_by_one(session, table, batch, items, outcomes).await
        }
        Err(failed) => Err(failed),
    }
}

/// Takes in all items with as few statements as possible; answers the indexes of those that were not stale.
async fn together(
    session: &Session,
    table: &Table,
    batch: &Batch,
    items: &[Item<'_>],
    settled: bool,
) -> Result<HashSet<usize>, Failed> {
    let begin = format!("BEGIN; {}", lock_for(table, batch));
    let (sql, parameters) = statement(table, batch, items, settled)?;
    let rows = if session.is_pipelining() {
        session.prepare(&sql, &parameters).await?;
        // What is sent behind a statement that fails has no effect, as the transaction has failed.
        let main = session.rows(Use::Often, &sql, &parameters);
        try_join3(session.run(&begin), main, session.run("COMMIT")).await?.1
    } else {
        session.run(&begin).await?;
        let rows = session.rows(Use::Often, &sql, &parameters).await?;
        session.run("COMMIT").await?;
        rows
    };
    let fresh = fresh(&rows, batch)?;
    Ok(fresh.unwrap_or_else(|| items.iter().map(|item| item.at).collect()))
}

/// The indexes of the items that were not stale, none if all are; fails if the checkpoint is somewhere else.
fn fresh(rows: &[Row], batch: &Batch) -> Result<Option<HashSet<usize>>, Failed> {
    let row = rows.first().ok_or_else(|| Error::internal("the statement has no answer"))?;
    if cell(row, 0)? != Some(&[1]) {
        return Err(moved(optional_text(row, 1)?, batch.advance.as_ref()).into());
    }
    let fresh = optional_integers(row, 2)?;
    Ok(fresh.map(|all| all.into_iter().filter_map(|n| usize::try_from(n).ok()).collect()))
}

/// The same in one transaction, each change by itself, so that one that the table refuses goes alone.
async fn one_by_one(
    session: &Session,
    table: &Table,
    batch: &Batch,
    items: Vec<Item<'_>>,
    mut outcomes: Vec<Option<Outcome>>,
) -> Result<Applied, Failed> {
    session.run(&format!("BEGIN; {}", lock(table))).await?;
    // Looks at the checkpoint, and leaves it.
    let alone = Batch { changes: Vec::new(), ..batch.clone() };
    check_held(session, table, &alone).await?;
    let without = Batch { advance: None, ..alone };
    for item in items {
        let at = item.at;
        session.run("SAVEPOINT unisono_change").await?;
        let (sql, parameters) = statement(table, &without, &[item], false)?;
        let outcome = match session.rows(Use::Often, &sql, &parameters).await {
            Ok(rows) => match fresh(&rows, &without)? {
                None => Outcome::Applied,
                Some(_) => Outcome::Stale,
            },
            Err(failed) if failed.class == Class::Refused => {
                session.run("ROLLBACK TO unisono_change").await?;
                let key = batch.changes.get(at).map_or(String::new(), |c| c.key.to_string());
                Outcome::Rejected(failed.error.with("key", key))
            }
            Err(failed) => return Err(failed),
        };
        session.run("RELEASE unisono_change").await?;
        if let Some(place) = outcomes.get_mut(at) {
            *place = Some(outcome);
        }
    }
    let outcomes: Vec<_> = outcomes.into_iter().flatten().collect();
    let settled = outcomes.iter().all(|o| matches!(o, Outcome::Applied | Outcome::Stale));
    if settled && batch.advance.is_some() {
        let (sql, parameters) =
            statement(table, &Batch { changes: Vec::new(), ..batch.clone() }, &[], true)?;
        session.rows(Use::Often, &sql, &parameters).await?;
    }
    session.run("COMMIT").await?;
    Ok(Applied { outcomes, advanced: settled && batch.advance.is_some() })
}

async fn check_held(session: &Session, table: &Table, batch: &Batch) -> Result<(), Failed> {
    let (sql, parameters) = statement(table, batch, &[], false)?;
    let rows = session.rows(Use::Often, &sql, &parameters).await?;
    fresh(&rows, batch).map(drop)
}

fn moved(stored: Option<&str>, advance: Option<&Advance>) -> Error {
    let show = |checkpoint: Option<&Checkpoint>| {
        checkpoint.map_or("none".to_owned(), |c| c.position.to_string())
    };
    let stored = stored.and_then(|text| parse_checkpoint(text).ok());
    Error::new(ErrorKind::CheckpointMoved, "the checkpoint is not where the delivery left it")
        .with("expected", show(advance.and_then(|a| a.from.as_ref())))
        .with("stored", show(stored.as_ref()))
}
