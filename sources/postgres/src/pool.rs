//! [`Pool`]: connections to one server, each lent to one caller.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Failed, closed};
use crate::session::Session;

/// Idle sessions of one server, and a bound on all of them.
pub(crate) struct Pool {
    room: Arc<Semaphore>,
    idle: Mutex<Vec<Arc<Session>>>,
}

/// The right to one connection of a pool.
pub(crate) type Room = OwnedSemaphorePermit;

impl Pool {
    pub(crate) fn new(size: usize) -> Self {
        Pool { room: Arc::new(Semaphore::new(size)), idle: Mutex::default() }
    }

    /// Waits until there may be one more connection.
    pub(crate) async fn room(&self) -> Result<Room, Failed> {
        Arc::clone(&self.room).acquire_owned().await.map_err(|_| closed().into())
    }

    /// The same, if there may be one more at once.
    pub(crate) fn room_now(&self) -> Option<Room> {
        Arc::clone(&self.room).try_acquire_owned().ok()
    }

    /// An idle session of this generation.
    pub(crate) fn take(&self, generation: u64) -> Option<Arc<Session>> {
        let mut idle = self.idle();
        while let Some(session) = idle.pop() {
            if !session.is_closed() && session.generation == generation {
                return Some(session);
            }
        }
        None
    }

    /// Lends a session.
    pub(crate) fn lend(&self, session: Arc<Session>, room: Room) -> Lease<'_> {
        Lease { session, pool: self, room }
    }

    /// Lets go of what is idle.
    pub(crate) fn clear(&self) {
        self.idle().clear();
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Arc<Session>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session that goes back to its pool only when it is said that it is of further use.
pub(crate) struct Lease<'a> {
    session: Arc<Session>,
    pool: &'a Pool,
    room: Room,
}

impl Lease<'_> {
    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Gives the session back.
    pub(crate) fn keep(self) {
        self.pool.idle().push(self.session);
    }

    /// Takes the session out of the pool, whose bound it still counts for while the room is held.
    pub(crate) fn into_parts(self) -> (Arc<Session>, Room) {
        (self.session, self.room)
    }
}
