//! The role of a reader: every answer is of one committed state, with its position.

use std::sync::Arc;

use async_trait::async_trait;
use unisono_core::query::{Aggregate, Filter, Groups, Page, Query};
use unisono_core::source::{At, Reader};
use unisono_core::{Entity, Key, Result, Stored};

use crate::TantivySource;
use crate::client::Snapshot;
use crate::query;
use crate::query::lookup::{Finder, fetch};

#[async_trait]
impl Reader for TantivySource {
    async fn get(&self, entity: &Arc<Entity>, keys: &[Key]) -> Result<At<Vec<Option<Stored>>>> {
        let keys = keys.to_vec();
        self.handle(entity)?.read("get", move |s| at(s, get(s, &keys))).await
    }

    async fn query(&self, entity: &Arc<Entity>, query: &Query) -> Result<At<Page>> {
        let query = query.clone();
        self.handle(entity)?.read("query", move |s| at(s, query::page(s, &query))).await
    }

    async fn count(
        &self,
        entity: &Arc<Entity>,
        filter: &Filter,
        search: Option<&str>,
    ) -> Result<At<u64>> {
        let (filter, search) = (filter.clone(), search.map(str::to_owned));
        let work = move |s: &Snapshot| at(s, query::count(s, &filter, search.as_deref()));
        self.handle(entity)?.read("count", work).await
    }

    async fn aggregate(&self, entity: &Arc<Entity>, aggregate: &Aggregate) -> Result<At<Groups>> {
        let aggregate = aggregate.clone();
        let work = move |s: &Snapshot| at(s, query::aggregate(s, &aggregate));
        self.handle(entity)?.read("aggregate", work).await
    }
}

fn get(snapshot: &Snapshot, keys: &[Key]) -> Result<Vec<Option<Stored>>> {
    let finder = Finder::new(snapshot)?;
    let one = |key: &Key| finder.address(key)?.map(|at| fetch(snapshot, at)).transpose();
    keys.iter().map(one).collect()
}

/// An answer with the position of its snapshot.
pub(crate) fn at<T>(snapshot: &Snapshot, value: Result<T>) -> Result<At<T>> {
    Ok(At { value: value?, position: snapshot.position() })
}
