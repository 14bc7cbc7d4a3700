//! Caches follow the log: [`Feed`] carries changes to one cache and entity, and knows whether it is up to date.

mod hot;
mod kept;
pub(crate) mod warm;
pub(crate) mod warm_questions;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use unisono_core::source::{Cache, Entry, Filled, Lease, Life, Lookup};
use unisono_core::{
    Change, Entity, Error, ErrorKind, Key, Position, Record, Result, Stored, Timestamp,
};
use unisono_policy::declaration::CacheDeclaration;
use unisono_policy::{refresh, retry};

use crate::limit::{Limit, Slot};
use crate::log::Log;
use crate::policies::PresentEntity;
use crate::read::handle::SourceHandle;
use crate::runtime::Runtime;
use crate::status::CacheStatistics;
use crate::watched::Watched;
use hot::Hot;
use warm::Warmed;

/// How many changes are taken at once.
const WINDOW: usize = 1024;
const WINDOW_BYTES: usize = 4 << 20;
/// Entries are served without a sign of life from the log for at most this long; afterwards the cache is bypassed
/// while the truth answers, and served as stale while it does not.
const UNVERIFIED_MAX: Duration = Duration::from_secs(3);
/// How many times the duration of a read an entry can be read before its time is over.
const EARLY_READS_MAX: u32 = 40;
/// Failures are told as often as this; those between are for debugging.
const COMPLAIN_EVERY: Duration = Duration::from_secs(5);
/// A life that is further behind, in changes, is not joined: carrying them to it takes longer than it saves.
const JOIN_BEHIND_MAX: u64 = 65_536;
/// How often a quiet feed asks for a sign of life.
const VERIFY_EVERY: Duration = Duration::from_secs(1);

/// One cache of one entity.
pub(crate) struct Feed {
    entity: Arc<Entity>,
    source: Arc<str>,
    policies: PresentEntity,
    cache: Arc<dyn Cache>,
    handle: Arc<SourceHandle>,
    log: Arc<Log>,
    runtime: Runtime,
    applied: AtomicU64,
    /// The last change of the entity that the feed has come to.
    changed: AtomicU64,
    /// The life of the cache that this feed has begun or joined last; none if it could not be reached so far.
    life: Watched<Option<Life>>,
    warmed: Warmed,
    /// What is read most, if that is taken in when a life begins.
    /// The keys that are read most, if that is wanted.
    hot: ArcSwapOption<Hot>,
    stale: AtomicU64,
    refreshed: AtomicU64,
    /// Whether the cache has begun a life that this feed carries changes to.
    begun: AtomicBool,
    verified: AtomicI64,
    down: AtomicBool,
    ended: AtomicBool,
    hits: AtomicU64,
    misses: AtomicU64,
    refused: AtomicU64,
    /// What reading a record takes of late, in microseconds.
    read_micros: AtomicU64,
    /// When a failure was told last.
    complained: AtomicI64,
    /// The misses that may ask the sources at once.
    misses_room: Arc<Limit>,
}

impl Feed {
    /// Goes on with the life of the cache, or starts one at the head of the log, and the task that keeps it there.
    /// While the cache cannot be reached it is passed by.
    pub(crate) async fn start(
        entity: &Arc<Entity>,
        declared: &CacheDeclaration,
        policies: PresentEntity,
        (cache, handle): (Arc<dyn Cache>, Arc<SourceHandle>),
        log: Arc<Log>,
        runtime: &Runtime,
    ) -> Arc<Self> {
        let feed = Arc::new(Feed {
            entity: Arc::clone(entity),
            source: Arc::clone(&declared.source),
            policies,
            cache,
            handle,
            log,
            runtime: runtime.clone(),
            applied: AtomicU64::new(0),
            changed: AtomicU64::new(0),
            life: Watched::default(),
            warmed: Warmed::default(),
            hot: ArcSwapOption::new(Hot::wanted_by(declared)),
            stale: AtomicU64::new(0),
            refreshed: AtomicU64::new(0),
            begun: AtomicBool::new(false),
            verified: AtomicI64::new(0),
            down: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            read_micros: AtomicU64::new(0),
            complained: AtomicI64::new(i64::MIN),
            misses_room: Limit::new(declared.misses_max),
        });
        if !feed.handle.is_paused()
            && let Err(error) = feed.begin().await
        {
            feed.failed(&error);
        }
        runtime.spawn(Arc::clone(&feed).run());
        runtime.spawn(Arc::clone(&feed).keep_hot_keys());
        feed
    }

