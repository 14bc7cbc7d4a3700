//! Following: versions decide whatever the engine forgets, and each write has an outcome of its own.

use reqwest::Method;
use serde_json::{Value as Json, json};
use unisono_core::source::{Advance, Batch, Checkpoint, Outcome};
use unisono_core::{ErrorKind, Position, Value};
use unisono_testkit::Sample;

use crate::server::{Followed, Server, binding, words};

fn product(id: &str, stock: i64) -> unisono_core::Record {
    Sample::record(&Sample::product(), &json!({"id": id, "name": "lamp", "stock": stock}))
}

#[tokio::test]
async fn a_deletion_outlives_the_memory_of_the_engine() {
    let server = Server::new();
    let mut followed = server.follow(&Sample::product()).await;
    let entity = followed.entity.clone();
    let put = followed.changes.put(&entity, product("a", 1));
    let late = followed.changes.put(&entity, product("a", 2));
    let delete = followed.changes.delete(&entity, &Sample::key("a"));
    let head = followed.changes.head();
    // The engine forgets deletions at once.
    server.ask(Method::PUT, "product/_settings", json!({"index.gc_deletes": "0s"})).await;
    assert_eq!(followed.apply(&[put]).await, ["applied"]);
    assert_eq!(followed.apply(&[delete]).await, ["applied"]);
    for index in ["product/_flush?force=true", "product/_forcemerge?max_num_segments=1"] {
        server.ask(Method::POST, index, Json::Null).await;
    }
    assert_eq!(followed.apply(std::slice::from_ref(&late)).await, ["stale"], "a late change");
    assert!(followed.get(&late.key).await.is_none());
    // Once the checkpoint has come to it, the document that remembers it goes away with the next batch.
    let remembered = json!({"exists": {"field": "deleted"}});
    followed.advance(&[], head).await;
    assert_eq!(server.count("product", remembered.clone()).await, 1);
    let other = followed.changes.put(&entity, product("b", 1));
    let position = followed.changes.head();
    followed.advance(&[other], position).await;
    assert_eq!(server.count("product", remembered).await, 0);
    assert_eq!(server.count("product", json!({"match_all": {}})).await, 1);
    server.wipe().await;
}

#[tokio::test]
async fn deletions_of_an_earlier_process_are_let_go_of_too() {
    let server = Server::new();
    let mut followed = server.follow(&Sample::product()).await;
    let entity = followed.entity.clone();
    let delete = followed.changes.delete(&entity, &Sample::key("a"));
    let again = followed.changes.put(&entity, product("b", 1));
    let gone = followed.changes.delete(&entity, &Sample::key("b"));
    let back = followed.changes.put(&entity, product("b", 2));
    let head = followed.changes.head();
    assert_eq!(followed.apply(&[delete, again]).await, ["applied"; 2]);
    assert_eq!(followed.apply(&[gone]).await, ["applied"]);
    assert_eq!(followed.apply(&[back]).await, ["applied"]);
    followed.advance(&[], head).await;
    followed.source.close().await.unwrap();
    let checkpoint = followed.checkpoint.clone();
    let mut followed = server.follow(&entity).await;
    followed.checkpoint = checkpoint;
    followed.advance(&[], head.next()).await;
    assert_eq!(server.count("product", json!({"exists": {"field": "deleted"}})).await, 0);
    assert!(followed.get(&Sample::key("b")).await.is_some(), "a record that came back is gone");
    server.wipe().await;
}

