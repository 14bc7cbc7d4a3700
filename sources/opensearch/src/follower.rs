//! The role of a follower: batches from the log as bulk requests; the checkpoint moves after the data.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use unisono_core::source::{Advance, Applied, Batch, Checkpoint, Follower, Outcome};
use unisono_core::{Effect, Entity, Error, ErrorKind, Operation, Position, Result};

use crate::bulk::{Bulk, Condition};
use crate::conflict::look_again;
use crate::handle::Handle;
use crate::place::{Kept, Place};
use crate::source::OpensearchSource;

#[async_trait]
impl Follower for OpensearchSource {
    async fn apply(&self, batch: Batch) -> Result<Applied> {
        let handle = self.handle(&batch.entity)?;
        apply(&handle, &batch).await.map_err(|e| handle.locate(e, "apply"))
    }

    async fn checkpoint(&self, entity: &Arc<Entity>) -> Result<Option<Checkpoint>> {
        let handle = self.handle(entity)?;
        checkpoint(&handle).await.map_err(|e| handle.locate(e, "checkpoint"))
    }

    async fn reset(&self, entity: &Arc<Entity>) -> Result<()> {
        let handle = self.handle(entity)?;
        handle.reset().await.map_err(|e| handle.locate(e, "reset"))
    }
}

/// The stored checkpoint, if the index that it speaks of is still there.
async fn checkpoint(handle: &Handle) -> Result<Option<Checkpoint>> {
    let Some(kept) = handle.read_place().await? else { return Ok(None) };
    if kept.place.checkpoint.is_some() && !handle.admin().exists(&kept.place.index).await? {
        return Ok(None);
    }
    Ok(kept.place.checkpoint)
}

async fn apply(handle: &Handle, batch: &Batch) -> Result<Applied> {
    let kept = match &batch.advance {
        Some(advance) => Some(expected(handle, advance).await?),
        None => None,
    };
    let outcomes = take_in(handle, batch).await;
    if let Err(e) = &outcomes
        && e.kind() == ErrorKind::Unavailable
        && kept.is_none()
    {
        // Perhaps another process made the index anew: the next attempt finds it.
        let _ = handle.read_place().await;
    }
    let outcomes = outcomes?;
    let all = outcomes.iter().all(|o| matches!(o, Outcome::Applied | Outcome::Stale));
    let advanced = match (&batch.advance, kept) {
        (Some(advance), Some(kept)) if all => {
            move_checkpoint(handle, kept, advance).await?;
            true
        }
        _ => false,
    };
    Ok(Applied { outcomes, advanced })
}

/// The stored place, if its checkpoint is where the batch expects it.
async fn expected(handle: &Handle, advance: &Advance) -> Result<Kept> {
    let kept = match handle.read_place().await? {
        None if advance.from.is_none() => {
            // Somebody deleted everything, and the delivery begins from the start.
            handle.places.ensure().await?;
            handle.begin(None).await?
        }
        kept => kept.ok_or_else(moved)?,
    };
    if kept.place.checkpoint == advance.from { Ok(kept) } else { Err(moved()) }
}

fn moved() -> Error {
    Error::new(ErrorKind::CheckpointMoved, "the checkpoint is not where the batch expects it")
}

/// Writes the changes; nothing is done for those that are refused.
async fn take_in(handle: &Handle, batch: &Batch) -> Result<Vec<Outcome>> {
    let mut bulk = Bulk::default();
    let condition = if batch.copied { Condition::NotOlder } else { Condition::Newer };
    let mut refused = Vec::new();
    for (n, change) in batch.changes.iter().enumerate() {
        if let Err(e) = bulk.add(&handle.layout, change, condition) {
            refused.push((n, e));
        }
    }
    for (version, id) in handle.take_settled() {
        bulk.forget(&id, version);
    }
    if bulk.is_empty() {
        return Ok(refused.into_iter().map(|(_, e)| Outcome::Rejected(e)).collect());
    }
    let index = handle.index()?;
    let wrote = || handle.searchable.wrote(batch.changes.iter().map(|change| &change.key));
    let sent = bulk.send(&handle.cluster.client, &index).await;
    wrote();
    let mut outcomes = sent?;
    // The ends of deletions came last.
    outcomes.truncate(batch.changes.len() - refused.len());
    for (n, e) in refused {
        outcomes.insert(n, Outcome::Rejected(e));
    }
    let looked = look_again(handle, &index, batch, &mut outcomes).await;
    wrote();
    looked?;
    let deleted = batch.changes.iter().zip(&outcomes).filter(|(change, outcome)| {
        change.operation == Operation::Delete && matches!(outcome, Outcome::Applied)
    });
    handle.remember(deleted.map(|(change, _)| (change.position, change.key.to_string())));
    Ok(outcomes)
}

/// Stores the checkpoint after its data. Whoever moved it in between wins; what was written stays, and does no harm,
/// since every write depends on its version.
async fn move_checkpoint(handle: &Handle, kept: Kept, advance: &Advance) -> Result<()> {
    let place = Place { checkpoint: Some(advance.to.clone()), ..kept.place };
    let position = place.position();
    let before = kept.written;
    let written = handle.places.write(&handle.place, place, Some(before)).await?;
    let Some(kept) = written else { return Err(moved().effect(Effect::Unknown)) };
    handle.searchable.moved(&kept.place.index, before, kept.written).await;
    handle.settle(position);
    if position > Position::ZERO
        && !handle.published.load(Ordering::SeqCst)
        && let Err(e) = handle.publish(&kept.place.index).await
    {
        // The next batch tries again; the records are there all the same.
        let source = handle.cluster.client.source();
        tracing::warn!(%source, error = %e, "the alias still names the earlier index");
    }
    Ok(())
}
