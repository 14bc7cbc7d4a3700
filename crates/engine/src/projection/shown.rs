//! [`Shown`]: the rows of the version that answers, under the name by which they are read.

use std::sync::Arc;

use async_trait::async_trait;
use unisono_core::query::{Aggregate, Filter, Groups, Page, Query};
use unisono_core::source::{At, Reader};
use unisono_core::{Entity, Key, Result, Stored};

/// Reads the rows of one version, whatever entity is asked for.
pub(crate) struct Shown {
    pub(crate) reader: Arc<dyn Reader>,
    pub(crate) rows: Arc<Entity>,
}

#[async_trait]
impl Reader for Shown {
    async fn get(&self, _: &Arc<Entity>, keys: &[Key]) -> Result<At<Vec<Option<Stored>>>> {
        self.reader.get(&self.rows, keys).await
    }

    async fn query(&self, _: &Arc<Entity>, query: &Query) -> Result<At<Page>> {
        self.reader.query(&self.rows, query).await
    }

    async fn count(
        &self,
        _: &Arc<Entity>,
        filter: &Filter,
        search: Option<&str>,
    ) -> Result<At<u64>> {
        self.reader.count(&self.rows, filter, search).await
    }

    async fn aggregate(&self, _: &Arc<Entity>, aggregate: &Aggregate) -> Result<At<Groups>> {
        self.reader.aggregate(&self.rows, aggregate).await
    }
}
