//! Three nodes of each service behind one cache, while its engines break: the replica lags and stands still, Redis is
//! killed and failed over by Sentinel, away altogether, and flushed. Counted is what callers see of it.
//!
//! The services by hand know no Sentinel: a proxy takes them to whichever server is the primary, as HAProxy would.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use super::load::Connection;
use super::redis::Redis;
use super::stand::{Kind, Side, Stand};
use super::work::{Expected, Goods, get, put};
use crate::engines::postgres;
use crate::report::Report;
use crate::{Plan, Result};

const KINDS: [(Kind, &str); 3] = [(Kind::Ours, "Unisono"), (Kind::A, "a"), (Kind::C, "c")];
const NODES: usize = 3;
const CALLERS: usize = 64;
const KEYS: usize = 640;
/// One request in so many is a write.
const WRITES_ONE_IN: usize = 10;
/// An answer that takes longer has failed.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long after the last write everything must be right: twice what the replica lags.
const QUIET: Duration = Duration::from_secs(4);

/// What is done to the engines.
#[derive(Clone, Copy)]
enum Step {
    /// The replica applies everything two seconds later, until the end.
    Lag,
    Pause,
    Resume,
    /// Sentinel makes the copy the primary.
    KillPrimary,
    KillRedis,
    StartRedis,
    Flush,
}

/// When it is done, in hundredths of the time.
const COURSE: [(u32, Step); 9] = [
    (8, Step::Lag),
    (20, Step::Pause),
    (30, Step::Resume),
    (38, Step::Flush),
    (45, Step::KillPrimary),
    (58, Step::StartRedis),
    (68, Step::KillRedis),
    (80, Step::StartRedis),
    (88, Step::Flush),
];

/// What all callers of a side saw.
#[derive(Default)]
struct Outcome {
    requests: u64,
    reads: u64,
    /// Older than what the same caller had written or read before.
    old: u64,
    failed: u64,
    first_failure: Option<String>,
    /// Of every key at every node, when all is quiet.
    wrong: u64,
}

/// Runs the course with each service; fails if the product did not keep its word.
pub(super) async fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let redis = Redis::behind_sentinel().await?;
    let stand = Stand::new(plan, redis.engine()?, Some(redis.address())).await?;
    let time = plan.time * 40;
    let mut told = Vec::new();
    for (kind, name) in KINDS {
        let outcome = one(&stand, &redis, kind, time).await;
        // The engines are left as they were found, whatever happened.
        stand.administer(stand.hand.replica(1)?, USUAL).await?;
        redis.settled().await?;
        told.push((name, outcome?));
    }
    stand.clean().await?;
    tell(report, time, &told)
}

const USUAL: &str = "ALTER SYSTEM RESET recovery_min_apply_delay;SELECT pg_reload_conf();SELECT pg_wal_replay_resume()";

fn tell(report: &mut Report, time: Duration, told: &[(&str, Option<Outcome>)]) -> Result<()> {
    let mut row = |what: &str, figure: &dyn Fn(&Outcome) -> String, wanted: &str| {
        let mut each = told.iter().map(|(name, outcome)| {
            format!("{name}: {}", outcome.as_ref().map_or("not run".to_owned(), figure))
        });
        let ours = each.next().unwrap_or_default();
        let what =
            format!("{NODES} nodes, {CALLERS} callers, {} s of faults: {what}", time.as_secs());
        report.beside(&what, ours, each.collect::<Vec<_>>().join("; "), wanted);
    };
    row("older than the caller knew", &|o| format!("{} of {} reads", o.old, o.reads), "0");
    row("failed requests", &|o| format!("{} of {}", o.failed, o.requests), "0");
    row("wrong keys after quiescence", &|o| format!("{} of {}", o.wrong, KEYS * NODES), "0");
    for (name, outcome) in told {
        if let Some(failure) = outcome.as_ref().and_then(|o| o.first_failure.as_ref()) {
            println!("    the first failure of {name}: {failure}");
        }
    }
    match told.first().and_then(|(_, outcome)| outcome.as_ref()) {
        Some(ours) if ours.old + ours.failed + ours.wrong > 0 => {
            Err("the product showed what it promises never to show".into())
        }
        _ => Ok(()),
    }
}

async fn one(stand: &Stand, redis: &Redis, kind: Kind, time: Duration) -> Result<Option<Outcome>> {
    let mut nodes: Vec<Side> = Vec::new();
    for _ in 0..NODES {
        match stand.start(kind, 1).await? {
            Some(node) => nodes.push(node),
            None => return Ok(None),
        }
    }
    let collection = nodes.first().map_or("", |node| node.collection);
    let addresses: Vec<_> = nodes.iter().map(|node| node.server.address).collect();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let base = u64::try_from(now.as_millis())?;
    let began = Instant::now();
    let callers: Vec<_> = (0..CALLERS)
        .map(|number| {
            let goods = Arc::clone(&stand.goods);
            let caller = Caller::new(number, collection, goods, addresses.clone());
            tokio::spawn(caller.run(base, began + time))
        })
        .collect();
    for (at, step) in COURSE {
        tokio::time::sleep_until((began + time * at / 100).into()).await;
        match step {
            Step::Lag => {
                stand
                    .administer(
                        stand.hand.replica(1)?,
                        "ALTER SYSTEM SET recovery_min_apply_delay = '2s';SELECT pg_reload_conf()",
                    )
                    .await?
            }
            Step::Pause => {
                stand.administer(stand.hand.replica(1)?, "SELECT pg_wal_replay_pause()").await?
            }
            Step::Resume => {
                stand.administer(stand.hand.replica(1)?, "SELECT pg_wal_replay_resume()").await?
            }
            Step::KillPrimary => redis.kill_primary()?,
            Step::KillRedis => redis.kill_all()?,
            Step::StartRedis => redis.start_again()?,
            Step::Flush => redis.flush().await?,
        }
    }
    let mut all = Outcome::default();
    for caller in callers {
        let seen = caller.await??;
        all.requests += seen.requests;
        all.reads += seen.reads;
        all.old += seen.old;
        all.failed += seen.failed;
        all.first_failure = all.first_failure.or(seen.first_failure);
    }
    stand.administer(stand.hand.replica(1)?, USUAL).await?;
    tokio::time::sleep(QUIET).await;
    all.wrong = wrong(stand, kind, collection, &addresses).await?;
    Ok(Some(all))
}

