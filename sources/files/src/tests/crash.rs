//! Death at every step: what is found afterwards is the old or the new, never half, and a replay completes it.

use std::path::Path;

use unisono_core::source::{Batch, Outcome};

use super::{Step, archived, batch, checkpoint, copied, delete, place, put, versions};
use crate::follower::apply;
use crate::place::Place;

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(|e| e.unwrap()) {
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// Runs `work` on copies of `start`, killed after 0, 1, 2, … steps until it lives, and hands each dead folder over.
fn kill_at_every_step(start: &Path, work: impl Fn(&Place) -> bool, check: impl Fn(&Path, usize)) {
    for steps in 0.. {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("product");
        copy(start, &folder);
        let victim = place(&folder);
        victim.store.probe_of_tests().die_after(steps);
        let lived = work(&victim);
        drop(victim);
        check(&folder, steps);
        if lived {
            assert!(steps > 3, "the work has steps");
            return;
        }
    }
}

fn leftovers(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap());
    let count = |e: std::fs::DirEntry| {
        let own = usize::from(e.file_name().to_str().unwrap().starts_with(".tmp-"));
        own + if e.path().is_dir() { leftovers(&e.path()) } else { 0 }
    };
    entries.map(count).sum()
}

#[test]
fn a_batch_that_dies_anywhere_is_completed_by_its_replay() {
    let start = tempfile::tempdir().unwrap();
    let start = start.path().join("product");
    let first =
        batch(0, 5, vec![put(1, "a"), put(2, "b"), put(3, "c"), delete(4, "c"), put(5, "d")]);
    apply(&place(&start), &first).unwrap();
    let changes = || {
        vec![put(7, "a"), put(8, "e"), put(9, "a"), delete(10, "b"), put(11, "f"), delete(12, "f")]
    };
    let second = || batch(5, 12, changes());
    let (old, new) = (versions(&place(&start)), vec![("a", 9), ("d", 5), ("e", 8)]);
    let new: Vec<(String, u64)> = new.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    kill_at_every_step(
        &start,
        |place| apply(place, &second()).is_ok(),
        |folder, steps| {
            let found = place(folder);
            let stored = found.checkpoint().unwrap().unwrap();
            let records = versions(&found);
            for record in &records {
                assert!(
                    old.contains(record) || new.contains(record),
                    "{record:?} after {steps} steps"
                );
            }
            if stored == checkpoint(12) {
                assert_eq!(
                    records, new,
                    "the checkpoint moved before the data, after {steps} steps"
                );
            } else {
                assert_eq!(stored, checkpoint(5), "after {steps} steps");
                let applied = apply(&found, &second()).unwrap();
                assert!(applied.advanced);
            }
            assert_eq!(versions(&found), new, "after {steps} steps");
            apply(&found, &batch(12, 13, vec![put(13, "g")])).unwrap();
            assert_eq!(archived(folder), [1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13], "{steps}");
            assert_eq!(leftovers(folder), 0, "after {steps} steps");
        },
    );
}

#[test]
fn a_reset_that_dies_anywhere_leaves_everything_or_no_checkpoint() {
    let start = tempfile::tempdir().unwrap();
    let start = start.path().join("product");
    apply(&place(&start), &batch(0, 2, vec![put(1, "a"), put(2, "b")])).unwrap();
    kill_at_every_step(
        &start,
        |place| place.write(Place::reset).is_ok(),
        |folder, steps| {
            let found = place(folder);
            match found.checkpoint().unwrap() {
                Some(stored) => {
                    assert_eq!(stored, checkpoint(2));
                    assert_eq!(versions(&found).len(), 2, "after {steps} steps");
                }
                None => assert_eq!(versions(&found), [], "after {steps} steps"),
            }
            if found.checkpoint().unwrap().is_none() {
                apply(&found, &batch(0, 3, vec![put(3, "c")])).unwrap();
                assert_eq!(versions(&found), [("c".to_owned(), 3)]);
                assert_eq!(leftovers(folder), 0);
            }
        },
    );
}

#[test]
fn joining_segments_that_dies_anywhere_loses_and_doubles_nothing() {
    let start = tempfile::tempdir().unwrap();
    let start = start.path().join("product");
    let writer = place(&start);
    for n in 1..=65 {
        apply(&writer, &batch(n - 1, n, vec![put(n, "a")])).unwrap();
    }
    drop(writer);
    let all: Vec<u64> = (1..=66).collect();
    let next: fn() -> Batch = || batch(65, 66, vec![put(66, "a")]);
    kill_at_every_step(
        &start,
        |place| apply(place, &next()).is_ok(),
        |folder, steps| {
            assert_eq!(archived(folder)[..65], all[..65], "before the replay, after {steps} steps");
            let found = place(folder);
            if found.checkpoint().unwrap() == Some(checkpoint(65)) {
                apply(&found, &next()).unwrap();
            }
            assert_eq!(archived(folder), all, "after {steps} steps");
            assert!(std::fs::read_dir(folder.join("log")).unwrap().count() <= 5);
        },
    );
}

/// With the loss of power, only what was synchronised counts: contents before their names, names before the checkpoint.
#[test]
fn everything_is_durable_before_the_checkpoint_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("product");
    let place = place(&folder);
    apply(&place, &batch(0, 3, vec![put(1, "a"), put(2, "b"), delete(3, "a")])).unwrap();
    let steps = place.store.probe_of_tests().take();
    let is_synced = |path: &Path, range: &[Step]| range.contains(&Step::Sync(path.to_owned()));
    let last = steps
        .iter()
        .rposition(|s| matches!(s, Step::Rename(_, to) if to.ends_with("checkpoint.json")))
        .unwrap();
    for (n, step) in steps.iter().enumerate() {
        match step {
            Step::Rename(from, to) => {
                let written = steps.iter().position(|s| s == &Step::Write(from.clone())).unwrap();
                assert!(
                    is_synced(from, &steps[written..n]),
                    "{from:?} was renamed before it was durable"
                );
                let until = if n == last { steps.len() } else { last };
                assert!(
                    is_synced(to.parent().unwrap(), &steps[n..until]),
                    "the name {to:?} is not durable"
                );
            }
            Step::CreateFolder(path) if n < last => {
                assert!(
                    is_synced(path.parent().unwrap(), &steps[n..last]),
                    "{path:?} is not durable"
                );
            }
            _ => {}
        }
    }
    assert!(steps.len() > 20);
}

#[test]
fn a_writer_that_failed_goes_on_when_the_disk_does() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(&folder.path().join("product"));
    apply(&place, &batch(0, 1, vec![put(1, "a")])).unwrap();
    for steps in 1..8 {
        place.store.probe_of_tests().die_after(steps);
        apply(&place, &batch(1, 3, vec![put(2, "b"), put(3, "c")])).unwrap_err();
    }
    place.store.probe_of_tests().die_after(usize::MAX);
    let applied = apply(&place, &batch(1, 3, vec![put(2, "b"), put(3, "c")])).unwrap();
    assert!(
        applied.advanced
            && applied.outcomes.iter().all(|o| matches!(o, Outcome::Applied | Outcome::Stale))
    );
    assert_eq!(leftovers(place.folder()), 0);
    assert_eq!(archived(place.folder()), [1, 2, 3]);
    assert!(!apply(&place, &copied(vec![put(3, "c")])).unwrap().advanced);
}
