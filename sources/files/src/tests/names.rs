//! Keys as file names, records as file contents.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use unisono_core::{
    Entity, ErrorKind, Field, FieldType, Key, Record, Stored, Value, json as core_json,
};

use super::{at, entity, key, put};
use crate::codec::{Named, State, decode, encode, file_name, parse_name};

#[test]
fn names_lead_back_to_their_keys_and_are_safe_everywhere() {
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let entity = entity();
    let alphabet: Vec<char> = "aAbB09-_./\\:%~* \0ÄäßΩ漢🙂".chars().collect();
    let mut names = HashSet::new();
    let mut keys = HashSet::new();
    for _ in 0..20_000 {
        let length = if rng.random_bool(0.1) { 120 } else { 6 };
        let text: String = (0..rng.random_range(1..=length))
            .map(|_| alphabet[rng.random_range(0..alphabet.len())])
            .collect();
        let key = key(&text);
        let name = file_name(&key);
        assert!(name.len() <= 205 && name.ends_with(".json"), "{name}");
        assert!(
            name.bytes()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'%' | b'~' | b'.')),
            "{name}"
        );
        match parse_name(&entity, &name) {
            Named::Key(parsed) => assert_eq!(parsed, key),
            other => assert_eq!(other, Named::Hashed, "{name}"),
        }
        if keys.insert(key) {
            assert!(names.insert(name.clone()), "{name} stands for two keys");
        }
    }
}

#[test]
fn names_are_readable_where_that_is_safe() {
    let name = |text| file_name(&key(text));
    assert_eq!(name("blue-shell_7"), "blue-shell_7.json");
    assert_eq!(name("a/B"), "a%2f%42.json");
    assert_eq!(name(".."), "%2e%2e.json");
    assert_eq!(name("com1"), "%63%6f%6d%31.json");
    assert_eq!(name("com10"), "com10.json");
    assert_eq!(file_name(&Key::Integer(-5)), "-5.json");
    assert_ne!(name("A").to_lowercase(), name("a").to_lowercase());
}

#[test]
fn only_the_one_name_of_a_key_counts() {
    let integers = Entity::new("n", "id", vec![Field::new("id", FieldType::Integer)]).unwrap();
    assert_eq!(parse_name(&integers, "7.json"), Named::Key(Key::Integer(7)));
    for name in
        ["007.json", "7.JSON", "7", ".tmp-3", "seven.json", "%37.json", "%3.json", "%zz.json"]
    {
        assert_eq!(parse_name(&integers, name), Named::Foreign, "{name}");
    }
}

#[test]
fn a_file_is_pretty_json_in_the_order_of_the_declaration() {
    let text = String::from_utf8(encode(&entity(), &put(17, "a"))).unwrap();
    let expected = "{\n  \"key\": \"a\",\n  \"version\": \"17\",\n  \"record\": {\n    \"id\": \"a\",\n    \
                    \"name\": \"a at 17\",\n    \"stock\": 17,\n    \"price\": null,\n    \"weight\": 0.1\n  }\n}\n";
    assert_eq!(text, expected);
}

#[test]
fn every_type_survives_its_file_exactly() {
    let line = vec![Field::new("sku", FieldType::String), Field::new("n", FieldType::Integer)];
    let types = [
        FieldType::String,
        FieldType::Text,
        FieldType::Integer,
        FieldType::Decimal { precision: 28, scale: 10 },
        FieldType::Boolean,
        FieldType::Float,
        FieldType::Date,
        FieldType::Timestamp { precision: 6 },
        FieldType::Uuid,
        FieldType::Bytes,
        FieldType::Json,
        FieldType::List(Box::new(FieldType::Integer)),
        FieldType::Objects(line.into()),
    ];
    let mut fields = vec![Field::new("id", FieldType::String)];
    fields.extend(types.into_iter().enumerate().map(|(n, ty)| Field::new(&format!("f{n}"), ty)));
    let entity = Entity::new("thing", "id", fields).unwrap();
    let record = json!({
        "id": "k", "f0": "\u{0}\u{2028}\"🙂", "f1": "", "f2": i64::MIN, "f3": "-123456789012345678.0123456789",
        "f4": false, "f5": 0.30000000000000004, "f6": "0000-01-01", "f7": "9999-12-31T23:59:59.999999Z",
        "f8": "67e55044-10b1-426f-9247-bb680e5fe0c8", "f9": "AP8=", "f10": {"b": [1, 1.5, null], "a": u64::MAX},
        "f11": [1, -2], "f12": [{"sku": "x", "n": 1}, {"sku": null, "n": null}],
    });
    let mut record: Record = core_json::parse(&entity, &record).unwrap();
    for float in [0.30000000000000004, -0.0, 5e-324, f64::MAX] {
        record.values_mut()[6] = Value::Float(float);
        let mut change = put(17, "k").as_ref().clone();
        change.image = Some(Arc::new(record.clone()));
        let state = decode(&entity, &key("k"), Path::new("k"), &encode(&entity, &change)).unwrap();
        assert_eq!(state, State::Present(Stored::new(key("k"), at(17), Arc::new(record.clone()))));
        let State::Present(stored) = state else { unreachable!() };
        let Value::Float(read) = stored.record.values()[6] else { unreachable!() };
        assert_eq!(read.to_bits(), float.to_bits());
    }
}

#[test]
fn fields_that_are_no_longer_declared_are_passed_over_and_nonsense_is_corrupt() {
    let read = |text: &str| decode(&entity(), &key("a"), Path::new("a.json"), text.as_bytes());
    let old = r#"{"key": "a", "version": "3", "record": {"id": "a", "colour": "red"}}"#;
    assert!(matches!(read(old), Ok(State::Present(_))));
    assert_eq!(
        read(r#"{"key": "a", "version": "3", "deleted": true}"#).unwrap(),
        State::Deleted(at(3))
    );
    for bad in [
        "",
        "{",
        r#"{"key": "a", "version": "3"}"#,
        r#"{"key": "a", "version": 3, "record": {"id": "a"}}"#,
        r#"{"key": "b", "version": "3", "record": {"id": "b"}}"#,
        r#"{"key": "a", "version": "3", "record": {"id": "b"}}"#,
        r#"{"key": "a", "version": "3", "record": {"id": "a", "stock": "many"}}"#,
    ] {
        let error = read(bad).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{bad}");
        assert_eq!(error.detail("path"), Some("a.json"));
    }
}
