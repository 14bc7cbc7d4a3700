//! When a cached record is read again before it has to be.

use std::time::Duration;

/// Whether an entry is read again now, although it still lives for `left`: the more probable the nearer its end is and
/// the longer a read takes, so that of many nodes and callers one comes first and nobody waits at the end.
///
/// XFetch: Vattani, Chierichetti, Lowenstein, "Optimal Probabilistic Cache Stampede Prevention", VLDB 2015. with their
/// beta at its optimum, 1. `read` is the time of a read, `random` evenly in `0.0..1.0`.
pub fn is_due(left: Duration, read: Duration, random: f64) -> bool {
    let early = read.as_secs_f64() * -(1.0 - random).ln();
    early > left.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(left: u64) -> f64 {
        let read = Duration::from_millis(10);
        let left = Duration::from_millis(left);
        let due = (0..1000).filter(|n| is_due(left, read, f64::from(*n) / 1000.0));
        due.count() as f64 / 1000.0
    }

    #[test]
    fn the_nearer_the_end_the_more_probable() {
        assert!((share(10) - (-1f64).exp()).abs() < 0.01, "one read before its end: 1/e");
        assert!(share(1) > 0.9);
        assert!(share(200) < 0.001);
    }
}
