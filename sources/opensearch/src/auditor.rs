//! The role of an auditor: records in the order of their keys, read back from the index.

use std::sync::Arc;

use async_trait::async_trait;
use unisono_core::source::{At, Auditor, ScanPage};
use unisono_core::{Entity, Key, Result};

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
}
