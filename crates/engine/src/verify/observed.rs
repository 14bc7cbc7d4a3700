//! The observed comparison: both sides sum up the versions that they hold, and only where the sums differ are keys
//! listed and looked at ([`unisono_core::slice`]).
//!
//! It takes in everything but what somebody changed without touching the version; that takes a deep comparison.

use std::collections::BTreeMap;

use unisono_core::auditor::walk;
use unisono_core::slice::{SliceDigest, Slices, Sums};
use unisono_core::source::At;
use unisono_core::{Key, Result, Version};

use crate::verify::audit::{Audit, Tell};

/// Where more slices differ, the records themselves are compared.
const SLICES_MAX: usize = 8_192;

impl Audit<'_> {
    /// Compares what both sides hold, by versions.
    pub(super) async fn observed(&mut self, tell: Tell<'_>) -> Result<()> {
        let slices = Slices::of(self.found.position);
        let follower = self.delivery.target().auditor.as_ref();
        let (truth, held) =
            self.both(self.wanted(slices), follower.digests(self.entity, slices)).await?;
        let differing = slices.differing(&truth, &held);
        if differing.len() > SLICES_MAX {
            return self.deep(tell).await;
        }
        self.found.records = truth.iter().map(|digest| digest.records).sum();
        tell(&self.found);
        if differing.is_empty() {
            return Ok(());
        }
        let suspects = self.suspects(slices, &differing).await?;
        self.judge(suspects).await
    }

    /// The keys of some slices of which the two sides have different versions.
    async fn suspects(&self, slices: Slices, among: &[u64]) -> Result<Vec<Key>> {
        let follower = self.delivery.target().auditor.as_ref();
        let (truth, held) = self
            .both(
                self.wanted_versions(slices, among),
                follower.versions(self.entity, slices, among),
            )
            .await?;
        let mut versions: BTreeMap<Key, (Option<Version>, Option<Version>)> = BTreeMap::new();
        truth
            .into_iter()
            .for_each(|(key, version)| versions.entry(key).or_default().0 = Some(version));
        held.into_iter()
            .for_each(|(key, version)| versions.entry(key).or_default().1 = Some(version));
        versions.retain(|_, (truth, held)| truth != held);
        Ok(versions.into_keys().collect())
    }

    /// What the follower should hold. A condition is decided here, record by record; without one the truth's engine sums
    /// up.
    async fn wanted(&self, slices: Slices) -> Result<At<Vec<SliceDigest>>> {
        if self.delivery.target().filter.is_none() {
            return self.truth.1.digests(self.entity, slices).await;
        }
        let mut sums = Sums::new(slices);
        let walked = walk(self.truth.1, self.entity, |stored| {
            if self.delivery.wants(&stored) {
                sums.add(stored.version);
            }
        });
        Ok(At { position: walked.await?.position, value: sums.finish() })
    }

    async fn wanted_versions(
        &self,
        slices: Slices,
        among: &[u64],
    ) -> Result<At<Vec<(Key, Version)>>> {
        if self.delivery.target().filter.is_none() {
            return self.truth.1.versions(self.entity, slices, among).await;
        }
        let mut found = Vec::new();
        let walked = walk(self.truth.1, self.entity, |stored| {
            let is_among = among.binary_search(&slices.of_version(stored.version)).is_ok();
            if is_among && self.delivery.wants(&stored) {
                found.push((stored.key, stored.version));
            }
        });
        Ok(At { position: walked.await?.position, value: found })
    }
}
