//! What each strategy of replication costs a writer, and what it does to followers.
//!
//! Held equal: one PostgreSQL with the same table as the truth, the same Redis and OpenSearch as followers, the same
//! records, TLS, and as many callers that each make one write after another. Only the strategy is another one, and what it
//! cannot be without: conditions, regions. Each round has all of them, beginning with another one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use unisono::Unisono;
use unisono::core::Context;

use crate::engines::load::put;
use crate::engines::{Engine, PRODUCT, caught_up, open, postgres};
use crate::plot::{self, Bar};
use crate::report::{Report, median, quantile, rate, time};
use crate::{Plan, Result};

const DEADLINE: Duration = Duration::from_secs(120);
const CALLERS: u64 = 16;
/// How many records the callers write again and again.
const RECORDS: u64 = 1_600;
/// More would take long and show little more.
const ROUNDS_MAX: usize = 3;
/// How often it is looked how far followers are.
const LOOK: Duration = Duration::from_millis(100);

/// A strategy with what it cannot be without.
struct Case {
    name: &'static str,
    /// In the table of the entity.
    entity: &'static str,
    /// Of Redis and of OpenSearch.
    followers: Option<[&'static str; 2]>,
}

const fn case(name: &'static str, entity: &'static str) -> Case {
    Case { name, entity, followers: Some(["", ""]) }
}

const DEAR: &str = "where = \"record.price > 50\"";

/// All of them, cheap ones first; the first is what they are compared with.
const CASES: [Case; 13] = [
    Case { name: "no follower", entity: "", followers: None },
    case("best_effort", "strategy = \"best_effort\""),
    case("async_queue", "strategy = \"async_queue\""),
    case("batch", "strategy = \"batch\""),
    case("priority", "strategy = \"priority\""),
    case("geographic", "strategy = \"geographic\""),
    Case {
        name: "conditional",
        entity: "strategy = \"conditional\"",
        followers: Some([DEAR, "default = true"]),
    },
    Case {
        name: "partition",
        entity: "strategy = \"partition\"",
        followers: Some([DEAR, "where = \"record.price <= 50\""]),
    },
    case("cascade", "strategy = \"cascade\""),
    case("quorum", "strategy = \"quorum\""),
    case("parallel", "strategy = \"parallel\""),
    case("star", "strategy = \"star\""),
    case("adaptive", "strategy = \"adaptive\"\nadaptive = { dwell = \"1s\" }"),
];

/// The servers, with one namespace for all cases.
pub(super) struct Servers {
    truth: Engine,
    redis: Engine,
    search: Engine,
}

impl Servers {
    pub(super) fn new() -> Result<Self> {
        let [truth, redis, search] = ["postgres", "redis", "opensearch"].map(Engine::new);
        Ok(Servers { truth: truth?, redis: redis?, search: search? })
    }

    /// The same with OpenSearch at another port, and where it is.
    pub(super) fn search_at(mut self, port: u16) -> Result<Self> {
        let url = self.search.text("url").to_owned();
        let (host, _) = url.rsplit_once(':').ok_or("the URL of opensearch has no port")?;
        let url = format!("{host}:{port}");
        self.search.options.insert("url".to_owned(), url.into());
        Ok(self)
    }

    /// The port of OpenSearch.
    pub(super) fn search_port(&self) -> Result<u16> {
        let port = self.search.text("url").rsplit_once(':').map(|(_, port)| port.parse());
        Ok(port.ok_or("the URL of opensearch has no port")??)
    }

    /// A configuration; conditions of the two followers, if there are any.
    pub(super) fn configuration(&self, entity: &str, followers: Option<[&str; 2]>) -> String {
        let mut text = format!("region = \"here\"\n{}", self.truth.section("main", "postgres"));
        let declared = [
            ("redis", "redis", &self.redis, "here"),
            ("search", "opensearch", &self.search, "there"),
        ];
        for (name, kind, engine, region) in &declared {
            text += &engine.section(name, kind);
            text += &format!("region = \"{region}\"\n");
        }
        text += &PRODUCT.replace("truth = \"main\"\n", &format!("truth = \"main\"\n{entity}\n"));
        for ((name, ..), options) in declared.iter().zip(followers.into_iter().flatten()) {
            text += &format!("[[entities.product.followers]]\nsource = \"{name}\"\n{options}\n");
        }
        text
    }

