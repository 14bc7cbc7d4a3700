//! [`Load`]: how busy a source is, as what a further call would have to expect.
//!
//! The estimate is the peak-EWMA of latencies (Finagle's `PeakEwma`): a call that took longer counts at once, better ones
//! are believed slowly. Times the calls under way it is what "power of two choices" compares (Mitzenmacher, 2001).

use std::time::Duration;

use unisono_core::Timestamp;

/// Half of what is known is forgotten after about seven seconds.
const DECAY_SECONDS: f64 = 10.0;

/// Latency and calls under way, of one source and one class of operation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    seconds: f64,
    measured: Option<Timestamp>,
    in_flight: u32,
}

impl Load {
    /// A call begins.
    pub fn begin(&mut self) {
        self.in_flight += 1;
    }

    /// A call has ended, with an answer or because the time was up, after `took`.
    pub fn end(&mut self, took: Duration, now: Timestamp) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let took = took.as_secs_f64();
        let kept = match self.measured {
            Some(before) => (-now.seconds_since(before).max(0.0) / DECAY_SECONDS).exp(),
            None => 0.0,
        };
        self.seconds =
            if took > self.seconds { took } else { self.seconds * kept + took * (1.0 - kept) };
        self.measured = Some(now);
    }

    /// A call was given up and says nothing about how long it would have taken.
    pub fn abandon(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Seconds that a further call may expect; 0 for a source that was never asked, so that it is tried.
    pub fn expected(&self) -> f64 {
        self.seconds * f64::from(self.in_flight + 1)
    }

    /// The latency alone, in seconds.
    pub fn latency(&self) -> f64 {
        self.seconds
    }

    /// Calls under way.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::EPOCH.plus(Duration::from_secs(1_000_000_000 + seconds as u64))
    }

    fn once(load: &mut Load, millis: u64, second: i64) {
        load.begin();
        load.end(Duration::from_millis(millis), at(second));
    }

    #[test]
    fn a_slow_call_counts_at_once_and_is_forgotten_slowly() {
        let mut load = Load::default();
        once(&mut load, 1, 0);
        once(&mut load, 100, 1);
        assert_eq!(load.latency(), 0.1);
        once(&mut load, 1, 2);
        assert!(load.latency() > 0.08, "one good call does not make up for it");
        once(&mut load, 1, 60);
        assert!(load.latency() < 0.002, "a minute later it is forgotten");
    }

    #[test]
    fn calls_under_way_make_a_source_less_attractive() {
        let mut load = Load::default();
        once(&mut load, 10, 0);
        let idle = load.expected();
        load.begin();
        assert_eq!(load.expected(), 2.0 * idle);
        load.abandon();
        assert_eq!(load.expected(), idle, "what was given up leaves no trace");
    }

    #[test]
    fn a_source_that_was_never_asked_is_tried() {
        assert_eq!(Load::default().expected(), 0.0);
    }
}
