//! What a projection shows of itself to whoever compares records: its parts, which have the versions of the records.

use std::sync::Arc;

use async_trait::async_trait;
use unisono_core::slice::{SliceDigest, Slices};
use unisono_core::source::{At, Auditor, ScanPage};
use unisono_core::{Entity, Key, Record, Result, Stored, Version};

use super::Projector;

#[async_trait]
impl Auditor for Projector {
    /// Keys and versions; of the data nothing is left, so that a copy brings every record again.
    async fn scan(
        &self,
        _: &Arc<Entity>,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<At<ScanPage>> {
        let page = self.target.auditor.scan(&self.projection.parts, after, limit).await?;
        let nothing = Arc::new(Record::new(Vec::new()));
        let bare = |part: Stored| Stored::new(part.key, part.version, Arc::clone(&nothing));
        let ScanPage { records, end } = page.value;
        let records = records.into_iter().map(bare).collect();
        Ok(At { value: ScanPage { records, end }, position: page.position })
    }

    async fn digests(&self, _: &Arc<Entity>, slices: Slices) -> Result<At<Vec<SliceDigest>>> {
        self.target.auditor.digests(&self.projection.parts, slices).await
    }

    async fn versions(
        &self,
        _: &Arc<Entity>,
        slices: Slices,
        among: &[u64],
    ) -> Result<At<Vec<(Key, Version)>>> {
        self.target.auditor.versions(&self.projection.parts, slices, among).await
    }
}
