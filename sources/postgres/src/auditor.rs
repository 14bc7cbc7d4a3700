//! The auditor: records in the order of their keys, read back from the table, and sums of their versions.

use std::sync::Arc;

use async_trait::async_trait;
use tokio_postgres::Row;
use unisono_core::slice::{Scramble, SliceDigest, Slices};
use unisono_core::source::{At, Auditor, ScanPage};
use unisono_core::{Entity, Key, Position, Result, Role, Stored, Value, Version};

use crate::codec::{Form, decode, encode_key};
use crate::error::Failed;
use crate::parameter::{Parameter, cell, integer, optional_text};
use crate::session::{Session, Use};
use crate::source::PostgresSource;
use crate::table::Table;

#[async_trait]
impl Auditor for PostgresSource {
    async fn scan(
        &self,
        entity: &Arc<Entity>,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<At<ScanPage>> {
        let (client, table) = (self.client(), self.client().table(entity.name())?);
        let table = &*table;
        let asked = || {
            client.primary(move |session| {
                Box::pin(async move { scan(&session, table, after, limit).await })
            })
        };
        self.current("scan", entity, asked).await
    }

    async fn digests(&self, entity: &Arc<Entity>, slices: Slices) -> Result<At<Vec<SliceDigest>>> {
        let (client, table) = (self.client(), self.client().table(entity.name())?);
        let table = &*table;
        let asked = || {
            client.primary(move |session| {
                Box::pin(async move { digests(&session, table, slices).await })
            })
        };
        self.current("digests", entity, asked).await
    }

    async fn versions(
        &self,
        entity: &Arc<Entity>,
        slices: Slices,
        among: &[u64],
    ) -> Result<At<Vec<(Key, Version)>>> {
        let (client, table) = (self.client(), self.client().table(entity.name())?);
        let table = &*table;
        let asked = || {
            client.primary(move |session| {
                Box::pin(async move { versions(&session, table, slices, among).await })
            })
        };
        self.current("versions", entity, asked).await
    }
}

impl PostgresSource {
    /// What the primary answers; once more if what others have written to a captured table had no versions yet.
    async fn current<T, F: Future<Output = Result<(At<T>, bool), Failed>>>(
        &self,
        operation: &'static str,
        entity: &Entity,
        asked: impl Fn() -> F,
    ) -> Result<At<T>> {
        let named = |e: Failed| e.error.on(operation).at(self.client().name()).of(entity.name());
        let (at, lags) = asked().await.map_err(named)?;
        if lags {
            self.follow().await?;
            return Ok(asked().await.map_err(named)?.0);
        }
        Ok(at)
    }
}

async fn scan(
    session: &Session,
    table: &Table,
    after: Option<&Key>,
    limit: usize,
) -> Result<(At<ScanPage>, bool), Failed> {
    let (key, selected, name) = (table.ordered_key(), &table.selected, &table.name);
    let position = table.marked_position("TRUE");
    let from = if after.is_some() { format!("WHERE {key} > $1") } else { String::new() };
    let limit_sql = limit.saturating_add(1);
    // One statement, and so one snapshot; a page without records has a position, too.
    let sql = format!(
        "SELECT {position} AS position, page.* FROM (SELECT 1) one LEFT JOIN LATERAL \
         (SELECT {selected}, row_number() OVER (ORDER BY {key}) AS place FROM {name} {from} ORDER BY {key} LIMIT {limit_sql}) page ON TRUE \
         ORDER BY page.place"
    );
    let key_type = Form::of(table.key_type()).wire();
    let parameter = after.map(|key| Parameter::new(key_type, Some(encode_key(key))));
    let rows = session.rows(Use::Often, &sql, parameter.as_slice()).await?;
    let said = rows.first().map(|row| optional_text(row, 0)).transpose()?.flatten();
    let position = table.position_of(said)?;
    let place = table.columns.len() + 2;
    let mut records: Vec<Stored> = Vec::with_capacity(rows.len());
    for row in &rows {
        if crate::parameter::cell(row, place)?.is_none() {
            continue;
        }
        // A value that somebody broke by hand must not end the comparison that would repair it.
        records.push(table.stored_with(row, 1, |error| match table.role {
            Role::Truth => Err(error),
            Role::Follower | Role::Cache | Role::Journal | Role::Vault | Role::Outlet => {
                Ok(Value::Null)
            }
        })?);
    }
    let end = records.len() <= limit;
    records.truncate(limit);
    Ok((At { value: ScanPage { records, end }, position }, table.lags(said)))
}

/// Sums of four-byte numbers, which the server adds up without going over to its decimals.
async fn digests(
    session: &Session,
    table: &Table,
    slices: Slices,
) -> Result<(At<Vec<SliceDigest>>, bool), Failed> {
    let [one, other] = Scramble::BOTH.map(|scramble| scramble.expression("v"));
    let sql = format!(
        "SELECT v >> {bits}, count(*), sum(({one})::int), sum(({other})::int) FROM \
         (SELECT {version} AS v FROM {name}) r GROUP BY 1",
        bits = slices.bits(),
        version = table.version,
        name = table.name
    );
    let digest = |row: &Row| {
        let number = |column| Ok::<_, unisono_core::Error>(integer(row, column)?.unsigned_abs());
        Ok(SliceDigest { slice: number(1)?, records: number(2)?, sums: [number(3)?, number(4)?] })
    };
    let (mut at, lags) = of_one_moment(session, table, &sql, digest).await?;
    at.value.sort_unstable_by_key(|digest| digest.slice);
    Ok((at, lags))
}

async fn versions(
    session: &Session,
    table: &Table,
    slices: Slices,
    among: &[u64],
) -> Result<(At<Vec<(Key, Version)>>, bool), Failed> {
    let among: Vec<_> = among.iter().map(u64::to_string).collect();
    let sql = format!(
        "SELECT * FROM (SELECT {key}, {version} AS v FROM {name}) r WHERE v >> {bits} = ANY ('{{{among}}}')",
        key = table.selected_key(),
        version = table.version,
        name = table.name,
        bits = slices.bits(),
        among = among.join(",")
    );
    let pair = |row: &Row| {
        let value = cell(row, 1)?.map(|bytes| decode(table.key_type(), bytes)).transpose()?;
        let key = Key::from_value(value.as_ref().unwrap_or(&Value::Null))?;
        Ok((key, Position::from_i64(integer(row, 2)?)?))
    };
    of_one_moment(session, table, &sql, pair).await
}

/// The rows of a statement without nulls, with the position of the same snapshot: one statement, a row at least.
async fn of_one_moment<T>(
    session: &Session,
    table: &Table,
    sql: &str,
    each: impl Fn(&Row) -> Result<T>,
) -> Result<(At<Vec<T>>, bool), Failed> {
    let position = table.marked_position("TRUE");
    let sql = format!(
        "SELECT p.position, t.* FROM (SELECT {position} AS position) p LEFT JOIN ({sql}) t ON TRUE"
    );
    let rows = session.rows(Use::Once, &sql, &[]).await?;
    let said = rows.first().map(|row| optional_text(row, 0)).transpose()?.flatten();
    let mut value = Vec::with_capacity(rows.len());
    for row in &rows {
        if cell(row, 1)?.is_some() {
            value.push(each(row)?);
        }
    }
    Ok((At { value, position: table.position_of(said)? }, table.lags(said)))
}
