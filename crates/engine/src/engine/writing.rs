//! [`Engine`]: writes, to the truth or to the journal before it.

use std::collections::BTreeMap;
use std::slice::from_ref;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use unisono_core::stream;
use unisono_core::write::{Committed, Idempotency, Unit, Write};
use unisono_core::{Context, Effect, Error, ErrorKind, Result, Token};

use crate::answer::Written;
use crate::engine::Engine;
use crate::log::Log;
use crate::policies::Policies;
use crate::write::acknowledge::Demand;
use crate::write::behind::{Behind, Receipt};
use crate::write::idempotency::fingerprint;
use crate::write::{acknowledge, hold, through};

/// The most writes in one call.
const WRITES_MAX: usize = 10_000;

impl Engine {
    /// Writes that take place together or not at all. Their entities must share a truth.
    ///
    /// A caller that goes away, or whose time is up, does not undo its write: the error then says `unknown`.
    pub async fn write(&self, context: &Context, writes: Vec<Write>) -> Result<Written> {
        writes.iter().try_for_each(check_writable)?;
        self.take(context, writes).await
    }

    /// The same, whatever the entities are.
    pub(super) async fn take(&self, context: &Context, writes: Vec<Write>) -> Result<Written> {
        let log = Arc::clone(self.log_of(&writes)?);
        let behind = self.behind_of(&writes)?;
        let writes = self.sealed(writes).await?;
        let running = match &context.idempotency_key {
            Some(key) => Some(self.0.in_flight.enter(key)?),
            None => None,
        };
        let policies = self.0.present.load();
        let hold = self.hold(&policies, &writes);
        let demands = self.demands(&policies, context, &writes)?;
        let unit = self.unit(context, writes);
        let runtime = &self.0.runtime;
        if let Some(behind) = behind {
            let accepting = async { behind.accept(unit, hold).await?.receipt().await };
            let accepted = runtime.within(context.timeout, accepting).await;
            return accepted.map(|receipt| accepted_of(context, receipt)).map_err(unknown_if_late);
        }
        let watch = runtime.stopwatch();
        let committing = hold::commit(&log.committer, unit, hold, runtime);
        let committed = runtime.within(context.timeout, committing).await;
        drop(running);
        let committed = committed.map_err(unknown_if_late)?;
        self.write_through(&policies, &committed).await;
        let left = context.timeout.saturating_sub(watch.elapsed());
        let written = self.acknowledged(&demands, written(&log, context, committed), left).await?;
        self.opened_written(written).await
    }

    /// Commits one write to the truth at once, whatever its entity's ways of writing are, and waits for nobody else.
    pub(super) async fn commit(&self, context: &Context, write: Write) -> Result<()> {
        let log = Arc::clone(self.log_of(from_ref(&write))?);
        let hold = self.hold(&self.0.present.load(), from_ref(&write));
        let unit = self.unit(context, vec![write]);
        let committing = hold::commit(&log.committer, unit, hold, &self.0.runtime);
        let committed = self.0.runtime.within(context.timeout, committing).await;
        committed.map(drop).map_err(unknown_if_late)
    }

