//! Carrying changes from the log to the followers: one `Delivery` for each follower and entity.
//!
//! A delivery is one task. It reads the log after its checkpoint, keeps the changes of its entity, cuts out what its
//! `where` excludes, works out what its `map` does, folds superseded changes of a key, and has the follower apply the rest; the checkpoint moves in
//! the same step as the data. A follower without a checkpoint (new, wiped, restored too old) is copied from the
//! truth beside the stream. Read `session.rs` first.

mod before;
mod copy;
mod copying;
pub mod dead_letter;
mod keeping;
mod letters;
mod progress;
mod redeliver;
mod repairs;
mod session;
mod still;
mod stream;
pub(crate) mod turns;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use unisono_core::source::{Auditor, Follower, Reader};
use unisono_core::{Capability, Entity, Error, ErrorKind, Key, Position, Result};
use unisono_policy::adaptive::Facts;
use unisono_policy::delivery::DeliveryPolicy;
use unisono_policy::mapping::Mapping;
use unisono_policy::projection::Projection;
use unisono_policy::retry;
use unisono_policy::rule::Rule;

use crate::log::{Log, trim};
use crate::personal::Keyring;
use crate::policies::PresentEntity;
use crate::projection::News;
use crate::read::handle::SourceHandle;
use crate::runtime::Runtime;
use crate::status::{DeliveryState, DeliveryStatus};
use crate::verify::report::Comparison;
use crate::watched::Watched;
pub(crate) use letters::all as all_letters;

use dead_letter::DeadLetter;
use progress::{Progress, Reach};
use repairs::Repairs;

/// The longest pause between two attempts: one request in this time does no harm to a follower that is down, and one
/// that has come back is not left waiting.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// What a delivery works with.
pub(crate) struct Target {
    /// The entity whose changes are delivered.
    pub(crate) entity: Arc<Entity>,
    /// Set if the follower is a projection: `entity` is then what it is worked out from.
    pub(crate) projection: Option<Arc<Projection>>,
    /// Whether it stands still: what the follower has was made by another definition, and is answered as it is.
    pub(crate) still: bool,
    /// What becomes of its rows.
    pub(crate) news: Option<Arc<News>>,
    /// The follower's source name.
    pub(crate) source: Arc<str>,
    /// Whether it is an outlet: what it was sent cannot be compared, and is never sent again without need.
    pub(crate) outlet: bool,
    /// Who applies them.
    pub(crate) follower: Arc<dyn Follower>,
    /// Tells which records the follower holds, to find those that should not be there.
    pub(crate) auditor: Arc<dyn Auditor>,
    /// The truth as it is to hold it.
    pub(crate) truth: (Arc<dyn Reader>, Arc<dyn Auditor>),
    /// Set if it gets personal values as they are.
    pub(crate) clear: Option<Arc<Keyring>>,
    /// How it wants to be fed.
    pub(crate) capability: Capability,
    /// Which records it holds; all if absent.
    pub(crate) filter: Option<Arc<Rule>>,
    /// What it keeps of each; all as it is if absent.
    pub(crate) map: Option<Arc<Mapping>>,
    /// The texts of both, by which it is told whether the follower is to hold something else than it does.
    pub(crate) rule: Option<String>,
    /// The delivery whose follower must have a change before.
    pub(crate) after: Option<Arc<Delivery>>,
    /// How it is fed at present.
    pub(crate) policies: PresentEntity,
    /// The source itself.
    pub(crate) handle: Arc<SourceHandle>,
}

/// One follower of one entity, and the task that feeds it.
pub(crate) struct Delivery {
    target: Target,
    log: Arc<Log>,
    runtime: Runtime,
    progress: Arc<Progress>,
    repairs: Repairs,
    commands: mpsc::Sender<Command>,
    /// Why it is to end, if it is.
    closing: Watched<Option<End>>,
}

/// What a delivery can be told to do, between two batches.
enum Command {
    /// Copy everything from the truth again, beside the stream.
    Copy,
    /// Deliver the current state of these records.
    Redeliver { keys: Vec<Key>, reply: oneshot::Sender<Result<Vec<Redelivered>>> },
    /// Forget a dead letter.
    Discard { key: String, reply: oneshot::Sender<Result<()>> },
}

