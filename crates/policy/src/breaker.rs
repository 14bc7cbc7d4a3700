//! [`Breaker`]: stops asking a source that keeps failing, and finds out when it is well again.

use std::time::Duration;

use unisono_core::{ErrorKind, Timestamp};

/// When a breaker opens, for how long, and what closes it.
#[derive(Clone, Debug, PartialEq)]
pub struct BreakerOptions {
    /// Failures in a row that open it.
    pub failures_in_a_row: u32,
    /// Share of failures within the window that opens it, 0 to 1.
    pub failure_share: f64,
    /// Calls that the window must hold before its share counts.
    pub calls_min: u32,
    /// Length of the window.
    pub window: Duration,
    /// How long it stays open the first time; doubled each time it opens again.
    pub open_min: Duration,
    /// How long it stays open at most.
    pub open_max: Duration,
    /// Trials in a row that must succeed to close it.
    pub trials: u32,
    /// A trial without an answer for this long no longer holds up the next one.
    pub trial_max: Duration,
    /// After this long without opening, the next opening is short again.
    pub forget: Duration,
}

impl Default for BreakerOptions {
    fn default() -> Self {
        BreakerOptions {
            failures_in_a_row: 5,
            failure_share: 0.5,
            calls_min: 10,
            window: Duration::from_secs(10),
            open_min: Duration::from_secs(1),
            open_max: Duration::from_secs(60),
            trials: 2,
            trial_max: Duration::from_secs(30),
            forget: Duration::from_secs(300),
        }
    }
}

/// Whether calls go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// They do.
    Closed,
    /// They do not.
    Open {
        /// From when on a trial is let through.
        until: Timestamp,
    },
    /// One trial at a time does.
    HalfOpen,
}

/// A change of state, to be logged and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// It opened.
    Opened {
        /// From when on a trial is let through.
        until: Timestamp,
    },
    /// It closed.
    Closed,
}

/// Share of the window that one bucket covers: the window slides in tenths.
const BUCKETS: usize = 10;

