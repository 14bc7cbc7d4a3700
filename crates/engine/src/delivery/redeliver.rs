//! Redelivery: the truth's current state of single records, for repair and for dead letters.

use std::sync::Arc;

use unisono_core::source::{Applied, At, Batch, Outcome};
use unisono_core::{Change, Key, Result};

use crate::delivery::session::Session;
use crate::delivery::{Delivery, Redelivered};

/// Records delivered again in one batch.
const CHUNK: usize = 500;

impl Delivery {
    /// Tries every dead letter again at the start of a session: the follower may have been mended, and a letter whose
    /// record was accepted just before the process ended is still there to be forgotten.
    pub(super) async fn retry_letters(&self, session: &mut Session<'_>) -> Result<()> {
        let keys = session.letters.keys().map(|key| Key::parse(&self.target.entity, key));
        let keys = keys.collect::<Result<Vec<_>>>()?;
        for chunk in keys.chunks(CHUNK) {
            self.redeliver_now(session, chunk.to_vec()).await?;
        }
        Ok(())
    }

    /// Reads the records from the truth and has the follower take them in, by the same conditional apply as always.
    pub(super) async fn redeliver_now(
        &self,
        session: &mut Session<'_>,
        keys: Vec<Key>,
    ) -> Result<Vec<Redelivered>> {
        let At { value: found, position } = self.truth().0.get(&self.target.entity, &keys).await?;
        self.comes_to(position).await?;
        let changes: Vec<Arc<Change>> = keys
            .iter()
            .zip(found)
            .map(|(key, stored)| match stored {
                Some(stored) if self.wants(&stored) => self.copy_of(stored),
                _ => self.removal(key, position),
            })
            .collect();
        let entity = Arc::clone(&self.target.entity);
        let batch = Batch { entity, changes: changes.clone(), copied: true, advance: None };
        let Applied { outcomes, .. } = self.take(batch).await?;
        let mut results = Vec::with_capacity(keys.len());
        for (change, outcome) in changes.iter().zip(outcomes) {
            results.push(match outcome {
                Outcome::Applied | Outcome::Stale => {
                    self.forget_letter(&mut session.letters, &change.key.to_string()).await?;
                    Redelivered::Accepted
                }
                Outcome::Rejected(reason) => {
                    self.set_aside(&mut session.letters, change, &reason).await?;
                    Redelivered::Rejected
                }
                Outcome::Retry(reason) => return Err(reason),
            });
        }
        Ok(results)
    }
}
