//! The auditor: records in the order of their keys, read back from the collection.

use std::sync::Arc;

use async_trait::async_trait;
use mongodb::bson::{Document, doc};
use unisono_core::source::{At, Auditor, ScanPage};
use unisono_core::{Entity, Key, Result};

use crate::codec::encode_key;
use crate::document::{self, NULL};
use crate::query::batch_size;
use crate::source::MongodbSource;

#[async_trait]
impl Auditor for MongodbSource {
    async fn scan(
        &self,
        entity: &Arc<Entity>,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<At<ScanPage>> {
        let named = self.named("scan", entity);
        let place = self.place(entity).map_err(&named)?;
        let scan = async {
            let client = self.client();
            let position = place.position(client).await?;
            let from = match after {
                Some(key) => doc! { "_id": { "$gt": encode_key(key) } },
                None => Document::new(),
            };
            let request = place
                .documents
                .find(place.records(from))
                .sort(doc! { "_id": 1 })
                .batch_size(batch_size(limit));
            let mut cursor = client.call(request).await?;
            let mut records = Vec::new();
            // One more than asked for tells whether it is the end.
            while records.len() <= limit {
                let Some(document) = client.next(&mut cursor).await? else { break };
                records.extend(document::stored(entity, &document, NULL)?);
            }
            let end = records.len() <= limit;
            records.truncate(limit);
            Ok(At { value: ScanPage { records, end }, position })
        };
        scan.await.map_err(&named)
    }
}
