//! Role auditor: a scan in the order of keys.

use std::ops::Bound;
use std::sync::Arc;

use async_trait::async_trait;
use unisono_core::source::{At, Auditor, ScanPage};
use unisono_core::{Entity, Key, Result};

use crate::source::MemorySource;

#[async_trait]
impl Auditor for MemorySource {
    async fn scan(
        &self,
        entity: &Arc<Entity>,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<At<ScanPage>> {
        self.answer(entity, "scan", |table| {
            let start = after.map_or(Bound::Unbounded, Bound::Excluded);
            let mut rest = table.live.range((start, Bound::Unbounded));
            let records = rest.by_ref().take(limit).map(|(_, stored)| stored.clone()).collect();
            Ok(ScanPage { records, end: rest.next().is_none() })
        })
    }
}
