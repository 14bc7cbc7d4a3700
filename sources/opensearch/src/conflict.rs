//! Writes that the engine took for old, looked at again.
//!
//! Whoever changes a document by hand raises the version that the engine counts, and whoever deletes one leaves a
//! version behind: then ours looks old although it is not. The document itself says which version of the record it has.

use reqwest::Method;
use serde::Deserialize;
use serde_json::json;
use unisono_core::Result;
use unisono_core::source::{Batch, Outcome};

use crate::bulk::{Bulk, Condition};
use crate::handle::Handle;
use crate::place::Written;

#[derive(Deserialize)]
struct Answer {
    docs: Vec<Doc>,
}

#[derive(Deserialize)]
struct Doc {
    #[serde(flatten)]
    written: Option<Written>,
    #[serde(rename = "_source", default)]
    source: Source,
}

#[derive(Default, Deserialize)]
struct Source {
    /// A document without one is somebody else's, and older than all.
    #[serde(default)]
    version: u64,
}

/// Repeats those writes of a batch that are `Stale` for the engine alone.
pub(crate) async fn look_again(
    handle: &Handle,
    index: &str,
    batch: &Batch,
    outcomes: &mut [Outcome],
) -> Result<()> {
    let stale = outcomes.iter().enumerate().filter(|(_, o)| matches!(o, Outcome::Stale));
    let stale: Vec<_> = stale.filter_map(|(n, _)| Some((n, batch.changes.get(n)?))).collect();
    if stale.is_empty() {
        return Ok(());
    }
    let ids: Vec<_> = stale.iter().map(|(_, change)| change.key.to_string()).collect();
    let path = format!("/{index}/_mget?_source_includes=version");
    let found = handle.cluster.client.read(Method::POST, &path, Some(&json!({"ids": ids}))).await?;
    let found: Answer = found.ok()?.parse()?;
    let (mut bulk, mut repeated) = (Bulk::default(), Vec::new());
    for ((n, change), doc) in stale.into_iter().zip(found.docs) {
        let (known, position) = (doc.source.version, change.position.as_u64());
        let condition = match doc.written {
            Some(written) if known < position || batch.copied && known == position => {
                Condition::As(written)
            }
            // The truth has the record, so that the deletion was none of ours.
            None if batch.copied => Condition::Absent,
            _ => continue,
        };
        bulk.add(&handle.layout, change, condition)?;
        repeated.push(n);
    }
    if repeated.is_empty() {
        return Ok(());
    }
    let sent = bulk.send(&handle.cluster.client, index).await?;
    for (n, outcome) in repeated.into_iter().zip(sent) {
        if let Some(slot) = outcomes.get_mut(n) {
            *slot = outcome;
        }
    }
    Ok(())
}
