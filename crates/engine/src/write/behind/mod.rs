//! Writing behind: a write is acknowledged when a durable journal has it, and flushed to the truth in batches later.
//!
//! ```text
//! write ─► accept ─► Journal::append ─► answer: accepted        (one durable step for all that came meanwhile)
//!                          │
//!                          ▼
//!                       Queue ─► flush ─► committer ─► Truth::commit ─► Journal::remove
//!                          │                  └► refused: dead letter, then Journal::remove
//!                          └► laid over reads by key
//! ```
//!
//! * **Durable.** Nobody is answered before the journal has the write; what it has is read back before anything is
//!   served. Nothing leaves the journal before the truth has committed it, or a dead letter says that it was refused.
//! * **Ordered per record.** The journal's sequence is the order. Of one record one group is under way at a time, and
//!   stays as it is until its outcome is known.
//! * **Once.** A write is flushed under its caller's idempotency key, or one made from its identity. After a crash between
//!   the commit and the removal it is flushed again, and the truth answers with what it did the first time, as long as
//!   it remembers outcomes (`log.outcomes`, counted from the flush). The journal remembers callers' keys for the same
//!   time, so that a repeated request is not kept twice.
//! * **Coalesced.** Puts without condition that follow each other are one commit of the last. Conditions, patches and
//!   deletes depend on what is there: they are flushed one by one, each in its place, and judged then.
//! * **Refused alone.** What the truth refuses becomes a dead letter that names the writer, the key of its request and the
//!   reason; later writes of the record go on. A failure that says nothing of the write is tried again: if the truth
//!   cannot be reached, with the rest and with growing pauses, else apart from the rest, so that a write that
//!   the truth cannot stomach holds up its own record only.
//! * **Bounded.** At most `pending_max` writes and 64 MB of them wait. Further ones are held for as long as `hold`
//!   says, then refused with `overloaded`.
//! * **Seen.** Reads by key at this node show what the record will be, marked as pending and without a version. The token
//!   of an accepted write names its place in the journal: questions for many records, which show what has been
//!   flushed, wait for that within their deadline when they bring such a token, and always when they are strong. Afterwards the
//!   token demands the position of the flush, so that no cache or follower shows the earlier state to who saw the
//!   later one. Other nodes see a write when it has been flushed, or before if they share the journal (`shared.rs`).
//!
//! One record at a time: an atomic batch of several records is refused, because whether it takes place could not be told
//! to those who read one of them meanwhile. The time of a change is that of its flush.

mod accept;
pub(crate) mod entry;
mod flush;
mod flushed;
mod overlay;
mod queue;
mod refused;
mod shared;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use unisono_core::journal::{Journal, SharedJournal};
use unisono_core::{Entity, Error, ErrorKind, Key, LogName, Position, Result, Stored, Token};
use unisono_policy::write::BehindPolicy;

use crate::limit::Limit;
use crate::log::Log;
use crate::policies::PresentEntity;
use crate::runtime::Runtime;
use crate::status::JournalStatus;
use crate::watched::Watched;

pub(crate) use accept::Receipt;

use accept::Submitted;
use entry::{AcceptedWrite, Pending, Room};
use flushed::Flushed;
use queue::Queue;

/// The most bytes that wait, in units of 1 KiB.
const ROOM_KIB: usize = 64 << 10;
/// Writes on their way to the journal; further ones wait for room.
const SUBMITTED_MAX: usize = 1024;
/// Entries read at once at the start.
const PAGE: usize = 1000;

/// The writes of one entity that are acknowledged and not flushed yet.
pub(crate) struct Behind {
    entity: Arc<Entity>,
    policies: PresentEntity,
    /// The source that keeps the journal.
    source: Arc<str>,
    journal: Arc<dyn Journal>,
    /// The same, if several processes share it.
    peers: Option<Arc<dyn SharedJournal>>,
    log: Arc<Log>,
    runtime: Runtime,
    /// Names the journal in tokens.
    name: LogName,
    state: Watched<State>,
    submit: mpsc::Sender<Submitted>,
    /// The writes that may wait.
    room: Arc<Limit>,
    /// One permit for each KiB of them.
    bytes: Arc<Semaphore>,
    counts: Counts,
}

struct State {
    queue: Queue,
    /// The last sequence that the journal gave, as far as is known.
    last: u64,
    flushed: Flushed,
    closing: bool,
    /// The last write when it began to close.
    closing_at: u64,
    stopped: bool,
    error: Option<String>,
    /// Set while this process flushes; its number, if others could have the right to.
    tenure: Option<u64>,
    /// Writes up to here may be under way from a process that had the right before.
    inherited: u64,
    /// How often somebody asked what is in a shared journal, and up to which of them that is known.
    asked: u64,
    heard: u64,
    /// The room of writes that were given to a shared journal and have not come back.
    rooms: BTreeMap<u64, Room>,
}

