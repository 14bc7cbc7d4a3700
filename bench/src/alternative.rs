//! What a user would write without Unisono: a bare axum server over bytes in memory, and one SQLite transaction for
//! each write of a row with its log entry.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use bytes::Bytes;
use rusqlite::Connection;

use crate::Result;
use crate::data::product_json;

/// Serves the same bytes as the product's cached record, from memory, until it is killed.
pub(crate) fn serve_bare(given: &mut dyn Iterator<Item = String>) -> Result<()> {
    let address: SocketAddr = given.next().ok_or("serve-bare needs an address")?.parse()?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let body = Bytes::from(product_json(1));
        let answer = move || {
            let body = body.clone();
            async move { ([(header::CONTENT_TYPE, "application/json")], body).into_response() }
        };
        let listener = tokio::net::TcpListener::bind(address).await?;
        axum::serve(listener, Router::new().route("/v1/product/{key}", get(answer))).await?;
        Ok(())
    })
}

/// One connection behind a mutex, one transaction per write: the form that was quickest by hand.
pub(crate) struct ByHand(Mutex<Connection>);

impl ByHand {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let db = Connection::open(path)?;
        db.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             CREATE TABLE product (id TEXT PRIMARY KEY, name TEXT NOT NULL, price INTEGER, stock INTEGER, version INTEGER NOT NULL);
             CREATE TABLE log (position INTEGER PRIMARY KEY AUTOINCREMENT, entity TEXT NOT NULL, key TEXT NOT NULL, image TEXT NOT NULL);",
        )?;
        Ok(ByHand(Mutex::new(db)))
    }

    fn write(&self, key: &str, stock: u64) -> Result<()> {
        let image = format!(r#"{{"id":"{key}","name":"name","price":"1.00","stock":{stock}}}"#);
        let mut db = self.0.lock().map_err(|_| "poisoned")?;
        let transaction = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        transaction
            .prepare_cached("INSERT INTO log (entity, key, image) VALUES ('product', ?1, ?2)")?
            .execute((key, &image))?;
        let position = transaction.last_insert_rowid();
        transaction
            .prepare_cached(
                "INSERT INTO product VALUES (?1, 'name', 100, ?2, ?3)
                 ON CONFLICT (id) DO UPDATE SET name = excluded.name, price = excluded.price, stock = excluded.stock, version = excluded.version",
            )?
            .execute((key, stock as i64, position))?;
        transaction.commit()?;
        Ok(())
    }

    /// Writes from `callers` threads for some time; answers writes per second.
    pub(crate) fn run(self: &Arc<Self>, callers: usize, time: Duration) -> Result<f64> {
        let began = Instant::now();
        let threads: Vec<_> = (0..callers)
            .map(|caller| {
                let this = Arc::clone(self);
                std::thread::spawn(move || -> Result<u64> {
                    let mut n = 0;
                    while began.elapsed() < time {
                        this.write(&format!("k{caller}-{}", n % 100), n)?;
                        n += 1;
                    }
                    Ok(n)
                })
            })
            .collect();
        let mut total = 0;
        for thread in threads {
            total += thread.join().map_err(|_| "a writer panicked")??;
        }
        Ok(total as f64 / began.elapsed().as_secs_f64())
    }
}
