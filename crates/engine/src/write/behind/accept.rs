//! Accepting: writes that come meanwhile go to the journal in one durable step, and each caller is told its place.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use unisono_core::journal::{Appended, NewEntry};
use unisono_core::write::{Idempotency, Unit, Write, check};
use unisono_core::{Effect, Error, ErrorKind, Key, Result, Token, Uuid};
use unisono_policy::retry;

use crate::answer::Accepted;
use crate::write::behind::entry::{AcceptedWrite, Pending, Room};
use crate::write::behind::{Behind, SUBMITTED_MAX, count, kib};

/// The longest pause between two looks into a journal that may have kept a batch.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A write on its way to the journal.
pub(super) struct Submitted {
    entry: NewEntry,
    accepted: AcceptedWrite,
    write: Write,
    room: Room,
    reply: oneshot::Sender<Result<Appended>>,
}

/// A write that the journal has been given.
pub(crate) struct Accepting<'a> {
    behind: &'a Behind,
    key: Key,
    answer: oneshot::Receiver<Result<Appended>>,
}

/// What the caller of an accepted write is told.
pub(crate) struct Receipt {
    pub(crate) accepted: Accepted,
    pub(crate) token: Token,
    pub(crate) replayed: bool,
}

impl Accepting<'_> {
    /// Waits until the journal has it durably.
    pub(crate) async fn receipt(self) -> Result<Receipt> {
        let Accepting { behind, key, answer } = self;
        let answer = answer.await.unwrap_or_else(|_| Err(behind.ended().effect(Effect::Unknown)));
        let Appended { sequence, repeated } = answer.map_err(|e| e.of(behind.entity.name()))?;
        let journal = Arc::clone(&behind.source);
        let accepted = Accepted { journal, key, sequence };
        Ok(Receipt { accepted, token: behind.token(sequence), replayed: repeated })
    }
}