    fn demands<'a>(
        &'a self,
        policies: &'a Policies,
        context: &Context,
        writes: &[Write],
    ) -> Result<Vec<Demand<'a>>> {
        let now = self.0.runtime.now();
        acknowledge::demands(&self.0.running.entities, policies, context, writes, now)
    }

    /// For how long writes are held while their truth cannot be reached: for as long as all of them agree to.
    fn hold(&self, policies: &Policies, writes: &[Write]) -> Duration {
        let written = writes.iter().filter_map(|w| self.serving(w.entity.name()).ok());
        let holds = written.map(|serving| policies.of(&serving.policies).write.hold);
        holds.min().unwrap_or_default()
    }

    async fn write_through(&self, policies: &Policies, committed: &Committed) {
        through::write(&self.0.running.entities, policies, committed, &self.0.runtime).await;
    }

    /// Writes that take place each for itself, in order, in as few commits as possible.
    pub async fn write_each(&self, context: &Context, writes: Vec<Write>) -> Vec<Result<Written>> {
        if context.idempotency_key.is_some() {
            let refuse = || {
                Error::invalid("an idempotency key needs an atomic batch")
                    .hint("send \"atomic\": true")
            };
            return writes.iter().map(|_| Err(refuse())).collect();
        }
        let policies = self.0.present.load();
        let mut by_log: BTreeMap<Arc<str>, Gathered> = BTreeMap::new();
        let mut results: Vec<Option<Result<Written>>> = writes.iter().map(|_| None).collect();
        let (mut accepting, mut committed) = (Vec::new(), Vec::new());
        let mut demands = vec![Vec::new(); writes.len()];
        for (n, mut write) in writes.into_iter().enumerate() {
            let sealed = match check_writable(&write) {
                Ok(()) => self.seal(&mut write).await,
                refused => refused,
            };
            match sealed.and_then(|()| self.demands(&policies, context, from_ref(&write))) {
                Ok(of_write) => demands[n] = of_write,
                Err(error) => {
                    results[n] = Some(Err(error));
                    continue;
                }
            }
            let serving = self.serving(write.entity.name());
            match serving.map(|serving| (serving, &serving.behind)) {
                Err(error) => results[n] = Some(Err(error)),
                Ok((serving, Some(behind))) => {
                    let hold = policies.of(&serving.policies).write.hold;
                    let unit = self.unit(context, vec![write]);
                    // One after the other, so that they stay in order; the journal gathers them all the same.
                    accepting.push((n, behind.accept(unit, hold).await));
                }
                Ok((serving, None)) => {
                    let log = &serving.log;
                    let (_, numbers, units) = by_log
                        .entry(Arc::clone(&log.name.truth))
                        .or_insert_with(|| (Arc::clone(log), Vec::new(), Vec::new()));
                    numbers.push(n);
                    units.push(self.unit(context, vec![write]));
                }
            }
        }
        for (n, accepting) in accepting {
            let receipt = match accepting {
                Ok(accepting) => accepting.receipt().await,
                Err(error) => Err(error),
            };
            results[n] = Some(receipt.map(|receipt| accepted_of(context, receipt)));
        }
        for (log, numbers, units) in by_log.into_values() {
            for (n, result) in numbers.into_iter().zip(log.committer.commit_each(units).await) {
                match result {
                    Err(error) => results[n] = Some(Err(error)),
                    Ok(unit) => {
                        self.write_through(&policies, &unit).await;
                        committed.push((n, written(&log, context, unit)));
                    }
                }
            }
        }
        let answers = committed.into_iter().map(|(n, written)| {
            let demands = &demands[n];
            async move { (n, self.acknowledged(demands, written, context.timeout).await) }
        });
        for (n, answer) in join_all(answers).await {
            results[n] = Some(match answer {
                Ok(written) => self.opened_written(written).await,
                refused => refused,
            });
        }
        let missing = || Err(Error::internal("a write has no outcome").effect(Effect::Unknown));
        results.into_iter().map(|r| r.unwrap_or_else(missing)).collect()
    }

    /// Waits until enough sources have a write. One that too few have is told as such, with all that its writer needs to
    /// go on.
    async fn acknowledged(
        &self,
        demands: &[Demand<'_>],
        written: Written,
        limit: Duration,
    ) -> Result<Written> {
        let (changes, runtime) = (&written.changes, &self.0.runtime);
        match acknowledge::wait(demands, changes, limit, runtime).await {
            Ok(acknowledged) => Ok(Written { acknowledged, ..written }),
            Err(shortfall) => Err(shortfall.error(&written.token)),
        }
    }

    fn unit(&self, context: &Context, writes: Vec<Write>) -> Unit {
        let idempotency = context.idempotency_key.as_ref().map(|key| {
            let fingerprint = context.fingerprint.unwrap_or_else(|| fingerprint(&writes));
            Idempotency { key: Arc::clone(key), fingerprint: self.blinded(fingerprint, &writes) }
        });
        Unit {
            writes,
            idempotency,
            time: self.0.runtime.now(),
            actor: context.actor.clone(),
            trace: context.trace.clone(),
        }
    }

    fn log_of(&self, writes: &[Write]) -> Result<&Arc<Log>> {
        let first = writes.first().ok_or_else(|| Error::invalid("there is nothing to write"))?;
        if writes.len() > WRITES_MAX {
            return Err(Error::new(ErrorKind::LimitExceeded, "too many writes in one unit")
                .with("limit", WRITES_MAX));
        }
        let log = &self.serving(first.entity.name())?.log;
        for write in writes {
            if self.serving(write.entity.name())?.log.name != log.name {
                return Err(Error::invalid("an atomic batch cannot span two truths")
                    .of(write.entity.name())
                    .hint("send one batch per truth"));
            }
        }
        Ok(log)
    }

    /// What the writes wait behind, if one of them does.
    fn behind_of(&self, writes: &[Write]) -> Result<Option<&Arc<Behind>>> {
        let mut found = None;
        for write in writes {
            found = found.or(self.serving(write.entity.name())?.behind.as_ref());
        }
        Ok(found)
    }
}

/// Refuses what is worked out, and what only appends may write: events, and what their conditions are checked with.
fn check_writable(write: &Write) -> Result<()> {
    if write.entity.is_derived() {
        return Err(Error::unsupported("the rows of a projection are worked out, and not written")
            .of(write.entity.name())
            .hint("write the records that it is worked out from"));
    }
    if !write.entity.is_of_events() && !stream::is_of_tags(&write.entity) {
        return Ok(());
    }
    Err(Error::unsupported("events are appended to streams, and not written as records")
        .of(write.entity.name())
        .hint("append to /v1/streams/TYPE/STREAM; to remove events, delete or limit their stream"))
}

/// Units for one log, with the numbers of their writes among all.
type Gathered = (Arc<Log>, Vec<usize>, Vec<Unit>);

fn written(log: &Log, context: &Context, committed: Committed) -> Written {
    let mut token = context.token.clone();
    if let Some(last) = committed.changes.last() {
        token.merge(&Token::at(log.name.clone(), last.position));
    }
    let Committed { changes, replayed } = committed;
    Written { changes, accepted: None, acknowledged: BTreeMap::new(), token, replayed }
}

fn accepted_of(context: &Context, receipt: Receipt) -> Written {
    let mut token = context.token.clone();
    token.merge(&receipt.token);
    let (accepted, replayed) = (Some(receipt.accepted), receipt.replayed);
    Written { changes: Vec::new(), accepted, acknowledged: BTreeMap::new(), token, replayed }
}

fn unknown_if_late(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Timeout => error.effect(Effect::Unknown).on("write"),
        _ => error,
    }
}
