//! A follower under faults: batches refused, cut in two, taken in twice, or arriving when nobody waits for them.

use std::sync::Arc;

use async_trait::async_trait;
use unisono_core::source::{Advance, Applied, Batch, Checkpoint, Follower, Outcome};
use unisono_core::{Change, Effect, Entity, Error, ErrorKind, Record, Result, Value};

use crate::faults::{Fate, failure};
use crate::faulty::Faulty;

/// A record with this note is refused by every follower that is told to refuse.
pub(crate) const POISON: &str = "poison";

fn is_poisoned(change: &Change) -> bool {
    let poisoned =
        |record: &Arc<Record>| record.values().iter().any(|v| *v == Value::String(POISON.into()));
    change.image.as_ref().is_some_and(poisoned)
}

impl Faulty {
    fn is_poison(&self, change: &Change) -> bool {
        self.refuses && is_poisoned(change)
    }

    /// Has a batch taken in, and notes what was.
    async fn take_in(&self, batch: Batch) -> Result<Applied> {
        let changes = batch.changes.clone();
        self.check_what_is_before(&batch).await?;
        let applied = self.take_in_unless_refused(batch).await?;
        for (change, outcome) in changes.iter().zip(&applied.outcomes) {
            if matches!(outcome, Outcome::Applied) {
                self.faults.taken(self.inner.name(), &change.key, change.position);
            }
        }
        Ok(applied)
    }

    /// Nothing comes to a follower that the one before it does not have, durably.
    async fn check_what_is_before(&self, batch: &Batch) -> Result<()> {
        let (Some((before, disks)), Some(newest)) =
            (&self.before, batch.changes.iter().map(|c| c.position).max())
        else {
            return Ok(());
        };
        // What it is told of a record that is gone has the position of the look; entries of others may come before that.
        let of_records = |seen: &crate::history::Seen| {
            let mut upto = seen.log.range(..=newest).rev();
            upto.find(|(_, change)| change.entity == *batch.entity.name()).map(|(at, _)| *at)
        };
        let Some(newest) = of_records(&self.history.seen()) else { return Ok(()) };
        let checkpoint = disks.checkpoint(before).await?;
        let has = checkpoint.filter(|c| c.backfill.is_none()).map(|c| c.position);
        if has.is_none_or(|has| has < newest) && !self.history.seen().tampered {
            let name = self.inner.name();
            self.history.breach(format!(
                "P2: {name} gets {newest}, and {before} before it has come to {has:?}"
            ));
        }
        // What was refused and replaced since does no harm: the follower before is further.
        let is_replaced = |change: &Arc<Change>| {
            let since =
                change.position.next()..=has.unwrap_or_default().max(change.position.next());
            self.history.seen().log.range(since).any(|(_, later)| later.key == change.key)
        };
        let poisoned = batch.changes.iter().find(|c| is_poisoned(c) && !is_replaced(c));
        let seen_to = self.history.seen().tampered || self.history.seen().discarded;
        if let (true, Some(change), false) = (*before == "picky", poisoned, seen_to) {
            let (name, key) = (self.inner.name(), &change.key);
            self.history.breach(format!("P2: {name} gets {key}, which {before} before it refuses"));
        }
        self.history.count("batch taken in after another follower");
        Ok(())
    }

    /// Refuses poison, and has the rest taken in without moving the checkpoint.
    async fn take_in_unless_refused(&self, batch: Batch) -> Result<Applied> {
        let follower = self.role(Arc::clone(&self.inner).follower())?;
        if !batch.changes.iter().any(|c| self.is_poison(c)) {
            return follower.apply(batch).await;
        }
        if let Some(advance) = &batch.advance
            && follower.checkpoint(&batch.entity).await? != advance.from
        {
            return Err(Error::new(ErrorKind::CheckpointMoved, "the checkpoint is elsewhere"));
        }
        let rest = batch.changes.iter().filter(|c| !self.is_poison(c)).cloned().collect();
        let taken = follower.apply(Batch { changes: rest, advance: None, ..batch.clone() }).await?;
        let mut taken = taken.outcomes.into_iter();
        let refused = || Error::new(ErrorKind::ConstraintViolated, "refused for good");
        let outcome = |change: &Arc<Change>| match self.is_poison(change) {
            true => Some(Outcome::Rejected(refused())),
            false => taken.next(),
        };
        let outcomes = batch.changes.iter().filter_map(outcome).collect();
        Ok(Applied { outcomes, advanced: false })
    }

    async fn apply_under(&self, fate: Fate, batch: Batch) -> Result<Applied> {
        match fate {
            Fate::Partly => {
                let half = batch.changes[..batch.changes.len() / 2].to_vec();
                self.take_in(Batch { changes: half, advance: None, ..batch }).await?;
                Err(failure(Effect::Unknown))
            }
            Fate::Twice => {
                self.take_in(Batch { advance: None, ..batch.clone() }).await?;
                self.take_in(batch).await
            }
            Fate::CrashBefore => {
                self.faults.sent(self.inner.name(), &batch);
                self.faults.crash().await
            }
            Fate::Slow(_) => {
                let name = self.inner.name();
                self.faults.sent(name, &batch);
                let arrives = async {
                    self.faults.arrived(name, &batch);
                    self.take_in(batch.clone()).await
                };
                self.faults.under(fate, arrives).await
            }
            _ => self.faults.under(fate, self.take_in(batch)).await,
        }
    }

    /// The checkpoint has just moved: what was sent before and given up may arrive now, and must change nothing.
    async fn moved(&self, advance: &Advance) {
        if let Some(after) = &advance.to.backfill {
            let lags = advance.from.as_ref().map(|c| c.position < self.history.seen().trimmed);
            self.history.count(match (after.as_str(), lags) {
                ("", None) => "copy from nothing",
                ("", Some(true)) => "copy of a follower that lags beyond the log",
                ("", Some(false)) => "copy again, asked for",
                _ => "copy step after the first",
            });
        }
        for batch in self.faults.overtaken(self.inner.name()) {
            self.history.count("batch arrives late");
            let result = self.take_in(batch).await;
            self.history.trace_result(&format!("    {} late batch", self.inner.name()), &result);
        }
    }
}

#[async_trait]
impl Follower for Faulty {
    async fn apply(&self, batch: Batch) -> Result<Applied> {
        let fate = self.faults.fate(self.inner.name(), "apply");
        let asked = batch.clone();
        let result = self.apply_under(fate, batch).await;
        if let (Ok(Applied { advanced: true, .. }), Some(advance)) = (&result, &asked.advance) {
            self.moved(advance).await;
        }
        self.note("apply", fate, &result);
        let summary = asked.changes.iter().map(|c| (c.position, &c.key, c.operation));
        self.history.trace(|| {
            let changes = summary.collect::<Vec<_>>();
            format!("        of copied {}, {:?}, {changes:?}", asked.copied, asked.advance)
        });
        result
    }

    async fn checkpoint(&self, entity: &Arc<Entity>) -> Result<Option<Checkpoint>> {
        let role = self.role(Arc::clone(&self.inner).follower())?;
        self.around("checkpoint", role.checkpoint(entity)).await
    }

    async fn reset(&self, entity: &Arc<Entity>) -> Result<()> {
        let role = self.role(Arc::clone(&self.inner).follower())?;
        self.around("reset", role.reset(entity)).await
    }
}
