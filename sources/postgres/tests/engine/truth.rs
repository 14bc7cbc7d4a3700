//! The truth over the real server: several processes, other programs' constraints, one exchange for a batch.

use std::sync::Arc;

use serde_json::json;
use unisono_core::write::{Action, Condition, Unit, Write};
use unisono_core::{Entity, ErrorKind, Field, FieldType, Key, Position, Record, Role, Value};
use unisono_testkit::{Changes, Sample};

use crate::common::{
    Database, background, batch, commit, commit_one, get, open, prepare, put, thing, unit,
};
use crate::proxy::Proxy;

fn text(id: &str, name: &str) -> Record {
    Record::new([id, name].map(|text| Value::String(text.to_owned())).into())
}

fn named(name: Field) -> Arc<Entity> {
    thing(vec![Field::new("id", FieldType::String), name])
}

fn key(text: &str) -> Key {
    Key::String(text.into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_processes_share_one_dense_log() {
    let db = Database::new();
    let entity = named(Field { unique: true, ..Field::new("name", FieldType::String) });
    let mut processes = Vec::new();
    for process in 0..4 {
        let source = db.prepared(Role::Truth, &[&entity]).await;
        let entity = Arc::clone(&entity);
        processes.push(background(async move {
            let mut taken = 0;
            for n in 0..20 {
                // Each name is wanted by every process; the keys of different processes never meet.
                let units = vec![
                    put(&entity, text(&format!("{process}-{n}"), &format!("name {n}"))),
                    put(&entity, text(&format!("{process}-{n}-own"), &format!("{process} {n}"))),
                ];
                let results = commit(&source, units).await;
                assert!(results[1].is_ok(), "{results:?}");
                match &results[0] {
                    Ok(_) => taken += 1,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::ConstraintViolated),
                }
            }
            taken
        }));
    }
    let mut taken = 0;
    for process in processes {
        taken += process.await.unwrap();
    }
    assert_eq!(taken, 20, "each name is taken once");
    let sql = "SELECT concat_ws(' ', count(*), min(position), max(position)) FROM unisono_log";
    assert_eq!(db.see(sql).await, ["100 1 100"], "positions are dense");
    db.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_count_one_record_up_lose_no_count() {
    let db = Database::new();
    let fields = vec![Field::new("id", FieldType::Integer), Field::new("n", FieldType::Integer)];
    let entity = thing(fields);
    let record = |n| Record::new(vec![Value::Integer(1), Value::Integer(n)]);
    let first = db.prepared(Role::Truth, &[&entity]).await;
    commit_one(&first, put(&entity, record(0))).await;
    let mut processes = Vec::new();
    for _ in 0..3 {
        let source = db.prepared(Role::Truth, &[&entity]).await;
        let entity = Arc::clone(&entity);
        processes.push(background(async move {
            for _ in 0..20 {
                loop {
                    let reader = Arc::clone(&source).reader().unwrap();
                    let found = reader.get(&entity, &[Key::Integer(1)]).await.unwrap().value;
                    let stored = found[0].as_ref().unwrap();
                    let Value::Integer(n) = stored.record.values()[1] else { panic!("no number") };
                    let action = Action::Put(record(n + 1));
                    let condition = Condition::Version(Some(stored.version));
                    let (entity, key) = (Arc::clone(&entity), Key::Integer(1));
                    let bare = unit(&entity, key.clone(), action.clone());
                    let writes = vec![Write { entity, key, action, condition }];
                    match commit(&source, vec![Unit { writes, ..bare }]).await.remove(0) {
                        Ok(_) => break,
                        Err(error) => assert_eq!(error.kind(), ErrorKind::VersionConflict),
                    }
                }
            }
        }));
    }
    for process in processes {
        process.await.unwrap();
    }
    assert_eq!(get(&first, &entity, Key::Integer(1)).await, Some(record(60)));
    db.drop().await;
}

#[tokio::test]
async fn a_batch_is_one_exchange_and_one_transaction() {
    let db = Database::new();
    let (product, person) = (Sample::product(), Sample::person());
    let proxy = Proxy::start(5541).await;
    let url = db.url.replace(":5541/", &format!(":{}/", proxy.port));
    let source = open(&db.options_at(&url)).await.unwrap();
    prepare(&source, Role::Truth, &[&product, &person]).await.unwrap();
    let puts = |count: u32, from: u32| -> Vec<Unit> {
        (from..from + count).map(|n| put(&product, Sample::product_record(n))).collect()
    };
    let mixed = || {
        let patch = Action::Patch(json!({"stock": 5}));
        vec![
            unit(&product, key("p1"), patch),
            unit(&product, key("p2"), Action::Delete),
            put(&product, Sample::product_record(2)),
        ]
    };
    for (what, units, exchanges) in [
        ("a lone put", puts(1, 0), 1),
        ("puts of many records", puts(200, 0), 1),
        ("what depends on records is read first", mixed(), 2),
    ] {
        // Statements are prepared at their first use.
        assert!(commit(&source, units.clone()).await.iter().all(Result::is_ok), "{what}");
        let before = proxy.exchanges();
        assert!(commit(&source, units).await.iter().all(Result::is_ok), "{what}");
        assert_eq!(proxy.exchanges() - before, exchanges, "{what}");
    }
    // The system column `xmin` is the transaction that has written a row.
    let sql = "SELECT count(DISTINCT xmin::text) FROM unisono_log WHERE position BETWEEN 3 AND 202";
    assert_eq!(db.see(sql).await, ["1"], "200 units, one transaction");
    db.drop().await;
}

/// A table with a constraint that Unisono knows nothing of.
async fn with_second_unique_key(db: &Database) -> Arc<Entity> {
    let sql = format!(
        "CREATE SCHEMA {0}; CREATE TABLE {0}.thing (id text PRIMARY KEY, name text, CONSTRAINT other UNIQUE (name))",
        db.schema
    );
    db.outside().await.batch_execute(&sql).await.unwrap();
    named(Field::new("name", FieldType::String))
}

#[tokio::test]
async fn a_constraint_of_others_refuses_its_unit_alone() {
    let db = Database::new();
    let entity = with_second_unique_key(&db).await;
    let product = Sample::product();
    let source = db.prepared(Role::Truth, &[&entity, &product]).await;
    let begin = commit_one(&source, put(&entity, text("a", "x"))).await;
    let units = vec![
        put(&entity, text("b", "y")),
        put(&entity, text("c", "x")),
        put(&product, Sample::product_record(1)),
        put(&entity, text("b", "x")),
    ];
    let results = commit(&source, units).await;
    let outcome = |n: usize| {
        let result = results[n].as_ref().map(|c| c.changes[0].position.as_u64() - begin);
        result.map_err(|e| (e.kind(), e.detail("field").map(str::to_owned)))
    };
    let taken = Err((ErrorKind::ConstraintViolated, Some("name".to_owned())));
    assert_eq!([0, 1, 2, 3].map(outcome), [Ok(1), taken.clone(), Ok(2), taken], "{results:?}");
    for (id, name) in [("a", Some("x")), ("b", Some("y")), ("c", None)] {
        let found = get(&source, &entity, key(id)).await;
        assert_eq!(found, name.map(|name| text(id, name)), "record {id}");
    }
    // Values can be given up and taken in one call.
    let name = |id: &str, name: Option<&str>| {
        unit(&entity, key(id), Action::Patch(json!({ "name": name })))
    };
    let units = vec![name("a", None), name("b", Some("x")), name("a", Some("y"))];
    assert!(commit(&source, units).await.iter().all(Result::is_ok), "values are exchanged");
    assert_eq!(db.see("SELECT id || name FROM thing ORDER BY id").await, ["ay", "bx"]);
    db.drop().await;
}

#[tokio::test]
async fn a_follower_rejects_what_a_constraint_refuses_and_goes_on() {
    let db = Database::new();
    let entity = with_second_unique_key(&db).await;
    let source = db.prepared(Role::Follower, &[&entity]).await;
    let mut log = Changes::new();
    let changes: Vec<_> = [("a", "x"), ("b", "x"), ("c", "z")]
        .map(|(id, name)| log.put(&entity, text(id, name)))
        .into();
    let follower = Arc::clone(&source).follower().unwrap();
    let applied = follower.apply(batch(&entity, &changes, log.log, 0, 3)).await.unwrap();
    use unisono_core::source::Outcome::{Applied, Rejected};
    assert!(matches!(&applied.outcomes[..], [Applied, Rejected(_), Applied]), "{applied:?}");
    assert!(!applied.advanced, "the checkpoint stays before a change that was rejected");
    assert_eq!(get(&source, &entity, key("a")).await, Some(text("a", "x")));
    assert_eq!(follower.checkpoint(&entity).await.unwrap(), None);
    db.drop().await;
}

#[tokio::test]
async fn a_truth_whose_tables_are_gone_does_not_begin_anew() {
    let db = Database::new();
    let entity = Sample::product();
    let source = db.prepared(Role::Truth, &[&entity]).await;
    commit_one(&source, put(&entity, Sample::product_record(1))).await;
    let sql = format!("DROP SCHEMA {} CASCADE", db.schema);
    db.outside().await.batch_execute(&sql).await.unwrap();
    let truth = Arc::clone(&source).truth().unwrap();
    let units = vec![put(&entity, Sample::product_record(2))];
    let error = truth.commit(units).await.and_then(|mut all| all.remove(0)).unwrap_err();
    assert_eq!(error.effect_on_data(), unisono_core::Effect::None, "{error:?}");
    assert!(truth.bounds().await.is_err());
    let sql = format!("SELECT FROM pg_namespace WHERE nspname = '{}'", db.schema);
    assert!(db.see(&sql).await.is_empty(), "nothing was made");
    db.drop().await;
}

#[tokio::test]
async fn a_log_is_read_in_pieces_of_about_the_bytes_asked_for() {
    let db = Database::new();
    let entity = named(Field::new("name", FieldType::Text));
    let source = db.prepared(Role::Truth, &[&entity]).await;
    let long = "é".repeat(3 << 19);
    let units = (0..12).map(|n| put(&entity, text(&n.to_string(), &long))).collect();
    assert!(commit(&source, units).await.iter().all(Result::is_ok), "36 MB in one batch");
    let truth = Arc::clone(&source).truth().unwrap();
    let log = truth.read_log(Position::ZERO, 1000, 8 << 20).await.unwrap();
    assert!((2..=4).contains(&log.len()), "{} changes of 3 MB each in about 8 MB", log.len());
    assert_eq!(truth.read_log(log[log.len() - 1].position, 1, 1).await.unwrap().len(), 1);
    db.drop().await;
}

#[tokio::test]
async fn a_value_that_no_index_can_hold_fails_alone() {
    let db = Database::new();
    let entity = named(Field { index: true, ..Field::new("name", FieldType::String) });
    let source = db.prepared(Role::Truth, &[&entity]).await;
    // Unlike repetitions, these bytes cannot be made shorter by compression.
    let mut state = 1_u64;
    let noise: String = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'!' + (state >> 33) as u8 % 90)
    })
    .take(20_000)
    .collect();
    let units = vec![put(&entity, text("a", "x")), put(&entity, text("b", &noise))];
    let results = commit(&source, units).await;
    assert!(results[0].is_ok(), "the others go on");
    let error = results[1].as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error:?}");
    assert!(error.hint_text().is_some_and(|h| h.contains("max_length")), "{error:?}");
    db.drop().await;
}
