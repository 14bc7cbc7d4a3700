//! Unique values, tombstones and broken rows of a follower.

use super::*;

use unisono_core::source::{Advance, Batch, Checkpoint, Follower, Outcome};
use unisono_core::{Change, Operation, Position, Uuid};

pub(super) fn put_at(entity: &Arc<Entity>, position: u64, json: Json) -> Change {
    let record = record(entity, json);
    change(entity, position, entity.key_of(&record).unwrap(), Some(record))
}

fn change(entity: &Arc<Entity>, position: u64, key: Key, image: Option<Record>) -> Change {
    Change {
        position: Position::new(position).unwrap(),
        entity: Arc::clone(entity.name()),
        key,
        operation: if image.is_some() { Operation::Put } else { Operation::Delete },
        replaced: None,
        image: image.map(Arc::new),
        time: Timestamp::EPOCH,
        actor: None,
        trace: None,
    }
}

async fn apply_batch(
    source: &SqliteSource,
    e: &Arc<Entity>,
    changes: Vec<Change>,
    advance: Option<Advance>,
) -> Vec<Outcome> {
    let changes = changes.into_iter().map(Arc::new).collect();
    source
        .apply(Batch { entity: Arc::clone(e), changes, copied: false, advance })
        .await
        .unwrap()
        .outcomes
}

pub(super) async fn apply(source: &SqliteSource, e: &Arc<Entity>, change: Change) -> Outcome {
    apply_batch(source, e, vec![change], None).await.remove(0)
}

#[tokio::test]
async fn a_follower_takes_in_a_swap_of_unique_values_in_any_order() {
    let folder = tempfile::tempdir().unwrap();
    let e =
        entity_of("thing", vec![Field { unique: true, ..Field::new("sku", FieldType::String) }]);
    let source = open(folder.path()).await;
    prepare(&source, Role::Follower, &e).await.unwrap();
    for change in [
        put_at(&e, 1, json!({"id": "a", "sku": "x"})),
        put_at(&e, 2, json!({"id": "b", "sku": "y"})),
        // The change that freed x was folded into a later one of the same record.
        put_at(&e, 4, json!({"id": "b", "sku": "x"})),
        put_at(&e, 5, json!({"id": "a", "sku": "y"})),
    ] {
        assert!(matches!(apply(&source, &e, change).await, Outcome::Applied));
    }
    // As a truth, the same table refuses what is not unique.
    prepare(&source, Role::Truth, &e).await.unwrap();
    let error = commit(&source, vec![put(&e, json!({"id": "c", "sku": "x"}))]).await.unwrap_err();
    assert_eq!(error.detail("field"), Some("sku"));
}

#[tokio::test]
async fn tombstones_go_once_a_later_batch_has_passed_them() {
    let folder = tempfile::tempdir().unwrap();
    let e = entity("thing", &[]);
    let source = open(folder.path()).await;
    prepare(&source, Role::Follower, &e).await.unwrap();
    let log = Uuid::from_u128(1);
    let at = |n| Checkpoint { log, position: Position::new(n).unwrap(), backfill: None };
    let tombstones = || {
        let sql = "SELECT count(*) FROM unisono_tombstones";
        raw(folder.path()).query_row(sql, [], |r| r.get::<_, i64>(0)).unwrap()
    };
    let gone = change(&e, 3, key("a"), None);
    apply_batch(&source, &e, vec![gone], Some(Advance { from: None, to: at(3) })).await;
    assert_eq!(tombstones(), 1);
    let late = apply(&source, &e, put_at(&e, 2, json!({"id": "a"}))).await;
    assert!(matches!(late, Outcome::Stale));
    apply_batch(&source, &e, vec![], Some(Advance { from: Some(at(3)), to: at(4) })).await;
    assert_eq!(tombstones(), 0);
}

#[tokio::test]
async fn a_value_that_was_broken_by_hand_does_not_end_the_scan_that_finds_it() {
    let folder = tempfile::tempdir().unwrap();
    let e = entity("thing", &[("count", FieldType::Integer)]);
    let source = open(folder.path()).await;
    prepare(&source, Role::Follower, &e).await.unwrap();
    for id in ["a", "b"] {
        apply(&source, &e, put_at(&e, 1, json!({"id": id, "count": 1}))).await;
    }
    raw(folder.path()).execute("UPDATE thing SET count = 'many' WHERE id = 'a'", []).unwrap();
    assert_eq!(get(&source, &e, "a").await.unwrap_err().detail("field"), Some("count"));
    let scanned = all(&source, &e).await;
    assert_eq!(scanned, [json!({"id": "a", "count": null}), json!({"id": "b", "count": 1})]);
}
