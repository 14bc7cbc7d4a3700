//! Group commit: concurrent writes to one truth gather while the previous batch commits, and go as one transaction.
//!
//! Gathering: after a batch of several, the callers just answered come back within moments, one by one; waiting
//! until about as many are there again avoids a batch of one followed by a batch of the rest. The wait is bounded by
//! a quarter of the last commit's duration, at most 0.6 ms, and never happens after a lone write.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use unisono_core::source::Truth;
use unisono_core::write::{Committed, Unit};
use unisono_core::{Effect, Error, ErrorKind, Result};

use crate::log::tail::Tail;
use crate::runtime::{Runtime, Stopwatch};

/// The most units in one transaction.
const UNITS_MAX: usize = 1024;
/// The most units that wait; a further one waits for room, which holds its caller back.
const QUEUE_MAX: usize = 4096;
const GATHER_MAX: Duration = Duration::from_micros(600);
/// Bounds gathering where time stands still, as in the simulator.
const GATHER_TURNS_MAX: usize = 200;

/// The way to the one task that commits to a truth.
pub(crate) struct Committer {
    queue: mpsc::Sender<Waiting>,
}

struct Waiting {
    unit: Unit,
    reply: oneshot::Sender<Result<Committed>>,
}

impl Committer {
    /// Starts the committing task.
    pub(crate) fn start(truth: Arc<dyn Truth>, tail: Arc<Tail>, runtime: &Runtime) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        runtime.spawn(run(truth, tail, waiting, runtime.clone()));
        Committer { queue }
    }

    /// Commits one unit. If the caller goes away meanwhile, the unit takes place all the same.
    pub(crate) async fn commit(&self, unit: Unit) -> Result<Committed> {
        self.enqueue(unit).await?.await.unwrap_or_else(|_| Err(ended(Effect::Unknown)))
    }

    /// Commits units each for itself, in order, gathered.
    pub(crate) async fn commit_each(&self, units: Vec<Unit>) -> Vec<Result<Committed>> {
        let mut replies = Vec::with_capacity(units.len());
        for unit in units {
            replies.push(self.enqueue(unit).await);
        }
        let mut results = Vec::with_capacity(replies.len());
        for reply in replies {
            results.push(match reply {
                Ok(reply) => reply.await.unwrap_or_else(|_| Err(ended(Effect::Unknown))),
                Err(error) => Err(error),
            });
        }
        results
    }

    async fn enqueue(&self, unit: Unit) -> Result<oneshot::Receiver<Result<Committed>>> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(Waiting { unit, reply }).await.map_err(|_| ended(Effect::None))?;
        Ok(answer)
    }
}

fn ended(effect: Effect) -> Error {
    Error::new(ErrorKind::Cancelled, "the engine was closed").effect(effect).on("commit")
}

async fn run(
    truth: Arc<dyn Truth>,
    tail: Arc<Tail>,
    mut queue: mpsc::Receiver<Waiting>,
    runtime: Runtime,
) {
    let mut last = Batch { units: 0, took: Duration::ZERO };
    let mut waiting = Vec::with_capacity(UNITS_MAX);
    while queue.recv_many(&mut waiting, UNITS_MAX).await > 0 {
        gather(&mut queue, &mut waiting, &last, &runtime).await;
        let (units, replies): (Vec<_>, Vec<_>) =
            waiting.drain(..).map(|w| (w.unit, w.reply)).unzip();
        let watch = runtime.stopwatch();
        let count = units.len();
        let outcome = truth.commit(units).await;
        last = Batch { units: count, took: watch.elapsed() };
        metrics::histogram!("unisono_commit_units").record(count as f64);
        metrics::histogram!("unisono_commit_seconds").record(last.took.as_secs_f64());
        answer(outcome, replies, &tail);
    }
}

struct Batch {
    units: usize,
    took: Duration,
}

async fn gather(
    queue: &mut mpsc::Receiver<Waiting>,
    waiting: &mut Vec<Waiting>,
    last: &Batch,
    runtime: &Runtime,
) {
    if last.units < 2 {
        return;
    }
    let limit = (last.took / 4).min(GATHER_MAX);
    let watch: Stopwatch = runtime.stopwatch();
    for _ in 0..GATHER_TURNS_MAX {
        if waiting.len() >= last.units.min(UNITS_MAX) || watch.elapsed() > limit {
            return;
        }
        tokio::task::yield_now().await;
        while waiting.len() < UNITS_MAX
            && let Ok(more) = queue.try_recv()
        {
            waiting.push(more);
        }
    }
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
