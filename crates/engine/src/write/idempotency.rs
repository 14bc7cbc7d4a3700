//! Idempotency on this side of the truth: fingerprints, and keys whose request is still running.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use unisono_core::write::{Action, Write};
use unisono_core::{Error, ErrorKind, Result, json};
use xxhash_rust::xxh3::Xxh3;

/// The longest idempotency key in bytes, principal included.
const KEY_BYTES_MAX: usize = 512;

/// The keys whose request is running in this process. Repetitions after its end are told by the truth's ledger.
#[derive(Default)]
pub(crate) struct InFlight(Mutex<HashSet<Arc<str>>>);

/// Marks a key as running until dropped.
pub(crate) struct Running<'a> {
    keys: &'a InFlight,
    key: Arc<str>,
}

impl InFlight {
    /// Marks a key as running, or says that it is.
    pub(crate) fn enter(&self, key: &Arc<str>) -> Result<Running<'_>> {
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(
                Error::invalid("idempotency key is not 1 to 255 bytes").with("bytes", key.len())
            );
        }
        let fresh = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(Arc::clone(key));
        if !fresh {
            return Err(Error::new(
                ErrorKind::IdempotencyKeyInFlight,
                "a request with this key is still running",
            ));
        }
        Ok(Running { keys: self, key: Arc::clone(key) })
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.keys.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// A hash of what the writes ask for.
pub(crate) fn fingerprint(writes: &[Write]) -> u128 {
    let mut hash = Xxh3::new();
    let mut part = |bytes: &[u8]| {
        hash.update(&(bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    for write in writes {
        part(write.entity.name().as_bytes());
        part(write.key.to_string().as_bytes());
        part(format!("{:?}", write.condition).as_bytes());
        match &write.action {
            Action::Put(record) => part(&json::to_vec(&write.entity, record)),
            Action::Patch(patch) => part(patch.to_string().as_bytes()),
            Action::Delete => part(b"delete"),
            Action::Append(append) => {
                part(format!("append {} {}", append.stream, append.expected).as_bytes());
                part(&json::to_vec(&write.entity, &append.event));
            }
        }
    }
    hash.digest128()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_key_is_refused_until_its_request_ends() {
        let keys = InFlight::default();
        let running = keys.enter(&"k".into()).unwrap();
        assert_eq!(
            keys.enter(&"k".into()).err().unwrap().kind(),
            ErrorKind::IdempotencyKeyInFlight
        );
        drop(running);
        assert!(keys.enter(&"k".into()).is_ok());
    }
}
