//! Judging suspects, whatever made them suspect.
//!
//! What differs may only be on its way, so each suspect is looked at: the truth is read, the follower awaited up to that
//! position and read, and the truth read once more. If the truth did not change meanwhile, and the follower has nothing
//! later, the verdict is exact. A record that changed meanwhile agrees if the follower has a state in between; else it is
//! looked at anew.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::try_join;
use unisono_core::source::{At, Auditor, Reader};
use unisono_core::{Entity, Error, ErrorKind, Key, Position, Result, Stored};

use crate::delivery::{Delivery, Redelivered};
use crate::runtime::Runtime;
use crate::verify::report::{Comparison, Depth, Difference, Divergence};

/// Suspects looked at together.
const SUSPECTS: usize = 500;
/// How often a key that keeps changing is looked at before it is left to a later run.
const ROUNDS_MAX: usize = 50;
/// How long the follower may take to catch up with the truth.
const CATCH_UP: Duration = Duration::from_secs(60);

/// Writes a record of the truth again, unless it has changed since.
pub(crate) type Rewrite<'a> = &'a (dyn Fn(Stored) -> BoxFuture<'a, Result<()>> + Sync);

/// Told how far a comparison has come.
pub(crate) type Tell<'a> = &'a (dyn Fn(&Comparison) + Sync);

/// What is done with what differs.
#[derive(Clone, Copy)]
pub(crate) struct Repair<'a> {
    /// For a record of which the follower claims a later version than the truth's; without it such a one stays.
    pub(crate) rewrite: Option<Rewrite<'a>>,
}

/// One follower, what it is compared with, and what has been found.
pub(crate) struct Audit<'a> {
    pub(crate) delivery: &'a Delivery,
    pub(crate) entity: &'a Arc<Entity>,
    pub(crate) truth: (&'a dyn Reader, &'a dyn Auditor),
    pub(crate) follower: &'a dyn Reader,
    pub(crate) head: &'a (dyn Fn() -> Position + Sync),
    pub(crate) runtime: &'a Runtime,
    pub(crate) repair: Option<Repair<'a>>,
    /// Records a second at most that are read back in a deep comparison, or repaired.
    pub(crate) rate: Option<u32>,
    pub(crate) found: Comparison,
}

