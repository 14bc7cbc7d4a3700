use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::entity::FieldType;
use crate::fixtures;
use crate::json::value_to_json;
use crate::query::{eval, parse};

fn answer(body: &Json, records: &[Json]) -> Result<Groups> {
    let entity = fixtures::entity();
    let stored: Vec<_> = records.iter().map(|json| fixtures::stored(&entity, json)).collect();
    eval::aggregate(&entity, &parse::aggregate(&entity, body).unwrap(), stored.iter())
}

/// Groups as text: `keys: metrics`, metrics in the order of their names.
fn shown(groups: &Groups) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Decimal(n) => n.to_string(),
        Value::Json(json) => json.to_string(),
        Value::Integer(n) => n.to_string(),
        other => format!("{other:?}"),
    };
    let texts = |values: &[Value]| values.iter().map(text).collect::<Vec<_>>().join(",");
    groups.groups.iter().map(|g| format!("{}: {}", texts(&g.keys), texts(&g.metrics))).collect()
}

fn orders() -> Vec<Json> {
    vec![
        json!({"id": "1", "status": "paid", "amount": "10.00", "tags": {"c": "red"}, "items": [
            {"product_id": "p", "quantity": 2, "price": "1.10"}, {"product_id": "q", "quantity": 1}]}),
        json!({"id": "2", "status": "paid", "amount": "0.05", "tags": {"c": 1}, "items": [
            {"product_id": "p", "quantity": 5, "price": "2.20"}]}),
        json!({"id": "3", "status": "open", "tags": {"c": 1.0}, "items": []}),
        json!({"id": "4", "amount": "-3.00"}),
    ]
}

#[test]
fn records_are_grouped_ordered_and_cut() {
    let metrics = json!({"a_n": "count", "b_sum": {"sum": "amount"}, "c_min": {"min": "amount"}, "d_avg": {"avg": "amount"}});
    for (body, expected, total) in [
        (json!({"metrics": metrics}), vec![": 4,7.05,-3.00,2.350000"], 1),
        (
            json!({"metrics": metrics, "group_by": ["status"]}),
            vec!["-: 1,-3.00,-3.00,-3.000000", "open: 1,-,-,-", "paid: 2,10.05,0.05,5.025000"],
            3,
        ),
        (
            json!({"metrics": {"n": "count"}, "group_by": ["status"], "order": ["-n"], "limit": 2}),
            vec!["paid: 2", "-: 1"],
            3,
        ),
        (
            json!({"metrics": {"n": "count"}, "group_by": ["status"], "order": ["-status"]}),
            vec!["paid: 2", "open: 1", "-: 1"],
            3,
        ),
        (
            json!({"metrics": {"n": "count"}, "group_by": ["tags.c"]}),
            vec!["-: 1", "1: 2", "\"red\": 1"],
            3,
        ),
        (json!({"group_by": ["status"]}), vec!["-: ", "open: ", "paid: "], 3),
        (
            json!({"unnest": "items", "group_by": ["items.product_id"], "order": ["-sold"],
                "metrics": {"lines": "count", "sold": {"sum": "items.quantity"}, "top": {"max": "items.price"}}}),
            vec!["p: 2,7,2.20", "q: 1,1,-"],
            2,
        ),
        (
            json!({"unnest": "items", "group_by": ["status"], "metrics": {"n": "count", "s": {"sum": "amount"}}}),
            vec!["paid: 3,20.05"],
            1,
        ),
        (
            json!({"where": {"field": "items.product_id", "op": "eq", "value": "q"}, "unnest": "items", "metrics": {"n": "count"}}),
            vec![": 2"],
            1,
        ),
        (
            json!({"where": {"field": "id", "op": "eq", "value": "x"}, "metrics": {"n": "count", "s": {"sum": "amount"}}}),
            vec![": 0,-"],
            1,
        ),
        (
            json!({"where": {"field": "id", "op": "eq", "value": "x"}, "metrics": {"n": "count"}, "group_by": ["id"]}),
            vec![],
            0,
        ),
    ] {
        let groups = answer(&body, &orders()).unwrap();
        assert_eq!(
            (shown(&groups), groups.total_groups),
            (expected.iter().map(|s| (*s).to_owned()).collect(), total),
            "{body}"
        );
    }
}

fn total(metric: &Metric, ty: &FieldType, values: &[Value]) -> Result<Json> {
    let mut accumulator = Accumulator::new(metric, ty);
    values.iter().for_each(|value| accumulator.add(value));
    let value = accumulator.finish()?;
    let ty = match value {
        Value::Decimal(_) => FieldType::Decimal { precision: 28, scale: 0 },
        Value::Float(_) => FieldType::Float,
        Value::Integer(_) => FieldType::Integer,
        _ => ty.clone(),
    };
    Ok(value_to_json(&ty, &value))
}

