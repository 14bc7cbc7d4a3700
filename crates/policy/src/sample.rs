//! Sampling consistency: which changes are looked for again, when, and what an answer says about them.

use std::time::Duration;

use unisono_core::{Position, Version};

/// How long after a change it is looked for.
pub const DELAYS: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(300),
];

/// The most nines that are told.
pub const NINES_MAX: f64 = 9.0;

/// How many changes further the next sample is, so that each of them is one with the probability of one in so many.
/// `random` is in `0.0..1.0`. At least 1.
pub fn gap(random: f64, one_in: u64) -> u64 {
    if one_in <= 1 {
        return 1;
    }
    // The distance between successes of a coin with this probability is distributed geometrically.
    let steps = (1.0 - random).ln() / (1.0 - 1.0 / one_in as f64).ln();
    1 + steps as u64
}

/// How many nines the share of consistent answers has: 3 for 99.9 %. Without an inconsistent one, as many as so few
/// answers can show; at most [`NINES_MAX`].
pub fn nines(consistent: u64, inconsistent: u64) -> f64 {
    let all = (consistent + inconsistent) as f64;
    let nines = match inconsistent {
        0 => (all + 1.0).log10(),
        bad => (all / bad as f64).log10(),
    };
    nines.min(NINES_MAX)
}

/// What a source's answer says about a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It has the change, or what came after it.
    Consistent,
    /// It has an older state.
    Inconsistent,
    /// It has no such record. Whether that is right, only the truth can tell: see [`is_absent_rightly`].
    Absent,
}

/// Judges a record found, by its version, or that there is none; `deleted` if the sampled change is a deletion.
pub fn judge(sampled: Version, deleted: bool, found: Option<Version>) -> Seen {
    match found {
        Some(version) if version >= sampled => Seen::Consistent,
        Some(_) => Seen::Inconsistent,
        None if deleted => Seen::Consistent,
        None => Seen::Absent,
    }
}

/// Whether a source may lack a record whose put was sampled. `wanted` is the version of the truth's record, looked at
/// afterwards, if there is one and the source is to hold it; `answered_at` is up to where the source has everything.
pub fn is_absent_rightly(sampled: Version, wanted: Option<Version>, answered_at: Position) -> bool {
    match wanted {
        // It was deleted since, or has become one that is not held there.
        None => true,
        // It lacks what it says it has, or has not got the change itself.
        Some(version) if version <= answered_at || version <= sampled => false,
        // The record was removed and made again since: what the source has not come to may be the second.
        Some(_) => answered_at >= sampled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(n: u64) -> Position {
        Position::new(n).unwrap()
    }

    #[test]
    fn each_change_is_as_likely_as_any_other() {
        assert_eq!(gap(0.0, 100), 1, "the next one may be the next sample");
        assert_eq!((gap(0.999, 1), gap(0.0, 0)), (1, 1), "all of them");
        // A low-discrepancy walk through 0..1 instead of chance.
        let of = |n: u64| (n as f64 * 0.618_033_988_749_894_9).fract();
        let mean = (0..10_000).map(|n| gap(of(n), 50)).sum::<u64>() as f64 / 10_000.0;
        assert!((48.0..52.0).contains(&mean), "{mean}");
    }

    #[test]
    fn nines_are_those_of_the_share_and_no_more_than_so_few_answers_can_show() {
        let near = |given: f64, wanted: f64| assert!((given - wanted).abs() < 1e-9, "{given}");
        near(nines(999, 1), 3.0);
        near(nines(90, 10), 1.0);
        near(nines(0, 5), 0.0);
        near(nines(0, 0), 0.0);
        near(nines(9, 0), 1.0);
        near(nines(999_999, 0), 6.0);
        near(nines(u64::MAX / 2, 0), NINES_MAX);
    }

    #[test]
    fn a_state_is_judged_by_its_version() {
        let cases = [
            (false, Some(7), Seen::Consistent),
            (false, Some(8), Seen::Consistent),
            (false, Some(6), Seen::Inconsistent),
            (false, None, Seen::Absent),
            (true, None, Seen::Consistent),
            (true, Some(6), Seen::Inconsistent),
            (true, Some(9), Seen::Consistent),
        ];
        for (deleted, found, seen) in cases {
            assert_eq!(judge(at(7), deleted, found.map(at)), seen, "{deleted} {found:?}");
        }
    }

    #[test]
    fn an_absence_is_right_if_the_record_went_or_may_have_gone() {
        let right =
            |wanted: Option<u64>, answered| is_absent_rightly(at(7), wanted.map(at), at(answered));
        assert!(right(None, 0), "deleted, or not to be held");
        assert!(!right(Some(7), 9) && !right(Some(7), 3), "lost, or not there yet");
        assert!(!right(Some(8), 8), "it says that it has the eighth");
        assert!(right(Some(9), 8), "deleted by the eighth, and made again by the ninth");
        assert!(!right(Some(9), 6), "it has not come to the sample");
    }
}
