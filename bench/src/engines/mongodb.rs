//! MongoDB by hand: unordered inserts of 1,000 documents, four in flight.

use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use mongodb::Client;
use mongodb::bson::{Bson, Document};
use mongodb::options::{ClientOptions, Tls, TlsOptions};
use serde_json::Value as Json;

use crate::Result;
use crate::engines::Engine;

pub(crate) async fn load(engine: &Engine, records: &[Json]) -> Result<Duration> {
    let mut options = ClientOptions::parse(engine.text("url")).await?;
    let ca = Some(engine.text("tls_ca").into());
    options.tls = Some(Tls::Enabled(TlsOptions::builder().ca_file_path(ca).build()));
    let database = Client::with_options(options)?.database(engine.text("database"));
    let products = database.collection::<Document>("by_hand");
    let began = Instant::now();
    futures::stream::iter(records.chunks(1_000).map(Ok::<_, crate::Error>))
        .map(|some| {
            let products = products.clone();
            async move {
                let documents: Vec<Document> = some?.iter().map(document).collect();
                products.insert_many(documents).ordered(false).await?;
                Ok::<(), crate::Error>(())
            }
        })
        .buffer_unordered(4)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(began.elapsed())
}

fn document(record: &Json) -> Document {
    let fields = record.as_object().into_iter().flatten();
    fields
        .map(|(name, value)| {
            let value = match (name.as_str(), value.as_str()) {
                ("price", Some(text)) => text.parse().map_or(Bson::Null, Bson::Decimal128),
                (_, Some(text)) => Bson::String(text.to_owned()),
                (_, None) => Bson::Null,
            };
            (if name == "id" { "_id".to_owned() } else { name.clone() }, value)
        })
        .collect()
}
