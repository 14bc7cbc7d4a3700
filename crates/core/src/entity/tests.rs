use serde_json::json;

use super::*;
use crate::fixtures;

#[test]
fn names_have_one_form() {
    for name in ["a", "order_2", "a_", "unisonox", &"a".repeat(48)] {
        assert!(check_name(name).is_ok(), "{name}");
    }
    for name in [
        "",
        "2a",
        "_a",
        "A",
        "a-b",
        "a.b",
        "\u{e9}",
        "a b",
        "unisono_log",
        "sqlite_x",
        &"a".repeat(49),
    ] {
        let error = check_name(name).unwrap_err();
        assert_eq!(
            (error.kind(), error.detail("name")),
            (ErrorKind::InvalidConfig, Some(name)),
            "{name}"
        );
    }
}

#[test]
fn an_entity_needs_a_key_that_can_be_one() {
    let field = |name, ty| Field::new(name, ty);
    let fails = |key: &str, fields| Entity::new("thing", key, fields).unwrap_err().kind();
    assert_eq!(fails("id", vec![field("name", FieldType::String)]), ErrorKind::InvalidConfig);
    assert_eq!(fails("id", vec![field("id", FieldType::Float)]), ErrorKind::InvalidConfig);
    let twice = vec![field("id", FieldType::String), field("id", FieldType::String)];
    assert_eq!(fails("id", twice), ErrorKind::InvalidConfig);
    let many =
        (0..=Entity::FIELDS_MAX).map(|n| Field::new(&format!("f{n}"), FieldType::String)).collect();
    assert_eq!(fails("f0", many), ErrorKind::InvalidConfig);
    let entity = Entity::new("thing", "id", vec![field("id", FieldType::Uuid)]).unwrap();
    assert!(entity.key_field().required);
}

#[test]
fn rules_are_checked_and_the_error_names_the_field() {
    let allowed = ["a", "b"].map(|text| Value::String(text.to_owned())).to_vec();
    let line = Field { required: true, ..Field::new("quantity", FieldType::Integer) };
    let entity = Entity::new(
        "thing",
        "id",
        vec![
            Field::new("id", FieldType::Integer),
            Field { required: true, ..Field::new("name", FieldType::String) },
            Field { allowed, ..Field::new("state", FieldType::String) },
            Field { max_length: Some(2), ..Field::new("short", FieldType::String) },
            Field {
                max_length: Some(2),
                ..Field::new("list", FieldType::List(Box::new(FieldType::Integer)))
            },
            Field::new("items", FieldType::Objects([line].into())),
        ],
    )
    .unwrap();
    let check = |json| entity.check(&fixtures::record(&entity, &json));
    let good = json!({"id": 1, "name": "", "state": "a", "short": "\u{e9}\u{e9}", "list": [1, 2], "items": [{"quantity": 1}]});
    assert!(check(good).is_ok());
    assert!(
        check(json!({"id": 1, "name": "x"})).is_ok(),
        "null is allowed where it is not required"
    );
    for (json, field) in [
        (json!({"name": "x"}), "id"),
        (json!({"id": 1}), "name"),
        (json!({"id": 1, "name": "x", "state": "c"}), "state"),
        (json!({"id": 1, "name": "x", "short": "abc"}), "short"),
        (json!({"id": 1, "name": "x", "list": [1, 2, 3]}), "list"),
        (json!({"id": 1, "name": "x", "items": [{"quantity": 1}, {}]}), "quantity"),
    ] {
        let error = check(json).unwrap_err();
        assert_eq!(
            (error.kind(), error.detail("field")),
            (ErrorKind::InvalidInput, Some(field)),
            "{error}"
        );
        assert_eq!(error.entity(), Some("thing"));
    }
}

#[test]
fn the_engine_alone_declares_entities_under_its_prefix() {
    let fields = || vec![Field::new("id", FieldType::String)];
    let own = Entity::system("audit", "id", fields()).unwrap();
    assert_eq!((&**own.name(), own.is_system()), ("unisono_audit", true));
    assert!(Entity::new("unisono_audit", "id", fields()).is_err());
    assert!(!Entity::new("audit", "id", fields()).unwrap().is_system());
}
