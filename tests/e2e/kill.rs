//! `kill -9` at random moments under 16 writers: every acknowledged write is there afterwards, nothing is half
//! written, and every follower equals the truth within five seconds.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value as Json, json};

use crate::program::{CONFIGURATION, Place, Server, client, kill_seed};

const KILLS: usize = 100;
const WRITERS: u64 = 16;
const KEYS_PER_WRITER: u64 = 4;
/// How long followers may take after a start.
const AGREE_WITHIN: Duration = Duration::from_secs(5);
/// After every this many kills everything is verified.
const VERIFY_EVERY: usize = 10;

/// An acknowledged write.
#[derive(Clone)]
struct Acknowledged {
    key: String,
    version: u64,
    /// `None` for a delete.
    record: Option<Json>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_kill_9() {
    let seed = kill_seed();
    let place = Place::new(CONFIGURATION);
    let mut random = StdRng::seed_from_u64(seed);
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let number = Arc::new(AtomicU64::new(0));
    let client = client();
    for kill in 0..KILLS {
        let server = place.serve();
        let stop = Arc::new(AtomicBool::new(false));
        let writers = (0..WRITERS).map(|writer| {
            let (acknowledged, number, stop) =
                (Arc::clone(&acknowledged), Arc::clone(&number), Arc::clone(&stop));
            let seed = seed ^ (kill as u64) << 32 ^ writer;
            tokio::spawn(write(
                client.clone(),
                server.base.clone(),
                writer,
                seed,
                acknowledged,
                number,
                stop,
            ))
        });
        let writers: Vec<_> = writers.collect();
        tokio::time::sleep(Duration::from_millis(random.random_range(10..250))).await;
        server.kill();
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.await.expect("a writer does not panic");
        }
        if kill % VERIFY_EVERY == VERIFY_EVERY - 1 {
            let server = place.serve();
            agree(&client, &server).await;
            let told = acknowledged.lock().expect("not poisoned").clone();
            present(&client, &server, &told).await;
        }
    }
    let acknowledged = acknowledged.lock().expect("not poisoned").len();
    println!("kill -9: {KILLS} kills, {acknowledged} acknowledged writes, all there");
    assert!(acknowledged > KILLS * 10, "the writers hardly wrote: {acknowledged}");
}

/// Writes its own keys until the server dies, and notes what was acknowledged.
async fn write(
    client: reqwest::Client,
    base: String,
    writer: u64,
    seed: u64,
    acknowledged: Arc<Mutex<Vec<Acknowledged>>>,
    number: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) {
    let mut random = StdRng::seed_from_u64(seed);
    while !stop.load(Ordering::Relaxed) {
        let key = format!("w{writer}-{}", random.random_range(0..KEYS_PER_WRITER));
        let url = format!("{base}/v1/product/{key}");
        let n = number.fetch_add(1, Ordering::Relaxed);
        let record = json!({"id": key, "name": format!("ice {n}"), "price": format!("{}.{:02}", n % 1000, n % 100), "stock": n});
        let delete = random.random_bool(0.1);
        let request = if delete { client.delete(&url) } else { client.put(&url).json(&record) };
        let Ok(response) = request.send().await else { return };
        let status = response.status();
        let token = response
            .headers()
            .get("unisono-token")
            .and_then(|t| t.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        if status.is_success() {
            let version = token
                .rsplit(':')
                .next()
                .and_then(|p| p.parse().ok())
                .unwrap_or_else(|| panic!("no position in token {token:?}"));
            let record = (!delete).then_some(record);
            acknowledged.lock().expect("not poisoned").push(Acknowledged { key, version, record });
        } else {
            assert!(delete && status == 404, "unexpected answer {status} to a write of {key}");
        }
    }
}

/// Every acknowledged write is in the history of its record, as it was acknowledged.
async fn present(client: &reqwest::Client, server: &Server, acknowledged: &[Acknowledged]) {
    let mut by_key: BTreeMap<&str, Vec<&Acknowledged>> = BTreeMap::new();
    for write in acknowledged {
        by_key.entry(&write.key).or_default().push(write);
    }
    for (key, writes) in by_key {
        let history = history(client, &server.base, key).await;
        for write in writes {
            let change = history.get(&write.version).unwrap_or_else(|| {
                panic!("{key} at {} was acknowledged and is lost", write.version)
            });
            let record = change.get("record").filter(|r| !r.is_null());
            assert_eq!(
                record,
                write.record.as_ref(),
                "{key} at {} is not what was acknowledged",
                write.version
            );
        }
    }
}

async fn history(client: &reqwest::Client, base: &str, key: &str) -> BTreeMap<u64, Json> {
    let mut found = BTreeMap::new();
    let mut before = String::new();
    loop {
        let url = format!("{base}/v1/product/{key}/_history?limit=1000{before}");
        let page: Json = client
            .get(url)
            .send()
            .await
            .expect("history answers")
            .json()
            .await
            .expect("history is JSON");
        let items =
            page["items"].as_array().unwrap_or_else(|| panic!("no items in {page}")).clone();
        for change in &items {
            let position = change["position"]
                .as_str()
                .and_then(|p| p.parse().ok())
                .unwrap_or_else(|| panic!("no position in {change}"));
            found.insert(position, change.clone());
        }
        match items.last() {
            Some(last) if items.len() == 1000 => {
                before = format!("&before={}", last["position"].as_str().unwrap_or_default())
            }
            _ => return found,
        }
    }
}

/// Every follower equals the truth within five seconds, with nobody's help.
async fn agree(client: &reqwest::Client, server: &Server) {
    let deadline = Instant::now() + AGREE_WITHIN;
    loop {
        let status: Json = client
            .get(format!("{}/admin/v1/status", server.base))
            .send()
            .await
            .expect("status answers")
            .json()
            .await
            .expect("status is JSON");
        let deliveries = status["deliveries"].as_array().expect("status lists deliveries").clone();
        assert_eq!(deliveries.len(), 3, "{status}");
        if deliveries.iter().all(|d| d["state"] == "live" && d["lag_changes"] == 0) {
            break;
        }
        assert!(Instant::now() < deadline, "followers lag after five seconds: {deliveries:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let report: Json = client
        .post(format!("{}/admin/v1/verify", server.base))
        .header("accept", "application/json")
        .json(&json!({"depth": "deep"}))
        .send()
        .await
        .expect("verify answers")
        .json()
        .await
        .expect("the report is JSON");
    let comparisons = report["report"]["comparisons"]
        .as_array()
        .unwrap_or_else(|| panic!("no comparisons in {report}"));
    assert_eq!(comparisons.len(), 3, "{report}");
    for comparison in comparisons {
        assert!(comparison["different"] == 0 && comparison["error"].is_null(), "{comparison:#}");
    }
}
