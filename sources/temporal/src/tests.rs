use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use temporalio_client::tonic::{Code, Status};
use temporalio_common::protos::temporal::api::common::v1::Payload;
use temporalio_common::protos::temporal::api::workflowservice::v1::StartWorkflowExecutionRequest;
use unisono_core::kind::{OptionValue, Options};
use unisono_core::write::{Action, Condition, Write};
use unisono_core::{
    Effect, Entity, ErrorKind, Field, FieldType, Key, Position, Record, Value, json as records,
};

use crate::codec::{arguments_to_json, attribute, payload, payload_to_json, time};
use crate::config;
use crate::error::translate;
use crate::intent::Intent;
use crate::layout::{Layout, Meaning};
use crate::locks::Locks;

fn entity_with(change: impl FnOnce(&mut Vec<Field>)) -> Arc<Entity> {
    let time = FieldType::Timestamp { precision: 6 };
    let mut fields = vec![
        Field::new("id", FieldType::String),
        Field::new("run_id", FieldType::Uuid),
        Field::new("status", FieldType::String),
        Field::new("history_length", FieldType::Integer),
        Field::new("type", FieldType::String),
        Field::new("task_queue", FieldType::String),
        Field::new("start_time", time),
        Field::new("memo", FieldType::Json),
        Field::new("input", FieldType::Json),
        Field::new("result", FieldType::Json),
        Field::new("signal", FieldType::Json),
        Field::new("customer", FieldType::String),
        Field::new("progress", FieldType::Json),
    ];
    change(&mut fields);
    Arc::new(Entity::new("order", "id", fields).unwrap())
}

fn entity() -> Arc<Entity> {
    entity_with(|_| {})
}

fn options(change: impl FnOnce(&mut BTreeMap<String, OptionValue>)) -> Options {
    let list = |text: &str| OptionValue::List(vec![text.to_owned()]);
    let mut all = BTreeMap::from([
        ("search_attributes".to_owned(), list("customer=CustomerId")),
        ("queries".to_owned(), list("progress")),
    ]);
    change(&mut all);
    Options(all)
}

fn layout() -> Layout {
    Layout::of(&entity(), &options(|_| {})).unwrap()
}

fn write(action: Action, condition: Condition) -> Write {
    Write { entity: entity(), key: Key::from_text("a").unwrap(), action, condition }
}

fn put(record: Json) -> Action {
    Action::Put(records::parse(&entity(), &record).unwrap())
}

fn intent(action: Action, condition: Condition) -> Result<Intent, ErrorKind> {
    Intent::of(&layout(), &write(action, condition)).map_err(|e| e.kind())
}

