//! How many durable writes a second a postgres truth takes, by the number of units in one commit, beside the best
//! statement that one can write by hand for one row and one log entry without an order.
//!
//! `cargo run --release -p unisono-source-postgres --example commit_rate` (start the server: `engines/up postgres`)

#![expect(clippy::print_stdout, reason = "the figures are the product of this program")]
#![expect(clippy::disallowed_methods, reason = "it measures real time")]
#![expect(clippy::unwrap_used, reason = "a failure ends the measurement")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::NoTls;
use unisono_core::clock::SystemClock;
use unisono_core::kind::{Environment, OptionValue, Options, SourceKind};
use unisono_core::source::{Binding, Truth};
use unisono_core::write::{Action, Condition, Unit, Write};
use unisono_core::{Decimal, Entity, Field, FieldType, Record, Role, Timestamp, Value};
use unisono_source_postgres::Postgres;

const SCHEMA: &str = "commit_rate";
const KEYS: usize = 10_000;
const TIME: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() {
    let url = std::env::var("URL").ok();
    let options = options(url.as_deref());
    let environment = Environment { data: std::env::temp_dir(), clock: Arc::new(SystemClock) };
    let source = Postgres.open("main", &options, &environment).await.unwrap();
    let entity = product();
    let (place, role) = (Arc::clone(entity.name()), Role::Truth);
    let binding = Binding { entity: Arc::clone(&entity), role, place, options: Options::default() };
    source.prepare(&[binding]).await.unwrap();
    let truth = Arc::clone(&source).truth().unwrap();
    for from in (0..KEYS).step_by(500) {
        commit(&*truth, &entity, from, 500).await;
    }
    for round in 0..3 {
        if let Some(url) = &url {
            println!("by hand: {:>8.0} writes/s", by_hand(url).await);
        }
        for size in [1, 8] {
            let begun = Instant::now();
            let mut writes = 0;
            while begun.elapsed() < TIME {
                commit(&*truth, &entity, round + writes * 7, size).await;
                writes += size;
            }
            let rate = writes as f64 / begun.elapsed().as_secs_f64();
            println!("{size:>3} in one: {rate:>7.0} writes/s");
        }
    }
    source.close().await.unwrap();
}

/// Those of the running engine, or of a server at a URL without TLS.
fn options(url: Option<&str>) -> Options {
    let base = std::env::var_os("UNISONO_ENGINES").unwrap_or("/tmp/unisono-engines".into());
    let folder = Path::new(&base).join("postgres");
    let mut options = BTreeMap::new();
    match url {
        Some(url) => options.insert("url".to_owned(), OptionValue::Text(url.to_owned())),
        None => {
            let url = "postgresql://app:app-secret@127.0.0.1:5541/app".to_owned();
            let ca = folder.join("tls/ca.crt").display().to_string();
            options.insert("tls_ca".to_owned(), OptionValue::Text(ca));
            options.insert("url".to_owned(), OptionValue::Text(url))
        }
    };
    options.insert("schema".to_owned(), OptionValue::Text(SCHEMA.to_owned()));
    options.insert("prepared".to_owned(), OptionValue::Boolean(true));
    options.insert("pipelining".to_owned(), OptionValue::Boolean(true));
    Options(options)
}

async fn commit(truth: &dyn Truth, entity: &Arc<Entity>, from: usize, size: usize) {
    let units = (from..from + size).map(|n| {
        let record = product_record(n % KEYS);
        let key = entity.key_of(&record).unwrap();
        let (action, condition) = (Action::Put(record), Condition::None);
        let write = Write { entity: Arc::clone(entity), key, action, condition };
        let (writes, time) = (vec![write], Timestamp::EPOCH);
        Unit { writes, idempotency: None, time, actor: None, trace: None }
    });
    for result in truth.commit(units.collect()).await.unwrap() {
        result.unwrap();
    }
}

/// The same rows, one after the other, in one statement each with a sequence, which gives no order.
async fn by_hand(url: &str) -> f64 {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
        .batch_execute(&format!(
            "SET search_path = {SCHEMA}; CREATE TABLE IF NOT EXISTS by_hand (id text PRIMARY KEY, name text, price numeric(12,2), stock bigint); \
             CREATE TABLE IF NOT EXISTS by_hand_log (position bigserial PRIMARY KEY, entity text, key text, image json, time timestamptz)"
        ))
        .await
        .unwrap();
    let statement = client
        .prepare(
            "WITH put AS (INSERT INTO by_hand (id, name, price, stock) VALUES ($1, $2, $3::text::numeric, $4) \
              ON CONFLICT (id) DO UPDATE SET name = excluded.name, price = excluded.price, stock = excluded.stock) \
             INSERT INTO by_hand_log (entity, key, image, time) VALUES ('product', $1, $5::text::json, now()) RETURNING position",
        )
        .await
        .unwrap();
    let (begun, mut writes) = (Instant::now(), 0);
    while begun.elapsed() < TIME {
        let n = (writes * 7) % KEYS;
        let (id, name, price) = (key(n), format!("product number {n}"), format!("{n}.00"));
        let image =
            format!("{{\"id\":\"{id}\",\"name\":\"{name}\",\"price\":\"{price}\",\"stock\":{n}}}");
        client.query_one(&statement, &[&id, &name, &price, &(n as i64), &image]).await.unwrap();
        writes += 1;
    }
    writes as f64 / begun.elapsed().as_secs_f64()
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

/// A multiplication by an odd number scatters the keys like random ones.
fn key(n: usize) -> String {
    format!("{:016x}", (n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

fn product_record(n: usize) -> Record {
    Record::new(vec![
        Value::String(key(n)),
        Value::String(format!("product number {n}")),
        Value::Decimal(Decimal::new(n as i64 * 100, 2)),
        Value::Integer(n as i64),
    ])
}
