//! The same through PgBouncer in transaction mode: every statement may run on another connection of the server.

use std::sync::Arc;

use serde_json::json;
use unisono_core::query::{Aggregate, Filter, Path, Query};
use unisono_core::source::Outcome;
use unisono_core::write::Action;
use unisono_core::{Entity, ErrorKind, Field, FieldType, Key, Position, Role, Value};
use unisono_testkit::{Changes, Sample};

use crate::common::{
    Database, background, batch, commit, commit_one, get, once, open, prepare, put, unit,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_processes_commit_and_read() {
    let db = Database::behind_bouncer();
    let entity = Sample::product();
    let mut processes = Vec::new();
    for process in 0..3_u32 {
        let source = db.prepared(Role::Truth, &[&entity]).await;
        let entity = Arc::clone(&entity);
        processes.push(background(async move {
            let reader = Arc::clone(&source).reader().unwrap();
            for n in 0..20_u32 {
                let number = process * 100 + n;
                let key = Sample::key(&format!("p{number}"));
                let many = (0..5).map(|m| put(&entity, Sample::product_record(number + m * 20)));
                let patch = unit(&entity, key.clone(), Action::Patch(json!({"stock": n})));
                let units = many.chain([once(patch, &format!("{process} {n}"))]).collect();
                let results = commit(&source, units).await;
                assert!(results.iter().all(Result::is_ok), "{results:?}");
                let found = reader.get(&entity, &[key]).await.unwrap();
                let stored = found.value[0].as_ref().unwrap();
                assert_eq!(stored.record.values()[4], Value::Integer(i64::from(n)));
                assert!(found.position >= stored.version);
                let page = reader.query(&entity, &Query::all()).await.unwrap();
                assert!(page.position >= stored.version);
            }
        }));
    }
    for process in processes {
        process.await.unwrap();
    }
    let sql = "SELECT concat_ws(' ', count(*), min(position), max(position)) FROM unisono_log";
    assert_eq!(db.see(sql).await, ["360 1 360"], "positions are dense");
    let source = db.prepared(Role::Truth, &[&entity]).await;
    let reader = Arc::clone(&source).reader().unwrap();
    assert_eq!(reader.count(&entity, &Filter::All, None).await.unwrap().value, 300);
    let by_active = Aggregate {
        filter: Filter::All,
        unnest: None,
        group_by: vec![Path::whole(5)],
        metrics: Vec::new(),
        order: Vec::new(),
        limit: 10,
    };
    let groups = reader.aggregate(&entity, &by_active).await.unwrap().value;
    assert_eq!(groups.groups.len(), 2);
    let truth = Arc::clone(&source).truth().unwrap();
    assert_eq!(truth.read_log(Position::ZERO, 1000, 64 << 20).await.unwrap().len(), 360);
    assert_eq!(truth.history(&entity, &Sample::key("p5"), None, 9).await.unwrap().len(), 2);
    db.drop().await;
}

#[tokio::test]
async fn a_unit_is_refused_alone_and_repeated_once() {
    let db = Database::behind_bouncer();
    let entity = Sample::person();
    let source = db.prepared(Role::Truth, &[&entity]).await;
    let person = |number: i64, email: &str| {
        put(&entity, Sample::record(&entity, &json!({"number": number, "email": email})))
    };
    let units = vec![person(1, "a"), person(2, "a"), once(person(3, "c"), "third")];
    let results = commit(&source, units).await;
    assert_eq!(results[1].as_ref().unwrap_err().kind(), ErrorKind::ConstraintViolated);
    assert!(results[0].is_ok() && results[2].is_ok(), "{results:?}");
    let again = commit(&source, vec![once(person(3, "c"), "third")]).await.remove(0).unwrap();
    assert!(again.replayed);
    assert_eq!(again.changes[0].position.as_u64(), 2);
    db.drop().await;
}

#[tokio::test]
async fn a_follower_moves_data_and_checkpoint_together() {
    let db = Database::behind_bouncer();
    let entity = Sample::product();
    let source = db.prepared(Role::Follower, &[&entity]).await;
    let follower = Arc::clone(&source).follower().unwrap();
    let mut log = Changes::new();
    let mut all = Vec::new();
    for round in 0..10_u64 {
        let mut changes: Vec<_> = (0..50)
            .map(|n| log.put(&entity, Sample::product_record(round as u32 * 50 + n)))
            .collect();
        // Of the round before; in the first one nothing is there.
        let gone = (round * 50).checked_sub(50).map_or("none".to_owned(), |n| format!("p{n}"));
        changes.push(log.delete(&entity, &Sample::key(&gone)));
        let to = log.head().as_u64();
        let applied =
            follower.apply(batch(&entity, &changes, log.log, round * 51, to)).await.unwrap();
        assert!(applied.advanced);
        all.extend(changes);
    }
    // Late and repeated batches change nothing.
    let stale = follower.apply(unisono_core::source::Batch {
        advance: None,
        ..batch(&entity, &all[..51], log.log, 0, 1)
    });
    let stale = stale.await.unwrap();
    let outcomes = &stale.outcomes;
    assert!(outcomes[1..50].iter().all(|o| matches!(o, Outcome::Stale)), "{outcomes:?}");
    let moved = follower.apply(batch(&entity, &all[..51], log.log, 51, 102)).await.unwrap_err();
    assert_eq!(moved.kind(), ErrorKind::CheckpointMoved);
    let checkpoint = follower.checkpoint(&entity).await.unwrap().unwrap();
    assert_eq!(checkpoint.position, log.head());
    assert_eq!(get(&source, &entity, Sample::key("p499")).await, Some(Sample::product_record(499)));
    assert_eq!(get(&source, &entity, Sample::key("p400")).await, None);
    db.drop().await;
}

#[tokio::test]
async fn a_declaration_changes_while_others_are_connected() {
    let db = Database::behind_bouncer();
    let before = Sample::product();
    let old = db.prepared(Role::Truth, &[&before]).await;
    commit_one(&old, put(&before, Sample::product_record(1))).await;
    let mut fields = before.fields().to_vec();
    fields.push(Field {
        default: Some(Value::Integer(7)),
        index: true,
        ..Field::new("rank", FieldType::Integer)
    });
    let after = Arc::new(Entity::new("product", "id", fields).unwrap());
    let new = db.open().await;
    let notes = prepare(&new, Role::Truth, &[&after]).await.unwrap();
    assert!(notes.iter().any(|n| n.contains("rank")), "{notes:?}");
    let found = get(&new, &after, Sample::key("p1")).await.unwrap();
    assert_eq!(found.values().last(), Some(&Value::Integer(7)));
    // Processes of the earlier version go on during a deployment.
    commit_one(&old, put(&before, Sample::product_record(2))).await;
    assert_eq!(get(&old, &before, Sample::key("p1")).await, Some(Sample::product_record(1)));
    assert!(get(&new, &after, Key::String("p2".into())).await.is_some());
    db.drop().await;
}

#[tokio::test]
async fn what_the_pooler_refuses_is_told() {
    let db = Database::behind_bouncer();
    for (from, to) in [("app-secret", "wrong-secret"), ("app:app-secret", "nobody:x-secret")] {
        let error = open(&db.options_at(&db.url.replace(from, to))).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(error.hint_text().is_some_and(|h| h.contains("password")), "{error:?}");
        assert!(!format!("{error:?}").contains("-secret"), "{error:?}");
    }
}
