//! MariaDB by hand: upserts of 500 rows, and single commits of a row and its log entry in one transaction.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, SslOpts, TxOpts, Value};
use serde_json::Value as Json;

use crate::Result;
use crate::engines::Engine;

pub(crate) async fn connect(engine: &Engine) -> Result<Conn> {
    let opts = Opts::from_url(engine.text("url"))?;
    let database = opts.db_name().unwrap_or_default().to_owned();
    let tls = SslOpts::default()
        .with_root_certs(vec![PathBuf::from(engine.text("tls_ca")).into()])
        .with_disable_built_in_roots(true);
    let opts = OptsBuilder::from_opts(opts).db_name(None::<String>).prefer_socket(false);
    let mut conn = Conn::new(opts.ssl_opts(tls)).await?;
    conn.query_drop(format!("CREATE DATABASE IF NOT EXISTS `{database}`")).await?;
    conn.query_drop(format!("USE `{database}`")).await?;
    Ok(conn)
}

pub(crate) async fn load(engine: &Engine, records: &[Json]) -> Result<Duration> {
    let mut conn = connect(engine).await?;
    conn.query_drop(
        "CREATE TABLE by_hand (id varchar(64) PRIMARY KEY, department text, category text, type text, brand text,
         manufacturer text, package_size text, price decimal(12,2)) DEFAULT CHARSET utf8mb4",
    ).await?;
    const FIELDS: [&str; 8] =
        ["id", "department", "category", "type", "brand", "manufacturer", "package_size", "price"];
    let sets: Vec<String> = FIELDS[1..].iter().map(|f| format!("{f} = VALUES({f})")).collect();
    let began = Instant::now();
    for some in records.chunks(500) {
        let marks = vec!["(?,?,?,?,?,?,?,?)"; some.len()].join(",");
        let statement = format!(
            "INSERT INTO by_hand ({}) VALUES {marks} ON DUPLICATE KEY UPDATE {}",
            FIELDS.join(","),
            sets.join(",")
        );
        let values = some.iter().flat_map(|r| FIELDS.map(|f| Value::from(r[f].as_str())));
        conn.exec_drop(statement, values.collect::<Vec<_>>()).await?;
    }
    Ok(began.elapsed())
}

pub(crate) async fn prepare_commits(engine: &Engine) -> Result<()> {
    let mut conn = connect(engine).await?;
    conn.query_drop("CREATE TABLE row_ (id varchar(64) PRIMARY KEY, name text, price decimal(12,2), stock bigint, version bigint)").await?;
    conn.query_drop("CREATE TABLE log (position bigint AUTO_INCREMENT PRIMARY KEY, entity varchar(64), `key` varchar(64), image text)").await?;
    for n in 0..6400 {
        conn.exec_drop("INSERT INTO row_ VALUES (?, 'name', 1, 0, 0)", (format!("p{n}"),)).await?;
    }
    Ok(())
}

/// One transaction for each write, from `callers` tasks with a connection each.
pub(crate) async fn commits(engine: &Arc<Engine>, callers: usize, time: Duration) -> Result<f64> {
    let mut conns = Vec::new();
    for _ in 0..callers {
        conns.push(connect(engine).await?);
    }
    let began = Instant::now();
    let tasks = conns.into_iter().enumerate().map(|(caller, mut conn)| {
        tokio::spawn(async move {
            let mut n = 0_u64;
            while began.elapsed() < time {
                let key = format!("p{}", caller as u64 * 100 + n % 100);
                let mut transaction = conn.start_transaction(TxOpts::default()).await?;
                transaction.exec_drop(
                    "INSERT INTO log (entity, `key`, image) VALUES ('product', ?, ?)",
                    (&key, crate::data::product_json(n)),
                ).await?;
                transaction.exec_drop(
                    "UPDATE row_ SET name = 'name', price = 1, stock = ?, version = LAST_INSERT_ID() WHERE id = ?",
                    (n, &key),
                ).await?;
                transaction.commit().await?;
                n += 1;
            }
            Ok::<_, crate::Error>(n)
        })
    });
    let mut total = 0;
    for task in tasks.collect::<Vec<_>>() {
        total += task.await??;
    }
    Ok(total as f64 / began.elapsed().as_secs_f64())
}
