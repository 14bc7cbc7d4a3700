//! How many durable writes a second a sqlite truth takes, by the number of units in one commit; and how long questions
//! over many lines take.
//!
//! `cargo run --release -p unisono-source-sqlite --example commit_rate -- [folder]`

#![expect(clippy::print_stdout, reason = "the figures are the product of this program")]
#![expect(clippy::disallowed_methods, reason = "it measures real time")]
#![expect(clippy::unwrap_used, reason = "a failure ends the measurement")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use unisono_core::clock::SystemClock;
use unisono_core::kind::{Environment, OptionValue, Options, SourceKind};
use unisono_core::query::{Aggregate, AggregateOrder, Filter, Metric, Path, Step};
use unisono_core::source::{Binding, Source};
use unisono_core::write::{Action, Condition, Unit, Write};
use unisono_core::{Entity, Field, FieldType, Record, Role, Timestamp, Value};
use unisono_source_sqlite::Sqlite;

const WRITES: usize = 200_000;
const LINES: usize = 10;
const ORDERS: usize = 50_000;

#[tokio::main]
async fn main() {
    let folder = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    for size in [1, 16, 64, 512] {
        let temporary = tempfile::tempdir_in(&folder).unwrap();
        let source = open(temporary.path().into(), &product()).await;
        let total = if size == 1 { WRITES / 20 } else { WRITES };
        let begun = Instant::now();
        commit(&source, &product(), total, size, &product_record).await;
        let rate = total as f64 / begun.elapsed().as_secs_f64();
        println!("batches of {size:>3}: {rate:>8.0} writes/s");
        source.close().await.unwrap();
    }
    lines(&folder).await;
}

/// Groups order lines by product.
async fn lines(folder: &std::path::Path) {
    let temporary = tempfile::tempdir_in(folder).unwrap();
    let entity = order();
    let source = open(temporary.path().into(), &entity).await;
    let begun = Instant::now();
    commit(&source, &entity, ORDERS, 512, &order_record).await;
    println!("{ORDERS} orders of {LINES} lines written in {:.1?}", begun.elapsed());
    let each = |n| Path { field: 1, step: Step::Each(n) };
    let question = Aggregate {
        filter: Filter::All,
        unnest: Some(1),
        group_by: vec![each(0)],
        metrics: vec![("sold".into(), Metric::Sum(each(1))), ("lines".into(), Metric::Count)],
        order: vec![AggregateOrder::Metric { index: 0, descending: true }],
        limit: 10,
    };
    let begun = Instant::now();
    let groups =
        Arc::clone(&source).reader().unwrap().aggregate(&entity, &question).await.unwrap().value;
    println!(
        "{} lines in {} groups in {:.1?}",
        ORDERS * LINES,
        groups.total_groups,
        begun.elapsed()
    );
    source.close().await.unwrap();
}

async fn open(data: PathBuf, entity: &Arc<Entity>) -> Arc<dyn Source> {
    let options =
        Options(BTreeMap::from([("path".to_owned(), OptionValue::Text("main.db".to_owned()))]));
    let environment = Environment { data, clock: Arc::new(SystemClock) };
    let source = Sqlite.open("main", &options, &environment).await.unwrap();
    let binding = Binding {
        entity: Arc::clone(entity),
        role: Role::Truth,
        place: Arc::clone(entity.name()),
        options: Options::default(),
    };
    source.prepare(&[binding]).await.unwrap();
    source
}

async fn commit(
    source: &Arc<dyn Source>,
    entity: &Arc<Entity>,
    total: usize,
    size: usize,
    record: &dyn Fn(usize) -> Record,
) {
    let truth = Arc::clone(source).truth().unwrap();
    for batch in 0..total / size {
        let units = (batch * size..(batch + 1) * size).map(|n| {
            let record = record(n);
            let write = Write {
                entity: Arc::clone(entity),
                key: entity.key_of(&record).unwrap(),
                action: Action::Put(record),
                condition: Condition::None,
            };
            Unit {
                writes: vec![write],
                idempotency: None,
                time: Timestamp::EPOCH,
                actor: None,
                trace: None,
            }
        });
        for result in truth.commit(units.collect()).await.unwrap() {
            result.unwrap();
        }
    }
}

fn product() -> Arc<Entity> {
    let fields = vec![
        Field::new("id", FieldType::String),
        Field::new("name", FieldType::String),
        Field::new("price", FieldType::Decimal { precision: 12, scale: 2 }),
        Field::new("stock", FieldType::Integer),
    ];
    Arc::new(Entity::new("product", "id", fields).unwrap())
}

fn product_record(n: usize) -> Record {
    // A multiplication by an odd number scatters the keys like random ones.
    let key = (n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    Record::new(vec![
        Value::String(format!("{key:016x}")),
        Value::String(format!("product number {n}")),
        Value::Decimal(unisono_core::Decimal::new(n as i64, 2)),
        Value::Integer(n as i64),
    ])
}

fn order() -> Arc<Entity> {
    let lines = vec![
        Field::new("product_id", FieldType::String),
        Field::new("quantity", FieldType::Integer),
    ];
    let fields = vec![
        Field::new("id", FieldType::Integer),
        Field::new("items", FieldType::Objects(lines.into())),
    ];
    Arc::new(Entity::new("order", "id", fields).unwrap())
}

fn order_record(n: usize) -> Record {
    let line = |m: usize| {
        vec![Value::String(format!("p{}", (n * 7 + m * 13) % 5000)), Value::Integer(m as i64)]
    };
    Record::new(vec![Value::Integer(n as i64), Value::Objects((0..LINES).map(line).collect())])
}
