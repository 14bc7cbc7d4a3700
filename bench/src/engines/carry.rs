//! From the truth's commit to each follower: latency when idle, PostgreSQL to OpenSearch in bulk, and memory.

use std::time::{Duration, Instant};

use serde_json::json;

use unisono::core::Context;

use crate::engines::load::{products, put, write_all};
use crate::engines::{Engine, caught_up, configuration, open, sqlite_truth};
use crate::places::Server;
use crate::report::{Report, middle, quantile, rate, time};
use crate::{Plan, Result};

const DEADLINE: Duration = Duration::from_secs(300);
const WRITES: u64 = 300;
const COMMITS: u64 = 20_000;
const KINDS: [&str; 5] = ["redis", "postgres", "mysql", "mongodb", "opensearch"];

/// From the answer to a write until the follower has taken it in, one write after another.
pub(crate) async fn latency(report: &mut Report) -> Result<()> {
    for kind in KINDS {
        let folder = tempfile::tempdir()?;
        let engine = Engine::new(kind)?;
        let text = configuration(&sqlite_truth(), &[("follower", kind, &engine)]);
        let ours = open(&text, folder.path()).await?;
        caught_up(&ours, DEADLINE).await?;
        let mut times = Vec::new();
        for n in 0..WRITES {
            let record = json!({"id": n.to_string(), "brand": "b", "price": "1.00"});
            let began = Instant::now();
            let written =
                ours.engine().write(&Context::default(), vec![put(&ours, &record)?]).await?;
            ours.engine().wait_applied(&written.token, Duration::from_secs(5)).await?;
            times.push(began.elapsed());
        }
        ours.close().await?;
        let seconds: Vec<f64> = times.iter().map(Duration::as_secs_f64).collect();
        let figure = format!("{} (p99 {})", time(middle(&times)), time(quantile(&seconds, 0.99)));
        report.single(&format!("write to visible in {kind}, p50"), figure, "5 ms (p99 25 ms)");
    }
    Ok(())
}

/// PostgreSQL to OpenSearch: the first load of all products, then a backlog of single-row commits.
pub(crate) async fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let records = products(plan)?;
    let (mut loads, mut carried) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds.min(3) {
        let folder = tempfile::tempdir()?;
        let (truth, search) = (Engine::new("postgres")?, Engine::new("opensearch")?);
        let truth = truth.section("main", "postgres");
        let alone = configuration(&truth, &[]);
        let both = configuration(&truth, &[("search", "opensearch", &search)]);
        let ours = open(&alone, folder.path()).await?;
        write_all(&ours, &records).await?;
        ours.close().await?;
        let began = Instant::now();
        let ours = open(&both, folder.path()).await?;
        caught_up(&ours, DEADLINE).await?;
        loads.push(records.len() as f64 / began.elapsed().as_secs_f64());
        ours.close().await?;
        let ours = open(&alone, folder.path()).await?;
        commits(&ours, &records).await?;
        ours.close().await?;
        let began = Instant::now();
        let ours = open(&both, folder.path()).await?;
        caught_up(&ours, DEADLINE).await?;
        carried.push(COMMITS as f64 / began.elapsed().as_secs_f64());
        ours.close().await?;
    }
    let middle = |all: &[f64]| rate(crate::report::median(all));
    report.single(
        "PostgreSQL to OpenSearch, first load of the products",
        middle(&loads),
        "40,000/s",
    );
    report.single(
        "PostgreSQL to OpenSearch, 20,000 single-row commits",
        middle(&carried),
        "20,000/s",
    );
    Ok(())
}

/// Single-row commits of different records, by 64 callers.
async fn commits(ours: &unisono::Unisono, records: &[serde_json::Value]) -> Result<()> {
    let products = ours.entity::<serde_json::Value>("product")?;
    let work = (0..64_u64).map(|caller| {
        let products = &products;
        async move {
            for n in (caller..COMMITS).step_by(64) {
                let mut record = records[n as usize % records.len()].clone();
                record["brand"] = json!(format!("changed {n}"));
                products.put(&record).await?;
            }
            Ok::<(), crate::Error>(())
        }
    });
    futures::future::try_join_all(work).await?;
    Ok(())
}

/// The most memory of a server with six followers that copies all products to each of them.
pub(crate) async fn memory(plan: &Plan, report: &mut Report) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let engines: Vec<(&str, Engine)> =
        KINDS.iter().map(|k| Ok((*k, Engine::new(k)?))).collect::<Result<_>>()?;
    let mut followers: Vec<_> = engines.iter().map(|(k, engine)| (*k, *k, engine)).collect();
    let search = Engine { options: [("path".to_owned(), toml::Value::from("search"))].into() };
    followers.push(("search", "tantivy", &search));
    let data = folder.path().join("data");
    std::fs::create_dir_all(&data)?;
    let ours = open(&configuration(&sqlite_truth(), &[]), &data).await?;
    write_all(&ours, &products(plan)?).await?;
    ours.close().await?;
    let text = configuration(&sqlite_truth(), &followers);
    std::fs::write(folder.path().join("unisono.toml"), format!("data = \"data\"\n{text}"))?;
    let server = Server::configured(folder.path())?;
    let client = reqwest::Client::new();
    let began = Instant::now();
    loop {
        let url = format!("http://{}/admin/v1/status", server.address);
        let status: serde_json::Value = client.get(url).send().await?.json().await?;
        let deliveries = status["deliveries"].as_array().cloned().unwrap_or_default();
        let live = |d: &serde_json::Value| d["state"] == "live" && d["lag_changes"] == 0;
        if deliveries.len() == followers.len() && deliveries.iter().all(live) {
            break;
        }
        if began.elapsed() > DEADLINE {
            return Err(format!("the followers do not catch up: {status}").into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (now, peak) = server.memory()?;
    let figure = format!("{now:.0} MB, at most {peak:.0} MB");
    report.single("server with six followers that were copied", figure, "under 150 MB");
    Ok(())
}