#[tokio::test]
async fn each_write_has_its_own_outcome() {
    let server = Server::new();
    let mut followed = server.follow(&Sample::product()).await;
    let entity = followed.entity.clone();
    let old = followed.changes.put(&entity, product("a", 1));
    let new = followed.changes.put(&entity, product("a", 2));
    let other = followed.changes.put(&entity, product("b", 1));
    assert_eq!(followed.apply(std::slice::from_ref(&new)).await, ["applied"]);
    assert_eq!(followed.apply(&[old, other.clone(), new]).await, ["stale", "applied", "stale"]);
    let next = followed.changes.put(&entity, product("b", 2));
    let position = followed.changes.head();
    let to = Checkpoint { log: followed.changes.log, position, backfill: None };
    let advance = Some(Advance { from: None, to });
    let batch = Batch { advance, ..followed.batch(&[next]) };
    // A full disk makes the engine block writes.
    let block = |on: bool| json!({"index.blocks.read_only_allow_delete": on.then_some(true)});
    server.ask(Method::PUT, "product/_settings", block(true)).await;
    let applied = followed.follower().apply(batch.clone()).await.unwrap();
    let [Outcome::Retry(error)] = applied.outcomes.as_slice() else { panic!("{applied:?}") };
    assert!(error.hint_text().is_some_and(|hint| hint.contains("disks")), "{error:?}");
    assert!(!applied.advanced);
    server.ask(Method::PUT, "product/_settings", block(false)).await;
    let applied = followed.follower().apply(batch).await.unwrap();
    assert_eq!((words(&applied), applied.advanced), (vec!["applied"], true));
    server.wipe().await;
}

#[tokio::test]
async fn a_record_that_the_index_refuses_lets_the_others_through() {
    let server = Server::new();
    let mut followed = server.follow(&Sample::product()).await;
    let entity = followed.entity.clone();
    // Somebody made the index by hand, with a mapping of their own.
    let index = server.behind("product").await.remove(0);
    server.ask(Method::DELETE, &index, Json::Null).await;
    let entrance = format!("{}{index}-in", server.option("prefix"));
    let stock = json!({"properties": {"stock": {"type": "boolean"}}});
    let by_hand = json!({
        "settings": {"number_of_replicas": 0},
        "mappings": {"properties": {"indexed": stock}},
        "aliases": {entrance: {}},
    });
    server.ask(Method::PUT, &index, by_hand).await;
    let refused = followed.changes.put(&entity, product("a", 5));
    let good = Sample::record(&entity, &json!({"id": "b", "name": "lamp"}));
    let good = followed.changes.put(&entity, good);
    let to =
        Checkpoint { log: followed.changes.log, position: followed.changes.head(), backfill: None };
    let advance = Some(Advance { from: None, to });
    let batch = Batch { advance, ..followed.batch(&[refused, good]) };
    let applied = followed.follower().apply(batch).await.unwrap();
    assert_eq!((words(&applied), applied.advanced), (vec!["rejected", "applied"], false));
    let Some(Outcome::Rejected(error)) = applied.outcomes.first() else { panic!("{applied:?}") };
    assert!(error.detail("reason").is_some_and(|reason| reason.contains("stock")), "{error:?}");
    assert!(followed.get(&Sample::key("b")).await.is_some());
    server.wipe().await;
}

