//! [`Watched`]: a value whose changes can be waited for, in the order in which the waiting began.
//!
//! `tokio::sync::watch` wakes its waiters in a random order, so that a run could not be repeated from its seed.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// A value whose changes can be waited for.
#[derive(Default)]
pub(crate) struct Watched<T> {
    value: Mutex<T>,
    changed: Notify,
}

impl<T> Watched<T> {
    pub(crate) fn new(value: T) -> Self {
        Watched { value: Mutex::new(value), changed: Notify::new() }
    }

    /// The value, for a moment.
    pub(crate) fn get(&self) -> MutexGuard<'_, T> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the value; wakes everyone who waits if `change` answers that it did.
    pub(crate) fn change(&self, change: impl FnOnce(&mut T) -> bool) {
        let changed = change(&mut self.get());
        if changed {
            self.changed.notify_waiters();
        }
    }

    /// Waits until the value satisfies a condition.
    pub(crate) async fn until(&self, mut condition: impl FnMut(&T) -> bool) {
        loop {
            // Takes part in every wake from here on, so a change after the look is not missed.
            let changed = self.changed.notified();
            if condition(&self.get()) {
                return;
            }
            changed.await;
        }
    }
}