/// Decides whether a source is asked. Time and jitter are given by the caller.
#[derive(Clone, Debug)]
pub struct Breaker {
    options: BreakerOptions,
    state: State,
    in_a_row: u32,
    trials: u32,
    trial_since: Option<Timestamp>,
    openings: u32,
    /// When it opened last, and until when.
    since: Timestamp,
    opened: Timestamp,
    window: [Bucket; BUCKETS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// Which tenth of a window since the epoch the counts belong to.
    number: i64,
    calls: u32,
    failures: u32,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(options: BreakerOptions) -> Self {
        Breaker {
            options,
            state: State::Closed,
            in_a_row: 0,
            trials: 0,
            trial_since: None,
            openings: 0,
            since: Timestamp::EPOCH,
            opened: Timestamp::EPOCH,
            window: [Bucket::default(); BUCKETS],
        }
    }

    /// Whether calls go through.
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether [`Breaker::allows`] would let a call through, without taking the trial.
    pub fn would_allow(&self, now: Timestamp) -> bool {
        match self.state {
            State::Closed => true,
            State::Open { until } => now >= until,
            State::HalfOpen => {
                self.trial_since.is_none_or(|since| now >= since.plus(self.options.trial_max))
            }
        }
    }

    /// Whether a call may be made now. In an open breaker whose time is up, the first caller gets the trial.
    pub fn allows(&mut self, now: Timestamp) -> bool {
        let allowed = self.would_allow(now);
        if allowed && self.state != State::Closed {
            if self.state != State::HalfOpen {
                self.state = State::HalfOpen;
                self.trials = 0;
            }
            self.trial_since = Some(now);
        }
        allowed
    }

    /// Takes note of a call that succeeded.
    pub fn succeeded(&mut self, now: Timestamp) -> Option<Transition> {
        match self.state {
            State::Closed => {
                self.in_a_row = 0;
                self.bucket(now).calls += 1;
                None
            }
            // The answer of a call that was made before it opened says little about now.
            State::Open { .. } => None,
            State::HalfOpen => {
                self.trial_since = None;
                self.trials += 1;
                if self.trials < self.options.trials {
                    return None;
                }
                self.state = State::Closed;
                self.in_a_row = 0;
                self.window = [Bucket::default(); BUCKETS];
                Some(Transition::Closed)
            }
        }
    }

    /// Takes note of a call that failed in a way that [`counts`]. `jitter` (0 to 1) moves the end of an opening by up
    /// to a fifth, so that many breakers do not try at the same moment.
    pub fn failed(&mut self, now: Timestamp, jitter: f64) -> Option<Transition> {
        match self.state {
            State::Open { .. } => None,
            State::HalfOpen => Some(self.open(now, jitter)),
            State::Closed => {
                self.in_a_row += 1;
                let bucket = self.bucket(now);
                bucket.calls += 1;
                bucket.failures += 1;
                self.is_failing(now).then(|| self.open(now, jitter))
            }
        }
    }

    /// Takes note of a call that ended without saying anything about the source, such as one that the caller gave up
    /// or that failed in a way that does not [`counts`]: a trial is free again.
    pub fn abandoned(&mut self) {
        self.trial_since = None;
    }

    /// Takes note that the source was heard of by another way than a call, such as by reading its log. If it was at least
    /// the shortest opening after the breaker opened, the next call is the trial, whatever time is left.
    pub fn heard(&mut self, at: Timestamp) {
        if let State::Open { until } = self.state
            && at >= self.since.plus(self.options.open_min)
        {
            self.state = State::Open { until: until.min(at) };
        }
    }

    fn is_failing(&self, now: Timestamp) -> bool {
        if self.in_a_row >= self.options.failures_in_a_row {
            return true;
        }
        let oldest = self.bucket_number(now) - BUCKETS as i64;
        let recent = self.window.iter().filter(|b| b.number > oldest);
        let (calls, failures) = recent.fold((0, 0), |(c, f), b| (c + b.calls, f + b.failures));
        calls >= self.options.calls_min
            && f64::from(failures) >= self.options.failure_share * f64::from(calls)
    }

    fn open(&mut self, now: Timestamp, jitter: f64) -> Transition {
        if now >= self.opened.plus(self.options.forget) {
            self.openings = 0;
        }
        let pause =
            (self.options.open_min * (1 << self.openings.min(16))).min(self.options.open_max);
        let jitter = if jitter.is_finite() { jitter.clamp(0.0, 1.0) } else { 0.5 };
        let until = now.plus(pause.mul_f64(0.8 + 0.4 * jitter));
        self.openings += 1;
        self.since = now;
        self.opened = until;
        self.trial_since = None;
        self.state = State::Open { until };
        Transition::Opened { until }
    }

    fn bucket_number(&self, now: Timestamp) -> i64 {
        let length = (self.options.window.as_micros() as i64 / BUCKETS as i64).max(1);
        now.micros().div_euclid(length)
    }

    fn bucket(&mut self, now: Timestamp) -> &mut Bucket {
        let number = self.bucket_number(now);
        // The remainder by the length of the array is an index of it.
        let bucket = &mut self.window[number.rem_euclid(BUCKETS as i64) as usize];
        if bucket.number != number {
            *bucket = Bucket { number, ..Bucket::default() };
        }
        bucket
    }
}

/// Whether an error of this kind says that the source itself is not well.
///
/// What the caller did wrong, what a bound of this process refused and what a source answers in good health do not.
pub fn counts(kind: ErrorKind) -> bool {
    use ErrorKind::*;
    match kind {
        Unavailable | Timeout | NotPrimary | RateLimited | Corrupt => true,
        NotFound
        | StreamClosed
        | AlreadyExists
        | VersionConflict
        | ConstraintViolated
        | InvalidInput
        | InvalidConfig
        | SchemaMismatch
        | Unsupported
        | Unauthenticated
        | PermissionDenied
        | Overloaded
        | LimitExceeded
        | Fenced
        | TooStale
        | QuorumNotReached
        | LogTruncated
        | CheckpointMoved
        | IdempotencyKeyReused
        | IdempotencyKeyInFlight
        | Diverged
        | Cancelled
        | Internal => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Timestamp {
        Timestamp::from_micros((1_800_000_000.0 * 1e6 + seconds * 1e6) as i64).unwrap()
    }

    fn broken() -> Breaker {
        let mut b = Breaker::new(BreakerOptions::default());
        for _ in 0..4 {
            assert_eq!(b.failed(at(0.0), 0.5), None);
        }
        assert_eq!(b.failed(at(0.0), 0.5), Some(Transition::Opened { until: at(1.0) }));
        b
    }

    #[test]
    fn five_failures_in_a_row_open_it_for_a_second() {
        let mut b = broken();
        assert!(!b.allows(at(0.9)));
        assert!(b.allows(at(1.0)));
    }

    #[test]
    fn a_sign_of_life_ends_a_long_opening() {
        let mut b = broken();
        for second in [1.0, 4.0, 9.0] {
            assert!(b.allows(at(second)));
            b.failed(at(second), 0.5);
        }
        assert!(!b.would_allow(at(12.0)), "eight seconds");
        b.heard(at(9.5));
        assert!(!b.would_allow(at(12.0)), "too soon to say more than the failure");
        b.heard(at(11.0));
        assert!(b.would_allow(at(11.0)));
        assert!(b.allows(at(11.0)) && !b.allows(at(11.1)), "one trial");
    }

    #[test]
    fn a_success_in_between_starts_the_count_again() {
        let mut b = Breaker::new(BreakerOptions { calls_min: 100, ..Default::default() });
        for _ in 0..20 {
            for _ in 0..4 {
                assert_eq!(b.failed(at(0.0), 0.5), None);
            }
            b.succeeded(at(0.0));
        }
    }

    #[test]
    fn half_of_ten_calls_failing_within_the_window_opens_it() {
        let alternate = |step: f64| {
            let mut b = Breaker::new(BreakerOptions::default());
            (0..5).find_map(|n| {
                b.succeeded(at(f64::from(n) * step));
                b.failed(at(f64::from(n) * step), 0.5)
            })
        };
        assert!(alternate(1.0).is_some());
        assert!(alternate(4.0).is_none(), "calls outside the window are forgotten");
    }

    #[test]
    fn one_trial_at_a_time_and_two_that_succeed_close_it() {
        let mut b = broken();
        assert!(
            b.would_allow(at(1.0)) && b.would_allow(at(1.0)),
            "looking does not take the trial"
        );
        assert!(b.allows(at(1.0)));
        assert!(!b.allows(at(1.1)));
        assert_eq!(b.succeeded(at(1.2)), None);
        assert!(b.allows(at(1.2)));
        assert_eq!(b.succeeded(at(1.3)), Some(Transition::Closed));
        assert_eq!(b.state(), State::Closed);
        for _ in 0..4 {
            b.succeeded(at(1.4));
        }
        assert_eq!(b.failed(at(1.4), 0.5), None, "the failures of before are forgotten");
    }

    #[test]
    fn a_failed_trial_opens_it_for_twice_as_long_up_to_a_minute() {
        let mut b = broken();
        let mut now = 1.0;
        for pause in [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0] {
            assert!(b.allows(at(now)));
            assert_eq!(b.failed(at(now), 0.5), Some(Transition::Opened { until: at(now + pause) }));
            now += pause;
        }
    }

    #[test]
    fn after_five_good_minutes_an_opening_is_short_again() {
        let mut b = broken();
        assert!(b.allows(at(1.0)));
        b.failed(at(1.0), 0.5);
        b.allows(at(3.0));
        b.succeeded(at(3.0));
        b.allows(at(3.0));
        b.succeeded(at(3.0));
        let opened = (0..5).find_map(|_| b.failed(at(400.0), 0.5));
        assert_eq!(opened, Some(Transition::Opened { until: at(401.0) }));
    }

    #[test]
    fn a_trial_that_never_answers_does_not_block_the_next_one() {
        let mut b = broken();
        assert!(b.allows(at(1.0)));
        assert!(!b.allows(at(30.9)));
        assert!(b.allows(at(31.0)));
        b.abandoned();
        assert!(b.allows(at(31.1)));
    }

    #[test]
    fn late_answers_do_not_move_an_open_breaker() {
        let mut b = broken();
        assert_eq!(b.succeeded(at(0.5)), None);
        assert_eq!(b.failed(at(0.5), 0.5), None);
        assert_eq!(b.state(), State::Open { until: at(1.0) });
    }

    #[test]
    fn jitter_moves_the_end_by_a_fifth_at_most() {
        for (jitter, until) in [(0.0, 0.8), (1.0, 1.2), (f64::NAN, 1.0)] {
            let mut b = Breaker::new(BreakerOptions { failures_in_a_row: 1, ..Default::default() });
            assert_eq!(b.failed(at(0.0), jitter), Some(Transition::Opened { until: at(until) }));
        }
    }
}
