//! The cache protocol: epoch, fence, and compare-and-set of the applied position.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use unisono_core::source::{Cache, Entry, Filled, Lease, Life, Lookup};
use unisono_core::{Change, Entity, ErrorKind, Key, Position, Role, Timestamp, Uuid};
use unisono_testkit::{Changes, LOG, Sample};

use crate::cases::cases;
use crate::fixture::{Fixture, Stop, Verdict, check, check_eq, must_fail};

cases! {
    "lookup" lookup_answers "a cached record is found until it expires, an unknown one is not";
    "lease-1" one_process_holds_a_lease "of the processes that miss a record, one holds its lease; a live entry needs none";
    "lease-2" leases_end "a fill by the holder ends a lease, taken in or not, as do a release by it and time";
    "fill-1" other_epochs_are_refused "a fill from before a restart is refused";
    "fill-2" outdated_reads_are_refused "a fill read before the key's last change is refused, cached or not";
    "fill-3" older_versions_are_refused "a fill that is not newer than the live entry is refused";
    "follow-1" others_may_follow_too "following from ahead is refused and changes nothing; what another process has taken in is passed over";
    "follow-2" entries_are_never_older "changes reach cached keys; deletions leave their absence";
    "invalidate-1" invalidated_entries_are_gone "invalidated entries are gone, the others stay, and the protocol goes on";
    "join-1" the_life_goes_on "a life that follows the same log is joined where it has come to; one of another log is not";
    "restart" restart_empties "a restart empties the entity under an epoch never seen before";
}

/// A cache of products that has begun its life, and what fills it.
struct Cached {
    cache: Arc<dyn Cache>,
    entity: Arc<Entity>,
    epoch: u64,
    changes: Changes,
    now: Timestamp,
}

impl Cached {
    async fn new(fixture: &Fixture) -> Result<Self, Stop> {
        fixture.needs(Role::Cache)?;
        let entity = Sample::product();
        let opened = fixture.open(Role::Cache, &[&entity]).await?;
        let cache = opened.cache()?;
        let epoch = cache.restart(&entity, LOG, Position::ZERO).await?;
        Ok(Cached { cache, entity, epoch, changes: Changes::new(), now: fixture.now() })
    }

    fn expires(&self) -> Timestamp {
        self.now.plus(Duration::from_secs(60))
    }

    fn put(&mut self, id: &str) -> Arc<Change> {
        let stock = self.changes.head().as_u64();
        let record = Sample::record(&self.entity, &json!({"id": id, "name": "x", "stock": stock}));
        self.changes.put(&self.entity, record)
    }

    fn delete(&mut self, id: &str) -> Arc<Change> {
        self.changes.delete(&self.entity, &Sample::key(id))
    }

    async fn look(&self, id: &str) -> Result<Lookup, Stop> {
        Ok(self.cache.lookup(&self.entity, &Sample::key(id), self.now).await?)
    }

    /// Who is to read a record, as another caller is told by the cache of its process.
    async fn asked(&self, by: &Arc<dyn Cache>, id: &str, at_most: Duration) -> Result<Lease, Stop> {
        let looked = by.lookup_or_lease(&self.entity, &Sample::key(id), self.now, at_most).await;
        let (lookup, lease) = looked?;
        check_eq!(lookup.epoch, self.epoch, "a lookup that takes a lease is a lookup");
        Ok(lease)
    }

    /// The version of the live entry; `Some(None)` for one that knows of the absence.
    async fn version(&self, id: &str) -> Result<Option<(u64, bool)>, Stop> {
        Ok(self.look(id).await?.entry.map(|e| (e.version.as_u64(), e.stored.is_some())))
    }

    fn entry(&self, change: &Change) -> Entry {
        let stored = change.stored().map(Arc::new);
        Entry { stored, version: change.position, filled: self.now, expires: self.expires() }
    }

    async fn fill(&self, change: &Change, read: u64) -> Result<Filled, Stop> {
        self.fill_in(change, read, self.epoch).await
    }

