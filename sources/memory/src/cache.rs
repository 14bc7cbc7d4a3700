//! Role cache: the in-process cache of the product, on the way of every read by key.
//!
//! **What it promises**: an entry in a [`Lookup`] contains every change at or before the `applied` of the same lookup,
//! whatever fills, changes, evictions and restarts go on meanwhile.
//!
//! **Why that holds.** Entries and `applied` belong to one [`Life`], named by its epoch; entries of another life have
//! other places and are never found. Within a life, all writers hold its `control` lock, so they come one after
//! the other, and each keeps the promise:
//!
//! * `follow` takes exactly the changes after `applied` (compare-and-set), brings every cached key of them up to
//!   date, and raises `applied` only then. A key that is not cached stays so; what it changed is in [`Recent`].
//! * `fill` brings what was read in a snapshot that holds everything up to `read`. If the key changed in
//!   `(read, applied]`, `Recent` knows or its floor is above `read`, and the fill is refused. So what goes in holds
//!   every change of the key up to `applied`. It never replaces a newer version, so entries do not go back.
//! * Eviction and `invalidate` only remove. A missing entry says nothing and breaks nothing.
//!
//! A lookup takes no part in that lock. It reads `applied` first and the entry second, which is enough: `applied` is
//! stored (release) after the entries that justify it and loaded (acquire) before the entry is read, and from then
//! on the entry can only become newer or vanish. The other way around, `applied` could rise in between and
//! promise more than the entry holds. A restart in between is harmless as well: the lookup goes on in the life that
//! it found, and its answer is the one of the moment before the restart.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use async_trait::async_trait;
use quick_cache::{Equivalent, Weighter};
use unisono_core::source::{self, Cache, Entry, Filled, Lookup};
use unisono_core::{Change, Entity, Error, ErrorKind, Key, Position, Result, Timestamp, Uuid};

use crate::recent::Recent;
use crate::source::MemorySource;

/// How many changed keys of an entity are known one by one; twice as many for a while. A read that is older than all
/// of them cannot be filled. At 5,000 writes a second that is a read from more than 3 seconds ago.
const RECENT_KEYS_MAX: usize = 16_384;

/// About how many bytes an entry occupies, for the first size of the tables.
const ENTRY_BYTES_TYPICAL: u64 = 1024;

/// The caches of all entities of a source, which share one capacity.
pub(crate) struct Caches {
    entries: quick_cache::sync::Cache<Place, Entry, Weight>,
    lives: RwLock<HashMap<Arc<str>, Arc<Life>>>,
    epochs: AtomicU64,
    recent_keys_max: usize,
}

/// Where an entry is kept: the epoch of its life, which no two entities share, and its key.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Place(u64, Key);

/// A place to be looked up; must hash like [`Place`].
#[derive(Hash)]
struct PlaceRef<'a>(u64, &'a Key);

impl Equivalent<Place> for PlaceRef<'_> {
    fn equivalent(&self, place: &Place) -> bool {
        self.0 == place.0 && *self.1 == place.1
    }
}

/// What an entry weighs: about its bytes, with the JSON that a record keeps once it was served.
#[derive(Clone)]
struct Weight;

impl Weighter<Place, Entry> for Weight {
    fn weight(&self, place: &Place, entry: &Entry) -> u64 {
        let key = if let Key::String(text) = &place.1 { text.len() } else { 0 };
        let record = entry.stored.as_ref().map_or(0, |s| 64 + 2 * s.record.weight());
        (192 + key + record) as u64
    }
}

/// The entries of one entity from one restart to the next.
struct Life {
    epoch: u64,
    /// The log that it follows.
    log: Uuid,
    /// A [`Position`]; every entry of this life contains the changes up to it.
    applied: AtomicU64,
    control: Mutex<Control>,
}

/// What the writers of a life share.
struct Control {
    /// Set by the restart that ended this life.
    ended: bool,
    recent: Recent,
}

impl Life {
    fn applied(&self) -> Position {
        // Only positions are ever stored.
        Position::new(self.applied.load(Ordering::Acquire)).unwrap_or(Position::ZERO)
    }

