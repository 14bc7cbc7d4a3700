//! Warming: an empty cache takes in the records that changed last, from the log alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use unisono_core::source::Filled;
use unisono_core::{Change, Key, Position, Result};

use crate::cache::Feed;

/// How many changes of the log are looked through for each record that is wanted.
const CHANGES_PER_RECORD: u64 = 10;
/// How many changes are read at once.
const STEP: usize = 1024;
const STEP_BYTES: usize = 4 << 20;

/// How far warming has come since the start.
#[derive(Default)]
pub(super) struct Warmed {
    wanted: AtomicU64,
    done: AtomicU64,
}

impl Warmed {
    /// What there is to be taken in.
    pub(super) fn wanted(&self) -> u64 {
        self.wanted.load(Ordering::Relaxed)
    }

    /// What has been taken in.
    pub(super) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// There is so much more to take in.
    pub(super) fn want(&self, more: usize) {
        self.wanted.fetch_add(more as u64, Ordering::Relaxed);
    }

    /// So much of it is not wanted any more, because a reader or another life sees to it.
    pub(super) fn forget(&self, some: usize) {
        self.wanted.fetch_sub(some as u64, Ordering::Relaxed);
    }

    /// One more has been taken in.
    pub(super) fn add(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }
}

impl Feed {
    /// Fills a life of the cache that began empty at `head`. What cannot be had is left to the readers.
    pub(super) async fn warm(self: Arc<Self>, epoch: u64, head: Position) {
        match self.fill_recent(epoch, head).await {
            Ok(records) => {
                tracing::info!(entity = %self.entity.name(), source = %self.source, records, "a cache was warmed");
            }
            Err(error) => {
                tracing::warn!(%error, entity = %self.entity.name(), "a cache could not be warmed");
            }
        }
    }

    async fn fill_recent(&self, epoch: u64, head: Position) -> Result<u64> {
        let mut recent: Vec<_> = self.last_changes(head).await?.into_values().collect();
        let policies = self.policies.present.load_full();
        let Some(declared) = &policies.of(&self.policies).cache else { return Ok(0) };
        recent.retain(|change| self.keeps(declared, change.image.as_deref()));
        recent.sort_unstable_by_key(|change| std::cmp::Reverse(change.position));
        recent.truncate(self.warm);
        self.warmed.want(recent.len());
        let mut filled = 0;
        for (n, change) in recent.iter().enumerate() {
            // The last change of a record is its state at the head.
            let entry = self.entry(declared, change.stored().map(Arc::new), head);
            match self.cache.fill(&self.entity, &change.key, entry, head, epoch).await? {
                Filled::Stored => {
                    filled += 1;
                    self.warmed.add();
                }
                Filled::Outdated => self.warmed.forget(1),
                // Another life has begun, and is warmed by itself.
                Filled::OtherEpoch => {
                    self.warmed.forget(recent.len() - n);
                    break;
                }
            }
        }
        Ok(filled)
    }

    /// The last change of each record among the last changes of the log up to `head`; deletions are left out.
    async fn last_changes(&self, head: Position) -> Result<HashMap<Key, Arc<Change>>> {
        let trimmed = self.log.truth.bounds().await?.trimmed;
        let back = (self.warm as u64).saturating_mul(CHANGES_PER_RECORD);
        let from = Position::new(head.as_u64().saturating_sub(back)).unwrap_or(Position::ZERO);
        let mut after = from.max(trimmed);
        let mut last = HashMap::new();
        while after < head {
            let window = self.log.truth.read_log(after, STEP, STEP_BYTES).await?;
            let Some(end) = window.last().map(|change| change.position) else { break };
            after = end;
            for change in window {
                if change.entity == *self.entity.name() && change.position <= head {
                    last.insert(change.key.clone(), change);
                }
            }
        }
        last.retain(|_, change: &mut Arc<Change>| change.image.is_some());
        Ok(last)
    }
}
