//! [`Lanes`]: connections that short statements share.
//!
//! Each statement is sent on without waiting for the answer to the one before (pipelining of the extended protocol,
//! <https://www.postgresql.org/docs/15/libpq-pipeline-mode.html>). A connection that is lent to one caller wakes the server and
//! this process for each statement; one that is shared is asked and answered for all that came meanwhile.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use unisono_core::Timestamp;
use unisono_core::clock::Clock;

use crate::error::{Class, Failed};
use crate::pool::{Lease, Room};
use crate::session::Session;

/// One connection in so many of a pool is shared, at most so many in all: more of them are busy less often, and so
/// wake for fewer statements at once.
const SHARE: usize = 4;
const LANES_MAX: usize = 4;

/// Who gives up after less than this has lost patience; after more, the connection is no longer trusted.
const SUSPECT: Duration = Duration::from_secs(1);

/// The shared connections to one server; none if its pool is small.
pub(crate) struct Lanes {
    lanes: Vec<Lane>,
    next: AtomicUsize,
}

impl Lanes {
    /// Lanes that take their connections from a pool of this size.
    pub(crate) fn new(pool: usize) -> Self {
        let count = (pool / SHARE).min(LANES_MAX);
        Lanes { lanes: (0..count).map(|_| Lane::default()).collect(), next: AtomicUsize::new(0) }
    }

    /// The lane whose turn it is.
    pub(crate) fn next(&self) -> Option<&Lane> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        self.lanes.get(turn.checked_rem(self.lanes.len())?)
    }

    /// Lets go of the connections; what is under way is still answered.
    pub(crate) fn clear(&self) {
        for lane in &self.lanes {
            *lane.shared() = None;
        }
    }
}

/// One shared connection, once there is one.
#[derive(Default)]
pub(crate) struct Lane {
    shared: Mutex<Option<Shared>>,
}

struct Shared {
    session: Arc<Session>,
    _room: Room,
}

impl Lane {
    /// The use of its connection, if it has one that is `current`.
    pub(crate) fn ride<'a>(
        &'a self,
        clock: &'a dyn Clock,
        current: impl Fn(&Session) -> bool,
    ) -> Option<Ride<'a>> {
        let mut shared = self.shared();
        if shared.as_ref().is_some_and(|shared| !current(&shared.session)) {
            *shared = None;
        }
        let session = Arc::clone(&shared.as_ref()?.session);
        Some(Ride { lane: self, session, clock, since: clock.now(), ended: false })
    }

    /// Has the connection shared from now on, or given back if there is one already.
    pub(crate) fn keep(&self, lease: Lease<'_>) {
        let mut shared = self.shared();
        if shared.is_some() {
            return lease.keep();
        }
        let (session, room) = lease.into_parts();
        *shared = Some(Shared { session, _room: room });
    }

    /// Gives up a connection, unless it was replaced already. Who uses it still gets its answers.
    fn forget(&self, session: &Arc<Session>) {
        let mut shared = self.shared();
        if shared.as_ref().is_some_and(|shared| Arc::ptr_eq(&shared.session, session)) {
            *shared = None;
        }
    }

    fn shared(&self) -> MutexGuard<'_, Option<Shared>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One use of a shared connection. Dropped without an end, its caller has given up waiting.
pub(crate) struct Ride<'a> {
    lane: &'a Lane,
    session: Arc<Session>,
    clock: &'a dyn Clock,
    since: Timestamp,
    ended: bool,
}

impl Ride<'_> {
    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Takes note of what came of it.
    pub(crate) fn end<T>(mut self, done: Result<T, Failed>) -> Result<T, Failed> {
        self.ended = true;
        done.map_err(|failed| {
            // A statement that fails by itself says nothing about the connection.
            if matches!(failed.class, Class::Lost | Class::Standby | Class::Unprepared) {
                self.lane.forget(&self.session);
            }
            failed.with_server(&self.session.address)
        })
    }
}

impl Drop for Ride<'_> {
    fn drop(&mut self) {
        let waited = self.clock.now().seconds_since(self.since);
        if !self.ended && waited >= SUSPECT.as_secs_f64() {
            self.lane.forget(&self.session);
        }
    }
}
