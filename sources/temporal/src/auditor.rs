//! Role auditor: a scan of the journal in the order of keys.

use std::sync::Arc;

use async_trait::async_trait;
use unisono_core::slice::{SliceDigest, Slices};
use unisono_core::source::{At, Auditor, ScanPage};
use unisono_core::{Entity, Key, Result, Version};

use crate::source::TemporalSource;

#[async_trait]
impl Auditor for TemporalSource {
    async fn scan(
        &self,
        entity: &Arc<Entity>,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<At<ScanPage>> {
        self.shared.journal.auditor.scan(entity, after, limit).await
    }

    async fn digests(&self, entity: &Arc<Entity>, slices: Slices) -> Result<At<Vec<SliceDigest>>> {
        self.shared.journal.auditor.digests(entity, slices).await
    }

    async fn versions(
        &self,
        entity: &Arc<Entity>,
        slices: Slices,
        among: &[u64],
    ) -> Result<At<Vec<(Key, Version)>>> {
        self.shared.journal.auditor.versions(entity, slices, among).await
    }
}
