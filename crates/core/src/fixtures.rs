//! An entity with a field of every type, and random values of them, for the tests of this crate.

use std::sync::Arc;

use proptest::prelude::*;
use rust_decimal::Decimal;
use serde_json::Value as Json;
use uuid::Uuid;

use crate::entity::{Entity, Field, FieldType};
use crate::position::Version;
use crate::record::{Record, Stored};
use crate::value::{Date, Timestamp, Value};

pub(crate) fn entity() -> Entity {
    let search = |name, ty| Field { search: true, ..Field::new(name, ty) };
    let items = [
        Field::new("product_id", FieldType::String),
        Field::new("quantity", FieldType::Integer),
        Field::new("price", FieldType::Decimal { precision: 10, scale: 2 }),
    ];
    let fields = vec![
        Field::new("id", FieldType::String),
        search("title", FieldType::String),
        search("body", FieldType::Text),
        Field::new("status", FieldType::String),
        Field::new("quantity", FieldType::Integer),
        Field::new("amount", FieldType::Decimal { precision: 12, scale: 2 }),
        Field::new("ratio", FieldType::Float),
        Field::new("paid", FieldType::Boolean),
        Field::new("day", FieldType::Date),
        Field::new("at", FieldType::Timestamp { precision: 3 }),
        Field::new("reference", FieldType::Uuid),
        Field::new("raw", FieldType::Bytes),
        Field::new("tags", FieldType::Json),
        Field::new("labels", FieldType::List(Box::new(FieldType::String))),
        Field::new("items", FieldType::Objects(items.into())),
    ];
    Entity::new("order", "id", fields).unwrap()
}

/// A record from its JSON.
pub(crate) fn record(entity: &Entity, json: &Json) -> Record {
    crate::json::parse(entity, json).unwrap()
}

/// A stored record from its JSON.
pub(crate) fn stored(entity: &Entity, json: &Json) -> Stored {
    let record = record(entity, json);
    Stored::new(entity.key_of(&record).unwrap(), Version::new(1).unwrap(), Arc::new(record))
}

/// Any value of a type, null and the nasty ones among them.
pub(crate) fn value(ty: &FieldType) -> BoxedStrategy<Value> {
    prop_oneof![1 => Just(Value::Null), 6 => present(ty)].boxed()
}

/// Any value of a type but null.
pub(crate) fn present(ty: &FieldType) -> BoxedStrategy<Value> {
    match ty {
        FieldType::String | FieldType::Text => text().prop_map(Value::String).boxed(),
        FieldType::Integer => prop_oneof![
            any::<i64>(),
            Just(i64::MIN),
            Just(i64::MAX),
            Just((1 << 53) + 1),
            -3..3_i64,
        ]
        .prop_map(Value::Integer)
        .boxed(),
        FieldType::Decimal { precision, scale } => decimal(*precision, *scale),
        FieldType::Boolean => any::<bool>().prop_map(Value::Boolean).boxed(),
        FieldType::Float => float().prop_map(Value::Float).boxed(),
        FieldType::Date => prop_oneof![-719_528..=2_932_896_i32, Just(-719_528), Just(2_932_896)]
            .prop_map(|days| Value::Date(Date::from_days(days).unwrap()))
            .boxed(),
        FieldType::Timestamp { precision } => timestamp(*precision),
        FieldType::Uuid => any::<u128>().prop_map(|n| Value::Uuid(Uuid::from_u128(n))).boxed(),
        FieldType::Bytes => {
            prop::collection::vec(any::<u8>(), 0..20).prop_map(Value::Bytes).boxed()
        }
        FieldType::Json => {
            json().prop_filter("null is Null", |j| !j.is_null()).prop_map(Value::Json).boxed()
        }
        FieldType::List(of) => {
            prop::collection::vec(present(of), 0..4).prop_map(Value::List).boxed()
        }
        FieldType::Objects(fields) => {
            prop::collection::vec(values(fields), 0..3).prop_map(Value::Objects).boxed()
        }
    }
}

/// One value for each field.
pub(crate) fn values(fields: &[Field]) -> BoxedStrategy<Vec<Value>> {
    fields.iter().map(|field| value(&field.ty)).collect::<Vec<_>>().boxed()
}

fn text() -> BoxedStrategy<String> {
    prop_oneof![
        ".{0,12}",
        "[a-c]{0,3}",
        Just(String::new()),
        Just("\u{0}".to_owned()),
        Just("e\u{301}".to_owned()),
        Just("\u{e9}".to_owned()),
        Just("\u{10ffff}\"\\\u{7f}\u{2028}".to_owned()),
        Just("50%_off\\".to_owned()),
    ]
    .boxed()
}

fn float() -> BoxedStrategy<f64> {
    use prop::num::f64::{NEGATIVE, NORMAL, POSITIVE, SUBNORMAL, ZERO};
    prop_oneof![
        POSITIVE | NEGATIVE | NORMAL | SUBNORMAL | ZERO,
        Just(-0.0),
        Just(f64::MAX),
        Just(f64::MIN_POSITIVE),
        Just(5e-324),
        Just(0.1 + 0.2),
        Just(9_007_199_254_740_993.0),
    ]
    .boxed()
}

fn decimal(precision: u8, scale: u8) -> BoxedStrategy<Value> {
    let bound = 10_i128.pow(u32::from(precision)) - 1;
    prop_oneof![-bound..=bound, Just(bound), Just(-bound), Just(0), -200..200_i128]
        .prop_map(move |digits| {
            let digits = digits.clamp(-bound, bound);
            Value::Decimal(Decimal::from_i128_with_scale(digits, u32::from(scale)))
        })
        .boxed()
}

fn timestamp(precision: u8) -> BoxedStrategy<Value> {
    let (least, greatest) = (-719_528 * 86_400_000_000_i64, 2_932_897 * 86_400_000_000_i64 - 1);
    let step = 10_i64.pow(6 - u32::from(precision));
    prop_oneof![least..=greatest, Just(greatest), Just(least), Just(999_999), Just(-1)]
        .prop_map(move |micros| {
            let micros = micros.div_euclid(step) * step;
            Value::Timestamp(Timestamp::from_micros(micros).unwrap())
        })
        .boxed()
}

fn json() -> BoxedStrategy<Json> {
    let scalar = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        float().prop_map(Json::from),
        text().prop_map(Json::from),
    ];
    scalar
        .prop_recursive(3, 12, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Json::Array),
                prop::collection::btree_map("[a-c]{0,2}", inner, 0..4)
                    .prop_map(|members| Json::Object(members.into_iter().collect())),
            ]
        })
        .boxed()
}
