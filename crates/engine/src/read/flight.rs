//! Single flight: one caller reads a missing record, the others that ask meanwhile wait for its answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use unisono_core::{Key, Position, Result, Stored};

use crate::answer::Answer;

/// What a flight brings home.
pub(crate) type Landed = Result<Answer<Option<Arc<Stored>>>, Arc<unisono_core::Error>>;

/// The reads that are under way for one entity.
#[derive(Default)]
pub(crate) struct Flights(Mutex<HashMap<Key, Flight>>);

struct Flight {
    /// The head of the log when the read began: the answer contains everything up to it.
    contains: Position,
    landing: watch::Receiver<Option<Landed>>,
}

/// What a caller does after boarding.
pub(crate) enum Boarded<'a> {
    /// It reads, and tells the others.
    Pilot(Pilot<'a>),
    /// It waits.
    Passenger(watch::Receiver<Option<Landed>>),
}

/// The caller that reads. Dropped without landing, its passengers read for themselves.
pub(crate) struct Pilot<'a> {
    flights: &'a Flights,
    key: Key,
    landing: watch::Sender<Option<Landed>>,
}

impl Flights {
    /// Joins a read of the key that began late enough to contain `needed`, or begins one at `head`.
    pub(crate) fn board(&self, key: &Key, needed: Position, head: Position) -> Boarded<'_> {
        let mut flights = self.lock();
        if let Some(flight) = flights.get(key)
            && flight.contains >= needed
            && flight.landing.has_changed().is_ok()
        {
            return Boarded::Passenger(flight.landing.clone());
        }
        let (landing, receiver) = watch::channel(None);
        flights.insert(key.clone(), Flight { contains: head, landing: receiver });
        Boarded::Pilot(Pilot { flights: self, key: key.clone(), landing })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Flight>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pilot<'_> {
    /// Tells everyone who waits.
    pub(crate) fn land(self, result: Landed) {
        self.landing.send_replace(Some(result));
    }
}

impl Drop for Pilot<'_> {
    fn drop(&mut self) {
        let mut flights = self.flights.lock();
        if flights.get(&self.key).is_some_and(|f| f.landing.same_channel(&self.landing.subscribe()))
        {
            flights.remove(&self.key);
        }
    }
}
