//! Role reader: `get` asks the server and records what it says; everything else is answered by the journal.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use unisono_core::query::{Aggregate, Filter, Groups, Page, Query};
use unisono_core::source::{At, Reader};
use unisono_core::{Entity, Key, Result, Stored};

use crate::look::Ask;
use crate::source::TemporalSource;

#[async_trait]
impl Reader for TemporalSource {
    async fn get(&self, entity: &Arc<Entity>, keys: &[Key]) -> Result<At<Vec<Option<Stored>>>> {
        let place = self.shared.place(entity).map_err(self.shared.named("get", entity))?;
        let distinct: Vec<Key> =
            keys.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
        let settled = self.shared.settle(&place, &distinct, Ask::Missing).await;
        settled.map_err(self.shared.named("get", entity))?;
        self.shared.journal.reader.get(entity, keys).await
    }

    async fn query(&self, entity: &Arc<Entity>, query: &Query) -> Result<At<Page>> {
        self.shared.looked_at(entity).await.map_err(self.shared.named("query", entity))?;
        self.shared.journal.reader.query(entity, query).await
    }

    async fn count(
        &self,
        entity: &Arc<Entity>,
        filter: &Filter,
        search: Option<&str>,
    ) -> Result<At<u64>> {
        self.shared.looked_at(entity).await.map_err(self.shared.named("count", entity))?;
        self.shared.journal.reader.count(entity, filter, search).await
    }

    async fn aggregate(&self, entity: &Arc<Entity>, aggregate: &Aggregate) -> Result<At<Groups>> {
        self.shared.looked_at(entity).await.map_err(self.shared.named("aggregate", entity))?;
        self.shared.journal.reader.aggregate(entity, aggregate).await
    }
}
