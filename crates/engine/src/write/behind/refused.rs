//! What the truth refuses of acknowledged writes: dead letters that name the writer, kept in the truth.

use std::collections::BTreeSet;
use std::sync::Arc;

use unisono_core::write::Idempotency;
use unisono_core::{Error, ErrorKind, Result, Uuid, Version};

use crate::delivery::all_letters;
use crate::delivery::dead_letter::{DeadLetter, RefusedWrite, SPACE};
use crate::notice::Notice;
use crate::write::behind::Behind;
use crate::write::behind::entry::AcceptedWrite;

impl Behind {
    /// The writes that have a dead letter: the process ended before they left the journal.
    pub(super) async fn refused_before(&self) -> Result<BTreeSet<Uuid>> {
        let letters = all_letters(self.log.truth.as_ref()).await?;
        Ok(letters.into_iter().filter_map(|letter| Some(letter.write?.accepted.id)).collect())
    }

    /// Keeps a refused write as a dead letter, durably, before it leaves the journal.
    pub(super) async fn set_aside(
        &self,
        sequence: u64,
        accepted: &AcceptedWrite,
        reason: &Error,
    ) -> Result<()> {
        let letter = DeadLetter {
            entity: Arc::clone(self.entity.name()),
            source: Arc::clone(&self.source),
            key: accepted.key.clone(),
            version: Version::ZERO,
            reason: format!("{reason}; written by {}", accepted.writer()),
            attempts: 1,
            since: self.runtime.now(),
            write: Some(Box::new(RefusedWrite { sequence, accepted: accepted.clone() })),
        };
        let json = serde_json::to_string(&letter)
            .map_err(|e| Error::internal("a dead letter cannot be encoded").caused_by(e))?;
        self.log.truth.put_state(SPACE, &letter.name(), Some(json)).await?;
        tracing::warn!(key = letter.key, journal = %letter.source, reason = %letter.reason,
            "an acknowledged write became a dead letter");
        self.log.notices.tell(|| Notice::of_dead_letter(&letter));
        Ok(())
    }

    /// Has a refused write be kept and flushed again, once, and forgets its dead letter.
    pub(crate) async fn replay(&self, letter: &DeadLetter, write: &RefusedWrite) -> Result<()> {
        let earlier = &write.accepted;
        let again = AcceptedWrite {
            id: self.runtime.uuid(),
            accepted: self.runtime.now(),
            // The truth may know the caller's key, of a request that took place elsewhere.
            idempotency_key: None,
            fingerprint: None,
            ..earlier.clone()
        };
        let key = format!("replay/{}", earlier.id).into();
        let idempotency = Idempotency { key, fingerprint: earlier.id.as_u128() };
        let write = again.write(&self.entity)?;
        let hold = Default::default();
        self.keep(again, write, Some(idempotency), hold).await?.receipt().await?;
        self.discard(letter).await
    }

    /// Forgets a dead letter, and the write with it.
    pub(crate) async fn discard(&self, letter: &DeadLetter) -> Result<()> {
        let letters = all_letters(self.log.truth.as_ref()).await?;
        let name = letter.name();
        if !letters.iter().any(|known| known.name() == name) {
            return Err(Error::new(ErrorKind::NotFound, "there is no such dead letter")
                .of(&letter.entity)
                .at(&letter.source));
        }
        self.log.truth.put_state(SPACE, &name, None).await
    }
}
