//! Warming: an empty cache takes in the records that changed last, from the log alone, and those that are read most,
//! from the sources.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use unisono_core::source::{Filled, Life, LogBounds};
use unisono_core::{Change, Context, Key, Position, Result};
use unisono_policy::declaration::CacheDeclaration;
use unisono_policy::retry;
use unisono_policy::route::Operation;

use crate::cache::Feed;
use crate::policies::EntityPolicies;
use crate::read::ask::Reading;
use crate::read::serving::Serving;
use crate::runtime::Runtime;

/// How many changes of the log are looked through for each record that is wanted.
const CHANGES_PER_RECORD: u64 = 10;
/// How many changes are read at once.
const STEP: usize = 1024;
const STEP_BYTES: usize = 4 << 20;
/// How many records are read at once: few enough that a reader who waits behind them hardly notices.
const RECORDS_PER_READ: usize = 64;
/// How long that may take.
const READ_MAX: Duration = Duration::from_secs(10);
/// How often it is tried while no source answers.
const ATTEMPTS_MAX: u32 = 10;

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

    /// What of it is there: taken in, or found to be there or gone by another way meanwhile.
    pub(super) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// There is so much more to take in.
    pub(super) fn want(&self, more: usize) {
        self.wanted.fetch_add(more as u64, Ordering::Relaxed);
    }

    /// So much of it is not wanted any more: it was wanted twice, cannot be had, or another life sees to it.
    pub(super) fn forget(&self, some: usize) {
        self.wanted.fetch_sub(some as u64, Ordering::Relaxed);
    }

    /// So much more of it is there.
    pub(super) fn add(&self, more: usize) {
        self.done.fetch_add(more as u64, Ordering::Relaxed);
    }
}

/// Warms each life of the cache of an entity, for as long as the engine runs. What cannot be had is left to the readers.
pub(crate) async fn run(serving: Arc<Serving>, runtime: Runtime) {
    let Some(feed) = &serving.cache else { return };
    let mut last = None;
    loop {
        feed.life.until(|life| *life != last).await;
        last = *feed.life.get();
        let policies = serving.policies.present.load_full();
        let policies = policies.of(&serving.policies);
        let (Some(life), Some(declared)) = (last, &policies.cache) else { continue };
        if declared.warm > 0 {
            feed.tell(feed.fill_recent(declared, life).await, "what changed last");
        }
        if declared.warm_hot > 0 {
            let hot =
                HotFill { serving: &serving, feed, policies, declared, life, runtime: &runtime };
            feed.tell(hot.run().await, "what is read most");
        }
    }
}

impl Feed {
    fn tell(&self, filled: Result<usize>, with: &'static str) {
        let (entity, source) = (self.entity.name(), &self.source);
        match filled {
            Ok(records) => tracing::info!(%entity, %source, records, with, "a cache was warmed"),
            Err(error) => tracing::warn!(%error, %entity, with, "a cache could not be warmed"),
        }
    }

    async fn fill_recent(&self, declared: &CacheDeclaration, life: Life) -> Result<usize> {
        // A life that was joined may be behind the log; what it has yet to follow is what changed last.
        let bounds = self.log.truth.bounds().await?;
        let mut recent: Vec<_> =
            self.last_changes(declared.warm, bounds).await?.into_values().collect();
        recent.retain(|change| self.keeps(declared, change.image.as_deref()));
        recent.sort_unstable_by_key(|change| std::cmp::Reverse(change.position));
        recent.truncate(declared.warm);
        self.warmed.want(recent.len());
        let mut filled = 0;
        for (n, change) in recent.iter().enumerate() {
            // The last change of a record is its state at the head.
            let entry = self.entry(declared, change.stored().map(Arc::new), bounds.head);
            match self.cache.fill(&self.entity, &change.key, entry, bounds.head, life.epoch).await?
            {
                Filled::Stored => filled += 1,
                // The life that was joined came to it by itself.
                Filled::Outdated => {}
                // Another life has begun, and is warmed by itself.
                Filled::OtherEpoch => {
                    self.warmed.forget(recent.len() - n);
                    break;
                }
            }
            self.warmed.add(1);
        }
        Ok(filled)
    }

    /// The last change of each record among the last changes of the log up to its head; deletions are left out.
    async fn last_changes(
        &self,
        records: usize,
        LogBounds { trimmed, head, .. }: LogBounds,
    ) -> Result<HashMap<Key, Arc<Change>>> {
        let back = (records as u64).saturating_mul(CHANGES_PER_RECORD);
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

/// Fills one life of a cache with what is read most.
struct HotFill<'a> {
    serving: &'a Arc<Serving>,
    feed: &'a Arc<Feed>,
    policies: &'a EntityPolicies,
    declared: &'a CacheDeclaration,
    life: Life,
    runtime: &'a Runtime,
}

impl HotFill<'_> {
    async fn run(&self) -> Result<usize> {
        let keys = self.feed.hot_keys().await;
        let warmed = &self.feed.warmed;
        warmed.want(keys.len());
        let (mut left, mut filled) = (keys.len(), 0);
        for some in keys.chunks(RECORDS_PER_READ) {
            match self.read(some).await {
                Ok(Some(taken)) => {
                    filled += taken;
                    left -= some.len();
                    warmed.add(taken);
                    warmed.forget(some.len() - taken);
                }
                // Another life has begun, and is warmed by itself.
                Ok(None) => break,
                Err(error) => {
                    warmed.forget(left);
                    return Err(error);
                }
            }
        }
        warmed.forget(left);
        Ok(filled)
    }

    /// Has the cache hold some records; answers how many it took in, or nothing if this life of it is over.
    async fn read(&self, keys: &[Key]) -> Result<Option<usize>> {
        let mut attempt = 1;
        loop {
            match self.try_read(keys).await {
                Err(error) if attempt < ATTEMPTS_MAX => {
                    tracing::debug!(%error, entity = %self.feed.entity.name(), "what is read most cannot be read yet");
                    self.runtime.sleep(retry::backoff(attempt, self.runtime.random())).await;
                    attempt += 1;
                }
                settled => return settled,
            }
        }
    }

    async fn try_read(&self, keys: &[Key]) -> Result<Option<usize>> {
        let now = self.runtime.now();
        // What changed last, and what readers asked for meanwhile, is there already.
        let lookups = try_join_all(keys.iter().map(|key| self.feed.lookup(key, now))).await?;
        if lookups.iter().any(|lookup| lookup.epoch != self.life.epoch) {
            return Ok(None);
        }
        let missing = keys.iter().zip(&lookups).filter(|(_, lookup)| lookup.entry.is_none());
        let missing: Vec<Key> = missing.map(|(key, _)| key.clone()).collect();
        if missing.is_empty() {
            return Ok(Some(0));
        }
        let context = Context { timeout: READ_MAX, ..Context::default() };
        let reading = Reading::new(self.serving, self.policies, &context, self.runtime);
        // One of the misses that the sources have to bear, in its turn.
        let admitted = self.runtime.within(reading.left(), self.feed.admit()).await?;
        let answer = reading.several(&reading.request(Operation::Get), &missing).await?;
        drop(admitted);
        let fills = missing.iter().zip(answer.value).map(|(key, stored)| async move {
            let stored = stored.map(Arc::new);
            let (position, epoch) = (answer.position, self.life.epoch);
            self.feed.fill(self.declared, key, stored, position, epoch).await
        });
        Ok(Some(join_all(fills).await.into_iter().filter(|taken| *taken).count()))
    }
}
