//! Workflows started, signalled and ended by writes, and what others do with them.

use std::sync::Arc;

use crate::support::{CUSTOMER, Orders, Server, failed, open, text, unit, until};
use crate::worker::Worker;
use serde_json::{Value as Json, json};
use unisono_core::kind::OptionValue;
use unisono_core::query::{Aggregate, Filter, Metric, Path};
use unisono_core::write::{Action, Condition, Unit};
use unisono_core::{Effect, ErrorKind, Key, Position, Value};

#[tokio::test]
async fn a_workflow_is_a_record_from_its_start_to_its_result() {
    let server = Server::new().await;
    let (orders, _worker) = (server.orders().await, Worker::of(&server));
    let fields = json!({ "memo": { "note": "fragile" }, "input": [7, "x"], "customer": "c1" });
    let started = orders.start("a", fields.clone()).await;
    for field in ["memo", "input", "customer"] {
        assert_eq!(started[field], fields[field]);
    }
    assert_eq!(
        [&started["status"], &started["type"], &started["task_queue"]],
        [&json!("running"), &json!("Ship"), &json!(server.queue())]
    );
    assert_eq!(started["signal"], Json::Null, "a signal is written, never read");
    // The query is asked once a worker answers.
    let answered = |n: u64| move |record: &Json| record["progress"] == json!({ "signals": n });
    let read = async || orders.get("a").await.unwrap();
    until(read, answered(0)).await;
    orders.patch("a", json!({ "signal": { "name": "note", "input": [1] } })).await.unwrap();
    until(read, answered(1)).await;
    assert_eq!(orders.with_status("running").await.unwrap(), ["a"]);

    let finish = json!({ "signal": { "name": "finish", "input": [{ "parcel": 12 }] } });
    orders.patch("a", finish).await.unwrap();
    let done = until(read, |record| record["status"] == "completed").await;
    assert_eq!((&done["result"], &done["failure"]), (&json!({ "parcel": 12 }), &Json::Null));
    assert_eq!(done["run_id"], started["run_id"]);
    assert!(done["close_time"].as_str() > done["start_time"].as_str(), "{done}");
    assert!(orders.with_status("running").await.unwrap().is_empty());
    let page = orders
        .truth
        .history(&orders.entity, &Key::from_text("a").unwrap(), None, 100)
        .await
        .unwrap();
    let states: Vec<_> = page.iter().rev().map(|change| orders.image(change)).collect();
    assert_eq!(states.first().unwrap()["history_length"], started["history_length"]);
    assert_eq!(states.last().unwrap(), &done);
}

#[tokio::test]
async fn workflows_end_in_every_way() {
    let server = Server::new().await;
    let (orders, _worker) = (server.orders().await, Worker::of(&server));
    for key in ["canceled", "deleted", "failed", "terminated"] {
        orders.start(key, json!({})).await;
    }
    orders.patch("canceled", json!({ "status": "canceled" })).await.unwrap();
    orders.patch("failed", json!({ "signal": { "name": "fail" } })).await.unwrap();
    let ended = orders.patch("terminated", json!({ "status": "terminated" })).await.unwrap();
    assert_eq!(ended["status"], "terminated", "a write shows what it did");
    let ended = orders.commit_one("deleted", Action::Delete, Condition::Present).await.unwrap();
    assert_eq!(ended["status"], "terminated", "the history of a workflow stays");
    for (key, status) in [("canceled", "canceled"), ("failed", "failed")] {
        let read = async || orders.with_status(status).await.unwrap();
        until(read, |keys| *keys == [key]).await;
    }
    assert_eq!(orders.with_status("terminated").await.unwrap(), ["deleted", "terminated"]);
    assert_eq!(orders.get("failed").await.unwrap()["failure"]["message"], "out of stock");
    assert_eq!(orders.get("canceled").await.unwrap()["failure"]["message"], "canceled");
    let count = orders.reader.count(&orders.entity, &Filter::All, None).await.unwrap();
    assert_eq!(count.value, 4);
    let by_status = Aggregate {
        filter: Filter::All,
        unnest: None,
        group_by: vec![Path::whole(orders.entity.index_of("status").unwrap())],
        metrics: vec![("n".to_owned(), Metric::Count)],
        order: Vec::new(),
        limit: 10,
    };
    let groups = orders.reader.aggregate(&orders.entity, &by_status).await.unwrap().value.groups;
    let groups: Vec<_> = groups.iter().map(|g| (g.keys[0].as_str(), &g.metrics[0])).collect();
    let one = &Value::Integer(1);
    let expected =
        [(Some("canceled"), one), (Some("failed"), one), (Some("terminated"), &Value::Integer(2))];
    assert_eq!(groups, expected);
}

