//! The follower role. Order makes a batch safe to interrupt anywhere: archive, records, checkpoint; each durable before
//! the next begins.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use unisono_core::source::{Advance, Applied, Batch, Checkpoint, Follower, Outcome};
use unisono_core::{Change, Effect, Entity, Error, ErrorKind, Key, Operation, Result, Version};

use crate::codec;
use crate::disk;
use crate::parallel::{self, WRITERS, each};
use crate::place::Place;
use crate::source::FilesSource;

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
        if let Some(advance) = &batch.advance {
            check_checkpoint(place, advance)?;
        }
        take_in(place, batch).map_err(|e| e.effect(Effect::Unknown))
    })
}

fn check_checkpoint(place: &Place, advance: &Advance) -> Result<()> {
    let stored = place.checkpoint()?;
    if stored == advance.from {
        return Ok(());
    }
    let show =
        |c: &Option<Checkpoint>| c.as_ref().map_or("none".to_owned(), |c| c.position.to_string());
    Err(Error::new(ErrorKind::CheckpointMoved, "the checkpoint is not where the batch begins")
        .with("expected", show(&advance.from))
        .with("actual", show(&stored)))
}

fn take_in(place: &Place, batch: &Batch) -> Result<Applied> {
    if let (Some(archive), Some(advance), false) = (&place.archive, &batch.advance, batch.copied) {
        archive.append(&place.disk, &batch.entity, &batch.changes, advance)?;
    }
    let (outcomes, last) = decide(place, batch)?;
    let staged = stage(place, &batch.entity, &last)?;
    let advance = batch.advance.as_ref().filter(|_| outcomes.iter().all(is_settled));
    // Only deletions of earlier batches: this one's are remembered until the checkpoint moves again.
    let outlived = advance.map_or_else(Vec::new, |advance| outlived_deletions(place, advance));
    {
        let _alone = place.show();
        publish(place, &staged, &last)?;
        if let Some(advance) = advance {
            place.save_checkpoint(&advance.to)?;
        }
    }
    for (key, version) in outlived {
        forget_deletion(place, &batch.entity, &key, version)?;
    }
    Ok(Applied { outcomes, advanced: advance.is_some() })
}

fn is_settled(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Applied | Outcome::Stale)
}

/// The newest state of each key that a batch brings.
type Last = BTreeMap<Key, Arc<Change>>;

/// What becomes of each change, and the last state of each key that has a newer one.
fn decide(place: &Place, batch: &Batch) -> Result<(Vec<Outcome>, Last)> {
    let keys: Vec<&Key> =
        batch.changes.iter().map(|c| &c.key).collect::<BTreeSet<_>>().into_iter().collect();
    let heads = each(&keys, parallel::readers(), |key| place.head(&batch.entity, key))?;
    let mut versions: BTreeMap<&Key, Version> =
        keys.into_iter().zip(heads).filter_map(|(key, head)| Some((key, head?.version))).collect();
    let mut last = Last::new();
    let mut outcomes = Vec::with_capacity(batch.changes.len());
    for change in &batch.changes {
        let outcome = if change.image.is_some() != (change.operation == Operation::Put) {
            Outcome::Rejected(
                Error::internal("a put has an image and a delete has none")
                    .with("key", &change.key),
            )
        } else if is_news(place, batch, change, versions.get(&change.key).copied())? {
            versions.insert(&change.key, change.position);
            last.insert(change.key.clone(), Arc::clone(change));
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
            let content = disk::read(&codec::path(place.records(), &change.key))?;
            Ok(content.as_deref() != Some(&codec::encode(&batch.entity, change)))
        }
        Some(known) => Ok(known < change.position),
        None => Ok(true),
    }
}

/// A file that is complete and durable, but not yet visible.
struct Staged {
    temporary: PathBuf,
    path: PathBuf,
}

fn stage(place: &Place, entity: &Entity, last: &Last) -> Result<Vec<Staged>> {
    let shards: BTreeSet<String> = last.keys().map(codec::shard).collect();
    for shard in &shards {
        place.disk.create_folder(&place.records().join(shard))?;
    }
    let changes: Vec<&Arc<Change>> = last.values().collect();
    each(&changes, WRITERS, |change| {
        let path = codec::path(place.records(), &change.key);
        let temporary = place.disk.temporary(&place.records().join(codec::shard(&change.key)));
        place.disk.write(&temporary, &codec::encode(entity, change))?;
        Ok(Staged { temporary, path })
    })
}

/// Gives the files their names, durably. The caller keeps readers away.
fn publish(place: &Place, staged: &[Staged], last: &Last) -> Result<()> {
    each(staged, WRITERS, |file| place.disk.rename(&file.temporary, &file.path))?;
    let folders: BTreeSet<_> = staged.iter().filter_map(|file| file.path.parent()).collect();
    let folders: Vec<_> = folders.into_iter().collect();
    each(&folders, WRITERS, |folder| place.disk.sync_folder(folder))?;
    place.add_keys(last.keys());
    let mut deletions = place.deletions();
    for change in last.values() {
        match change.operation {
            Operation::Delete => deletions.insert(change.key.clone(), change.position),
            Operation::Put => deletions.remove(&change.key),
        };
    }
    Ok(())
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
    if place.head(entity, key)?.is_some_and(|head| head.deleted && head.version == version) {
        place.disk.remove(&codec::path(place.records(), key))?;
    }
    let mut deletions = place.deletions();
    if deletions.get(key) == Some(&version) {
        deletions.remove(key);
    }
    Ok(())
}
