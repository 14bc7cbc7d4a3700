//! What the rates are worth: whether callers see what they wrote, what stays wrong in the cache, and how many queries
//! a crowd causes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use super::load::Connection;
use super::stand::{Kind, Side, Stand};
use super::work::{Expected, Goods, get, put};
use crate::engines::{Engine, postgres};
use crate::report::Report;
use crate::{Plan, Result};

const KINDS: [(Kind, &str); 5] = [
    (Kind::Ours, "Unisono, Redis"),
    (Kind::OursNear, "Unisono, in the process"),
    (Kind::A, "a"),
    (Kind::B, "b"),
    (Kind::C, "c"),
];
/// What is measured here, as the table names it.
pub(super) const COLD_KEY: &str = "queries for 500 simultaneous readers of one cold key";
pub(super) const BEHIND_A_REPLICA: &str = "replica 100 ms behind";
const CROWD: usize = 500;
const CALLERS: usize = 16;
const KEYS: usize = 200;
/// One request in so many is a write.
const WRITES_ONE_IN: usize = 4;
/// How far the replica is behind.
const BEHIND: Duration = Duration::from_millis(100);
/// A server tells its counters of use after a second, or when it had nothing to do for ten.
const COUNTED: Duration = Duration::from_secs(11);

/// How often the crowd's one key was read from the databases.
pub(super) async fn one_cold_key(stand: &Stand, report: &mut Report) -> Result<()> {
    let mut figures = Vec::new();
    for (kind, _) in KINDS {
        let Some(mut side) = stand.start(kind, 0).await? else {
            figures.push("not run".to_owned());
            continue;
        };
        stand.clear(&mut side).await?;
        let (engine, table) =
            if kind.is_ours() { (&stand.ours, "product") } else { (&stand.hand, "by_hand") };
        // The key that connections are tried with is not to be counted.
        let known = stand.goods.products.last().ok_or("no products")?;
        let mut request = Vec::new();
        get(side.collection, &known.id, "", &mut request)?;
        Connection::open(side.server.address).await?.call(&request).await?;
        tokio::time::sleep(COUNTED).await;
        let before = uses(engine, table).await?;
        crowd(stand, &side).await?;
        tokio::time::sleep(COUNTED).await;
        figures.push((uses(engine, table).await? - before).to_string());
    }
    tell(report, COLD_KEY, &figures, "1");
    Ok(())
}

/// Ours and the others in one row.
fn tell(report: &mut Report, what: &str, figures: &[String], wanted: &str) {
    let named = |some: &[(Kind, &str)], figures: &[String]| {
        let each = some.iter().zip(figures).map(|((_, name), figure)| format!("{name}: {figure}"));
        each.collect::<Vec<_>>().join("; ")
    };
    let (ours, others) = figures.split_at(figures.len().min(2));
    let (our_kinds, other_kinds) = KINDS.split_at(2);
    report.beside(what, named(our_kinds, ours), named(other_kinds, others), wanted);
}

/// How often a table was looked into, on the primary and the replica.
async fn uses(engine: &Engine, table: &str) -> Result<i64> {
    let mut sum = 0;
    for url in [engine.text("url"), engine.replica(0)?] {
        let sql = "SELECT (seq_scan + coalesce(idx_scan, 0))::bigint FROM pg_stat_user_tables WHERE schemaname = $1 AND relname = $2";
        let client = postgres::at(engine, url).await?;
        sum += client.query_one(sql, &[&engine.text("schema"), &table]).await?.get::<_, i64>(0);
    }
    Ok(sum)
}

