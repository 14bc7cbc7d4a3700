//! [`Locks`]: one look or write at a time for each workflow, so that what was seen later is recorded later.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard};
use unisono_core::Key;

const STRIPES: usize = 1024;

/// A fixed number of locks, of which each key has one.
pub(crate) struct Locks(Vec<Arc<Mutex<()>>>);

/// Locks that are held until this is dropped.
pub(crate) struct Held(#[expect(dead_code, reason = "held, not read")] Vec<OwnedMutexGuard<()>>);

impl Locks {
    pub(crate) fn new() -> Self {
        Locks((0..STRIPES).map(|_| Arc::default()).collect())
    }

    /// Waits for the locks of all the keys. They are taken in one order by everybody, so nobody waits in a circle;
    /// whoever holds some must not ask for more.
    pub(crate) async fn hold(&self, keys: &[Key]) -> Held {
        let stripe = |key: &Key| (key.stable_hash() % STRIPES as u64) as usize;
        let stripes: BTreeSet<usize> = keys.iter().map(stripe).collect();
        let mut held = Vec::with_capacity(stripes.len());
        for lock in stripes.into_iter().filter_map(|n| self.0.get(n)) {
            held.push(Arc::clone(lock).lock_owned().await);
        }
        Held(held)
    }
}
