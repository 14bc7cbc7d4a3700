//! Which keys are read most: told from a small part of the reads, in bounded memory.
//!
//! Space-Saving (A. Metwally, D. Agrawal, A. El Abbadi: *Efficient Computation of Frequent and Top-k Elements in Data
//! Streams*, ICDT 2005): a bounded number of counters, each for one key. A key without a counter takes over that with the
//! least count, and goes on from there. After `n` notes with `m` counters every key that was noted more than `n / m` times
//! has a counter, and no count is below the true one, or above it by more than `n / m`. In place of the paper's linked
//! list the counters are in an array by their counts: one that rises changes places with the first of its equals.
//!
//! Counts are halved from time to time, as TinyLFU does it (G. Einziger, R. Friedman, B. Manes, ACM Transactions on
//! Storage 13, 2017), so that what was read long ago makes room.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use unisono_core::Key;
use unisono_policy::declaration::CacheDeclaration;

/// One of so many lookups is noted.
const LOOKUPS_PER_NOTE: u64 = 64;
/// How many counters there are for each key that is wanted, so that the least counts are not among those.
const COUNTERS_PER_KEY: usize = 2;
/// Counts are halved after so many notes for each counter.
const NOTES_PER_COUNTER: u64 = 8;

/// Whether a lookup is noted before which there were so many.
pub(super) fn is_sampled(before: u64) -> bool {
    // Multiples of the golden ratio are spread evenly and without a period: no reader that goes round through its keys
    // is in step with them.
    before.wrapping_mul(0x9E37_79B9_7F4A_7C15) < u64::MAX / LOOKUPS_PER_NOTE
}

/// The keys of one entity that are read most.
pub(super) struct Hot {
    wanted: usize,
    counters: Mutex<Counters>,
}

impl Hot {
    /// Tells the `wanted` keys that are read most, at least one.
    pub(super) fn new(wanted: usize) -> Self {
        let max = wanted * COUNTERS_PER_KEY;
        let counters = Mutex::new(Counters::new(max, NOTES_PER_COUNTER * max as u64));
        Hot { wanted, counters }
    }

    /// As many as are declared, if any are.
    pub(super) fn wanted_by(declared: &CacheDeclaration) -> Option<Arc<Self>> {
        (declared.warm_hot > 0).then(|| Arc::new(Hot::new(declared.warm_hot)))
    }

    /// How many keys are wanted.
    pub(super) fn wanted(&self) -> usize {
        self.wanted
    }

    /// Takes note of a read. One that would have to wait for another is left out.
    pub(super) fn note(&self, key: &Key) {
        match self.counters.try_lock() {
            Ok(mut counters) => counters.note(key),
            Err(TryLockError::Poisoned(counters)) => counters.into_inner().note(key),
            Err(TryLockError::WouldBlock) => {}
        }
    }

    /// How many reads were noted.
    pub(super) fn noted(&self) -> u64 {
        self.counters().noted
    }

    /// The keys that were read most lately, at most as many as are wanted, the hottest first.
    pub(super) fn keys(&self) -> Vec<Key> {
        self.counters().first(self.wanted)
    }

    /// Whether so much was noted that a key which was not is none of the hot ones here.
    pub(super) fn knows(&self) -> bool {
        let counters = self.counters();
        counters.noted >= counters.halve_every
    }

    fn counters(&self) -> MutexGuard<'_, Counters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Counters {
    /// How many there may be.
    max: usize,
    halve_every: u64,
    noted: u64,
    all: Vec<Counter>,
    /// The numbers of the counters, that with the greatest count first.
    order: Vec<usize>,
    /// The number of a key's counter, by the key's hash. Keys with the same hash would share a counter.
    of: HashMap<u64, usize>,
}

struct Counter {
    key: Key,
    count: u64,
    /// Its place in the order.
    place: usize,
}

impl Counters {
    fn new(max: usize, halve_every: u64) -> Self {
        let (all, order, of) = Default::default();
        Counters { max, halve_every, noted: 0, all, order, of }
    }

    fn note(&mut self, key: &Key) {
        let hash = key.stable_hash();
        let number = match self.of.get(&hash) {
            Some(number) => *number,
            None => self.counter_for(key, hash),
        };
        self.raise(number);
        self.noted += 1;
        if self.noted.is_multiple_of(self.halve_every) {
            self.all.iter_mut().for_each(|counter| counter.count /= 2);
        }
    }

