//! What a delivery has done so far, as others see it.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use unisono_core::clock::Clock;
use unisono_core::source::Checkpoint;
use unisono_core::{Error, ErrorKind, Key, Position, Result, Timestamp};
use unisono_policy::pace::Pace;

use crate::delivery::Target;
use crate::delivery::copying::Copying;
use crate::delivery::dead_letter::DeadLetter;
use crate::status::{DeliveryState, DeliveryStatus, VerificationStatus};
use crate::verify::report::Comparison;
use crate::watched::Watched;

/// So many failures in a row say more than a hiccup: as many as open a breaker.
const FAILURES_STUCK: u32 = 5;

/// Counters and positions of one delivery. Written by its task, read by everyone.
pub(crate) struct Progress {
    clock: Arc<dyn Clock>,
    /// Up to where everything is visible in the follower; `None` while that is not known or its copy is not complete.
    reach: Watched<Option<Reach>>,
    saved: AtomicU64,
    /// Whether it is for others to tell how far the follower is.
    retired: AtomicBool,
    /// Time of the oldest change seen that is not applied, in microseconds; 0 if there is none.
    waiting_since: AtomicI64,
    /// When the follower last took something in, or this delivery began, in microseconds.
    moved: AtomicI64,
    /// When the first copy last was not complete that is not yet, in microseconds.
    incomplete_since: AtomicI64,
    /// When the follower last took something in or confirmed its checkpoint, in microseconds; 0 if it has not yet.
    answered: AtomicI64,
    /// When the follower was last found not to be one of its truth, in microseconds; 0 if it was not.
    split: AtomicI64,
    /// The most changes that the next batch has.
    batch_max: AtomicU64,
    pub(super) copying: Arc<Copying>,
    verified: Mutex<Vec<VerificationStatus>>,
    /// The key up to which the first copy has come.
    copied_to: Mutex<Option<String>>,
    refused: Mutex<Refused>,
    pub(super) counts: Counts,
    told: Mutex<Told>,
    pace: Mutex<Pace>,
}

/// How far a follower is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reach {
    /// Its checkpoint.
    saved: Position,
    /// Up to here the log has nothing more for it.
    applied: Position,
}

impl Reach {
    /// What an answer contains that the follower gave as of its checkpoint, to a question asked after this was known. It
    /// does not count where the checkpoint is earlier than it was, as that of a copy that was restored.
    pub(crate) fn contained_at(self, checkpoint: Position) -> Position {
        match checkpoint > Position::ZERO && checkpoint >= self.saved {
            true => checkpoint.max(self.applied),
            false => checkpoint,
        }
    }
}

#[derive(Default)]
pub(super) struct Counts {
    pub(super) applied: AtomicU64,
    pub(super) stale: AtomicU64,
    pub(super) folded: AtomicU64,
    pub(super) copied: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) batches: AtomicU64,
}

/// The keys of the dead letters that wait, as readers see them.
#[derive(Default)]
struct Refused {
    keys: BTreeSet<String>,
    /// When the first of them was refused.
    oldest: Option<Timestamp>,
    /// Grows with every change of the set.
    changes: u64,
}

struct Told {
    state: DeliveryState,
    /// Sessions that failed in a row.
    failures: u32,
    error: Option<String>,
    /// Sessions that failed, but for those after which nothing but the checkpoint was found to be another.
    failed: u64,
}

impl Default for Told {
    fn default() -> Self {
        Told { state: DeliveryState::Starting, failures: 0, error: None, failed: 0 }
    }
}

/// Adds to a counter.
pub(super) fn count(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Ordering::Relaxed);
}

