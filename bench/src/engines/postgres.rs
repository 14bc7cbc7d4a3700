//! PostgreSQL by hand: upserts of 1,000 rows by `unnest`, and single commits by one statement with a log entry.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use tokio_postgres::Client;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::Result;
use crate::engines::Engine;

const FIELDS: [&str; 8] =
    ["id", "department", "category", "type", "brand", "manufacturer", "package_size", "price"];

/// One of the engine's servers, with its schema untouched.
pub(crate) async fn at(engine: &Engine, url: &str) -> Result<Client> {
    let tls = MakeRustlsConnect::new(engine.tls()?);
    let (client, connection) = tokio_postgres::connect(url, tls).await?;
    tokio::spawn(connection);
    Ok(client)
}

pub(crate) async fn connect(engine: &Engine) -> Result<Client> {
    let client = at(engine, engine.text("url")).await?;
    client
        .batch_execute(&format!(
            "CREATE SCHEMA IF NOT EXISTS \"{0}\"; SET search_path TO \"{0}\"",
            engine.text("schema")
        ))
        .await?;
    Ok(client)
}

pub(crate) async fn load(engine: &Engine, records: &[Json]) -> Result<Duration> {
    let client = connect(engine).await?;
    client.batch_execute(
        "CREATE TABLE by_hand (id text COLLATE \"C\" PRIMARY KEY, department text, category text, type text, brand text,
         manufacturer text, package_size text, price numeric(12,2))",
    ).await?;
    let columns = FIELDS.join(", ");
    let sets: Vec<String> = FIELDS[1..].iter().map(|f| format!("{f} = excluded.{f}")).collect();
    let upsert = client.prepare(&format!(
        "INSERT INTO by_hand ({columns}) SELECT a, b, c, d, e, f, g, h::numeric FROM \
         unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[]) \
         AS t(a, b, c, d, e, f, g, h) ON CONFLICT (id) DO UPDATE SET {}", sets.join(", ")
    )).await?;
    let began = Instant::now();
    for some in records.chunks(1_000) {
        let columns: Vec<Vec<Option<&str>>> =
            FIELDS.iter().map(|f| some.iter().map(|r| r[*f].as_str()).collect()).collect();
        let parameters: Vec<_> =
            columns.iter().map(|c| c as &(dyn tokio_postgres::types::ToSql + Sync)).collect();
        client.execute(&upsert, &parameters).await?;
    }
    Ok(began.elapsed())
}

/// One product row for each caller and number, so that writes are updates.
pub(crate) async fn prepare_commits(engine: &Engine) -> Result<()> {
    let client = connect(engine).await?;
    client.batch_execute(
        "CREATE TABLE row (id text PRIMARY KEY, name text NOT NULL, price numeric(12,2), stock bigint, version bigint);
         CREATE TABLE log (position bigserial PRIMARY KEY, entity text NOT NULL, key text NOT NULL, image text NOT NULL);
         INSERT INTO row SELECT 'p' || n, 'name', 1, 0, 0 FROM generate_series(0, 6400) n",
    ).await?;
    Ok(())
}

/// Single-statement writes (row and log entry) from `callers` tasks with a connection each: rate and latencies.
pub(crate) async fn commits(
    engine: &Arc<Engine>,
    callers: usize,
    time: Duration,
) -> Result<(f64, Vec<Duration>)> {
    let mut clients = Vec::new();
    for _ in 0..callers {
        clients.push(connect(engine).await?);
    }
    let began = Instant::now();
    let tasks = clients.into_iter().enumerate().map(|(caller, client)| {
        tokio::spawn(async move {
            let statement = client.prepare(
                "WITH l AS (INSERT INTO log (entity, key, image) VALUES ('product', $1, $2) RETURNING position)
                 UPDATE row SET name = 'name', price = 1, stock = $3, version = l.position FROM l WHERE id = $1",
            ).await?;
            let (mut n, mut times) = (0_u64, Vec::new());
            while began.elapsed() < time {
                let key = format!("p{}", caller as u64 * 100 + n % 100);
                let image = crate::data::product_json(n);
                let started = Instant::now();
                client.execute(&statement, &[&key, &image, &(n as i64)]).await?;
                times.push(started.elapsed());
                n += 1;
            }
            Ok::<_, crate::Error>(times)
        })
    });
    let mut all = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        all.extend(task.await??);
    }
    Ok((all.len() as f64 / began.elapsed().as_secs_f64(), all))
}
