//! Opening: what was sealed is shown to readers, as null where its key is gone.

use std::collections::BTreeSet;
use std::sync::Arc;

use unisono_core::query::Page;
use unisono_core::{Change, Entity, Record, Result, Stored};

use super::Keyring;
use super::cipher::Sealed;
use super::keyring::KeyOf;
use super::sealing::place;

impl Keyring {
    /// Opens records of an entity. `anew` if no remembered key may be used: for what is kept as it is shown.
    ///
    /// Fails with `unavailable` if the keys cannot be read: it cannot be told then what is erased.
    pub(crate) async fn open_records(
        &self,
        entity: &Entity,
        records: Vec<&mut Arc<Record>>,
        anew: bool,
    ) -> Result<()> {
        let Some(personal) = entity.personal() else { return Ok(()) };
        let mut wanted: BTreeSet<KeyOf> = BTreeSet::new();
        let mut sealed = Vec::new();
        for record in records {
            let mut copy = Record::clone(record);
            let mut has_any = false;
            personal.visit(entity, &mut copy, |_, slot| {
                // What was written before the field was declared personal is shown as it is.
                if let Some(text) = slot.sealed() {
                    let parsed = Sealed::parse(text)?;
                    wanted.insert((parsed.name, parsed.id));
                    has_any = true;
                }
                Ok(())
            })?;
            if has_any {
                sealed.push((record, copy));
            }
        }
        if sealed.is_empty() {
            return Ok(());
        }
        let keys = self.keys(&wanted, anew).await?;
        for (record, mut copy) in sealed {
            personal.visit(entity, &mut copy, |n, slot| {
                let Some(text) = slot.sealed() else { return Ok(()) };
                let parsed = Sealed::parse(text)?;
                let key = keys.get(&(parsed.name, parsed.id)).and_then(Option::as_ref);
                let clear = key.map(|key| key.open(&place(entity, personal, n), &parsed));
                slot.open(clear.transpose()?)
            })?;
            *record = Arc::new(copy);
        }
        Ok(())
    }

    /// The same of what sources hold.
    pub(crate) async fn open_stored<'s>(
        &self,
        entity: &Entity,
        stored: impl Iterator<Item = &'s mut Stored>,
        anew: bool,
    ) -> Result<()> {
        if entity.personal().is_none() {
            return Ok(());
        }
        let mut stored: Vec<&mut Stored> = stored.collect();
        let mut records: Vec<Arc<Record>> = stored.iter().map(|s| Arc::clone(&s.record)).collect();
        self.open_records(entity, records.iter_mut().collect(), anew).await?;
        for (stored, record) in stored.iter_mut().zip(records) {
            // What is kept of its JSON is that of the sealed record.
            if !Arc::ptr_eq(&stored.record, &record) {
                **stored = Stored::new(stored.key.clone(), stored.version, record);
            }
        }
        Ok(())
    }

    /// The same of a page.
    pub(crate) async fn open_page(
        &self,
        entity: &Entity,
        page: &mut Page,
        anew: bool,
    ) -> Result<()> {
        self.open_stored(entity, page.hits.iter_mut().map(|hit| &mut hit.stored), anew).await
    }

    /// The same of changes, all of one entity.
    pub(crate) async fn open_changes<'c>(
        &self,
        entity: &Entity,
        changes: impl Iterator<Item = &'c mut Arc<Change>>,
        anew: bool,
    ) -> Result<()> {
        if entity.personal().is_none() {
            return Ok(());
        }
        let mut changes: Vec<_> = changes.filter(|change| change.image.is_some()).collect();
        let mut images: Vec<Arc<Record>> = changes.iter().filter_map(|c| c.image.clone()).collect();
        self.open_records(entity, images.iter_mut().collect(), anew).await?;
        for (change, image) in changes.iter_mut().zip(images) {
            if change.image.as_ref().is_some_and(|sealed| !Arc::ptr_eq(sealed, &image)) {
                **change = Arc::new(Change { image: Some(image), ..Change::clone(change) });
            }
        }
        Ok(())
    }
}
