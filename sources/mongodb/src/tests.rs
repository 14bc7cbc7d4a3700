//! Records as documents and back, options, and what is told of errors; none of it needs a server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mongodb::bson::{Bson, Document, RawDocumentBuf, doc};
use serde_json::json;
use unisono_core::kind::{OptionValue, Options, SourceKind};
use unisono_core::{
    Entity, ErrorKind, Field, FieldType, Key, Position, Record, Result, Stored, Version,
    json as codec,
};
use unisono_testkit::{Generator, Sample};

use crate::document::{FAIL, NULL, of_record, stored};
use crate::error::{Refusal, refusal};
use crate::{Mongodb, json as own_json, writes};

fn version(n: u64) -> Version {
    Position::new(n).unwrap()
}

/// What a server hands back: the document through its bytes.
fn through_bytes(document: &Document) -> Document {
    let raw = RawDocumentBuf::try_from(document).unwrap();
    let raw = RawDocumentBuf::from_bytes(raw.into_bytes()).unwrap();
    Document::try_from(raw).unwrap()
}

fn round_trip(entity: &Entity, record: &Record) -> Result<Option<Stored>> {
    let key = entity.key_of(record)?;
    let document = of_record(entity, &key, record, version(7))?;
    stored(entity, &through_bytes(&document), FAIL)
}

#[test]
fn every_record_comes_back_exactly() {
    for seed in 0..300 {
        let mut g = Generator::new(seed);
        let entity = g.entity("thing", &|_| true);
        for (key, record) in g.records(&entity, 20) {
            let found = round_trip(&entity, &record).unwrap().unwrap();
            assert_eq!((&found.key, found.version), (&key, version(7)), "seed {seed}");
            // As JSON, which shows the sign of a zero.
            assert_eq!(
                codec::to_json(&entity, &found.record),
                codec::to_json(&entity, &record),
                "seed {seed}"
            );
            assert_eq!(*found.record, record, "seed {seed}");
        }
    }
}

#[test]
fn a_document_is_readable_for_others() {
    let order = Sample::order();
    let record = Sample::record(
        &order,
        &json!({
            "id": "o1", "status": "paid", "total_amount": "12.50",
            "created_at": "2026-01-02T03:04:05.678901Z",
            "items": [{"product_id": "p1", "quantity": 2, "amount": "6.25"}],
        }),
    );
    let document = of_record(&order, &Key::from_text("o1").unwrap(), &record, version(9)).unwrap();
    let decimal = |text: &str| Bson::Decimal128(text.parse().unwrap());
    let expected = doc! {
        "_id": "o1",
        "status": "paid",
        "created_at": mongodb::bson::DateTime::parse_rfc3339_str("2026-01-02T03:04:05.678Z").unwrap(),
        "total_amount": decimal("12.50"),
        "items": [{ "product_id": "p1", "quantity": 2_i64, "amount": decimal("6.25") }],
        "_micros": { "created_at": 901 },
        "_v": 9_i64,
    };
    assert_eq!(document, expected);
}

#[test]
fn json_that_bson_cannot_hold_stands_as_text() {
    let fields = vec![Field::new("id", FieldType::String), Field::new("any", FieldType::Json)];
    let entity = Entity::new("thing", "id", fields).unwrap();
    let mut deep = json!(1);
    for _ in 0..120 {
        deep = json!([deep]);
    }
    for (tree, native) in [
        (json!({"a": [1, 1.0, -0.0, null, {"b": "\u{0}"}]}), true),
        (json!({"a.b": 1}), false),
        (json!({"$a": 1}), false),
        (json!({"": 1}), false),
        (json!({"a\u{0}": 1}), false),
        (json!(u64::MAX), false),
        (deep, false),
    ] {
        let record = codec::parse(&entity, &json!({"id": "x", "any": tree})).unwrap();
        let key = Key::from_text("x").unwrap();
        let document = of_record(&entity, &key, &record, version(1)).unwrap();
        assert_eq!(document.contains_key("any"), native, "{document}");
        assert_eq!(document.contains_key("_text"), !native, "{document}");
        assert_eq!(*round_trip(&entity, &record).unwrap().unwrap().record, record);
    }
    assert_eq!(own_json::decode(&Bson::MaxKey), None);
}

#[test]
fn documents_of_others_are_no_records_and_broken_values_are_told() {
    let product = Sample::product();
    let foreign = doc! { "_id": mongodb::bson::oid::ObjectId::from_bytes([1; 12]), "name": "x" };
    assert_eq!(stored(&product, &foreign, FAIL).unwrap(), None);
    let by_hand = doc! { "_id": "p1", "name": "x", "stock": 3, "unknown": true };
    let found = stored(&product, &by_hand, FAIL).unwrap().unwrap();
    assert_eq!((found.version, &found.record.values()[4]), (Position::ZERO, &3.into_value()));
    let broken = doc! { "_id": "p1", "name": "x", "stock": "three", "_v": 5_i64 };
    let error = stored(&product, &broken, FAIL).unwrap_err();
    assert_eq!(
        (error.kind(), error.detail("field"), error.detail("key")),
        (ErrorKind::Corrupt, Some("stock"), Some("p1"))
    );
    // A scan reads on, so that repair finds the record.
    let found = stored(&product, &broken, NULL).unwrap().unwrap();
    assert!(found.record.values()[4].is_null());
}