fn started(record: Json) -> StartWorkflowExecutionRequest {
    match intent(put(record), Condition::None).unwrap() {
        Intent::Start(request) => *request,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_put_becomes_a_start_with_everything_that_was_given() {
    let request = started(json!({
        "id": "a", "type": "Ship", "task_queue": "q", "input": [1, {"b": null}],
        "memo": {"note": "x"}, "customer": "c7",
    }));
    assert_eq!(request.workflow_type.unwrap().name, "Ship");
    assert_eq!(request.task_queue.unwrap().name, "q");
    assert_eq!(arguments_to_json(request.input.as_ref()), json!([1, {"b": null}]));
    assert_eq!(payload_to_json(&request.memo.unwrap().fields["note"]), json!("x"));
    let attributes = request.search_attributes.unwrap().indexed_fields;
    assert_eq!(payload_to_json(&attributes["CustomerId"]), json!("c7"));
}

#[test]
fn what_the_server_decides_cannot_be_given() {
    for field in ["status", "signal", "result", "progress", "start_time"] {
        let mut record = json!({"id": "a", "type": "Ship", "task_queue": "q"});
        record[field] = match field {
            "start_time" => json!("2026-01-01T00:00:00Z"),
            _ => json!("running"),
        };
        assert_eq!(intent(put(record), Condition::None), Err(ErrorKind::Unsupported), "{field}");
    }
    for record in [
        json!({"id": "a", "task_queue": "q"}),
        json!({"id": "a", "type": "Ship"}),
        json!({"id": "a", "type": "Ship", "task_queue": "q", "input": 3}),
        json!({"id": "a", "type": "Ship", "task_queue": "q", "memo": [1]}),
    ] {
        let found = intent(put(record.clone()), Condition::None);
        assert_eq!(found, Err(ErrorKind::InvalidInput), "{record}");
    }
}

#[test]
fn the_declared_type_and_queue_are_used_and_no_others() {
    let text = |t: &str| OptionValue::Text(t.to_owned());
    let options = options(|all| {
        all.insert("workflow_type".to_owned(), text("Ship"));
        all.insert("task_queue".to_owned(), text("q"));
    });
    let layout = Layout::of(&entity(), &options).unwrap();
    let of = |record| Intent::of(&layout, &write(put(record), Condition::Absent));
    let Ok(Intent::Start(request)) = of(json!({"id": "a"})) else { panic!("no start") };
    assert_eq!(request.workflow_type.unwrap().name, "Ship");
    assert_eq!(of(json!({"id": "a", "type": "Bill"})).unwrap_err().kind(), ErrorKind::InvalidInput);
    let scope = layout.scope("p-").join(" AND ");
    assert_eq!(scope, "WorkflowType = 'Ship' AND TaskQueue = 'q' AND WorkflowId STARTS_WITH 'p-'");
}

#[test]
fn patches_are_requests_and_nothing_else() {
    let patch = |patch| intent(Action::Patch(patch), Condition::None);
    let Ok(Intent::Signal(name, input)) =
        patch(json!({"signal": {"name": "approve", "input": [true]}}))
    else {
        panic!("no signal")
    };
    assert_eq!((name.as_str(), arguments_to_json(input.as_ref())), ("approve", json!([true])));
    assert_eq!(patch(json!({"signal": {"name": "go"}})), Ok(Intent::Signal("go".to_owned(), None)));
    assert_eq!(patch(json!({"status": "canceled"})), Ok(Intent::Cancel));
    assert_eq!(patch(json!({"status": "terminated"})), Ok(Intent::Terminate));
    assert_eq!(intent(Action::Delete, Condition::Present), Ok(Intent::Terminate));
    for wrong in [
        json!({}),
        json!({"status": "completed"}),
        json!({"memo": {}}),
        json!({"status": "canceled", "signal": {"name": "x"}}),
        json!([1]),
    ] {
        assert_eq!(patch(wrong.clone()), Err(ErrorKind::Unsupported), "{wrong}");
    }
    for wrong in [
        json!({"signal": "go"}),
        json!({"signal": {"input": []}}),
        json!({"signal": {"name": "go", "input": 3}}),
        json!({"signal": {"name": "go", "more": 1}}),
        json!({"nope": 1}),
    ] {
        assert_eq!(patch(wrong.clone()), Err(ErrorKind::InvalidInput), "{wrong}");
    }
}

#[test]
fn conditions_that_the_server_cannot_keep_are_refused() {
    let version = Condition::Version(Some(Position::new(3).unwrap()));
    for condition in [version, Condition::Absent, Condition::Version(None)] {
        assert_eq!(intent(Action::Delete, condition), Err(ErrorKind::Unsupported));
    }
    let record = json!({"id": "a", "type": "Ship", "task_queue": "q"});
    for condition in [version, Condition::Present] {
        assert_eq!(intent(put(record.clone()), condition), Err(ErrorKind::Unsupported));
    }
    for condition in [Condition::None, Condition::Absent, Condition::Version(None)] {
        assert!(intent(put(record.clone()), condition).is_ok());
    }
}

#[test]
fn a_declaration_that_workflows_cannot_fulfil_is_refused() {
    let wrong =
        |entity: Arc<Entity>| !Layout::of(&entity, &options(|_| {})).is_err_and(|p| p.len() == 1);
    let change = |name: &'static str, change: fn(&mut Field)| {
        entity_with(move |fields| change(fields.iter_mut().find(|f| *f.name == *name).unwrap()))
    };
    let cases = [
        ("no status", entity_with(|fields| fields.retain(|f| *f.name != *"status"))),
        ("unknown", entity_with(|fields| fields.push(Field::new("color", FieldType::String)))),
        ("type", change("status", |f| f.ty = FieldType::Integer)),
        ("key", change("id", |f| f.ty = FieldType::Integer)),
        ("unique", change("run_id", |f| f.unique = true)),
        ("required", change("result", |f| f.required = true)),
        ("rule", change("type", |f| f.max_length = Some(3))),
        ("default", change("status", |f| f.default = Some(Value::String("running".to_owned())))),
        ("attribute", change("customer", |f| f.ty = FieldType::Date)),
    ];
    for (name, entity) in cases {
        assert!(!wrong(entity), "{name}");
    }
    let list = |text: &str| OptionValue::List(vec![text.to_owned()]);
    for (option, value) in [
        ("queries", list("nope")),
        ("queries", list("id")),
        ("search_attributes", list("customer=")),
        ("workflow_type", OptionValue::Text("it's".to_owned())),
    ] {
        let options = options(|all| {
            all.insert(option.to_owned(), value);
        });
        let problems = Layout::of(&entity(), &options).unwrap_err();
        assert!(problems.iter().any(|(on, _)| *on == option), "{option}: {problems:?}");
    }
    let renamed = options(|all| {
        all.insert("queries".to_owned(), list("progress = how-far"));
    });
    let layout = Layout::of(&entity(), &renamed).unwrap();
    assert!(layout.meanings.contains(&Meaning::Query("how-far".to_owned())));
}

#[test]
fn a_new_state_is_told_by_run_status_and_length() {
    let layout = layout();
    let record = |run: u128, status: &str, length: i64| {
        let run = unisono_core::Uuid::from_u128(run).to_string();
        records::parse(
            &entity(),
            &json!({"id": "a", "run_id": run, "status": status, "history_length": length}),
        )
        .unwrap()
    };
    let same = |other: Record| layout.is_same_state(&record(1, "running", 3), &other);
    assert!(same(record(1, "running", 3)));
    assert!(!same(record(2, "running", 3)));
    assert!(!same(record(1, "paused", 3)));
    assert!(!same(record(1, "running", 4)));
}

#[test]
fn payloads_of_any_encoding_are_shown() {
    for value in [json!(null), json!("x"), json!({"a": [1.5, true]}), json!(u64::MAX)] {
        assert_eq!(payload_to_json(&payload(&value)), value);
    }
    let metadata = [("encoding".to_owned(), b"binary/encrypted".to_vec())].into();
    let sealed = Payload { metadata, data: vec![1, 2, 3], ..Default::default() };
    assert_eq!(payload_to_json(&sealed), json!({"encoding": "binary/encrypted", "data": "AQID"}));
}

#[test]
fn search_attributes_take_the_declared_type() {
    let of = |ty: &FieldType, value: Json| attribute(ty, &payload(&value)).map_err(|e| e.kind());
    let text = |t: &str| Value::String(t.to_owned());
    let seconds = FieldType::Timestamp { precision: 0 };
    let list = FieldType::List(Box::new(FieldType::String));
    assert_eq!(of(&FieldType::String, json!("a")), Ok(text("a")));
    assert_eq!(of(&FieldType::String, json!(["a"])), Ok(text("a")));
    assert_eq!(of(&FieldType::Integer, json!(i64::MIN)), Ok(Value::Integer(i64::MIN)));
    assert_eq!(of(&list, json!("a")), Ok(Value::List(vec![text("a")])));
    assert_eq!(of(&list, json!(["a", "b"])), Ok(Value::List(vec![text("a"), text("b")])));
    let at = of(&seconds, json!("2026-01-02T03:04:05.123456789Z"));
    assert_eq!(at, Ok(Value::Timestamp("2026-01-02T03:04:05Z".parse().unwrap())));
    assert_eq!(of(&FieldType::Integer, json!("a")), Err(ErrorKind::Corrupt));
    assert_eq!(
        time(&seconds, -1, 999_999_999),
        Value::Timestamp("1969-12-31T23:59:59Z".parse().unwrap())
    );
}

#[test]
fn wrong_options_are_found_before_anything_is_opened() {
    let of = |pairs: &[(&str, &str)]| {
        let text = |(name, text): &(&str, &str)| {
            ((*name).to_owned(), OptionValue::Text((*text).to_owned()))
        };
        config::check(&Options(pairs.iter().map(text).collect()))
    };
    let good = ("url", "https://temporal.example:7233");
    assert_eq!(of(&[good, ("api_key", "k"), ("prefix", "a-")]), []);
    for (wrong, on) in [
        (&[("url", "temporal.example:7233")][..], "url"),
        (&[("url", "grpc://temporal.example")], "url"),
        (&[("url", "https://me:secret@temporal.example")], "url"),
        (&[("url", "http://temporal.example"), ("api_key", "k")], "api_key"),
        (&[good, ("tls_key", "k.pem")], "tls_certificate"),
        (&[good, ("prefix", "it's")], "prefix"),
        (&[good, ("namespace", "")], "namespace"),
    ] {
        let problems = of(wrong);
        assert_eq!(problems.iter().map(|(on, _)| *on).collect::<Vec<_>>(), [on], "{problems:?}");
        assert!(!problems[0].1.contains("secret"));
    }
}

#[test]
fn a_failure_says_whether_the_request_can_have_taken_place() {
    let of = |code, message: &str| {
        let error = translate(&Status::new(code, message));
        (error.kind(), error.effect_on_data())
    };
    assert_eq!(of(Code::NotFound, ""), (ErrorKind::NotFound, Effect::None));
    assert_eq!(of(Code::InvalidArgument, ""), (ErrorKind::InvalidInput, Effect::None));
    assert_eq!(of(Code::DeadlineExceeded, ""), (ErrorKind::Timeout, Effect::Unknown));
    assert_eq!(of(Code::Unavailable, "tcp connect error"), (ErrorKind::Unavailable, Effect::None));
    let cut = of(Code::Unavailable, "connection reset by peer");
    assert_eq!(cut, (ErrorKind::Unavailable, Effect::Unknown));
}

#[tokio::test]
async fn locks_keep_the_same_keys_apart_and_others_together() {
    let (locks, key) = (Locks::new(), |n: i64| Key::Integer(n));
    let held = locks.hold(&[key(1), key(2), key(1)]).await;
    let third = [key(3)];
    let free = tokio::time::timeout(std::time::Duration::from_secs(5), locks.hold(&third));
    assert!(free.await.is_ok());
    let overlapping = [key(2), key(4)];
    let mut waits = std::pin::pin!(locks.hold(&overlapping));
    assert!(futures::poll!(waits.as_mut()).is_pending());
    drop(held);
    assert!(futures::poll!(waits.as_mut()).is_ready());
}
