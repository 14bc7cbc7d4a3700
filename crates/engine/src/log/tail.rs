//! [`Tail`]: the newest changes of a log, kept in memory, so that deliveries do not each read them from the truth.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use unisono_core::source::{LogBounds, Truth};
use unisono_core::{Change, Position, Result, Timestamp, Uuid};

use crate::runtime::Runtime;
use crate::watched::Watched;

const CHANGES_MAX: usize = 8192;
const BYTES_MAX: usize = 8 << 20;
/// How long a truth is left alone that could not be asked.
const REST: Duration = Duration::from_secs(1);
/// Without a sign of life for longer than this, nobody knows how far the log has come.
const SILENT_MAX: Duration = Duration::from_secs(3);

/// The newest changes of one log, and a signal when there are more.
pub(crate) struct Tail {
    truth: Arc<dyn Truth>,
    recent: Mutex<Recent>,
    head: Watched<Position>,
    /// When the truth was last heard of, in microseconds.
    heard: AtomicI64,
    /// Its identity.
    log: Uuid,
    /// When it was last found to be another one, or to end before what was known of it, in microseconds; 0 if never.
    split: AtomicI64,
    /// Whether the last attempt to hear of it failed.
    failing: AtomicBool,
}

/// A contiguous run of changes that ends at the newest one known.
#[derive(Default)]
struct Recent {
    changes: VecDeque<Arc<Change>>,
    bytes: usize,
}

impl Tail {
    pub(crate) fn new(truth: Arc<dyn Truth>, bounds: LogBounds, now: Timestamp) -> Self {
        let (recent, head) = (Mutex::default(), Watched::new(bounds.head));
        let heard = AtomicI64::new(now.micros());
        let (failing, split) = (AtomicBool::new(false), AtomicI64::new(0));
        Tail { truth, recent, head, heard, log: bounds.log, split, failing }
    }

    /// Takes in changes that were just committed here, in order, and wakes everyone who waits for them.
    pub(crate) fn publish(&self, changes: &[Arc<Change>]) {
        let Some(last) = changes.last() else { return };
        let head = last.position;
        self.recent().extend(changes);
        self.advance(head);
    }

    /// The newest position known.
    pub(crate) fn head(&self) -> Position {
        *self.head.get()
    }

    /// Whether the truth has not been heard of lately, so that its log may have come further than is known.
    pub(crate) fn is_silent(&self, now: Timestamp) -> bool {
        self.failing.load(Ordering::Relaxed) || now > self.heard().plus(SILENT_MAX)
    }

    /// When the truth was last heard of.
    pub(crate) fn heard(&self) -> Timestamp {
        Timestamp::from_micros_clamped(self.heard.load(Ordering::Relaxed))
    }

    /// When the truth was last found to have another log than the one that is followed, or one that ends before what was
    /// committed to it.
    pub(crate) fn split(&self) -> Option<Timestamp> {
        let found = self.split.load(Ordering::Relaxed);
        (found != 0).then(|| Timestamp::from_micros_clamped(found))
    }

    /// Takes note of how far the log has come, as somebody else was told.
    pub(crate) fn has_come_to(&self, head: Position) {
        self.advance(head);
    }

    /// Waits until the head is beyond a position.
    pub(crate) async fn beyond(&self, position: Position) {
        self.head.until(|head| *head > position).await;
    }

