//! The auditor: records in the order of their keys, read back from the table.

use std::sync::Arc;

use async_trait::async_trait;
use unisono_core::source::{At, Auditor, ScanPage};
use unisono_core::{Entity, Key, Result, Role, Value};

use crate::codec::encode_key;
use crate::error::translate;
use crate::source::SqliteSource;

#[async_trait]
impl Auditor for SqliteSource {
    async fn scan(
        &self,
        entity: &Arc<Entity>,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<At<ScanPage>> {
        let after = after.cloned();
        self.read_at("scan", entity, move |session, table| {
            let (key, selected, name) = (table.key_column(), &table.selected, &table.name);
            let from = if after.is_some() { format!("WHERE {key} > ?1") } else { String::new() };
            let limit_sql = limit.saturating_add(1);
            let sql =
                format!("SELECT {selected} FROM {name} {from} ORDER BY {key} LIMIT {limit_sql}");
            let mut statement = session.connection.prepare_cached(&sql).map_err(translate)?;
            if let Some(after) = &after {
                statement.raw_bind_parameter(1, encode_key(after)).map_err(translate)?;
            }
            let mut rows = statement.raw_query();
            let mut records = Vec::new();
            while let Some(row) = rows.next().map_err(translate)? {
                // A value that somebody broke by hand must not end the comparison that would repair it.
                records.push(table.stored_with(row, |_, error| match table.role {
                    Role::Truth => Err(error),
                    Role::Follower | Role::Cache | Role::Journal => Ok(Value::Null),
                })?);
            }
            let end = records.len() <= limit;
            records.truncate(limit);
            Ok(ScanPage { records, end })
        })
        .await
    }
}
