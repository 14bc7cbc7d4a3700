//! Comparing one follower with the truth, record by record, while everything goes on.
//!
//! Both are scanned in key order and merged. What differs may only be on its way, so each suspect is looked at again:
//! the truth is read, the follower awaited up to that position and read, and the truth read once more. If the truth
//! did not change meanwhile, and the follower has nothing later, the verdict is exact; otherwise the key is looked at
//! anew.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use unisono_core::source::{At, Auditor, Reader};
use unisono_core::{Entity, Error, ErrorKind, Key, Position, Result, Stored};

use crate::delivery::{Delivery, Redelivered};
use crate::runtime::Runtime;
use crate::verify::report::{Comparison, Difference, Divergence};

const PAGE: usize = 1000;
/// Suspects looked at together.
const SUSPECTS: usize = 500;
/// How often a key that keeps changing is looked at before it is left to a later run.
const ROUNDS_MAX: usize = 50;
/// How long the follower may take to catch up with the truth.
const CATCH_UP: Duration = Duration::from_secs(60);

/// One follower, what it is compared with, and what has been found.
pub(crate) struct Audit<'a> {
    pub(crate) delivery: &'a Delivery,
    pub(crate) entity: &'a Arc<Entity>,
    pub(crate) truth: (&'a dyn Reader, &'a dyn Auditor),
    pub(crate) follower: &'a dyn Reader,
    pub(crate) head: &'a (dyn Fn() -> Position + Sync),
    pub(crate) runtime: &'a Runtime,
    pub(crate) repair: bool,
    pub(crate) found: Comparison,
}

