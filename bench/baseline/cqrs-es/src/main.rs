//! An event store by cqrs-es and postgres-es, measured as a process of its own: what it does is printed as one line.
//!
//! `cqrs-es-baseline URL SCHEMA appends CALLERS SECONDS` prints appends each second and the latencies p50 and p99 in
//! seconds; `… replay` prints how many events it replayed into an aggregate in memory, and how many each second.

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cqrs_es::persist::{PersistedEventRepository, QueryReplay, SerializedEvent};
use cqrs_es::{Aggregate, DomainEvent, EventEnvelope, Query, event_sink::EventSink};
use postgres_es::PostgresEventRepository;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgPoolOptions;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
enum Moved {
    Placed { user_id: String, total: String, quantity: i64 },
}

impl DomainEvent for Moved {
    fn event_type(&self) -> String {
        "Placed".into()
    }
    fn event_version(&self) -> String {
        "1".into()
    }
}

#[derive(Default, Deserialize, Serialize)]
struct Order {
    sold: i64,
}

impl Aggregate for Order {
    const TYPE: &'static str = "order";
    type Command = ();
    type Event = Moved;
    type Error = std::fmt::Error;
    type Services = ();

    async fn handle(&mut self, _: (), _: &(), _: &EventSink<Self>) -> Result<(), Self::Error> {
        Ok(())
    }

    fn apply(&mut self, Moved::Placed { quantity, .. }: Moved) {
        self.sold += quantity;
    }
}

/// What is replayed into.
static SOLD: AtomicU64 = AtomicU64::new(0);
static SEEN: AtomicU64 = AtomicU64::new(0);

struct Sold;

#[async_trait::async_trait]
impl Query<Order> for Sold {
    async fn dispatch(&self, _: &str, events: &[EventEnvelope<Order>]) {
        for event in events {
            let Moved::Placed { quantity, .. } = &event.payload;
            SOLD.fetch_add(*quantity as u64, Ordering::Relaxed);
            SEEN.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn event(stream: &str, n: usize) -> SerializedEvent {
    let payload = Moved::Placed {
        user_id: format!("user-{}", n % 1000),
        total: format!("{}.50", n % 100),
        quantity: (n % 7) as i64,
    };
    SerializedEvent::new(
        stream.to_owned(),
        n,
        Order::TYPE.to_owned(),
        payload.event_type(),
        payload.event_version(),
        serde_json::to_value(&payload).unwrap(),
        serde_json::json!({}),
    )
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [url, schema, what, rest @ ..] = words.as_slice() else {
        return Err("URL SCHEMA appends CALLERS SECONDS | replay".into());
    };
    let callers: usize = rest.first().map_or(Ok(1), |n| n.parse())?;
    let path = format!("SET search_path TO \"{schema}\"");
    let pool = PgPoolOptions::new()
        .max_connections(callers as u32 + 1)
        .min_connections(callers as u32)
        .after_connect(move |connection, _| {
            let path = path.clone();
            Box::pin(async move { sqlx::query(&path).execute(connection).await.map(|_| ()) })
        })
        .connect(url)
        .await?;
    sqlx::raw_sql(&format!(
        "CREATE SCHEMA IF NOT EXISTS \"{schema}\";
         CREATE TABLE IF NOT EXISTS \"{schema}\".events (
           aggregate_type text NOT NULL, aggregate_id text NOT NULL,
           sequence bigint CHECK (sequence >= 0) NOT NULL, event_type text NOT NULL,
           event_version text NOT NULL, payload json NOT NULL, metadata json NOT NULL,
           PRIMARY KEY (aggregate_type, aggregate_id, sequence))"
    ))
    .execute(&pool)
    .await?;
    if what == "replay" {
        let repository = PostgresEventRepository::new(pool).with_streaming_channel_size(10_000);
        let replay = QueryReplay::new(repository, Sold);
        let began = Instant::now();
        replay.replay_all().await?;
        let seen = SEEN.load(Ordering::Relaxed);
        println!("{seen} {}", seen as f64 / began.elapsed().as_secs_f64());
        return Ok(());
    }
    let time = Duration::from_secs_f64(rest.get(1).ok_or("how many seconds?")?.parse()?);
    let run = std::process::id();
    let began = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|caller| {
            let repository = PostgresEventRepository::new(pool.clone());
            tokio::spawn(async move {
                let mut times = Vec::new();
                // Streams of 100 events.
                while began.elapsed() < time {
                    let n = times.len();
                    let stream = format!("{run}-{caller}-{}", n / 100);
                    let started = Instant::now();
                    let one = [event(&stream, n % 100 + 1)];
                    repository.persist::<Order>(&one, None).await.map_err(|e| e.to_string())?;
                    times.push(started.elapsed().as_secs_f64());
                }
                Ok::<_, String>(times)
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await??);
    }
    let rate = times.len() as f64 / began.elapsed().as_secs_f64();
    times.sort_by(f64::total_cmp);
    let share = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or(f64::NAN);
    println!("{rate} {} {}", share(50), share(99));
    Ok(())
}
