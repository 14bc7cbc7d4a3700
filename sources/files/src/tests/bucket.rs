//! The layout in a bucket, over a store in memory: the same as on a disk, and safe from other writers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::runtime::Runtime;
use unisono_core::query::Filter;
use unisono_core::source::{Advance, Checkpoint, Outcome};
use unisono_core::{ErrorKind, Position, Uuid};

use super::{archived, at, batch, checkpoint, copied, delete, entity, put, versions};
use crate::archive::{Archive, read_in};
use crate::bucket::Bucket;
use crate::follower::apply;
use crate::place::Place;
use crate::reader::matching;
use crate::store::{Store, Tag};

/// A bucket in memory.
struct World {
    objects: Arc<InMemory>,
    runtime: Runtime,
}

impl World {
    fn new() -> World {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build();
        World { objects: Arc::new(InMemory::new()), runtime: runtime.unwrap() }
    }

    fn store(&self) -> Arc<dyn Store> {
        let objects: Arc<dyn ObjectStore> = Arc::clone(&self.objects) as _;
        Arc::new(Bucket::new(objects, self.runtime.handle().clone()))
    }

    /// As another process would see it.
    fn place(&self) -> Place {
        Place::new(PathBuf::from("shop/product"), self.store(), true)
    }

    fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        self.runtime.block_on(async {
            let all: Vec<_> = self.objects.list(None).try_collect().await.unwrap();
            let mut contents = BTreeMap::new();
            for object in all {
                let content = self.objects.get(&object.location).await.unwrap();
                let content = content.bytes().await.unwrap();
                contents.insert(object.location.to_string(), content.to_vec());
            }
            contents
        })
    }

    /// Makes the bucket what it was.
    fn restore(&self, contents: BTreeMap<String, Vec<u8>>) {
        self.runtime.block_on(async {
            let all: Vec<_> = self.objects.list(None).try_collect().await.unwrap();
            for object in all {
                self.objects.delete(&object.location).await.unwrap();
            }
            for (name, content) in contents {
                self.objects.put(&name.into(), content.into()).await.unwrap();
            }
        });
    }

    fn archived(&self) -> Vec<u64> {
        let entries = read_in(self.store(), Path::new("shop/product/log"), Position::ZERO).unwrap();
        entries.map(|entry| entry.unwrap().position.as_u64()).collect()
    }
}

fn files_below(folder: &Path, name: &str, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(folder).unwrap().map(|e| e.unwrap()) {
        let name = format!("{name}/{}", entry.file_name().to_str().unwrap());
        if entry.path().is_dir() {
            files_below(&entry.path(), &name, found);
        } else {
            found.insert(name, std::fs::read(entry.path()).unwrap());
        }
    }
}

#[test]
fn a_bucket_has_the_layout_of_a_disk() {
    let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
    let (bucket, disk) = (world.place(), super::place(&folder.path().join("product")));
    let long = "k".repeat(300);
    let batches = [
        batch(0, 4, vec![put(1, "a"), put(2, "A/1 é%"), put(3, &long), put(4, "con")]),
        batch(4, 6, vec![delete(5, "a"), put(6, "b")]),
        batch(6, 7, vec![delete(7, "b")]),
        copied(vec![put(6, "c")]),
    ];
    for batch in &batches {
        let outcomes = |place: &Place| format!("{:?}", apply(place, batch).unwrap().outcomes);
        assert_eq!(outcomes(&bucket), outcomes(&disk));
    }
    assert_eq!(versions(&bucket), versions(&disk));
    assert_eq!(bucket.checkpoint().unwrap(), Some(checkpoint(7)));
    assert_eq!(world.archived(), archived(&folder.path().join("product")));
    let mut on_disk = BTreeMap::new();
    files_below(folder.path(), "shop", &mut on_disk);
    let mut in_bucket = world.contents();
    // Which life of the records it is differs, and only a disk has a lock.
    for unlike in [".lock", "checkpoint.json", "records/.incarnation"] {
        let name = format!("shop/product/{unlike}");
        assert_eq!(
            on_disk.remove(&name).is_some(),
            in_bucket.remove(&name).is_some() || unlike == ".lock"
        );
    }
    assert_eq!(in_bucket, on_disk);
}

