//! What a record will be when the writes that wait for it are flushed, as far as can be told now.

use std::sync::Arc;

use unisono_core::write::{Action, resolve};
use unisono_core::{Stored, Version};
use unisono_policy::write::is_conditional;

use crate::write::behind::entry::Pending;

/// The version of a record that no truth has yet: none that was ever given.
pub(crate) const PENDING: Version = Version::ZERO;

/// The state that waiting writes lead to whatever there was before, with the place of the first of them that counts.
/// `None` if that depends on the record.
pub(crate) fn regardless(pending: &[Arc<Pending>]) -> Option<Option<Arc<Stored>>> {
    let last_put = pending.iter().rposition(|p| !is_conditional(&p.write))?;
    Some(over(None, &pending[last_put..]))
}

/// The state that waiting writes lead to from a record. A write that the truth would refuse changes nothing.
pub(crate) fn over(base: Option<Arc<Stored>>, pending: &[Arc<Pending>]) -> Option<Arc<Stored>> {
    pending.iter().fold(base, |current, pending| {
        let write = &pending.write;
        match (resolve(write, current.as_deref()), &write.action) {
            (Err(_), _) => current,
            (Ok(resolved), Action::Put(_) | Action::Patch(_)) => {
                resolved.image.map(|image| Arc::new(Stored::new(write.key.clone(), PENDING, image)))
            }
            (Ok(_), Action::Delete | Action::Append(_)) => None,
        }
    })
}