    /// A counter for a key that has none: one more, or else the one with the least count.
    fn counter_for(&mut self, key: &Key, hash: u64) -> usize {
        let number = match self.order.last() {
            Some(least) if self.all.len() >= self.max => {
                let key = std::mem::replace(&mut self.all[*least].key, key.clone());
                self.of.remove(&key.stable_hash());
                *least
            }
            _ => {
                let number = self.all.len();
                self.all.push(Counter { key: key.clone(), count: 0, place: number });
                self.order.push(number);
                number
            }
        };
        self.of.insert(hash, number);
        number
    }

    /// Counts one more.
    fn raise(&mut self, number: usize) {
        let Counter { count, place, .. } = self.all[number];
        let first = self.order.partition_point(|other| self.all[*other].count > count);
        let other = self.order[first];
        self.order.swap(first, place);
        self.all[other].place = place;
        self.all[number].place = first;
        self.all[number].count += 1;
    }

    fn first(&self, keys_max: usize) -> Vec<Key> {
        let counters = self.order.iter().take(keys_max).map(|number| &self.all[*number]);
        // What has none left was not read since counts were halved the last few times.
        counters.filter(|counter| counter.count > 0).map(|counter| counter.key.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    fn keys(numbers: impl Iterator<Item = i64>) -> Vec<Key> {
        numbers.map(Key::Integer).collect()
    }

    #[test]
    fn the_keys_that_are_read_most_are_found_within_the_bound_of_the_algorithm() {
        const NOTES: usize = 50_000;
        for (seed, max) in [(1, 10), (2, 100), (3, 1000)] {
            let mut random = StdRng::seed_from_u64(seed);
            let mut counters = Counters::new(max, u64::MAX);
            let mut noted: HashMap<Key, u64> = HashMap::new();
            for _ in 0..NOTES {
                // The key n comes about as often as 1/n says.
                let key = Key::Integer((10_000.0_f64).powf(random.random()) as i64);
                counters.note(&key);
                *noted.entry(key).or_default() += 1;
            }
            let bound = (NOTES / max) as u64;
            let counts: HashMap<_, _> = counters.all.iter().map(|c| (&c.key, c.count)).collect();
            assert_eq!(counts.len(), max);
            for (key, count) in &counts {
                let truth = noted[*key];
                assert!((truth..=truth + bound).contains(count), "{key}: {count} for {truth}");
            }
            let frequent = noted.iter().filter(|(_, noted)| **noted > bound);
            let missed: Vec<_> = frequent.filter(|(key, _)| !counts.contains_key(key)).collect();
            assert!(missed.is_empty(), "{missed:?}");
            let ordered: Vec<_> = counters.order.iter().map(|n| counters.all[*n].count).collect();
            assert!(ordered.is_sorted_by(|a, b| a >= b));
        }
    }

    #[test]
    fn what_is_not_read_any_more_makes_room() {
        let hot = Hot::new(10);
        for round in 0..3000 {
            hot.note(&Key::Integer(round % 10));
        }
        assert!(hot.knows());
        let mut found = hot.keys();
        found.sort();
        assert_eq!(found, keys(0..10));
        for round in 0..1000 {
            hot.note(&Key::Integer(10 + round % 10));
        }
        let mut found = hot.keys();
        found.sort();
        assert_eq!(found, keys(10..20));
        for _ in 0..1000 {
            hot.note(&Key::Integer(5));
        }
        assert_eq!(hot.keys(), keys(5..6), "the others have cooled down");
    }

    #[test]
    fn who_would_have_to_wait_is_not_noted() {
        let hot = Hot::new(1);
        let busy = hot.counters();
        hot.note(&Key::Integer(1));
        drop(busy);
        assert_eq!((hot.noted(), hot.keys()), (0, Vec::new()));
    }

    #[test]
    fn a_reader_that_goes_round_is_noted_everywhere() {
        for keys in [2, 7, 16, 32, 64, 100] {
            let sampled = (0..100_000_u64).filter(|n| is_sampled(*n)).map(|n| n % keys);
            let mut noted = vec![0; keys as usize];
            sampled.for_each(|key| noted[key as usize] += 1);
            let (least, most) = (noted.iter().min().unwrap(), noted.iter().max().unwrap());
            assert!(*most <= 2 * *least, "{keys} keys: {least} to {most}");
        }
    }
}
