//! One session of a delivery: from what the follower says about itself to its end or its first failure.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use unisono_core::source::{Advance, Applied, Batch, Checkpoint, LogBounds, Outcome};
use unisono_core::{Change, Error, ErrorKind, Position, Result};
use unisono_policy::batch::BatchSizer;

use crate::delivery::copy::Ahead;
use crate::delivery::letters::Letters;
use crate::delivery::progress::count;
use crate::delivery::turns::Turn;
use crate::delivery::{Command, Delivery};
use crate::status::DeliveryState;
use crate::topology::moved::{self, Kept, Origin};
use crate::topology::rules;

/// How often an idle delivery looks whether its follower still has its data, and saves a checkpoint that moved
/// without data.
const IDLE: Duration = Duration::from_secs(1);
/// How many changes a delivery at the head sends first; backlog makes it grow.
const BATCH_START: usize = 256;

/// The state of a session.
pub(super) struct Session<'a> {
    /// The checkpoint that the follower durably has.
    pub(super) saved: Checkpoint,
    /// Where the delivery is: at or after `saved.position`.
    pub(super) position: Position,
    /// Dead letters that wait.
    pub(super) letters: Letters,
    /// How many changes go in one batch.
    pub(super) sizer: BatchSizer,
    /// The window of the log after `position`, if it was read ahead.
    pub(super) window: Option<Vec<Arc<Change>>>,
    /// What the copy knows of its next step.
    pub(super) ahead: Ahead,
    /// Told by the follower before, when its refusals were looked at last.
    pub(super) refusals: u64,
    /// Held while there is a backlog.
    pub(super) turn: Option<Turn<'a>>,
}

impl Delivery {
    /// Delivers until told to close or to rest (`Ok`), or until something fails (`Err`); the next session then starts from what
    /// the follower says, so nothing that failed half-way matters.
    pub(super) async fn session(&self, inbox: &mut mpsc::Receiver<Command>) -> Result<()> {
        let saved = self.start_checkpoint().await?;
        let saved = self.in_line_with_rule(saved).await?;
        // Before the position is told: a reader must know which records are refused at it.
        let letters = self.load_letters().await?;
        self.progress.saved_at(&saved);
        let max = self.target.capability.apply.batch_changes_max;
        let mut session = Session {
            position: saved.position,
            saved,
            letters,
            sizer: BatchSizer::new(BATCH_START.min(max), max),
            window: None,
            ahead: Ahead::default(),
            refusals: self.target.after.as_ref().map_or(0, |before| before.is_refused(&[]).1),
            turn: None,
        };
        // What an outlet has refused as often as was declared, it is sent only if somebody asks for that.
        if !self.target.outlet {
            self.retry_letters(&mut session).await?;
        }
        loop {
            if self.is_closing() || self.target.handle.is_paused() {
                return self.save(&mut session).await;
            }
            while let Ok(command) = inbox.try_recv() {
                self.obey(&mut session, command).await?;
            }
            self.retry_what_is_no_longer_refused(&mut session).await?;
            if let Some(pause) = self.gathers(&mut session).await? {
                self.wait_for_more(&mut session, inbox, pause).await?;
                continue;
            }
            // Nothing that is new may overtake what an outlet was not sent yet.
            let waits = self.target.outlet && session.saved.backfill.is_some();
            let streamed = !waits && self.stream_step(&mut session).await?;
            if session.saved.backfill.is_some() {
                self.progress.enter(DeliveryState::Backfilling);
                self.copy_step(&mut session).await?;
                continue;
            }
            if streamed && session.position < self.limit() {
                self.progress.enter(DeliveryState::CatchingUp);
                continue;
            }
            session.turn = None;
            self.progress.enter(match session.position < self.log.tail.head() {
                true => DeliveryState::CatchingUp,
                false => DeliveryState::Live,
            });
            tokio::select! {
                biased;
                () = self.closing.until(Option::is_some) => {}
                () = self.target.handle.comes_to_be(true) => {}
                Some(command) = inbox.recv() => self.obey(&mut session, command).await?,
                () = self.beyond(session.position) => {}
                () = self.runtime.sleep(IDLE) => self.idle(&mut session).await?,
            }
        }
    }

