//! The follower: changes on the condition of their versions, and the checkpoint by compare-and-set.
//!
//! A deployment with transactions moves both in one: [`crate::transaction`]. Without them, the checkpoint follows
//! when the changes are in; a batch that is cut off in between is repeated without effect.

use std::sync::Arc;

use async_trait::async_trait;
use unisono_core::source::{Advance, Applied, Batch, Checkpoint, Follower, Outcome};
use unisono_core::{Entity, Error, ErrorKind, Position, Result};

use crate::client::Client;
use crate::collection::{Place, moved};
use crate::source::MongodbSource;
use crate::{schema, transaction, writes};

#[async_trait]
impl Follower for MongodbSource {
    async fn apply(&self, batch: Batch) -> Result<Applied> {
        let named = self.named("apply", &batch.entity);
        let place = self.place(&batch.entity).map_err(&named)?;
        // Without a checkpoint to move there is nothing that must happen at once.
        let applied = if self.client().transactions() && batch.advance.is_some() {
            transaction::apply(self.client(), &place, &batch).await
        } else {
            apply(self.client(), &place, &batch).await
        };
        let mut applied = applied.map_err(&named)?;
        for outcome in &mut applied.outcomes {
            let taken = std::mem::replace(outcome, Outcome::Stale);
            *outcome = match taken {
                Outcome::Rejected(error) => Outcome::Rejected(named(error)),
                Outcome::Retry(error) => Outcome::Retry(named(error)),
                fine => fine,
            };
        }
        Ok(applied)
    }

    async fn checkpoint(&self, entity: &Arc<Entity>) -> Result<Option<Checkpoint>> {
        let named = self.named("checkpoint", entity);
        let place = self.place(entity).map_err(&named)?;
        place.checkpoint(self.client(), None).await.map_err(&named)
    }

    async fn reset(&self, entity: &Arc<Entity>) -> Result<()> {
        let named = self.named("reset", entity);
        let place = self.place(entity).map_err(&named)?;
        schema::reset(self.client(), &place).await.map_err(&named)
    }
}

/// Takes in a batch without a transaction.
pub(crate) async fn apply(client: &Client, place: &Place, batch: &Batch) -> Result<Applied> {
    if let Some(advance) = &batch.advance {
        let stored = place.checkpoint(client, None).await?;
        if stored != advance.from {
            return Err(moved(stored.as_ref(), advance));
        }
    }
    let (statements, mut outcomes) = writes::statements(place, &batch.changes, batch.copied);
    let send = writes::send_all(client, place, statements, &mut outcomes);
    match passed(batch.advance.as_ref()) {
        Some(passed) => {
            futures::try_join!(send, place.forget(client, passed, None))?;
        }
        None => send.await?,
    }
    let outcomes = settled(outcomes);
    let advance = batch.advance.as_ref().filter(|_| all_in(&outcomes));
    if let Some(advance) = advance {
        place.advance(client, advance, None).await?;
    }
    Ok(Applied { outcomes, advanced: advance.is_some() })
}

/// The position up to which deletions need not be remembered any more: the checkpoint before the batch.
///
/// None while the first copy is made: records that were read before a deletion may still be under way.
pub(crate) fn passed(advance: Option<&Advance>) -> Option<Position> {
    let from = advance?.from.as_ref()?;
    from.backfill.is_none().then_some(from.position)
}

/// Whether everything was taken in, so that the checkpoint may move.
pub(crate) fn all_in(outcomes: &[Outcome]) -> bool {
    outcomes.iter().all(|o| matches!(o, Outcome::Applied | Outcome::Stale))
}

/// The outcomes of a batch; a change that has none was not answered for.
pub(crate) fn settled(outcomes: Vec<Option<Outcome>>) -> Vec<Outcome> {
    let unanswered =
        || Outcome::Retry(Error::new(ErrorKind::Unavailable, "the server did not answer for it"));
    outcomes.into_iter().map(|o| o.unwrap_or_else(unanswered)).collect()
}
