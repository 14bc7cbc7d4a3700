//! The dead letters of one delivery: kept in the truth, known in memory.

use std::collections::BTreeMap;

use unisono_core::{Change, Error, ErrorKind, Result};

use crate::delivery::Delivery;
use crate::delivery::dead_letter::{DeadLetter, SPACE, state_name};
use crate::notice::Notice;

/// The dead letters that wait, by the text of their key.
pub(super) type Letters = BTreeMap<String, DeadLetter>;

/// All dead letters of a truth.
pub(crate) async fn all(truth: &dyn unisono_core::source::Truth) -> Result<Vec<DeadLetter>> {
    let decode = |(name, json): (String, String)| {
        serde_json::from_str(&json).map_err(|e| {
            Error::new(ErrorKind::Corrupt, "a dead letter cannot be decoded")
                .with("name", name)
                .caused_by(e)
        })
    };
    truth.list_state(SPACE).await?.into_iter().map(decode).collect()
}

impl Delivery {
    pub(super) async fn load_letters(&self) -> Result<Letters> {
        let mine =
            |l: &DeadLetter| l.entity == *self.target.name() && l.source == self.target.source;
        let letters = all(self.log.truth.as_ref()).await?.into_iter().filter(mine);
        let letters: Letters = letters.map(|l| (l.key.clone(), l)).collect();
        self.tell_letters(&letters);
        Ok(letters)
    }

    /// Keeps a refused change as a dead letter, durably, before anything moves past it.
    pub(super) async fn set_aside(
        &self,
        letters: &mut Letters,
        change: &Change,
        reason: &Error,
    ) -> Result<()> {
        let key = change.key.to_string();
        let earlier = letters.get(&key);
        let is_told = earlier.is_some_and(|earlier| earlier.version == change.position);
        let letter = DeadLetter {
            entity: self.target.name().clone(),
            source: self.target.source.clone(),
            version: change.position,
            reason: reason.to_string(),
            attempts: earlier.map_or(0, |l| l.attempts) + 1,
            since: earlier.map_or_else(|| self.runtime.now(), |l| l.since),
            write: None,
            key: key.clone(),
        };
        let json = serde_json::to_string(&letter)
            .map_err(|e| Error::internal("a dead letter cannot be encoded").caused_by(e))?;
        self.log.truth.put_state(SPACE, &letter.name(), Some(json)).await?;
        tracing::warn!(key, source = %self.target.source, reason = %letter.reason, "a change became a dead letter");
        if !is_told {
            self.log.notices.tell(|| Notice::of_dead_letter(&letter));
        }
        letters.insert(key, letter);
        self.tell_letters(letters);
        Ok(())
    }

    /// Forgets the dead letter of a key, if it has one.
    pub(super) async fn forget_letter(&self, letters: &mut Letters, key: &str) -> Result<()> {
        if letters.contains_key(key) {
            let name = state_name(self.target.name(), &self.target.source, key);
            self.log.truth.put_state(SPACE, &name, None).await?;
            letters.remove(key);
            self.tell_letters(letters);
        }
        Ok(())
    }

    fn tell_letters(&self, letters: &Letters) {
        self.progress.refuses(letters.values());
    }
}
