//! Answers against the reference evaluation, above all where the index alone cannot decide.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::json;
use unisono_core::query::{Comparison, Filter, Like, Order, Path, Query, Step, eval};
use unisono_core::{Decimal, Entity, Field, FieldType, Position, Record, Stored, Uuid, Value};

use super::Fed;
use crate::codec;

/// Texts around the length up to which values are indexed, many of them alike up to there.
fn long_text(rng: &mut StdRng) -> String {
    let length = codec::INDEXED_BYTES_MAX - 3 + rng.random_range(0..6);
    let mut text = "ab".repeat(length / 2);
    text.push_str(["", "a", "b", "é"].choose(rng).unwrap());
    text
}

fn value(rng: &mut StdRng, ty: &FieldType) -> Value {
    if rng.random_bool(0.15) {
        return Value::Null;
    }
    match ty {
        FieldType::Integer => Value::Integer(*[i64::MIN, -1, 0, 1, i64::MAX].choose(rng).unwrap()),
        FieldType::Float => {
            let edges = [-0.0, 0.0, 1.5, -1.5, f64::MIN, f64::MAX, f64::MIN_POSITIVE, 0.1 + 0.2];
            Value::Float(*edges.choose(rng).unwrap())
        }
        FieldType::Decimal { precision, scale } => {
            let most = 10_i128.pow(u32::from(*precision)) - 1;
            let digits = *[0, 1, -1, most, -most, most - 1].choose(rng).unwrap();
            Value::Decimal(Decimal::from_i128_with_scale(digits, u32::from(*scale)))
        }
        FieldType::Uuid => Value::Uuid(Uuid::from_u128(rng.random_range(0..3) << 126)),
        FieldType::Bytes => {
            let length = codec::INDEXED_BYTES_MAX - 1 + rng.random_range(0..3);
            Value::Bytes([vec![255; length], vec![rng.random_range(0..2)]].concat())
        }
        _ if rng.random_bool(0.5) => Value::String(long_text(rng)),
        _ => Value::String(
            (*["", "a", "aa", "b", "%", "z\u{10ffff}"].choose(rng).unwrap()).to_owned(),
        ),
    }
}

fn types() -> Vec<FieldType> {
    vec![
        FieldType::String,
        FieldType::Text,
        FieldType::Float,
        FieldType::Integer,
        FieldType::Decimal { precision: 18, scale: 2 },
        FieldType::Decimal { precision: 28, scale: 10 },
        FieldType::Uuid,
        FieldType::Bytes,
    ]
}

fn entity() -> Arc<Entity> {
    let mut fields = vec![Field::new("id", FieldType::Integer)];
    for (n, ty) in types().into_iter().enumerate() {
        fields.push(Field::new(&format!("f{n}"), ty));
    }
    let columns = [Field::new("s", FieldType::String), Field::new("n", FieldType::Float)];
    fields.push(Field::new("list", FieldType::List(Box::new(FieldType::String))));
    fields.push(Field::new("rows", FieldType::Objects(columns.into())));
    fields.push(Field::new("j", FieldType::Json));
    Arc::new(Entity::new("thing", "id", fields).unwrap())
}

fn record(rng: &mut StdRng, id: i64) -> Record {
    let mut values = vec![Value::Integer(id)];
    values.extend(types().iter().map(|ty| value(rng, ty)));
    let texts = |rng: &mut StdRng| value(rng, &FieldType::String);
    let n = rng.random_range(0..3);
    values.push(Value::List((0..n).map(|_| texts(rng)).filter(|v| !v.is_null()).collect()));
    let row = |rng: &mut StdRng| vec![texts(rng), value(rng, &FieldType::Float)];
    values.push(Value::Objects((0..n).map(|_| row(rng)).collect()));
    values.push(Value::Json(json!({"x": [1, 0.1 + 0.2, u64::MAX, null, "ü"], "n": n})));
    Record::new(values)
}

fn leaf(rng: &mut StdRng, entity: &Entity) -> Filter {
    use Comparison as C;
    let scalars = types().len();
    let path = match rng.random_range(0..4) {
        0 => Path { field: scalars + 2, step: Step::Each(rng.random_range(0..2)) },
        _ => Path::whole(rng.random_range(1..=scalars)),
    };
    let ty = path.ty(entity).clone();
    let given = loop {
        let given = value(rng, &ty);
        if !given.is_null() {
            break given;
        }
    };
    let comparison = [C::Eq, C::Ne, C::Lt, C::Lte, C::Gt, C::Gte].choose(rng);
    match (rng.random_range(0..8), &given) {
        (0, _) => Filter::IsNull(path),
        (1, _) => Filter::In(
            path,
            vec![given, value(rng, &ty)].into_iter().filter(|v| !v.is_null()).collect(),
        ),
        (2, _) => {
            let other = value(rng, &ty);
            Filter::Between(path, given.clone(), if other.is_null() { given } else { other })
        }
        (3, Value::String(text)) => Filter::Prefix(path, text.clone()),
        (4, Value::String(text)) => Filter::Like(path, Like(format!("{text}%a"))),
        (5, Value::String(_)) => Filter::Contains(Path::whole(scalars + 1), given),
        (6, Value::String(_)) => Filter::Contains(path, given),
        _ => Filter::Compare(path, *comparison.unwrap(), given),
    }
}