impl State {
    /// Whether nothing is left to do for a process that closes. Those who share its journal see to what comes later.
    fn is_done(&self, is_shared: bool) -> bool {
        self.closing
            && (self.queue.len() == 0
                || is_shared && (self.tenure.is_none() || !self.queue.waits(None, self.closing_at)))
    }
}

#[derive(Default)]
struct Counts {
    accepted: AtomicU64,
    flushed: AtomicU64,
    coalesced: AtomicU64,
    refused: AtomicU64,
}

/// What waits for a record, and what a reader must see besides.
pub(crate) struct Look {
    pending: Vec<Arc<Pending>>,
    /// What was flushed of what the reader has seen is in the log at or before this position.
    pub(crate) demanded: Position,
}

impl Look {
    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// How many writes wait.
    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }

    /// What the record will be, if that does not depend on what it is.
    pub(crate) fn regardless(&self) -> Option<Option<Arc<Stored>>> {
        overlay::regardless(&self.pending)
    }

    /// What the record will be.
    pub(crate) fn over(&self, base: Option<Arc<Stored>>) -> Option<Arc<Stored>> {
        overlay::over(base, &self.pending)
    }

    fn last(&self) -> u64 {
        self.pending.last().map_or(0, |pending| pending.sequence)
    }
}

impl Behind {
    /// Reads back what the journal holds, and starts to flush.
    pub(crate) async fn open(
        entity: &Arc<Entity>,
        policy: &BehindPolicy,
        policies: PresentEntity,
        journal: Arc<dyn Journal>,
        log: Arc<Log>,
        runtime: &Runtime,
    ) -> Result<Arc<Self>> {
        let (submit, inbox) = mpsc::channel(SUBMITTED_MAX);
        let name = format!("{}/{}", policy.journal, entity.name());
        let peers = Arc::clone(&journal).shared();
        let state = State {
            queue: Queue::default(),
            last: 0,
            flushed: Flushed::new(log.tail.head()),
            closing: false,
            closing_at: 0,
            stopped: false,
            error: None,
            tenure: peers.is_none().then_some(0),
            inherited: 0,
            asked: 0,
            heard: 0,
            rooms: BTreeMap::new(),
        };
        let behind = Arc::new(Behind {
            entity: Arc::clone(entity),
            policies,
            source: Arc::clone(&policy.journal),
            journal,
            peers,
            log,
            runtime: runtime.clone(),
            name: LogName::of(&name.into()),
            state: Watched::new(state),
            submit,
            room: Limit::new(policy.pending_max),
            bytes: Arc::new(Semaphore::new(ROOM_KIB)),
            counts: Counts::default(),
        });
        behind.journal.begin(entity.name()).await?;
        match &behind.peers {
            None => drop(behind.read_back(true).await?),
            Some(peers) => {
                let heard = behind.join(peers.as_ref()).await?;
                runtime.spawn(Arc::clone(&behind).listen(Arc::clone(peers), heard));
            }
        }
        runtime.spawn(Arc::clone(&behind).append_all(inbox));
        runtime.spawn(Arc::clone(&behind).flush_all());
        Ok(behind)
    }

    /// Has those wait that are in the journal, and no others; answers the last of them. Who flushes sets aside what
    /// cannot be flushed.
    async fn read_back(&self, flushes: bool) -> Result<u64> {
        let refused = if flushes { self.refused_before().await? } else { Default::default() };
        let (mut after, mut gone, mut queue) = (0, Vec::new(), Queue::default());
        loop {
            let page = self.journal.read(self.entity.name(), after, PAGE).await?;
            let end = page.len() < PAGE;
            for entry in page {
                after = entry.sequence;
                let known = self.state.get().queue.get(after).cloned();
                let accepted = AcceptedWrite::decode(&entry.body)
                    .map_err(|e| e.of(self.entity.name()).with("sequence", after))?;
                if refused.contains(&accepted.id) {
                    gone.push(after);
                    continue;
                }
                match (known, accepted.write(&self.entity)) {
                    (Some(pending), _) => queue.push(pending),
                    (None, Ok(write)) => {
                        queue.push(Arc::new(self.pending(
                            after,
                            accepted,
                            write,
                            entry.body.len(),
                        )));
                    }
                    (None, Err(reason)) if flushes => {
                        self.set_aside(after, &accepted, &reason).await?;
                        gone.push(after);
                    }
                    (None, Err(_)) => {}
                }
            }
            if end {
                break;
            }
        }
        self.replace(queue, after).await?;
        if !gone.is_empty() {
            self.remove(&gone).await?;
        }
        Ok(after)
    }

    /// Has others wait than before. Those that are gone were flushed.
    async fn replace(&self, queue: Queue, last: u64) -> Result<()> {
        let is_gone = |state: &State| {
            let mut waiting = state.queue.sequences();
            waiting.find(|sequence| queue.get(*sequence).is_none())
        };
        let gone = is_gone(&self.state.get());
        let head = match gone {
            None => None,
            Some(first) => Some((first, self.log.truth.bounds().await?.head)),
        };
        self.state.change(|state| {
            if let Some((first, head)) = head {
                state.flushed.add(first, head);
            }
            state.queue = queue;
            state.last = state.last.max(last);
            true
        });
        Ok(())
    }