#[tokio::test]
async fn what_cannot_be_done_says_so_and_leaves_no_trace() {
    let server = Server::new().await;
    let orders = server.orders().await;
    orders.start("a", json!({})).await;
    orders.start("over", json!({})).await;
    orders.patch("over", json!({ "status": "terminated" })).await.unwrap();
    let head = orders.head().await;
    let signal = || Action::Patch(json!({ "signal": { "name": "go" } }));
    let version = Condition::Version(Some(Position::new(1).unwrap()));
    use Condition::{Absent, None, Present};
    use ErrorKind::{
        AlreadyExists, ConstraintViolated, InvalidInput, NotFound, Unsupported, VersionConflict,
    };
    let put = |key: &str| orders.put(key, json!({}));
    for (key, action, condition, kind) in [
        ("a", put("a"), Absent, AlreadyExists),
        ("a", put("a"), Condition::Version(Option::None), VersionConflict),
        ("a", put("a"), None, Unsupported),
        ("a", put("a"), Present, Unsupported),
        ("over", put("over"), Absent, AlreadyExists),
        ("a", signal(), version, Unsupported),
        ("b", signal(), None, NotFound),
        ("b", signal(), Present, VersionConflict),
        ("b", Action::Delete, None, NotFound),
        ("over", signal(), None, ConstraintViolated),
        ("over", Action::Patch(json!({ "status": "canceled" })), None, ConstraintViolated),
        ("over", Action::Delete, Present, ConstraintViolated),
        ("b", orders.put("b", json!({ "status": "running" })), None, Unsupported),
        ("b", orders.put("b", json!({ "task_queue": "other" })), None, InvalidInput),
        ("b", orders.put("b", json!({ "input": { "not": "a list" } })), None, InvalidInput),
    ] {
        let case = format!("{key} {action:?} {condition:?}");
        let error = orders.commit_one(key, action, condition).await.expect_err(&case);
        assert_eq!(error.kind(), kind, "{case}: {error:?}");
        assert_eq!((error.source_name(), error.entity()), (Some("flows"), Some("order")), "{case}");
        assert_eq!(error.effect_on_data(), Effect::None, "{case}");
    }
    let both = Unit {
        writes: ["c", "d"].map(|key| orders.write(key, put(key), None)).to_vec(),
        ..unit(orders.write("c", put("c"), None), Option::None)
    };
    assert_eq!(failed(orders.commit(both).await).kind(), Unsupported);
    assert_eq!(orders.log(head).await, []);
    for key in ["b", "c", "d"] {
        assert_eq!(orders.get(key).await.unwrap(), Json::Null, "{key}");
    }
}

#[tokio::test]
async fn units_of_one_call_are_committed_in_order_and_fail_alone() {
    let server = Server::new().await;
    let orders = server.orders().await;
    let start =
        |key: &str| unit(orders.write(key, orders.put(key, json!({})), Condition::Absent), None);
    let patch =
        |key: &str, patch| unit(orders.write(key, Action::Patch(patch), Condition::None), None);
    let units = vec![
        start("a"),
        start("b"),
        start("a"),
        patch("a", json!({ "signal": { "name": "go" } })),
        patch("missing", json!({ "status": "canceled" })),
        patch("b", json!({ "status": "terminated" })),
    ];
    let results = orders.truth.commit(units).await.unwrap();
    let kinds: Vec<_> = results.iter().map(|r| r.as_ref().err().map(|e| e.kind())).collect();
    let (exists, missing) = (Some(ErrorKind::AlreadyExists), Some(ErrorKind::NotFound));
    assert_eq!(kinds, [None, None, exists, None, missing, None]);
    let mut last = Position::ZERO;
    for change in results.iter().flatten().flat_map(|committed| &committed.changes) {
        assert!(change.position > last, "in the order of the units");
        last = change.position;
    }
    let states: Vec<_> = orders.log(Position::ZERO).await;
    let of_b: Vec<_> = states.iter().filter(|(key, _)| key == "b").collect();
    assert_eq!(of_b.last().unwrap().1["status"], "terminated");
}

