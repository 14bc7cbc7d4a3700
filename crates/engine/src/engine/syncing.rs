//! [`Engine`]: what was given up where two truths follow each other.

use unisono_core::{Error, ErrorKind, Key, Result};

use crate::engine::Engine;
use crate::sync::{Conflict, Syncing};

impl Engine {
    /// Conflicts that this side resolved, the newest first, at most `limit` (1 to 1000) of each entity: of one entity, of one
    /// record of it, or of all.
    ///
    /// Fails with `not_found` for an entity whose truth follows no other.
    pub async fn conflicts(
        &self,
        entity: Option<&str>,
        key: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Conflict>> {
        let wanted =
            |sync: &&std::sync::Arc<Syncing>| entity.is_none_or(|name| **sync.entity() == *name);
        let syncs: Vec<_> = self.0.running.syncs.iter().filter(wanted).collect();
        if let (Some(name), true) = (entity, syncs.is_empty()) {
            self.entity(name)?;
            let message = "the truth of the entity follows no other";
            return Err(Error::new(ErrorKind::NotFound, message).of(name));
        }
        let mut all = Vec::new();
        for sync in syncs {
            let key = match key {
                Some(text) => Some(Key::parse(self.entity(sync.entity())?, text)?),
                None => None,
            };
            all.extend(sync.conflicts(key.as_ref(), limit).await?);
        }
        Ok(all)
    }
}
