//! Role auditor: records in the order of their keys, read back from where they are kept.

use std::sync::Arc;

use async_trait::async_trait;
use unisono_core::source::{At, Auditor, ScanPage};
use unisono_core::{Entity, Key, Result};

use crate::scan::{Broken, Range, Scan};
use crate::source::RedisSource;

/// The most records that are read ahead of one part.
const AHEAD_MAX: usize = 1024;

#[async_trait]
impl Auditor for RedisSource {
    async fn scan(
        &self,
        entity: &Arc<Entity>,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<At<ScanPage>> {
        let scanned = async {
            let table = self.table(entity)?;
            let range = after.map_or_else(Range::all, |key| Range::all().after(key));
            let wanted = limit.saturating_add(1).min(AHEAD_MAX);
            let mut scan = Scan::new(self, &table, range, wanted, Broken::Shows);
            let mut records = Vec::new();
            loop {
                // Records that were removed from under their place in the index leave pages short, never empty.
                let (keys, more) = scan.keys(limit - records.len()).await?;
                let read = self.records(&table, &keys, Broken::Shows).await?;
                let position = scan.position();
                let position = if keys.is_empty() { position } else { position.min(read.position) };
                records.extend(read.value.into_iter().flatten());
                if !more || records.len() == limit {
                    return Ok(At { value: ScanPage { records, end: !more }, position });
                }
            }
        };
        scanned.await.map_err(|e| self.place(e, "scan", entity))
    }
}
