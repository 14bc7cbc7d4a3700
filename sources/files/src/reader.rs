//! The reader role: files by key, and questions answered by reading all files.

use std::sync::Arc;

use async_trait::async_trait;
use unisono_core::query::{Aggregate, Filter, Groups, Page, Query, eval};
use unisono_core::source::{At, Reader};
use unisono_core::{Entity, Error, Key, Result, Stored};

use crate::codec::State;
use crate::parallel::each;
use crate::place::Place;
use crate::source::FilesSource;

#[async_trait]
impl Reader for FilesSource {
    async fn get(&self, entity: &Arc<Entity>, keys: &[Key]) -> Result<At<Vec<Option<Stored>>>> {
        let keys = keys.to_vec();
        self.at("get", entity, move |place, entity| {
            let _look = place.look();
            let position = place.position()?;
            let (readers, _) = place.store.parallel();
            let value = each(&keys, readers, |key| Ok(present(place.read(entity, key)?)))?;
            Ok(At { value, position })
        })
        .await
    }

    async fn query(&self, entity: &Arc<Entity>, query: &Query) -> Result<At<Page>> {
        refuse_search(query.search.as_deref())?;
        let query = query.clone();
        self.at("query", entity, move |place, entity| {
            let found = matching(place, entity, &query.filter)?;
            Ok(At {
                value: eval::page(entity, &query, found.value.iter())?,
                position: found.position,
            })
        })
        .await
    }

    async fn count(
        &self,
        entity: &Arc<Entity>,
        filter: &Filter,
        search: Option<&str>,
    ) -> Result<At<u64>> {
        refuse_search(search)?;
        let filter = filter.clone();
        self.at("count", entity, move |place, entity| {
            let found = matching(place, entity, &filter)?;
            let value = eval::count(entity, &filter, None, found.value.iter())?;
            Ok(At { value, position: found.position })
        })
        .await
    }

    async fn aggregate(&self, entity: &Arc<Entity>, aggregate: &Aggregate) -> Result<At<Groups>> {
        let aggregate = aggregate.clone();
        self.at("aggregate", entity, move |place, entity| {
            let found = matching(place, entity, &aggregate.filter)?;
            let value = eval::aggregate(entity, &aggregate, found.value.iter())?;
            Ok(At { value, position: found.position })
        })
        .await
    }
}

/// The record of a file that says there is one.
pub(crate) fn present(state: Option<State>) -> Option<Stored> {
    match state {
        Some(State::Present(stored)) => Some(stored),
        Some(State::Deleted(_)) | None => None,
    }
}

fn refuse_search(search: Option<&str>) -> Result<()> {
    match search {
        Some(_) => Err(Error::unsupported("files cannot be searched for words")
            .hint("give the entity a follower that searches, for example one of kind tantivy")),
        None => Ok(()),
    }
}

/// All records that match, in no order; the others are dropped as soon as they were read.
pub(crate) fn matching(place: &Place, entity: &Entity, filter: &Filter) -> Result<At<Vec<Stored>>> {
    let _look = place.look();
    let position = place.position()?;
    let (readers, _) = place.store.parallel();
    let shards = each(&place.shards()?, readers, |shard| {
        let mut found = Vec::new();
        for key in place.keys_in(entity, shard)? {
            let (key, state) = key?;
            let record = present(place.read_as(entity, &key, &state)?);
            found.extend(record.filter(|stored| eval::matches(entity, filter, &stored.record)));
        }
        Ok(found)
    })?;
    Ok(At { value: shards.into_iter().flatten().collect(), position })
}
