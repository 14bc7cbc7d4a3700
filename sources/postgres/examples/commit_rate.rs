//! How many durable writes of one record a second a postgres truth takes, by the number of callers whose writes go in
//! one commit, beside a program by hand: one statement for each write (row and log entry, in no order that a reader
//! could follow), and a connection for each caller.
//!
//! `cargo run --release -p unisono-source-postgres --example commit_rate` (start the server: `engines/up postgres`)

#![expect(clippy::print_stdout, reason = "the figures are the product of this program")]
#![expect(clippy::disallowed_methods, reason = "it measures real time")]
#![expect(clippy::unwrap_used, reason = "a failure ends the measurement")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio_postgres::Client;
use tokio_postgres_rustls::MakeRustlsConnect;
use unisono_core::clock::SystemClock;
use unisono_core::kind::{Environment, OptionValue, Options, SourceKind};
use unisono_core::source::{Binding, Truth};
use unisono_core::write::{Action, Condition, Unit, Write};
use unisono_core::{Decimal, Entity, Field, FieldType, Record, Role, Timestamp, Value};
use unisono_source_postgres::Postgres;

const URL: &str = "postgresql://app:app-secret@127.0.0.1:5541/app";
const SCHEMA: &str = "commit_rate";
const KEYS: usize = 10_000;
const TIME: Duration = Duration::from_secs(2);
const ROUNDS: usize = 3;
const CALLERS: [usize; 6] = [1, 2, 4, 8, 32, 64];

#[tokio::main]
async fn main() {
    let environment = Environment { data: std::env::temp_dir(), clock: Arc::new(SystemClock) };
    let source = Postgres.open("main", &options(), &environment).await.unwrap();
    let entity = product();
    let (place, role) = (Arc::clone(entity.name()), Role::Truth);
    let binding = Binding { entity: Arc::clone(&entity), role, place, options: Options::default() };
    source.prepare(&[binding]).await.unwrap();
    let truth = Arc::clone(&source).truth().unwrap();
    for from in (0..KEYS).step_by(500) {
        commit(&*truth, &entity, from, 500).await;
    }
    for callers in CALLERS {
        let (mut ours, mut theirs) = (0.0, 0.0);
        for _ in 0..ROUNDS {
            theirs += by_hand(callers).await / ROUNDS as f64;
            ours += in_one(&*truth, &entity, callers).await / ROUNDS as f64;
        }
        let times = ours / theirs;
        println!("{callers:>3} callers: {ours:>7.0} writes/s, by hand {theirs:>7.0}: {times:.2}x");
    }
    source.close().await.unwrap();
    let drop = format!("DROP SCHEMA {SCHEMA} CASCADE");
    connect().await.batch_execute(&drop).await.unwrap();
}

fn authority() -> PathBuf {
    let base = std::env::var_os("UNISONO_ENGINES").unwrap_or("/tmp/unisono-engines".into());
    Path::new(&base).join("postgres/tls/ca.crt")
}

fn options() -> Options {
    let text = |text: &str| OptionValue::Text(text.to_owned());
    Options(BTreeMap::from([
        ("url".to_owned(), text(URL)),
        ("tls_ca".to_owned(), text(&authority().display().to_string())),
        ("schema".to_owned(), text(SCHEMA)),
        ("prepared".to_owned(), OptionValue::Boolean(true)),
        ("pipelining".to_owned(), OptionValue::Boolean(true)),
    ]))
}

/// Commits of as many units as there are callers, one commit after the other: what a group commit comes to.
async fn in_one(truth: &dyn Truth, entity: &Arc<Entity>, callers: usize) -> f64 {
    let (begun, mut writes) = (Instant::now(), 0);
    while begun.elapsed() < TIME {
        commit(truth, entity, writes * 7, callers).await;
        writes += callers;
    }
    writes as f64 / begun.elapsed().as_secs_f64()
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

/// The same rows by callers with a connection each.
async fn by_hand(callers: usize) -> f64 {
    connect()
        .await
        .batch_execute(
            "CREATE TABLE IF NOT EXISTS by_hand (id text PRIMARY KEY, name text, price numeric(12,2), stock bigint); \
             CREATE TABLE IF NOT EXISTS by_hand_log (position bigserial PRIMARY KEY, entity text, key text, image json, time timestamptz)",
        )
        .await
        .unwrap();
    let mut clients = Vec::new();
    for _ in 0..callers {
        clients.push(connect().await);
    }
    let begun = Instant::now();
    let tasks: Vec<_> = (clients.into_iter().enumerate())
        .map(|(caller, client)| tokio::spawn(caller_by_hand(client, caller, begun)))
        .collect();
    let mut writes = 0;
    for task in tasks {
        writes += task.await.unwrap();
    }
    writes as f64 / begun.elapsed().as_secs_f64()
}

async fn caller_by_hand(client: Client, caller: usize, begun: Instant) -> usize {
    let statement = client
        .prepare(
            "WITH put AS (INSERT INTO by_hand (id, name, price, stock) VALUES ($1, $2, $3::text::numeric, $4) \
              ON CONFLICT (id) DO UPDATE SET name = excluded.name, price = excluded.price, stock = excluded.stock) \
             INSERT INTO by_hand_log (entity, key, image, time) VALUES ('product', $1, $5::text::json, now()) RETURNING position",
        )
        .await
        .unwrap();
    let mut writes = 0;
    while begun.elapsed() < TIME {
        let n = (caller * 157 + writes * 7) % KEYS;
        let (id, name, price) = (key(n), format!("product number {n}"), format!("{n}.00"));
        let image =
            format!("{{\"id\":\"{id}\",\"name\":\"{name}\",\"price\":\"{price}\",\"stock\":{n}}}");
        client.query_one(&statement, &[&id, &name, &price, &(n as i64), &image]).await.unwrap();
        writes += 1;
    }
    writes
}

async fn connect() -> Client {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authority()).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut config: tokio_postgres::Config = URL.parse().unwrap();
    config.ssl_mode(tokio_postgres::config::SslMode::Require);
    let (client, connection) = config.connect(MakeRustlsConnect::new(tls)).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(&format!("SET search_path = {SCHEMA}")).await.unwrap();
    client
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
