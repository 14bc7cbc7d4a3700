//! What is found in records and patches, and which declarations make no sense.

use serde_json::{Value as Json, json};

use super::*;
use crate::entity::Field;
use crate::json as records;

fn entity() -> Entity {
    let fields = vec![
        Field::new("id", FieldType::String),
        Field::new("name", FieldType::String),
        Field::new("profile", FieldType::Json),
        Field::new("age", FieldType::Integer),
        Field { index: true, ..Field::new("code", FieldType::String) },
    ];
    Entity::new("person", "id", fields).unwrap()
}

fn swapped(json: Json) -> (Json, Vec<String>) {
    let entity = entity();
    let personal = Personal::new(&entity, &["name", "profile.mail"], "id").unwrap();
    let mut record = records::parse(&entity, &json).unwrap();
    let mut found = Vec::new();
    let visited = personal.visit(&entity, &mut record, |n, slot| {
        found.push(slot.clear());
        slot.seal(&n.to_string());
        Ok(())
    });
    visited.unwrap();
    let sealed = records::to_json(&entity, &record);
    let mut clear = found.clone().into_iter();
    let opened = personal.visit(&entity, &mut record, |_, slot| {
        assert!(slot.sealed().is_some());
        slot.open(clear.next())
    });
    opened.unwrap();
    assert_eq!(record, records::parse(&entity, &json).unwrap());
    (sealed, found)
}

#[test]
fn personal_values_are_put_away_and_back_wherever_they_are() {
    let (sealed, found) =
        swapped(json!({"id": "7", "name": "Kim", "profile": {"mail": ["a", 1], "x": 2}}));
    assert_eq!(found, ["Kim", r#"["a",1]"#]);
    assert_eq!(sealed["name"], "unisono:p1:0");
    assert_eq!(sealed["profile"], json!({"mail": "unisono:p1:1", "x": 2}));
    assert!(swapped(json!({"id": "7", "profile": {"x": 2}})).1.is_empty());
    assert!(swapped(json!({"id": "7"})).1.is_empty());
}

#[test]
fn what_would_hide_a_personal_member_is_refused() {
    let entity = entity();
    let personal = Personal::new(&entity, &["profile.mail"], "id").unwrap();
    let record = records::parse(&entity, &json!({"id": "7", "profile": [{"mail": "m"}]})).unwrap();
    let refused = personal.check(&entity, &record).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    assert_eq!(refused.detail("field"), Some("profile.mail"));
    assert!(personal.check_patch(&entity, &json!({"profile": {"mail": [1]}})).is_ok());
    assert!(personal.check_patch(&entity, &json!({"profile": 7})).is_err());
}

#[test]
fn a_patch_says_which_places_it_names() {
    let entity = entity();
    let personal = Personal::new(&entity, &["name", "profile.mail"], "id").unwrap();
    let mail = &personal.fields[1];
    for (patch, named) in [
        (json!({"profile": {"mail": null}}), true),
        (json!({"profile": null}), true),
        (json!({"profile": {"x": 1}}), false),
        (json!({"name": "x"}), false),
    ] {
        assert_eq!(Personal::is_named(&entity, &patch, mail), named, "{patch}");
    }
    let mut patch = json!({"name": "Kim", "profile": {"mail": "m", "x": 1}, "age": 3});
    let sealed = personal.visit_patch(&entity, &mut patch, |n, slot| {
        slot.seal(&format!("{n}{}", slot_text(n)));
        Ok(())
    });
    sealed.unwrap();
    assert_eq!(patch["name"], "unisono:p1:0a");
    assert_eq!(patch["profile"], json!({"mail": "unisono:p1:1b", "x": 1}));
}

fn slot_text(n: usize) -> &'static str {
    if n == 0 { "a" } else { "b" }
}

#[test]
fn declarations_that_cannot_work_are_refused() {
    let entity = entity();
    for (fields, subject) in [
        (&["nope"][..], "id"),
        (&["id"], "id"),
        (&["age"], "id"),
        (&["code"], "id"),
        (&["name", "name"], "id"),
        (&["profile", "profile.mail"], "id"),
        (&["profile"], "profile.user"),
        (&["name.first"], "id"),
        (&["name"], "nope"),
        (&[], "id"),
    ] {
        let refused = Personal::new(&entity, fields, subject).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidConfig, "{fields:?} {subject}");
    }
    let events = crate::stream::entity("order").unwrap();
    assert!(Personal::new(&events, &["data.address"], "data.user").is_ok());
    assert!(Personal::new(&events, &["data.address"], "stream").is_ok());
    assert!(Personal::new(&events, &["type"], "stream").is_err());
}

#[test]
fn questions_about_a_personal_value_are_known() {
    let entity = entity();
    let personal = Personal::new(&entity, &["name", "profile.mail"], "id").unwrap();
    let below = |steps: &[&str]| Path {
        field: 2,
        step: Step::Json(steps.iter().map(|s| (*s).to_owned()).collect()),
    };
    assert!(personal.covers(&Path::whole(1)));
    assert!(personal.covers(&below(&["mail"])) && personal.covers(&below(&["mail", "host"])));
    assert!(personal.covers(&Path::whole(2)));
    assert!(!personal.covers(&below(&["x"])) && !personal.covers(&Path::whole(0)));
}
