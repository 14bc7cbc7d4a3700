use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::entity::FieldType;
use crate::fixtures;

proptest! {
    /// Sorting relies on it: an order that is not total would end the process.
    #[test]
    fn the_order_is_total(
        (a, b, c) in prop::sample::select(types()).prop_flat_map(|ty| {
            (fixtures::value(&ty), fixtures::value(&ty), fixtures::value(&ty))
        }),
    ) {
        prop_assert_eq!(a.order(&a), Ordering::Equal);
        prop_assert_eq!(a.order(&b), b.order(&a).reverse());
        if a.order(&b).is_le() && b.order(&c).is_le() {
            prop_assert!(a.order(&c).is_le(), "{:?} {:?} {:?}", a, b, c);
        }
    }
}

fn types() -> Vec<FieldType> {
    fixtures::entity().fields().iter().map(|field| field.ty.clone()).collect()
}

#[test]
fn values_follow_each_other_as_declared() {
    let text = |text: &str| Value::String(text.to_owned());
    for ascending in [
        vec![Value::Null, Value::Boolean(false), Value::Boolean(true)],
        vec![
            Value::Null,
            Value::Integer(i64::MIN),
            Value::Integer(-1),
            Value::Integer(0),
            Value::Integer(i64::MAX),
        ],
        vec![
            Value::Null,
            Value::Float(f64::MIN),
            Value::Float(-0.5),
            Value::Float(0.0),
            Value::Float(5e-324),
        ],
        vec![
            Value::Null,
            text(""),
            text("\u{0}"),
            text("Z"),
            text("a"),
            text("ab"),
            text("\u{e9}"),
            text("\u{ffff}"),
            text("\u{10000}"),
        ],
        vec![
            Value::Bytes(vec![]),
            Value::Bytes(vec![0]),
            Value::Bytes(vec![1]),
            Value::Bytes(vec![255]),
        ],
        [
            json!(null),
            json!(false),
            json!(true),
            json!(-1),
            json!(1.5),
            json!(2),
            json!(""),
            json!("a"),
            json!([]),
            json!({}),
        ]
        .map(Value::Json)
        .to_vec(),
        vec![
            Value::List(vec![]),
            Value::List(vec![Value::Integer(1)]),
            Value::List(vec![Value::Integer(1); 2]),
            Value::List(vec![Value::Integer(2)]),
        ],
    ] {
        for pair in ascending.windows(2) {
            assert_eq!(pair[0].order(&pair[1]), Ordering::Less, "{pair:?}");
        }
    }
}

#[test]
fn equal_values_of_different_form_are_equal() {
    let decimal = |text: &str| Value::Decimal(text.parse().unwrap());
    for (a, b) in [
        (Value::Float(-0.0), Value::Float(0.0)),
        (decimal("1.5"), decimal("1.500")),
        (Value::Json(json!(1)), Value::Json(json!(1.0))),
        (Value::Json(json!(-0.0)), Value::Json(json!(0))),
    ] {
        assert_eq!(a.order(&b), Ordering::Equal, "{a:?} {b:?}");
        assert_eq!(Ordered(a), Ordered(b));
    }
}

#[test]
fn json_numbers_above_the_exact_doubles_are_told_apart() {
    let (double, below, above) = (
        json!(9_007_199_254_740_992.0),
        json!(9_007_199_254_740_991_i64),
        json!(9_007_199_254_740_993_i64),
    );
    assert_eq!(order_json(&double, &below), Ordering::Greater);
    assert_eq!(order_json(&double, &above), Ordering::Less);
    assert_eq!(order_json(&json!(u64::MAX), &json!(1e300)), Ordering::Less);
    assert_eq!(order_json(&json!(i64::MAX), &json!(0.5)), Ordering::Greater);
}
