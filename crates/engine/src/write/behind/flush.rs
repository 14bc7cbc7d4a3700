//! Flushing: what waits is committed by the truth, batch after batch, and then leaves the journal.

use std::sync::Arc;
use std::time::Duration;

use unisono_core::write::{Committed, Unit};
use unisono_core::{Effect, Error, Position, Result};
use unisono_policy::retry;
use unisono_policy::write::{FlushFailure, flush_failure};

use crate::runtime::Stopwatch;
use crate::write::behind::queue::Group;
use crate::write::behind::{Behind, State, count};

/// The most groups in one flush.
const GROUPS_MAX: usize = 1024;
/// The most suspect groups that are tried one by one in one flush.
const SUSPECTS_MAX: usize = 64;
/// The longest pause between two attempts: the truth is not left waiting when it is back.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How often in a row attempts have failed, and when the next one is due.
#[derive(Clone, Copy)]
struct Rest {
    attempts: u32,
    since: Stopwatch,
    pause: Duration,
}

impl Rest {
    fn left(&self) -> Duration {
        self.pause.saturating_sub(self.since.elapsed())
    }
}

/// What became of the groups of one flush.
#[derive(Default)]
struct Outcomes {
    committed: Vec<(Group, Position)>,
    refused: Vec<Group>,
    /// Those to be tried again, and whether they are to blame for it.
    kept: Vec<(Group, bool)>,
}

impl Behind {
    /// Flushes until everything is flushed and the engine closes.
    pub(super) async fn flush_all(self: Arc<Self>) {
        let fresh = || Rest { attempts: 0, since: self.runtime.stopwatch(), pause: Duration::ZERO };
        let (mut all, mut suspects) = (fresh(), fresh());
        while self.wait_due(&all, &suspects).await {
            if all.left().is_zero() {
                let groups = self.take(false, GROUPS_MAX);
                let failed = self.flush(groups).await;
                all = self.next(all, failed);
            }
            if suspects.left().is_zero() {
                let groups = self.take(true, SUSPECTS_MAX);
                let mut failed = false;
                for group in groups {
                    failed |= self.flush(vec![group]).await;
                }
                suspects = self.next(suspects, failed);
            }
        }
        self.resign().await;
        self.state.change(|state| !std::mem::replace(&mut state.stopped, true));
    }

    fn take(&self, suspect: bool, max: usize) -> Vec<Group> {
        self.state.get().queue.take(suspect, max)
    }

    fn next(&self, rest: Rest, failed: bool) -> Rest {
        let attempts = if failed { rest.attempts + 1 } else { 0 };
        let pause = match attempts {
            0 => Duration::ZERO,
            n => retry::backoff(n, self.runtime.random()).min(PAUSE_MAX),
        };
        Rest { attempts, since: self.runtime.stopwatch(), pause }
    }

    /// Waits until something is to be flushed; `false` at the end, when nothing is left.
    async fn wait_due(&self, all: &Rest, suspects: &Rest) -> bool {
        loop {
            let (due, closing) = {
                let state = self.state.get();
                if state.is_done(self.peers.is_some()) {
                    return false;
                }
                (self.due(&state, all, suspects), state.closing)
            };
            let watch = self.runtime.stopwatch();
            let sooner = |state: &State| {
                state.closing != closing
                    || match (due, self.due(state, all, suspects)) {
                        (_, None) => false,
                        (None, Some(_)) => true,
                        (Some(due), Some(now)) => watch.elapsed() + now < due,
                    }
            };
            match due {
                Some(due) if due.is_zero() => return true,
                Some(due) => tokio::select! {
                    biased;
                    () = self.state.until(sooner) => {}
                    () = self.runtime.sleep(due) => {}
                },
                None => self.state.until(sooner).await,
            }
        }
    }

    /// How long until something is to be flushed; `None` while nothing waits.
    fn due(&self, state: &State, all: &Rest, suspects: &Rest) -> Option<Duration> {
        state.tenure?;
        let ready = state.queue.first_ready().map(|first| {
            let oldest = first.watch.elapsed();
            let (pending, closing) = (state.queue.len(), state.closing);
            let wait = self.policies.behind(|policy| policy.flush_in(pending, oldest, closing));
            wait.max(all.left())
        });
        let suspect = state.queue.has_suspects().then(|| suspects.left());
        ready.into_iter().chain(suspect).min()
    }