    async fn fill_in(&self, change: &Change, read: u64, epoch: u64) -> Result<Filled, Stop> {
        let (entry, read) = (self.entry(change), Position::new(read)?);
        Ok(self.cache.fill(&self.entity, &change.key, entry, read, epoch).await?)
    }

    async fn fill_absent(&self, id: &str, read: u64) -> Result<Filled, Stop> {
        let read = Position::new(read)?;
        let entry =
            Entry { stored: None, version: read, filled: self.now, expires: self.expires() };
        Ok(self.cache.fill(&self.entity, &Sample::key(id), entry, read, self.epoch).await?)
    }

    async fn follow(
        &self,
        changes: &[Arc<Change>],
        from: u64,
        to: u64,
    ) -> Result<(), unisono_core::Error> {
        let (from, to) = (Position::new(from)?, Position::new(to)?);
        self.cache.follow(&self.entity, changes, from, to, self.expires()).await
    }
}

async fn lookup_answers(fixture: &Fixture) -> Verdict {
    let mut c = Cached::new(fixture).await?;
    let change = c.put("a");
    let found = c.look("a").await?;
    check!(
        found.entry.is_none() && found.applied == Position::ZERO && found.epoch == c.epoch,
        "at first: {found:?}"
    );
    check_eq!(c.fill(&change, 1).await?, Filled::Stored, "fill");
    let entry = c.look("a").await?.entry;
    let stored = entry.as_ref().and_then(|e| e.stored.clone());
    check_eq!(stored.map(|s| s.record.clone()), change.image.clone(), "the record");
    check_eq!(
        entry.map(|e| (e.filled, e.expires)),
        Some((c.now, c.expires())),
        "times of the entry"
    );
    check_eq!(c.version("b").await?, None, "another key");
    // The cache begins with another entity untouched by this one.
    c.now = c.expires();
    check_eq!(c.version("a").await?, None, "an expired entry is not live");
    check_eq!(
        c.fill(&change, 1).await?,
        Filled::Stored,
        "an expired entry is filled again with the same version"
    );
    check_eq!(c.version("a").await?, Some((1, true)), "filled again");
    Ok(())
}

/// The cache of another process over the same entries, if the kind gives leases.
async fn neighbour(fixture: &Fixture, c: &Cached) -> Result<Arc<dyn Cache>, Stop> {
    let lease = c.asked(&c.cache, "first", LONG).await?;
    fixture.needs_that(lease != Lease::Free, "leases")?;
    check_eq!(lease, Lease::Held, "who asks first");
    Ok(fixture.open(Role::Cache, &[&c.entity]).await?.cache()?)
}

/// Longer than any case takes.
const LONG: Duration = Duration::from_secs(600);

async fn one_process_holds_a_lease(fixture: &Fixture) -> Verdict {
    let mut c = Cached::new(fixture).await?;
    let other = neighbour(fixture, &c).await?;
    check_eq!(c.asked(&other, "first", LONG).await?, Lease::Taken, "another process");
    check_eq!(
        c.asked(&c.cache, "first", LONG).await?,
        Lease::Held,
        "another caller of the process"
    );
    check_eq!(c.asked(&other, "second", LONG).await?, Lease::Held, "another key");

    let change = c.put("a");
    check_eq!(c.fill(&change, 1).await?, Filled::Stored, "fill");
    for cache in [&c.cache, &other] {
        check_eq!(c.asked(cache, "a", LONG).await?, Lease::Free, "a live entry");
    }
    c.now = c.expires();
    check_eq!(c.asked(&other, "a", LONG).await?, Lease::Held, "an entry beyond its time");
    check_eq!(c.asked(&c.cache, "a", LONG).await?, Lease::Taken, "the same at another process");
    c.now = fixture.now();
    c.epoch = c.cache.restart(&c.entity, LOG, Position::new(1)?).await?;
    check_eq!(c.fill(&change, 1).await?, Filled::Stored, "nobody needs a lease to fill");
    c.epoch = c.cache.restart(&c.entity, LOG, Position::new(1)?).await?;
    check_eq!(c.asked(&c.cache, "a", LONG).await?, Lease::Taken, "an entry of an earlier life");
    Ok(())
}