#[test]
fn a_question_sees_what_others_have_changed_since_the_last() {
    let world = World::new();
    let (asked, theirs) = (world.place(), world.place());
    let found = || {
        let all = matching(&asked, &entity(), &Filter::All).unwrap().value;
        let mut all: Vec<_> = all.iter().map(|s| (s.key.to_string(), s.version.as_u64())).collect();
        all.sort();
        all.iter().map(|(key, version)| format!("{key}{version}")).collect::<Vec<_>>().join(" ")
    };
    apply(&theirs, &batch(0, 2, vec![put(1, "a"), put(2, "b")])).unwrap();
    assert_eq!(found(), "a1 b2");
    assert_eq!(found(), "a1 b2");
    apply(&theirs, &batch(2, 5, vec![put(3, "b"), put(4, "c"), delete(5, "a")])).unwrap();
    assert_eq!(found(), "b3 c4");
    for (name, _) in world.contents().iter().filter(|(name, _)| name.contains("/b.json")) {
        theirs.store.remove(Path::new(name)).unwrap();
    }
    assert_eq!(found(), "c4");
}

#[test]
fn of_writers_that_race_the_newest_wins() {
    for round in 0..30 {
        let world = World::new();
        // The folder is there, so that they meet at the records.
        apply(&world.place(), &copied(vec![put(1, "other")])).unwrap();
        std::thread::scope(|scope| {
            for n in 2..8 {
                let place = world.place();
                scope.spawn(move || {
                    let changes =
                        vec![put(n, "a"), if n % 2 == 0 { put(n, "b") } else { delete(n, "b") }];
                    for outcome in apply(&place, &copied(changes)).unwrap().outcomes {
                        assert!(
                            matches!(outcome, Outcome::Applied | Outcome::Stale),
                            "{outcome:?}"
                        );
                    }
                });
            }
        });
        let found = versions(&world.place());
        assert_eq!(found, [("a".to_owned(), 7), ("other".to_owned(), 1)], "round {round}");
    }
}

#[test]
fn of_writers_that_race_one_moves_the_checkpoint() {
    for _ in 0..30 {
        let world = World::new();
        apply(&world.place(), &batch(0, 1, vec![put(1, "a")])).unwrap();
        let moved: Vec<u64> = std::thread::scope(|scope| {
            let writers: Vec<_> = (2..8)
                .map(|n| {
                    let place = world.place();
                    scope.spawn(move || match apply(&place, &batch(1, n, vec![])) {
                        Ok(applied) => applied.advanced.then_some(n),
                        Err(e) if e.kind() == ErrorKind::CheckpointMoved => None,
                        Err(e) => panic!("{e:?}"),
                    })
                })
                .collect();
            writers.into_iter().filter_map(|w| w.join().unwrap()).collect()
        });
        let [winner] = moved[..] else { panic!("{moved:?} all moved the checkpoint") };
        assert_eq!(world.place().checkpoint().unwrap(), Some(checkpoint(winner)));
    }
}

#[test]
fn an_overtaken_writer_takes_nothing_from_the_archive() {
    let world = World::new();
    apply(&world.place(), &batch(0, 2, vec![put(1, "a"), put(2, "b")])).unwrap();
    apply(&world.place(), &batch(2, 4, vec![put(3, "a"), put(4, "b")])).unwrap();
    // It had looked at the checkpoint before the others moved it on.
    let late = batch(0, 1, vec![put(1, "a")]);
    let archive = Archive::new(PathBuf::from("shop/product/log"));
    archive.append(&*world.store(), &late.entity, &late.changes, &late.advance.unwrap()).unwrap();
    assert_eq!(world.archived(), [1, 2, 3, 4]);
    // Joining what overlaps, and clearing what is covered, loses nothing either.
    for n in 5..=70 {
        apply(&world.place(), &batch(n - 1, n, vec![put(n, "a")])).unwrap();
    }
    assert_eq!(world.archived(), (1..=70).collect::<Vec<_>>());
    assert!(world.contents().keys().filter(|name| name.ends_with(".zst")).count() <= 65);
}

