//! What the tests of Unisono share: seeded generators, sample entities, a change log in memory, a clock set by hand, a
//! network that fails when it is told to, lines to sources that are cut, worlds run from seeds, and a search for what is left
//! of a text.
//!
//! Everything random comes from one seed, so that a failure is repeated by its seed alone.

mod changes;
mod clock;
mod filters;
pub mod link;
pub mod proxy;
mod questions;
pub mod remains;
mod samples;
mod schema;
pub mod seeds;
mod values;
mod writes;

pub use changes::{Changes, LOG};
pub use clock::ManualClock;
pub use samples::Sample;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

/// Makes random schemas, records, questions and writes; the same seed makes the same ones.
pub struct Generator {
    /// Where all randomness comes from; callers may draw from it too.
    pub rng: StdRng,
}

impl Generator {
    /// A generator with a seed.
    pub fn new(seed: u64) -> Self {
        Generator { rng: StdRng::seed_from_u64(seed) }
    }

    /// One of the items, which must not be empty.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        items.choose(&mut self.rng).unwrap_or_else(|| unreachable!("there is something to pick"))
    }
}

#[cfg(test)]
mod tests;
