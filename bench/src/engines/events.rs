//! Streams of events in PostgreSQL, beside cqrs-es with postgres-es (`bench/baseline/cqrs-es`, a process of its own).
//!
//! Held equal: the server, TLS, an event of the same content for each append, streams of 100 events, the expected
//! revision checked, two threads, the events of the last round replayed. The other side gives events no order over
//! streams, so nobody can follow them; that is what the ratio pays for.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use unisono::core::Position;
use unisono::core::stream::Expected;
use unisono::{Streams, Unisono};

use crate::engines::{Engine, open};
use crate::report::{Report, quantile, rate, time};
use crate::{Plan, Result};

const STREAMS: &str = "[streams.order]\ntruth = \"main\"\n";

#[derive(Deserialize, Serialize)]
#[serde(tag = "type", content = "data")]
enum Moved {
    Placed { user_id: String, total: String, quantity: i64 },
}

pub(crate) async fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let other = CqrsEs::find()?;
    let folder = tempfile::tempdir()?;
    let text = Engine::new("postgres")?.section("main", "postgres") + STREAMS;
    let ours = open(&text, folder.path()).await?;
    for (callers, wanted) in [(1, "at least 0.9x"), (8, ""), (32, "20,000 each second")] {
        let (mut rounds, mut tails) = (Vec::new(), Vec::new());
        for round in 0..plan.rounds {
            let (theirs, their_tail) = other.appends(callers, plan.time).await?;
            let (rate, tail) = appends(&ours, round, callers, plan.time).await?;
            rounds.push((rate, theirs));
            tails.push((tail, their_tail));
        }
        report.pair(&format!("events appended, {callers} callers"), &rounds, rate, wanted);
        report.pair(&format!("events appended, {callers} callers, p99"), &tails, time, "");
    }
    let mut rounds = Vec::new();
    for _ in 0..plan.rounds {
        let theirs = other.replay().await?;
        rounds.push((replay(&ours).await?, theirs));
    }
    report.pair("events replayed into memory", &rounds, rate, "800,000 each second");
    Ok(())
}

fn placed(n: u64) -> Moved {
    let (user_id, total) = (format!("user-{}", n % 1000), format!("{}.50", n % 100));
    Moved::Placed { user_id, total, quantity: (n % 7) as i64 }
}

/// Appends each second, and the latency that 99 of 100 stay below, in seconds.
async fn appends(
    ours: &Unisono,
    round: usize,
    callers: usize,
    time: Duration,
) -> Result<(f64, f64)> {
    let streams: Streams<Moved> = ours.streams("order")?;
    let began = Instant::now();
    let tasks = (0..callers).map(|caller| {
        let streams = streams.clone();
        tokio::spawn(async move {
            let (mut n, mut times) = (0, Vec::new());
            while began.elapsed() < time {
                let stream = format!("{callers}-{round}-{caller}-{}", n / 100);
                let expected = match n % 100 {
                    0 => Expected::None,
                    revision => Expected::Revision(revision),
                };
                let started = Instant::now();
                streams.append(&stream, expected, &[placed(n % 100 + 1)]).await?;
                times.push(started.elapsed().as_secs_f64());
                n += 1;
            }
            Ok::<_, crate::Error>(times)
        })
    });
    let mut all = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        all.extend(task.await??);
    }
    Ok((all.len() as f64 / began.elapsed().as_secs_f64(), quantile(&all, 0.99)))
}

/// Every event from the first one on, folded in memory: events each second.
async fn replay(ours: &Unisono) -> Result<f64> {
    let head = ours.engine().status().await;
    let head = head.logs.iter().map(|log| log.head).max().unwrap_or_default();
    let streams: Streams<Moved> = ours.streams("order")?;
    let mut events = streams.subscribe(Position::ZERO);
    let (mut sold, mut seen) = (0, 0_u64);
    let began = Instant::now();
    while events.position() < head {
        let Moved::Placed { quantity, .. } = events.next().await?.value;
        sold += quantity;
        seen += 1;
    }
    let rate = seen as f64 / began.elapsed().as_secs_f64();
    if sold == 0 {
        return Err("nothing was replayed".into());
    }
    Ok(rate)
}

/// The program of the other side over a schema of this run.
struct CqrsEs {
    program: PathBuf,
    url: String,
    schema: String,
}

impl CqrsEs {
    fn find() -> Result<Self> {
        let program = PathBuf::from("bench/baseline/cqrs-es/target/release/cqrs-es-baseline");
        if !program.exists() {
            return Err(format!(
                "{} is missing: cargo build --release --manifest-path bench/baseline/cqrs-es/Cargo.toml",
                program.display()
            )
            .into());
        }
        let engine = Engine::new("postgres")?;
        let url = engine.text("url");
        let joined = if url.contains('?') { '&' } else { '?' };
        let url = format!("{url}{joined}sslmode=verify-full&sslrootcert={}", engine.text("tls_ca"));
        Ok(CqrsEs { program, url, schema: engine.text("schema").to_owned() })
    }

    /// Appends each second, and the latency that 99 of 100 stay below, in seconds.
    async fn appends(&self, callers: usize, time: Duration) -> Result<(f64, f64)> {
        let time = time.as_secs_f64().to_string();
        match self.said(&["appends", &callers.to_string(), &time]).await?[..] {
            [rate, _, p99] => Ok((rate, p99)),
            _ => Err("the other side prints other figures".into()),
        }
    }

    async fn replay(&self) -> Result<f64> {
        match self.said(&["replay"]).await?[..] {
            [_, rate] => Ok(rate),
            _ => Err("the other side prints other figures".into()),
        }
    }

    async fn said(&self, words: &[&str]) -> Result<Vec<f64>> {
        let mut command = Command::new(&self.program);
        command.args([&self.url, &self.schema]).args(words).stderr(Stdio::inherit());
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        if !output.status.success() {
            return Err(format!("the other side ended with {}", output.status).into());
        }
        let text = String::from_utf8(output.stdout)?;
        Ok(text.split_whitespace().map(str::parse).collect::<std::result::Result<_, _>>()?)
    }
}
