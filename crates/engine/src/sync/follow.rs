//! Following the other truth: its log after the position that was reached, all of its records where the log does not go
//! back so far, and what waits.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use unisono_core::query::{Comparison, Filter, Order, Path, Query};
use unisono_core::source::LogBounds;
use unisono_core::{Entity, Error, ErrorKind, Key, Result, Value};
use unisono_policy::retry;

use super::forgetting;
use super::progress::Progress;
use super::side::{Side, Times};
use super::{Sync, SyncState, Syncing};
use crate::runtime::Stopwatch;

/// How often the other side is asked for news.
const EVERY: Duration = Duration::from_millis(200);
/// How long one round may take without an answer.
const ROUND_MAX: Duration = Duration::from_secs(60);
/// The longest pause after a failure.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How often it is looked for deletions that both sides have passed.
const FORGET_EVERY: Duration = Duration::from_secs(30);
/// How many changes, and records, are worked through at once.
const PAGE: usize = 500;
const PAGE_BYTES: usize = 4 << 20;

/// What a follower of the other truth knows between two rounds.
struct Session {
    progress: Progress,
    forgot: Stopwatch,
}

/// Follows until the engine ends. Whatever fails, the next session begins with what is kept.
pub(super) async fn run(syncing: Arc<Syncing>) {
    let (runtime, told) = (syncing.runtime.clone(), Arc::clone(&syncing.told));
    let mut failures = 0;
    loop {
        let Err(error) = session(&syncing, &mut failures).await;
        failures += 1;
        let (entity, with) = (syncing.entity(), &syncing.declared.with);
        tracing::warn!(%error, %entity, %with, failures, "the other truth cannot be followed now");
        *told.state() = (SyncState::Retrying, Some(error.to_string()));
        let pause = retry::backoff(failures, runtime.random()).min(PAUSE_MAX);
        runtime.sleep(pause).await;
    }
}

async fn session(syncing: &Syncing, failures: &mut u32) -> Result<std::convert::Infallible> {
    let runtime = &syncing.runtime;
    let (truth, entity) = (syncing.log.truth.as_ref(), syncing.entity());
    if Progress::load(truth, entity).await?.is_none() {
        // Before it has met the other side: what is written from now on is not of a common past.
        Progress::none(syncing.head).save(truth, entity).await?;
    }
    let sync = runtime.within(ROUND_MAX, syncing.sync()).await?;
    sync.load_held().await?;
    let progress = sync.begin().await?;
    let mut session = Session { progress, forgot: runtime.stopwatch() };
    loop {
        let is_behind = runtime.within(ROUND_MAX, sync.round(&mut session)).await?;
        *failures = 0;
        if !is_behind {
            runtime.sleep(EVERY).await;
        }
    }
}

impl Sync {
    /// What was reached, or the beginning; all records are brought together where they have not been.
    async fn begin(&self) -> Result<Progress> {
        let bounds = self.peer.truth.bounds().await?;
        let name = self.common.entity.name();
        let kept = Progress::load(self.own.truth.as_ref(), name).await?;
        let is_usable = |kept: &Progress| {
            kept.log == bounds.log && kept.pair == self.common.pair && bounds.head >= kept.position
        };
        let mut progress = match kept {
            Some(kept) if is_usable(&kept) => kept,
            kept => {
                let born = match kept.filter(|kept| kept.log.is_nil()) {
                    Some(before) => before.born,
                    None => self.own.truth.bounds().await?.head,
                };
                let (log, pair) = (bounds.log, self.common.pair.clone());
                let progress = Progress { log, pair, ..Progress::none(born) };
                progress.save(self.own.truth.as_ref(), name).await?;
                progress
            }
        };
        if !progress.merged || progress.position < bounds.trimmed {
            self.merge_all(&mut progress, bounds).await?;
        }
        Ok(progress)
    }