    /// One that was read: it waits even if there is less room than when it was accepted.
    fn pending(
        &self,
        sequence: u64,
        accepted: AcceptedWrite,
        write: unisono_core::write::Write,
        body: usize,
    ) -> Pending {
        let own = self.state.get().rooms.remove(&sequence);
        let room = own.or_else(|| {
            let bytes = Arc::clone(&self.bytes).try_acquire_many_owned(kib(body));
            self.room.try_enter().zip(bytes.ok())
        });
        let watch = self.runtime.stopwatch();
        Pending { sequence, accepted, write, watch, _room: room }
    }

    /// The source that keeps the journal.
    pub(crate) fn journal_name(&self) -> &Arc<str> {
        &self.source
    }

    /// What waits for a record, and what the bearer of a token must see besides.
    pub(crate) fn look(&self, key: &Key, token: &Token) -> Look {
        let state = self.state.get();
        let demanded = state.flushed.demanded(token.position(&self.name).as_u64());
        Look { pending: state.queue.of(key), demanded }
    }

    /// A token for what a look has found.
    pub(crate) fn token_of(&self, look: &Look) -> Token {
        self.token(look.last())
    }

    fn token(&self, sequence: u64) -> Token {
        Token::at(self.name.clone(), Position::new(sequence).unwrap_or_default())
    }

    /// Waits until all that is waiting now is flushed or refused, of a record if one is given.
    pub(crate) async fn all_flushed(&self, key: Option<&Key>, limit: Duration) -> Result<()> {
        self.hear(limit).await?;
        let last = self.state.get().last;
        self.flushed(key, last, limit).await
    }

    /// Waits until what the bearer of a token has seen is flushed or refused; answers what it must see in the log.
    pub(crate) async fn seen_flushed(&self, token: &Token, limit: Duration) -> Result<Position> {
        self.heard_of(token, limit).await?;
        let through = token.position(&self.name).as_u64();
        self.flushed(None, through, limit).await?;
        Ok(self.state.get().flushed.demanded(through))
    }

    async fn flushed(&self, key: Option<&Key>, through: u64, limit: Duration) -> Result<()> {
        if !self.state.get().queue.waits(key, through) {
            return Ok(());
        }
        let flushed = async {
            self.state.until(|state| !state.queue.waits(key, through)).await;
            Ok(())
        };
        self.runtime.within(limit, flushed).await.map_err(|_| {
            let error = self.state.get().error.clone().unwrap_or_default();
            Error::new(
                ErrorKind::TooStale,
                "acknowledged writes have not reached the truth in time",
            )
            .of(self.entity.name())
            .with("journal", &self.source)
            .with("last_failure", error)
            .hint("ask for the record by its key, or with consistency=eventual")
        })
    }

    /// Takes note of another policy.
    pub(crate) fn reloaded(&self) {
        self.room.resize(self.policies.behind(|policy| policy.pending_max));
        // The next flush may be due sooner now.
        self.state.change(|_| true);
    }

    /// Takes no more writes, and flushes what waits without waiting for more.
    pub(crate) fn close(&self) {
        self.state.change(|state| {
            state.closing_at = state.last;
            !std::mem::replace(&mut state.closing, true)
        });
    }

    /// Waits until everything is flushed, after [`Behind::close`].
    pub(crate) async fn wait_drained(&self) {
        self.state.until(|state| state.stopped).await;
    }

    /// How it is doing.
    pub(crate) fn status(&self) -> JournalStatus {
        let state = self.state.get();
        let now = self.runtime.now();
        let oldest =
            state.queue.first().map(|pending| now.seconds_since(pending.accepted.accepted));
        let oldest_seconds = oldest.unwrap_or(0.0).max(0.0);
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        JournalStatus {
            entity: Arc::clone(self.entity.name()),
            source: Arc::clone(&self.source),
            pending: state.queue.len() as u64,
            pending_max: self.policies.behind(|policy| policy.pending_max) as u64,
            oldest_seconds,
            alert: oldest_seconds > self.policies.behind(|policy| policy.age_alert).as_secs_f64(),
            accepted: load(&self.counts.accepted),
            flushed: load(&self.counts.flushed),
            coalesced: load(&self.counts.coalesced),
            refused: load(&self.counts.refused),
            last_error: state.error.clone(),
        }
    }

    fn failed(&self, error: &Error) {
        self.state.get().error = Some(error.to_string());
    }

    fn ended(&self) -> Error {
        Error::new(ErrorKind::Cancelled, "the engine was closed")
            .of(self.entity.name())
            .on("accept")
    }
}

/// The permits for a text, rounded up and never more than there are.
fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024).clamp(1, ROOM_KIB)).unwrap_or(u32::MAX)
}

fn count(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Ordering::Relaxed);
}
