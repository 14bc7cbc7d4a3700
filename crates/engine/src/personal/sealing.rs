//! Sealing: what is personal in a write is encrypted before anybody else sees it.

use std::sync::Arc;

use serde_json::Value as Json;
use unisono_core::personal::{Personal, Slot};
use unisono_core::write::{self, Action, Write};
use unisono_core::{Entity, Error, Record, Result, Value};

use super::Keyring;

impl Keyring {
    /// Seals what is personal in a write. Its rules are checked first, since the truth cannot check what it does not see.
    ///
    /// `invalid_input` if it says not whom it is about.
    pub(crate) async fn seal(&self, write: &mut Write) -> Result<()> {
        let entity = Arc::clone(&write.entity);
        let Some(personal) = entity.personal() else { return Ok(()) };
        write::check(write)?;
        match &mut write.action {
            Action::Put(record) => self.seal_record(&entity, personal, record).await,
            Action::Append(append) => {
                // The stream may be whom it is about; the truth fills it in only later.
                if let Some(of) = entity.index_of("stream") {
                    append.event.values_mut()[of] = Value::String(append.stream.to_string());
                }
                self.seal_record(&entity, personal, &mut append.event).await
            }
            Action::Patch(patch) => {
                let mut about = Record::new(vec![Value::Null; entity.fields().len()]);
                about.values_mut()[entity.key_index()] = write.key.to_value();
                self.seal_patch(&entity, personal, patch, about).await
            }
            Action::Delete => Ok(()),
        }
    }

    async fn seal_record(
        &self,
        entity: &Entity,
        personal: &Personal,
        record: &mut Record,
    ) -> Result<()> {
        personal.check(entity, record)?;
        let mut has_any = false;
        personal.visit(entity, record, |_, _| {
            has_any = true;
            Ok(())
        })?;
        if !has_any {
            return Ok(());
        }
        let subject = personal.subject_of(record).ok_or_else(|| nobody(entity, personal))?;
        let sealer = self.sealer(entity, personal, &subject).await?;
        personal.visit(entity, record, sealer)
    }

    /// Where the key of the record does not say whom it is about, a patch has to: it names the subject and everything
    /// personal, or nothing of either, so that no value is left under the key of somebody else.
    async fn seal_patch(
        &self,
        entity: &Entity,
        personal: &Personal,
        patch: &mut Json,
        mut about: Record,
    ) -> Result<()> {
        personal.check_patch(entity, patch)?;
        let is_named = |path| Personal::is_named(entity, patch, path);
        let named = personal.fields.iter().filter(|path| is_named(path)).count();
        let by_key = personal.subject.field == entity.key_index();
        if named == 0 && (by_key || !is_named(&personal.subject)) {
            return Ok(());
        }
        if !by_key {
            if named < personal.fields.len() || !is_named(&personal.subject) {
                return Err(Error::invalid(
                    "a patch of personal fields names all of them, and whom they are about",
                )
                .of(entity.name())
                .with("field", personal.subject.to_text(entity))
                .hint("put the whole record instead"));
            }
            let field = &entity.fields()[personal.subject.field];
            let json = patch.get(&*field.name).unwrap_or(&Json::Null);
            about.values_mut()[personal.subject.field] =
                unisono_core::json::parse_value(&field.ty, json)
                    .map_err(|e| e.of(entity.name()).with("field", &field.name))?;
        }
        let subject = personal.subject_of(&about).ok_or_else(|| nobody(entity, personal))?;
        let sealer = self.sealer(entity, personal, &subject).await?;
        personal.visit_patch(entity, patch, sealer)
    }

    /// What seals each value of a subject.
    async fn sealer<'a>(
        &self,
        entity: &'a Entity,
        personal: &'a Personal,
        subject: &str,
    ) -> Result<impl FnMut(usize, Slot<'_>) -> Result<()> + use<'a>> {
        let name = self.name(subject);
        let key = self.current(&name).await?;
        Ok(move |n: usize, slot: Slot<'_>| {
            let sealed = key.seal(&name, &place(entity, personal, n), &slot.clear())?;
            slot.seal(&sealed);
            Ok(())
        })
    }
}

/// What a sealed value is bound to.
pub(super) fn place(entity: &Entity, personal: &Personal, n: usize) -> String {
    let path = personal.fields.get(n).map(|path| path.to_text(entity)).unwrap_or_default();
    format!("{}.{path}", entity.name())
}

fn nobody(entity: &Entity, personal: &Personal) -> Error {
    Error::invalid("it is personal, and says not whom it is about")
        .of(entity.name())
        .with("field", personal.subject.to_text(entity))
        .hint("give this field, or leave out what is personal")
}
