//! Group commit: concurrent writes to one truth gather while the previous batch commits, and go as one transaction.
//!
//! Gathering: the callers just answered come back within moments, one by one. Waiting until they are there again,
//! beside those who came while they were served, avoids that the two halves of the callers take turns. The wait is
//! bounded by a quarter of the last commit's duration, at most 0.6 ms, and a lone caller never waits.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use unisono_core::source::Truth;
use unisono_core::write::{Committed, Unit};
use unisono_core::{Effect, Error, ErrorKind, Result};

use crate::log::tail::Tail;
use crate::runtime::Runtime;

/// The most units in one transaction.
const UNITS_MAX: usize = 1024;
/// The most units that wait; a further one waits for room, which holds its caller back.
const QUEUE_MAX: usize = 4096;
const GATHER_MAX: Duration = Duration::from_micros(600);
/// Bounds gathering where time stands still, as in the simulator.
const GATHER_TURNS_MAX: usize = 200;

/// The way to a truth: one batch commits at a time, and meanwhile the next one gathers.
///
/// A caller that finds nothing going on commits by itself, without a hop to another task; whoever comes meanwhile
/// waits, and a task takes over from the first caller for as long as there is somebody.
pub(crate) struct Committer(Arc<Shared>);

struct Shared {
    truth: Arc<dyn Truth>,
    tail: Arc<Tail>,
    runtime: Runtime,
    /// One permit for each unit that may wait.
    room: Arc<Semaphore>,
    state: Mutex<State>,
}

type Answer = oneshot::Receiver<Result<Committed>>;

struct State {
    waiting: Vec<Waiting>,
    /// Whether somebody commits and will look at `waiting` afterwards.
    led: bool,
    last: Batch,
}

struct Waiting {
    unit: Unit,
    reply: oneshot::Sender<Result<Committed>>,
    /// Given back when the unit leaves the queue.
    _room: Option<OwnedSemaphorePermit>,
}

impl Committer {
    /// Nothing waits yet.
    pub(crate) fn new(truth: Arc<dyn Truth>, tail: Arc<Tail>, runtime: &Runtime) -> Self {
        let last = Batch { callers: 0, took: Duration::ZERO };
        Committer(Arc::new(Shared {
            truth,
            tail,
            runtime: runtime.clone(),
            room: Arc::new(Semaphore::new(QUEUE_MAX)),
            state: Mutex::new(State { waiting: Vec::new(), led: false, last }),
        }))
    }

    /// Commits one unit. If the caller goes away meanwhile, the unit takes place all the same.
    pub(crate) async fn commit(&self, unit: Unit) -> Result<Committed> {
        let room = Arc::clone(&self.0.room).acquire_owned().await;
        let room = room.map_err(|_| ended(Effect::None))?;
        let (mut answers, leader) = self.enqueue(vec![unit], room)?;
        if let Some(leader) = leader {
            self.lead(leader).await;
        }
        match answers.pop() {
            Some(answer) => answer.await.unwrap_or_else(|_| Err(ended(Effect::Unknown))),
            None => Err(ended(Effect::Unknown)),
        }
    }

    /// Commits units each for itself, in order, gathered.
    pub(crate) async fn commit_each(&self, mut units: Vec<Unit>) -> Vec<Result<Committed>> {
        let mut results = Vec::with_capacity(units.len());
        while !units.is_empty() {
            let rest = units.split_off(units.len().min(UNITS_MAX));
            self.commit_some(std::mem::replace(&mut units, rest), &mut results).await;
        }
        results
    }

    async fn commit_some(&self, units: Vec<Unit>, results: &mut Vec<Result<Committed>>) {
        let count = units.len();
        let room = Arc::clone(&self.0.room).acquire_many_owned(count as u32).await;
        let enqueued = match room {
            Ok(room) => self.enqueue(units, room),
            Err(_) => Err(ended(Effect::None)),
        };
        let (answers, leader) = match enqueued {
            Ok(enqueued) => enqueued,
            Err(error) => return results.extend((0..count).map(|_| Err(error.duplicate()))),
        };
        if let Some(leader) = leader {
            self.lead(leader).await;
        }
        for answer in answers {
            results.push(answer.await.unwrap_or_else(|_| Err(ended(Effect::Unknown))));
        }
    }

