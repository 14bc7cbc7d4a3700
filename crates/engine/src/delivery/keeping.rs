//! What a follower is to keep: which records, by its `where`, and what of them, by its `map`.

use std::borrow::Cow;
use std::sync::Arc;

use unisono_core::{Change, Operation, Result, Stored};

use crate::delivery::Delivery;

impl Delivery {
    /// Whether the follower is to hold a record, given as the truth has it.
    pub(crate) fn wants(&self, stored: &Stored) -> bool {
        self.target
            .filter
            .as_ref()
            .is_none_or(|rule| rule.holds(&self.target.entity, &stored.record))
    }

    /// What the follower is to hold of a record of the truth, if it is to hold it. Fails where its `map` does: then the
    /// record is a dead letter.
    pub(crate) fn kept<'s>(&self, stored: &'s Stored) -> Result<Option<Cow<'s, Stored>>> {
        let Some(mapping) = &self.target.map else {
            return Ok(self.wants(stored).then_some(Cow::Borrowed(stored)));
        };
        if !self.wants(stored) {
            return Ok(None);
        }
        let record = mapping.apply(&self.target.entity, &stored.record)?;
        Ok(Some(Cow::Owned(Stored::new(stored.key.clone(), stored.version, Arc::new(record)))))
    }

    /// What a change means for this follower. A record that `where` excludes is removed, unless it was never there.
    pub(super) fn narrowed(&self, change: &Arc<Change>) -> Option<Arc<Change>> {
        let (Some(rule), Some(image)) = (&self.target.filter, &change.image) else {
            return Some(Arc::clone(change));
        };
        if rule.holds(&self.target.entity, image) {
            return Some(Arc::clone(change));
        }
        // An outlet was not sent what it would have to forget.
        change.replaced.filter(|_| !self.target.outlet)?;
        Some(Arc::new(Change {
            operation: Operation::Delete,
            image: None,
            ..Change::clone(change)
        }))
    }

    /// A change with what the follower is to keep of its record.
    pub(super) fn mapped(&self, change: &Arc<Change>) -> Result<Arc<Change>> {
        let (Some(mapping), Some(image)) = (&self.target.map, &change.image) else {
            return Ok(Arc::clone(change));
        };
        let image = Some(Arc::new(mapping.apply(&self.target.entity, image)?));
        Ok(Arc::new(Change { image, ..Change::clone(change) }))
    }
}
