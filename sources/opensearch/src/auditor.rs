//! The role of an auditor: records in the order of their keys, read back from the index, and sums of their versions.

use std::sync::Arc;

use async_trait::async_trait;
use unisono_core::slice::{SliceDigest, Slices};
use unisono_core::source::{At, Auditor, ScanPage};
use unisono_core::{Entity, Key, Result, Version};

use crate::query;
use crate::source::OpensearchSource;

#[async_trait]
impl Auditor for OpensearchSource {
    async fn scan(
        &self,
        entity: &Arc<Entity>,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<At<ScanPage>> {
        let handle = self.handle(entity)?;
        let found = async {
            let view = handle.search_view_after(after).await?;
            Ok(At { value: query::scan(&view, after, limit).await?, position: view.position })
        };
        found.await.map_err(|e| handle.locate(e, "scan"))
    }

    async fn digests(&self, entity: &Arc<Entity>, slices: Slices) -> Result<At<Vec<SliceDigest>>> {
        let handle = self.handle(entity)?;
        let summed = async {
            let view = handle.search_view().await?;
            let value = query::slices::digests(&view, slices).await?;
            Ok(At { value, position: view.position })
        };
        summed.await.map_err(|e| handle.locate(e, "digests"))
    }

    async fn versions(
        &self,
        entity: &Arc<Entity>,
        slices: Slices,
        among: &[u64],
    ) -> Result<At<Vec<(Key, Version)>>> {
        let handle = self.handle(entity)?;
        let listed = async {
            let view = handle.search_view().await?;
            let value = query::slices::versions(&view, slices, among).await?;
            Ok(At { value, position: view.position })
        };
        listed.await.map_err(|e| handle.locate(e, "versions"))
    }
}
