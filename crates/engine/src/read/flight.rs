//! Single flight: one caller reads a missing record, the others that ask meanwhile wait for its answer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use unisono_core::{Key, Position, Stored};

use crate::answer::Answer;
use crate::watched::Watched;

/// What a flight brings home. A failure is its pilot's own: another caller may have more time, or demand less.
pub(crate) type Landed = Answer<Option<Arc<Stored>>>;

/// The reads that are under way for one entity.
pub(crate) struct Flights {
    flying: Mutex<HashMap<Key, Flight>>,
    /// How many flights of the keys of a group have landed.
    landed: [AtomicU32; GROUPS],
}

/// Keys are told apart roughly: mistaking one for another costs a look into the cache.
const GROUPS: usize = 64;

struct Flight {
    /// The head of the log when the read began: an answer of the truth contains everything up to it.
    contains: Position,
    landing: Arc<Landing>,
}

/// Where passengers wait.
#[derive(Default)]
pub(crate) struct Landing(Watched<Flown>);

#[derive(Default)]
enum Flown {
    #[default]
    NotYet,
    Home(Landed),
    /// The pilot had no answer.
    Lost,
}

/// What a caller does after boarding.
pub(crate) enum Boarded<'a> {
    /// It reads, and tells the others.
    Pilot(Pilot<'a>),
    /// It waits.
    Passenger(Arc<Landing>),
}

/// The caller that reads. Dropped without landing, its passengers read for themselves.
pub(crate) struct Pilot<'a> {
    flights: &'a Flights,
    key: Key,
    landing: Arc<Landing>,
}

impl Default for Flights {
    fn default() -> Self {
        Flights { flying: Mutex::default(), landed: [const { AtomicU32::new(0) }; GROUPS] }
    }
}

impl Flights {
    /// Joins a read of the key that began late enough to bring home `needed`, or begins one at `head`.
    pub(crate) fn board(&self, key: &Key, needed: Position, head: Position) -> Boarded<'_> {
        let mut flights = self.lock();
        if let Some(flight) = flights.get(key)
            && flight.contains >= needed
        {
            return Boarded::Passenger(Arc::clone(&flight.landing));
        }
        let landing = Arc::<Landing>::default();
        flights.insert(key.clone(), Flight { contains: head, landing: Arc::clone(&landing) });
        Boarded::Pilot(Pilot { flights: self, key: key.clone(), landing })
    }

    /// Changes when a read of the key ends: who then begins another one may find its answer in the cache.
    pub(crate) fn landings(&self, key: &Key) -> u32 {
        self.group(key).load(Ordering::Acquire)
    }

    fn group(&self, key: &Key) -> &AtomicU32 {
        &self.landed[(key.stable_hash() % GROUPS as u64) as usize]
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Flight>> {
        self.flying.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pilot<'_> {
    /// Tells everyone who waits, and hands the answer back.
    pub(crate) fn land(self, answer: Landed) -> Landed {
        self.landing.end(Flown::Home(answer.clone()));
        answer
    }
}

impl Landing {
    /// Waits for what the flight brings home; `None` if its pilot had no answer.
    pub(crate) async fn wait(&self) -> Option<Landed> {
        self.0.until(|flown| !matches!(flown, Flown::NotYet)).await;
        match &*self.0.get() {
            Flown::Home(landed) => Some(landed.clone()),
            Flown::NotYet | Flown::Lost => None,
        }
    }

    fn end(&self, how: Flown) {
        self.0.change(|flown| {
            let flying = matches!(flown, Flown::NotYet);
            if flying {
                *flown = how;
            }
            flying
        });
    }
}

impl Drop for Pilot<'_> {
    fn drop(&mut self) {
        self.flights.group(&self.key).fetch_add(1, Ordering::Release);
        let mut flights = self.flights.lock();
        if flights.get(&self.key).is_some_and(|f| Arc::ptr_eq(&f.landing, &self.landing)) {
            flights.remove(&self.key);
        }
        drop(flights);
        self.landing.end(Flown::Lost);
    }
}
