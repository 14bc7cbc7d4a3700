//! [`Auditor`]: the role of a source that can be compared with others.

use std::sync::Arc;

use async_trait::async_trait;

use crate::entity::Entity;
use crate::error::Result;
use crate::key::Key;
use crate::position::Version;
use crate::record::Stored;
use crate::slice::{SliceDigest, Slices, Sums};
use crate::source::At;

/// Records that [`walk`] reads at once.
const PAGE: usize = 1_000;

/// One page of a scan.
#[derive(Clone, Debug)]
pub struct ScanPage {
    /// Records in the order of their keys.
    pub records: Vec<Stored>,
    /// Whether there are none after the last.
    pub end: bool,
}

/// Can be compared, copied and exported.
#[async_trait]
pub trait Auditor: Send + Sync {
    /// The records after a key, in the order of keys, at most `limit`.
    ///
    /// * `scan-1` Records are read back from where the source keeps them, never from a copy of what was written.
    /// * `scan-2` `position` is as in [`At`].
    async fn scan(
        &self,
        entity: &Arc<Entity>,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<At<ScanPage>>;

    /// Records by key, in the order of `keys`; `None` if a read by key finds what a scan does. A kind answers that keeps more
    /// of a record than a read by key looks at, or whose reads fail for records that a scan shows as broken.
    ///
    /// * `held-1` They are those that a scan finds.
    async fn held(
        &self,
        _entity: &Arc<Entity>,
        _keys: &[Key],
    ) -> Result<Option<At<Vec<Option<Stored>>>>> {
        Ok(None)
    }

    /// What it holds, by slices of versions, in ascending order. A kind whose engine can sum up what it stores has it do so.
    ///
    /// * `digests-1` They are those of the versions that a scan finds.
    async fn digests(&self, entity: &Arc<Entity>, slices: Slices) -> Result<At<Vec<SliceDigest>>> {
        let mut sums = Sums::new(slices);
        let walked = walk(self, entity, |stored| sums.add(stored.version)).await?;
        Ok(At { value: sums.finish(), position: walked.position })
    }

    /// The keys and versions of the records in some slices, given in ascending order; they come in any order.
    ///
    /// * `versions-1` They are those that a scan finds.
    async fn versions(
        &self,
        entity: &Arc<Entity>,
        slices: Slices,
        among: &[u64],
    ) -> Result<At<Vec<(Key, Version)>>> {
        let mut found = Vec::new();
        let walked = walk(self, entity, |stored| {
            if among.binary_search(&slices.of_version(stored.version)).is_ok() {
                found.push((stored.key, stored.version));
            }
        });
        Ok(At { position: walked.await?.position, value: found })
    }
}

/// Gives every record to `each`, in the order of keys.
pub async fn walk<A: Auditor + ?Sized>(
    auditor: &A,
    entity: &Arc<Entity>,
    mut each: impl FnMut(Stored) + Send,
) -> Result<At<()>> {
    let (mut last, mut position) = (None, None);
    loop {
        let At { value: page, position: at } = auditor.scan(entity, last.as_ref(), PAGE).await?;
        let position = *position.insert(position.map_or(at, |p: crate::Position| p.min(at)));
        last = page.records.last().map(|stored| stored.key.clone());
        page.records.into_iter().for_each(&mut each);
        if page.end || last.is_none() {
            return Ok(At { value: (), position });
        }
    }
}
