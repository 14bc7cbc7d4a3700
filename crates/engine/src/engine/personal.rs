//! [`Engine`]: what is personal, on its way in and out, and its end.

use std::sync::Arc;

use serde_json::json;
use unisono_core::query::Page;
use unisono_core::write::Write;
use unisono_core::{Change, Context, Effect, Entity, Error, Record, Result, Stored};

use crate::answer::Written;
use crate::engine::Engine;
use crate::personal::{Erased, Keyring};

/// What the audit trail calls an erasure.
const ERASED: &str = "erase";

impl Engine {
    /// Erases a person: destroys the keys to everything personal that is about a subject, for good and everywhere at
    /// once, and delivers that to `clear` followers.
    ///
    /// From then on readers get null; other processes follow within `personal.remembered`. Repeating it is harmless.
    /// Fails with `unsupported` if nothing is declared personal; with `unavailable` while the keys cannot be reached, and
    /// then it is to be repeated.
    pub async fn erase_subject(&self, context: &Context, subject: &str) -> Result<Erased> {
        let keyring = self.0.running.personal.as_ref().ok_or_else(|| {
            Error::unsupported("nothing is declared personal")
                .on("erase")
                .hint("declare `personal` of entities, and [personal] with the source of the keys")
        })?;
        if subject.is_empty() {
            return Err(Error::invalid("the subject is empty")
                .on("erase")
                .with("field", "subject"));
        }
        let policies = self.0.present.load_full();
        let erasing = async {
            let erased = keyring.erase(subject, &policies).await?;
            self.audit_erasure(&erased);
            let left = keyring.deliver_erasure(subject, &policies, &self.0.running.erasing).await;
            Ok(Erased { pending: left?, ..erased })
        };
        self.0.runtime.within(context.timeout, erasing).await.map_err(|e| e.on("erase"))
    }

    /// In every log that may hold what was erased, without saying of whom it was.
    fn audit_erasure(&self, erased: &Erased) {
        let details = json!({ "subject": erased.subject, "keys": erased.keys });
        let mut logs: Vec<&Arc<str>> = Vec::new();
        for serving in self.servings().values() {
            let log = &serving.log.name.truth;
            if serving.entity.personal().is_some() && !logs.contains(&log) {
                logs.push(log);
                self.audit(ERASED, (Some(serving.entity.name()), None), details.clone());
            }
        }
    }

    /// The keys to what is personal of an entity; `None` if nothing is.
    fn keyring(&self, entity: &Entity) -> Option<&Keyring> {
        entity.personal()?;
        self.0.running.personal.as_deref()
    }

    /// Seals what is personal in writes.
    pub(super) async fn sealed(&self, mut writes: Vec<Write>) -> Result<Vec<Write>> {
        for write in &mut writes {
            self.seal(write).await?;
        }
        Ok(writes)
    }

    /// Seals what is personal in a write.
    pub(super) async fn seal(&self, write: &mut Write) -> Result<()> {
        match self.keyring(&write.entity) {
            None => Ok(()),
            Some(keyring) => keyring.seal(write).await.map_err(|e| e.of(write.entity.name())),
        }
    }

    /// The fingerprint of a request that has something personal, as it is kept.
    pub(super) fn blinded(&self, fingerprint: u128, writes: &[Write]) -> u128 {
        let keyring = writes.iter().find_map(|write| self.keyring(&write.entity));
        keyring.map_or(fingerprint, |keyring| keyring.blinded(fingerprint))
    }

    /// Opens records for a reader.
    pub(super) async fn opened<'s>(
        &self,
        entity: &Entity,
        stored: impl Iterator<Item = &'s mut Stored>,
    ) -> Result<()> {
        match self.keyring(entity) {
            None => Ok(()),
            Some(keyring) => keyring.open_stored(entity, stored, false).await,
        }
    }

    /// Opens one record for a reader.
    pub(super) async fn opened_one(
        &self,
        entity: &Entity,
        stored: &mut Option<Arc<Stored>>,
    ) -> Result<()> {
        let (Some(keyring), Some(shared)) = (self.keyring(entity), stored) else { return Ok(()) };
        let mut record: Arc<Record> = Arc::clone(&shared.record);
        keyring.open_records(entity, vec![&mut record], false).await?;
        if !Arc::ptr_eq(&record, &shared.record) {
            *shared = Arc::new(Stored::new(shared.key.clone(), shared.version, record));
        }
        Ok(())
    }

    /// Opens a page for a reader.
    pub(super) async fn opened_page(&self, entity: &Entity, page: &mut Page) -> Result<()> {
        self.opened(entity, page.hits.iter_mut().map(|hit| &mut hit.stored)).await
    }

    /// Opens changes for a reader.
    pub(super) async fn opened_changes(&self, changes: &mut [Arc<Change>]) -> Result<()> {
        let Some(keyring) = &self.0.running.personal else { return Ok(()) };
        let mut names: Vec<Arc<str>> = changes.iter().map(|c| Arc::clone(&c.entity)).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let Some(entity) = self.entity_of_log(&name) else { continue };
            let mine = changes.iter_mut().filter(|change| change.entity == name);
            keyring.open_changes(entity, mine, false).await?;
        }
        Ok(())
    }

    /// Opens what was written for its writer.
    pub(super) async fn opened_written(&self, written: Written) -> Result<Written> {
        let mut written = written;
        // It took place, whatever becomes of the answer.
        let opened = self.opened_changes(&mut written.changes).await;
        opened.map(|()| written).map_err(|e| e.effect(Effect::Committed))
    }
}
