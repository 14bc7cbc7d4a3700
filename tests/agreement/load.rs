//! Updates at a steady rate while the server is killed.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;

use crate::server::Server;
use crate::{Error, Plan};

/// Callers at the same time.
const CALLERS: u64 = 64;

/// The keys of the records in a file.
pub(crate) fn keys(file: &Path) -> Result<Vec<String>, Error> {
    let lines = BufReader::new(GzDecoder::new(std::fs::File::open(file)?)).lines();
    lines
        .map(|line| {
            let record: serde_json::Value = serde_json::from_str(&line?)?;
            Ok(record["id"].as_str().ok_or("a record without an id")?.to_owned())
        })
        .collect()
}

/// What happened.
pub(crate) struct Seen {
    pub(crate) server: Server,
    seconds: f64,
    offered: u64,
    acknowledged: u64,
    kills: u64,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Seen { seconds, offered, acknowledged, kills, .. } = self;
        write!(
            f,
            "{offered} updates offered in {seconds:.0} s ({:.0}/s), {acknowledged} acknowledged, {kills} times killed",
            *offered as f64 / seconds
        )
    }
}

#[derive(Default)]
struct Counts {
    offered: AtomicU64,
    acknowledged: AtomicU64,
}

/// Offers updates for the planned time. What the server cannot take while it is down is offered and lost, as with any
/// caller that does not try again.
pub(crate) async fn offer(
    mut server: Server,
    plan: &Plan,
    keys: Arc<Vec<String>>,
) -> Result<Seen, Error> {
    let counts = Arc::new(Counts::default());
    let time = Duration::from_secs(plan.seconds);
    let began = Instant::now();
    let client = reqwest::Client::builder().timeout(Duration::from_secs(10)).build()?;
    let base = format!("http://{}/v1/product", server.address);
    let mut tasks = Vec::new();
    for caller in 0..CALLERS {
        let (client, base, keys, counts) =
            (client.clone(), base.clone(), Arc::clone(&keys), Arc::clone(&counts));
        let (rate, hot) = (plan.rate, plan.hot);
        tasks.push(tokio::spawn(async move {
            let mut n = caller;
            while began.elapsed() < time {
                let due = Duration::from_secs_f64(n as f64 / rate as f64);
                tokio::time::sleep_until((began + due).into()).await;
                // The hot record gets its share of the updates; the others are spread by a prime stride.
                let key =
                    if n % rate < hot { 0 } else { (n as usize).wrapping_mul(7919) % keys.len() };
                let body =
                    format!(r#"{{"brand":"brand {n}","price":"{}.{:02}"}}"#, n % 1000, n % 100);
                counts.offered.fetch_add(1, Ordering::Relaxed);
                let request = client
                    .patch(format!("{base}/{}", keys[key]))
                    .header("content-type", "application/merge-patch+json");
                if let Ok(answer) = request.body(body).send().await
                    && answer.status().is_success()
                {
                    counts.acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                n += CALLERS;
            }
        }));
    }
    let mut kills = 0;
    while began.elapsed() + plan.kill_every < time {
        tokio::time::sleep(plan.kill_every).await;
        server.kill_and_restart()?;
        kills += 1;
    }
    for task in tasks {
        task.await?;
    }
    Ok(Seen {
        server,
        seconds: began.elapsed().as_secs_f64(),
        offered: counts.offered.load(Ordering::Relaxed),
        acknowledged: counts.acknowledged.load(Ordering::Relaxed),
        kills,
    })
}
