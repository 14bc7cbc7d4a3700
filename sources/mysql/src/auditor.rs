//! The auditor: records in the order of their keys, read back from the table, and sums of their versions.

use std::sync::Arc;

use async_trait::async_trait;
use mysql_async::Row;
use unisono_core::slice::{Scramble, SliceDigest, Slices};
use unisono_core::source::{At, Auditor, ScanPage};
use unisono_core::{Entity, Key, Position, Result, Role, Value, Version};

use crate::codec::{decode, number_of};
use crate::query::TableRows;
use crate::source::MysqlSource;
use crate::table::cell;

#[async_trait]
impl Auditor for MysqlSource {
    async fn scan(
        &self,
        entity: &Arc<Entity>,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<At<ScanPage>> {
        let mut rows = TableRows::open(self.client(), "scan", entity).await?;
        let page = page(&mut rows, after, limit).await;
        rows.end(page).await
    }

    async fn digests(&self, entity: &Arc<Entity>, slices: Slices) -> Result<At<Vec<SliceDigest>>> {
        let mut rows = TableRows::open(self.client(), "digests", entity).await?;
        let digests = digests(&mut rows, slices).await;
        rows.end(digests).await
    }

    async fn versions(
        &self,
        entity: &Arc<Entity>,
        slices: Slices,
        among: &[u64],
    ) -> Result<At<Vec<(Key, Version)>>> {
        let mut rows = TableRows::open(self.client(), "versions", entity).await?;
        let versions = versions(&mut rows, slices, among).await;
        rows.end(versions).await
    }
}

async fn page(rows: &mut TableRows, after: Option<&Key>, limit: usize) -> Result<ScanPage> {
    let table = rows.table();
    let key = table.key_column();
    let from = match after {
        Some(after) => format!("WHERE {key} > {}", table.literal(after)),
        None => String::new(),
    };
    let (selected, name, asked) = (&table.selected, &table.name, limit.saturating_add(1));
    let sql = format!("SELECT {selected} FROM {name} {from} ORDER BY {key} LIMIT {asked}");
    let mut records = Vec::new();
    for row in &rows.rows(&sql).await? {
        // A value that somebody broke by hand must not end the comparison that would repair it.
        records.push(table.stored_with(row, |_, error| match table.role {
            Role::Truth => Err(error),
            Role::Follower | Role::Cache | Role::Journal | Role::Vault | Role::Outlet => {
                Ok(Value::Null)
            }
        })?);
    }
    let end = records.len() <= limit;
    records.truncate(limit);
    Ok(ScanPage { records, end })
}

async fn digests(rows: &mut TableRows, slices: Slices) -> Result<Vec<SliceDigest>> {
    let table = rows.table();
    let [one, other] = Scramble::BOTH.map(|scramble| scramble.expression("v"));
    let sql = format!(
        "SELECT v >> {}, COUNT(*), SUM({one}), SUM({other}) FROM \
         (SELECT {} AS v FROM {}) r GROUP BY 1 ORDER BY 1",
        slices.bits(),
        table.sole_version(),
        table.name
    );
    let digest = |row: &Row| {
        let number = |n| {
            let number = number_of(cell(row, n)?)?;
            Result::<u64>::Ok(number.unwrap_or_default().unsigned_abs())
        };
        Ok(SliceDigest { slice: number(0)?, records: number(1)?, sums: [number(2)?, number(3)?] })
    };
    rows.rows(&sql).await?.iter().map(digest).collect()
}

async fn versions(
    rows: &mut TableRows,
    slices: Slices,
    among: &[u64],
) -> Result<Vec<(Key, Version)>> {
    let table = rows.table();
    let among: Vec<_> = among.iter().map(u64::to_string).collect();
    let sql = format!(
        "SELECT * FROM (SELECT {}, {} AS v FROM {}) r WHERE v >> {} IN ({})",
        table.key_column(),
        table.sole_version(),
        table.name,
        slices.bits(),
        among.join(",")
    );
    let key = table.columns.get(table.entity.key_index());
    let pair = |row: &Row| {
        let value = match key {
            Some(column) => decode(column.form, &column.ty, cell(row, 0)?)?,
            None => Value::Null,
        };
        let version = number_of(cell(row, 1)?)?.unwrap_or_default();
        Ok((Key::from_value(&value)?, Position::from_i64(version)?))
    };
    rows.rows(&sql).await?.iter().map(pair).collect()
}
