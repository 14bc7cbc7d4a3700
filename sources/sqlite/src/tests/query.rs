//! What SQL compares, what the evaluator tests, and which indexes serve.

use super::*;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rusqlite::params_from_iter;
use unisono_core::query::{Comparison, Filter, Like, Order, Path as FieldPath, Query, successor};
use unisono_core::{Date, Decimal, Uuid, Value};

use crate::codec::Form;
use crate::query::filter::Conditions;

#[test]
fn a_prefix_is_exactly_the_range_up_to_its_successor() {
    let seed = rand::rng().random();
    let mut rng = StdRng::seed_from_u64(seed);
    let alphabet = [
        '\0',
        'a',
        'b',
        '\u{7F}',
        '\u{80}',
        '\u{D7FF}',
        '\u{E000}',
        '\u{FFFF}',
        '\u{10000}',
        char::MAX,
    ];
    let mut text = |most: usize| -> String {
        (0..rng.random_range(0..=most))
            .map(|_| alphabet[rng.random_range(0..alphabet.len())])
            .collect()
    };
    for _ in 0..20_000 {
        let (start, text) = (text(3), text(5));
        let in_range = text >= start && successor(&start).is_none_or(|end| text < end);
        assert_eq!(in_range, text.starts_with(&start), "seed {seed}: {start:?} {text:?}");
    }
}

#[test]
fn a_column_orders_like_its_values() {
    let decimal = |n, scale| Value::Decimal(Decimal::new(n, scale));
    let cases: Vec<(FieldType, Vec<Value>)> = vec![
        (
            DECIMAL,
            vec![
                decimal(-1, 2),
                decimal(0, 2),
                decimal(99, 2),
                decimal(100, 2),
                decimal(999_999_999_999, 2),
            ],
        ),
        (
            FieldType::Date,
            ["0000-01-01", "1999-12-31", "9999-12-31"]
                .map(|d| Value::Date(d.parse::<Date>().unwrap()))
                .into(),
        ),
        (
            FieldType::Timestamp { precision: 3 },
            [-1_000, 0, 1_000, 2_000_000]
                .map(|m| Value::Timestamp(Timestamp::from_micros(m).unwrap()))
                .into(),
        ),
        (
            FieldType::Uuid,
            [0, 9, 10 << 64, u128::MAX].map(|n| Value::Uuid(Uuid::from_u128(n))).into(),
        ),
        (FieldType::Float, [-1e300, -0.5, 0.0, 5e-324, 1e300].map(Value::Float).into()),
        (
            FieldType::String,
            ["", "\0", "A", "a", "é", "\u{FFFF}", "\u{10000}"]
                .map(|s| Value::String(s.into()))
                .into(),
        ),
    ];
    for (ty, values) in cases {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(&format!(
                "CREATE TABLE t (n INTEGER PRIMARY KEY, v {})",
                codec::declared_type(&ty)
            ))
            .unwrap();
        for (n, value) in values.iter().enumerate().rev() {
            let encoded = codec::encode(Form::of(&ty), &ty, value).unwrap();
            connection
                .execute("INSERT INTO t VALUES (?1, ?2)", rusqlite::params![n as i64, encoded])
                .unwrap();
        }
        let mut statement = connection.prepare("SELECT n, v FROM t ORDER BY v").unwrap();
        let read = |row: &rusqlite::Row<'_>| {
            Ok((
                row.get::<_, i64>(0)? as usize,
                codec::decode(Form::of(&ty), &ty, row.get_ref(1)?).unwrap(),
            ))
        };
        let found: Vec<_> = statement.query_map([], read).unwrap().map(|r| r.unwrap()).collect();
        let expected: Vec<_> = values.into_iter().enumerate().collect();
        assert_eq!(found, expected, "{ty}");
    }
}

