//! [`Pace`]: how long calls take of late. Each counts for as long as it took, so that one slow call among many is no trend.

use std::time::Duration;

use unisono_core::Timestamp;

/// Half of what is known is forgotten after about 1.4 seconds.
const DECAY_SECONDS: f64 = 2.0;

/// A moving average over time, of calls that are made one after another. One that is under way counts with what it has
/// taken already, if that makes it worse: a call that never ends is noticed, too.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pace {
    seconds: f64,
    measured: Option<Timestamp>,
    begun: Option<Timestamp>,
}

impl Pace {
    /// A call begins.
    pub fn begin(&mut self, now: Timestamp) {
        self.begun = Some(now);
    }

    /// The call that began last has ended with an answer.
    pub fn end(&mut self, now: Timestamp) {
        self.seconds = self.with_begun(now);
        self.measured = Some(now);
        self.begun = None;
    }

    /// The call that began last has failed, which does not say how long it would have taken.
    pub fn abandon(&mut self) {
        self.begun = None;
    }

    /// What a call takes of late; zero if none was ever made.
    pub fn latency(&self, now: Timestamp) -> Duration {
        Duration::from_secs_f64(self.seconds.max(self.with_begun(now)))
    }

    /// The average with what the call that began last has taken.
    fn with_begun(&self, now: Timestamp) -> f64 {
        let Some(begun) = self.begun else { return self.seconds };
        let took = now.seconds_since(begun).max(0.0);
        let kept = match self.measured {
            Some(before) => (-now.seconds_since(before).max(0.0) / DECAY_SECONDS).exp(),
            None => 0.0,
        };
        self.seconds * kept + took * (1.0 - kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::EPOCH.plus(Duration::from_secs(1_000_000_000) + Duration::from_millis(millis))
    }

    /// Calls one after another, each of so many milliseconds; what they took of late at their end.
    fn millis(pace: &mut Pace, now: &mut u64, calls: &[u64]) -> u128 {
        for took in calls {
            pace.begin(at(*now));
            *now += took;
            pace.end(at(*now));
        }
        pace.latency(at(*now)).as_millis()
    }

    #[test]
    fn one_slow_call_is_no_trend_and_several_are() {
        let (mut pace, mut now) = (Pace::default(), 0);
        assert_eq!(millis(&mut pace, &mut now, &[2; 1000]), 2);
        assert!(millis(&mut pace, &mut now, &[300]) < 50);
        assert!(millis(&mut pace, &mut now, &[300; 10]) > 200);
        assert!(millis(&mut pace, &mut now, &[2; 3000]) < 20, "six seconds later it is forgotten");
    }

    #[test]
    fn a_call_that_does_not_end_makes_it_worse_and_one_that_begins_not_better() {
        let (mut pace, mut now) = (Pace::default(), 0);
        assert_eq!(pace.latency(at(0)), Duration::ZERO);
        let before = millis(&mut pace, &mut now, &[100; 100]);
        now += 60_000;
        pace.begin(at(now));
        assert_eq!(pace.latency(at(now)).as_millis(), before);
        assert!(pace.latency(at(now + 3000)) > Duration::from_secs(2));
        pace.abandon();
        assert_eq!(pace.latency(at(now + 3000)).as_millis(), before, "a failure is none of it");
    }
}