async fn leases_end(fixture: &Fixture) -> Verdict {
    let mut c = Cached::new(fixture).await?;
    let other = neighbour(fixture, &c).await?;
    let (key, entity) = (Sample::key("first"), Arc::clone(&c.entity));
    other.release(&entity, &key).await?;
    check_eq!(c.asked(&other, "first", LONG).await?, Lease::Taken, "released by somebody else");
    c.cache.release(&entity, &key).await?;
    check_eq!(c.asked(&other, "first", LONG).await?, Lease::Held, "released by its holder");

    let (a1, a2) = (c.put("a"), c.put("a"));
    check_eq!(c.asked(&c.cache, "a", LONG).await?, Lease::Held, "before a fill");
    c.follow(&[Arc::clone(&a1), a2], 0, 2).await?;
    check_eq!(c.fill(&a1, 1).await?, Filled::Outdated, "a fill that is refused");
    check_eq!(c.asked(&other, "a", LONG).await?, Lease::Held, "after it");
    check_eq!(c.fill_absent("a", 2).await?, Filled::Stored, "a fill by somebody else");
    c.now = c.expires();
    check_eq!(c.asked(&c.cache, "a", LONG).await?, Lease::Taken, "it did not end the lease");

    let short = Duration::from_millis(20);
    check_eq!(c.asked(&c.cache, "b", short).await?, Lease::Held, "for a short time");
    let ends = async {
        while c.asked(&other, "b", short).await? != Lease::Held {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    };
    let outlives = |_| Stop::Failed("a lease outlives its time".into());
    tokio::time::timeout(Duration::from_secs(60), ends).await.map_err(outlives)?
}

async fn other_epochs_are_refused(fixture: &Fixture) -> Verdict {
    let mut c = Cached::new(fixture).await?;
    let change = c.put("a");
    let epoch = c.cache.restart(&c.entity, LOG, Position::new(1)?).await?;
    check!(epoch != c.epoch, "the epoch stayed");
    check_eq!(c.fill(&change, 1).await?, Filled::OtherEpoch, "a fill from before the restart");
    check_eq!(c.version("a").await?, None, "nothing is cached");
    check_eq!(c.fill_in(&change, 1, epoch).await?, Filled::Stored, "a fill of the new life");
    // A cache that never began holds nothing.
    let order = Sample::order();
    let unknown = c.cache.lookup(&order, &Key::from_text("a")?, c.now).await?;
    check!(unknown.entry.is_none(), "an entry of an entity that never began");
    let filled = c
        .cache
        .fill(&order, &Key::from_text("a")?, c.entry(&change), Position::new(1)?, unknown.epoch)
        .await?;
    check_eq!(filled, Filled::OtherEpoch, "a fill of an entity that never began");
    Ok(())
}

async fn outdated_reads_are_refused(fixture: &Fixture) -> Verdict {
    let mut c = Cached::new(fixture).await?;
    let (a1, b2, a3) = (c.put("a"), c.put("b"), c.put("a"));
    c.follow(&[Arc::clone(&a1), b2, Arc::clone(&a3)], 0, 3).await?;
    check_eq!(c.version("a").await?, None, "what is not cached is not put in by following");
    check_eq!(c.fill(&a1, 2).await?, Filled::Outdated, "read before the last change");
    check_eq!(c.fill(&a3, 3).await?, Filled::Stored, "read at the last change");
    let a4 = c.delete("a");
    c.follow(&[a4], 3, 4).await?;
    check_eq!(c.fill(&a3, 3).await?, Filled::Outdated, "read before a deletion");
    check_eq!(
        c.fill_absent("z", 2).await?,
        Filled::Stored,
        "another key, read earlier, without a change since"
    );
    // The begin of a life is a fence of its own: what changed before it is not known.
    let later = c.cache.restart(&c.entity, LOG, Position::new(4)?).await?;
    check_eq!(
        c.fill_in(&a3, 3, later).await?,
        Filled::Outdated,
        "read before the life of the cache began"
    );
    Ok(())
}

async fn older_versions_are_refused(fixture: &Fixture) -> Verdict {
    let mut c = Cached::new(fixture).await?;
    let (a1, a2) = (c.put("a"), c.put("a"));
    check_eq!(c.fill(&a2, 2).await?, Filled::Stored, "ahead of what was applied");
    check_eq!(c.fill(&a2, 2).await?, Filled::Outdated, "the same again");
    check_eq!(c.fill(&a1, 1).await?, Filled::Outdated, "an older one");
    check_eq!(c.version("a").await?, Some((2, true)), "the entry");
    check_eq!(c.fill_absent("a", 1).await?, Filled::Outdated, "an older absence");
    check_eq!(c.fill_absent("a", 5).await?, Filled::Stored, "a newer absence");
    check_eq!(c.version("a").await?, Some((5, false)), "the absence");
    c.now = c.expires();
    check_eq!(c.fill(&a1, 1).await?, Filled::Outdated, "going back behind an expired entry");
    Ok(())
}

async fn others_may_follow_too(fixture: &Fixture) -> Verdict {
    let mut c = Cached::new(fixture).await?;
    let (a1, a2) = (c.put("a"), c.put("a"));
    check_eq!(c.fill(&a1, 1).await?, Filled::Stored, "fill");
    for from in [1, 2] {
        must_fail(
            c.follow(&[Arc::clone(&a2)], from, 2).await,
            ErrorKind::CheckpointMoved,
            "from ahead",
        )?;
    }
    check_eq!(c.version("a").await?, Some((1, true)), "a refused batch changed an entry");
    c.follow(&[Arc::clone(&a1)], 0, 1).await?;
    c.follow(&[Arc::clone(&a1), Arc::clone(&a2)], 0, 2).await?;
    check_eq!(c.version("a").await?, Some((2, true)), "the rest of a batch that was begun");
    c.follow(&[], 2, 10).await?;
    c.follow(&[a1, a2], 0, 2).await?;
    let found = c.look("a").await?;
    check_eq!(
        (found.applied.as_u64(), found.entry.map(|e| e.version.as_u64())),
        (10, Some(2)),
        "in the end"
    );
    let order = Sample::order();
    let unknown = c.cache.follow(&order, &[], Position::ZERO, Position::new(1)?, c.now).await;
    must_fail(unknown, ErrorKind::CheckpointMoved, "an entity that never began")?;
    Ok(())
}

async fn entries_are_never_older(fixture: &Fixture) -> Verdict {
    let mut c = Cached::new(fixture).await?;
    let a1 = c.put("a");
    check_eq!(c.fill(&a1, 1).await?, Filled::Stored, "fill");
    check_eq!(c.fill_absent("b", 1).await?, Filled::Stored, "an absence");
    let (a2, b3, a4) = (c.put("a"), c.put("b"), c.put("a"));
    let images = (a4.image.clone(), b3.image.clone());
    c.follow(&[a1, a2, b3, a4], 0, 4).await?;
    check_eq!(c.version("a").await?, Some((4, true)), "a put reaches the cached record");
    check_eq!(c.version("b").await?, Some((3, true)), "a create replaces the cached absence");
    let stored = |l: Lookup| l.entry.and_then(|e| e.stored).map(|s| Arc::clone(&s.record));
    check_eq!((stored(c.look("a").await?), stored(c.look("b").await?)), images, "records");
    let deleted = c.delete("a");
    c.follow(&[deleted], 4, 5).await?;
    check_eq!(c.version("a").await?, Some((5, false)), "a deletion leaves its absence");
    // A change that an entry is ahead of must not take it back.
    let (a6, a7) = (c.put("a"), c.put("a"));
    check_eq!(c.fill(&a7, 7).await?, Filled::Stored, "ahead of what was applied");
    c.follow(&[a6], 5, 6).await?;
    check_eq!(c.version("a").await?, Some((7, true)), "an entry went back");
    Ok(())
}

async fn invalidated_entries_are_gone(fixture: &Fixture) -> Verdict {
    let mut c = Cached::new(fixture).await?;
    let (a1, b2) = (c.put("a"), c.put("b"));
    c.follow(&[Arc::clone(&a1), Arc::clone(&b2)], 0, 2).await?;
    check_eq!(c.fill(&a1, 2).await?, Filled::Stored, "fill");
    check_eq!(c.fill(&b2, 2).await?, Filled::Stored, "fill of another");
    c.cache.invalidate(&c.entity, &[Sample::key("a"), Sample::key("unknown")]).await?;
    check_eq!(c.version("a").await?, None, "it is still found");
    check_eq!(c.version("b").await?, Some((2, true)), "another one");
    let found = c.look("a").await?;
    check_eq!((found.applied.as_u64(), found.epoch), (2, c.epoch), "the life");
    check_eq!(c.fill(&a1, 0).await?, Filled::Outdated, "what was read before the last change");
    check_eq!(c.fill(&a1, 2).await?, Filled::Stored, "what was read after it");
    check_eq!(c.version("a").await?, Some((1, true)), "it can come back");
    c.cache.invalidate(&c.entity, &[]).await?;
    c.cache.invalidate(&Sample::order(), &[Sample::key("a")]).await?;
    Ok(())
}

async fn the_life_goes_on(fixture: &Fixture) -> Verdict {
    let mut c = Cached::new(fixture).await?;
    let order = Sample::order();
    check_eq!(c.cache.join(&order, LOG).await?, None, "a life that nobody began");
    let a1 = c.put("a");
    check_eq!(c.fill(&a1, 1).await?, Filled::Stored, "fill");
    let (zero, two) = (Position::ZERO, Position::new(2)?);
    c.cache.follow(&c.entity, &[a1], zero, two, c.expires()).await?;
    let life = Life { epoch: c.epoch, applied: two };
    check_eq!(c.cache.join(&c.entity, LOG).await?, Some(life), "the life");
    check_eq!(c.version("a").await?, Some((1, true)), "what was filled before it was joined");
    check_eq!(c.cache.join(&c.entity, Uuid::nil()).await?, None, "a life of another log");
    let epoch = c.cache.restart(&c.entity, Uuid::nil(), zero).await?;
    check_eq!(c.cache.join(&c.entity, LOG).await?, None, "the log that it followed before");
    let life = Life { epoch, applied: zero };
    check_eq!(c.cache.join(&c.entity, Uuid::nil()).await?, Some(life), "the new life");
    Ok(())
}

async fn restart_empties(fixture: &Fixture) -> Verdict {
    let mut c = Cached::new(fixture).await?;
    let order = Sample::order();
    let order_epoch = c.cache.restart(&order, LOG, Position::ZERO).await?;
    let a1 = c.put("a");
    check_eq!(c.fill(&a1, 1).await?, Filled::Stored, "fill");
    let other = Sample::record(&order, &json!({"id": "a"}));
    let other = c.changes.put(&order, other);
    let filled =
        c.cache.fill(&order, &other.key, c.entry(&other), Position::new(2)?, order_epoch).await?;
    check_eq!(filled, Filled::Stored, "fill of another entity");
    let mut epochs = vec![c.epoch];
    for at in [9, 3] {
        let epoch = c.cache.restart(&c.entity, LOG, Position::new(at)?).await?;
        check!(!epochs.contains(&epoch), "epoch {epoch} was used before");
        epochs.push(epoch);
        let found = c.look("a").await?;
        check!(found.entry.is_none(), "an entry survived the restart");
        check_eq!((found.applied.as_u64(), found.epoch), (at, epoch), "the new life");
    }
    let found = c.cache.lookup(&order, &other.key, c.now).await?;
    check!(found.entry.is_some(), "an entry of another entity did not survive");
    Ok(())
}
