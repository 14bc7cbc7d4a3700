//! The auditor: records in the order of their keys, read back from the table, and sums of their versions.

use std::sync::Arc;

use async_trait::async_trait;
use unisono_core::slice::{SliceDigest, Slices, Sums};
use unisono_core::source::{At, Auditor, ScanPage};
use unisono_core::{Entity, Key, Position, Result, Role, Value, Version};

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
                    Role::Follower | Role::Cache | Role::Journal | Role::Vault | Role::Outlet => {
                        Ok(Value::Null)
                    }
                })?);
            }
            let end = records.len() <= limit;
            records.truncate(limit);
            Ok(ScanPage { records, end })
        })
        .await
    }

    async fn digests(&self, entity: &Arc<Entity>, slices: Slices) -> Result<At<Vec<SliceDigest>>> {
        self.read_at("digests", entity, move |session, table| {
            let sql = format!("SELECT {} FROM {}", table.version, table.name);
            let mut statement = session.connection.prepare_cached(&sql).map_err(translate)?;
            let (mut rows, mut sums) = (statement.raw_query(), Sums::new(slices));
            while let Some(row) = rows.next().map_err(translate)? {
                sums.add(Position::from_i64(row.get(0).map_err(translate)?)?);
            }
            Ok(sums.finish())
        })
        .await
    }

    async fn versions(
        &self,
        entity: &Arc<Entity>,
        slices: Slices,
        among: &[u64],
    ) -> Result<At<Vec<(Key, Version)>>> {
        let among = among.to_vec();
        self.read_at("versions", entity, move |session, table| {
            let (version, key, name) = (&table.version, table.key_column(), &table.name);
            let sql = format!("SELECT {version}, {key} FROM {name}");
            let mut statement = session.connection.prepare_cached(&sql).map_err(translate)?;
            let (mut rows, mut found) = (statement.raw_query(), Vec::new());
            while let Some(row) = rows.next().map_err(translate)? {
                let version = Position::from_i64(row.get(0).map_err(translate)?)?;
                if among.binary_search(&slices.of_version(version)).is_ok() {
                    found.push((table.key_at(row, 1)?, version));
                }
            }
            Ok(found)
        })
        .await
    }
}