#[tokio::test]
async fn an_index_that_was_deleted_is_not_made_by_writing() {
    let server = Server::new();
    let mut followed = server.follow(&Sample::product()).await;
    let entity = followed.entity.clone();
    let first = followed.changes.put(&entity, product("a", 1));
    followed.advance(std::slice::from_ref(&first), Position::new(1).unwrap()).await;
    let index = server.behind("product").await.remove(0);
    server.ask(Method::DELETE, &index, Json::Null).await;
    let second = followed.changes.put(&entity, product("b", 1));
    let error = followed.follower().apply(followed.batch(&[second])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    let error = followed.reader().get(&entity, &[Sample::key("a")]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert_eq!(server.behind("product*").await, Vec::<String>::new(), "it was made by itself");
    assert_eq!(followed.stored_checkpoint().await, None, "the checkpoint is of the lost index");
    let report = followed.source.prepare(&[crate::server::binding(&entity)]).await.unwrap();
    assert!(report.iter().any(|line| line.contains("was deleted")), "{report:?}");
    followed.checkpoint = None;
    followed.advance(&[first], Position::new(1).unwrap()).await;
    assert!(followed.get(&Sample::key("a")).await.is_some());
    server.wipe().await;
}

#[tokio::test]
async fn what_was_changed_by_hand_is_repaired_and_followed_on() {
    let server = Server::new();
    let mut followed = server.follow(&Sample::product()).await;
    let entity = followed.entity.clone();
    let changes: Vec<_> =
        ["a", "b", "c"].map(|id| followed.changes.put(&entity, product(id, 1))).into();
    assert_eq!(followed.apply(&changes).await, ["applied"; 3]);
    let [a, b, _] = ["a", "b", "c"].map(Sample::key);
    // The engine counts each change by hand as a version.
    let edit = json!({"doc": {"record": {"stock": 99}}});
    for id in ["a", "a", "a", "a", "a", "c", "c", "c"] {
        server.ask(Method::POST, &format!("product/_update/{id}"), edit.clone()).await;
    }
    server.ask(Method::DELETE, "product/_doc/b", Json::Null).await;
    let stock =
        |stored: unisono_core::Stored| (stored.version.as_u64(), stored.record.values()[4].clone());
    let edited = followed.get(&a).await.map(stock);
    assert_eq!(edited, Some((1, Value::Integer(99))), "the version is the record's own");
    // A copy of the truth repairs both.
    let copies = Batch { copied: true, ..followed.batch(&changes[..2]) };
    let applied = followed.follower().apply(copies).await.unwrap();
    assert_eq!(words(&applied), ["applied"; 2]);
    assert_eq!(followed.get(&a).await.map(stock), Some((1, Value::Integer(1))));
    assert_eq!(followed.get(&b).await.map(stock), Some((2, Value::Integer(1))));
    // News come through although the engine has counted further, and old news do not.
    let old = followed.changes.put(&entity, product("c", 4));
    let new = followed.changes.put(&entity, product("c", 5));
    assert_eq!(followed.apply(std::slice::from_ref(&new)).await, ["applied"]);
    assert_eq!(followed.apply(&[old, new]).await, ["stale", "stale"]);
    let found = followed.get(&Sample::key("c")).await.map(stock);
    assert_eq!(found, Some((5, Value::Integer(5))));
    server.wipe().await;
}

#[tokio::test]
async fn a_copy_in_order_costs_no_refresh_and_misses_nothing() {
    let server = Server::new();
    let mut followed = server.follow(&Sample::product()).await;
    let entity = followed.entity.clone();
    // From here on searches see what they are made to see.
    server.ask(Method::PUT, "product/_settings", json!({"index.refresh_interval": "-1"})).await;
    let refreshes = async || {
        let stats = server.ask(Method::GET, "product/_stats/refresh", Json::Null).await;
        stats["_all"]["primaries"]["refresh"]["external_total"].as_u64().unwrap()
    };
    let after = async |source: &Followed, after: Option<&str>| {
        let after = after.map(Sample::key);
        let page = source.auditor().scan(&entity, after.as_ref(), 100).await.unwrap().value;
        page.records.iter().map(|stored| stored.key.to_string()).collect::<Vec<_>>()
    };
    assert!(after(&followed, None).await.is_empty());
    let before = refreshes().await;
    for step in ["d", "h", "m"] {
        let put = followed.changes.put(&entity, product(step, 1));
        let head = followed.changes.head();
        followed.advance(&[put], head).await;
        assert!(after(&followed, Some(step)).await.is_empty());
    }
    assert_eq!(refreshes().await, before, "nothing was written after the keys that were looked at");
    assert_eq!(after(&followed, Some("d")).await, ["h", "m"]);
    let put = followed.changes.put(&entity, product("f", 1));
    followed.apply(&[put]).await;
    assert_eq!(after(&followed, Some("d")).await, ["f", "h", "m"]);
    // Another process writes and moves the checkpoint.
    let source = server.open_with(&[]).await.unwrap();
    source.prepare(&[binding(&entity)]).await.unwrap();
    let put = followed.changes.put(&entity, product("z", 1));
    let head = followed.changes.head();
    let first = std::mem::replace(&mut followed.source, source);
    followed.advance(&[put], head).await;
    followed.source = first;
    assert_eq!(after(&followed, Some("m")).await, ["z"]);
    server.wipe().await;
}
