//! The truth over the real server: several processes, lost connections, other programs' constraints, large records.
#![expect(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Database, column, commit, get, open, prepare, put, thing, unit};
use mysql_async::prelude::Queryable;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use unisono_core::kind::OptionValue;
use unisono_core::query::Query;
use unisono_core::write::Action;
use unisono_core::{Entity, ErrorKind, Field, FieldType, Key, Position, Record, Role};
use unisono_testkit::{Changes, Sample};

fn text(id: &str, name: &str) -> Record {
    Record::new(
        vec![id.to_owned(), name.to_owned()].into_iter().map(unisono_core::Value::String).collect(),
    )
}

fn named(name: Field) -> Arc<Entity> {
    thing(vec![Field::new("id", FieldType::String), name])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_processes_share_one_dense_log() {
    let db = Database::new();
    let entity = named(Field { unique: true, ..Field::new("name", FieldType::String) });
    let mut tasks = tokio::task::JoinSet::new();
    for process in 0..4 {
        let source = db.prepared(Role::Truth, &[&entity]).await;
        let entity = Arc::clone(&entity);
        tasks.spawn(async move {
            let mut taken = 0;
            for n in 0..40 {
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
        });
    }
    let taken: Vec<i32> = tasks.join_all().await;
    assert_eq!(taken.iter().sum::<i32>(), 40, "each name is taken once: {taken:?}");
    let mut outside = db.outside().await;
    let counted = column(
        &mut outside,
        "SELECT CONCAT(COUNT(*), ' ', MIN(`position`), ' ', MAX(`position`)) FROM unisono_log",
    );
    assert_eq!(counted.await, ["200 1 200"], "positions are dense");
    db.drop().await;
}

#[tokio::test]
async fn connections_that_died_are_not_noticed() {
    let db = Database::new();
    let entity = Sample::product();
    let source = db.prepared(Role::Truth, &[&entity]).await;
    let mut outside = db.outside().await;
    for round in 0..3 {
        let key = Key::String(format!("p{round}").into());
        assert!(
            commit(&source, vec![put(&entity, Sample::product_record(round))]).await[0].is_ok()
        );
        assert!(get(&source, &entity, key.clone()).await.is_some());
        let others = format!(
            "SELECT id FROM information_schema.processlist WHERE db = '{}' AND id <> CONNECTION_ID()",
            db.name
        );
        let ids = column(&mut outside, &others).await;
        assert!(!ids.is_empty(), "the source has connections");
        for id in ids {
            outside.query_drop(format!("KILL CONNECTION {id}")).await.unwrap();
        }
        assert!(get(&source, &entity, key).await.is_some(), "a read right after");
    }
    db.drop().await;
}

/// A table with a constraint that Unisono knows nothing of.
async fn with_second_unique_key(db: &Database) -> Arc<Entity> {
    db.open().await;
    let sql = "CREATE TABLE thing (id VARCHAR(50) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin PRIMARY KEY, \
               name VARCHAR(50) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin, UNIQUE KEY other (name)) ENGINE = InnoDB";
    db.outside().await.query_drop(sql).await.unwrap();
    named(Field::new("name", FieldType::String))
}

#[tokio::test]
async fn a_second_unique_key_never_replaces_another_row() {
    let db = Database::new();
    let entity = with_second_unique_key(&db).await;
    let source = db.prepared(Role::Truth, &[&entity]).await;
    assert!(commit(&source, vec![put(&entity, text("a", "x"))]).await[0].is_ok());
    let units = vec![
        put(&entity, text("b", "y")),
        put(&entity, text("c", "x")),
        put(&entity, text("d", "z")),
        put(&entity, text("b", "x")),
    ];
    let results = commit(&source, units).await;
    let outcomes: Vec<_> = results.iter().map(|r| r.as_ref().map_err(|e| e.kind())).collect();
    let taken = Err(ErrorKind::ConstraintViolated);
    assert_eq!(outcomes, [Ok(&3), taken, Ok(&4), taken], "those that can take place do");
    for (id, name) in [("a", Some("x")), ("b", Some("y")), ("c", None), ("d", Some("z"))] {
        let found = get(&source, &entity, Key::String(id.into())).await;
        assert_eq!(found, name.map(|name| text(id, name)), "record {id}");
    }
    // Values can be given up and taken in one call.
    let units = vec![
        unit(&entity, Key::String("a".into()), Action::Patch(json!({"name": null}))),
        unit(&entity, Key::String("b".into()), Action::Patch(json!({"name": "x"}))),
        unit(&entity, Key::String("a".into()), Action::Patch(json!({"name": "y"}))),
    ];
    assert!(commit(&source, units).await.iter().all(Result::is_ok), "values are exchanged");
    db.drop().await;
}

#[tokio::test]
async fn a_statement_that_fails_late_in_an_exchange_is_not_missed() {
    let db = Database::new();
    let (product, entity) = (Sample::product(), with_second_unique_key(&db).await);
    let source = db.prepared(Role::Truth, &[&product, &entity]).await;
    let units = vec![
        put(&product, Sample::product_record(1)),
        put(&entity, text("a", "x")),
        put(&product, Sample::product_record(2)),
        put(&entity, text("b", "x")),
        put(&product, Sample::product_record(3)),
    ];
    let results = commit(&source, units).await;
    let outcomes: Vec<_> = results.iter().map(|r| r.as_ref().map_err(|e| e.kind())).collect();
    let taken = Err(ErrorKind::ConstraintViolated);
    assert_eq!(outcomes, [Ok(&2), Ok(&3), Ok(&4), taken, Ok(&5)]);
    for n in 1..=3 {
        let key = Key::String(format!("p{n}").into());
        assert!(get(&source, &product, key).await.is_some(), "product {n}");
    }
    let mut outside = db.outside().await;
    assert_eq!(column(&mut outside, "SELECT COUNT(*) FROM unisono_log").await, ["4"]);
    db.drop().await;
}

#[tokio::test]
async fn a_follower_never_replaces_another_row() {
    let db = Database::new();
    let entity = with_second_unique_key(&db).await;
    let source = db.prepared(Role::Follower, &[&entity]).await;
    let mut log = Changes::new();
    let changes: Vec<_> = [("a", "x"), ("b", "x"), ("c", "z")]
        .map(|(id, name)| log.put(&entity, text(id, name)))
        .into();
    let follower = Arc::clone(&source).follower().unwrap();
    let applied = follower.apply(common::batch(&entity, &changes, log.log)).await.unwrap();
    use unisono_core::source::Outcome::{Applied, Rejected};
    assert!(matches!(&applied.outcomes[..], [Applied, Rejected(_), Applied]), "{applied:?}");
    assert!(!applied.advanced, "the checkpoint stays before a change that was rejected");
    assert_eq!(get(&source, &entity, Key::String("a".into())).await, Some(text("a", "x")));
    db.drop().await;
}

#[tokio::test]
async fn keys_differ_by_blanks_case_accents_and_control_characters() {
    let db = Database::new();
    let entity = named(Field { unique: true, ..Field::new("name", FieldType::Text) });
    let source = db.prepared(Role::Truth, &[&entity]).await;
    let keys = ["a", "a ", "A", "á", "a\u{301}", "a\0", "a\u{1}", "a\u{1}\u{1}", "ａ", "ß", "ss"];
    let units = keys.iter().map(|key| put(&entity, text(key, key))).collect();
    assert!(commit(&source, units).await.iter().all(Result::is_ok), "unique values too");
    for key in keys {
        assert_eq!(
            get(&source, &entity, Key::String(key.into())).await,
            Some(text(key, key)),
            "{key:?}"
        );
    }
    db.drop().await;
}

#[tokio::test]
async fn batches_are_larger_than_a_packet_and_records_are_not() {
    let db = Database::new();
    let entity = named(Field::new("name", FieldType::Text));
    let source = db.prepared(Role::Truth, &[&entity]).await;
    let long = |bytes: usize| "é".repeat(bytes / 2);
    // The server takes packets of 16 MB.
    let units: Vec<_> =
        (0..12).map(|n| put(&entity, text(&n.to_string(), &long(3 << 20)))).collect();
    assert!(commit(&source, units).await.iter().all(Result::is_ok));
    let units = vec![put(&entity, text("small", "x")), put(&entity, text("big", &long(17 << 20)))];
    let results = commit(&source, units).await;
    assert!(results[0].is_ok(), "the others go on");
    let error = results[1].as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error:?}");
    assert!(error.hint_text().is_some_and(|h| h.contains("max_allowed_packet")), "{error:?}");
    let truth = Arc::clone(&source).truth().unwrap();
    let log = truth.read_log(Position::ZERO, 1000, 8 << 20).await.unwrap();
    assert!((2..=4).contains(&log.len()), "{} changes of 3 MB each in about 8 MB", log.len());
    assert_eq!(truth.read_log(log[log.len() - 1].position, 1, 1).await.unwrap().len(), 1);
    db.drop().await;
}

#[tokio::test]
async fn a_long_log_is_trimmed_in_pieces_and_a_long_history_is_walked() {
    let db = Database::new();
    let entity =
        thing(vec![Field::new("id", FieldType::Integer), Field::new("n", FieldType::Integer)]);
    let source = db.prepared(Role::Truth, &[&entity]).await;
    let record = |id, n| {
        Record::new(vec![unisono_core::Value::Integer(id), unisono_core::Value::Integer(n)])
    };
    for call in 0..12 {
        let units = (0..1000).map(|n| put(&entity, record(n % 2, call * 1000 + n))).collect();
        assert!(commit(&source, units).await.iter().all(Result::is_ok));
    }
    let truth = Arc::clone(&source).truth().unwrap();
    let history = truth.history(&entity, &Key::Integer(1), None, 700).await.unwrap();
    let positions: Vec<_> = history.iter().map(|c| c.position.as_u64()).collect();
    assert_eq!(positions, (0..700).map(|n| 12_000 - 2 * n).collect::<Vec<_>>());
    let through = Position::new(11_500).unwrap();
    assert_eq!(truth.trim(through, unisono_core::Timestamp::EPOCH).await.unwrap(), 11_500);
    let mut outside = db.outside().await;
    assert_eq!(column(&mut outside, "SELECT COUNT(*) FROM unisono_log").await, ["500"]);
    let history = truth.history(&entity, &Key::Integer(1), None, 700).await.unwrap();
    assert_eq!(history.len(), 250, "what was trimmed is not part of the history");
    db.drop().await;
}

/// A port before the server at which answers stop arriving when the flag is set, though the server's end stays open.
#[expect(clippy::disallowed_methods, reason = "a test's runtime is its own")]
async fn deaf_port(target: u16) -> (u16, Arc<AtomicBool>) {
    let deaf = Arc::new(AtomicBool::new(false));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let flag = Arc::clone(&deaf);
    let accept = async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(("127.0.0.1", target)).await.unwrap();
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            let flag = Arc::clone(&flag);
            tokio::spawn(async move {
                let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
                // The client's end of the connection is not passed on.
                std::future::pending::<()>().await;
            });
            tokio::spawn(async move {
                let mut buffer = vec![0; 64 << 10];
                while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
                    if !flag.load(Ordering::SeqCst) {
                        let _ = to_client.write_all(&buffer[..count]).await;
                    }
                }
            });
        }
    };
    tokio::spawn(accept);
    (port, deaf)
}

#[tokio::test]
async fn a_reader_that_cannot_be_reached_any_more_holds_up_nobody() {
    let db = Database::new();
    let entity = Sample::product();
    let (port, deaf) = deaf_port(3351).await;
    let url = db.url().replace(":3351/", &format!(":{port}/"));
    let mut options = db.options_with(&url, Some(&db.ca));
    let limit = OptionValue::Duration(std::time::Duration::from_secs(1));
    options.0.insert("request_timeout".into(), limit);
    let source = open(&options).await.unwrap();
    prepare(&source, Role::Truth, &[&entity]).await.unwrap();
    assert!(get(&source, &entity, Key::String("p1".into())).await.is_none());
    deaf.store(true, Ordering::SeqCst);
    let reader = Arc::clone(&source).reader().unwrap();
    let error = reader.query(&entity, &Query::all()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);

    let sql = format!("SET SESSION lock_wait_timeout = 40; DROP DATABASE `{}`", db.name);
    db.outside().await.query_drop(sql).await.unwrap();
}
