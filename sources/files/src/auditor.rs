//! The auditor role: records in the order of their keys, read back from their files.

use std::sync::Arc;

use async_trait::async_trait;
use unisono_core::source::{At, Auditor, ScanPage};
use unisono_core::{Entity, ErrorKind, Key, Result, Stored};

use crate::parallel::each;
use crate::place::Place;
use crate::reader::present;
use crate::source::FilesSource;

#[async_trait]
impl Auditor for FilesSource {
    async fn scan(
        &self,
        entity: &Arc<Entity>,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<At<ScanPage>> {
        let after = after.cloned();
        self.at("scan", entity, move |place, entity| page(place, entity, after, limit.max(1))).await
    }
}

fn page(place: &Place, entity: &Entity, after: Option<Key>, limit: usize) -> Result<At<ScanPage>> {
    let _look = place.look();
    let position = place.position()?;
    let mut records = Vec::new();
    let mut last = after;
    loop {
        let wanted = limit - records.len();
        let keys = place.keys_after(entity, last.as_ref(), wanted)?;
        let end = keys.len() < wanted;
        let (readers, _) = place.store.parallel();
        let found = each(&keys, readers, |key| readable(place, entity, key))?;
        records.extend(found.into_iter().flatten());
        if end || records.len() == limit {
            return Ok(At { value: ScanPage { records, end }, position });
        }
        last = keys.into_iter().next_back();
    }
}

/// The record of a key. One that cannot be decoded counts as missing, so that a sweep finds it and repair writes it
/// again; readers by key or by question are told instead.
fn readable(place: &Place, entity: &Entity, key: &Key) -> Result<Option<Stored>> {
    match place.read(entity, key) {
        Err(e) if e.kind() == ErrorKind::Corrupt => Ok(None),
        state => Ok(present(state?)),
    }
}
