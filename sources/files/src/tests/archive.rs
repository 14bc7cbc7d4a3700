//! The archive: complete, in order, without doubles, whatever is replayed.

use std::path::Path;

use unisono_core::Position;
use unisono_core::Uuid;
use unisono_core::source::{Advance, Checkpoint};

use super::{archived, at, batch, checkpoint, copied, delete, entity, place, put, versions};
use crate::archive::read;
use crate::follower::apply;
use crate::store::Tag;

fn segment_count(folder: &Path) -> usize {
    let names = std::fs::read_dir(folder.join("log")).unwrap().map(|e| e.unwrap().file_name());
    names.filter(|name| name.to_str().unwrap().ends_with(".jsonl.zst")).count()
}

#[test]
fn entries_are_the_changes_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(folder.path());
    let changes = vec![put(1, "a"), put(2, "b"), put(3, "a"), delete(4, "a")];
    apply(&place, &batch(0, 4, changes.clone())).unwrap();
    let log = folder.path().join("log");
    let back: Vec<_> = read(&log, Position::ZERO)
        .unwrap()
        .map(|e| e.unwrap().change(&entity()).unwrap())
        .collect();
    assert_eq!(back, changes.iter().map(|c| c.as_ref().clone()).collect::<Vec<_>>());
    assert_eq!(read(&log, at(2)).unwrap().count(), 2);
    assert_eq!(read(&log, at(4)).unwrap().count(), 0);
    assert_eq!(read(&folder.path().join("nowhere"), Position::ZERO).unwrap().count(), 0);
    assert!(log.join("00000000000000000001-00000000000000000004.jsonl.zst").exists());
}

#[test]
fn copies_of_the_truth_are_not_news() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(folder.path());
    apply(&place, &copied(vec![put(1, "a")])).unwrap();
    let mut backfill = batch(0, 3, vec![put(2, "b")]);
    backfill.copied = true;
    apply(&place, &backfill).unwrap();
    assert_eq!(versions(&place).len(), 2);
    assert_eq!(archived(folder.path()), [0; 0]);
}

#[test]
fn a_checkpoint_that_went_back_cuts_the_archive_inside_a_segment() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(folder.path());
    apply(&place, &batch(0, 10, (1..=10).map(|n| put(n, "a")).collect())).unwrap();
    place.save_checkpoint(&checkpoint(4), &Tag::Locked).unwrap();
    let applied = apply(&place, &batch(4, 8, (5..=8).map(|n| put(n, "a")).collect())).unwrap();
    assert!(applied.advanced, "older versions are settled");
    assert_eq!(archived(folder.path()), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(versions(&place), [("a".to_owned(), 10)]);
}

#[test]
fn many_small_segments_become_few() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(folder.path());
    for n in 1..=200 {
        apply(&place, &batch(n - 1, n, vec![put(n, "a")])).unwrap();
        assert!(segment_count(folder.path()) <= 65);
    }
    assert_eq!(archived(folder.path()), (1..=200).collect::<Vec<_>>());
}

#[test]
fn a_rebuild_from_the_start_writes_the_archive_again() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(folder.path());
    apply(&place, &batch(0, 2, vec![put(1, "a"), put(2, "b")])).unwrap();
    place.write(crate::place::Place::reset).unwrap();
    assert_eq!(archived(folder.path()), [1, 2], "a reset keeps what was archived");
    apply(&place, &batch(0, 3, vec![put(1, "a"), put(2, "b"), put(3, "c")])).unwrap();
    assert_eq!(archived(folder.path()), [1, 2, 3]);
}

#[test]
fn a_first_copy_after_a_loss_does_not_take_the_archive_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(folder.path());
    apply(&place, &batch(0, 2, vec![put(1, "a"), put(2, "b")])).unwrap();
    std::fs::remove_dir_all(folder.path().join("records")).unwrap();
    let copying =
        Checkpoint { log: super::LOG, position: Position::ZERO, backfill: Some(String::new()) };
    let mut step = batch(0, 0, vec![put(2, "b")]);
    step.copied = true;
    step.advance = Some(Advance { from: None, to: copying.clone() });
    apply(&place, &step).unwrap();
    let mut step = batch(0, 5, vec![]);
    step.advance = Some(Advance { from: Some(copying), to: checkpoint(5) });
    apply(&place, &step).unwrap();
    apply(&place, &batch(5, 6, vec![put(6, "a")])).unwrap();
    assert_eq!(archived(folder.path()), [1, 2, 6]);
}

#[test]
fn the_archive_of_another_log_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(folder.path());
    apply(&place, &batch(0, 2, vec![put(1, "a"), put(2, "b")])).unwrap();
    place.write(crate::place::Place::reset).unwrap();
    let mut other = batch(0, 1, vec![put(1, "z")]);
    let to = Checkpoint { log: Uuid::from_u128(8), position: at(1), backfill: None };
    other.advance = Some(Advance { from: None, to });
    apply(&place, &other).unwrap();
    assert_eq!(archived(folder.path()), [1]);
    let aside = folder.path().join(format!("log-{}-0", super::LOG));
    assert_eq!(read(&aside, Position::ZERO).unwrap().count(), 2);
}

#[test]
fn a_damaged_segment_is_an_error_and_not_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let place = place(folder.path());
    apply(&place, &batch(0, 9, (1..=9).map(|n| put(n, "a")).collect())).unwrap();
    let segment = folder.path().join("log/00000000000000000001-00000000000000000009.jsonl.zst");
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    std::fs::write(&segment, &bytes).unwrap();
    let entries: Vec<_> = read(&folder.path().join("log"), Position::ZERO).unwrap().collect();
    assert!(entries.last().unwrap().is_err(), "the damage is told");
    std::fs::write(&segment, &bytes[..middle]).unwrap();
    let entries: Vec<_> = read(&folder.path().join("log"), Position::ZERO).unwrap().collect();
    assert!(entries.last().unwrap().is_err(), "a cut file is told");
}
