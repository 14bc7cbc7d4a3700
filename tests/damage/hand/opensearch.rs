//! OpenSearch: documents with a version beside the record.

use reqwest::Method;
use serde_json::{Value as Json, json};
use unisono_core::kind::Options;

use crate::hand::Damage;
use crate::{Failed, engines};

pub(crate) async fn damage(options: &Options, damage: &Damage) -> Result<(), Failed> {
    let alias = format!("{}item", options.text("prefix").unwrap_or_default());
    let mut lines = Vec::new();
    for id in &damage.changed {
        lines.push(json!({"update": {"_id": id}}));
        lines.push(json!({"doc": {"record": {"name": "changed by hand"}}}));
    }
    lines.extend(damage.deleted.iter().map(|id| json!({"delete": {"_id": id}})));
    for id in &damage.added {
        let record = json!({"id": id, "name": "added by hand", "amount": "1.00", "stock": 1});
        lines.push(json!({"index": {"_id": id}}));
        lines.push(json!({"version": 5, "record": record, "indexed": {"id": id}}));
    }
    let forged = damage
        .older
        .iter()
        .map(|id| (id, -1))
        .chain(damage.newer.iter().map(|id| (id, damage.shift() as i64)));
    for (id, shift) in forged {
        lines.push(json!({"update": {"_id": id}}));
        lines.push(json!({"script": {"source": "ctx._source.version += params.shift", "params": {"shift": shift}}}));
    }
    let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let said = engines::opensearch::send(
        options,
        Method::POST,
        &format!("/{alias}/_bulk?refresh=true"),
        body,
    )
    .await?;
    match serde_json::from_str::<Json>(&said)?["errors"].as_bool() {
        Some(false) => Ok(()),
        _ => Err(said.into()),
    }
}
