//! Redis by hand: pipelines of `SET key json`, four in flight on one multiplexed connection.

use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use redis::{Client, TlsCertificates, pipe};
use serde_json::Value as Json;

use crate::Result;
use crate::engines::Engine;

pub(crate) async fn load(engine: &Engine, records: &[Json]) -> Result<Duration> {
    let root_cert = Some(std::fs::read(engine.text("tls_ca"))?);
    let certificates = TlsCertificates { client_tls: None, root_cert };
    let client = Client::build_with_tls(engine.text("url"), certificates)?;
    let connection = client.get_multiplexed_async_connection().await?;
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
    Ok(began.elapsed())
}
