//! Versions, checkpoints, and what happens when somebody deletes, replaces or damages the files.

use std::fs;
use std::slice::from_ref;
use std::sync::Arc;

use unisono_core::source::{Advance, Batch, Checkpoint};
use unisono_core::{Entity, ErrorKind, Field, FieldType, Key, Position, Record, Value};
use unisono_testkit::Sample;

use super::{Fed, other_log};

fn key(n: u32) -> Key {
    Sample::key(&format!("p{n}"))
}

#[tokio::test]
async fn an_older_change_changes_nothing_also_after_a_deletion_and_a_restart() {
    let entity = Sample::product();
    let mut fed = Fed::new(&entity).await;
    let old = fed.changes.put(&entity, Sample::product_record(1));
    let new = fed.changes.put(&entity, Sample::product_record(1));
    let gone = fed.changes.delete(&entity, &key(1));
    assert_eq!(fed.apply(from_ref(&new)).await, ["applied"]);
    assert_eq!(fed.apply(from_ref(&old)).await, ["stale"]);
    assert_eq!(fed.apply(from_ref(&new)).await, ["stale"]);
    assert_eq!(fed.get(&key(1)).await.unwrap().version, new.position);
    assert_eq!(fed.advance(from_ref(&gone), gone.position).await, ["applied"]);
    assert_eq!(fed.apply(&[new.clone(), gone.clone()]).await, ["stale", "stale"]);
    fed.reopen(&entity).await.unwrap();
    assert_eq!(fed.apply(from_ref(&new)).await, ["stale"]);
    assert!(fed.get(&key(1)).await.is_none());
    // Once a later batch has moved the checkpoint beyond the deletion, nothing older can come.
    let later = fed.changes.put(&entity, Sample::product_record(2));
    fed.advance(from_ref(&later), later.position).await;
    let meta = fs::read_to_string(fed.index().join("meta.json")).unwrap();
    assert!(
        !meta.contains(&format!("[[\\\"{}\\\"", key(1))),
        "the deletion is remembered for ever"
    );
    assert_eq!(fed.scan().await.len(), 1);
}

#[tokio::test]
async fn a_batch_with_another_checkpoint_changes_nothing() {
    let entity = Sample::product();
    let mut fed = Fed::new(&entity).await;
    fed.put(vec![Sample::product_record(1)]).await;
    let change = fed.changes.put(&entity, Sample::product_record(2));
    let to = Checkpoint { log: other_log(), position: change.position, backfill: None };
    for from in [None, Some(to.clone())] {
        let advance = Some(Advance { from, to: to.clone() });
        let batch = Batch { advance, ..fed.batch(from_ref(&change)) };
        let error = fed.follower().apply(batch).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CheckpointMoved);
    }
    assert!(fed.get(&key(2)).await.is_none());
    assert_eq!(fed.follower().checkpoint(&entity).await.unwrap(), fed.checkpoint);
}

#[tokio::test]
async fn an_answer_has_the_position_of_its_commit() {
    let entity = Sample::product();
    let mut fed = Fed::new(&entity).await;
    let position =
        async |fed: &Fed| fed.reader().get(&fed.entity, &[key(1)]).await.unwrap().position;
    assert_eq!(position(&fed).await, Position::ZERO);
    fed.put(vec![Sample::product_record(1)]).await;
    assert_eq!(position(&fed).await, fed.changes.head());
    let change = fed.changes.put(&entity, Sample::product_record(2));
    fed.apply(&[change]).await;
    assert!(position(&fed).await < fed.changes.head());
}

#[tokio::test]
async fn a_deleted_folder_is_noticed_while_open_and_filled_again() {
    let entity = Sample::product();
    let mut fed = Fed::new(&entity).await;
    for delete in [0, 1, 2] {
        fed.put((0..20).map(Sample::product_record).collect()).await;
        assert_eq!(fed.follower().checkpoint(&entity).await.unwrap(), fed.checkpoint);
        match delete {
            0 => fs::remove_dir_all(fed.index()).unwrap(),
            1 => fs::remove_dir_all(fed.folder.path().join("search")).unwrap(),
            _ => fs::remove_file(fed.index().join("meta.json")).unwrap(),
        }
        if delete == 1 {
            // A batch that comes before anybody asks meets the missing checkpoint, too.
            let to = fed.checkpoint.clone().unwrap();
            let advance = Some(Advance { from: fed.checkpoint.clone(), to });
            let batch = Batch { advance, ..fed.batch(&[]) };
            let error = fed.follower().apply(batch).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::CheckpointMoved);
        }
        assert_eq!(fed.follower().checkpoint(&entity).await.unwrap(), None);
        assert!(fed.scan().await.is_empty());
        fed.checkpoint = None;
    }
    fed.put(vec![Sample::product_record(1)]).await;
    assert_eq!(fed.scan().await.len(), 1);
}