#[tokio::test]
async fn a_request_that_is_sent_again_takes_place_once() {
    let server = Server::new().await;
    let orders = server.orders().await;
    // What the server carried out and the journal never heard of is repeated as well: with a journal of its own.
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = open(&server.options, &folder).await.unwrap();
    let elsewhere = Orders::of(elsewhere, &server.declared()).await;
    let signal = || Action::Patch(json!({ "signal": { "name": "go", "input": [1] } }));
    let cancel = || Action::Patch(json!({ "status": "canceled" }));
    for (n, action) in
        [orders.put("a", json!({})), signal(), cancel(), Action::Delete].into_iter().enumerate()
    {
        let name = format!("{}request{n}", server.id(""));
        let again = |fingerprint| Some((name.as_str(), fingerprint));
        let write = || orders.write("a", action.clone(), Condition::None);
        let first = orders.commit(unit(write(), again(1))).await.unwrap();
        let repeated = orders.commit(unit(write(), again(1))).await.unwrap();
        assert!(!first.replayed && repeated.replayed);
        assert_eq!(first.changes, repeated.changes);
        let reused = failed(orders.commit(unit(write(), again(2))).await);
        assert_eq!(reused.kind(), ErrorKind::IdempotencyKeyReused);
        let before = orders.get("a").await.unwrap();
        let unheard = elsewhere.commit(unit(write(), again(1))).await.unwrap();
        assert!(!unheard.replayed, "another journal");
        assert_eq!(elsewhere.image(&unheard.changes[0]), before, "request {n}");
    }
    // Without the key of the request it is another one.
    let error = failed(orders.commit_one("a", Action::Delete, Condition::None).await);
    assert_eq!(error.kind(), ErrorKind::ConstraintViolated);
}

#[tokio::test]
async fn what_others_do_comes_into_the_log() {
    let server = Server::new().await;
    let (orders, others) = (server.orders().await, tempfile::tempdir().unwrap());
    let others = open(&server.options, &others).await.unwrap();
    let others = Orders::of(others, &server.declared()).await;
    let _worker = Worker::of(&server);
    let seen = async |key: &str, is_right: &dyn Fn(&Json) -> bool| {
        let last = async || {
            let log = orders.log(Position::ZERO).await;
            log.into_iter().rfind(|(of, _)| of == key).map(|(_, image)| image)
        };
        until(last, |image| image.as_ref().is_some_and(is_right)).await.unwrap()
    };
    for key in ["a", "b", "c"] {
        others.start(key, json!({ "customer": key })).await;
        let found = seen(key, &|image| image["progress"] == json!({ "signals": 0 })).await;
        assert_eq!((&found["customer"], &found["status"]), (&json!(key), &json!("running")));
    }
    server.signal("a", "note").await;
    seen("a", &|image| image["progress"] == json!({ "signals": 1 })).await;
    let run = orders.get("b").await.unwrap()["run_id"].clone();
    server.signal("b", "again").await;
    // The new run has no signal.
    seen("b", &|image| image["run_id"] != run && image["progress"] == json!({ "signals": 0 }))
        .await;
    server.terminate("c").await;
    let ended = seen("c", &|image| image["status"] == "terminated").await;
    assert_eq!(ended["failure"]["message"], "by others");
    server.delete("c").await;
    seen("c", &Json::is_null).await;
    assert_eq!(orders.get("c").await.unwrap(), Json::Null);
    assert_eq!(orders.with_status("running").await.unwrap(), ["a", "b"]);
}