    /// Removes everything from the truth; the others keep little, in a namespace of this run.
    pub(super) async fn clean(&self) -> Result<()> {
        let drop = format!("DROP SCHEMA IF EXISTS \"{}\" CASCADE", self.truth.text("schema"));
        Ok(postgres::connect(&self.truth).await?.batch_execute(&drop).await?)
    }
}

/// What one round has shown of a strategy. Times in seconds.
#[derive(Clone, Default)]
struct Seen {
    per_second: f64,
    p50: f64,
    p99: f64,
    /// What Redis and OpenSearch lagged by, at most: in seconds and in changes.
    lag: [(f64, u64); 2],
    /// From the last answer until all have everything.
    caught_up: f64,
    /// What a writer waits for at the end.
    ack: String,
}

pub(super) async fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let servers = Servers::new()?;
    let measured = measure(&servers, plan).await;
    servers.clean().await?;
    tell(&measured?, report);
    Ok(())
}

async fn measure(servers: &Servers, plan: &Plan) -> Result<Vec<Vec<Seen>>> {
    let folder = tempfile::tempdir()?;
    // The first copies, and the connections of a truth that is warm.
    let text = servers.configuration("", Some(["", ""]));
    let ours = Arc::new(open(&text, folder.path()).await?);
    for n in 0..RECORDS {
        write(&ours, n, 0).await?;
    }
    caught_up(&ours, DEADLINE).await?;
    ours.engine().close().await?;
    let mut seen = vec![Vec::new(); CASES.len()];
    for round in 0..plan.rounds.min(ROUNDS_MAX) {
        for n in 0..CASES.len() {
            // Each has its turn at the beginning, so that what others leave behind falls on all.
            let number = (n + round) % CASES.len();
            let (Some(case), Some(of_case)) = (CASES.get(number), seen.get_mut(number)) else {
                continue;
            };
            let text = servers.configuration(case.entity, case.followers);
            let ours = Arc::new(open(&text, folder.path()).await?);
            let one = once(&ours, plan.time).await;
            ours.engine().close().await?;
            let one = one.map_err(|e| format!("{}: {e}", case.name))?;
            println!(
                "    {:<12} {:>8}, p50 {}, p99 {}, ack {}",
                case.name,
                rate(one.per_second),
                time(one.p50),
                time(one.p99),
                one.ack
            );
            of_case.push(one);
        }
    }
    Ok(seen)
}

/// Has all callers write for some time.
async fn once(ours: &Arc<Unisono>, lasts: Duration) -> Result<Seen> {
    caught_up(ours, DEADLINE).await?;
    at_the_top(ours).await?;
    let began = Instant::now();
    let callers = (0..CALLERS).map(|caller| {
        let ours = Arc::clone(ours);
        tokio::spawn(async move {
            let mut times = Vec::new();
            for n in 0.. {
                let asked = Instant::now();
                if asked.duration_since(began) >= lasts {
                    break;
                }
                write(&ours, (caller + n * CALLERS) % RECORDS, n).await?;
                times.push(asked.elapsed().as_secs_f64());
            }
            Ok::<_, crate::Error>(times)
        })
    });
    let callers: Vec<_> = callers.collect();
    let mut seen = Seen::default();
    while began.elapsed() < lasts {
        for (most, now) in seen.lag.iter_mut().zip(lags(ours).await) {
            *most = (most.0.max(now.0), most.1.max(now.1));
        }
        tokio::time::sleep(LOOK).await;
    }
    let mut times = Vec::new();
    for caller in callers {
        times.extend(caller.await??);
    }
    seen.per_second = times.len() as f64 / began.elapsed().as_secs_f64();
    (seen.p50, seen.p99) = (median(&times), quantile(&times, 0.99));
    let status = ours.engine().status().await;
    seen.ack = status.entities.first().map(|entity| entity.ack.clone()).unwrap_or_default();
    seen.caught_up = caught_up(ours, DEADLINE).await?.as_secs_f64();
    Ok(seen)
}

