//! [`Clear`]: a truth as a `clear` follower is to hold it: copies, redeliveries and comparisons read it by way of this.

use std::sync::Arc;

use async_trait::async_trait;
use unisono_core::auditor::{Auditor, ScanPage};
use unisono_core::query::{Aggregate, Filter, Groups, Page, Query};
use unisono_core::slice::{SliceDigest, Slices};
use unisono_core::source::{At, Reader};
use unisono_core::{Entity, Key, Result, Stored, Version};

use super::Keyring;

/// A truth, opened.
pub(crate) struct Clear {
    pub(crate) reader: Arc<dyn Reader>,
    pub(crate) auditor: Arc<dyn Auditor>,
    pub(crate) keyring: Arc<Keyring>,
}

#[async_trait]
impl Reader for Clear {
    async fn get(&self, entity: &Arc<Entity>, keys: &[Key]) -> Result<At<Vec<Option<Stored>>>> {
        let mut found = self.reader.get(entity, keys).await?;
        self.keyring.open_stored(entity, found.value.iter_mut().flatten(), true).await?;
        Ok(found)
    }

    async fn query(&self, entity: &Arc<Entity>, query: &Query) -> Result<At<Page>> {
        let mut found = self.reader.query(entity, query).await?;
        self.keyring.open_page(entity, &mut found.value, true).await?;
        Ok(found)
    }

    async fn count(
        &self,
        entity: &Arc<Entity>,
        filter: &Filter,
        search: Option<&str>,
    ) -> Result<At<u64>> {
        self.reader.count(entity, filter, search).await
    }

    async fn aggregate(&self, entity: &Arc<Entity>, aggregate: &Aggregate) -> Result<At<Groups>> {
        self.reader.aggregate(entity, aggregate).await
    }
}

#[async_trait]
impl Auditor for Clear {
    async fn scan(
        &self,
        entity: &Arc<Entity>,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<At<ScanPage>> {
        let mut found = self.auditor.scan(entity, after, limit).await?;
        self.keyring.open_stored(entity, found.value.records.iter_mut(), true).await?;
        Ok(found)
    }

    async fn digests(&self, entity: &Arc<Entity>, slices: Slices) -> Result<At<Vec<SliceDigest>>> {
        self.auditor.digests(entity, slices).await
    }

    async fn versions(
        &self,
        entity: &Arc<Entity>,
        slices: Slices,
        among: &[u64],
    ) -> Result<At<Vec<(Key, Version)>>> {
        self.auditor.versions(entity, slices, among).await
    }
}