impl Audit<'_> {
    /// Compares everything; `progress` is told after each page.
    pub(crate) async fn run(&mut self, progress: &(dyn Fn(&Comparison) + Sync)) -> Result<()> {
        self.found.position = (self.head)();
        self.catch_up(self.found.position).await?;
        let mut truth = Scan::default();
        let mut follower = Scan::default();
        let mut suspects = Vec::new();
        let mut compared = 0;
        loop {
            truth.refill(self.truth.1, self.entity).await?;
            follower.refill(self.delivery.target().auditor.as_ref(), self.entity).await?;
            let (t, f) = (truth.ahead.front(), follower.ahead.front());
            let (take_truth, take_follower) = match (t, f) {
                (None, None) => break,
                (Some(_), None) => (true, false),
                (None, Some(_)) => (false, true),
                (Some(t), Some(f)) => (t.key <= f.key, f.key <= t.key),
            };
            let t = if take_truth { truth.ahead.pop_front() } else { None };
            let f = if take_follower { follower.ahead.pop_front() } else { None };
            compared += 1;
            let wanted = t.as_ref().filter(|t| self.delivery.wants(t));
            if wanted != f.as_ref() {
                suspects.extend(t.as_ref().or(f.as_ref()).map(|s| s.key.clone()));
            }
            if suspects.len() >= SUSPECTS {
                self.judge(std::mem::take(&mut suspects)).await?;
            }
            if compared % PAGE as u64 == 0 {
                self.found.records = compared;
                progress(&self.found);
            }
        }
        self.judge(suspects).await?;
        self.found.records = compared;
        progress(&self.found);
        Ok(())
    }

    /// Looks at suspects until each is judged, and repairs what is different.
    async fn judge(&mut self, mut suspects: Vec<Key>) -> Result<()> {
        for _ in 0..ROUNDS_MAX {
            if suspects.is_empty() {
                return Ok(());
            }
            let (different, moving) = self.look(suspects).await?;
            suspects = moving;
            self.record(different).await?;
        }
        let keys = suspects.len();
        Err(Error::new(ErrorKind::TooStale, "some records changed too often to be compared")
            .with("keys", keys))
    }

    /// One look: what is certainly different, and what changed while being looked at.
    async fn look(&mut self, keys: Vec<Key>) -> Result<(Vec<(Key, Difference)>, Vec<Key>)> {
        let At { value: before, position } = self.truth.0.get(self.entity, &keys).await?;
        self.catch_up(position).await?;
        let held = self.follower.get(self.entity, &keys).await?.value;
        let after = self.truth.0.get(self.entity, &keys).await?.value;
        self.found.position = self.found.position.max(position);
        let (mut different, mut moving) = (Vec::new(), Vec::new());
        for (((key, before), held), after) in keys.into_iter().zip(before).zip(held).zip(after) {
            let changed = before.as_ref().map(|s| s.version) != after.as_ref().map(|s| s.version);
            // A record that was absent, came and went looks unchanged.
            if changed || self.is_later(held.as_ref(), position) {
                moving.push(key);
                continue;
            }
            let wanted = before.as_ref().filter(|t| self.delivery.wants(t));
            if let Some(class) = classify(wanted, held.as_ref()) {
                let difference = Difference {
                    key: key.to_string(),
                    class,
                    truth: before.map(|s| s.version),
                    follower: held.map(|s| s.version),
                    repaired: false,
                };
                different.push((key, difference));
            }
        }
        Ok((different, moving))
    }

    async fn record(&mut self, different: Vec<(Key, Difference)>) -> Result<()> {
        let (keys, mut differences): (Vec<_>, Vec<_>) = different.into_iter().unzip();
        if self.repair && !keys.is_empty() {
            let accepted = self.delivery.redeliver(keys.clone()).await?;
            let still = self.follower_differs(&keys).await?;
            for ((difference, outcome), still) in differences.iter_mut().zip(accepted).zip(still) {
                difference.repaired = matches!(outcome, Redelivered::Accepted) && !still;
            }
        }
        for difference in differences {
            self.found.different += 1;
            self.found.repaired += u64::from(difference.repaired);
            if self.found.differences.len() < Comparison::DIFFERENCES_MAX {
                self.found.differences.push(difference);
            }
        }
        Ok(())
    }

    /// Whether each key differs after repair. One that changes at this moment is on its way by the log.
    async fn follower_differs(&self, keys: &[Key]) -> Result<Vec<bool>> {
        let At { value: truth, position } = self.truth.0.get(self.entity, keys).await?;
        self.catch_up(position).await?;
        let held = self.follower.get(self.entity, keys).await?.value;
        let differs = |(truth, held): (&Option<Stored>, &Option<Stored>)| {
            let wanted = truth.as_ref().filter(|t| self.delivery.wants(t));
            !self.is_later(held.as_ref(), position) && classify(wanted, held.as_ref()).is_some()
        };
        Ok(truth.iter().zip(&held).map(differs).collect())
    }

    /// Whether the follower holds a record that the truth has written since a position.
    fn is_later(&self, held: Option<&Stored>, position: Position) -> bool {
        held.is_some_and(|held| held.version > position && held.version <= (self.head)())
    }

    async fn catch_up(&self, position: Position) -> Result<()> {
        let reached = async {
            self.delivery.wait_applied(position).await;
            Ok(())
        };
        self.runtime.within(CATCH_UP, reached).await.map_err(|_| {
            Error::new(ErrorKind::TooStale, "the follower does not catch up with the truth")
                .hint("see `unisono status` for what holds its delivery up")
        })
    }
}

/// How a follower's record differs from what it should be; `None` if it does not.
fn classify(wanted: Option<&Stored>, held: Option<&Stored>) -> Option<Divergence> {
    match (wanted, held) {
        (None, None) => None,
        (Some(_), None) => Some(Divergence::Missing),
        (None, Some(_)) => Some(Divergence::Orphan),
        (Some(w), Some(h)) if h.version < w.version => Some(Divergence::Stale),
        (Some(w), Some(h)) if h.version > w.version => Some(Divergence::Ahead),
        (Some(w), Some(h)) => (w.record != h.record).then_some(Divergence::Corrupt),
    }
}

/// A scan that is ahead by at most a page.
#[derive(Default)]
struct Scan {
    ahead: VecDeque<Stored>,
    last: Option<Key>,
    end: bool,
}

impl Scan {
    async fn refill(&mut self, auditor: &dyn Auditor, entity: &Arc<Entity>) -> Result<()> {
        if !self.ahead.is_empty() || self.end {
            return Ok(());
        }
        let page = auditor.scan(entity, self.last.as_ref(), PAGE).await?.value;
        self.last = page.records.last().map(|s| s.key.clone()).or(self.last.take());
        self.end = page.end || page.records.is_empty();
        self.ahead = page.records.into();
        Ok(())
    }
}
