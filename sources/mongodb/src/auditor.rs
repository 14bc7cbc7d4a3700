//! The auditor: records in the order of their keys, read back from the collection, and sums of their versions.

use std::sync::Arc;

use async_trait::async_trait;
use mongodb::bson::{Bson, Document, doc};
use unisono_core::slice::{Scramble, SliceDigest, Slices};
use unisono_core::source::{At, Auditor, ScanPage};
use unisono_core::{Entity, Key, Result, Version};

use crate::codec::{decode_key, encode_key};
use crate::document::{self, NULL, VERSION};
use crate::query::aggregate::whole;
use crate::query::batch_size;
use crate::source::MongodbSource;

/// A version as [`Scramble::of`] has it.
fn scrambled(scramble: Scramble) -> Document {
    let (modulus, factor) = (scramble.modulus() as i64, scramble.factor() as i64);
    let place = doc! { "$mod": ["$v", modulus] };
    let times = |one: Document, other: Bson| {
        doc! { "$mod": [doc! { "$multiply": [one, other] }, modulus] }
    };
    let square = times(place.clone(), place.clone().into());
    times(times(square, place.into()), factor.into())
}

/// Small documents of one answer of the server.
const GROUPS: u32 = 10_000;

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

    async fn digests(&self, entity: &Arc<Entity>, slices: Slices) -> Result<At<Vec<SliceDigest>>> {
        let named = self.named("digests", entity);
        let place = self.place(entity).map_err(&named)?;
        let summed = async {
            let client = self.client();
            let position = place.position(client).await?;
            let version = doc! { "$ifNull": [format!("${VERSION}"), 0_i64] };
            let place_in = doc! { "$mod": ["$v", slices.width() as i64] };
            let [one, other] = Scramble::BOTH.map(scrambled);
            let stages = [
                doc! { "$match": place.records(Document::new()) },
                doc! { "$project": { "_id": 0, "v": version } },
                doc! { "$group": {
                    "_id": { "$subtract": ["$v", place_in] },
                    "records": { "$sum": 1_i64 },
                    "one": { "$sum": one },
                    "other": { "$sum": other },
                } },
            ];
            let request = place.documents.aggregate(stages).allow_disk_use(true);
            let mut cursor = client.call(request.batch_size(GROUPS)).await?;
            let mut digests = Vec::new();
            while let Some(group) = client.next(&mut cursor).await? {
                let number = |name| group.get(name).and_then(whole).unwrap_or_default() as u64;
                digests.push(SliceDigest {
                    slice: number("_id") >> slices.bits(),
                    records: number("records"),
                    sums: [number("one"), number("other")],
                });
            }
            digests.sort_unstable_by_key(|digest| digest.slice);
            Ok(At { value: digests, position })
        };
        summed.await.map_err(&named)
    }

    async fn versions(
        &self,
        entity: &Arc<Entity>,
        slices: Slices,
        among: &[u64],
    ) -> Result<At<Vec<(Key, Version)>>> {
        let named = self.named("versions", entity);
        let place = self.place(entity).map_err(&named)?;
        let listed = async {
            let client = self.client();
            let position = place.position(client).await?;
            let request = place
                .documents
                .find(place.records(Document::new()))
                .projection(doc! { "_id": 1, VERSION: 1 })
                .batch_size(GROUPS);
            let mut cursor = client.call(request).await?;
            let mut found = Vec::new();
            while let Some(document) = client.next(&mut cursor).await? {
                let version = document::version(&document);
                if among.binary_search(&slices.of_version(version)).is_ok() {
                    let id = document.get("_id").unwrap_or(&Bson::Null);
                    // One with another key is none of ours.
                    found.extend(decode_key(&entity.key_field().ty, id).map(|key| (key, version)));
                }
            }
            Ok(At { value: found, position })
        };
        listed.await.map_err(&named)
    }
}
