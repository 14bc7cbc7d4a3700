//! The follower role. Order makes a batch safe to interrupt anywhere: archive, records, checkpoint; each durable before
//! the next begins.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use unisono_core::source::{Advance, Applied, Batch, Checkpoint, Follower, Outcome};
use unisono_core::{Change, Effect, Entity, Error, ErrorKind, Key, Operation, Result, Version};

use crate::codec;
use crate::parallel::each;
use crate::place::Place;
use crate::source::FilesSource;
use crate::store::{Staged, Tag};

/// How often a key is tried that another writer changes meanwhile.
const ROUNDS: usize = 5;

#[async_trait]
impl Follower for FilesSource {
    async fn apply(&self, batch: Batch) -> Result<Applied> {
        let entity = Arc::clone(&batch.entity);
        self.at("apply", &entity, move |place, _| apply(place, &batch)).await
    }

    async fn checkpoint(&self, entity: &Arc<Entity>) -> Result<Option<Checkpoint>> {
        self.at("checkpoint", entity, |place, _| place.checkpoint()).await
    }

    async fn reset(&self, entity: &Arc<Entity>) -> Result<()> {
        self.at("reset", entity, |place, _| place.write(Place::reset)).await
    }
}

/// Takes in a batch durably.
pub(crate) fn apply(place: &Place, batch: &Batch) -> Result<Applied> {
    place.write(|place| {
        let seen = match &batch.advance {
            Some(advance) => check_checkpoint(place, advance)?,
            None => Tag::Absent,
        };
        take_in(place, batch, &seen).map_err(|e| e.effect(Effect::Unknown))
    })
}

/// The state of the checkpoint's file, if the checkpoint is where the batch begins.
fn check_checkpoint(place: &Place, advance: &Advance) -> Result<Tag> {
    let (stored, tag) = place.tagged_checkpoint()?;
    if stored == advance.from {
        return Ok(tag);
    }
    let show =
        |c: &Option<Checkpoint>| c.as_ref().map_or("none".to_owned(), |c| c.position.to_string());
    Err(Error::new(ErrorKind::CheckpointMoved, "the checkpoint is not where the batch begins")
        .with("expected", show(&advance.from))
        .with("actual", show(&stored)))
}

fn take_in(place: &Place, batch: &Batch, seen: &Tag) -> Result<Applied> {
    if let (Some(archive), Some(advance), false) = (&place.archive, &batch.advance, batch.copied) {
        archive.append(&*place.store, &batch.entity, &batch.changes, advance)?;
    }
    let (mut outcomes, last) = decide(place, batch, &batch.changes)?;
    let staged = stage(place, &batch.entity, &last)?;
    // Only deletions of earlier batches: this one's are remembered until the checkpoint moves again.
    let outlived = batch.advance.as_ref().map_or_else(Vec::new, |a| outlived_deletions(place, a));
    let advance = {
        let _alone = place.show();
        let mut lost = publish(place, &staged, &last)?;
        for _ in 0..ROUNDS {
            if lost.is_empty() {
                break;
            }
            lost = publish_again(place, batch, &lost, &mut outcomes)?;
        }
        give_up(batch, &lost, &mut outcomes);
        let advance = batch.advance.as_ref().filter(|_| outcomes.iter().all(is_settled));
        if let Some(advance) = advance {
            place.save_checkpoint(&advance.to, seen)?;
        }
        advance
    };
    if advance.is_some() {
        let (_, writers) = place.store.parallel();
        each(&outlived, writers, |(key, version)| {
            forget_deletion(place, &batch.entity, key, *version)
        })?;
    }
    Ok(Applied { outcomes, advanced: advance.is_some() })
}

fn is_settled(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Applied | Outcome::Stale)
}

/// What a batch brings for one key.
struct News {
    /// The newest state.
    change: Arc<Change>,
    /// The state of the file over which it is written.
    seen: Tag,
}

/// By key.
type Last = BTreeMap<Key, News>;

/// What becomes of each of the changes, and the last state of each key that has a newer one.
fn decide(place: &Place, batch: &Batch, changes: &[Arc<Change>]) -> Result<(Vec<Outcome>, Last)> {
    let mut newest = BTreeMap::new();
    for change in changes {
        let position = newest.entry(&change.key).or_insert(change.position);
        *position = change.position.max(*position);
    }
    let newest: Vec<(&Key, Version)> = newest.into_iter().collect();
    let (readers, _) = place.store.parallel();
    let is_first_copy = batch.copied && batch.advance.is_some();
    let look =
        |(key, news): &(&Key, Version)| place.version(&batch.entity, key, *news, is_first_copy);
    let found = each(&newest, readers, look)?;
    let (mut versions, mut seen) = (BTreeMap::new(), BTreeMap::new());
    for ((key, _), (version, tag)) in newest.into_iter().zip(found) {
        versions.extend(version.map(|version| (key, version)));
        seen.insert(key, tag);
    }
    let mut last = Last::new();
    let mut outcomes = Vec::with_capacity(changes.len());
    for change in changes {
        let outcome = if change.image.is_some() != (change.operation == Operation::Put) {
            Outcome::Rejected(
                Error::internal("a put has an image and a delete has none")
                    .with("key", &change.key),
            )
        } else if is_news(place, batch, change, versions.get(&change.key).copied())? {
            versions.insert(&change.key, change.position);
            let seen = seen.get(&change.key).cloned().unwrap_or(Tag::Absent);
            last.insert(change.key.clone(), News { change: Arc::clone(change), seen });
            Outcome::Applied
        } else {
            Outcome::Stale
        };
        outcomes.push(outcome);
    }
    Ok((outcomes, last))
}

