//! [`Recent`]: which keys changed last at which position, in bounded memory.

use std::collections::HashMap;

use unisono_core::{Key, Position};

/// The last change of each key that changed lately; of all others it is known that they have not changed after
/// `floor`.
///
/// Two maps are filled in turn: when one is full, the older one is dropped and `floor` rises to the last position
/// that it held. A cut in the middle of the log would need a search; this costs one lookup more.
#[derive(Debug)]
pub(crate) struct Recent {
    floor: Position,
    keys_max: usize,
    current: HashMap<Key, Position>,
    previous: HashMap<Key, Position>,
    /// The last position in `current`, and in `previous`.
    ends: [Position; 2],
}

impl Recent {
    /// Nothing is known of changes at or before `floor`. Each map holds at most `keys_max` keys.
    pub(crate) fn new(floor: Position, keys_max: usize) -> Self {
        let (current, previous) = (HashMap::new(), HashMap::new());
        Recent { floor, keys_max, current, previous, ends: [floor, floor] }
    }

    /// Takes in a change; positions rise from call to call.
    pub(crate) fn record(&mut self, key: &Key, position: Position) {
        if self.current.len() >= self.keys_max && !self.current.contains_key(key) {
            self.previous = std::mem::take(&mut self.current);
            self.floor = self.ends[1];
            self.ends[1] = self.ends[0];
        }
        self.current.insert(key.clone(), position);
        self.ends[0] = position;
    }

    /// Whether the key may have changed after `read`.
    pub(crate) fn may_have_changed(&self, key: &Key, read: Position) -> bool {
        let last = self.current.get(key).or_else(|| self.previous.get(key));
        read < self.floor || last.is_some_and(|last| *last > read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: u64) -> Position {
        Position::new(number).unwrap()
    }

    #[test]
    fn what_is_no_longer_known_counts_as_changed() {
        let mut recent = Recent::new(at(10), 2);
        let key = Key::Integer;
        assert!(recent.may_have_changed(&key(9), at(9)), "before its begin nothing is known");
        assert!(!recent.may_have_changed(&key(9), at(10)));
        for n in 11..=14 {
            recent.record(&key(n as i64), at(n));
        }
        assert!(recent.may_have_changed(&key(11), at(10)));
        assert!(!recent.may_have_changed(&key(9), at(10)), "both maps are still there");
        recent.record(&key(15), at(15));
        // The changes at 11 and 12 are forgotten, so a read from before the last of them is refused for every key.
        assert!(recent.may_have_changed(&key(9), at(11)));
        assert!(recent.may_have_changed(&key(11), at(11)));
        assert!(!recent.may_have_changed(&key(12), at(12)));
        assert!(recent.may_have_changed(&key(13), at(12)));
        assert!(recent.may_have_changed(&key(15), at(14)));
        assert!(!recent.may_have_changed(&key(15), at(15)));
    }

    #[test]
    fn it_never_overlooks_a_change() {
        use rand::{Rng, SeedableRng};
        for seed in 0..200 {
            let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
            let mut recent = Recent::new(Position::ZERO, 3);
            let mut last = HashMap::new();
            for n in 1..100 {
                let key = Key::Integer(rng.random_range(0..12));
                recent.record(&key, at(n));
                last.insert(key, at(n));
                for (key, last) in &last {
                    let read = at(rng.random_range(0..=n));
                    let known = recent.may_have_changed(key, read);
                    assert!(
                        known || *last <= read,
                        "seed {seed}: {key} changed at {last}, read at {read}"
                    );
                }
            }
        }
    }
}