/// Why a delivery ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Nothing is to be delivered any more.
    Closed,
    /// Another one goes on in its place.
    Replaced,
}

impl Target {
    /// What the follower holds: the entity, or the rows of a projection of it in the place where they are.
    pub(crate) fn name(&self) -> &Arc<str> {
        self.projection.as_ref().map_or(self.entity.name(), |projection| projection.rows.name())
    }

    /// The entity that callers read it as.
    pub(crate) fn read_as(&self) -> &Arc<str> {
        self.projection.as_ref().map_or(self.entity.name(), |projection| projection.name())
    }

    /// The text of the rule by which it holds what it holds; `None` if it holds all records as they are.
    pub(crate) fn rule(&self) -> Option<Cow<'_, str>> {
        match &self.projection {
            Some(projection) => Some(projection.rule()),
            None => self.rule.as_deref().map(Cow::Borrowed),
        }
    }

    /// Whether it lacks some of what is read from it.
    pub(crate) fn is_filtered(&self) -> bool {
        self.filter.is_some() && self.projection.is_none()
    }
}

/// What became of a record that was delivered again.
#[derive(Clone, Debug)]
pub(crate) enum Redelivered {
    /// The follower has it.
    Accepted,
    /// The follower refuses it; it is a dead letter.
    Rejected,
}

impl Delivery {
    /// Starts the task.
    pub(crate) fn start(target: Target, log: Arc<Log>, runtime: &Runtime) -> Arc<Self> {
        let progress = Arc::new(Progress::new(runtime.clock()));
        let (delivery, inbox) = Delivery::new(target, log, runtime, progress);
        runtime.spawn(Arc::clone(&delivery).run(inbox));
        delivery
    }

    /// Goes on in place of another one to the same follower, as soon as that has ended. If the follower is to hold other
    /// records, or follows another log, it answers nothing until it was brought into line.
    pub(crate) fn instead_of(other: &Arc<Self>, target: Target, log: &Arc<Log>) -> Arc<Self> {
        let progress = match other.target.rule() == target.rule() && other.is_of(log) {
            true => Arc::clone(&other.progress),
            false => {
                other.progress.retire();
                Arc::new(Progress::new(other.runtime.clock()))
            }
        };
        other.end(End::Replaced);
        let runtime = &other.runtime;
        let (delivery, inbox) = Delivery::new(target, Arc::clone(log), runtime, progress);
        let (begins, ends) = (Arc::clone(&delivery), Arc::clone(other));
        runtime.spawn(async move {
            ends.wait_stopped().await;
            drop(ends);
            begins.run(inbox).await;
        });
        delivery
    }

    fn new(
        target: Target,
        log: Arc<Log>,
        runtime: &Runtime,
        progress: Arc<Progress>,
    ) -> (Arc<Self>, mpsc::Receiver<Command>) {
        let (commands, inbox) = mpsc::channel(64);
        let delivery = Delivery {
            target,
            log,
            runtime: runtime.clone(),
            progress,
            repairs: Repairs::default(),
            commands,
            closing: Watched::default(),
        };
        (Arc::new(delivery), inbox)
    }

    /// Whether it carries the changes of a log.
    pub(crate) fn is_of(&self, log: &Log) -> bool {
        std::ptr::eq(&*self.log, log)
    }

    /// Whether it goes to the same follower.
    pub(crate) fn is_to(&self, other: &Target) -> bool {
        self.target.name() == other.name() && self.target.source == other.source
    }

    /// Whether it does what one with such a target would do.
    pub(crate) fn is_as(&self, other: &Target) -> bool {
        let after = |target: &Target| target.after.as_ref().map(Arc::as_ptr);
        self.target.rule() == other.rule()
            && self.target.still == other.still
            && after(&self.target) == after(other)
    }

    /// What it works with.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// The truth as the follower is to hold it.
    pub(crate) fn truth(&self) -> (&dyn Reader, &dyn Auditor) {
        (self.target.truth.0.as_ref(), self.target.truth.1.as_ref())
    }