    /// One look at what is new; answers whether there is more.
    async fn round(&self, session: &mut Session) -> Result<bool> {
        let progress = &mut session.progress;
        let due = self.told.held.due(self.runtime.now());
        for keys in due.chunks(PAGE) {
            self.merge(keys.to_vec(), &Times::new(), progress).await?;
        }
        let bounds = self.peer.truth.bounds().await?;
        if bounds.log != progress.log || bounds.head < progress.position {
            return Err(Error::new(ErrorKind::Diverged, "the other truth has another log now")
                .at(&self.peer.name)
                .of(self.common.entity.name()));
        }
        self.reached(progress.position, bounds.head);
        if bounds.head == progress.position {
            if session.forgot.elapsed() >= FORGET_EVERY {
                session.forgot = self.runtime.stopwatch();
                self.forget_deletions(progress).await?;
            }
            return Ok(false);
        }
        let truth = &self.peer.truth;
        let changes = truth.read_log(progress.position, PAGE, PAGE_BYTES).await?;
        let Some(last) = changes.last().map(|change| change.position) else { return Ok(false) };
        let (mut keys, mut times) = (BTreeSet::new(), Times::new());
        let (of_records, known) = (self.common.entity.name(), self.common.memories.known.name());
        for change in &changes {
            if change.entity == *of_records {
                times.insert(change.position, change.time);
            }
            if change.entity == *of_records || change.entity == *known {
                keys.insert(change.key.clone());
            }
        }
        self.merge(keys.into_iter().collect(), &times, progress).await?;
        progress.position = last;
        progress.save(self.own.truth.as_ref(), of_records).await?;
        self.reached(last, bounds.head);
        Ok(last < bounds.head)
    }

    /// Brings all records together: those of the other side, and those that it had and has no more.
    async fn merge_all(&self, progress: &mut Progress, bounds: LogBounds) -> Result<()> {
        let name = self.common.entity.name();
        tracing::info!(entity = %name, with = %self.peer.name, "all records of both sides are brought together");
        *self.told.state() = (SyncState::Merging, None);
        let known = &self.common.memories.known;
        for (side, entity) in
            [(&self.peer, &self.common.entity), (&self.peer, known), (&self.own, known)]
        {
            self.merge_each(side, entity, progress).await?;
        }
        (progress.position, progress.merged) = (bounds.head, true);
        progress.save(self.own.truth.as_ref(), name).await?;
        tracing::info!(entity = %name, with = %self.peer.name, "all records have been brought together");
        Ok(())
    }

    async fn merge_each(
        &self,
        side: &Side,
        entity: &Arc<Entity>,
        progress: &Progress,
    ) -> Result<()> {
        let mut after: Option<Key> = None;
        loop {
            let page = side.auditor.scan(entity, after.as_ref(), PAGE).await?.value;
            let keys: Vec<Key> = page.records.iter().map(|stored| stored.key.clone()).collect();
            after = keys.last().cloned();
            self.merge(keys, &Times::new(), progress).await?;
            if page.end || after.is_none() {
                return Ok(());
            }
        }
    }

    /// Forgets what is remembered of records that are deleted on both sides and whose deletion both have passed: then
    /// nothing can come that is not known to be later. With anything that waits, nothing is forgotten.
    async fn forget_deletions(&self, progress: &mut Progress) -> Result<()> {
        let there = self.peer_progress().await?;
        if self.told.held.len() > 0 || !there.merged || there.pair != self.common.pair {
            return Ok(());
        }
        // What the other side did when it passed them has to be known here.
        if self.peer.truth.bounds().await?.head > progress.position {
            return Ok(());
        }
        let known = &self.common.memories.known;
        let Some(gone) = known.index_of("gone").map(Path::whole) else { return Ok(()) };
        let filter = Filter::Compare(gone, Comparison::Eq, Value::Boolean(true));
        let query = Query { filter, limit: PAGE, ..Query::all() };
        let page = self.own.reader.query(known, &query).await?.value;
        let passed = page.hits.into_iter().map(|hit| hit.stored);
        let passed: Vec<_> = passed.filter(|stored| stored.version <= there.position).collect();
        if passed.is_empty() {
            return Ok(());
        }
        progress.floor = progress.position;
        progress.save(self.own.truth.as_ref(), self.common.entity.name()).await?;
        forgetting::delete(&self.log, known, passed, &self.runtime).await
    }
}

/// The newest first.
pub(super) fn newest_first(entity: &Entity, field: &str) -> Vec<Order> {
    entity
        .index_of(field)
        .map(|n| Order { path: Path::whole(n), descending: true })
        .into_iter()
        .collect()
}
