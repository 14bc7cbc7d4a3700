//! `adaptive` while the network to a follower is slow for a while, second by second.
//!
//! The same servers as for the other strategies; OpenSearch is reached through a proxy that delays what it is told to. The
//! callers leave pauses, so that followers can keep up and it is the network that is seen.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use unisono::Unisono;
use unisono_testkit::proxy::{Network, Proxy};

use super::strategies::{Servers, at_the_top, lags, write};
use crate::engines::{caught_up, open};
use crate::plot::{self, Second};
use crate::report::{Report, median, quantile, time};
use crate::{Plan, Result};

const DEADLINE: Duration = Duration::from_secs(120);
const CALLERS: u64 = 8;
const RECORDS: u64 = 400;
/// Between two writes of one caller.
const PAUSE: Duration = Duration::from_millis(20);
/// How much later everything arrives, in each direction.
const DELAY: Duration = Duration::from_millis(150);
const ENTITY: &str =
    "strategy = \"adaptive\"\nadaptive = { latency = \"100ms\", lag = \"2s\", dwell = \"2s\" }";
/// When the network is slow, in sixths of the time.
const SLOW: std::ops::Range<u32> = 1..3;

pub(super) async fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let servers = Servers::new()?;
    let proxy = Proxy::start(servers.search_port()?).await?;
    let servers = servers.search_at(proxy.port())?;
    let folder = tempfile::tempdir()?;
    let text = servers.configuration(ENTITY, Some(["", ""]));
    let ours = Arc::new(open(&text, folder.path()).await?);
    let seen = watch(&ours, &proxy, plan.time * 10).await;
    proxy.set(Network::Whole);
    let status = ours.engine().status().await;
    ours.engine().close().await?;
    servers.clean().await?;
    tell(&seen?, report);
    let moves = status.entities.iter().filter_map(|e| e.adaptive.as_ref()).flat_map(|a| &a.moves);
    let moves: Vec<_> = moves
        .map(|m| vec![m.time.to_string(), m.from.to_owned(), m.to.to_owned(), m.why.clone()])
        .collect();
    report.table("What `adaptive` said of it", &["at", "from", "to", "why"], &moves);
    Ok(())
}

/// What one second was like.
struct Seen {
    level: String,
    slow: bool,
    times: Vec<f64>,
    /// Of OpenSearch, in seconds and in changes.
    lag: (f64, u64),
}

/// Has callers write for some time; answers what each second was like. No write may fail.
async fn watch(ours: &Arc<Unisono>, proxy: &Proxy, lasts: Duration) -> Result<Vec<Seen>> {
    caught_up(ours, DEADLINE).await?;
    at_the_top(ours).await?;
    let times = Arc::new(Mutex::new(Vec::new()));
    let began = Instant::now();
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (ours, times) = (Arc::clone(ours), Arc::clone(&times));
            tokio::spawn(async move {
                for n in 0.. {
                    let asked = Instant::now();
                    if asked.duration_since(began) >= lasts {
                        break;
                    }
                    write(&ours, (caller + n * CALLERS) % RECORDS, n).await?;
                    let took = asked.elapsed().as_secs_f64();
                    times.lock().unwrap_or_else(PoisonError::into_inner).push(took);
                    tokio::time::sleep(PAUSE).await;
                }
                Ok::<_, crate::Error>(())
            })
        })
        .collect();
    let mut seen = Vec::new();
    while began.elapsed() < lasts {
        let sixth = (began.elapsed().as_secs_f64() * 6.0 / lasts.as_secs_f64()) as u32;
        let slow = SLOW.contains(&sixth);
        proxy.set(if slow { Network::Delayed(DELAY) } else { Network::Whole });
        let second = Duration::from_secs(seen.len() as u64 + 1);
        tokio::time::sleep_until((began + second).into()).await;
        let [_, lag] = lags(ours).await;
        let entities = ours.engine().status().await.entities;
        let level = entities.first().and_then(|e| Some(e.adaptive.as_ref()?.level));
        let times = std::mem::take(&mut *times.lock().unwrap_or_else(PoisonError::into_inner));
        seen.push(Seen { level: level.unwrap_or_default().to_owned(), slow, times, lag });
    }
    for caller in callers {
        caller.await??;
    }
    Ok(seen)
}

fn tell(seen: &[Seen], report: &mut Report) {
    let row = |(n, second): (usize, &Seen)| {
        let network = if second.slow { "slow" } else { "" };
        vec![
            (n + 1).to_string(),
            network.to_owned(),
            second.level.clone(),
            second.times.len().to_string(),
            time(median(&second.times)),
            time(quantile(&second.times, 0.99)),
            format!("{}, {} changes", time(second.lag.0), second.lag.1),
        ]
    };
    let rows: Vec<_> = seen.iter().enumerate().map(row).collect();
    let title = format!(
        "`adaptive` while the network to OpenSearch delays by {} each way: {CALLERS} callers with pauses of {}",
        time(DELAY.as_secs_f64()),
        time(PAUSE.as_secs_f64())
    );
    let heading =
        ["second", "network", "level", "writes", "p50", "p99", "lag of OpenSearch at its end"];
    report.table(&title, &heading, &rows);
    let seconds: Vec<_> = seen
        .iter()
        .map(|second| Second {
            level: second.level.clone(),
            marked: second.slow,
            values: vec![
                (!second.times.is_empty()).then(|| median(&second.times)),
                (!second.times.is_empty()).then(|| quantile(&second.times, 0.99)),
                Some(second.lag.0),
            ],
        })
        .collect();
    let lines =
        [("write, p50", "#3b7dd8"), ("write, p99", "#8a5fc0"), ("lag of OpenSearch", "#e08a1e")];
    let title = "adaptive: OpenSearch is slow while the line at the bottom is red";
    report.draw("adaptive.svg", plot::course(title, &lines, &seconds));
}
