//! What gave way is recorded for as long as is declared, by each side for itself, whether or not it reaches the other.

use std::sync::Arc;
use std::time::Duration;

use unisono_core::query::{Comparison, Filter, Path, Query};
use unisono_core::write::{Action, Condition, Unit, Write};
use unisono_core::{Entity, ErrorKind, Result, Stored, Timestamp, Value};

use super::Syncing;
use crate::log::Log;
use crate::runtime::Runtime;

/// How often it is looked for conflicts beyond their time.
const EVERY: Duration = Duration::from_secs(60);
/// How many records are forgotten at once.
const PAGE: usize = 500;

/// Forgets conflicts for as long as the engine runs, unless they are kept for good.
pub(super) async fn run(syncing: Arc<Syncing>) {
    let (keep, runtime) = (syncing.declared.conflicts, &syncing.runtime);
    if keep.is_zero() {
        return;
    }
    loop {
        runtime.sleep(EVERY).await;
        if let Err(error) = forget(&syncing, runtime.now().minus(keep)).await {
            tracing::warn!(%error, entity = %syncing.entity(), "old conflicts cannot be forgotten now");
        }
    }
}

/// Forgets the conflicts that were found before a time.
async fn forget(syncing: &Syncing, before: Timestamp) -> Result<()> {
    let (log, kept) = (&syncing.log, &syncing.memories.conflicts);
    let Some(found_at) = kept.index_of("found_at").map(Path::whole) else { return Ok(()) };
    let filter = Filter::Compare(found_at, Comparison::Lt, Value::Timestamp(before));
    let query = Query { filter, limit: PAGE, ..Query::all() };
    loop {
        let page = log.reader.query(kept, &query).await?.value;
        let old: Vec<_> = page.hits.into_iter().map(|hit| hit.stored).collect();
        let count = old.len();
        delete(log, kept, old, &syncing.runtime).await?;
        if count < PAGE {
            return Ok(());
        }
    }
}

/// Deletes records of the engine's own, unless somebody has written them since they were read.
pub(super) async fn delete(
    log: &Log,
    entity: &Arc<Entity>,
    records: Vec<Stored>,
    runtime: &Runtime,
) -> Result<()> {
    let units = records.into_iter().map(|stored| {
        let write = Write {
            entity: Arc::clone(entity),
            key: stored.key,
            action: Action::Delete,
            condition: Condition::Version(Some(stored.version)),
        };
        let (time, actor) = (runtime.now(), None);
        Unit { writes: vec![write], idempotency: None, time, actor, trace: None }
    });
    for result in log.committer.commit_each(units.collect()).await {
        match result {
            Err(error) if error.kind() != ErrorKind::VersionConflict => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
