//! The auditor: records in the order of their keys, read back from the table.

use std::sync::Arc;

use async_trait::async_trait;
use unisono_core::source::{At, Auditor, ScanPage};
use unisono_core::{Entity, Key, Result, Role, Stored, Value};

use crate::codec::{Form, encode_key};
use crate::error::Failed;
use crate::parameter::{Parameter, optional_text};
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
        let client = self.client();
        let table = &*client.table(entity.name())?;
        let scanned = || {
            client.primary(move |session| {
                Box::pin(async move { scan(&session, table, after, limit).await })
            })
        };
        let named = |e: Failed| e.error.on("scan").at(client.name()).of(entity.name());
        let (at, lags) = scanned().await.map_err(named)?;
        if lags {
            self.follow().await?;
            return Ok(scanned().await.map_err(named)?.0);
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
            Role::Follower | Role::Cache | Role::Journal => Ok(Value::Null),
        })?);
    }
    let end = records.len() <= limit;
    records.truncate(limit);
    Ok((At { value: ScanPage { records, end }, position }, table.lags(said)))
}