    /// Everything up to here is applied and visible in the follower.
    pub(crate) fn applied(&self) -> Position {
        self.progress.applied()
    }

    /// The same beside the checkpoint; `None` while the first copy is not complete.
    pub(crate) fn reach(&self) -> Option<Reach> {
        self.progress.reach()
    }

    /// Everything up to here is applied, durably: what trimming may count on.
    pub(crate) fn saved_position(&self) -> Position {
        self.progress.saved()
    }

    /// Whether the follower can answer for the whole entity: its first copy is complete.
    pub(crate) fn is_complete(&self) -> bool {
        self.progress.is_complete()
    }

    /// Whether the follower refuses one of some records (of all, if no keys are given), so that what it has of it may be
    /// older than its position says; and a number that changes with the answer.
    pub(crate) fn is_refused(&self, keys: &[Key]) -> (bool, u64) {
        self.progress.is_refused(keys)
    }

    /// Waits until everything up to a position is applied.
    pub(crate) async fn wait_applied(&self, position: Position) {
        self.progress.reaches(position).await;
    }

    /// Whether it is certain that the follower takes nothing in for a while: its first copy is being made, it has failed
    /// again and again, or the delivery has ended.
    pub(crate) fn is_stuck(&self) -> bool {
        self.progress.is_stuck()
    }

    /// How it is doing.
    pub(crate) fn status(&self) -> DeliveryStatus {
        let status = self.progress.status(&self.target, self.log.tail.head(), self.runtime.now());
        DeliveryStatus { repaired_often: self.repairs.often(), ..status }
    }

    /// What `adaptive` judges its follower by; `blocked` if it is not asked at present, and with how many sessions had
    /// failed at the last look.
    pub(crate) fn facts(&self, blocked: bool, failed_before: u64) -> (Facts, u64) {
        let (failed, in_a_row) = self.progress.failures();
        let facts = Facts {
            source: Arc::clone(&self.target.source),
            filtered: self.target.is_filtered(),
            latency: self.progress.latency(),
            lag: Duration::from_secs_f64(self.lag_seconds().max(0.0)),
            lag_changes: self.log.tail.head().since(self.applied()),
            failures: failed.saturating_sub(failed_before).max(in_a_row.into()),
            away: blocked || self.is_stuck() || !self.is_complete(),
        };
        (facts, failed)
    }

    /// Seconds since the oldest change that is not applied was committed.
    pub(crate) fn lag_seconds(&self) -> f64 {
        self.progress.lag_seconds(self.log.tail.head(), self.runtime.now())
    }

    /// How many changes trimming keeps for it, of those that the log has.
    pub(crate) fn held_changes(&self, trimmed: Position) -> u64 {
        let changes_max = self.target.policies.present.load().declaration.log.changes_max;
        trim::held(self.log.tail.head(), self.saved_position(), changes_max)
            .map_or(0, |from| self.log.tail.head().since(from.max(trimmed)))
    }

    /// Has everything copied again, beside the stream.
    pub(crate) async fn copy_again(&self) -> Result<()> {
        self.target.handle.refuse_if_paused()?;
        self.send(Command::Copy).await
    }

    /// Takes note of a comparison with the truth.
    pub(crate) fn was_compared(&self, found: &Comparison) {
        self.progress.compared(found, self.runtime.now());
    }

    /// The records that the follower refuses.
    pub(crate) fn refused_keys(&self) -> Result<Vec<Key>> {
        let keys = self.progress.refused_keys();
        keys.iter().map(|key| Key::parse(&self.target.entity, key)).collect()
    }

    /// Delivers the current state of records that differ from it. One that is repaired again and again is complained of.
    pub(crate) async fn repair(&self, keys: Vec<Key>) -> Result<Vec<Redelivered>> {
        for key in self.repairs.count(&keys) {
            tracing::error!(%key, entity = %self.target.name(), source = %self.target.source,
                "a record had to be repaired three times: somebody else writes there");
        }
        self.redeliver(keys).await
    }

