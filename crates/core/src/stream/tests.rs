use serde_json::json;

use super::*;
use crate::json as record_json;
use crate::time::Timestamp;

fn append(expected: Expected) -> (Arc<Entity>, Append) {
    let entity = Arc::new(entity("order").unwrap());
    let event =
        NewEvent::new("placed", json!({"n": 1})).record(&entity, "e1".into(), Timestamp::EPOCH);
    let append = Append { stream: "a".into(), expected, event, closes: false };
    (entity, append)
}

fn numbered(expected: Expected, last: Option<u64>) -> Result<u64, ErrorKind> {
    let (entity, append) = append(expected);
    let newest = last.map(|n| key("a", n).unwrap());
    let write = append.clone().write(&entity).unwrap();
    let position = Position::new(40).unwrap();
    let put = number(&write, &append, newest.as_ref(), position).map_err(|e| e.kind())?;
    let Action::Put(record) = &put.action else { panic!("a put") };
    entity.check(record).unwrap();
    assert_eq!(entity.key_of(record).unwrap(), put.key);
    assert_eq!(Event::of(record).unwrap().position, position);
    assert_eq!(put.condition, Condition::Absent);
    Ok(Event::of(record).unwrap().revision)
}

#[test]
fn an_append_follows_the_last_event_if_it_is_the_expected_one() {
    use Expected::*;
    assert_eq!(numbered(Any, Option::None), Ok(1));
    assert_eq!(numbered(Any, Some(7)), Ok(8));
    assert_eq!(numbered(None, Option::None), Ok(1));
    assert_eq!(numbered(None, Some(1)), Err(ErrorKind::VersionConflict));
    assert_eq!(numbered(Exists, Option::None), Err(ErrorKind::VersionConflict));
    assert_eq!(numbered(Exists, Some(3)), Ok(4));
    assert_eq!(numbered(Revision(3), Some(3)), Ok(4));
    assert_eq!(numbered(Revision(3), Some(2)), Err(ErrorKind::VersionConflict));
    assert_eq!(numbered(Revision(3), Some(4)), Err(ErrorKind::VersionConflict));
    assert_eq!(numbered(Any, Some(CLOSED)), Err(ErrorKind::StreamClosed));
}

#[test]
fn keys_of_a_stream_are_in_the_order_of_revisions_and_apart_from_other_streams() {
    let (first, last) = range("a").unwrap();
    for revision in [1, 9, 10, 99, 100, CLOSED] {
        let key = key("a", revision).unwrap();
        assert!(first <= key && key <= last, "{revision}");
        assert_eq!(revision_of(&key), Some(revision));
    }
    assert!(key("a", 9).unwrap() < key("a", 10).unwrap());
    assert!(key("a", 0).unwrap() < first, "the description is no event");
    for other in ["a0", "a-1", "A", "b", "a!"] {
        let key = key(other, 5).unwrap();
        assert!(key < first || key > last, "{other}");
    }
    for bad in ["", "a/1", "a\n", "_a", &"x".repeat(401)] {
        assert!(check_name(bad).is_err(), "{bad:?}");
    }
    assert!(key(&"x".repeat(STREAM_BYTES_MAX), CLOSED).is_ok());
}

#[test]
fn an_event_survives_its_cloud_event() {
    let json = json!({
        "id": "e1", "type": "placed", "data": {"total": "12.50"}, "tags": ["user:7"], "schema_version": 2,
        "time": "2026-01-02T03:04:05Z", "metadata": {"correlation": "c", "actor": "kim", "note": {"x": 1}},
    });
    let event = NewEvent::from_json(&json).unwrap();
    let entity = entity("order").unwrap();
    let mut record = event.record(&entity, "e1".into(), Timestamp::EPOCH);
    record.values_mut()[at::STREAM] = Value::String("a".into());
    let read = Event::of(&record).unwrap();
    assert_eq!(read.as_new(), event);
    let cloud = to_cloud(&read, "order");
    assert_eq!(cloud["subject"], "a");
    assert_eq!(cloud["correlationid"], "c");
    assert!(cloud.as_object().unwrap().keys().all(|k| k.bytes().all(|b| b.is_ascii_lowercase())));
    assert_eq!(from_cloud(&cloud).unwrap(), event);
    let parsed = record_json::parse(
        &entity,
        &json!({"key": "a/1", "stream": "a", "revision": 1, "id": "x", "type": "t",
        "time": "2026-01-02T03:04:05Z", "schema_version": 1}),
    );
    assert!(parsed.is_ok());
}

#[test]
fn what_is_no_event_is_refused_by_field() {
    for (json, field) in [
        (json!({"data": 1}), "type"),
        (json!({"type": "$x"}), "type"),
        (json!({"type": "x", "id": ""}), "id"),
        (json!({"type": "x", "tags": [1]}), "tags"),
        (json!({"type": "x", "nope": 1}), "nope"),
        (json!({"type": "x", "schema_version": 0}), "schema_version"),
    ] {
        let error = NewEvent::from_json(&json).unwrap_err();
        assert_eq!(error.detail("field"), Some(field), "{json}");
    }
    assert!(from_cloud(&json!({"specversion": "1.0", "type": "x"})).is_err(), "an id is needed");
}
