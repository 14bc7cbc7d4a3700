use unisono_core::Decimal;

use super::*;
use crate::delivery::DeliveryPolicy;

fn order() -> Entity {
    let decimal = FieldType::Decimal { precision: 12, scale: 2 };
    let line =
        vec![Field::new("sku", FieldType::String), Field::new("quantity", FieldType::Integer)];
    let lines = FieldType::Objects(line.into());
    let fields = vec![
        Field::new("id", FieldType::String),
        Field { required: true, ..Field::new("status", FieldType::String) },
        Field::new("total", decimal.clone()),
        Field::new("net", decimal),
        Field { required: true, ..Field::new("count", FieldType::Integer) },
        Field::new("lines", lines.clone()),
        Field::new("others", lines),
        Field::new("extra", FieldType::Json),
        Field { max_length: Some(4), ..Field::new("short", FieldType::String) },
        Field::new("day", FieldType::Date),
        Field::new("rate", FieldType::Float),
    ];
    Entity::new("order", "id", fields).unwrap()
}

fn record(json: &str) -> Record {
    unisono_core::json::parse_slice(&order(), json.as_bytes()).unwrap()
}

const PAID: &str = r#"{"id": "1", "status": "paid", "total": "30.00", "count": 0,
    "lines": [{"sku": "a", "quantity": 2}, {"sku": "b", "quantity": 1}], "extra": {"tier": "gold"}}"#;

fn mapped(map: &[(&str, &str)], json: &str) -> Result<Record> {
    let mapping = Mapping::compile(&order(), map.iter().copied())?;
    mapping.apply(&order(), &record(json))
}

/// What a map of one field makes of it.
fn one(field: &str, value: &str) -> std::result::Result<Value, String> {
    let mapped = mapped(&[(field, value)], PAID);
    mapped.map(|record| record.get(&order(), field).clone()).map_err(|e| e.to_string())
}

#[test]
fn fields_are_worked_out_from_the_record_as_it_comes() {
    let entity = order();
    let map =
        [("count", "size(record.lines)"), ("status", "record.status == 'paid' ? 'done' : 'open'")];
    let done = mapped(&map, PAID).unwrap();
    assert_eq!(*done.get(&entity, "count"), Value::Integer(2));
    assert_eq!(*done.get(&entity, "status"), Value::String("done".into()));
    assert_eq!(done.get(&entity, "total"), record(PAID).get(&entity, "total"), "the rest stays");
    // `count` is 0 in the record, whatever is made of it beside.
    let both = mapped(&[("count", "7"), ("extra", "record.count")], PAID).unwrap();
    assert_eq!(*both.get(&entity, "extra"), Value::Json(0.into()));
    assert_eq!(one("net", "record.total * 0.5"), Ok(Value::Decimal(Decimal::new(1500, 2))));
    assert_eq!(one("others", "record.lines").as_ref(), Ok(record(PAID).get(&entity, "lines")));
    assert_eq!(one("short", "record.extra.tier"), Ok(Value::String("gold".into())));
    assert_eq!(one("total", "null"), Ok(Value::Null));
    assert_eq!(one("extra", "'x'"), Ok(Value::Json("x".into())));
    assert_eq!(one("rate", "record.count"), Ok(Value::Float(0.0)));
}

#[test]
fn what_a_field_does_not_take_is_refused_by_its_name_and_without_the_value() {
    for (field, value, why) in [
        ("status", "record.short", "is required"),
        ("count", "record.extra.nothing", "is required"),
        ("count", "record.extra.tier", "is not a value of type integer"),
        ("short", "'MUCH TOO LONG'", "has 13 characters; at most 4 are allowed"),
        ("total", "record.total / 7", "has more than 2 digits after the point"),
    ] {
        let refused = one(field, value).unwrap_err();
        assert!(refused.contains(why) && refused.contains(&format!("field={field}")), "{refused}");
        assert!(!refused.contains("gold") && !refused.contains("MUCH"), "{refused}");
        assert!(refused.starts_with("constraint_violated"), "{refused}");
    }
}

#[test]
fn what_can_never_be_taken_is_refused_when_it_is_declared() {
    for (field, value, why) in [
        ("id", "'x'", "is the key"),
        ("colour", "'x'", "has no field `colour`"),
        ("status", "null", "is required, and cannot be null"),
        ("count", "record.status", "`count` is a field of type integer, and gets string"),
        ("count", "record.total", "`count` is a field of type integer, and gets decimal(12,2)"),
        (
            "lines",
            "record.extra",
            "`lines` is a field of type list of objects, and gets a json value",
        ),
        ("extra", "record.total", "`extra` is a field of type json, and gets decimal(12,2)"),
        ("day", "record.status", "gets string"),
        ("status", "record.colour", "colour"),
        ("status", "duration('1h')", "a value is wanted, not a duration"),
        ("status", "now", "now"),
    ] {
        let error = Mapping::compile(&order(), [(field, value)]).unwrap_err();
        assert!(error.message().contains(why), "{field}: {error}");
        assert_eq!(error.detail("field"), Some(field), "{error}");
    }
}

#[test]
fn what_is_personal_takes_no_part() {
    let fields = ["id", "name", "city"].map(|name| Field::new(name, FieldType::String));
    let entity = Entity::new("person", "id", fields.into()).unwrap();
    let entity = entity.with_personal(&["name"], "id").unwrap();
    for (field, value) in [("name", "'x'"), ("city", "record.name")] {
        let error = Mapping::compile(&entity, [(field, value)]).unwrap_err();
        assert!(error.message().contains("`name` is personal"), "{error}");
    }
}

#[test]
fn steps_follow_each_other_along_after() {
    let entity = order();
    let follower =
        |source: &str, map: Option<(&str, &str)>, after: Option<&str>| FollowerDeclaration {
            source: source.into(),
            place: None,
            options: Default::default(),
            filter: None,
            map: map.map(|map| Arc::new(Mapping::compile(&entity, [map]).unwrap())),
            delivery: DeliveryPolicy { after: after.map(Into::into), ..DeliveryPolicy::default() },
            clear: false,
        };
    let chain = [
        follower("last", Some(("count", "record.count + 1")), Some("plain")),
        follower("plain", None, Some("first")),
        follower("first", Some(("count", "size(record.lines) * 10")), None),
        follower("beside", None, None),
    ];
    let count = |source: &str| {
        let mapping = Mapping::of(source, &chain)?;
        Some(mapping.apply(&entity, &record(PAID)).unwrap().get(&entity, "count").clone())
    };
    assert_eq!(count("first"), Some(Value::Integer(20)));
    assert_eq!(count("plain"), Some(Value::Integer(20)), "it keeps what the one before keeps");
    assert_eq!(count("last"), Some(Value::Integer(21)));
    assert_eq!(count("beside"), None);
    assert_eq!(Mapping::of("first", &chain), Mapping::of("plain", &chain));
    assert_ne!(Mapping::of("first", &chain), Mapping::of("last", &chain));
    let circle = [follower("a", None, Some("a"))];
    assert_eq!(Mapping::of("a", &circle), None);
}