/// The one who writes some of the keys, and reads all, at any node.
struct Caller {
    number: usize,
    collection: &'static str,
    goods: Arc<Goods>,
    nodes: Vec<(SocketAddr, Option<Connection>)>,
    /// What the last answer gave to send on; nothing by hand.
    token: String,
    /// The newest stock of each key that this caller knows of.
    known: Vec<u64>,
    seen: Outcome,
}

impl Caller {
    fn new(
        number: usize,
        collection: &'static str,
        goods: Arc<Goods>,
        nodes: Vec<SocketAddr>,
    ) -> Self {
        Caller {
            number,
            collection,
            goods,
            nodes: nodes.into_iter().map(|address| (address, None)).collect(),
            token: String::new(),
            known: vec![0; KEYS],
            seen: Outcome::default(),
        }
    }

    /// Writes its own keys, one number higher each time, and reads any, in the order of the real order lines.
    async fn run(mut self, base: u64, end: Instant) -> Result<Outcome> {
        let apart = self.goods.bought.len() / CALLERS * self.number;
        for n in 0.. {
            if Instant::now() > end {
                break;
            }
            let line = (apart + n) % self.goods.bought.len();
            let key = self.goods.bought.get(line).copied().unwrap_or_default() % KEYS;
            // A failure is counted, and the next request goes to another node.
            if n % WRITES_ONE_IN == 0 {
                // Numbers rise from run to run, so that nothing of an earlier one looks new.
                self.write(key - key % CALLERS + self.number, base + n as u64, n).await?;
            } else if let Some(stock) = self.read(key, n).await? {
                self.seen.reads += 1;
                let known = self.known.get_mut(key).ok_or("no such key")?;
                self.seen.old += u64::from(stock < *known);
                *known = stock.max(*known);
            }
        }
        Ok(self.seen)
    }

    async fn write(&mut self, key: usize, stock: u64, turn: usize) -> Result<()> {
        let goods = Arc::clone(&self.goods);
        let product = goods.product(key)?;
        let mut request = Vec::new();
        put(self.collection, product, stock, &self.token, &mut request)?;
        if self.ask(turn, &request, &product.id).await.is_some() {
            *self.known.get_mut(key).ok_or("no such key")? = stock;
        }
        Ok(())
    }

    /// The stock of a product; nothing if the request failed.
    async fn read(&mut self, key: usize, turn: usize) -> Result<Option<u64>> {
        let goods = Arc::clone(&self.goods);
        let product = goods.product(key)?;
        let mut request = Vec::new();
        get(self.collection, &product.id, &self.token, &mut request)?;
        Ok(self.ask(turn, &request, &product.id).await)
    }

    /// Asks a node; answers the stock that it tells.
    async fn ask(&mut self, turn: usize, request: &[u8], id: &str) -> Option<u64> {
        self.seen.requests += 1;
        let node = turn % self.nodes.len();
        let (address, connection) = self.nodes.get_mut(node)?;
        let asked = tokio::time::timeout(ANSWER_MAX, async {
            let mut used = match connection.take() {
                Some(connection) => connection,
                None => Connection::open(*address).await?,
            };
            used.call(request).await?;
            used.check(Expected::Record(id))?;
            let json: Json = serde_json::from_slice(used.body())?;
            let token = used.header("unisono-token").map(|t| format!("Unisono-Token: {t}\r\n"));
            *connection = Some(used);
            Ok::<_, crate::Error>((json["stock"].as_u64(), token))
        });
        match asked.await.unwrap_or_else(|_| Err(format!("no answer in {ANSWER_MAX:?}").into())) {
            Ok((stock, token)) => {
                self.token = token.unwrap_or_default();
                // One that was never written has no stock.
                Some(stock.unwrap_or_default())
            }
            Err(error) => {
                self.seen.failed += 1;
                self.seen.first_failure.get_or_insert_with(|| error.to_string());
                None
            }
        }
    }
}

/// How many keys some node answers otherwise than the database has them, one by one for each node.
async fn wrong(
    stand: &Stand,
    kind: Kind,
    collection: &'static str,
    addresses: &[SocketAddr],
) -> Result<u64> {
    let (engine, table) =
        if kind.is_ours() { (&stand.ours, "product") } else { (&stand.hand, "by_hand") };
    let database = postgres::connect(engine).await?;
    let statement = database.prepare(&format!("SELECT stock FROM {table} WHERE id = $1")).await?;
    let mut wrong = 0;
    for address in addresses {
        // Nothing is demanded: whoever comes anew must see what is true.
        let mut looking =
            Caller::new(CALLERS, collection, Arc::clone(&stand.goods), vec![*address]);
        for key in 0..KEYS {
            looking.token.clear();
            let stock: Option<i64> =
                database.query_one(&statement, &[&stand.goods.product(key)?.id]).await?.get(0);
            let told = looking.read(key, 0).await?.ok_or("a node does not answer")?;
            wrong += u64::from(stock.unwrap_or_default().cast_unsigned() != told);
        }
    }
    Ok(wrong)
}