    /// For one writer at a time. Each leaves the control whole, so a panic elsewhere does no harm to it.
    fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Caches {
    pub(crate) fn new(capacity: u64) -> Self {
        Caches::with_recent(capacity, RECENT_KEYS_MAX)
    }

    fn with_recent(capacity: u64, recent_keys_max: usize) -> Self {
        let typical = usize::try_from(capacity / ENTRY_BYTES_TYPICAL).unwrap_or(usize::MAX);
        let entries = quick_cache::sync::Cache::with_weighter(typical.max(16), capacity, Weight);
        Caches { entries, lives: RwLock::default(), epochs: AtomicU64::new(0), recent_keys_max }
    }

    fn life(&self, entity: &Entity) -> Option<Arc<Life>> {
        let lives = self.lives.read().unwrap_or_else(PoisonError::into_inner);
        lives.get(entity.name()).cloned()
    }

    /// See [`Cache::lookup`]. Allocates nothing; an entity that never began is of epoch 0.
    fn lookup(&self, entity: &Entity, key: &Key, now: Timestamp) -> Lookup {
        let lives = self.lives.read().unwrap_or_else(PoisonError::into_inner);
        let Some(life) = lives.get(entity.name()) else {
            return Lookup { entry: None, applied: Position::ZERO, epoch: 0 };
        };
        // First the position, then the entry: see the argument at the top.
        let applied = life.applied();
        let entry = self.entries.get(&PlaceRef(life.epoch, key)).filter(|e| now < e.expires);
        Lookup { entry, applied, epoch: life.epoch }
    }

    fn fill(&self, entity: &Entity, key: &Key, entry: Entry, read: Position, epoch: u64) -> Filled {
        let Some(life) = self.life(entity).filter(|life| life.epoch == epoch) else {
            return Filled::OtherEpoch;
        };
        let control = life.control();
        if control.ended {
            return Filled::OtherEpoch;
        }
        if control.recent.may_have_changed(key, read) {
            return Filled::Outdated;
        }
        // The same version makes room for itself if it then lives longer, an older one never.
        let holds = |cached: &Entry| {
            cached.version > entry.version
                || (cached.version == entry.version && entry.expires <= cached.expires)
        };
        if self.entries.peek(&PlaceRef(epoch, key)).is_some_and(|cached| holds(&cached)) {
            return Filled::Outdated;
        }
        self.entries.insert(Place(epoch, key.clone()), entry);
        Filled::Stored
    }

    fn follow(
        &self,
        entity: &Entity,
        changes: &[Arc<Change>],
        from: Position,
        to: Position,
        expires: Timestamp,
    ) -> Result<()> {
        let moved = |actual: Position| {
            Error::new(ErrorKind::CheckpointMoved, "the cache has not applied up to there")
                .with("expected", from)
                .with("actual", actual)
        };
        let life = self.life(entity).ok_or_else(|| moved(Position::ZERO))?;
        let mut control = life.control();
        let applied = life.applied();
        if control.ended || applied < from {
            return Err(moved(applied));
        }
        for change in changes.iter().filter(|change| change.position > applied) {
            control.recent.record(&change.key, change.position);
            let cached = self.entries.peek(&PlaceRef(life.epoch, &change.key));
            if cached.is_some_and(|cached| cached.version < change.position) {
                let place = Place(life.epoch, change.key.clone());
                // If it was evicted in between, it stays out.
                let _ = self.entries.replace(place, entry_of(change, expires), true);
            }
        }
        life.applied.store(to.max(applied).as_u64(), Ordering::Release);
        Ok(())
    }

    fn invalidate(&self, entity: &Entity, keys: &[Key]) {
        let Some(life) = self.life(entity) else { return };
        for key in keys {
            self.entries.remove(&PlaceRef(life.epoch, key));
        }
    }

    fn restart(&self, entity: &Entity, log: Uuid, at: Position) -> u64 {
        let epoch = self.epochs.fetch_add(1, Ordering::Relaxed) + 1;
        let recent = Recent::new(at, self.recent_keys_max);
        let control = Mutex::new(Control { ended: false, recent });
        let applied = AtomicU64::new(at.as_u64());
        let life = Arc::new(Life { epoch, log, applied, control });
        let mut lives = self.lives.write().unwrap_or_else(PoisonError::into_inner);
        let before = lives.insert(Arc::clone(entity.name()), life);
        drop(lives);
        if let Some(before) = before {
            // A fill or batch that had found the life before finishes first; none comes after.
            before.control().ended = true;
            self.entries.retain(|place, _| place.0 != before.epoch);
        }
        epoch
    }
}

/// What a key is after a change: its record, or its absence. It counts as put in when the write was asked for, so its
/// age is never told too low.
fn entry_of(change: &Change, expires: Timestamp) -> Entry {
    Entry {
        stored: change.stored().map(Arc::new),
        version: change.position,
        filled: change.time,
        expires,
    }
}

#[async_trait]
impl Cache for MemorySource {
    async fn lookup(&self, entity: &Arc<Entity>, key: &Key, now: Timestamp) -> Result<Lookup> {
        self.check_open("lookup")?;
        Ok(self.caches.lookup(entity, key, now))
    }

    async fn fill(
        &self,
        entity: &Arc<Entity>,
        key: &Key,
        entry: Entry,
        read: Position,
        epoch: u64,
    ) -> Result<Filled> {
        self.check_open("fill")?;
        Ok(self.caches.fill(entity, key, entry, read, epoch))
    }

    async fn follow(
        &self,
        entity: &Arc<Entity>,
        changes: &[Arc<Change>],
        from: Position,
        to: Position,
        expires: Timestamp,
    ) -> Result<()> {
        self.check_open("follow")?;
        let result = self.caches.follow(entity, changes, from, to, expires);
        result.map_err(|e| e.on("follow").of(entity.name()))
    }

    async fn invalidate(&self, entity: &Arc<Entity>, keys: &[Key]) -> Result<()> {
        self.check_open("invalidate")?;
        self.caches.invalidate(entity, keys);
        Ok(())
    }

    async fn join(&self, entity: &Arc<Entity>, log: Uuid) -> Result<Option<source::Life>> {
        self.check_open("join")?;
        let life = self.caches.life(entity).filter(|life| life.log == log);
        Ok(life.map(|life| source::Life { epoch: life.epoch, applied: life.applied() }))
    }

    async fn restart(&self, entity: &Arc<Entity>, log: Uuid, at: Position) -> Result<u64> {
        self.check_open("restart")?;
        Ok(self.caches.restart(entity, log, at))
    }
}

#[cfg(test)]
mod tests;