    /// Flushes groups of different records; answers whether some have to be tried again.
    async fn flush(&self, groups: Vec<Group>) -> bool {
        if groups.is_empty() {
            return false;
        }
        match self.still_flushes().await {
            Ok(true) => {}
            Ok(false) => return false,
            Err(error) => {
                self.failed(&error);
                return true;
            }
        }
        let (groups, kept) = self.close_off(groups).await;
        let units = groups.iter().map(|group| self.unit(group)).collect();
        let results = self.log.committer.commit_each(units).await;
        let mut outcomes = Outcomes { kept, ..Outcomes::default() };
        for (group, result) in groups.into_iter().zip(results) {
            self.judge(group, result, &mut outcomes).await;
        }
        let failed = !outcomes.kept.is_empty();
        let gone = self.settle(outcomes, failed);
        self.remove_surely(&gone).await;
        failed
    }

    fn unit(&self, group: &Group) -> Unit {
        let accepted = &group.last.accepted;
        Unit {
            writes: vec![group.last.write.clone()],
            idempotency: Some(accepted.idempotency()),
            // The truth remembers outcomes for a time that begins here.
            time: self.runtime.now(),
            actor: accepted.actor.clone(),
            trace: accepted.trace.clone(),
        }
    }

    async fn judge(&self, group: Group, result: Result<Committed>, outcomes: &mut Outcomes) {
        let error = match result {
            Ok(committed) => {
                let position = committed.changes.last().map_or(Position::ZERO, |c| c.position);
                return outcomes.committed.push((group, position));
            }
            Err(error) => error,
        };
        let failure = match error.effect_on_data() {
            Effect::None => flush_failure(&error),
            // It may have taken place, and repeating it tells.
            Effect::Unknown | Effect::Committed => FlushFailure::Unreachable,
        };
        if failure == FlushFailure::Refused && matches!(self.still_flushes().await, Ok(true)) {
            let last = &group.last;
            match self.set_aside(last.sequence, &last.accepted, &error).await {
                Ok(()) => return outcomes.refused.push(group),
                Err(error) => self.failed(&error),
            }
        } else {
            self.trouble(&error, &group);
        }
        outcomes.kept.push((group, failure == FlushFailure::Suspect));
    }

    pub(super) fn trouble(&self, error: &Error, group: &Group) {
        self.failed(error);
        tracing::warn!(%error, entity = %self.entity.name(), key = %group.last.write.key,
            sequence = group.last.sequence, "an acknowledged write cannot be flushed; it will be tried again");
    }

    /// Lets those whose outcome is known wait no more; answers their sequences.
    fn settle(&self, outcomes: Outcomes, failed: bool) -> Vec<u64> {
        let mut gone = Vec::new();
        let Outcomes { committed, refused, kept } = outcomes;
        count(&self.counts.refused, refused.len());
        self.state.change(|state| {
            for (group, position) in &committed {
                state.queue.settle(group);
                if let Some(first) = group.sequences.first() {
                    state.flushed.add(*first, *position);
                }
                count(&self.counts.flushed, 1);
                count(&self.counts.coalesced, group.sequences.len() - 1);
                gone.extend_from_slice(&group.sequences);
            }
            for group in &refused {
                state.queue.settle(group);
                gone.extend_from_slice(&group.sequences);
            }
            for (group, suspect) in &kept {
                if *suspect {
                    state.queue.suspect(group);
                }
            }
            if !failed {
                state.error = None;
            }
            true
        });
        gone
    }

    /// Removes entries from the journal, however long it takes; one that stays is flushed again at the next start,
    /// which the truth notices for as long as it remembers.
    async fn remove_surely(&self, sequences: &[u64]) {
        let mut attempt = 0;
        while let Err(error) = self.remove(sequences).await {
            self.failed(&error);
            tracing::warn!(%error, entity = %self.entity.name(), "flushed writes cannot be removed from the journal");
            attempt += 1;
            let pause = retry::backoff(attempt, self.runtime.random());
            self.runtime.sleep(pause.min(PAUSE_MAX)).await;
        }
    }

    pub(super) async fn remove(&self, sequences: &[u64]) -> Result<()> {
        if sequences.is_empty() {
            return Ok(());
        }
        let outcomes = self.policies.present.load().declaration.log.outcomes;
        let before = self.runtime.now().minus(outcomes);
        let removed = self.journal.remove(self.entity.name(), sequences, before).await;
        removed.map_err(|e| e.at(&self.source).of(self.entity.name()))
    }
}
