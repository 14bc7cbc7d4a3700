//! The reader: the position first, and then what is asked for, so that the position is never a later one.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use mongodb::bson::{Bson, doc};
use unisono_core::query::{Aggregate, Filter, Groups, Page, Query};
use unisono_core::source::{At, Reader};
use unisono_core::{Entity, Error, Key, Result, Stored};

use crate::codec::encode_key;
use crate::document::{self, FAIL};
use crate::query::{aggregate, page};
use crate::source::MongodbSource;

#[async_trait]
impl Reader for MongodbSource {
    async fn get(&self, entity: &Arc<Entity>, keys: &[Key]) -> Result<At<Vec<Option<Stored>>>> {
        let named = self.named("get", entity);
        let place = self.place(entity).map_err(&named)?;
        let read = async {
            let client = self.client();
            let position = place.position(client).await?;
            let ids: Vec<Bson> = keys.iter().map(encode_key).collect();
            let mut found: HashMap<Key, Stored> = HashMap::with_capacity(ids.len());
            if !ids.is_empty() {
                let batch = u32::try_from(ids.len()).unwrap_or(u32::MAX).max(2);
                let filter = place.records(doc! { "_id": { "$in": ids } });
                let request = place.documents.find(filter).batch_size(batch);
                let mut cursor = client.call(request).await?;
                while let Some(document) = client.next(&mut cursor).await? {
                    let stored = document::stored(entity, &document, FAIL)?;
                    found.extend(stored.map(|stored| (stored.key.clone(), stored)));
                }
            }
            let value = keys.iter().map(|key| found.get(key).cloned()).collect();
            Ok(At { value, position })
        };
        read.await.map_err(&named)
    }

    async fn query(&self, entity: &Arc<Entity>, query: &Query) -> Result<At<Page>> {
        let named = self.named("query", entity);
        refuse_search(query.search.as_deref()).map_err(&named)?;
        let place = self.place(entity).map_err(&named)?;
        let read = async {
            let position = place.position(self.client()).await?;
            Ok(At { value: page::page(self.client(), &place, query).await?, position })
        };
        read.await.map_err(&named)
    }

    async fn count(
        &self,
        entity: &Arc<Entity>,
        filter: &Filter,
        search: Option<&str>,
    ) -> Result<At<u64>> {
        let named = self.named("count", entity);
        refuse_search(search).map_err(&named)?;
        let place = self.place(entity).map_err(&named)?;
        let read = async {
            let position = place.position(self.client()).await?;
            Ok(At { value: page::count(self.client(), &place, filter).await?, position })
        };
        read.await.map_err(&named)
    }

    async fn aggregate(&self, entity: &Arc<Entity>, aggregate: &Aggregate) -> Result<At<Groups>> {
        let named = self.named("aggregate", entity);
        let place = self.place(entity).map_err(&named)?;
        let read = async {
            let position = place.position(self.client()).await?;
            let value = aggregate::aggregate(self.client(), &place, aggregate).await?;
            Ok(At { value, position })
        };
        read.await.map_err(&named)
    }
}

fn refuse_search(search: Option<&str>) -> Result<()> {
    match search {
        None => Ok(()),
        Some(_) => Err(Error::unsupported("a mongodb source does not search text")
            .hint("add a follower that does, such as one of kind tantivy or opensearch")),
    }
}
