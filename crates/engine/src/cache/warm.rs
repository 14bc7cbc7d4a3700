//! Warming: an empty cache takes in the records that changed last, from the log alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use unisono_core::source::Filled;
use unisono_core::{Change, Key, Position, Result};

use crate::cache::Feed;

/// How many changes of the log are looked through for each record that is wanted.
const CHANGES_PER_RECORD: u64 = 10;
/// How many changes are read at once.
const STEP: usize = 1024;
const STEP_BYTES: usize = 4 << 20;

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
        recent.sort_unstable_by_key(|change| std::cmp::Reverse(change.position));
        recent.truncate(self.warm);
        let mut filled = 0;
        let policies = self.policies.present.load();
        let Some(declared) = &policies.of(&self.policies).cache else { return Ok(filled) };
        for change in recent {
            // The last change of a record is its state at the head.
            let entry = self.entry(declared, change.stored().map(Arc::new), head);
            match self.cache.fill(&self.entity, &change.key, entry, head, epoch).await? {
                Filled::Stored => {
                    filled += 1;
                    self.warmed.fetch_add(1, Ordering::Relaxed);
                }
                Filled::Outdated => {}
                // Another life has begun, and is warmed by itself.
                Filled::OtherEpoch => break,
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