impl Progress {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Progress {
            reach: Watched::default(),
            saved: AtomicU64::new(0),
            retired: AtomicBool::new(false),
            waiting_since: AtomicI64::new(0),
            moved: AtomicI64::new(clock.now().micros()),
            incomplete_since: AtomicI64::new(clock.now().micros()),
            answered: AtomicI64::new(0),
            split: AtomicI64::new(0),
            batch_max: AtomicU64::new(0),
            copying: Arc::default(),
            verified: Mutex::default(),
            copied_to: Mutex::default(),
            refused: Mutex::default(),
            counts: Counts::default(),
            told: Mutex::default(),
            pace: Mutex::default(),
            clock,
        }
    }

    pub(super) fn applied(&self) -> Position {
        self.reach().map_or(Position::ZERO, |reach| reach.applied)
    }

    pub(super) fn reach(&self) -> Option<Reach> {
        *self.reach.get()
    }

    pub(super) fn saved(&self) -> Position {
        Position::new(self.saved.load(Ordering::Acquire)).unwrap_or(Position::ZERO)
    }

    pub(super) fn is_complete(&self) -> bool {
        self.reach().is_some()
    }

    pub(super) async fn reaches(&self, position: Position) {
        self.reach.until(|reach| reach.is_some_and(|reach| reach.applied >= position)).await;
    }

    /// The follower durably has this checkpoint. While the first copy is going, nothing counts as applied.
    pub(super) fn saved_at(&self, checkpoint: &Checkpoint) {
        self.saved.store(checkpoint.position.as_u64(), Ordering::Release);
        let mut copied_to = self.copied_to.lock().unwrap_or_else(PoisonError::into_inner);
        if *copied_to != checkpoint.backfill {
            copied_to.clone_from(&checkpoint.backfill);
            self.has_moved();
        }
        drop(copied_to);
        self.has_answered();
        if checkpoint.backfill.is_none() {
            self.copying.end();
        }
        let position = checkpoint.position;
        let reach = Reach { saved: position, applied: position };
        self.set_reach(|_| checkpoint.backfill.is_none().then_some(reach));
    }

    /// The follower has what it is taken to have.
    pub(super) fn has_answered(&self) {
        self.answered.store(self.clock.now().micros(), Ordering::Relaxed);
    }

    /// The follower is not one of its truth.
    pub(super) fn found_split(&self) {
        self.split.store(self.clock.now().micros(), Ordering::Relaxed);
    }

    /// The next batch has at most so many changes.
    pub(super) fn batch_is_at_most(&self, changes: usize) {
        self.batch_max.store(changes as u64, Ordering::Relaxed);
    }

    /// The follower was compared with the truth.
    pub(super) fn compared(&self, found: &Comparison, now: Timestamp) {
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        VerificationStatus::take_in(&mut verified, found, now);
    }

    /// Nothing is known to be in the follower.
    pub(super) fn lost(&self) {
        self.saved.store(0, Ordering::Release);
        self.set_reach(|_| None);
    }

    /// Somebody else makes other records of the follower: what is applied here from now on says nothing of it.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        self.set_reach(|_| None);
    }

    /// Since when there has been something to do and nothing was achieved.
    fn stalled_since(&self) -> Option<Timestamp> {
        let moved = self.moved.load(Ordering::Relaxed);
        let waiting = self.waiting_since.load(Ordering::Relaxed);
        let since = match self.is_complete() {
            false => moved,
            true if waiting == 0 => return None,
            true => moved.max(waiting),
        };
        Some(Timestamp::from_micros_clamped(since))
    }

    /// Everything up to a position is visible in the follower, though its checkpoint may be saved later.
    pub(super) fn applied_to(&self, position: Position) {
        self.set_reach(|reach| reach.map(|reach| Reach { applied: position, ..reach }));
    }

    fn set_reach(&self, next: impl FnOnce(Option<Reach>) -> Option<Reach>) {
        let mut moved = false;
        self.reach.change(|reach| {
            let next = next(*reach).filter(|_| !self.retired.load(Ordering::Acquire));
            let before = std::mem::replace(reach, next);
            if before.is_some() && reach.is_none() {
                self.incomplete_since.store(self.clock.now().micros(), Ordering::Relaxed);
            }
            moved = before != *reach;
            moved
        });
        if moved {
            self.waiting_since.store(0, Ordering::Relaxed);
            self.has_moved();
        }
    }

    fn has_moved(&self) {
        self.moved.store(self.clock.now().micros(), Ordering::Relaxed);
    }

    /// A change of this time is about to be applied.
    pub(super) fn working_on(&self, time: Timestamp) {
        self.waiting_since.store(time.micros(), Ordering::Relaxed);
    }

    /// These keys have dead letters. Told before the checkpoint passes a refused change.
    pub(super) fn refuses<'a>(&self, letters: impl Iterator<Item = &'a DeadLetter> + Clone) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.oldest = letters.clone().map(|letter| letter.since).min();
        refused.keys = letters.map(|letter| letter.key.clone()).collect();
        refused.changes += 1;
    }

    /// Whether one of some keys has a dead letter (any key, if none are given), and a number that changes with the answer.
    pub(super) fn is_refused(&self, keys: &[Key]) -> (bool, u64) {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let has_letter = |key: &Key| refused.keys.contains(&key.to_string());
        let is = !refused.keys.is_empty() && (keys.is_empty() || keys.iter().any(has_letter));
        (is, refused.changes)
    }

    /// The keys of the dead letters.
    pub(super) fn refused_keys(&self) -> Vec<String> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.keys.iter().cloned().collect()
    }

    pub(super) fn enter(&self, state: DeliveryState) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.state = state;
        match state {
            DeliveryState::Live => (told.failures, told.error) = (0, None),
            DeliveryState::CatchingUp => told.failures = 0,
            _ => {}
        }
    }

    /// Whether the follower is sure to take nothing in for a while.
    pub(super) fn is_stuck(&self) -> bool {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        match told.state {
            DeliveryState::Backfilling => !self.is_complete(),
            DeliveryState::Stopped | DeliveryState::Paused => true,
            _ => told.failures >= FAILURES_STUCK,
        }
    }

    pub(super) fn failed(&self, error: &Error, in_a_row: u32) {
        count(&self.counts.retries, 1);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.state = DeliveryState::Waiting;
        told.failures = in_a_row;
        told.error = Some(error.to_string());
        told.failed += u64::from(error.kind() != ErrorKind::CheckpointMoved);
    }

    /// Sessions that failed since the start, and in a row.
    pub(super) fn failures(&self) -> (u64, u32) {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        (told.failed, told.failures)
    }

    /// Measures a call of the follower.
    pub(super) async fn measured<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        self.pace().begin(self.clock.now());
        let result = call.await;
        match &result {
            Ok(_) => self.pace().end(self.clock.now()),
            Err(_) => self.pace().abandon(),
        }
        result
    }

    /// What a call of the follower takes of late.
    pub(super) fn latency(&self) -> Duration {
        self.pace().latency(self.clock.now())
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seconds since the oldest change was committed that is not applied. While it is not known how far the follower is,
    /// at least as many as have passed since it was.
    pub(super) fn lag_seconds(&self, head: Position, now: Timestamp) -> f64 {
        let applied = self.reach().map(|reach| reach.applied);
        if head <= applied.unwrap_or(Position::ZERO) {
            return 0.0;
        }
        let since = match applied {
            Some(_) => self.waiting_since.load(Ordering::Relaxed),
            None => self.incomplete_since.load(Ordering::Relaxed),
        };
        time(since).map_or(0.0, |since| now.seconds_since(since))
    }

    pub(super) fn status(&self, target: &Target, head: Position, now: Timestamp) -> DeliveryStatus {
        let position = self.applied();
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DeliveryStatus {
            entity: target.name().clone(),
            source: target.source.clone(),
            state: told.state,
            position,
            lag_changes: head.since(position),
            lag_seconds: self.lag_seconds(head, now),
            held_changes: 0,
            stalled_seconds: self.stalled_since().map_or(0.0, |since| now.seconds_since(since)),
            applied: load(&self.counts.applied),
            stale: load(&self.counts.stale),
            folded: load(&self.counts.folded),
            copied: load(&self.counts.copied),
            retries: load(&self.counts.retries),
            batches: load(&self.counts.batches),
            batch_changes_max: load(&self.batch_max),
            lanes: target.capability.apply.lanes.max(1) as u64,
            last_success: time(self.answered.load(Ordering::Relaxed)),
            copy: self.copying.status(now),
            split: time(self.split.load(Ordering::Relaxed)),
            verification: self.verified.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            dead_letters: refused.keys.len() as u64,
            dead_letter_seconds: refused.oldest.map_or(0.0, |since| now.seconds_since(since)),
            repaired_often: 0,
            last_error: told.error.clone(),
        }
    }
}

/// A time of which 0 says that there is none.
fn time(micros: i64) -> Option<Timestamp> {
    (micros != 0).then(|| Timestamp::from_micros_clamped(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_log_has_for_others_counts_as_contained() {
        let at = |n| Position::new(n).unwrap();
        let reach = Reach { saved: at(4), applied: at(9) };
        let contained = |n| reach.contained_at(at(n)).as_u64();
        assert_eq!((contained(4), contained(6), contained(12)), (9, 9, 12));
        assert_eq!((contained(3), contained(0)), (3, 0), "a restored copy, and one being made");
        let begun = Reach { saved: at(0), applied: at(9) };
        assert_eq!(begun.contained_at(at(0)), at(0), "one that is made anew");
    }
}