/// Everybody at the same time, over connections that are there already.
async fn crowd(stand: &Stand, side: &Side) -> Result<()> {
    let goods = &stand.goods;
    let (known, cold) = (goods.products.last(), goods.products.iter().nth_back(1));
    let (Some(known), Some(cold)) = (known, cold) else { return Err("no products".into()) };
    let mut request = Vec::new();
    get(side.collection, &known.id, "", &mut request)?;
    let mut connections = Vec::new();
    for _ in 0..CROWD {
        let mut connection = Connection::open(side.server.address).await?;
        connection.call(&request).await?;
        connections.push(connection);
    }
    let mut request = Vec::new();
    get(side.collection, &cold.id, "", &mut request)?;
    let (request, id) = (Arc::new(request), Arc::new(cold.id.clone()));
    // Not all of them can be asked about at once while the others' tasks are made.
    let start = Arc::new(tokio::sync::Barrier::new(CROWD));
    let tasks: Vec<_> = connections
        .into_iter()
        .map(|mut connection| {
            let (request, id, start) = (Arc::clone(&request), Arc::clone(&id), Arc::clone(&start));
            tokio::spawn(async move {
                start.wait().await;
                connection.call(&request).await?;
                connection.check(Expected::Record(&id))
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}

/// With a replica that is behind: reads that miss the caller's own write, and keys that stay wrong afterwards.
pub(super) async fn behind_a_replica(
    stand: &Stand,
    plan: &Plan,
    report: &mut Report,
) -> Result<()> {
    let replica = stand.hand.replica(1)?;
    let millis = BEHIND.as_millis();
    let slow =
        format!("ALTER SYSTEM SET recovery_min_apply_delay = '{millis}ms';SELECT pg_reload_conf()");
    stand.administer(replica, &slow).await?;
    let measured = all_behind(stand, plan, report).await;
    let usual = "ALTER SYSTEM RESET recovery_min_apply_delay;SELECT pg_reload_conf()";
    stand.administer(replica, usual).await?;
    measured
}

async fn all_behind(stand: &Stand, plan: &Plan, report: &mut Report) -> Result<()> {
    let (mut missed, mut wrong) = (Vec::new(), Vec::new());
    for (kind, _) in KINDS {
        let Some(mut side) = stand.start(kind, 1).await? else {
            for figures in [&mut missed, &mut wrong] {
                figures.push("not run".to_owned());
            }
            continue;
        };
        stand.clear(&mut side).await?;
        let outcome = write_and_read(stand, &side, plan.time * 2).await?;
        missed.push(format!("{} of {}", outcome.missed, outcome.reads));
        wrong.push(format!("{} of {KEYS}", outcome.wrong));
    }
    let named = |what: &str| format!("{BEHIND_A_REPLICA}: {what}");
    tell(report, &named("reads older than the caller's own write"), &missed, "0");
    tell(report, &named("wrong keys after quiescence"), &wrong, "0");
    Ok(())
}

#[derive(Default)]
struct Outcome {
    /// Of keys that the caller writes itself.
    reads: u64,
    missed: u64,
    wrong: u64,
}

/// The one who writes some of the keys, and reads all.
struct Caller {
    number: usize,
    collection: &'static str,
    goods: Arc<Goods>,
    connection: Connection,
    /// What the last answer gave to send on; nothing by hand.
    token: String,
    /// Stock of each key as this caller has written it last.
    written: Vec<u64>,
}

impl Caller {
    async fn open(stand: &Stand, side: &Side, number: usize) -> Result<Self> {
        Ok(Caller {
            number,
            collection: side.collection,
            goods: Arc::clone(&stand.goods),
            connection: Connection::open(side.server.address).await?,
            token: String::new(),
            written: vec![0; KEYS],
        })
    }

    /// Writes its own keys and reads any, in the order of the real order lines.
    async fn run(mut self, time: Duration, base: u64) -> Result<(Self, Outcome)> {
        // What an earlier run has left must not look like something newer.
        self.written.fill(base);
        for key in (self.number..KEYS).step_by(CALLERS) {
            self.write(key).await?;
        }
        let (began, mut outcome) = (Instant::now(), Outcome::default());
        let apart = self.goods.bought.len() / CALLERS * self.number;
        for n in 0.. {
            if began.elapsed() > time {
                break;
            }
            let line = (apart + n) % self.goods.bought.len();
            let key = self.goods.bought.get(line).copied().unwrap_or_default() % KEYS;
            if n % WRITES_ONE_IN == 0 {
                self.write(key - key % CALLERS + self.number).await?;
            } else {
                let stock = self.read(key).await?;
                if key % CALLERS == self.number {
                    let own = self.written.get(key).copied().unwrap_or_default();
                    outcome.reads += 1;
                    outcome.missed += u64::from(stock < own);
                }
            }
        }
        Ok((self, outcome))
    }

    async fn write(&mut self, key: usize) -> Result<()> {
        let Some(written) = self.written.get_mut(key) else { return Ok(()) };
        *written += 1;
        let product = self.goods.product(key)?;
        let mut request = Vec::new();
        put(self.collection, product, *written, &self.token, &mut request)?;
        self.connection.call(&request).await?;
        self.connection.check(Expected::Record(&product.id))?;
        self.remember();
        Ok(())
    }

    /// The stock of a product.
    async fn read(&mut self, key: usize) -> Result<u64> {
        let product = self.goods.product(key)?;
        let mut request = Vec::new();
        get(self.collection, &product.id, &self.token, &mut request)?;
        self.connection.call(&request).await?;
        self.connection.check(Expected::Record(&product.id))?;
        self.remember();
        let json: Json = serde_json::from_slice(self.connection.body())?;
        Ok(json["stock"].as_u64().unwrap_or_default())
    }

    fn remember(&mut self) {
        if let Some(token) = self.connection.header("unisono-token") {
            self.token = format!("Unisono-Token: {token}\r\n");
        }
    }
}

async fn write_and_read(stand: &Stand, side: &Side, time: Duration) -> Result<Outcome> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let base = u64::try_from(now.as_millis())?;
    let mut tasks = Vec::new();
    for number in 0..CALLERS {
        tasks.push(tokio::spawn(Caller::open(stand, side, number).await?.run(time, base)));
    }
    let (mut all, mut last) = (Outcome::default(), vec![0; KEYS]);
    for task in tasks {
        let (caller, outcome) = task.await??;
        all.reads += outcome.reads;
        all.missed += outcome.missed;
        for (last, own) in last.iter_mut().zip(caller.written) {
            *last = own.max(*last);
        }
    }
    // The replica is there long before; what is wrong now stays so until its time to live ends.
    tokio::time::sleep(BEHIND * 15).await;
    let mut looking = Caller::open(stand, side, CALLERS).await?;
    for (key, last) in last.iter().enumerate() {
        looking.token.clear();
        all.wrong += u64::from(looking.read(key).await? != *last);
    }
    Ok(all)
}
