//! The auditor: records in the order of their keys, read back from the table.

use std::sync::Arc;

use async_trait::async_trait;
use unisono_core::source::{At, Auditor, ScanPage};
use unisono_core::{Entity, Key, Result, Role, Value};

use crate::query::TableRows;
use crate::source::MysqlSource;

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
            Role::Follower | Role::Cache | Role::Journal => Ok(Value::Null),
        })?);
    }
    let end = records.len() <= limit;
    records.truncate(limit);
    Ok(ScanPage { records, end })
}
