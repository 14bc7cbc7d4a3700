//! [`Sender`]: the follower that a delivery feeds to have an outlet sent what happens.
//!
//! The outlet itself tells nothing, so the truth keeps how far it has come, in a record that is written only in the version
//! that was seen: of several processes at most one gets each step. Who sends besides holds a *claim* in the same record,
//! and renews it while it sends. It stops sending when the claim could have run out, and another one takes it only later: by
//! clocks that are never compared, because each measures only how long it has seen nothing new.
//!
//! What was taken before a failure is remembered as long as the process lives, so that only a process that ends, and
//! an answer that is lost, have messages sent twice. An outlet is never copied over what it has: where the log has been
//! trimmed before it was sent, and at its beginning, what the truth holds is sent in the order of keys while the stream
//! waits, each with the version that it has.

mod claim;
mod lanes;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use unisono_core::auditor::ScanPage;
use unisono_core::outlet::{Begin, Manner, Message, Outlet, is_away};
use unisono_core::source::{Advance, Applied, At, Auditor, Batch, Checkpoint, Follower, Outcome};
use unisono_core::{Entity, Error, ErrorKind, Key, Position, Result};

use crate::log::Log;
use crate::runtime::{Runtime, Stopwatch};
use claim::Claim;

/// The space of what is kept of outlets.
const SPACE: &str = "outlet";
/// The most changes that are passed without a message before that is kept: each time is a change itself.
const PASSED_MAX: u64 = 10_000;

/// Sends an outlet what happens to the records of an entity, or in its streams.
pub(crate) struct Sender {
    /// What is kept of it is kept under this.
    name: String,
    source: Arc<str>,
    entity: Arc<Entity>,
    outlet: Arc<dyn Outlet>,
    manner: Manner,
    log: Arc<Log>,
    runtime: Runtime,
    claim: Claim,
    /// One step at a time.
    stepping: tokio::sync::Mutex<()>,
    /// Where it is without a message since the checkpoint that is kept, and that checkpoint.
    passed: Mutex<Option<(Checkpoint, Checkpoint)>>,
    /// What became of messages beyond the checkpoint: taken, or refused for good.
    settled: Mutex<BTreeMap<Position, Option<Error>>>,
    /// For how long the other side wants to be left alone, and since when.
    told: Mutex<Option<(Stopwatch, Duration)>>,
}

impl Sender {
    pub(crate) fn new(
        entity: &Arc<Entity>,
        source: &Arc<str>,
        (outlet, manner): (Arc<dyn Outlet>, Manner),
        log: &Arc<Log>,
        runtime: &Runtime,
    ) -> Self {
        Sender {
            name: format!("{}/{source}", entity.name()),
            source: Arc::clone(source),
            entity: Arc::clone(entity),
            outlet,
            manner,
            log: Arc::clone(log),
            runtime: runtime.clone(),
            claim: Claim::new(runtime.uuid()),
            stepping: tokio::sync::Mutex::default(),
            passed: Mutex::default(),
            settled: Mutex::default(),
            told: Mutex::default(),
        }
    }

    /// The messages of some changes, and the outcomes of those of which there is none.
    fn messages(
        &self,
        batch: &Batch,
        since: Option<Position>,
    ) -> (Vec<(usize, Message)>, Vec<Outcome>) {
        let (mut messages, mut outcomes) = (Vec::new(), Vec::with_capacity(batch.changes.len()));
        let until = batch.advance.as_ref().map(|advance| advance.to.position);
        let again = batch.advance.is_none() || batch.copied;
        for (n, change) in batch.changes.iter().enumerate() {
            outcomes.push(Outcome::Stale);
            // A copy brings also what was sent before, and what the stream will bring.
            let was_sent = since.is_some_and(|since| change.position <= since);
            let comes = batch.copied && until.is_some_and(|until| change.position > until);
            if was_sent || comes {
                continue;
            }
            match Message::of(&self.entity, change, again) {
                Ok(Some(message)) => messages.push((n, message)),
                Ok(None) => {}
                Err(error) => outcomes[n] = Outcome::Rejected(error),
            }
        }
        (messages, outcomes)
    }

