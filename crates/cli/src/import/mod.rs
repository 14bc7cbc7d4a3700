//! Import: JSON Lines into an entity, in batches, in order, resumable, with every refused line named.

pub(crate) mod lines;
pub(crate) mod reader;
pub(crate) mod resume;
#[cfg(test)]
mod tests;

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::Ordering;

use futures::future::BoxFuture;
use futures::stream::{FuturesOrdered, StreamExt as _};
use unisono::core::{Error, ErrorKind, Key, Result, Retry};
use unisono::engine::Runtime;
use unisono::policy::retry;

use crate::target::{Prepared, Target};
use crate::terminal::interrupt::stopped;
use crate::terminal::{Interrupt, Progress};
use lines::Lines;
use reader::Batch;
use resume::{Done, Resume};

/// Batches between two notes of how far it has come.
const SAVE_EVERY: u64 = 16;
/// How often a batch is tried while the target cannot take it.
const ATTEMPTS_MAX: u32 = 6;

/// What to import and where.
pub(crate) struct Import<'a> {
    /// Where the records go.
    pub(crate) target: &'a dyn Target,
    /// As what.
    pub(crate) entity: &'a str,
    /// Where they come from.
    pub(crate) lines: Lines,
    /// Bytes of the file as stored, 0 if unknown.
    pub(crate) bytes: u64,
    /// Remembers how far it has come; `None` for standard input.
    pub(crate) resume: Option<&'a Resume>,
    /// Time and randomness for pauses.
    pub(crate) runtime: &'a Runtime,
}

/// How far an import came, and what stopped it.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Lines, records and refusals, those of earlier runs included.
    pub(crate) done: Done,
    /// Records stored by this run.
    pub(crate) stored: u64,
    /// Why it did not come to the end of the file.
    pub(crate) stopped: Option<Error>,
}

/// A line that was not stored, and why.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// Counted from 1.
    pub(crate) line: u64,
    /// Why.
    pub(crate) reason: Error,
}

/// Told of every refused line, in order.
pub(crate) type OnRefusal<'a> = dyn FnMut(Refusal) -> Result<()> + Send + 'a;

impl<'a> Import<'a> {
    /// Runs to the end of the lines, or until the user or a failure stops it; then it can be resumed.
    pub(crate) async fn run(
        self,
        progress: &mut Progress,
        interrupt: &Interrupt,
        on_refusal: &mut OnRefusal<'_>,
    ) -> Result<Ended> {
        let resume = self.resume;
        let start = resume.and_then(Resume::begun).unwrap_or_default();
        if let Some(resume) = resume {
            resume.save(start)?;
        }
        let mut done = start;
        let stopped = tokio::select! {
            outcome = self.carry_all(&mut done, progress, on_refusal) => outcome.err(),
            () = interrupt.wait() => Some(stopped()),
        };
        match (resume, &stopped) {
            (Some(resume), None) => resume.clear(),
            (Some(resume), Some(_)) => resume.save(done)?,
            (None, _) => {}
        }
        Ok(Ended { done, stored: done.records - start.records, stopped })
    }

    async fn carry_all(
        self,
        done: &mut Done,
        progress: &mut Progress,
        on_refusal: &mut OnRefusal<'_>,
    ) -> Result<()> {
        let read = self.lines.bytes_read();
        let parser = self.target.parser(self.entity)?;
        let before = done.records;
        let mut batches = reader::start(self.lines, done.lines, parser)?;
        let mut flights = Flights::default();
        let mut pending: Option<Batch> = None;
        let mut end = None;
        let mut landings = 0u64;
        loop {
            if let Some(mut batch) = pending.take_if(|batch| flights.have_room(batch, self.target))
            {
                let keys = std::mem::take(&mut batch.keys);
                let flight = carry(self.target, self.entity, batch, self.runtime);
                flights.start(keys, Box::pin(flight));
            }
            if flights.is_empty()
                && let Some(end) = end.take()
            {
                return end;
            }
            tokio::select! {
                landed = flights.next(), if !flights.is_empty() => {
                    settle(landed?, done, on_refusal)?;
                    landings += 1;
                    if let Some(resume) = self.resume.filter(|_| landings.is_multiple_of(SAVE_EVERY)) {
                        resume.save(*done)?;
                    }
                    progress.update(read.load(Ordering::Relaxed), self.bytes, done.records - before);
                }
                batch = batches.recv(), if end.is_none() && pending.is_none() => match batch {
                    Some(Ok(batch)) => pending = Some(batch),
                    Some(Err(error)) => end = Some(Err(error)),
                    None => end = Some(Ok(())),
                },
            }
        }
    }
}

