//! `kill -9` under writers whose writes are acknowledged by the journal: nothing acknowledged is lost, doubled or overtaken.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value as Json, json};

use crate::program::{Place, Server, client, kill_seed};

const CONFIGURATION: &str = r#"
[sources.main]
kind = "sqlite"
path = "main.db"
[sources.queue]
kind = "sqlite"
path = "queue.db"
[entities.product]
truth = "main"
fields = { id = "string", stock = "integer" }
[entities.product.write]
strategy = "write_behind"
journal = "queue"
flush_after = "20ms"
"#;

const KILLS: usize = 30;
const WRITERS: usize = 8;
/// How long the flush of what was acknowledged may take after a start.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);

/// What one writer has written to its record, one number after the other.
#[derive(Clone, Default)]
struct Written {
    /// The last number that was tried.
    tried: i64,
    /// Those that were acknowledged.
    acknowledged: Vec<i64>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_the_journal_acknowledged_survive_kill_9() {
    let seed = kill_seed();
    let place = Place::new(CONFIGURATION);
    let mut random = StdRng::seed_from_u64(seed);
    let client = client();
    let written = Arc::new(Mutex::new(vec![Written::default(); WRITERS]));
    for _ in 0..KILLS {
        let server = place.serve();
        shown(&client, &server, &written).await;
        let stop = Arc::new(AtomicBool::new(false));
        let writers = (0..WRITERS).map(|writer| {
            let (client, base) = (client.clone(), server.base.clone());
            tokio::spawn(write(client, base, writer, Arc::clone(&written), Arc::clone(&stop)))
        });
        let writers: Vec<_> = writers.collect();
        tokio::time::sleep(Duration::from_millis(random.random_range(10..200))).await;
        server.kill();
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.await.expect("a writer does not panic");
        }
    }
    let server = place.serve();
    drained(&client, &server).await;
    flushed_in_order(&client, &server, &written).await;
    let count: usize =
        written.lock().expect("not poisoned").iter().map(|w| w.acknowledged.len()).sum();
    println!("kill -9: {KILLS} kills, {count} writes acknowledged by the journal, none lost");
    assert!(count > KILLS * 10, "the writers hardly wrote: {count}");
}

/// Writes rising numbers into its own record until the server dies.
async fn write(
    client: reqwest::Client,
    base: String,
    writer: usize,
    written: Arc<Mutex<Vec<Written>>>,
    stop: Arc<AtomicBool>,
) {
    let url = format!("{base}/v1/product/w{writer}");
    while !stop.load(Ordering::Relaxed) {
        let n = {
            let mut written = written.lock().expect("not poisoned");
            written[writer].tried += 1;
            written[writer].tried
        };
        // Every third one depends on what is there, so that not all of them can go as one.
        let first = written.lock().expect("not poisoned")[writer].acknowledged.is_empty();
        let request = match n % 3 == 0 && !first {
            true => client.patch(&url).json(&json!({ "stock": n })),
            false => client.put(&url).json(&json!({ "id": format!("w{writer}"), "stock": n })),
        };
        let Ok(response) = request.send().await else { return };
        assert_eq!(response.status(), 202, "an answer to {n} of {writer}");
        assert!(response.headers().get("etag").is_none(), "it has no version yet");
        written.lock().expect("not poisoned")[writer].acknowledged.push(n);
    }
}

/// A read by key shows what was acknowledged last, or what was under way at the end.
async fn shown(client: &reqwest::Client, server: &Server, written: &Mutex<Vec<Written>>) {
    let written = written.lock().expect("not poisoned").clone();
    for (writer, Written { tried, acknowledged }) in written.into_iter().enumerate() {
        let Some(last) = acknowledged.last() else { continue };
        let record = get(client, &format!("{}/v1/product/w{writer}", server.base)).await;
        let stock = record["stock"].as_i64().unwrap_or_default();
        assert!((*last..=tried).contains(&stock), "w{writer} is {record}, acknowledged was {last}");
    }
}

async fn drained(client: &reqwest::Client, server: &Server) {
    let begin = Instant::now();
    loop {
        let status = get(client, &format!("{}/admin/v1/status", server.base)).await;
        let journal = &status["journals"][0];
        assert_eq!(journal["refused"], 0, "{journal}");
        if journal["pending"] == 0 {
            return;
        }
        assert!(begin.elapsed() < DRAIN_WITHIN, "not flushed: {journal}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The log has rising numbers of each record, every one once, and the last that was acknowledged or tried.
async fn flushed_in_order(
    client: &reqwest::Client,
    server: &Server,
    written: &Mutex<Vec<Written>>,
) {
    let written = written.lock().expect("not poisoned").clone();
    for (writer, Written { tried, acknowledged }) in written.into_iter().enumerate() {
        let mut numbers = BTreeMap::new();
        let mut before = String::new();
        loop {
            let url = format!("{}/v1/product/w{writer}/_history?limit=1000{before}", server.base);
            let page = get(client, &url).await;
            let items = page["items"].as_array().expect("history has items");
            for change in items {
                let position: u64 =
                    change["position"].as_str().and_then(|p| p.parse().ok()).expect("a position");
                numbers.insert(position, change["record"]["stock"].as_i64().expect("a number"));
            }
            match items.last() {
                Some(last) if items.len() == 1000 => {
                    before = format!("&before={}", last["position"].as_str().unwrap_or_default());
                }
                _ => break,
            }
        }
        let numbers: Vec<i64> = numbers.into_values().collect();
        assert!(numbers.is_sorted_by(|a, b| a < b), "w{writer} went back: {numbers:?}");
        let (Some(last), Some(end)) = (acknowledged.last(), numbers.last()) else { continue };
        assert!((*last..=tried).contains(end), "w{writer} ends at {end}, not at {last}");
    }
}

async fn get(client: &reqwest::Client, url: &str) -> Json {
    let response = client.get(url).header("accept", "application/json").send().await;
    response.expect("the server answers").json().await.expect("the answer is JSON")
}
