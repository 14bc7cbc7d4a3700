//! Orders with lines: what sells best, who changed what, and the proof that every copy agrees.
//!
//! `cargo run -p unisono --example orders`
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use serde_json::{Value as Json, json};
use unisono::core::{Error, Result};
use unisono::engine::verify::report::VerifyOptions;
use unisono::{Registry, Unisono, config};

const CONFIGURATION: &str = r#"
[sources.main]
kind = "sqlite"
path = "main.db"

[sources.archive]
kind = "files"
path = "archive"

[entities.order]
key = "id"
truth = "main"

[entities.order.fields]
id = "string"
status = { type = "string", enum = ["open", "paid", "sent"], default = "open", index = true }
created_at = "timestamp(0)"

[entities.order.fields.items]
type = "list"
of = { product_id = "string", quantity = "integer", amount = "decimal(12,2)" }

[[entities.order.followers]]
source = "archive"
"#;

fn order(id: &str, day: u32, items: Json) -> Json {
    json!({"id": id, "created_at": format!("2026-11-{day:02}T09:30:00Z"), "items": items})
}

#[tokio::main]
async fn main() -> Result<()> {
    let folder = tempfile::tempdir().map_err(|e| Error::internal("no folder").caused_by(e))?;
    let registry = Registry::builtin();
    let mut configuration =
        config::parse(CONFIGURATION, "orders.toml", &registry, &config::Process)?;
    configuration.data = folder.path().to_owned();
    let unisono = Unisono::open(configuration).await?;
    let orders = unisono.entity::<Json>("order")?;

    let line = |product: &str, quantity: i64, amount: &str| json!({"product_id": product, "quantity": quantity, "amount": amount});
    orders
        .put_all([
            order("a", 1, json!([line("tea", 2, "7.00"), line("milk", 1, "1.19")])),
            order("b", 2, json!([line("tea", 1, "3.50")])),
            order("c", 2, json!([line("bread", 3, "8.97"), line("milk", 2, "2.38")])),
        ])
        .await?;

    // Groups over the lines of all orders; sums of decimals are exact.
    let best = orders
        .aggregate(&json!({
            "unnest": "items", "group_by": ["items.product_id"],
            "metrics": {"sold": {"sum": "items.quantity"}, "amount": {"sum": "items.amount"}, "orders": "count"},
            "order": ["-amount"], "limit": 2,
        }))
        .await?;
    for group in &best {
        println!("{group}");
    }
    assert_eq!(
        best[0],
        json!({"items.product_id": "tea", "sold": 3, "amount": "10.50", "orders": 2})
    );
    assert_eq!(best[1]["items.product_id"], "bread");

    // Every change is in the log, which is the audit trail.
    orders.patch("a", json!({"status": "paid"})).await?;
    orders.patch("a", json!({"status": "sent"})).await?;
    let history = orders.history("a", 10).await?;
    for change in &history {
        println!("{} {} at position {}", change.time, change.operation.as_str(), change.position);
    }
    assert_eq!(history.len(), 3);
    assert!(history[0].position > history[1].position, "newest first");

    let open = orders.find().filter("status", "eq", "open").order("-created_at").page().await?;
    let ids: Vec<_> = open.items.iter().map(|o| o["id"].as_str().unwrap_or_default()).collect();
    println!("open orders: {ids:?}");
    assert_eq!(ids, ["b", "c"]);

    // The archive holds one readable file for each order; verification reads every one of them back.
    unisono.engine().wait_applied(&orders.token(), Duration::from_secs(30)).await?;
    let report = unisono.engine().verify(&VerifyOptions::default(), &|_| {}).await?;
    for comparison in &report.comparisons {
        println!(
            "{} in {}: {} records, {} differ",
            comparison.entity, comparison.source, comparison.records, comparison.different
        );
    }
    assert!(report.agrees());

    unisono.close().await
}