    /// Delivers the current state of records again: repair, and replay of dead letters.
    pub(crate) async fn redeliver(&self, keys: Vec<Key>) -> Result<Vec<Redelivered>> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Redeliver { keys, reply }).await?;
        answer.await.map_err(|_| self.ended())?
    }

    /// Has the current state of a record delivered again, when there is time for it.
    pub(crate) fn wake(&self, key: &Key) {
        let (reply, _) = oneshot::channel();
        // One that has much to do already will come to it in the stream, or is found by verification.
        let _ = self.commands.try_send(Command::Redeliver { keys: vec![key.clone()], reply });
    }

    /// Forgets a dead letter.
    pub(crate) async fn discard(&self, letter: &DeadLetter) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Discard { key: letter.key.clone(), reply }).await?;
        answer.await.map_err(|_| self.ended())?
    }

    /// Waits until the task has ended.
    pub(crate) async fn wait_stopped(&self) {
        self.commands.closed().await;
    }

    /// Ends the task after the batch at hand, with the checkpoint saved.
    pub(crate) fn close(&self) {
        self.end(End::Closed);
    }

    fn end(&self, end: End) {
        self.closing.change(|closing| {
            let is_first = closing.is_none();
            *closing = closing.or(Some(end));
            is_first
        });
    }

    fn policy(&self) -> DeliveryPolicy {
        self.target.policies.delivery(&self.target.source)
    }

    fn is_closing(&self) -> bool {
        self.closing.get().is_some()
    }

    async fn send(&self, command: Command) -> Result<()> {
        self.commands.send(command).await.map_err(|_| self.ended())
    }

    fn ended(&self) -> Error {
        Error::new(ErrorKind::Cancelled, "the delivery has ended")
            .at(&self.target.source)
            .of(self.target.name())
    }

    /// Sessions one after another: each failure is waited out, nothing is skipped.
    async fn run(self: Arc<Self>, mut inbox: mpsc::Receiver<Command>) {
        let mut attempt = 0;
        while !self.is_closing() {
            if self.target.handle.is_paused() {
                self.rest(&mut inbox).await;
                continue;
            }
            let before = self.progress.applied();
            let session = match self.target.still {
                true => self.stand_still(&mut inbox).await,
                false => self.session(&mut inbox).await,
            };
            let Err(error) = session else { continue };
            let error = error.at(&self.target.source).of(self.target.name());
            if self.progress.applied() > before {
                attempt = 0;
            }
            attempt += 1;
            self.progress.failed(&error, attempt);
            if error.kind() == ErrorKind::CheckpointMoved && attempt == 1 {
                continue;
            }
            tracing::warn!(%error, entity = %self.target.name(), source = %self.target.source, attempt,
                "delivery failed; it will be tried again");
            let pause = retry::backoff(attempt, self.runtime.random());
            self.pause(pause.min(PAUSE_MAX)).await;
        }
        self.target.follower.rest().await;
        // Whoever goes on in its place tells how it is doing from now on.
        if *self.closing.get() != Some(End::Replaced) {
            self.progress.enter(DeliveryState::Stopped);
        }
    }

    /// Does nothing while its source is paused, and says so to whoever asks for something.
    async fn rest(&self, inbox: &mut mpsc::Receiver<Command>) {
        self.progress.enter(DeliveryState::Paused);
        self.target.follower.rest().await;
        let refused =
            || self.target.handle.refuse_if_paused().err().unwrap_or_else(|| self.ended());
        loop {
            tokio::select! {
                biased;
                () = self.closing.until(Option::is_some) => return,
                () = self.target.handle.comes_to_be(false) => return,
                // Who asked may have gone away meanwhile.
                Some(command) = inbox.recv() => match command {
                    Command::Copy => {}
                    Command::Redeliver { reply, .. } => drop(reply.send(Err(refused()))),
                    Command::Discard { reply, .. } => drop(reply.send(Err(refused()))),
                },
            }
        }
    }

    async fn pause(&self, pause: Duration) {
        tokio::select! {
            biased;
            () = self.closing.until(Option::is_some) => {}
            () = self.runtime.sleep(pause) => {}
        }
    }
}
