//! The role of an auditor: records in the order of their keys, read back from the index, and sums of their versions.

use std::sync::Arc;

use async_trait::async_trait;
use tantivy::schema::IndexRecordOption;
use tantivy::{DocAddress, DocSet, SegmentReader, TERMINATED};
use unisono_core::slice::{SliceDigest, Slices, Sums};
use unisono_core::source::{At, Auditor, ScanPage};
use unisono_core::{Entity, Key, Result, Version};

use crate::TantivySource;
use crate::client::Snapshot;
use crate::error::OrError;
use crate::query::lookup::{fetch, key_term, readers};
use crate::reader::at;

#[async_trait]
impl Auditor for TantivySource {
    async fn scan(
        &self,
        entity: &Arc<Entity>,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<At<ScanPage>> {
        let after = after.cloned();
        let work = move |s: &Snapshot| at(s, scan(s, after.as_ref(), limit));
        self.handle(entity)?.read("scan", work).await
    }

    async fn digests(&self, entity: &Arc<Entity>, slices: Slices) -> Result<At<Vec<SliceDigest>>> {
        let work = move |s: &Snapshot| {
            let mut sums = Sums::new(slices);
            let summed = each_version(s, |_, version| {
                sums.add(version);
                Ok(())
            });
            at(s, summed.map(|()| sums.finish()))
        };
        self.handle(entity)?.read("digests", work).await
    }

    async fn versions(
        &self,
        entity: &Arc<Entity>,
        slices: Slices,
        among: &[u64],
    ) -> Result<At<Vec<(Key, Version)>>> {
        let among = among.to_vec();
        let work = move |s: &Snapshot| {
            let mut found = Vec::new();
            let listed = each_version(s, |at, version| {
                if among.binary_search(&slices.of_version(version)).is_ok() {
                    found.push((fetch(s, at)?.key, version));
                }
                Ok(())
            });
            at(s, listed.map(|()| found))
        };
        self.handle(entity)?.read("versions", work).await
    }
}

/// Gives every record's place and version, from the column of versions.
fn each_version(
    snapshot: &Snapshot,
    mut each: impl FnMut(DocAddress, Version) -> Result<()>,
) -> Result<()> {
    for (ordinal, segment) in readers(&snapshot.searcher).iter().enumerate() {
        let versions = segment.fast_fields().u64(snapshot.layout.version_name).or_error()?;
        for doc in segment.doc_ids_alive() {
            let version = versions.first(doc).map(Version::new).transpose()?;
            each(DocAddress::new(ordinal as u32, doc), version.unwrap_or_default())?;
        }
    }
    Ok(())
}

/// The dictionaries of keys are sorted like the keys: each segment gives its next ones, the least of all are kept.
fn scan(snapshot: &Snapshot, after: Option<&Key>, limit: usize) -> Result<ScanPage> {
    let after = after.map(|key| key_term(&snapshot.layout, key));
    let after = after.as_ref().map(|term| term.serialized_value_bytes());
    let mut found = Vec::new();
    for (ordinal, segment) in readers(&snapshot.searcher).iter().enumerate() {
        // One more tells whether there are any after the last.
        next_keys(snapshot, segment, ordinal, after, limit.saturating_add(1), &mut found)
            .or_error()?;
    }
    found.sort_unstable();
    let end = found.len() <= limit;
    found.truncate(limit);
    let records = found.into_iter().map(|(_, at)| fetch(snapshot, at)).collect::<Result<_>>()?;
    Ok(ScanPage { records, end })
}

fn next_keys(
    snapshot: &Snapshot,
    segment: &SegmentReader,
    ordinal: usize,
    after: Option<&[u8]>,
    limit: usize,
    found: &mut Vec<(Vec<u8>, DocAddress)>,
) -> tantivy::Result<()> {
    let index = segment.inverted_index(snapshot.layout.key().native)?;
    let range = index.terms().range();
    let range = match after {
        Some(after) => range.gt(after),
        None => range,
    };
    let mut keys = range.into_stream()?;
    let mut taken = 0;
    while taken < limit && keys.advance() {
        let mut postings =
            index.read_postings_from_terminfo(keys.value(), IndexRecordOption::Basic)?;
        let mut doc = postings.doc();
        while doc != TERMINATED {
            if !segment.is_deleted(doc) {
                found.push((keys.key().to_vec(), DocAddress::new(ordinal as u32, doc)));
                taken += 1;
            }
            doc = postings.advance();
        }
    }
    Ok(())
}
