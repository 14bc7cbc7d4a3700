//! The follower: changes, tombstones and checkpoint in one transaction, sent in one round trip.
//!
//! A lock of the transaction on the entity makes batches of all processes serial, so that what a statement has seen
//! stays true while it writes. It is not of the session, and so goes well with PgBouncer.

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::{BoxFuture, try_join3};
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use unisono_core::source::{Advance, Applied, Batch, Checkpoint, Follower, Outcome};
use unisono_core::{Change, Entity, Error, ErrorKind, Operation, Result};

use crate::codec::{Form, encode_key, key_text};
use crate::error::{Class, Failed};
use crate::parameter::{Parameter, cell, integer, optional_text};
use crate::session::{Session, Use};
use crate::source::PostgresSource;
use crate::table::Table;

/// A checkpoint from its column.
pub(crate) fn parse_checkpoint(text: &str) -> Result<Checkpoint> {
    serde_json::from_str(text).map_err(|e| {
        Error::new(ErrorKind::Corrupt, "the stored checkpoint cannot be decoded").caused_by(e)
    })
}

fn checkpoint_text(checkpoint: &Checkpoint) -> Result<String> {
    serde_json::to_string(checkpoint)
        .map_err(|e| Error::internal("the checkpoint cannot be encoded").caused_by(e))
}

