//! [`Flushed`]: up to where in the log a reader must see, who has seen writes while they waited.

use std::collections::BTreeMap;

use unisono_core::Position;

/// Steps that are remembered; older ones become one that demands more than needed.
const STEPS_MAX: usize = 1024;

/// For each sequence of the journal the position by which everything at or before it that was flushed is in the log.
#[derive(Debug)]
pub(crate) struct Flushed {
    /// The head of the log at the start; what was flushed before is in the log by then.
    begin: Position,
    /// Sequences and positions both rise.
    steps: BTreeMap<u64, Position>,
}

impl Flushed {
    pub(crate) fn new(head: Position) -> Self {
        Flushed { begin: head, steps: BTreeMap::new() }
    }

    /// Writes, the first of which has this sequence, were committed at a position.
    pub(crate) fn add(&mut self, first: u64, position: Position) {
        let newest = self.steps.last_key_value().map_or(position, |(_, newest)| *newest);
        // Whoever has seen a later sequence must see this position, which is the greatest, anyway.
        self.steps.split_off(&first);
        self.steps.insert(first, position.max(newest));
        if self.steps.len() > STEPS_MAX
            && let Some((first, _)) = self.steps.pop_first()
            && let Some(second) = self.steps.first_entry()
        {
            let position = *second.get();
            second.remove();
            self.steps.insert(first, position);
        }
    }

    /// What must be seen by a reader that has seen everything up to a sequence.
    pub(crate) fn demanded(&self, through: u64) -> Position {
        let before = if through == 0 { Position::ZERO } else { self.begin };
        let since = self.steps.range(..=through).next_back();
        since.map_or(before, |(_, position)| before.max(*position))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(n: u64) -> Position {
        Position::new(n).unwrap()
    }

    #[test]
    fn whoever_saw_a_write_waiting_must_see_it_in_the_log() {
        let mut flushed = Flushed::new(position(100));
        assert_eq!(flushed.demanded(0), Position::ZERO, "it has seen nothing");
        assert_eq!(flushed.demanded(7), position(100), "flushed by an earlier process, or waiting");
        flushed.add(12, position(101));
        flushed.add(11, position(102));
        flushed.add(14, position(103));
        let demanded = [10, 11, 12, 13, 14, 99].map(|s| flushed.demanded(s).as_u64());
        assert_eq!(demanded, [100, 102, 102, 102, 103, 103]);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_errs_towards_fresher() {
        let mut flushed = Flushed::new(Position::ZERO);
        for n in 1..=5000 {
            flushed.add(n, position(n));
        }
        assert_eq!(flushed.steps.len(), STEPS_MAX);
        assert!((1..=5000).all(|n| flushed.demanded(n) >= position(n)));
        assert_eq!(flushed.demanded(4999), position(4999));
    }
}
