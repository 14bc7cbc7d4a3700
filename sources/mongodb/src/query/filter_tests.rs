//! What filters become natively, and which of it is exact.

use std::sync::Arc;

use mongodb::bson::{DateTime, doc};
use unisono_core::query::Like;
use unisono_core::{Decimal, Field};
use unisono_testkit::Sample;

use super::*;

fn compare(field: usize, comparison: Comparison, value: Value) -> Filter {
    Filter::Compare(Path::whole(field), comparison, value)
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

#[test]
fn simple_tests_are_exact_and_native() {
    let product = Sample::product();
    let exact = |filter: &Filter| {
        let condition = condition(&product, filter);
        assert!(condition.exact, "{filter:?}");
        condition.document
    };
    let stock = |comparison| compare(4, comparison, Value::Integer(2));
    assert_eq!(exact(&Filter::All), doc! {});
    assert_eq!(exact(&compare(0, Comparison::Eq, text("a"))), doc! { "_id": { "$eq": "a" } });
    assert_eq!(exact(&stock(Comparison::Gte)), doc! { "stock": { "$gte": 2_i64 } });
    // Nothing is unequal to null.
    assert_eq!(exact(&stock(Comparison::Ne)), doc! { "stock": { "$nin": [2_i64, Bson::Null] } });
    assert_eq!(
        exact(&Filter::Not(Box::new(stock(Comparison::Eq)))),
        doc! { "$nor": [{ "stock": { "$eq": 2_i64 } }] }
    );
    assert_eq!(exact(&Filter::Not(Box::new(Filter::All))), doc! { "_id": { "$in": [] } });
    assert_eq!(exact(&Filter::Or(vec![])), doc! { "_id": { "$in": [] } });
    assert_eq!(exact(&Filter::Or(vec![Filter::All, stock(Comparison::Eq)])), doc! {});
    assert_eq!(
        exact(&Filter::Prefix(Path::whole(1), "re".into())),
        doc! { "name": { "$gte": "re", "$lt": "rf" } }
    );
    assert_eq!(
        exact(&Filter::Contains(Path::whole(6), text("red"))),
        doc! { "tags": { "$elemMatch": { "$eq": "red" } } }
    );
    let price = compare(3, Comparison::Lt, Value::Decimal(Decimal::new(150, 2)));
    let decimal: mongodb::bson::Decimal128 = "1.50".parse().unwrap();
    assert_eq!(exact(&price), doc! { "price": { "$lt": decimal } });
}

#[test]
fn microseconds_are_compared_beside_the_date() {
    let product = Sample::product();
    let native = |comparison, micros| {
        let time = Value::Timestamp(Timestamp::from_micros(micros).unwrap());
        condition(&product, &compare(8, comparison, time)).document
    };
    let date = DateTime::from_millis(-1);
    assert_eq!(
        native(Comparison::Eq, -1),
        doc! { "updated_at": { "$eq": date }, "_micros.updated_at": { "$eq": 999 } }
    );
    assert_eq!(
        native(Comparison::Lte, -1),
        doc! { "$or": [
            { "updated_at": { "$lt": date } },
            { "updated_at": { "$eq": date }, "_micros.updated_at": { "$not": { "$gt": 999 } } },
        ] }
    );
    assert_eq!(native(Comparison::Lt, -1000), doc! { "updated_at": { "$lt": date } });
    assert_eq!(native(Comparison::Gte, -1000), doc! { "updated_at": { "$gte": date } });
}

#[test]
fn what_the_server_understands_differently_is_left_to_the_evaluator() {
    let bytes = Field::new("raw", FieldType::Bytes);
    let fields =
        vec![Field::new("id", FieldType::String), bytes, Field::new("any", FieldType::Json)];
    let entity = Arc::new(Entity::new("thing", "id", fields).unwrap());
    let rough = |filter: &Filter| {
        let condition = condition(&entity, filter);
        assert!(!condition.exact, "{filter:?}");
        condition.document
    };
    // Binary data is ordered by length; equality is exact.
    let raw = |comparison| compare(1, comparison, Value::Bytes(vec![1]));
    assert_eq!(rough(&raw(Comparison::Lt)), doc! { "raw": { "$ne": Bson::Null } });
    assert!(condition(&entity, &raw(Comparison::Eq)).exact);
    // Its negation cannot be narrowed.
    assert_eq!(rough(&Filter::Not(Box::new(raw(Comparison::Lt)))), doc! {});
    let at = |steps: &[&str]| Path {
        field: 2,
        step: Step::Json(steps.iter().map(|s| (*s).to_owned()).collect()),
    };
    let json = |value| Value::Json(value);
    let text = || doc! { "_text.any": { "$exists": true } };
    assert_eq!(
        rough(&Filter::Compare(at(&["a", "0"]), Comparison::Gt, json(3.into()))),
        doc! { "$or": [{ "any.a.0": { "$gt": 3_i64 } }, text()] }
    );
    for steps in [&["a.b"][..], &["$a"], &[""], &["01"], &["+1"]] {
        assert_eq!(
            rough(&Filter::Compare(at(steps), Comparison::Eq, json(3.into()))),
            doc! { "$or": [{ "any": { "$exists": true } }, text()] },
            "{steps:?}"
        );
    }
    assert_eq!(rough(&Filter::IsNull(at(&["a"]))), doc! {});
    let like = Filter::Like(Path::whole(0), Like("re%lamp_".into()));
    let narrowed = rough(&like);
    let parts = narrowed.get_array("$and").unwrap();
    assert_eq!(parts[0], doc! { "_id": { "$gte": "re", "$lt": "rf" } }.into());
    assert_eq!(parts.len(), 2, "{narrowed}");
}

#[test]
fn both_conditions_are_exact_only_if_each_is() {
    let rough = Condition { document: doc! { "a": 1 }, exact: false };
    let exact = Condition { document: doc! {}, exact: true };
    assert_eq!(exact.and(rough.clone()), rough);
}