/// The batches under way. No two of them hold the same key, so that their order among each other does not matter.
#[derive(Default)]
struct Flights<'a> {
    running: FuturesOrdered<BoxFuture<'a, Result<Landed>>>,
    keys: VecDeque<HashSet<Key>>,
}

impl<'a> Flights<'a> {
    fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    fn have_room(&self, batch: &Batch, target: &dyn Target) -> bool {
        self.keys.len() < target.stores_at_once()
            && self.keys.iter().all(|others| others.is_disjoint(&batch.keys))
    }

    fn start(&mut self, keys: HashSet<Key>, flight: BoxFuture<'a, Result<Landed>>) {
        self.keys.push_back(keys);
        self.running.push_back(flight);
    }

    /// The oldest one, when it is done. Only to be called while there are any.
    async fn next(&mut self) -> Result<Landed> {
        let landed = self.running.next().await;
        self.keys.pop_front();
        landed.unwrap_or_else(|| Err(Error::internal("no batch is under way")))
    }
}

/// What became of one batch.
struct Landed {
    last_line: u64,
    stored: u64,
    refusals: Vec<Refusal>,
}

fn settle(landed: Landed, done: &mut Done, on_refusal: &mut OnRefusal<'_>) -> Result<()> {
    done.lines = landed.last_line;
    done.records += landed.stored;
    done.refused += landed.refusals.len() as u64;
    landed.refusals.into_iter().try_for_each(on_refusal)
}

/// Stores one batch, again and again while the target cannot take it for the moment.
async fn carry(
    target: &dyn Target,
    entity: &str,
    batch: Batch,
    runtime: &Runtime,
) -> Result<Landed> {
    let mut landed = Landed { last_line: batch.last_line, stored: 0, refusals: batch.refusals };
    let mut records = batch.records;
    let mut attempt = 0;
    while !records.is_empty() {
        let sent: Vec<Prepared> = records.iter().map(|(_, record)| record.clone()).collect();
        let results = match target.store(entity, sent).await {
            Ok(results) => results,
            Err(error) => vec![Err(error)],
        };
        let Some(failure) = take_settled(&mut records, results, &mut landed) else { continue };
        attempt += 1;
        if retry::retry(&failure) == Retry::Never || attempt >= ATTEMPTS_MAX {
            return Err(failure);
        }
        runtime.sleep(retry::backoff(attempt, runtime.random())).await;
    }
    landed.refusals.sort_by_key(|refusal| refusal.line);
    Ok(landed)
}

/// Takes the records that were stored or refused, up to the first that failed otherwise, which is answered.
///
/// Those after it are sent again, also if they were stored: a key that comes twice must end with its later state.
fn take_settled(
    records: &mut Vec<(u64, Prepared)>,
    results: Vec<Result<()>>,
    landed: &mut Landed,
) -> Option<Error> {
    let mut settled = 0;
    let mut failure = None;
    for (result, (line, _)) in results.into_iter().zip(records.iter()) {
        match result {
            Ok(()) => landed.stored += 1,
            Err(reason) if is_refusal(&reason) => {
                landed.refusals.push(Refusal { line: *line, reason });
            }
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
        settled += 1;
    }
    if settled == 0 && failure.is_none() {
        failure = Some(Error::internal("the target answered for none of the records"));
    }
    records.drain(..settled);
    failure
}

/// Whether the record is at fault, and not the target.
fn is_refusal(error: &Error) -> bool {
    use ErrorKind::*;
    matches!(
        error.kind(),
        InvalidInput
            | ConstraintViolated
            | LimitExceeded
            | Unsupported
            | AlreadyExists
            | VersionConflict
    )
}