/// Waits until `adaptive` demands all, for a while; whoever cannot afford it is measured where it is.
pub(super) async fn at_the_top(ours: &Unisono) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(20) {
        let entities = ours.engine().status().await.entities;
        let is_lower = |a: &unisono::engine::status::AdaptiveStatus| a.level != "all";
        if !entities.iter().filter_map(|e| e.adaptive.as_ref()).any(is_lower) {
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// How far Redis and OpenSearch lag, in seconds and in changes.
pub(super) async fn lags(ours: &Unisono) -> [(f64, u64); 2] {
    let deliveries = ours.engine().status().await.deliveries;
    ["redis", "search"].map(|name| {
        let delivery = deliveries.iter().find(|d| *d.source == *name);
        delivery.map_or((0.0, 0), |d| (d.lag_seconds, d.lag_changes))
    })
}

/// Writes one of the records for the n-th time.
pub(super) async fn write(ours: &Unisono, number: u64, n: u64) -> Result<()> {
    let (price, brand) = (format!("{}.50", number % 100), format!("brand {n}"));
    let record =
        json!({ "id": format!("s{number}"), "type": "bench", "brand": brand, "price": price });
    ours.engine().write(&Context::default(), vec![put(ours, &record)?]).await?;
    Ok(())
}

fn tell(seen: &[Vec<Seen>], report: &mut Report) {
    let of = |rounds: &[Seen], figure: &dyn Fn(&Seen) -> f64| {
        median(&rounds.iter().map(figure).collect::<Vec<_>>())
    };
    let alone = seen.first().map(Vec::as_slice).unwrap_or_default();
    let (mut rows, mut bars) = (Vec::new(), Vec::new());
    for (case, rounds) in CASES.iter().zip(seen) {
        let added = |figure: &dyn Fn(&Seen) -> f64| {
            let pairs = rounds.iter().zip(alone).map(|(one, base)| figure(one) - figure(base));
            time(median(&pairs.collect::<Vec<_>>()).max(0.0))
        };
        let lag = |n: usize| match case.followers {
            None => String::new(),
            Some(_) => {
                let seconds = of(rounds, &|s| s.lag.get(n).map_or(0.0, |lag| lag.0));
                let changes = of(rounds, &|s| s.lag.get(n).map_or(0.0, |lag| lag.1 as f64));
                format!("{}, {changes:.0} changes", time(seconds))
            }
        };
        let (p50, p99) = (of(rounds, &|s| s.p50), of(rounds, &|s| s.p99));
        let per_second = rate(of(rounds, &|s| s.per_second));
        rows.push(vec![
            case.name.to_owned(),
            rounds.last().map(|s| s.ack.clone()).unwrap_or_default(),
            per_second.clone(),
            time(p50),
            added(&|s| s.p50),
            time(p99),
            added(&|s| s.p99),
            lag(0),
            lag(1),
            time(of(rounds, &|s| s.caught_up)),
        ]);
        bars.push(Bar { name: case.name, middle: p50, high: p99, note: per_second });
    }
    let title = format!(
        "Strategies of replication: {CALLERS} callers over PostgreSQL with Redis and OpenSearch; medians of {} rounds, lags at most",
        alone.len()
    );
    let heading = [
        "strategy",
        "ack",
        "writes",
        "p50",
        "added",
        "p99",
        "added",
        "lag of Redis",
        "lag of OpenSearch",
        "caught up",
    ];
    report.table(&title, &heading, &rows);
    report.draw("strategies.svg", plot::bars("write, p50 and p99", &bars));
}
