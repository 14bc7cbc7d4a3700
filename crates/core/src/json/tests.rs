use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::error::ErrorKind;
use crate::fixtures;

proptest! {
    #[test]
    fn every_record_survives_json_exactly(values in fixtures::values(fixtures::entity().fields())) {
        let entity = fixtures::entity();
        let record = Record::new(values);
        let back = parse_slice(&entity, &to_vec(&entity, &record)).unwrap();
        prop_assert_eq!(&back, &record);
        prop_assert_eq!(format!("{back:?}"), format!("{record:?}"), "the sign of zero and the scale count too");
        prop_assert_eq!(parse(&entity, &to_json(&entity, &record)).unwrap(), record);
    }

    #[test]
    fn every_scalar_survives_its_text(
        (ty, value) in prop::sample::select(scalar_types())
            .prop_flat_map(|ty| fixtures::present(&ty).prop_map(move |value| (ty.clone(), value))),
    ) {
        let text = to_text(&ty, &value).unwrap();
        prop_assert_eq!(format!("{:?}", parse_text(&ty, &text).unwrap()), format!("{value:?}"));
    }
}

fn scalar_types() -> Vec<FieldType> {
    vec![
        FieldType::String,
        FieldType::Text,
        FieldType::Integer,
        FieldType::Decimal { precision: 28, scale: 0 },
        FieldType::Decimal { precision: 28, scale: 28 },
        FieldType::Decimal { precision: 12, scale: 2 },
        FieldType::Boolean,
        FieldType::Float,
        FieldType::Date,
        FieldType::Timestamp { precision: 6 },
        FieldType::Timestamp { precision: 0 },
        FieldType::Uuid,
        FieldType::Bytes,
    ]
}

fn decimal(precision: u8, scale: u8) -> FieldType {
    FieldType::Decimal { precision, scale }
}

#[test]
fn values_are_shown_in_their_declared_form() {
    for (ty, given, shown) in [
        (decimal(12, 2), json!("1.5"), json!("1.50")),
        (decimal(12, 2), json!("-0"), json!("0.00")),
        (decimal(12, 2), json!(7), json!("7.00")),
        (decimal(12, 2), json!("1e3"), json!("1000.00")),
        (
            decimal(28, 28),
            json!("0.9999999999999999999999999999"),
            json!("0.9999999999999999999999999999"),
        ),
        (
            decimal(28, 0),
            json!("-9999999999999999999999999999"),
            json!("-9999999999999999999999999999"),
        ),
        (FieldType::Integer, json!(7.0), json!(7)),
        (FieldType::Integer, json!(9_007_199_254_740_993_i64), json!(9_007_199_254_740_993_i64)),
        (FieldType::Integer, json!(i64::MIN), json!(i64::MIN)),
        (FieldType::Float, json!(7), json!(7.0)),
        (FieldType::Date, json!("9999-12-31"), json!("9999-12-31")),
        (
            FieldType::Timestamp { precision: 6 },
            json!("2026-01-01T00:00:00.999999+01:00"),
            json!("2025-12-31T23:00:00.999999Z"),
        ),
        (
            FieldType::Timestamp { precision: 3 },
            json!("2026-01-01T00:00:00.5Z"),
            json!("2026-01-01T00:00:00.500Z"),
        ),
        (
            FieldType::Uuid,
            json!("67E55044-10B1-426F-9247-BB680E5FE0C8"),
            json!("67e55044-10b1-426f-9247-bb680e5fe0c8"),
        ),
        (FieldType::Bytes, json!("AAH/"), json!("AAH/")),
        (FieldType::String, json!(""), json!("")),
        (FieldType::Json, json!({"b": [1, null], "a": ""}), json!({"a": "", "b": [1, null]})),
        (FieldType::Json, json!(null), json!(null)),
        (FieldType::List(Box::new(FieldType::Integer)), json!([]), json!([])),
    ] {
        let value = parse_value(&ty, &given).unwrap_or_else(|e| panic!("{ty}: {given}: {e}"));
        assert_eq!(value_to_json(&ty, &value), shown, "{ty}: {given}");
    }
}

#[test]
fn what_a_type_cannot_hold_exactly_is_refused() {
    for (ty, given) in [
        (FieldType::Integer, json!(1.5)),
        (FieldType::Integer, json!(u64::MAX)),
        (FieldType::Integer, json!(1e19)),
        (FieldType::Integer, json!("7")),
        (FieldType::Integer, json!(true)),
        (FieldType::Float, json!("7")),
        (FieldType::Boolean, json!("true")),
        (FieldType::Boolean, json!(1)),
        (FieldType::String, json!(1)),
        (FieldType::String, json!(["a"])),
        (decimal(12, 2), json!("1.005")),
        (decimal(12, 2), json!("10000000000.00")),
        (decimal(12, 2), json!("")),
        (decimal(12, 2), json!("1,5")),
        (decimal(12, 2), json!("NaN")),
        (decimal(28, 0), json!("10000000000000000000000000000")),
        (decimal(28, 10), json!(1_234_567.123_456_789_1)),
        (FieldType::Date, json!("2026-02-30")),
        (FieldType::Date, json!("10000-01-01")),
        (FieldType::Timestamp { precision: 6 }, json!("2026-01-01T00:00:00")),
        (FieldType::Timestamp { precision: 3 }, json!("2026-01-01T00:00:00.0001Z")),
        (FieldType::Uuid, json!("67e55044")),
        (FieldType::Bytes, json!("not base64")),
        (FieldType::List(Box::new(FieldType::Integer)), json!([1, null])),
        (FieldType::List(Box::new(FieldType::Integer)), json!([1, "2"])),
        (FieldType::List(Box::new(FieldType::Integer)), json!(1)),
    ] {
        let error = parse_value(&ty, &given).expect_err(&format!("{ty}: {given}"));
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{ty}: {given}");
    }
    for text in ["1e400", "NaN", "inf", "-Infinity", "", "0x10"] {
        assert!(parse_text(&FieldType::Float, text).is_err(), "{text}");
    }
}

#[test]
fn a_number_beyond_every_double_is_not_json_at_all() {
    let entity = fixtures::entity();
    let error = parse_slice(&entity, br#"{"id": "a", "ratio": 1e400}"#).unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::InvalidInput, "is not valid JSON"));
}

#[test]
fn an_error_names_the_field() {
    let entity = fixtures::entity();
    for (given, field) in [
        (json!({"id": "a", "quantity": "x"}), "quantity"),
        (json!({"id": "a", "items": [{"price": "x"}]}), "price"),
        (json!({"id": "a", "nope": 1, "also": 2}), "also,nope"),
    ] {
        let error = parse(&entity, &given).unwrap_err();
        assert_eq!(
            (error.detail("field"), error.entity()),
            (Some(field), Some("order")),
            "{error}"
        );
    }
    assert_eq!(parse(&entity, &json!([])).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn an_absent_field_is_null_and_an_empty_one_is_not() {
    let entity = fixtures::entity();
    let record =
        parse(&entity, &json!({"id": "a", "title": "", "labels": [], "items": []})).unwrap();
    assert!(record.get(&entity, "status").is_null());
    for field in ["title", "labels", "items"] {
        assert!(!record.get(&entity, field).is_null(), "{field}");
    }
}