    /// Where to begin. A follower without a usable checkpoint is emptied and copied; one whose next change was
    /// trimmed is copied over what it has, and what should not be there is removed.
    async fn start_checkpoint(&self) -> Result<Checkpoint> {
        let entity = &self.target.entity;
        let stored = self.target.follower.checkpoint(entity).await?;
        let bounds = self.log.truth.bounds().await?;
        if self.target.outlet {
            return self.start_of_outlet(stored, &bounds).await;
        }
        if stored.as_ref().is_none_or(|c| c.log != bounds.log)
            && let Some(carried) = self.carried_over(stored.as_ref()).await?
        {
            return Ok(carried);
        }
        match &stored {
            Some(c) if usable(c, &bounds) => return Ok(c.clone()),
            Some(c) if c.log == bounds.log && c.position < bounds.trimmed => {
                tracing::info!(entity = %self.target.name(), source = %self.target.source, "follower lags beyond the log; copying");
                return self.begin_copy(stored, bounds.head).await;
            }
            Some(c) => {
                let (checkpoint, head) = (c.position, bounds.head);
                let other_log = c.log != bounds.log;
                tracing::warn!(entity = %self.target.name(), source = %self.target.source, %checkpoint, %head, other_log,
                    "the follower is not one of this truth as it is now, or is ahead of it: it is copied again");
                self.progress.found_split();
            }
            None => {
                tracing::info!(entity = %self.target.name(), source = %self.target.source, "follower has no checkpoint; copying");
            }
        }
        self.progress.lost();
        self.target.follower.reset(entity).await?;
        self.begin_copy(None, bounds.head).await
    }

    /// Where to begin with what cannot be emptied: where it is, or with what the truth holds that is newer.
    async fn start_of_outlet(
        &self,
        stored: Option<Checkpoint>,
        bounds: &LogBounds,
    ) -> Result<Checkpoint> {
        let at = stored.ok_or_else(|| Error::internal("an outlet says where it begins"))?;
        if usable(&at, bounds) {
            return Ok(at);
        }
        let (outlet, trimmed) = (at.position, bounds.trimmed);
        tracing::warn!(entity = %self.target.name(), source = %self.target.source, %outlet, %trimmed,
            "the log does not have what comes next for the outlet: it is sent what the truth holds that is newer");
        self.begin_copy(Some(at), bounds.head).await
    }

    /// Where to begin if the follower was one before the truth of the entity was moved, or was that truth: behind the move,
    /// if it has everything from before, else with a copy over what it has.
    async fn carried_over(&self, stored: Option<&Checkpoint>) -> Result<Option<Checkpoint>> {
        let (truth, entity) = (self.log.truth.as_ref(), self.target.entity.name());
        let kept = moved::kept(truth, entity).await?.unwrap_or_default();
        let Some(origin) = kept.origin else { return Ok(None) };
        // A projection that is kept where the truth was holds only what was delivered to it.
        let was_truth = origin.truth == self.target.source && self.target.projection.is_none();
        if !origin.is_in(was_truth, stored) {
            let lags = stored.filter(|stored| stored.log == origin.log);
            let Some(lagging) = lags.cloned() else { return Ok(None) };
            return self.begin_copy(Some(lagging), origin.begin).await.map(Some);
        }
        let to = Checkpoint { log: self.log.id, position: origin.begin, backfill: None };
        self.advance(stored.cloned(), to.clone()).await?;
        if was_truth {
            // If it is wiped one day, it is copied.
            let origin = Some(Origin { follows: true, ..origin });
            moved::keep(truth, entity, &Kept { origin, ..kept }).await?;
        }
        Ok(Some(to))
    }

    /// Where to begin if the follower holds records by another `where` than is declared: with a copy, which adds and
    /// removes what differs. That is forgotten only when the copy is sure to be made.
    async fn in_line_with_rule(&self, saved: Checkpoint) -> Result<Checkpoint> {
        let (truth, target) = (self.log.truth.as_ref(), &self.target);
        let (entity, source) = (target.name(), &target.source);
        let kept = rules::kept(truth, entity, source).await?;
        let rule = target.rule();
        if kept.as_deref() == rule.as_deref() {
            return Ok(saved);
        }
        if target.outlet {
            // What was sent by another one stays sent.
            rules::keep(truth, entity, source, target.rule().as_deref()).await?;
            return Ok(saved);
        }
        tracing::info!(%entity, %source, "the follower is to hold other records than before; comparing all");
        let position = saved.position;
        let begun = self.begin_copy(Some(saved), position).await?;
        rules::keep(truth, entity, source, rule.as_deref()).await?;
        Ok(begun)
    }