#[tokio::test]
async fn a_folder_replaced_by_an_older_copy_answers_with_the_older_checkpoint() {
    let entity = Sample::product();
    let mut fed = Fed::new(&entity).await;
    fed.put((0..3).map(Sample::product_record).collect()).await;
    let old = fed.checkpoint.clone();
    let copy = fed.folder.path().join("copy");
    copy_folder(&fed.index(), &copy);
    fed.put((3..9).map(Sample::product_record).collect()).await;
    fs::remove_dir_all(fed.index()).unwrap();
    fs::rename(&copy, fed.index()).unwrap();
    assert_eq!(fed.follower().checkpoint(&entity).await.unwrap(), old);
    assert_eq!(fed.scan().await.len(), 3);
    fed.checkpoint = old;
    fed.put((3..9).map(Sample::product_record).collect()).await;
    assert_eq!(fed.scan().await.len(), 9);
}

#[tokio::test]
async fn a_damaged_index_is_made_anew_and_foreign_files_stay() {
    let entity = Sample::product();
    let mut fed = Fed::new(&entity).await;
    for damage in 0..3 {
        fed.put((0..20).map(Sample::product_record).collect()).await;
        fed.source.close().await.unwrap();
        fs::write(fed.index().join("notes.txt"), "mine").unwrap();
        let files = || fs::read_dir(fed.index()).unwrap().map(|e| e.unwrap().path());
        let segment = |p: &std::path::PathBuf| p.extension().is_some_and(|e| e == "fast");
        match damage {
            0 => fs::write(fed.index().join("meta.json"), "{]").unwrap(),
            1 => files().filter(segment).for_each(|p| fs::write(p, [7; 100]).unwrap()),
            _ => files().filter(segment).for_each(|p| fs::remove_file(p).unwrap()),
        }
        let report = fed.reopen(&entity).await.unwrap();
        assert!(report.iter().any(|line| line.contains("made anew")), "{damage}: {report:?}");
        assert_eq!(fed.follower().checkpoint(&entity).await.unwrap(), None);
        assert!(fed.scan().await.is_empty());
        assert_eq!(fs::read_to_string(fed.index().join("notes.txt")).unwrap(), "mine");
        fed.checkpoint = None;
    }
}

#[tokio::test]
async fn changed_fields_make_the_index_anew_but_another_type_is_refused() {
    let fields = |ty: FieldType| vec![Field::new("id", FieldType::Integer), Field::new("a", ty)];
    let declare = |fields| Arc::new(Entity::new("thing", "id", fields).unwrap());
    let narrow = declare(fields(FieldType::Decimal { precision: 10, scale: 2 }));
    let wide = declare(fields(FieldType::Decimal { precision: 20, scale: 2 }));
    let other = declare(fields(FieldType::Boolean));
    let mut fed = Fed::new(&narrow).await;
    fed.put(vec![Record::new(vec![Value::Integer(1), Value::Null])]).await;
    assert!(fed.reopen(&narrow).await.unwrap().is_empty());
    assert_eq!(fed.reopen(&other).await.unwrap_err().kind(), ErrorKind::SchemaMismatch);
    assert!(fed.reopen(&narrow).await.unwrap().is_empty());
    assert_eq!(fed.scan().await.len(), 1);
    let report = fed.reopen(&wide).await.unwrap();
    assert!(report.iter().any(|line| line.contains("decimal(20,2)")), "{report:?}");
    assert_eq!(fed.follower().checkpoint(&wide).await.unwrap(), None);
    assert!(fed.scan().await.is_empty());
}

#[tokio::test]
async fn many_small_commits_are_merged_into_few_segments() {
    let entity = Sample::product();
    let mut fed = Fed::new(&entity).await;
    for n in 0..60 {
        fed.put(vec![Sample::product_record(n % 40)]).await;
    }
    fed.source.close().await.unwrap();
    let files = fs::read_dir(fed.index()).unwrap().map(|e| e.unwrap().path());
    let segments = files.filter(|p| p.extension().is_some_and(|e| e == "store")).count();
    assert!(segments <= 20, "{segments} segments");
    fed.reopen(&entity).await.unwrap();
    assert_eq!(fed.scan().await.len(), 40);
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