#[test]
fn joining_keeps_a_segment_that_held_all_the_others() {
    let world = World::new();
    let all: Vec<u64> = (1..=70).collect();
    apply(&world.place(), &batch(0, 70, all.iter().map(|n| put(*n, "a")).collect())).unwrap();
    let archive = Archive::new(PathBuf::from("shop/product/log"));
    for n in 1..=70 {
        let late = batch(n - 1, n, vec![put(n, "a")]);
        let advance = late.advance.unwrap();
        archive.append(&*world.store(), &late.entity, &late.changes, &advance).unwrap();
        assert_eq!(world.archived(), all, "after {n}");
    }
}

#[test]
fn a_checkpoint_is_saved_only_over_the_one_that_was_seen() {
    let world = World::new();
    apply(&world.place(), &batch(0, 1, vec![put(1, "a")])).unwrap();
    let place = world.place();
    let (_, seen) = place.tagged_checkpoint().unwrap();
    apply(&world.place(), &batch(1, 5, vec![])).unwrap();
    let error = place.save_checkpoint(&checkpoint(3), &seen).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CheckpointMoved);
    assert_eq!(place.checkpoint().unwrap(), Some(checkpoint(5)));
    // The same checkpoint again is what a repeated request meets after its answer was lost.
    place.save_checkpoint(&checkpoint(5), &seen).unwrap();
}

#[test]
fn what_was_deleted_from_outside_takes_the_checkpoint_along() {
    let world = World::new();
    let place = world.place();
    apply(&place, &batch(0, 1, vec![put(1, "a")])).unwrap();
    world.store().remove_folder(Path::new("shop/product/records")).unwrap();
    assert_eq!(place.checkpoint().unwrap(), None);
    place.write(Place::reset).unwrap();
    apply(&place, &batch(0, 2, vec![put(2, "b")])).unwrap();
    assert_eq!(versions(&place), [("b".to_owned(), 2)]);
    assert_eq!(place.checkpoint().unwrap(), Some(checkpoint(2)));
}

#[test]
fn what_a_restored_bucket_has_lost_is_written_again() {
    let world = World::new();
    let place = world.place();
    apply(&place, &batch(0, 3, vec![put(1, "a"), put(2, "b"), put(3, "c")])).unwrap();
    let copy = world.contents();
    let lost = batch(3, 6, vec![put(4, "a"), put(5, "d"), delete(6, "b")]);
    apply(&place, &lost).unwrap();
    let whole = versions(&place);
    world.restore(copy);
    // The process has seen none of that, but for where the bucket is.
    assert_eq!(place.checkpoint().unwrap(), Some(checkpoint(3)));
    apply(&place, &lost).unwrap();
    assert_eq!(versions(&place), whole);
    assert_eq!(versions(&world.place()), whole);
}

#[test]
fn the_archive_of_another_log_is_set_aside() {
    let world = World::new();
    let place = world.place();
    apply(&place, &batch(0, 2, vec![put(1, "a"), put(2, "b")])).unwrap();
    place.write(Place::reset).unwrap();
    let mut other = batch(0, 1, vec![put(1, "z")]);
    let to = Checkpoint { log: Uuid::from_u128(8), position: at(1), backfill: None };
    other.advance = Some(Advance { from: None, to });
    apply(&place, &other).unwrap();
    assert_eq!(world.archived(), [1]);
    let aside = format!("shop/product/log-{}-0", super::LOG);
    let entries = read_in(world.store(), Path::new(&aside), Position::ZERO).unwrap();
    assert_eq!(entries.count(), 2);
}

#[test]
fn a_store_must_keep_conditions() {
    let world = World::new();
    let store = world.store();
    let path = Path::new("a/b");
    assert!(store.replace_if(path, b"1", &Tag::Absent).unwrap());
    assert!(!store.replace_if(path, b"2", &Tag::Absent).unwrap(), "made twice");
    let seen = store.read(path).unwrap().unwrap().tag;
    store.replace(path, b"3").unwrap();
    assert!(!store.replace_if(path, b"4", &seen).unwrap(), "written over another state");
    assert_eq!(store.read(path).unwrap().unwrap().content, b"3");
    let objects: Arc<dyn ObjectStore> = Arc::clone(&world.objects) as _;
    let bucket = Bucket::new(objects, world.runtime.handle().clone());
    for _ in 0..2 {
        bucket.check(Path::new("shop")).unwrap();
    }
}