    /// Sends what a batch brings, and keeps that it was sent.
    async fn step(&self, batch: &Batch, from: Checkpoint, to: Checkpoint) -> Result<Applied> {
        let since = if batch.copied { self.since().await? } else { None };
        let (messages, mut outcomes) = self.messages(batch, since);
        let is_settled = |outcomes: &[Outcome]| {
            outcomes.iter().all(|o| matches!(o, Outcome::Applied | Outcome::Stale))
        };
        let is_quiet = messages.is_empty() && self.settled().is_empty();
        if is_quiet && from.backfill.is_none() && to.backfill.is_none() && is_settled(&outcomes) {
            return match self.pass(&from, &to) {
                true => Ok(Applied { outcomes, advanced: true }),
                false => {
                    self.keep(&from, to, None).await.map(|()| Applied { outcomes, advanced: true })
                }
            };
        }
        self.hold(&from).await?;
        if !messages.is_empty() {
            for (n, outcome) in self.send_all(messages).await? {
                outcomes[n] = outcome;
            }
        }
        let advanced = is_settled(&outcomes);
        if advanced {
            let begins = from.backfill.is_none() && to.backfill.is_some();
            // Told to make a copy where it is: everything again. Beyond the log: what came since.
            let since = match begins {
                true if from.position == to.position => Some(Position::ZERO),
                true => Some(from.position),
                false => since,
            };
            self.keep(&from, to, since).await?;
        }
        Ok(Applied { outcomes, advanced })
    }

    /// Goes on without a message, and without keeping that; answers whether that can be.
    fn pass(&self, from: &Checkpoint, to: &Checkpoint) -> bool {
        let mut passed = self.passed();
        let kept = match &*passed {
            Some((kept, at)) if at == from => kept.clone(),
            Some((kept, _)) if kept == from => kept.clone(),
            Some(_) => return false,
            None => from.clone(),
        };
        if to.position.since(kept.position) > PASSED_MAX || kept.log != to.log {
            return false;
        }
        *passed = Some((kept, to.clone()));
        true
    }

    /// Sends again what was set aside.
    async fn again(&self, batch: &Batch) -> Result<Applied> {
        let (messages, mut outcomes) = self.messages(batch, None);
        for (n, message) in messages {
            outcomes[n] = match self.outlet.send(&message).await {
                Ok(()) => Outcome::Applied,
                Err(error) if is_away(&error) => Outcome::Retry(error),
                Err(error) => Outcome::Rejected(error),
            };
        }
        Ok(Applied { outcomes, advanced: false })
    }

    /// Where a new outlet begins.
    async fn beginning(&self) -> Result<Checkpoint> {
        let bounds = self.log.truth.bounds().await?;
        let at = |position, backfill| Checkpoint { log: bounds.log, position, backfill };
        Ok(match self.manner.begin {
            Begin::Now => at(bounds.head, None),
            // The log has everything.
            Begin::First if bounds.trimmed == Position::ZERO => at(Position::ZERO, None),
            Begin::First => at(bounds.head, Some(String::new())),
        })
    }

    fn moved(&self) -> Error {
        let message = "the outlet has come further, or is sent by another process";
        Error::new(ErrorKind::CheckpointMoved, message).at(&self.source).of(self.entity.name())
    }

    fn passed(&self) -> std::sync::MutexGuard<'_, Option<(Checkpoint, Checkpoint)>> {
        self.passed.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn settled(&self) -> std::sync::MutexGuard<'_, BTreeMap<Position, Option<Error>>> {
        self.settled.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[async_trait]
impl Follower for Sender {
    async fn apply(&self, batch: Batch) -> Result<Applied> {
        let _one = self.stepping.lock().await;
        match &batch.advance {
            None => self.again(&batch).await,
            Some(Advance { from: Some(from), to }) => {
                self.step(&batch, from.clone(), to.clone()).await
            }
            Some(Advance { from: None, .. }) => Err(self.moved()),
        }
    }

    async fn checkpoint(&self, _: &Arc<Entity>) -> Result<Option<Checkpoint>> {
        let kept = match self.look().await? {
            Some(kept) => kept,
            None => {
                let first = self.beginning().await?;
                self.make(&first).await?;
                first
            }
        };
        let passed = self.passed();
        let at = passed.as_ref().filter(|(from, _)| *from == kept).map(|(_, at)| at.clone());
        Ok(Some(at.unwrap_or(kept)))
    }

    /// Nothing can be taken back: it goes on where it is.
    async fn reset(&self, _: &Arc<Entity>) -> Result<()> {
        Ok(())
    }

    async fn rest(&self) {
        self.let_go().await;
    }
}

/// Of an outlet nothing is known but what it was sent.
#[async_trait]
impl Auditor for Sender {
    async fn scan(&self, _: &Arc<Entity>, _: Option<&Key>, _: usize) -> Result<At<ScanPage>> {
        let nothing = ScanPage { records: Vec::new(), end: true };
        Ok(At { value: nothing, position: Position::ZERO })
    }
}
