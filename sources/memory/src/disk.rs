//! [`MemoryDisk`]: the data of a source, apart from the source, so that a test can crash, copy, restore and lose it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use unisono_core::Uuid;

use crate::store::State;

/// The data of a `memory` source: records, log, checkpoints, outcomes and state. Caches are not part of it.
#[derive(Debug)]
pub struct MemoryDisk {
    state: Mutex<State>,
}

impl MemoryDisk {
    /// An empty disk, whose log has an identity that no other has.
    pub fn new() -> Self {
        MemoryDisk::with_log(Uuid::now_v7())
    }

    /// An empty disk, whose log has the given identity.
    pub fn with_log(log: Uuid) -> Self {
        MemoryDisk { state: Mutex::new(State::new(log)) }
    }

    /// A copy of everything as it is now: a backup.
    pub fn copy(&self) -> Self {
        MemoryDisk { state: Mutex::new(self.lock().clone()) }
    }

    /// Goes back to what a copy holds, also under an open source.
    pub fn restore(&self, copy: &MemoryDisk) {
        let state = copy.lock().clone();
        *self.lock() = state;
    }

    /// Loses everything, also under an open source. A log that is begun anew is another log.
    pub fn wipe(&self) {
        let mut state = self.lock();
        let log = state.log.id.as_u128().wrapping_add(1);
        *state = State::new(Uuid::from_u128(log));
    }

    /// The state, for one synchronous step. Every step leaves it whole, so a panic elsewhere does no harm to it.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryDisk {
    fn default() -> Self {
        MemoryDisk::new()
    }
}