    /// Saves the checkpoint at which a copy begins: the stream goes on from `position`, the copy from the first key.
    pub(super) async fn begin_copy(
        &self,
        from: Option<Checkpoint>,
        position: Position,
    ) -> Result<Checkpoint> {
        let to = Checkpoint { log: self.log.id, position, backfill: Some(String::new()) };
        self.advance(from, to.clone()).await?;
        Ok(to)
    }

    /// Waits until a batch that gathers is full or old enough, or there is something else to do.
    async fn wait_for_more(
        &self,
        session: &mut Session<'_>,
        inbox: &mut mpsc::Receiver<Command>,
        pause: Duration,
    ) -> Result<()> {
        let missing = self.batch_changes_max(session).saturating_sub(1) as u64;
        // Where positions were skipped, as by a new generation, fewer changes than positions may be there: then for more.
        let full = session.position.plus(missing).max(self.limit());
        tokio::select! {
            biased;
            () = self.closing.until(Option::is_some) => Ok(()),
            () = self.target.handle.comes_to_be(true) => Ok(()),
            Some(command) = inbox.recv() => self.obey(session, command).await,
            () = self.beyond(full) => Ok(()),
            () = self.runtime.sleep(pause.min(IDLE)) => Ok(()),
        }
    }

    async fn obey(&self, session: &mut Session<'_>, command: Command) -> Result<()> {
        match command {
            Command::Copy => {
                if self.target.outlet {
                    // All of it is meant, and not what has come since.
                    self.save(session).await?;
                }
                let position = session.position;
                session.saved = self.begin_copy(Some(session.saved.clone()), position).await?;
                self.progress.saved_at(&session.saved);
            }
            Command::Redeliver { keys, reply } => {
                // The caller may have stopped waiting; the records are delivered all the same.
                let _ = reply.send(self.redeliver_now(session, keys).await);
            }
            Command::Discard { key, reply } => {
                let _ = reply.send(self.forget_letter(&mut session.letters, &key).await);
            }
        }
        Ok(())
    }