#[test]
fn a_value_that_the_column_cannot_hold_is_not_compared_in_sql() {
    let finer = Value::Decimal(Decimal::new(1005, 3));
    assert_eq!(codec::comparable(Form::Scaled(2), &DECIMAL, &finer), None);
    let whole = Value::Decimal(Decimal::new(1, 0));
    assert_eq!(
        codec::comparable(Form::Scaled(2), &DECIMAL, &whole),
        Some(rusqlite::types::Value::Integer(100))
    );
    let seconds = FieldType::Timestamp { precision: 0 };
    let finer = Value::Timestamp(Timestamp::from_micros(1).unwrap());
    assert_eq!(codec::comparable(Form::Timestamp(0), &seconds, &finer), None);
    assert_eq!(codec::comparable(Form::Integer, &FieldType::Integer, &Value::Null), None);
}

#[tokio::test]
async fn filters_and_pages_use_the_declared_indexes() {
    let folder = tempfile::tempdir().unwrap();
    let e =
        entity_of("thing", vec![Field { index: true, ..Field::new("name", FieldType::String) }]);
    let source = open_truth(folder.path(), &e).await;
    let table = source.client().table("thing").unwrap();
    let name = || FieldPath::whole(1);
    let text = |s: &str| Value::String(s.into());
    let filters = [
        Filter::Compare(name(), Comparison::Eq, text("a")),
        Filter::Compare(name(), Comparison::Gt, text("a")),
        Filter::In(name(), vec![text("a"), text("b")]),
        Filter::Between(name(), text("a"), text("b")),
        Filter::Prefix(name(), "a".into()),
        Filter::Like(name(), Like("a%b".into())),
        Filter::IsNull(name()),
    ];
    for filter in filters {
        let plan = source.client().read("test", {
            let (table, filter) = (Arc::clone(&table), filter.clone());
            move |session| {
                let mut conditions = Conditions::new(&table);
                let sql = format!(
                    "EXPLAIN QUERY PLAN SELECT * FROM thing WHERE {} ORDER BY name, id",
                    conditions.filter(&filter)
                );
                let mut statement = session.connection.prepare(&sql).unwrap();
                let rows = statement
                    .query_map(params_from_iter(conditions.parameters), |row| {
                        row.get::<_, String>(3)
                    })
                    .unwrap();
                Ok(rows.map(|r| r.unwrap()).collect::<Vec<_>>().join("; "))
            }
        });
        let plan = plan.await.unwrap();
        assert!(
            plan.contains("SEARCH thing USING INDEX unisono_index_thing_name"),
            "{filter:?}: {plan}"
        );
    }
}

#[tokio::test]
async fn pages_in_descending_order_go_on_into_the_nulls() {
    let folder = tempfile::tempdir().unwrap();
    let e = entity("thing", &[("n", FieldType::Integer)]);
    let source = open_truth(folder.path(), &e).await;
    for (id, n) in
        [("a", json!(null)), ("b", json!(2)), ("c", json!(null)), ("d", json!(1)), ("e", json!(2))]
    {
        commit(&source, vec![put(&e, json!({"id": id, "n": n}))]).await.unwrap();
    }
    for limit in 1..=6 {
        let order = vec![Order { path: FieldPath::whole(1), descending: true }];
        let mut query = Query {
            order,
            limit,
            filter: Filter::Not(Box::new(Filter::Or(vec![]))),
            ..Query::all()
        };
        let mut keys = Vec::new();
        loop {
            let page = source.query(&e, &query).await.unwrap().value;
            keys.extend(page.hits.iter().map(|h| h.stored.key.to_string()));
            query.cursor = page.next;
            if query.cursor.is_none() {
                break;
            }
        }
        assert_eq!(keys.concat(), "bedac", "pages of {limit}");
    }
}

#[tokio::test]
async fn words_are_not_searched() {
    let folder = tempfile::tempdir().unwrap();
    let e = entity("thing", &[]);
    let source = open_truth(folder.path(), &e).await;
    let query = Query { search: Some("x".into()), ..Query::all() };
    let error = source.query(&e, &query).await.unwrap_err();
    assert_eq!(error.kind(), unisono_core::ErrorKind::Unsupported);
    assert!(source.count(&e, &Filter::All, Some("x")).await.is_err());
}
