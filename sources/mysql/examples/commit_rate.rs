//! How many durable writes a second a mysql truth takes from many callers, whose writes gather as in the engine, beside
//! the best that each caller could do by hand: a connection of its own, and row and log entry in one exchange.
//!
//! `cargo run --release -p unisono-source-mysql --example commit_rate` (start the server: `engines/up mysql`)

#![expect(clippy::print_stdout, reason = "the figures are the product of this program")]
#![expect(clippy::disallowed_methods, reason = "it measures real time")]
#![expect(clippy::unwrap_used, reason = "a failure ends the measurement")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, SslOpts};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use unisono_core::clock::SystemClock;
use unisono_core::kind::{Environment, OptionValue, Options, SourceKind};
use unisono_core::source::{Binding, Truth};
use unisono_core::write::{Action, Condition, Unit, Write};
use unisono_core::{Decimal, Entity, Field, FieldType, Record, Role, Timestamp, Value};
use unisono_source_mysql::Mysql;

const KEYS: usize = 10_000;
const TIME: Duration = Duration::from_secs(3);
const ROUNDS: usize = 3;

/// A unit, and where its caller waits.
type Call = (Unit, oneshot::Sender<()>);

#[tokio::main]
async fn main() {
    let (url, ca) = server();
    let mut options = Options::default();
    options.0.insert("url".into(), OptionValue::Text(url.clone()));
    options.0.insert("tls_ca".into(), OptionValue::Text(ca.display().to_string()));
    let environment = Environment { data: std::env::temp_dir(), clock: Arc::new(SystemClock) };
    let source = Mysql.open("main", &options, &environment).await.unwrap();
    let entity = product();
    let (place, role) = (Arc::clone(entity.name()), Role::Truth);
    let binding = Binding { entity: Arc::clone(&entity), role, place, options: Options::default() };
    source.prepare(&[binding]).await.unwrap();
    let truth = Arc::clone(&source).truth().unwrap();
    for from in (0..KEYS).step_by(500) {
        let units = (from..from + 500).map(|n| unit(&entity, n)).collect();
        truth.commit(units).await.unwrap();
    }
    for callers in [1, 8, 32] {
        for _ in 0..ROUNDS {
            let own = gathered(&truth, &entity, callers).await;
            let by_hand = by_hand(&url, &ca, callers).await;
            let times = own / by_hand;
            println!(
                "{callers:>3} callers: {own:>7.0} writes/s, by hand {by_hand:>7.0}, {times:.2}x"
            );
        }
    }
    source.close().await.unwrap();
}

/// The URL of the running engine, with a database of this program, and the file of its authority.
fn server() -> (String, PathBuf) {
    let base = std::env::var_os("UNISONO_ENGINES").unwrap_or("/tmp/unisono-engines".into());
    let folder = Path::new(&base).join("mysql");
    let url = "mysql://app:app-secret@127.0.0.1:3351/t_commit_rate".to_owned();
    (url, folder.join("tls/ca.crt"))
}

/// Callers who each wait for their own write; what has gathered meanwhile goes as one commit.
async fn gathered(truth: &Arc<dyn Truth>, entity: &Arc<Entity>, callers: usize) -> f64 {
    let (sender, mut calls) = mpsc::unbounded_channel::<Call>();
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for caller in 0..callers {
        let (entity, sender) = (Arc::clone(entity), sender.clone());
        tasks.spawn(async move {
            let mut writes = 0;
            while begun.elapsed() < TIME {
                let (answer, answered) = oneshot::channel();
                let n = (writes * 7 + caller * 311) % KEYS;
                sender.send((unit(&entity, n), answer)).ok();
                answered.await.unwrap();
                writes += 1;
            }
            writes
        });
    }
    drop(sender);
    let mut batch = Vec::new();
    while calls.recv_many(&mut batch, 1000).await > 0 {
        let (units, answers): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
        for result in truth.commit(units).await.unwrap() {
            result.unwrap();
        }
        answers.into_iter().for_each(|answer| answer.send(()).unwrap());
        // Those who were answered just now write again in this moment.
        tokio::task::yield_now().await;
    }
    rate(tasks, begun).await
}

/// The same rows and entries, with a plain sequence, which gives no order.
async fn by_hand(url: &str, ca: &Path, callers: usize) -> f64 {
    let tls = SslOpts::default()
        .with_root_certs(vec![ca.to_owned().into()])
        .with_disable_built_in_roots(true);
    let opts =
        OptsBuilder::from_opts(Opts::from_url(url).unwrap()).prefer_socket(false).ssl_opts(tls);
    let mut conns = Vec::new();
    for _ in 0..callers {
        conns.push(Conn::new(opts.clone()).await.unwrap());
    }
    let tables = "CREATE TABLE IF NOT EXISTS by_hand (id VARCHAR(40) PRIMARY KEY, name TEXT, price DECIMAL(12,2), stock BIGINT); \
                  CREATE TABLE IF NOT EXISTS by_hand_log (position BIGINT AUTO_INCREMENT PRIMARY KEY, entity VARCHAR(48), \
                  `key` VARCHAR(40), image LONGTEXT, time DATETIME(6))";
    conns[0].query_drop(tables).await.unwrap();
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for (caller, mut conn) in conns.into_iter().enumerate() {
        tasks.spawn(async move {
            let mut writes = 0;
            while begun.elapsed() < TIME {
                let n = (writes * 7 + caller * 311) % KEYS;
                let id = key(n);
                let sql = format!(
                    "START TRANSACTION; INSERT INTO by_hand VALUES ('{id}', 'product number {n}', {n}.00, {n}) \
                     ON DUPLICATE KEY UPDATE name = VALUES(name), price = VALUES(price), stock = VALUES(stock); \
                     INSERT INTO by_hand_log (entity, `key`, image, time) VALUES ('product', '{id}', \
                     '{{\"id\":\"{id}\",\"name\":\"product number {n}\",\"price\":\"{n}.00\",\"stock\":{n}}}', NOW(6)); COMMIT"
                );
                conn.query_drop(sql).await.unwrap();
                writes += 1;
            }
            writes
        });
    }
    rate(tasks, begun).await
}

async fn rate(tasks: JoinSet<usize>, begun: Instant) -> f64 {
    let writes: usize = tasks.join_all().await.iter().sum();
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

fn unit(entity: &Arc<Entity>, n: usize) -> Unit {
    let record = Record::new(vec![
        Value::String(key(n)),
        Value::String(format!("product number {n}")),
        Value::Decimal(Decimal::new(n as i64 * 100, 2)),
        Value::Integer(n as i64),
    ]);
    let key = entity.key_of(&record).unwrap();
    let (action, condition) = (Action::Put(record), Condition::None);
    let write = Write { entity: Arc::clone(entity), key, action, condition };
    Unit {
        writes: vec![write],
        idempotency: None,
        time: Timestamp::EPOCH,
        actor: None,
        trace: None,
    }
}