impl Behind {
    /// Gives the one write of a unit to the journal, behind those given before; waits for room for at most `hold`.
    ///
    /// A caller that goes away does not undo its write.
    pub(crate) async fn accept(&self, unit: Unit, hold: Duration) -> Result<Accepting<'_>> {
        let [write] = unit.writes.as_slice() else {
            return Err(Error::unsupported("several records cannot be written behind as one")
                .of(self.entity.name())
                .hint("send them apart (\"atomic\": false), or declare another write strategy"));
        };
        check(write).map_err(|e| e.on("accept"))?;
        let accepted = AcceptedWrite::of(self.runtime.uuid(), write, &unit);
        self.keep(accepted, write.clone(), unit.idempotency, hold).await
    }

    /// Gives a write to the journal, which keeps it unless it knows its idempotency key.
    pub(super) async fn keep(
        &self,
        accepted: AcceptedWrite,
        write: Write,
        idempotency: Option<Idempotency>,
        hold: Duration,
    ) -> Result<Accepting<'_>> {
        let key = write.key.clone();
        let (body, time) = (accepted.encode()?, accepted.accepted);
        let room = self.room(body.len(), hold).await?;
        let (reply, answer) = oneshot::channel();
        let entry = NewEntry { body, idempotency, time };
        if self.state.get().closing {
            return Err(self.ended());
        }
        let submitted = Submitted { entry, accepted, write, room, reply };
        self.submit.send(submitted).await.map_err(|_| self.ended())?;
        Ok(Accepting { behind: self, key, answer })
    }

    async fn room(&self, bytes: usize, hold: Duration) -> Result<Room> {
        // At first without waiting: a limit of no time would also refuse one who has to let others go first.
        if let Some(room) = self.room.try_enter()
            && let Ok(bytes) = Arc::clone(&self.bytes).try_acquire_many_owned(kib(bytes))
        {
            return Ok((room, bytes));
        }
        let both = async {
            let room = self.room.enter().await?;
            let bytes = Arc::clone(&self.bytes).acquire_many_owned(kib(bytes)).await;
            Ok((room, bytes.map_err(|_| self.ended())?))
        };
        self.runtime.within(hold, both).await.map_err(|error| match error.kind() {
            ErrorKind::Timeout => self.no_room(),
            _ => error,
        })
    }

    fn no_room(&self) -> Error {
        let state = self.state.get();
        Error::new(ErrorKind::Overloaded, "too many acknowledged writes wait for the truth")
            .of(self.entity.name())
            .on("accept")
            .with("pending", state.queue.len())
            .with("pending_max", self.policies.behind(|policy| policy.pending_max))
            .with("last_failure", state.error.as_deref().unwrap_or("none"))
            .hint(
                "try again when the truth is up; `pending_max` is the bound, `hold` waits for room",
            )
    }

    /// Appends batches until the engine ends.
    pub(super) async fn append_all(self: Arc<Self>, mut inbox: mpsc::Receiver<Submitted>) {
        let mut batch = Vec::new();
        while inbox.recv_many(&mut batch, SUBMITTED_MAX).await > 0 {
            self.append(std::mem::take(&mut batch)).await;
        }
    }

    /// Has the journal keep a batch. If it cannot be told whether it did, nothing else is kept before that is known:
    /// what it kept unnoticed would come back at the next start, behind writes that were made after it.
    async fn append(&self, mut batch: Vec<Submitted>) {
        while !batch.is_empty() {
            let entries = batch.iter().map(|submitted| submitted.entry.clone()).collect();
            let error = match self.journal.append(self.entity.name(), entries).await {
                Ok(results) => return self.kept(batch, results).await,
                Err(error) => error.at(&self.source).on("accept"),
            };
            self.failed(&error);
            let found = match error.effect_on_data() {
                Effect::None => HashMap::new(),
                _ => self.found_since().await,
            };
            if found.is_empty() && self.peers.is_none() {
                return tell(batch, &error.effect(Effect::None));
            }
            let told = |id: &Uuid| found.get(id).copied();
            let (kept, rest): (Vec<_>, Vec<_>) =
                batch.into_iter().partition(|s| told(&s.accepted.id).is_some());
            let results = kept
                .iter()
                .filter_map(|s| told(&s.accepted.id))
                .map(|sequence| Ok(Appended { sequence, repeated: false }));
            let results = results.collect();
            self.kept(kept, results).await;
            if self.peers.is_some() {
                // Another process may have flushed and removed them by now. They are not kept later on.
                return tell(rest, &error);
            }
            // Those that the journal did not keep because it knew their keys have no answer yet.
            batch = rest;
        }
    }

    /// What the journal has kept beyond what is known, by identity; tried until it can be told.
    async fn found_since(&self) -> HashMap<Uuid, u64> {
        let mut attempt = 0;
        loop {
            let after = self.state.get().last;
            let read = self.journal.read(self.entity.name(), after, SUBMITTED_MAX).await;
            let decode = |entry: unisono_core::journal::Entry| {
                Ok((AcceptedWrite::decode(&entry.body)?.id, entry.sequence))
            };
            match read.and_then(|entries| entries.into_iter().map(decode).collect()) {
                Ok(found) => return found,
                Err(error) => self.failed(&error),
            }
            attempt += 1;
            let pause = retry::backoff(attempt, self.runtime.random());
            self.runtime.sleep(pause.min(PAUSE_MAX)).await;
        }
    }

    /// What the journal has kept waits from here on, before its callers are told.
    async fn kept(&self, batch: Vec<Submitted>, results: Vec<Result<Appended>>) {
        debug_assert_eq!(batch.len(), results.len(), "a journal answers every entry");
        let watch = self.runtime.stopwatch();
        let mut replies = Vec::with_capacity(batch.len());
        self.state.change(|state| {
            for (submitted, result) in batch.into_iter().zip(results) {
                let Submitted { accepted, write, room, reply, .. } = submitted;
                if let Ok(Appended { sequence, repeated: false }) = result {
                    count(&self.counts.accepted, 1);
                    match self.peers {
                        None => {
                            state.last = state.last.max(sequence);
                            let _room = Some(room);
                            let pending = Pending { sequence, accepted, write, watch, _room };
                            state.queue.push(Arc::new(pending));
                        }
                        // It comes back in its place among those of others.
                        Some(_) if sequence > state.last => {
                            drop(state.rooms.insert(sequence, room))
                        }
                        Some(_) => {}
                    }
                }
                replies.push((reply, result));
            }
            true
        });
        if self.peers.is_some() {
            self.hear_own().await;
        }
        for (reply, result) in replies {
            // A caller that went away has nobody to tell; its write is kept.
            let _ = reply.send(result);
        }
    }
}

/// Tells callers that their writes have failed.
fn tell(batch: Vec<Submitted>, error: &Error) {
    for submitted in batch {
        // A caller that went away has nobody to tell.
        let _ = submitted.reply.send(Err(error.duplicate()));
    }
}