    /// Nothing to do for a while: save a checkpoint that moved without data, and see whether the follower still has
    /// what it had.
    async fn idle(&self, session: &mut Session<'_>) -> Result<()> {
        self.save(session).await?;
        let looking = self.target.follower.checkpoint(&self.target.entity);
        let stored = self.progress.measured(looking).await?;
        if stored.as_ref() == Some(&session.saved) {
            self.progress.has_answered();
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::CheckpointMoved,
            "the follower's checkpoint changed from outside",
        )
        .at(&self.target.source)
        .of(self.target.name()))
    }

    /// Saves the position if it moved since the last batch.
    async fn save(&self, session: &mut Session<'_>) -> Result<()> {
        if session.position > session.saved.position {
            let to = Checkpoint { position: session.position, ..session.saved.clone() };
            self.save_at(session, to).await?;
        }
        Ok(())
    }

    /// Moves the checkpoint behind data that the follower has.
    pub(super) async fn save_at(&self, session: &mut Session<'_>, to: Checkpoint) -> Result<()> {
        self.advance(Some(session.saved.clone()), to.clone()).await?;
        session.saved = to;
        self.progress.saved_at(&session.saved);
        Ok(())
    }

    async fn advance(&self, from: Option<Checkpoint>, to: Checkpoint) -> Result<()> {
        let advance = Some(Advance { from, to });
        let batch = Batch {
            entity: Arc::clone(&self.target.entity),
            changes: Vec::new(),
            copied: false,
            advance,
        };
        let applied = self.take(batch).await?;
        if applied.advanced {
            Ok(())
        } else {
            Err(Error::internal("an empty batch did not move the checkpoint"))
        }
    }

    /// Has the follower take in changes and move its checkpoint to `to`. Refused changes become dead letters first,
    /// and only then the checkpoint passes them.
    pub(super) async fn settle(
        &self,
        session: &mut Session<'_>,
        mut changes: Vec<Arc<Change>>,
        copied: bool,
        to: Checkpoint,
    ) -> Result<()> {
        loop {
            let applied = self.apply(session, &changes, copied, &to).await?;
            count(&self.progress.counts.batches, 1);
            let refused = self.sort_out(session, &changes, &applied).await?;
            if applied.advanced {
                session.saved = to;
                session.position = session.saved.position;
                self.progress.saved_at(&session.saved);
                return Ok(());
            }
            if refused.is_empty() {
                return Err(Error::internal(
                    "a batch without refused changes did not move the checkpoint",
                ));
            }
            let mut n = 0;
            changes.retain(|_| {
                n += 1;
                !refused.contains(&(n - 1))
            });
        }
    }

    /// One attempt. With several lanes the changes go in parallel, keys kept together, and the checkpoint follows.
    async fn apply(
        &self,
        session: &Session<'_>,
        changes: &[Arc<Change>],
        copied: bool,
        to: &Checkpoint,
    ) -> Result<Applied> {
        let advance = Advance { from: Some(session.saved.clone()), to: to.clone() };
        let entity = &self.target.entity;
        let lanes = self.target.capability.apply.lanes.max(1);
        if lanes == 1 || changes.len() < 2 {
            let batch = Batch {
                entity: Arc::clone(entity),
                changes: changes.to_vec(),
                copied,
                advance: Some(advance),
            };
            return self.take(batch).await;
        }
        let outcomes = self.apply_in_lanes(changes, copied, lanes).await?;
        let settled = outcomes.iter().all(|o| matches!(o, Outcome::Applied | Outcome::Stale));
        if settled {
            self.advance(advance.from, advance.to).await?;
        }
        Ok(Applied { outcomes, advanced: settled })
    }

    async fn apply_in_lanes(
        &self,
        changes: &[Arc<Change>],
        copied: bool,
        lanes: usize,
    ) -> Result<Vec<Outcome>> {
        let mut lane_of: Vec<Vec<usize>> = vec![Vec::new(); lanes];
        for (n, change) in changes.iter().enumerate() {
            lane_of[(change.key.stable_hash() % lanes as u64) as usize].push(n);
        }
        let work = lane_of.iter().filter(|members| !members.is_empty()).map(|members| {
            let changes = members.iter().map(|n| Arc::clone(&changes[*n])).collect();
            let batch =
                Batch { entity: Arc::clone(&self.target.entity), changes, copied, advance: None };
            async move { Ok::<_, Error>((members, self.take(batch).await?.outcomes)) }
        });
        let mut outcomes: Vec<Option<Outcome>> = changes.iter().map(|_| None).collect();
        for (members, of_lane) in futures::future::try_join_all(work).await? {
            for (n, outcome) in members.iter().zip(of_lane) {
                outcomes[*n] = Some(outcome);
            }
        }
        outcomes
            .into_iter()
            .map(|o| o.ok_or_else(|| Error::internal("a change has no outcome")))
            .collect()
    }

    /// Counts outcomes, sets refused changes aside, forgets superseded dead letters; answers which were refused.
    pub(super) async fn sort_out(
        &self,
        session: &mut Session<'_>,
        changes: &[Arc<Change>],
        applied: &Applied,
    ) -> Result<Vec<usize>> {
        let counts = &self.progress.counts;
        let mut refused = Vec::new();
        for (n, (change, outcome)) in changes.iter().zip(&applied.outcomes).enumerate() {
            match outcome {
                Outcome::Applied => count(&counts.applied, 1),
                Outcome::Stale => {
                    count(&counts.stale, 1);
                    if self.target.outlet {
                        // It was not sent, so a dead letter of it waits still.
                        continue;
                    }
                }
                Outcome::Rejected(reason) => {
                    self.set_aside(&mut session.letters, change, reason).await?;
                    refused.push(n);
                    continue;
                }
                Outcome::Retry(reason) => return Err(reason.duplicate()),
            }
            if !session.letters.is_empty() && applied.advanced {
                self.forget_letter(&mut session.letters, &change.key.to_string()).await?;
            }
        }
        Ok(refused)
    }
}

fn usable(checkpoint: &Checkpoint, bounds: &LogBounds) -> bool {
    checkpoint.log == bounds.log && (bounds.trimmed..=bounds.head).contains(&checkpoint.position)
}