fn filter(rng: &mut StdRng, entity: &Entity, depth: u32) -> Filter {
    let some = |rng: &mut StdRng| {
        (0..rng.random_range(0..3)).map(|_| filter(rng, entity, depth - 1)).collect()
    };
    match rng.random_range(0..4) {
        0 if depth > 0 => Filter::And(some(rng)),
        1 if depth > 0 => Filter::Or(some(rng)),
        2 if depth > 0 => Filter::Not(Box::new(filter(rng, entity, depth - 1))),
        _ => leaf(rng, entity),
    }
}

#[tokio::test]
async fn answers_are_those_of_the_reference_at_every_edge_of_the_index() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let entity = entity();
    let mut fed = Fed::new(&entity).await;
    for _ in 0..5 {
        let some =
            (0..20).map(|_| rng.random_range(-30..30)).collect::<std::collections::BTreeSet<_>>();
        let records = some.into_iter().map(|id| record(&mut rng, id)).collect();
        fed.put(records).await;
    }
    let all = fed.scan().await;
    assert!(all.is_sorted_by_key(|s| s.key.clone()));
    for round in 0..600 {
        let order = (0..rng.random_range(0..3)).map(|_| Order {
            path: Path::whole(rng.random_range(0..=types().len())),
            descending: rng.random(),
        });
        let mut query = Query {
            order: order.collect(),
            filter: filter(&mut rng, &entity, 3),
            limit: rng.random_range(1..9),
            facets: vec![rng.random_range(1..=types().len())],
            ..Query::all()
        };
        let count = fed.reader().count(&entity, &query.filter, None).await.unwrap().value;
        let expected = eval::count(&entity, &query.filter, None, all.iter()).unwrap();
        assert_eq!(count, expected, "round {round}: {:?}", query.filter);
        for _ in 0..4 {
            let page = fed.reader().query(&entity, &query).await.unwrap().value;
            let expected = eval::page(&entity, &query, all.iter()).unwrap();
            assert_eq!(page, expected, "round {round}: {query:?}");
            let Some(next) = page.next else { break };
            query.cursor = Some(next);
        }
    }
}

#[tokio::test]
async fn pages_by_relevance_visit_every_match_once_also_where_scores_are_equal() {
    let field = |name| Field { search: true, ..Field::new(name, FieldType::Text) };
    let fields = vec![Field::new("id", FieldType::String), field("title"), field("body")];
    let entity = Arc::new(Entity::new("page", "id", fields).unwrap());
    let mut fed = Fed::new(&entity).await;
    let text = |n: u32| match n % 4 {
        0 => "red apple pie",
        1 => "Apple, red!",
        2 => "green pear",
        _ => "a pie of apples and of red apple",
    };
    for some in [0..30, 30..33, 33..70] {
        let record = |n: u32| {
            let (title, body) = (Value::String(text(n).into()), Value::String(text(n / 4).into()));
            Record::new(vec![Value::String(format!("k{n:02}")), title, body])
        };
        fed.put(some.map(record).collect()).await;
    }
    let all = fed.scan().await;
    for text in ["apple", "red pie", "\"red apple\"", "appl*", "\"apple red\" pea*", "nothing"] {
        let mut query =
            Query { search: Some(text.into()), limit: 7, highlight: true, ..Query::all() };
        let mut found: Vec<Stored> = Vec::new();
        let mut last = (f32::INFINITY, String::new());
        loop {
            let page = fed.reader().query(&entity, &query).await.unwrap().value;
            for hit in page.hits {
                let rank = (hit.score.unwrap(), hit.stored.key.to_string());
                assert!(
                    rank.0 < last.0 || (rank.0 == last.0 && rank.1 > last.1),
                    "{text}: {last:?} {rank:?}"
                );
                assert!(
                    hit.highlights.values().all(|shown| shown.contains("<mark>"))
                        && !hit.highlights.is_empty()
                );
                last = rank;
                found.push(hit.stored);
            }
            let Some(next) = page.next else { break };
            query.cursor = Some(next);
        }
        found.sort_by_key(|s| s.key.clone());
        let by_key = Query {
            limit: 1000,
            search: Some(text.into()),
            order: vec![key_order()],
            ..Query::all()
        };
        let expected = eval::page(&entity, &by_key, all.iter()).unwrap();
        let expected: Vec<_> = expected.hits.into_iter().map(|hit| hit.stored).collect();
        assert_eq!(found, expected, "{text}");
    }
}

fn key_order() -> Order {
    Order { path: Path::whole(0), descending: false }
}

#[test]
fn a_record_survives_its_bytes_and_no_cut_bytes_are_a_record() {
    let entity = entity();
    let mut rng = StdRng::seed_from_u64(1);
    for id in 0..50 {
        let record = record(&mut rng, id);
        let version = Position::new(id as u64 + 1).unwrap();
        let bytes = codec::encode(version, &record);
        let back = codec::decode(&entity, &bytes).unwrap();
        assert_eq!((back.version, back.record.as_ref()), (version, &record));
        let cut = rng.random_range(0..bytes.len());
        assert!(codec::decode(&entity, &bytes[..cut]).is_err());
    }
}