#[test]
fn sums_and_means_are_exact() {
    let (sum, avg) = (Metric::Sum(Path::whole(0)), Metric::Avg(Path::whole(0)));
    let integers = |list: &[i64]| list.iter().map(|n| Value::Integer(*n)).collect::<Vec<_>>();
    let decimals =
        |list: &[&str]| list.iter().map(|n| Value::Decimal(n.parse().unwrap())).collect::<Vec<_>>();
    let floats = |list: &[f64]| list.iter().map(|n| Value::Float(*n)).collect::<Vec<_>>();
    let decimal = |precision, scale| FieldType::Decimal { precision, scale };
    let nines = "9999999999999999999999999999";
    for (metric, ty, values, expected) in [
        (
            &sum,
            FieldType::Integer,
            integers(&[i64::MAX, i64::MAX, i64::MIN, i64::MIN, 5]),
            json!(3),
        ),
        (&sum, FieldType::Integer, vec![Value::Null, Value::Integer(2)], json!(2)),
        (&sum, FieldType::Integer, vec![Value::Null], json!(null)),
        (&avg, FieldType::Integer, integers(&[1, 2]), json!("1.5000")),
        (&avg, FieldType::Integer, integers(&[1, 1, 0]), json!("0.6667")),
        (&avg, FieldType::Integer, integers(&[-1, -1, 0]), json!("-0.6667")),
        (
            &avg,
            FieldType::Integer,
            integers(&[i64::MIN, i64::MIN]),
            json!("-9223372036854775808.0000"),
        ),
        (&sum, decimal(12, 2), decimals(&["0.10", "0.20"]), json!("0.30")),
        (&sum, decimal(12, 2), decimals(&["0.10", "-0.10"]), json!("0.00")),
        (&sum, decimal(28, 0), decimals(&[nines, "1", "-1"]), json!(nines)),
        (&avg, decimal(28, 0), decimals(&[nines, nines]), json!(nines)),
        (
            &avg,
            decimal(28, 26),
            decimals(&["0.00000000000000000000000001", "0.00"]),
            json!("0.0000000000000000000000000050"),
        ),
        (&sum, FieldType::Float, floats(&[0.1; 10]), json!(1.0)),
        (&sum, FieldType::Float, floats(&[1e100, 1.0, -1e100, 1e-100]), json!(1.0)),
        (&sum, FieldType::Float, floats(&[-0.0]), json!(0.0)),
        // Just above half a step: a sum that is rounded twice stays at 1.
        (
            &sum,
            FieldType::Float,
            floats(&[1.0, 2f64.powi(-53), 2f64.powi(-200)]),
            json!(1.0000000000000002),
        ),
        (&avg, FieldType::Float, floats(&[1.0, 2.0]), json!(1.5)),
    ] {
        assert_eq!(total(metric, &ty, &values).unwrap(), expected, "{metric:?} {values:?}");
    }
    // Ties to the even neighbour, in both directions.
    for (count, ones, expected) in [
        (20_000, 1, "0.0000"),
        (20_000, 3, "0.0002"),
        (20_000, -1, "0.0000"),
        (20_000, -3, "-0.0002"),
    ] {
        let mut values = integers(&vec![0; count - 1]);
        values.push(Value::Integer(ones));
        assert_eq!(
            total(&avg, &FieldType::Integer, &values).unwrap(),
            json!(expected),
            "{ones}/{count}"
        );
    }
    for (ty, values) in [
        (FieldType::Integer, integers(&[i64::MAX, 1])),
        (decimal(28, 0), decimals(&[nines, "1"])),
        (FieldType::Float, floats(&[f64::MAX, f64::MAX])),
    ] {
        assert_eq!(total(&sum, &ty, &values).unwrap_err().kind(), ErrorKind::LimitExceeded, "{ty}");
    }
}

proptest! {
    #[test]
    fn the_order_of_the_values_does_not_matter(
        (ty, values) in prop::sample::select(vec![
            FieldType::Integer,
            FieldType::Float,
            FieldType::Decimal { precision: 20, scale: 3 },
        ]).prop_flat_map(|ty| (Just(ty.clone()), prop::collection::vec(fixtures::value(&ty), 0..12))),
        seed in any::<u64>(),
    ) {
        // Sums that overflow on the way are refused or not by the way that they are added up.
        prop_assume!(!values.iter().any(|v| matches!(v, Value::Float(n) if n.abs() > 1e300)));
        let mut shuffled: Vec<_> = values.iter().enumerate().collect();
        shuffled.sort_by_key(|(n, _)| (*n as u64 + 1).wrapping_mul(seed | 1));
        let path = Path::whole(0);
        for metric in [Metric::Count, Metric::Sum(path.clone()), Metric::Min(path.clone()), Metric::Max(path.clone()), Metric::Avg(path)] {
            let mut straight = Accumulator::new(&metric, &ty);
            values.iter().for_each(|v| straight.add(v));
            let (mut left, mut right) = (Accumulator::new(&metric, &ty), Accumulator::new(&metric, &ty));
            for (n, (_, value)) in shuffled.iter().enumerate() {
                if n % 2 == 0 { left.add(value) } else { right.add(value) }
            }
            left.merge(right);
            let text = |a: Accumulator| format!("{:?}", a.finish().map_err(|e| e.kind()));
            prop_assert_eq!(text(straight), text(left), "{:?}", metric);
        }
    }
}
