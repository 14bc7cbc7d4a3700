//! Typed handles: one declaration, kept in SQLite, an in-process cache and a search index at the same time.
//!
//! `cargo run -p unisono --example embed`
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use unisono::core::{Error, Result};
use unisono::{Registry, Unisono, config};

const CONFIGURATION: &str = r#"
[sources.main]
kind = "sqlite"
path = "main.db"

[sources.cache]
kind = "memory"

[sources.search]
kind = "tantivy"
path = "search"

[entities.product]
key = "id"
truth = "main"

[entities.product.fields]
id = "string"
name = { type = "string", search = true, required = true }
price = "decimal(12,2)"
stock = { type = "integer", default = 0 }

[entities.product.cache]
source = "cache"

[[entities.product.followers]]
source = "search"
"#;

/// Decimals are text, so that no digit is lost on the way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Product {
    id: String,
    name: String,
    price: String,
    stock: i64,
}

fn product(id: &str, name: &str, price: &str, stock: i64) -> Product {
    Product { id: id.into(), name: name.into(), price: price.into(), stock }
}

#[tokio::main]
async fn main() -> Result<()> {
    let folder = tempfile::tempdir().map_err(|e| Error::internal("no folder").caused_by(e))?;
    let registry = Registry::builtin();
    let mut configuration =
        config::parse(CONFIGURATION, "embed.toml", &registry, &config::Process)?;
    configuration.data = folder.path().to_owned();
    let unisono = Unisono::open(configuration).await?;
    let products = unisono.entity::<Product>("product")?;

    // Written once; SQLite decides, the cache and the search index follow from its log.
    let lamp = product("1", "Desk lamp", "24.90", 3);
    products.create(&lamp).await?;
    products
        .put_all([product("2", "Floor lamp", "79.00", 1), product("3", "Desk", "149.00", 8)])
        .await?;
    let again = products.create(&lamp).await;
    println!(
        "a second create: {}",
        again.as_ref().err().map(ToString::to_string).unwrap_or_default()
    );
    assert!(again.is_err());

    // Reads see what this handle wrote, whichever source answers.
    assert_eq!(products.get("1").await?, Some(lamp));
    products.patch("1", json!({"stock": 2})).await?;
    assert_eq!(products.get("1").await?.map(|p| p.stock), Some(2));

    // The search index is filled from the log a moment later; who needs it complete waits for it.
    unisono.engine().wait_applied(&products.token(), Duration::from_secs(30)).await?;
    let lamps =
        products.find().search("lamp").filter("stock", "gte", 1).order("-price").page().await?;
    let names: Vec<&str> = lamps.items.iter().map(|p| p.name.as_str()).collect();
    println!("lamps in stock, dearest first: {names:?}");
    assert_eq!(names, ["Floor lamp", "Desk lamp"]);

    products.delete("3").await?;
    let left = products.find().count().await?;
    println!("products left: {left}");
    assert_eq!(left, 2);

    unisono.close().await
}
