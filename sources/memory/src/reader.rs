//! Role reader: the reference evaluator over all records.

use std::sync::Arc;

use async_trait::async_trait;
use unisono_core::query::{Aggregate, Filter, Groups, Page, Query, eval};
use unisono_core::source::{At, Reader};
use unisono_core::{Entity, Key, Result, Stored};

use crate::source::MemorySource;
use crate::store::Table;

impl MemorySource {
    /// An answer from one table, with the position of the same moment.
    pub(crate) fn answer<T>(
        &self,
        entity: &Entity,
        operation: &'static str,
        answer: impl FnOnce(&Table) -> Result<T>,
    ) -> Result<At<T>> {
        self.with_table(entity, operation, |state, table| {
            Ok(At { value: answer(table)?, position: table.position(state.log.head) })
        })
    }
}

#[async_trait]
impl Reader for MemorySource {
    async fn get(&self, entity: &Arc<Entity>, keys: &[Key]) -> Result<At<Vec<Option<Stored>>>> {
        self.answer(entity, "get", |table| {
            Ok(keys.iter().map(|key| table.live.get(key).cloned()).collect())
        })
    }

    async fn query(&self, entity: &Arc<Entity>, query: &Query) -> Result<At<Page>> {
        self.answer(entity, "query", |table| eval::page(entity, query, table.live.values()))
    }

    async fn count(
        &self,
        entity: &Arc<Entity>,
        filter: &Filter,
        search: Option<&str>,
    ) -> Result<At<u64>> {
        self.answer(entity, "count", |t| eval::count(entity, filter, search, t.live.values()))
    }

    async fn aggregate(&self, entity: &Arc<Entity>, aggregate: &Aggregate) -> Result<At<Groups>> {
        self.answer(entity, "aggregate", |t| eval::aggregate(entity, aggregate, t.live.values()))
    }
}