    /// The source that holds the entries.
    pub(crate) fn source(&self) -> &Arc<str> {
        &self.source
    }

    /// What the cache knows of a key.
    pub(crate) async fn lookup(&self, key: &Key, now: Timestamp) -> Result<Lookup> {
        self.handle.refuse_if_paused()?;
        self.cache.lookup(&self.entity, key, now).await
    }

    /// The same for a caller that reads the record unless an entry is live at `now`, and who is to read it.
    pub(crate) async fn lookup_or_lease(
        &self,
        declared: &CacheDeclaration,
        key: &Key,
        now: Timestamp,
    ) -> Result<(Lookup, Lease)> {
        if declared.lease.is_zero() {
            return Ok((self.lookup(key, now).await?, Lease::Free));
        }
        self.handle.refuse_if_paused()?;
        self.cache.lookup_or_lease(&self.entity, key, now, declared.lease).await
    }

    /// Lets other processes read a record that this one did not bring. Nobody waits for that: the lease ends by itself.
    pub(crate) fn release(self: &Arc<Self>, key: &Key) {
        let (feed, key) = (Arc::clone(self), key.clone());
        self.runtime.spawn(async move {
            if let Err(error) = feed.cache.release(&feed.entity, &key).await {
                tracing::debug!(%error, entity = %feed.entity.name(), "a lease could not be released");
            }
        });
    }

    /// Whether the log has given a sign of life lately, so that entries are known to be current.
    pub(crate) fn is_verified(&self, now: Timestamp) -> bool {
        let verified = Timestamp::from_micros_clamped(self.verified.load(Ordering::Acquire));
        !self.down.load(Ordering::Acquire) && now < verified.plus(UNVERIFIED_MAX)
    }

    /// Everything up to here is taken into account.
    pub(crate) fn applied(&self) -> Position {
        Position::new(self.applied.load(Ordering::Acquire)).unwrap_or(Position::ZERO)
    }

    /// Waits until a miss may ask the sources.
    pub(crate) async fn admit(&self) -> Result<Slot> {
        self.misses_room.enter().await
    }

    /// Goes by another declaration from now on; by what it has itself, which is not looked up there at each use.
    pub(crate) fn reloaded(&self, declared: &CacheDeclaration) {
        self.misses_room.resize(declared.misses_max);
        let noting = self.hot.load().as_ref().map_or(0, |hot| hot.wanted());
        if noting != declared.warm_hot {
            self.hot.store(Hot::wanted_by(declared));
        }
        if let Err(error) = self.cache.adjust(&self.entity, &declared.live) {
            tracing::warn!(%error, source = %self.source, "a cache goes on with the options of before");
        }
    }

    /// Takes note of how long it took to read a record.
    pub(crate) fn measured(&self, took: Duration) {
        let before = self.read_micros.load(Ordering::Relaxed);
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let now = if before == 0 { took } else { before - before / 8 + took / 8 };
        self.read_micros.store(now, Ordering::Relaxed);
    }

    /// How long an entry still lives before its time is over; nothing if it is only kept until it was read again.
    pub(crate) fn left(declared: &CacheDeclaration, entry: &Entry, now: Timestamp) -> Duration {
        let left = entry.expires.seconds_since(now) - declared.stale.as_secs_f64();
        Duration::from_secs_f64(left.max(0.0))
    }

    /// Whether an entry should be read again now.
    pub(crate) fn is_due(
        &self,
        declared: &CacheDeclaration,
        entry: &Entry,
        now: Timestamp,
    ) -> bool {
        let left = Feed::left(declared, entry, now);
        if left.is_zero() || !declared.refresh {
            return left.is_zero();
        }
        let read = Duration::from_micros(self.read_micros.load(Ordering::Relaxed));
        // No random number is as small as that; most hits need none.
        if read * EARLY_READS_MAX < left {
            return false;
        }
        refresh::is_due(left, read, self.runtime.random())
    }

    /// Up to where the feed has come, and the last change of the entity up to there.
    pub(crate) fn seen(&self) -> (Position, Position) {
        // In this order: a change that is applied by now was noted before.
        let applied = self.applied();
        (applied, Position::new(self.changed.load(Ordering::Acquire)).unwrap_or(Position::ZERO))
    }