trait IntoValue {
    fn into_value(self) -> unisono_core::Value;
}

impl IntoValue for i64 {
    fn into_value(self) -> unisono_core::Value {
        unisono_core::Value::Integer(self)
    }
}

#[test]
fn only_the_key_says_that_a_record_is_there() {
    let genuine = "E11000 duplicate key error collection: a.b index: _id_ dup key: { _id: \"x\" }";
    assert!(matches!(refusal(11000, genuine), Refusal::Exists));
    let other = "E11000 duplicate key error collection: a.b index: sku_1 dup key: { sku: \"x\" }";
    let Refusal::Rejected(error) = refusal(11000, other) else { panic!("taken for the key") };
    assert_eq!(error.kind(), ErrorKind::ConstraintViolated);
    assert!(matches!(refusal(121, "Document failed validation"), Refusal::Rejected(_)));
    assert!(matches!(refusal(112, "WriteConflict"), Refusal::Later(_)));
}

fn statement(bytes: usize) -> writes::Statement {
    let product = Sample::product();
    let record = Sample::record(
        &product,
        &json!({"id": "a", "name": "x", "description": "x".repeat(bytes)}),
    );
    let mut changes = unisono_testkit::Changes::new();
    let change = changes.put(&product, record);
    writes::Statement::new(&product, 0, &change, false).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn commands_stay_below_their_bounds() {
    let sizes = |statements: Vec<_>| -> Vec<usize> {
        writes::commands(statements, writes::STATEMENTS_MAX).iter().map(Vec::len).collect()
    };
    assert_eq!(sizes((0..1100).map(|_| statement(1)).collect()), [500, 500, 100]);
    // Two of three million bytes fit in eight, three do not.
    assert_eq!(sizes((0..5).map(|_| statement(3_000_000)).collect()), [2, 2, 1]);
    assert_eq!(sizes(vec![statement(9_000_000), statement(1)]), [1, 1]);
    assert_eq!(sizes(vec![]), [0_usize; 0]);
}

#[test]
fn a_document_above_the_servers_limit_is_refused_by_itself() {
    let product = Sample::product();
    let long = "x".repeat(17 << 20);
    let record = Sample::record(&product, &json!({"id": "a", "name": "x", "description": long}));
    let change = unisono_testkit::Changes::new().put(&product, record);
    let error = writes::Statement::new(&product, 0, &change, false).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
}

fn options(url: &str, others: &[(&str, &str)]) -> Options {
    let mut all = BTreeMap::from([("url".to_owned(), OptionValue::Text(url.to_owned()))]);
    let others = others.iter().map(|(n, v)| ((*n).to_owned(), OptionValue::Text((*v).to_owned())));
    all.extend(others);
    Options(all)
}

#[test]
fn options_are_checked_without_showing_the_password() {
    for (url, others, wrong) in [
        ("mongodb://u:p%40ss@one:27017,two:27017/?replicaSet=rs&tls=true", &[][..], None),
        ("mongodb://one", &[("database", "shop")], None),
        ("mongodb+srv://u:secret@one", &[], Some("url")),
        ("http://u:secret@one", &[], Some("url")),
        ("mongodb://u:sec@ret@one", &[], Some("url")),
        ("mongodb://one/?tls=true&tlsInsecure=true", &[], Some("url")),
        ("mongodb://one/?tls=true&tlsAllowInvalidCertificates=true", &[], Some("url")),
        ("mongodb://one/?tls=false", &[("tls_ca", "ca.pem")], Some("url")),
        ("mongodb://one", &[("database", "a b")], Some("database")),
        ("mongodb://one", &[("database", "")], Some("database")),
    ] {
        let problems = Mongodb.check(&options(url, others));
        assert_eq!(problems.first().map(|p| p.0), wrong, "{url} {others:?}: {problems:?}");
        assert!(!format!("{problems:?}").contains("sec"), "{problems:?}");
    }
    let mut zero = options("mongodb://one", &[]);
    zero.0.insert("request_timeout".into(), OptionValue::Duration(Duration::ZERO));
    assert_eq!(Mongodb.check(&zero).len(), 1);
}

#[test]
fn a_change_without_its_image_is_refused() {
    let product = Sample::product();
    let change = unisono_testkit::Changes::new()
        .put(&product, Sample::record(&product, &json!({"id": "a", "name": "x"})));
    let mut broken = change.as_ref().clone();
    broken.image = None;
    let error = writes::Statement::new(&product, 0, &Arc::new(broken), false).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}
