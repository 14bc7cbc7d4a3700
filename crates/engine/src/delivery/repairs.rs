//! How often records were repaired: who has to be repaired again and again is written by somebody else.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use unisono_core::Key;

/// So many repairs of one record are no accident.
pub(crate) const OFTEN: u32 = 3;
/// Records that are remembered; of more than these the count begins anew.
const KEYS_MAX: usize = 100_000;

/// How often each record was repaired since the start.
#[derive(Default)]
pub(super) struct Repairs {
    counts: Mutex<BTreeMap<Key, u32>>,
}

impl Repairs {
    /// One more repair of each of these; answers those that were repaired often, which has just become so.
    pub(super) fn count(&self, keys: &[Key]) -> Vec<Key> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() + keys.len() > KEYS_MAX {
            counts.clear();
        }
        let mut often = Vec::new();
        for key in keys {
            let count = counts.entry(key.clone()).or_default();
            *count += 1;
            if *count == OFTEN {
                often.push(key.clone());
            }
        }
        often
    }

    /// How many records were repaired often.
    pub(super) fn often(&self) -> u64 {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.values().filter(|count| **count >= OFTEN).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_repair_of_a_record_is_told_once() {
        let (repairs, key) = (Repairs::default(), Key::Integer(1));
        let told = || repairs.count(&[key.clone(), Key::Integer(2 + repairs.often() as i64)]);
        assert_eq!([told(), told()], [vec![], vec![]]);
        assert!(told().contains(&key));
        assert!(!told().contains(&key));
        assert_eq!(repairs.often(), 2);
    }
}