    /// Puts units in the queue, with a permit for each. With the answers comes the lead, if nobody has it.
    fn enqueue(
        &self,
        units: Vec<Unit>,
        mut room: OwnedSemaphorePermit,
    ) -> Result<(Vec<Answer>, Option<Leader>)> {
        if self.0.runtime.has_ended() {
            return Err(ended(Effect::None));
        }
        let mut answers = Vec::with_capacity(units.len());
        let mut state = self.0.state();
        for unit in units {
            let (reply, answer) = oneshot::channel();
            answers.push(answer);
            state.waiting.push(Waiting { unit, reply, _room: room.split(1) });
        }
        let leads = !std::mem::replace(&mut state.led, true);
        Ok((answers, leads.then(|| Leader { shared: Arc::clone(&self.0), leads })))
    }

    /// Commits one batch, in which is the caller's own unit, and leaves what came meanwhile to a task.
    async fn lead(&self, mut leader: Leader) {
        let batch = async move {
            leader.batch().await;
            if leader.leads {
                let runtime = leader.shared.runtime.clone();
                runtime.spawn(leader.batches());
            }
        };
        Unfinished { work: Some(Box::pin(batch)), runtime: self.0.runtime.clone() }.await;
    }
}

/// Work that goes on as a task when its caller goes away: others wait for it, too.
struct Unfinished {
    work: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    runtime: Runtime,
}

impl Future for Unfinished {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(work) = &mut self.work else { return Poll::Ready(()) };
        let polled = work.as_mut().poll(context);
        if polled.is_ready() {
            self.work = None;
        }
        polled
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            self.runtime.spawn(work);
        }
    }
}

fn ended(effect: Effect) -> Error {
    Error::new(ErrorKind::Cancelled, "the engine was closed").effect(effect).on("commit")
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right and the duty to commit those who wait. There is one at a time.
struct Leader {
    shared: Arc<Shared>,
    /// Until nobody waits any more.
    leads: bool,
}

impl Drop for Leader {
    /// A leader that ends before its time ends with the engine: those who wait are told.
    fn drop(&mut self) {
        if self.leads {
            let mut state = self.shared.state();
            state.waiting.clear();
            state.led = false;
        }
    }
}

impl Leader {
    /// Commits batches until nobody waits.
    async fn batches(mut self) {
        while self.leads {
            self.batch().await;
        }
    }

    /// Commits those who wait now. If others came meanwhile, the lead goes on.
    async fn batch(&mut self) {
        self.gather().await;
        let (units, replies): (Vec<_>, Vec<_>) = {
            let mut state = self.shared.state();
            let count = state.waiting.len().min(UNITS_MAX);
            state.waiting.drain(..count).map(|w| (w.unit, w.reply)).unzip()
        };
        let watch = self.shared.runtime.stopwatch();
        let count = units.len();
        let outcome = self.shared.truth.commit(units).await;
        let took = watch.elapsed();
        metrics::histogram!("unisono_commit_units").record(count as f64);
        metrics::histogram!("unisono_commit_seconds").record(took.as_secs_f64());
        answer(outcome, replies, &self.shared.tail);
        let mut state = self.shared.state();
        state.last = Batch { callers: count + state.waiting.len(), took };
        state.led = !state.waiting.is_empty();
        self.leads = state.led;
    }

    async fn gather(&self) {
        let last = self.shared.state().last;
        if last.callers < 2 {
            return;
        }
        let limit = (last.took / 4).min(GATHER_MAX);
        let watch = self.shared.runtime.stopwatch();
        for _ in 0..GATHER_TURNS_MAX {
            let waiting = self.shared.state().waiting.len();
            if waiting >= last.callers.min(UNITS_MAX) || watch.elapsed() > limit {
                return;
            }
            tokio::task::yield_now().await;
        }
    }
}

/// The last batch.
#[derive(Clone, Copy)]
struct Batch {
    /// How many units it had, or came while it was committed.
    callers: usize,
    /// How long it took.
    took: Duration,
}

/// Publishes what was committed before anyone is answered, so that deliveries start as early as callers return.
fn answer(
    outcome: Result<Vec<Result<Committed>>>,
    replies: Vec<oneshot::Sender<Result<Committed>>>,
    tail: &Tail,
) {
    let results = match outcome {
        Ok(results) => results,
        Err(error) => replies.iter().map(|_| Err(error.duplicate())).collect(),
    };
    debug_assert_eq!(results.len(), replies.len(), "a truth answers every unit");
    let fresh =
        results.iter().flatten().filter(|c| !c.replayed).flat_map(|c| c.changes.iter().cloned());
    tail.publish(&fresh.collect::<Vec<_>>());
    for (result, reply) in results.into_iter().zip(replies) {
        // A caller that went away has nobody to tell; its write took place.
        let _ = reply.send(result);
    }
}