impl Audit<'_> {
    /// Compares everything; `tell` is called every now and then, and at the end.
    pub(crate) async fn run(&mut self, tell: Tell<'_>) -> Result<()> {
        self.found.position = (self.head)();
        self.catch_up(self.found.position).await?;
        match self.found.depth {
            Depth::Ledger => self.ledger().await?,
            Depth::Observed => self.observed(tell).await?,
            Depth::Deep => self.deep(tell).await?,
        }
        tell(&self.found);
        Ok(())
    }

    /// Looks at suspects until each is judged, and repairs what is different.
    pub(super) async fn judge(&mut self, suspects: Vec<Key>) -> Result<()> {
        for some in suspects.chunks(SUSPECTS) {
            let mut left = some.to_vec();
            let mut rounds = 0;
            while !left.is_empty() {
                if rounds == ROUNDS_MAX {
                    let message = "some records changed too often to be compared";
                    return Err(Error::new(ErrorKind::TooStale, message).with("keys", left.len()));
                }
                let (different, moving) = self.look(left).await?;
                self.record(different).await?;
                left = moving;
                rounds += 1;
            }
        }
        Ok(())
    }

    /// One look: what is certainly different, and what changed while being looked at.
    async fn look(&mut self, keys: Vec<Key>) -> Result<(Vec<(Key, Difference)>, Vec<Key>)> {
        let At { value: before, position } = self.truth.0.get(self.entity, &keys).await?;
        self.catch_up(position).await?;
        let held = self.held(&keys).await?;
        let after = self.truth.0.get(self.entity, &keys).await?.value;
        self.found.position = self.found.position.max(position);
        let (mut different, mut moving) = (Vec::new(), Vec::new());
        for (((key, before), held), after) in keys.into_iter().zip(before).zip(held).zip(after) {
            let changed = before.as_ref().map(|s| s.version) != after.as_ref().map(|s| s.version);
            // A record that was absent, came and went looks unchanged.
            if changed || self.is_later(held.as_ref(), position) {
                if !is_between(before.as_ref(), held.as_ref(), after.as_ref()) {
                    moving.push(key);
                }
                continue;
            }
            if let Some(class) = self.classify(before.as_ref(), held.as_ref(), position) {
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

    /// What the follower has, as its auditor tells it if it knows more than a read by key.
    async fn held(&self, keys: &[Key]) -> Result<Vec<Option<Stored>>> {
        let held = self.delivery.target().auditor.held(self.entity, keys).await?;
        match held {
            Some(held) => Ok(held.value),
            None => Ok(self.follower.get(self.entity, keys).await?.value),
        }
    }

    async fn record(&mut self, different: Vec<(Key, Difference)>) -> Result<()> {
        let rate = self.rate.filter(|_| self.repair.is_some());
        let step = rate.map_or(SUSPECTS, |rate| (rate as usize).clamp(1, SUSPECTS));
        for some in different.chunks(step) {
            let repaired = self.repaired(some).await?;
            for ((_, difference), repaired) in some.iter().zip(repaired) {
                self.found.add(Difference { repaired, ..difference.clone() });
            }
            pace(rate, some.len(), self.runtime).await;
        }
        Ok(())
    }

    /// Repairs records, if that is asked for; answers which agree now.
    async fn repaired(&self, different: &[(Key, Difference)]) -> Result<Vec<bool>> {
        let Some(repair) = self.repair else { return Ok(vec![false; different.len()]) };
        let keys: Vec<Key> = different.iter().map(|(key, _)| key.clone()).collect();
        if let Some(rewrite) = repair.rewrite {
            self.outbid(different, rewrite).await?;
        }
        let accepted = self.delivery.repair(keys.clone()).await?;
        let still = self.follower_differs(&keys).await?;
        let is_repaired = |(outcome, still): (Redelivered, bool)| {
            matches!(outcome, Redelivered::Accepted) && !still
        };
        Ok(accepted.into_iter().zip(still).map(is_repaired).collect())
    }

    /// The follower takes the truth's record for an old one where it claims to have a later version. Written once more
    /// it is newer than all that there was; unless the follower claims what the log has not come to.
    async fn outbid(&self, different: &[(Key, Difference)], rewrite: Rewrite<'_>) -> Result<()> {
        let is_ahead = |(_, difference): &&(Key, Difference)| difference.class == Divergence::Ahead;
        let ahead = different.iter().filter(is_ahead).map(|(key, _)| key.clone());
        let ahead: Vec<Key> = ahead.collect();
        for stored in self.truth.0.get(self.entity, &ahead).await?.value.into_iter().flatten() {
            match rewrite(stored).await {
                // Somebody else has written it: that is newer, too.
                Err(error) if error.kind() == ErrorKind::VersionConflict => {}
                rewritten => rewritten?,
            }
        }
        Ok(())
    }

    /// Whether each key differs after repair. One that changes at this moment is on its way by the log.
    async fn follower_differs(&self, keys: &[Key]) -> Result<Vec<bool>> {
        let At { value: truth, position } = self.truth.0.get(self.entity, keys).await?;
        self.catch_up(position).await?;
        let held = self.held(keys).await?;
        let differs = |(truth, held): (&Option<Stored>, &Option<Stored>)| {
            !self.is_later(held.as_ref(), position)
                && self.classify(truth.as_ref(), held.as_ref(), position).is_some()
        };
        Ok(truth.iter().zip(&held).map(differs).collect())
    }

    /// What both sides answer, asked at the same time.
    pub(super) async fn both<T>(
        &self,
        truth: impl Future<Output = Result<At<T>>>,
        follower: impl Future<Output = Result<At<T>>>,
    ) -> Result<(T, T)> {
        let (truth, follower) = try_join!(truth, follower)?;
        Ok((truth.value, follower.value))
    }

    /// Whether the follower holds a record that the truth has written since a position.
    fn is_later(&self, held: Option<&Stored>, position: Position) -> bool {
        held.is_some_and(|held| held.version > position && held.version <= (self.head)())
    }

    /// How a follower's record differs from what it should be, everything up to `position` being there; `None` if it does
    /// not. Of what its `map` does not work out it can hold nothing that is right.
    fn classify(
        &self,
        truth: Option<&Stored>,
        held: Option<&Stored>,
        position: Position,
    ) -> Option<Divergence> {
        let kept = truth.map_or(Ok(None), |truth| self.delivery.kept(truth));
        let wanted = truth.filter(|_| !matches!(kept, Ok(None)));
        match (wanted, held) {
            (None, None) => None,
            (Some(_), None) => Some(Divergence::Missing),
            (None, Some(h)) if h.version > position => Some(Divergence::Ahead),
            (None, Some(_)) => Some(Divergence::Orphan),
            (Some(w), Some(h)) if h.version < w.version => Some(Divergence::Stale),
            (Some(w), Some(h)) if h.version > w.version => Some(Divergence::Ahead),
            (Some(_), Some(h)) => {
                let is_right = matches!(&kept, Ok(Some(kept)) if kept.record == h.record);
                (!is_right).then_some(Divergence::Corrupt)
            }
        }
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

/// Waits for as long as so many records take at a rate.
pub(super) async fn pace(rate: Option<u32>, records: usize, runtime: &Runtime) {
    if let Some(rate) = rate {
        let second = Duration::from_secs(1);
        runtime.sleep(second.mul_f64(records as f64 / f64::from(rate.max(1)))).await;
    }
}

/// Whether the follower has a state of a record that the truth went through while it was looked at.
fn is_between(before: Option<&Stored>, held: Option<&Stored>, after: Option<&Stored>) -> bool {
    match (before, held, after) {
        (Some(before), Some(held), Some(after)) => {
            before.version <= held.version && held.version <= after.version
        }
        _ => false,
    }
}
