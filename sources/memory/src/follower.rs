//! Role follower: versions guard the records, the checkpoint guards the batches.

use std::sync::Arc;

use async_trait::async_trait;
use unisono_core::source::{Applied, Batch, Checkpoint, Follower, Outcome};
use unisono_core::{Change, Entity, Error, ErrorKind, Operation, Result, Stored};

use crate::source::MemorySource;
use crate::store::Table;

impl Table {
    fn apply(&mut self, batch: &Batch) -> Result<Applied> {
        if let Some(advance) = &batch.advance
            && advance.from != self.checkpoint
        {
            let position = |c: &Option<Checkpoint>| c.as_ref().map_or(0, |c| c.position.as_u64());
            return Err(Error::new(ErrorKind::CheckpointMoved, "the checkpoint is elsewhere")
                .with("expected", position(&advance.from))
                .with("actual", position(&self.checkpoint)));
        }
        let outcomes: Vec<_> = batch.changes.iter().map(|c| self.take(c, batch.copied)).collect();
        let taken = |o: &Outcome| matches!(o, Outcome::Applied | Outcome::Stale);
        let advance = batch.advance.as_ref().filter(|_| outcomes.iter().all(taken));
        if let Some(advance) = advance {
            // Deletions that the checkpoint had passed before this batch are settled.
            let settled = self.checkpoint.as_ref().map(|c| c.position).unwrap_or_default();
            self.deleted.retain(|_, version| *version > settled);
            self.checkpoint = Some(advance.to.clone());
        }
        Ok(Applied { advanced: advance.is_some(), outcomes })
    }

    fn take(&mut self, change: &Change, copied: bool) -> Outcome {
        let held = self.version(&change.key);
        if held.is_some_and(|v| v > change.position || (v == change.position && !copied)) {
            return Outcome::Stale;
        }
        match (change.operation, &change.image) {
            (Operation::Put, Some(image)) => {
                self.deleted.remove(&change.key);
                let stored = Stored::new(change.key.clone(), change.position, Arc::clone(image));
                self.set(&change.key, Some(stored));
            }
            (Operation::Put, None) => {
                return Outcome::Rejected(
                    Error::new(ErrorKind::Corrupt, "a put has no image")
                        .with("position", change.position),
                );
            }
            (Operation::Delete, _) => {
                self.set(&change.key, None);
                self.deleted.insert(change.key.clone(), change.position);
            }
        }
        Outcome::Applied
    }
}

#[async_trait]
impl Follower for MemorySource {
    async fn apply(&self, batch: Batch) -> Result<Applied> {
        let binding = self.binding(&batch.entity, "apply")?;
        let mut state = self.state("apply")?;
        let new = || Table::new(&binding.entity, binding.role);
        let table = state.tables.entry(Arc::clone(&binding.place)).or_insert_with(new);
        table.apply(&batch).map_err(|e| e.on("apply").of(batch.entity.name()))
    }

    async fn checkpoint(&self, entity: &Arc<Entity>) -> Result<Option<Checkpoint>> {
        self.with_table(entity, "checkpoint", |_, table| Ok(table.checkpoint.clone()))
    }

    async fn reset(&self, entity: &Arc<Entity>) -> Result<()> {
        let binding = self.binding(entity, "reset")?;
        let table = Table::new(&binding.entity, binding.role);
        self.state("reset")?.tables.insert(binding.place, table);
        Ok(())
    }
}
