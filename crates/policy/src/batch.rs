//! [`BatchSizer`]: how many changes to send at once. Doubles until a follower was slow or failed for the first time; from
//! then on grows by steps while it keeps up, and halves when it fails.

use std::time::Duration;

/// A batch that takes longer than this is not made larger.
pub const TARGET: Duration = Duration::from_millis(500);

/// Additive increase, multiplicative decrease between two bounds, after a slow start (as TCP's, RFC 5681 section 3.1).
///
/// There is no waiting for a batch to fill: what has accumulated is sent, so an idle system answers in one round trip
/// and a busy one sends full batches.
#[derive(Clone, Debug)]
pub struct BatchSizer {
    min: usize,
    max: usize,
    size: usize,
    /// The follower's limit was not met yet.
    starting: bool,
}

impl BatchSizer {
    /// Starts at `min` (at least 1); never above `max`.
    pub fn new(min: usize, max: usize) -> Self {
        let min = min.max(1);
        BatchSizer { min, max: max.max(min), size: min, starting: true }
    }

    /// The most changes that the next batch should hold.
    pub fn next(&self) -> usize {
        self.size
    }

    /// A batch was taken in; `backlog` changes are still waiting.
    ///
    /// Grows by an eighth (at least 16; at first by all of it) if it was quick and more is waiting than fits, shrinks
    /// by an eighth if slow.
    pub fn succeeded(&mut self, took: Duration, backlog: usize) {
        if took > TARGET {
            self.starting = false;
            self.size = (self.size - self.size / 8).max(self.min);
        } else if backlog > self.size {
            let step = if self.starting { self.size } else { (self.size / 8).max(16) };
            self.size = (self.size + step).min(self.max);
        }
    }

    /// A batch failed as a whole, by a timeout, a limit or a refusal: halves.
    pub fn failed(&mut self) {
        self.starting = false;
        self.size = (self.size / 2).max(self.min);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(5);

    #[test]
    fn doubles_under_a_backlog_until_the_follower_is_slow() {
        let mut s = BatchSizer::new(16, 1000);
        let sizes: Vec<usize> = (0..3)
            .map(|_| {
                s.succeeded(QUICK, 100_000);
                s.next()
            })
            .collect();
        assert_eq!(sizes, [32, 64, 128]);
        s.succeeded(TARGET * 2, 100_000);
        s.succeeded(QUICK, 100_000);
        assert_eq!(s.next(), 112 + 16);
    }

    #[test]
    fn grows_by_steps_after_a_failure_up_to_its_bound() {
        let mut s = BatchSizer::new(16, 1000);
        s.failed();
        let sizes: Vec<usize> = (0..4)
            .map(|_| {
                s.succeeded(QUICK, 100_000);
                s.next()
            })
            .collect();
        assert_eq!(sizes, [32, 48, 64, 80]);
        (0..100).for_each(|_| s.succeeded(QUICK, 100_000));
        assert_eq!(s.next(), 1000);
    }

    #[test]
    fn stays_when_nothing_more_is_waiting() {
        let mut s = BatchSizer::new(16, 1000);
        s.succeeded(QUICK, 16);
        assert_eq!(s.next(), 16);
    }

    #[test]
    fn shrinks_when_slow_and_halves_on_failure_down_to_its_bound() {
        let mut s = BatchSizer::new(10, 1000);
        (0..100).for_each(|_| s.succeeded(QUICK, 100_000));
        s.succeeded(TARGET * 2, 100_000);
        assert_eq!(s.next(), 875);
        s.failed();
        assert_eq!(s.next(), 437);
        (0..20).for_each(|_| s.failed());
        assert_eq!(s.next(), 10);
    }

    #[test]
    fn odd_bounds_are_safe() {
        let mut s = BatchSizer::new(0, 0);
        s.failed();
        s.succeeded(QUICK, 10);
        assert_eq!(s.next(), 1);
    }
}
