//! Records that cannot be brought together now: set aside with their reason, in the own truth before the position passes
//! them, and tried again. Each holds up itself only.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use unisono_core::{Error, ErrorKind, Key, Result, Timestamp};
use unisono_policy::retry;

use super::Sync;

/// Where in the own truth they are kept.
const SPACE: &str = "sync_held";
/// With more, a side waits: rather its clock or its declaration is wrong than so many records.
const HELD_MAX: usize = 10_000;

/// Why a record waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It was written by a clock that is too far ahead: it is taken over when that time has come.
    Clock,
    /// The own truth refuses it, for example because another record has its value of a unique field.
    Refused,
}

/// A record that waits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldRecord {
    /// The entity.
    pub entity: Arc<str>,
    /// The record.
    pub key: String,
    /// Why.
    pub reason: Reason,
    /// The same, for people.
    pub text: String,
    /// Since when.
    pub since: Timestamp,
    /// How often it was tried.
    pub attempts: u32,
}

/// Those of one entity, with the time of the next attempt.
#[derive(Default)]
pub(super) struct HeldRecords(Mutex<BTreeMap<Key, (HeldRecord, Timestamp)>>);

impl HeldRecords {
    fn all(&self) -> MutexGuard<'_, BTreeMap<Key, (HeldRecord, Timestamp)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        self.all().len()
    }

    /// All of them.
    pub(super) fn list(&self) -> Vec<HeldRecord> {
        self.all().values().map(|(held, _)| held.clone()).collect()
    }

    /// Those whose time has come.
    pub(super) fn due(&self, now: Timestamp) -> Vec<Key> {
        let all = self.all();
        all.iter().filter(|(_, (_, due))| *due <= now).map(|(key, _)| key.clone()).collect()
    }
}

impl Sync {
    /// Reads those that are kept.
    pub(super) async fn load_held(&self) -> Result<()> {
        let entity = &self.common.entity;
        for (_, text) in self.own.truth.list_state(SPACE).await? {
            let held: HeldRecord = serde_json::from_str(&text).map_err(|e| {
                Error::new(ErrorKind::Corrupt, "a record that waits cannot be read").caused_by(e)
            })?;
            if held.entity == *entity.name() {
                let key = Key::parse(entity, &held.key)?;
                self.told.held.all().insert(key, (held, Timestamp::EPOCH));
            }
        }
        Ok(())
    }

    /// Sets a record aside.
    pub(super) async fn hold(&self, key: &Key, reason: Reason, text: String) -> Result<()> {
        let now = self.runtime.now();
        let before = self.told.held.all().get(key).map(|(held, _)| held.clone());
        if before.is_none() && self.told.held.len() >= HELD_MAX {
            return Err(Error::new(ErrorKind::Overloaded, "too many records wait")
                .of(self.common.entity.name())
                .with("limit", HELD_MAX)
                .with("last", text));
        }
        let attempts = before.as_ref().map_or(1, |held| held.attempts.saturating_add(1));
        let since = before.as_ref().map_or(now, |held| held.since);
        let entity = Arc::clone(self.common.entity.name());
        let held = HeldRecord { entity, key: key.to_string(), reason, text, since, attempts };
        let is_new = before.is_none_or(|before| before.reason != reason);
        if is_new {
            let (entity, text) = (&held.entity, &held.text);
            tracing::warn!(%entity, %key, reason = text, "a record of the other side waits");
            let json = serde_json::to_string(&held)
                .map_err(|e| Error::internal("a record cannot be written as JSON").caused_by(e))?;
            self.own.truth.put_state(SPACE, &self.state_name(key), Some(json)).await?;
        }
        let due = now.plus(retry::backoff(attempts, 1.0));
        self.told.held.all().insert(key.clone(), (held, due));
        Ok(())
    }

    /// Forgets that a record waited.
    pub(super) async fn release(&self, key: &Key) -> Result<()> {
        if !self.told.held.all().contains_key(key) {
            return Ok(());
        }
        self.own.truth.put_state(SPACE, &self.state_name(key), None).await?;
        self.told.held.all().remove(key);
        Ok(())
    }

    fn state_name(&self, key: &Key) -> String {
        let entity = self.common.entity.name();
        let hash = xxhash_rust::xxh3::xxh3_128(key.to_string().as_bytes());
        format!("{entity}/{hash:032x}")
    }
}