#[async_trait]
impl Follower for PostgresSource {
    async fn apply(&self, batch: Batch) -> Result<Applied> {
        let batch = &batch;
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
    session
        .run(&format!(
            "BEGIN; {}; DELETE FROM {}; DELETE FROM {schema}.unisono_tombstones WHERE entity = '{entity}'; \
             DELETE FROM {schema}.unisono_checkpoints WHERE entity = '{entity}'; COMMIT",
            lock(table),
            table.name
        ))
        .await
}

/// Waits until no other batch of the entity is under way, and keeps further ones waiting until the transaction ends.
fn lock(table: &Table) -> String {
    // The name of the table is in it, so that installations in other schemas have locks of their own.
    let name = format!("unisono {}", table.name).replace('\'', "''");
    format!("SELECT pg_advisory_xact_lock(hashtextextended('{name}', 0))")
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

/// One change, ready to be sent.
struct Item<'a> {
    at: usize,
    change: &'a Change,
    /// The record's values; none for a deletion.
    row: Option<Vec<Option<Vec<u8>>>>,
}

impl<'a> Item<'a> {
    fn of(table: &Table, at: usize, change: &'a Change) -> Result<Self> {
        if (change.operation == Operation::Put) != change.image.is_some() {
            return Err(Error::new(ErrorKind::Corrupt, "the change has no image, or one too many")
                .with("key", &change.key));
        }
        let row = change.image.as_ref().map(|record| table.encode(record)).transpose();
        Ok(Item { at, change, row: row.map_err(|e| e.with("key", &change.key))? })
    }
}

/// Takes in all items with as few statements as possible; answers the indexes of those that were not stale.
async fn together(
    session: &Session,
    table: &Table,
    batch: &Batch,
    items: &[Item<'_>],
    settled: bool,
) -> Result<Vec<usize>, Failed> {
    let begin = format!("BEGIN; {}", lock(table));
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
    let held = rows.first().map(|row| cell(row, 0).map(|c| c == Some(&[1]))).transpose()?;
    if held != Some(true) {
        let stored = rows.first().map(|row| optional_text(row, 1)).transpose()?.flatten();
        return Err(moved(stored, batch.advance.as_ref()).into());
    }
    let fresh = |row: &Row| cell(row, 2)?.is_some().then(|| integer(row, 2)).transpose();
    let fresh: Vec<Option<i64>> = rows.iter().map(fresh).collect::<Result<_>>()?;
    Ok(fresh.into_iter().flatten().filter_map(|n| usize::try_from(n).ok()).collect())
}

/// The one statement of a batch. It answers whether the checkpoint is where it must be, the checkpoint, and for each
/// item that is not stale its index.
fn statement(
    table: &Table,
    batch: &Batch,
    items: &[Item<'_>],
    settled: bool,
) -> Result<(String, Vec<Parameter>)> {
    let Table { schema, name, .. } = table;
    let entity = table.entity.name();
    let key_type = Form::of(table.key_type()).wire();
    let mut parameters = Vec::new();
    let from =
        batch.advance.as_ref().and_then(|a| a.from.as_ref()).map(checkpoint_text).transpose()?;
    parameters.push(Parameter::new(Type::TEXT, from.map(String::into_bytes)));
    parameters.push(Parameter::new(Type::BOOL, Some(vec![u8::from(batch.advance.is_some())])));
    let place =
        format!("(SELECT checkpoint FROM {schema}.unisono_checkpoints WHERE entity = '{entity}')");
    let mut parts = vec![format!(
        "here AS (SELECT (NOT $2 OR {place} IS NOT DISTINCT FROM $1) AS held, {place} AS checkpoint)"
    )];
    let (puts, cuts): (Vec<_>, Vec<_>) = items.iter().partition(|item| item.row.is_some());
    // A copy of the truth is written over an equal version, too, which repairs it.
    let newer = if batch.copied { ">=" } else { ">" };
    let mut fresh = Vec::new();
    if !puts.is_empty() {
        let from = bind_items(&mut parameters, &puts, key_type.clone());
        let mut names = String::new();
        for (n, column) in table.columns.iter().enumerate() {
            let values: Vec<_> = puts.iter().map(|i| row_value(i, n)).collect();
            parameters.push(Parameter::array(&column.form.wire(), &values));
            names += &format!(", ${}", parameters.len());
        }
        let values: String = (0..table.columns.len()).map(|n| format!(", c{n}")).collect();
        parts.push(format!(
            "puts AS (SELECT i.* FROM here, unnest({from}{names}) AS i(at, key, name, version{values}) \
             WHERE here.held AND {})",
            is_fresh(table, newer)
        ));
        parts.push(format!("put AS ({})", upsert(table)));
        fresh.push("SELECT at FROM puts");
    }
    if !cuts.is_empty() {
        let from = bind_items(&mut parameters, &cuts, key_type);
        parts.push(format!(
            "cuts AS (SELECT i.* FROM here, unnest({from}) AS i(at, key, name, version) WHERE here.held AND {})",
            is_fresh(table, newer)
        ));
        parts.push(format!(
            "cut AS (DELETE FROM {name} WHERE {} IN (SELECT key FROM cuts))",
            table.key()
        ));
        parts.push(format!(
            "grave AS (INSERT INTO {schema}.unisono_tombstones (entity, key, version) SELECT '{entity}', name, version FROM cuts \
             ON CONFLICT (entity, key) DO UPDATE SET version = excluded.version)"
        ));
        fresh.push("SELECT at FROM cuts");
    }
    if let Some(advance) = batch.advance.as_ref().filter(|_| settled) {
        parts.push(advance_part(table, advance, &mut parameters)?);
        parts.extend(forget_part(table, advance, !cuts.is_empty(), &mut parameters));
    }
    let fresh = match fresh.is_empty() {
        true => "SELECT NULL::bigint AS at WHERE FALSE".to_owned(),
        false => fresh.join(" UNION ALL "),
    };
    let sql = format!(
        "WITH {} SELECT here.held, here.checkpoint, f.at FROM here LEFT JOIN ({fresh}) f ON TRUE",
        parts.join(", ")
    );
    Ok((sql, parameters))
}

/// Binds index, key, key as text and version of items; answers the marks.
fn bind_items(parameters: &mut Vec<Parameter>, items: &[&Item<'_>], key_type: Type) -> String {
    let of =
        |f: &dyn Fn(&Item<'_>) -> Vec<u8>| items.iter().map(|i| Some(f(i))).collect::<Vec<_>>();
    let first = parameters.len() + 1;
    parameters.push(Parameter::array(&Type::INT8, &of(&|i| (i.at as i64).to_be_bytes().to_vec())));
    parameters.push(Parameter::array(&key_type, &of(&|i| encode_key(&i.change.key))));
    parameters.push(Parameter::array(&Type::TEXT, &of(&|i| key_text(&i.change.key).into_bytes())));
    let version = |i: &Item<'_>| i.change.position.as_i64().to_be_bytes().to_vec();
    parameters.push(Parameter::array(&Type::INT8, &of(&version)));
    format!("${first}, ${}, ${}, ${}", first + 1, first + 2, first + 3)
}

fn row_value(item: &Item<'_>, field: usize) -> Option<Vec<u8>> {
    item.row.as_ref().and_then(|row| row.get(field)).cloned().flatten()
}

/// Whether neither the row nor a tombstone is as new as the item `i`.
fn is_fresh(table: &Table, newer: &str) -> String {
    let Table { schema, name, entity, .. } = table;
    format!(
        "i.version {newer} coalesce((SELECT t.unisono_version FROM {name} t WHERE t.{} = i.key), -1) AND \
         i.version {newer} coalesce((SELECT g.version FROM {schema}.unisono_tombstones g \
         WHERE g.entity = '{}' AND g.key = i.name), -1)",
        table.key(),
        entity.name()
    )
}

/// Writes the rows of `puts`.
fn upsert(table: &Table) -> String {
    let columns: String = table.columns.iter().map(|c| format!("{}, ", c.name)).collect();
    let values: String = table
        .columns
        .iter()
        .enumerate()
        .map(|(n, c)| c.stored(&format!("puts.c{n}")) + ", ")
        .collect();
    format!(
        "INSERT INTO {} ({columns}unisono_version) OVERRIDING SYSTEM VALUE SELECT {values}puts.version FROM puts {}",
        table.name,
        table.on_conflict()
    )
}

fn advance_part(
    table: &Table,
    advance: &Advance,
    parameters: &mut Vec<Parameter>,
) -> Result<String> {
    parameters.push(Parameter::text(&checkpoint_text(&advance.to)?));
    Ok(format!(
        "advanced AS (INSERT INTO {}.unisono_checkpoints (entity, checkpoint) SELECT '{}', ${} FROM here WHERE held \
         ON CONFLICT (entity) DO UPDATE SET checkpoint = excluded.checkpoint)",
        table.schema,
        table.entity.name(),
        parameters.len()
    ))
}

/// Forgets deletions that the checkpoint has left behind, but for those of this batch: everything up to there is
/// never sent again. While the first copy is made, records that were read before a deletion may still be under way.
fn forget_part(
    table: &Table,
    advance: &Advance,
    has_cuts: bool,
    parameters: &mut Vec<Parameter>,
) -> Option<String> {
    let passed = advance.from.as_ref().filter(|from| from.backfill.is_none())?;
    parameters.push(Parameter::integer(passed.position.as_i64()));
    let spared = if has_cuts { " AND g.key NOT IN (SELECT name FROM cuts)" } else { "" };
    Some(format!(
        "forgotten AS (DELETE FROM {}.unisono_tombstones g USING here WHERE held AND g.entity = '{}' AND g.version <= ${}{spared})",
        table.schema,
        table.entity.name(),
        parameters.len()
    ))
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
            Ok(rows) => {
                let fresh = rows.first().map(|row| cell(row, 2)).transpose()?.flatten();
                if fresh.is_some() { Outcome::Applied } else { Outcome::Stale }
            }
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
    let held = rows.first().map(|row| cell(row, 0).map(|c| c == Some(&[1]))).transpose()?;
    if held == Some(true) {
        return Ok(());
    }
    let stored = rows.first().map(|row| optional_text(row, 1)).transpose()?.flatten();
    Err(moved(stored, batch.advance.as_ref()).into())
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
