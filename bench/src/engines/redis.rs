//! Redis by hand: pipelines of `SET key json`, four in flight on one multiplexed connection.

use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use redis::aio::MultiplexedConnection;
use redis::{Client, TlsCertificates, pipe};
use serde_json::Value as Json;

use crate::Result;
use crate::engines::Engine;

async fn connect(engine: &Engine) -> Result<MultiplexedConnection> {
    let root_cert = Some(std::fs::read(engine.text("tls_ca"))?);
    let certificates = TlsCertificates { client_tls: None, root_cert };
    let client = Client::build_with_tls(engine.text("url"), certificates)?;
    Ok(client.get_multiplexed_async_connection().await?)
}

pub(crate) async fn load(engine: &Engine, records: &[Json]) -> Result<Duration> {
    let connection = connect(engine).await?;
    let prefix = engine.text("prefix");
    let began = Instant::now();
    futures::stream::iter(records.chunks(500).map(Ok::<_, crate::Error>))
        .map(|some| {
            let mut connection = connection.clone();
            async move {
                let mut pipeline = pipe();
                for record in some? {
                    let id = record["id"].as_str().unwrap_or_default();
                    pipeline.set(format!("{prefix}:product:{id}"), record.to_string()).ignore();
                }
                Ok::<(), crate::Error>(pipeline.exec_async(&mut connection).await?)
            }
        })
        .buffer_unordered(4)
        .try_collect::<Vec<()>>()
        .await?;
    let took = began.elapsed();
    clean(engine, records).await?;
    Ok(took)
}

/// Removes what was loaded, by hand or by us, so that the server's memory does not fill with the rounds.
pub(crate) async fn clean(engine: &Engine, records: &[Json]) -> Result<()> {
    let mut connection = connect(engine).await?;
    let prefix = engine.text("prefix");
    let controls = ["ledger", "index"].map(|c| format!("{prefix}:unisono:{{product.0}}:{c}"));
    redis::cmd("UNLINK").arg(&controls[..]).exec_async(&mut connection).await?;
    for some in records.chunks(5_000) {
        let ids = some.iter().filter_map(|r| r["id"].as_str());
        let keys: Vec<String> = ids.map(|id| format!("{prefix}:product:{id}")).collect();
        redis::cmd("UNLINK").arg(keys).exec_async(&mut connection).await?;
    }
    Ok(())
}