    /// The changes after a position: from memory if they are there, else from the truth.
    pub(crate) async fn read(
        &self,
        after: Position,
        changes_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Arc<Change>>> {
        if after >= self.head() {
            return Ok(Vec::new());
        }
        if let Some(changes) = self.recent().after(after, changes_max, bytes_max) {
            return Ok(changes);
        }
        self.truth.read_log(after, changes_max, bytes_max).await
    }

    /// Reads the head from the truth again and again, until the engine ends: for changes that others committed, and as
    /// a sign of life.
    pub(crate) async fn poll(self: Arc<Self>, runtime: Runtime) {
        let mut pause = self.truth.poll_every();
        loop {
            runtime.sleep(pause).await;
            let known = self.head();
            pause = match self.truth.bounds().await {
                Ok(bounds) => {
                    if bounds.log != self.log || bounds.head < known {
                        self.split.store(runtime.now().micros(), Ordering::Relaxed);
                    }
                    self.heard.store(runtime.now().micros(), Ordering::Relaxed);
                    self.failing.store(false, Ordering::Relaxed);
                    self.advance(bounds.head);
                    self.truth.poll_every()
                }
                Err(error) => {
                    self.failing.store(true, Ordering::Relaxed);
                    tracing::warn!(%error, "the head of the log cannot be read");
                    REST
                }
            };
        }
    }

    fn advance(&self, to: Position) {
        self.head.change(|head| {
            let newer = to > *head;
            *head = (*head).max(to);
            newer
        });
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recent {
    fn extend(&mut self, changes: &[Arc<Change>]) {
        for change in changes {
            let expected = self.changes.back().map(|last| last.position.next());
            if expected.is_some_and(|p| p != change.position) {
                self.changes.clear();
                self.bytes = 0;
            }
            self.bytes += change.weight();
            self.changes.push_back(Arc::clone(change));
        }
        while self.changes.len() > CHANGES_MAX || self.bytes > BYTES_MAX {
            match self.changes.pop_front() {
                Some(oldest) => self.bytes -= oldest.weight(),
                None => break,
            }
        }
    }

    /// `None` if the change after `after` is not in memory.
    fn after(
        &self,
        after: Position,
        changes_max: usize,
        bytes_max: usize,
    ) -> Option<Vec<Arc<Change>>> {
        let first = self.changes.front()?.position;
        let skip = usize::try_from(after.next().as_u64().checked_sub(first.as_u64())?).ok()?;
        if skip >= self.changes.len() {
            return None;
        }
        let mut bytes = 0;
        let within = |change: &&Arc<Change>| {
            let first = bytes == 0;
            bytes += change.weight();
            first || bytes <= bytes_max
        };
        Some(self.changes.range(skip..).take(changes_max).take_while(within).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use unisono_core::{Key, Operation};

    fn change(position: u64) -> Arc<Change> {
        Arc::new(Change {
            position: Position::new(position).unwrap(),
            entity: "e".into(),
            key: Key::Integer(1),
            operation: Operation::Delete,
            replaced: None,
            image: None,
            time: Timestamp::EPOCH,
            actor: None,
            trace: None,
        })
    }

    fn positions(recent: &Recent, after: u64, max: usize) -> Option<Vec<u64>> {
        let found = recent.after(Position::new(after).unwrap(), max, usize::MAX)?;
        Some(found.iter().map(|c| c.position.as_u64()).collect())
    }

    #[test]
    fn only_a_contiguous_run_is_answered_from_memory() {
        let mut recent = Recent::default();
        recent.extend(&[change(5), change(6), change(7)]);
        assert_eq!(positions(&recent, 5, 10), Some(vec![6, 7]));
        assert_eq!(positions(&recent, 4, 2), Some(vec![5, 6]));
        assert_eq!(positions(&recent, 3, 10), None, "change 4 is not in memory");
        recent.extend(&[change(9)]);
        assert_eq!(
            positions(&recent, 6, 10),
            None,
            "change 8 is missing, so 7 must not be taken for all there is"
        );
        assert_eq!(positions(&recent, 8, 10), Some(vec![9]));
    }

    #[test]
    fn memory_is_bounded() {
        let mut recent = Recent::default();
        for position in 1..=(CHANGES_MAX as u64 + 10) {
            recent.extend(&[change(position)]);
        }
        assert_eq!(recent.changes.len(), CHANGES_MAX);
        assert_eq!(recent.bytes, recent.changes.iter().map(|c| c.weight()).sum::<usize>());
    }
}