/// Whether a change says something that the files do not have. A state read from the truth also replaces a file of
/// the same version that somebody changed by hand.
fn is_news(place: &Place, batch: &Batch, change: &Change, known: Option<Version>) -> Result<bool> {
    match known {
        Some(known) if known == change.position && batch.copied => {
            let found = place.store.read(&codec::path(place.records(), &change.key))?;
            let wanted = codec::encode(&batch.entity, change);
            Ok(found.is_none_or(|found| found.content != wanted))
        }
        Some(known) => Ok(known < change.position),
        None => Ok(true),
    }
}

fn stage(place: &Place, entity: &Entity, last: &Last) -> Result<Vec<Staged>> {
    let shards: BTreeSet<String> = last.keys().map(codec::shard).collect();
    for shard in &shards {
        place.store.create_folder(&place.records().join(shard))?;
    }
    let changes: Vec<&Arc<Change>> = last.values().map(|news| &news.change).collect();
    let (_, writers) = place.store.parallel();
    each(&changes, writers, |change| {
        let path = codec::path(place.records(), &change.key);
        place.store.stage(path, codec::encode(entity, change))
    })
}

/// Gives the files their names, durably; answers the keys that another writer has changed since they were looked at.
/// The caller keeps readers away.
fn publish(place: &Place, staged: &[Staged], last: &Last) -> Result<BTreeSet<Key>> {
    let (_, writers) = place.store.parallel();
    let files: Vec<_> = staged.iter().zip(last.values()).collect();
    let done = each(&files, writers, |(file, news)| place.store.publish(file, &news.seen))?;
    let folders: BTreeSet<_> = staged.iter().filter_map(|file| file.path.parent()).collect();
    let folders: Vec<_> = folders.into_iter().collect();
    each(&folders, writers, |folder| place.store.sync_folder(folder))?;
    place.add_keys(last.keys());
    let mut lost = BTreeSet::new();
    let mut deletions = place.deletions();
    for ((key, news), state) in last.iter().zip(done) {
        let done = state.is_some();
        place.remember(key, state.map(|tag| (news.change.position, tag)));
        match news.change.operation {
            _ if !done => _ = lost.insert(key.clone()),
            Operation::Delete => _ = deletions.insert(key.clone(), news.change.position),
            Operation::Put => _ = deletions.remove(key),
        }
    }
    Ok(lost)
}

/// Decides once more about keys at which another writer was faster: what it wrote may be newer, or older.
fn publish_again(
    place: &Place,
    batch: &Batch,
    lost: &BTreeSet<Key>,
    outcomes: &mut [Outcome],
) -> Result<BTreeSet<Key>> {
    let places: Vec<usize> = of_keys(batch, lost).collect();
    let changes: Vec<_> =
        places.iter().filter_map(|n| batch.changes.get(*n)).map(Arc::clone).collect();
    let (decided, last) = decide(place, batch, &changes)?;
    for (n, outcome) in places.into_iter().zip(decided) {
        if let Some(place) = outcomes.get_mut(n) {
            *place = outcome;
        }
    }
    publish(place, &stage(place, &batch.entity, &last)?, &last)
}

/// The places in a batch of the changes of some keys.
fn of_keys(batch: &Batch, keys: &BTreeSet<Key>) -> impl Iterator<Item = usize> {
    let changes = batch.changes.iter().enumerate();
    changes.filter(|(_, change)| keys.contains(&change.key)).map(|(n, _)| n)
}

fn give_up(batch: &Batch, lost: &BTreeSet<Key>, outcomes: &mut [Outcome]) {
    for n in of_keys(batch, lost) {
        if let Some(place) = outcomes.get_mut(n) {
            let error =
                Error::new(ErrorKind::Unavailable, "other writers change the record all the time");
            *place = Outcome::Retry(error);
        }
    }
}

/// Remembered deletions that nothing older can follow once the checkpoint has moved. While the first copy is being
/// made, older states may still arrive.
fn outlived_deletions(place: &Place, advance: &Advance) -> Vec<(Key, Version)> {
    if advance.to.backfill.is_some() {
        return Vec::new();
    }
    let deletions = place.deletions();
    let outlived = deletions.iter().filter(|(_, version)| **version <= advance.to.position);
    outlived.map(|(key, version)| (key.clone(), *version)).collect()
}

fn forget_deletion(place: &Place, entity: &Entity, key: &Key, version: Version) -> Result<()> {
    let (head, _) = place.head(entity, key)?;
    if head.is_some_and(|head| head.deleted && head.version == version) {
        place.store.remove(&codec::path(place.records(), key))?;
        place.remember(key, None);
    }
    let mut deletions = place.deletions();
    if deletions.get(key) == Some(&version) {
        deletions.remove(key);
    }
    Ok(())
}
