//! History, outcomes and the log over time.

use super::*;

use unisono_core::{Change, ErrorKind, Position};

fn positions(changes: &[Arc<Change>]) -> Vec<u64> {
    changes.iter().map(|c| c.position.as_u64()).collect()
}

#[tokio::test]
async fn the_history_of_a_record_goes_on_behind_its_deletions() {
    let folder = tempfile::tempdir().unwrap();
    let e = entity("thing", &[]);
    let source = open_truth(folder.path(), &e).await;
    let history = |before: Option<u64>, limit| {
        let (source, e) = (Arc::clone(&source), Arc::clone(&e));
        let before = before.map(|n| Position::new(n).unwrap());
        async move { positions(&source.history(&e, &key("a"), before, limit).await.unwrap()) }
    };
    let a = || put(&e, json!({"id": "a"}));
    let b = || put(&e, json!({"id": "b"}));
    // a at 1, 3, 4 (gone), 6, 7 (gone); b at 2 and 5.
    for write in [a(), b(), a(), delete(&e, "a"), b(), a(), delete(&e, "a")] {
        commit(&source, vec![write]).await.unwrap();
    }
    assert_eq!(history(None, 10).await, [7, 6, 4, 3, 1]);
    assert_eq!(history(None, 2).await, [7, 6]);
    assert_eq!(history(Some(6), 2).await, [4, 3]);
    // A position that is not of this record.
    assert_eq!(history(Some(5), 10).await, [4, 3, 1]);
    commit(&source, vec![a()]).await.unwrap();
    assert_eq!(history(None, 10).await, [8, 7, 6, 4, 3, 1]);
    source.trim(Position::new(4).unwrap(), Timestamp::EPOCH).await.unwrap();
    assert_eq!(history(None, 10).await, [8, 7, 6]);
}

#[tokio::test]
async fn an_outcome_is_whole_although_the_log_was_trimmed() {
    let folder = tempfile::tempdir().unwrap();
    let e = entity("thing", &[("name", FieldType::String)]);
    let source = open_truth(folder.path(), &e).await;
    let units = || {
        vec![
            idempotent(
                "first",
                vec![put(&e, json!({"id": "a", "name": "x"})), put(&e, json!({"id": "b"}))],
            ),
            unit(vec![put(&e, json!({"id": "a", "name": "y"}))]),
            idempotent("nothing", vec![]),
        ]
    };
    let committed = source.commit(units()).await.unwrap();
    let first = committed[0].as_ref().unwrap().changes.clone();
    assert_eq!(source.trim(Position::new(3).unwrap(), Timestamp::EPOCH).await.unwrap(), 3);
    let kept = "SELECT group_concat(position) FROM unisono_log";
    let kept: String = raw(folder.path()).query_row(kept, [], |r| r.get(0)).unwrap();
    assert_eq!(kept, "1,2", "only what the outcome refers to");
    assert_eq!(source.bounds().await.unwrap().trimmed.as_u64(), 3);

    let mut again = source.commit(units()).await.unwrap();
    let replayed = again.remove(0).unwrap();
    assert!(replayed.replayed);
    assert_eq!(replayed.changes, first);
    assert!(again.remove(1).unwrap().replayed, "a unit without writes is remembered too");
    let other = Unit {
        idempotency: Some(Idempotency { key: "first".into(), fingerprint: 8 }),
        ..unit(vec![])
    };
    let error = source.commit(vec![other]).await.unwrap().remove(0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::IdempotencyKeyReused);

    // Once the outcome is too old, its changes go with it.
    let later = Timestamp::from_micros(1).unwrap();
    source.trim(Position::new(3).unwrap(), later).await.unwrap();
    let left: i64 = raw(folder.path())
        .query_row("SELECT min(position) FROM unisono_log", [], |r| r.get(0))
        .unwrap();
    assert_eq!(left, 4);
}

#[tokio::test]
async fn the_log_is_read_after_fields_were_added_widened_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let before = entity("thing", &[("price", DECIMAL), ("old", FieldType::String)]);
    let source = open_truth(folder.path(), &before).await;
    commit(&source, vec![put(&before, json!({"id": "a", "price": "1.50"}))]).await.unwrap();
    let after = entity(
        "thing",
        &[("price", FieldType::Decimal { precision: 14, scale: 4 }), ("new", FieldType::Integer)],
    );
    prepare(&source, Role::Truth, &after).await.unwrap();
    let log = source.read_log(Position::ZERO, 10, 1 << 20).await.unwrap();
    let image = unisono_core::json::to_json(&after, log[0].image.as_ref().unwrap());
    assert_eq!(image, json!({"id": "a", "price": "1.5000", "new": null}));
}

#[tokio::test]
async fn changes_of_an_entity_that_is_no_longer_declared_do_not_stop_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let gone = entity("gone", &[]);
    let source = open_truth(folder.path(), &gone).await;
    commit(&source, vec![put(&gone, json!({"id": "a"}))]).await.unwrap();
    let e = entity("thing", &[]);
    prepare(&source, Role::Truth, &e).await.unwrap();
    commit(&source, vec![put(&e, json!({"id": "b"}))]).await.unwrap();
    let log = source.read_log(Position::ZERO, 10, 1 << 20).await.unwrap();
    assert_eq!(log.iter().map(|c| c.entity.as_ref()).collect::<Vec<_>>(), ["gone", "thing"]);
}

#[tokio::test]
async fn a_hole_in_the_log_is_reported_and_not_jumped() {
    let folder = tempfile::tempdir().unwrap();
    let e = entity("thing", &[]);
    let source = open_truth(folder.path(), &e).await;
    for id in ["a", "b", "c"] {
        commit(&source, vec![put(&e, json!({"id": id}))]).await.unwrap();
    }
    raw(folder.path()).execute("DELETE FROM unisono_log WHERE position = 2", []).unwrap();
    let error = source.read_log(Position::ZERO, 10, 1 << 20).await.unwrap_err();
    assert_eq!((error.kind(), error.detail("position")), (ErrorKind::Corrupt, Some("2")));
}
