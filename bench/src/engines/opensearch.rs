//! OpenSearch by hand: bulks of 1,000 documents, four in flight, no refresh.

use std::fmt::Write;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use serde_json::Value as Json;

use crate::Result;
use crate::engines::Engine;

pub(crate) async fn load(engine: &Engine, records: &[Json]) -> Result<Duration> {
    let http = reqwest::Client::builder().tls_backend_preconfigured(engine.tls()?).build()?;
    let base = engine.text("url").trim_end_matches('/');
    let index = format!("{base}/{}by_hand", engine.text("prefix"));
    let text = serde_json::json!({"type": "text"});
    let keyword = serde_json::json!({"type": "keyword"});
    let mappings = serde_json::json!({
        "settings": {"number_of_shards": 1, "number_of_replicas": 0},
        "mappings": {"properties": {"id": keyword, "department": text, "category": text, "type": text,
            "brand": keyword, "manufacturer": keyword, "package_size": keyword, "price": keyword}},
    });
    http.put(&index).json(&mappings).send().await?.error_for_status()?;
    let began = Instant::now();
    futures::stream::iter(records.chunks(1_000).map(Ok::<_, crate::Error>))
        .map(|some| {
            let request = http.post(format!("{index}/_bulk"));
            async move {
                let mut body = String::new();
                for record in some? {
                    let id = record["id"].as_str().unwrap_or_default();
                    writeln!(body, "{{\"index\":{{\"_id\":\"{id}\"}}}}\n{record}")?;
                }
                let request = request.header("content-type", "application/x-ndjson").body(body);
                let answer: Json = request.send().await?.error_for_status()?.json().await?;
                if answer["errors"] == Json::Bool(false) {
                    Ok::<(), crate::Error>(())
                } else {
                    Err("a bulk had failures".into())
                }
            }
        })
        .buffer_unordered(4)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(began.elapsed())
}
