//! [`Copying`]: how far a copy has come, and how long the rest will take at the pace so far.

use std::sync::{Mutex, MutexGuard, PoisonError};

use unisono_core::Timestamp;

use crate::status::CopyStatus;

/// What is known of the copy under way.
#[derive(Default)]
pub(super) struct Copying(Mutex<Known>);

#[derive(Clone, Copy, Default)]
struct Known {
    /// When this process began to count; `None` if no copy is under way.
    began: Option<Timestamp>,
    /// Records of the truth, once they are counted.
    total: Option<u64>,
    /// Those that were passed before this process began to count.
    earlier: u64,
    /// Those that were passed since.
    passed: u64,
}

impl Copying {
    /// A copy begins, or goes on from where another process left it; answers whether its records are to be counted.
    pub(super) fn begin(&self, from_the_start: bool, now: Timestamp) -> bool {
        let mut known = self.known();
        if known.began.is_some() && !from_the_start {
            return false;
        }
        *known = Known { began: Some(now), ..Known::default() };
        true
    }

    /// So many records there are, and so many of them were to come when this process began to count.
    pub(super) fn counted(&self, total: u64, to_come: u64) {
        let mut known = self.known();
        known.total = Some(total);
        known.earlier = total.saturating_sub(to_come);
    }

    /// So many records of the truth were looked at.
    pub(super) fn passed(&self, records: usize) {
        self.known().passed += records as u64;
    }

    /// The copy is complete, or nothing is left of it.
    pub(super) fn end(&self) {
        *self.known() = Known::default();
    }

    /// How it is doing, if one is under way.
    pub(super) fn status(&self, now: Timestamp) -> Option<CopyStatus> {
        let Known { began, total, earlier, passed } = *self.known();
        let elapsed = now.seconds_since(began?).max(0.0);
        // Records that were written meanwhile may be passed, too.
        let done = |total: u64| (earlier + passed).min(total);
        let seconds_left = total.filter(|_| passed > 0).map(|total| {
            let left = total - done(total);
            left as f64 * elapsed / passed as f64
        });
        Some(CopyStatus { records: total.map_or(passed, done), records_total: total, seconds_left })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros_clamped(seconds * 1_000_000)
    }

    #[test]
    fn the_rest_takes_as_long_as_the_pace_so_far_says() {
        let copying = Copying::default();
        assert!(copying.status(at(0)).is_none(), "none is under way");
        assert!(copying.begin(true, at(0)));
        copying.passed(100);
        let uncounted = copying.status(at(10)).unwrap();
        assert_eq!((uncounted.records, uncounted.seconds_left), (100, None));
        copying.counted(400, 400);
        let counted = copying.status(at(10)).unwrap();
        assert_eq!((counted.records_total, counted.seconds_left), (Some(400), Some(30.0)));
        copying.end();
        assert!(copying.status(at(11)).is_none());
    }

    #[test]
    fn what_an_earlier_process_copied_counts_but_says_nothing_of_the_pace() {
        let copying = Copying::default();
        assert!(copying.begin(false, at(0)));
        copying.counted(1000, 400);
        copying.passed(100);
        let status = copying.status(at(10)).unwrap();
        assert_eq!((status.records, status.seconds_left), (700, Some(30.0)));
        assert!(!copying.begin(false, at(20)), "a further session goes on counting");
        copying.passed(900);
        let status = copying.status(at(20)).unwrap();
        assert_eq!((status.records, status.seconds_left), (1000, Some(0.0)), "more came meanwhile");
    }
}