    /// Counts a lookup; answers how many came to the same before.
    pub(crate) fn count(&self, hit: bool) -> u64 {
        if hit { &self.hits } else { &self.misses }.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts a lookup of a record, and takes note of its key now and then.
    pub(crate) fn count_key(&self, hit: bool, key: &Key) {
        let before = self.count(hit);
        if hot::is_sampled(before)
            && let Some(hot) = &*self.hot.load()
        {
            hot.note(key);
        }
    }

    /// Counts an answer that may be old.
    pub(crate) fn count_stale(&self) {
        self.stale.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an entry that is read again.
    pub(crate) fn count_refreshed(&self) {
        self.refreshed.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the cache is to hold a record, or the knowledge that there is none.
    pub(crate) fn keeps(&self, declared: &CacheDeclaration, record: Option<&Record>) -> bool {
        match (&declared.filter, record) {
            (Some(rule), Some(record)) => rule.holds_at(record, self.runtime.now()),
            _ => true,
        }
    }

    /// Drops entries that the cache is not to hold any more. Where that fails they are brought up to date like others,
    /// until their time is over.
    pub(crate) async fn invalidate(&self, keys: &[Key]) {
        if let Err(error) = self.cache.invalidate(&self.entity, keys).await {
            self.complain(&error, "entries of a cache could not be dropped");
        }
    }

    /// Offers what was read at `read`, after a lookup under `epoch`; answers whether it was taken in.
    pub(crate) async fn fill(
        &self,
        declared: &CacheDeclaration,
        key: &Key,
        stored: Option<Arc<Stored>>,
        read: Position,
        epoch: u64,
    ) -> bool {
        if !self.keeps(declared, stored.as_ref().map(|s| s.record.as_ref())) {
            return false;
        }
        let entry = self.entry(declared, stored, read);
        match self.cache.fill(&self.entity, key, entry, read, epoch).await {
            Ok(Filled::Stored) => true,
            Ok(Filled::Outdated | Filled::OtherEpoch) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                false
            }
            Err(error) => {
                self.complain(&error, "a cache could not be filled");
                false
            }
        }
    }

    /// An entry that begins now, of what was read at `read`.
    fn entry(
        &self,
        declared: &CacheDeclaration,
        stored: Option<Arc<Stored>>,
        read: Position,
    ) -> Entry {
        let now = self.runtime.now();
        let ttl = if stored.is_some() { declared.ttl } else { declared.negative_ttl };
        // A tenth of jitter, so that entries filled together do not end together.
        let ttl = ttl.mul_f64(1.0 - 0.1 * self.runtime.random());
        let version = stored.as_ref().map_or(read, |s| s.version);
        Entry { stored, version, filled: now, expires: now.plus(ttl + declared.stale) }
    }

    /// Has the cache hold what a change made of its record, so that the next reader finds it. The cache would learn of it
    /// from the log all the same.
    pub(crate) async fn write_through(&self, declared: &CacheDeclaration, change: &Change) {
        if !self.keeps(declared, change.image.as_deref()) {
            return self.invalidate(std::slice::from_ref(&change.key)).await;
        }
        let now = self.runtime.now();
        let Ok(lookup) = self.lookup(&change.key, now).await else { return };
        let stored = change.stored().map(Arc::new);
        self.fill(declared, &change.key, stored, change.position, lookup.epoch).await;
    }

    /// How it is doing.
    pub(crate) fn statistics(&self) -> CacheStatistics {
        CacheStatistics {
            entity: self.entity.name().clone(),
            source: self.source.clone(),
            applied: self.applied(),
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            stale: self.stale.load(Ordering::Relaxed),
            refreshed: self.refreshed.load(Ordering::Relaxed),
            warmed: self.warmed.done(),
            wanted: self.warmed.wanted(),
        }
    }

    /// Joins the life that others keep, or that was kept before: nothing that they filled is read again. One that is far
    /// behind is given up, as is one whose next changes the log no longer has.
    async fn begin(&self) -> Result<()> {
        let Some(life) = self.cache.join(&self.entity, self.log.id).await? else {
            return self.restart().await;
        };
        let bounds = self.log.truth.bounds().await?;
        let (applied, behind) = (life.applied, bounds.head.since(life.applied));
        if applied < bounds.trimmed || applied > bounds.head || behind > JOIN_BEHIND_MAX {
            return self.restart().await;
        }
        self.lives(life);
        if applied == bounds.head {
            self.verify();
        }
        Ok(())
    }

    async fn restart(&self) -> Result<()> {
        let head = self.log.tail.head();
        let epoch = self.cache.restart(&self.entity, self.log.id, head).await?;
        self.lives(Life { epoch, applied: head });
        self.verify();
        Ok(())
    }

    fn lives(&self, life: Life) {
        // What changed in between is not known.
        self.changed.store(life.applied.as_u64(), Ordering::Release);
        self.begun.store(true, Ordering::Release);
        self.reached(life.applied);
        self.life.change(|present| {
            *present = Some(life);
            true
        });
    }

    fn reached(&self, position: Position) {
        self.applied.store(position.as_u64(), Ordering::Release);
    }

    fn verify(&self) {
        self.verified.store(self.runtime.now().micros(), Ordering::Release);
        self.down.store(false, Ordering::Release);
    }

    /// Carries nothing more, because the entity has another log.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    async fn run(self: Arc<Self>) {
        let mut attempt = 0;
        while !self.has_ended() {
            if self.handle.is_paused() {
                self.down.store(true, Ordering::Release);
                self.handle.comes_to_be(false).await;
                // As after a start: what was missed is brought in, or the entries are given up.
                self.begun.store(false, Ordering::Release);
            }
            let Err(error) = self.step().await else {
                attempt = 0;
                continue;
            };
            self.failed(&error);
            attempt += 1;
            self.runtime.sleep(retry::backoff(attempt, self.runtime.random())).await;
        }
    }

    fn failed(&self, error: &Error) {
        self.down.store(true, Ordering::Release);
        self.complain(error, "a cache cannot follow the log");
    }

    /// Tells of a failure. Where the cache is down every read would tell of one.
    fn complain(&self, error: &Error, what: &'static str) {
        let (entity, source) = (self.entity.name(), &self.source);
        let (now, last) = (self.runtime.now().micros(), self.complained.load(Ordering::Relaxed));
        if now.saturating_sub(last) < COMPLAIN_EVERY.as_micros() as i64 {
            tracing::debug!(%error, %entity, %source, "{what}");
        } else {
            self.complained.store(now, Ordering::Relaxed);
            tracing::warn!(%error, %entity, %source, "{what}");
        }
    }

    async fn step(&self) -> Result<()> {
        if !self.begun.load(Ordering::Acquire) {
            return self.begin().await;
        }
        let from = self.applied();
        match self.log.tail.read(from, WINDOW, WINDOW_BYTES).await {
            Ok(window) if window.is_empty() => self.wait(from).await,
            Ok(window) => self.follow(&window, from).await,
            Err(error) if error.kind() == ErrorKind::LogTruncated => self.restart().await,
            Err(error) => Err(error),
        }
    }

    async fn wait(&self, from: Position) -> Result<()> {
        tokio::select! {
            biased;
            () = self.log.tail.beyond(from) => Ok(()),
            () = self.runtime.sleep(VERIFY_EVERY) => {
                self.log.truth.bounds().await?;
                // Taking in nothing asks the cache whether it is still where it was: it may have lost everything.
                self.take_in(&[], from, from).await
            }
        }
    }

    async fn follow(&self, window: &[Arc<Change>], from: Position) -> Result<()> {
        let Some(to) = window.last().map(|c| c.position) else { return Ok(()) };
        let mine: Vec<_> =
            window.iter().filter(|c| c.entity == *self.entity.name()).cloned().collect();
        if let Some(last) = mine.last() {
            self.changed.store(last.position.as_u64(), Ordering::Release);
        }
        self.take_in(&mine, from, to).await?;
        // Only now, so that what was filled meanwhile goes too.
        let dropped = self.not_kept(&mine);
        if !dropped.is_empty() {
            self.invalidate(&dropped).await;
        }
        Ok(())
    }

    /// The keys of the changes whose records the cache is not to hold.
    fn not_kept(&self, changes: &[Arc<Change>]) -> Vec<Key> {
        let policies = self.policies.present.load();
        let Some(declared) = &policies.of(&self.policies).cache else { return Vec::new() };
        if declared.filter.is_none() {
            return Vec::new();
        }
        let dropped = changes.iter().filter(|c| !self.keeps(declared, c.image.as_deref()));
        dropped.map(|change| change.key.clone()).collect()
    }

    async fn take_in(&self, mine: &[Arc<Change>], from: Position, to: Position) -> Result<()> {
        let expires = self.runtime.now().plus(self.policies.cached_for());
        match self.cache.follow(&self.entity, mine, from, to, expires).await {
            Ok(()) => {
                self.reached(to);
                self.verify();
                Ok(())
            }
            // Another process has begun a life, or a copy took over that had not come as far.
            Err(error) if error.kind() == ErrorKind::CheckpointMoved => self.begin().await,
            Err(error) => Err(error),
        }
    }
}
