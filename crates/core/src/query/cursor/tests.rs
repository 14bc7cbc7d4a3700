use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::error::ErrorKind;
use crate::fixtures;
use crate::position::Version;
use crate::query::ast::{Order, Path};
use crate::query::{eval, parse};
use crate::record::Record;

/// Records whose few values make many ties, and orders over any scalar fields.
fn records() -> impl Strategy<Value = Vec<Stored>> {
    let entity = fixtures::entity();
    let small = prop::collection::vec(fixtures::values(entity.fields()), 1..6);
    (small, 0..25_usize).prop_map(move |(rows, count)| {
        let row = |n: usize| {
            let mut values = rows[n % rows.len()].clone();
            for (at, value) in values.iter_mut().enumerate().skip(1) {
                *value = rows[(n * 7 + at * 3) % rows.len()][at].clone();
            }
            values[0] = Value::String(format!("k{n}"));
            let key = Key::from_value(&values[0]).unwrap();
            Stored::new(key, Version::new(1).unwrap(), Record::new(values).into())
        };
        (0..count).map(row).collect()
    })
}

fn orders() -> impl Strategy<Value = Vec<Order>> {
    let entity = fixtures::entity();
    let scalars = entity.fields().iter().enumerate().filter(|(_, f)| f.ty.is_scalar());
    let scalars: Vec<usize> = scalars.map(|(n, _)| n).collect();
    let order = (prop::sample::select(scalars), any::<bool>());
    prop::collection::vec(
        order.prop_map(|(n, descending)| Order { path: Path::whole(n), descending }),
        0..4,
    )
}

proptest! {
    #[test]
    fn following_the_pages_visits_each_record_once_in_order(
        records in records(),
        order in orders(),
        limit in 1..6_usize,
    ) {
        let entity = fixtures::entity();
        let mut query = Query { order, limit, ..Query::all() };
        let mut seen: Vec<Stored> = Vec::new();
        loop {
            let page = eval::page(&entity, &query, records.iter()).unwrap();
            prop_assert!(page.hits.len() == limit || page.next.is_none());
            seen.extend(page.hits.into_iter().map(|hit| hit.stored));
            prop_assert!(seen.len() <= records.len());
            let Some(next) = page.next else { break };
            let back = Cursor::decode(&entity, &query, &next.encode(&entity, &query)).unwrap();
            prop_assert_eq!(&back, &next);
            query.cursor = Some(back);
        }
        let mut expected = records;
        expected.sort_by(|a, b| eval::order(&query, a, b));
        prop_assert_eq!(seen, expected);
    }
}

#[test]
fn a_cursor_belongs_to_its_query() {
    let entity = fixtures::entity();
    let query = |pairs: &[(&str, &str)]| {
        let pairs: Vec<_> = pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        parse::url(&entity, &pairs)
    };
    let first = query(&[("status", "eq.paid"), ("order", "-amount")]).unwrap();
    let last = fixtures::stored(&entity, &json!({"id": "a", "amount": "1.50"}));
    let text = Cursor::after(&entity, &first, &last, None).encode(&entity, &first);
    assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'), "{text}");

    let same = query(&[
        ("cursor", &text),
        ("order", "amount.desc"),
        ("status", "eq.paid"),
        ("limit", "7"),
        ("fields", "id"),
    ]);
    assert_eq!(same.unwrap().cursor.unwrap().values, [last.record.get(&entity, "amount").clone()]);
    for other in [
        vec![("order", "-amount")],
        vec![("status", "eq.sent"), ("order", "-amount")],
        vec![("status", "eq.paid"), ("order", "amount")],
        vec![("status", "eq.paid"), ("order", "-amount"), ("q", "red")],
    ] {
        let with_cursor: Vec<_> = other.into_iter().chain([("cursor", text.as_str())]).collect();
        let error = query(&with_cursor).unwrap_err();
        assert_eq!(
            (error.kind(), error.detail("parameter")),
            (ErrorKind::InvalidInput, Some("cursor"))
        );
        assert!(error.hint_text().unwrap().contains("belongs to another query"));
    }
}

#[test]
fn what_is_not_a_cursor_is_refused() {
    let entity = fixtures::entity();
    let query =
        Query { order: vec![Order { path: Path::whole(4), descending: true }], ..Query::all() };
    let fingerprint = Cursor::fingerprint(&entity, &query);
    let encode = |json: serde_json::Value| BASE64.encode(json.to_string());
    assert!(Cursor::decode(&entity, &query, &encode(json!([fingerprint, "a", ["7"]]))).is_ok());
    for text in [
        String::new(),
        "!".to_owned(),
        "\u{e9}".to_owned(),
        BASE64.encode("x"),
        encode(json!([])),
        encode(json!([fingerprint, "a", []])),
        encode(json!([fingerprint, "a", ["7", "8"]])),
        encode(json!([fingerprint, "a", ["x"]])),
        encode(json!([fingerprint, "", ["7"]])),
        encode(json!([fingerprint, 7, ["7"]])),
        encode(json!([fingerprint.wrapping_add(1), "a", ["7"]])),
    ] {
        let error = Cursor::decode(&entity, &query, &text).unwrap_err();
        assert_eq!(
            (error.kind(), error.detail("parameter")),
            (ErrorKind::InvalidInput, Some("cursor")),
            "{text}"
        );
    }
}
