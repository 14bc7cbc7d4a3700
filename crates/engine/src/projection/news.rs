//! [`News`]: what becomes of the rows of one store, told to whoever watches them in this process.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;
use unisono_core::{Change, Position};

/// Batches that may wait for a slow listener; one that lags further behind reads the rows anew.
const BATCHES_MAX: usize = 256;

/// Tells of the rows of one store.
pub(crate) struct News {
    sender: broadcast::Sender<Told>,
    /// The checkpoint that was told last.
    at: Mutex<Option<Position>>,
}

/// One piece of news.
#[derive(Clone)]
pub(crate) enum Told {
    /// A batch took the rows from one position to another: these are what they are since, each in its version.
    Batch { from: Position, to: Position, rows: Arc<[Arc<Change>]> },
    /// Others have changed rows, or all were made anew.
    Unknown,
}

impl Default for News {
    fn default() -> Self {
        News { sender: broadcast::Sender::new(BATCHES_MAX), at: Mutex::default() }
    }
}

impl News {
    /// What is told from now on.
    pub(crate) fn listen(&self) -> broadcast::Receiver<Told> {
        self.sender.subscribe()
    }

    /// The rows went from one position to another.
    pub(super) fn batch(&self, from: Position, to: Position, rows: Vec<Arc<Change>>) {
        if self.held().replace(to) != Some(from) {
            self.tell(Told::Unknown);
        }
        self.tell(Told::Batch { from, to, rows: rows.into() });
    }

    /// The rows were found to be as of a position.
    pub(super) fn found(&self, position: Position) {
        if self.held().replace(position) != Some(position) {
            self.tell(Told::Unknown);
        }
    }

    /// All rows were made anew, as of a position.
    pub(super) fn anew(&self, position: Position) {
        *self.held() = Some(position);
        self.tell(Told::Unknown);
    }

    fn tell(&self, told: Told) {
        // Nobody may be listening.
        let _ = self.sender.send(told);
    }

    fn held(&self) -> MutexGuard<'_, Option<Position>> {
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