#[tokio::test]
async fn what_others_did_meanwhile_is_seen_after_the_start() {
    let server = Server::new().await;
    let orders = server.orders().await;
    for key in ["ends", "stays"] {
        orders.start(key, json!({})).await;
    }
    let head = orders.head().await;
    orders.source.close().await.unwrap();
    let error = failed(orders.get("stays").await);
    assert_eq!((error.kind(), error.source_name()), (ErrorKind::Unavailable, Some("flows")));

    server.terminate("ends").await;
    let elsewhere = tempfile::tempdir().unwrap();
    let elsewhere = open(&server.options, &elsewhere).await.unwrap();
    let elsewhere = Orders::of(elsewhere, &server.declared()).await;
    elsewhere.start("began", json!({})).await;
    elsewhere.start("short", json!({})).await;
    elsewhere.patch("short", json!({ "status": "terminated" })).await.unwrap();
    // The visibility store tells what is so a little later.
    let told = async || elsewhere.with_status("terminated").await.unwrap();
    until(told, |keys| *keys == ["ends", "short"]).await;

    let orders = server.orders().await;
    assert_eq!(orders.with_status("terminated").await.unwrap(), ["ends", "short"]);
    assert_eq!(orders.with_status("running").await.unwrap(), ["began", "stays"]);
    let mut news: Vec<_> = orders.log(head).await.into_iter().map(|(key, _)| key).collect();
    news.sort();
    assert_eq!(news, ["began", "ends", "short"], "what was known is not told again");
}

#[tokio::test]
async fn workflows_of_another_queue_or_type_or_prefix_are_no_records() {
    let server = Server::new().await;
    let orders = server.orders().await;
    let mut declared = server.declared();
    declared.0.insert("task_queue".to_owned(), text(format!("{}other", server.queue())));
    declared.0.insert("workflow_type".to_owned(), text("Bill"));
    let folder = tempfile::tempdir().unwrap();
    let bills = open(&server.options, &folder).await.unwrap();
    let bills = Orders::of(bills, &declared).await;
    let bill = bills.put("bill", json!({ "type": "Bill" }));
    bills.commit_one("bill", bill, Condition::Absent).await.unwrap();
    orders.start("order", json!({})).await;
    let lists = async || {
        let (orders, bills) = (orders.with_status("running"), bills.with_status("running"));
        (orders.await.unwrap(), bills.await.unwrap())
    };
    let expected = (vec!["order".to_owned()], vec!["bill".to_owned()]);
    until(lists, |lists| *lists == expected).await;
    assert_eq!(orders.get("bill").await.unwrap(), Json::Null);
    let error = failed(orders.commit_one("bill", Action::Delete, Condition::None).await);
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let error =
        failed(orders.commit_one("bill", orders.put("bill", json!({})), Condition::Absent).await);
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "its id is taken all the same");
    assert_eq!(bills.get("bill").await.unwrap()["status"], "running");
}

#[tokio::test]
async fn a_field_that_is_declared_later_is_filled_for_all() {
    let server = Server::new().await;
    let _worker = Worker::of(&server);
    let mut declared = server.declared();
    let orders = server.orders().await;
    orders.start("open", json!({ "input": [1] })).await;
    orders.start("over", json!({ "input": [2] })).await;
    orders.patch("over", json!({ "signal": { "name": "finish", "input": [3] } })).await.unwrap();
    until(async || orders.with_status("completed").await.unwrap(), |keys| *keys == ["over"]).await;
    orders.source.close().await.unwrap();
    // The same field now stands for something else.
    let list = vec![format!("customer={}", CUSTOMER)];
    let queries = vec!["result=progress".to_owned(), "progress".to_owned()];
    for (option, list) in [("search_attributes", list), ("queries", queries)] {
        declared.0.insert(option.to_owned(), OptionValue::List(list));
    }
    let orders = Orders::of(server.source().await.unwrap(), &declared).await;
    assert_eq!(orders.with_status("running").await.unwrap(), ["open"]);
    let log = orders.log(Position::ZERO).await;
    for (key, signals) in [("open", 0), ("over", 1)] {
        let (_, last) = log.iter().rfind(|(of, _)| of == key).unwrap();
        assert_eq!(last["result"], json!({ "signals": signals }), "{key}");
    }
}

#[tokio::test]
async fn preparing_again_changes_nothing() {
    let server = Server::new().await;
    let orders = server.orders().await;
    orders.start("a", json!({})).await;
    let head = orders.head().await;
    assert_eq!(
        orders.source.prepare(&[orders.binding(&server.declared())]).await.unwrap(),
        Vec::<String>::new()
    );
    assert_eq!(orders.with_status("running").await.unwrap(), ["a"]);
    assert_eq!(orders.head().await, head);
    let probe = Arc::clone(&orders.source).probe().await.unwrap();
    assert!(probe.engine.starts_with("Temporal 1."), "{}", probe.engine);
}
