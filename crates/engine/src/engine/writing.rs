//! [`Engine`]: writes, to the truth or to the journal before it.

use std::collections::BTreeMap;
use std::slice::from_ref;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use tokio::sync::OwnedRwLockReadGuard;
use unisono_core::stream;
use unisono_core::write::{Committed, Idempotency, Unit, Write};
use unisono_core::{Context, Effect, Entity, Error, ErrorKind, Result, Token};

use crate::answer::Written;
use crate::engine::Engine;
use crate::log::Log;
use crate::policies::Policies;
use crate::read::serving::Serving;
use crate::runtime::Runtime;
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
        if writes.len() > WRITES_MAX {
            return Err(Error::new(ErrorKind::LimitExceeded, "too many writes in one unit")
                .with("limit", WRITES_MAX));
        }
        let watch = self.0.runtime.stopwatch();
        let admitted = self.admitted(context, &writes).await?;
        let log = admitted.log()?;
        let behind = admitted.behind();
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
        let committing = async {
            match admitted.earlier(&unit, runtime).await? {
                Some(earlier) => Ok(earlier),
                None => {
                    let committed = hold::commit(&log.committer, unit, hold, runtime).await?;
                    Ok((Arc::clone(&log), committed))
                }
            }
        };
        let committed = runtime.within(context.timeout, committing).await;
        drop((running, admitted));
        let (log, committed) = committed.map_err(unknown_if_late)?;
        self.write_through(&policies, &committed).await;
        let left = context.timeout.saturating_sub(watch.elapsed());
        let written = self.acknowledged(&demands, written(&log, context, committed), left).await?;
        self.opened_written(written).await
    }

    /// Commits writes beside what the truth of an entity keeps for the engine: all of them or none, and at once.
    pub(super) async fn take_beside(
        &self,
        context: &Context,
        entity: &Arc<Entity>,
        writes: Vec<Write>,
        kept: Vec<Write>,
    ) -> Result<Committed> {
        let log = Arc::clone(&self.serving(entity.name())?.log);
        writes.iter().filter(|w| !w.entity.is_of_events()).try_for_each(|write| {
            if stream::is_of_tags(&write.entity) { Ok(()) } else { check_writable(write) }
        })?;
        // None of them is moved meanwhile.
        let admitted = self.admitted(context, &writes).await?;
        if !writes.is_empty() && admitted.log()?.name != log.name {
            return Err(Error::invalid("a step of a process cannot span two truths")
                .of(entity.name())
                .hint("have it append events, and another handler do the rest"));
        }
        if admitted.behind().is_some() {
            return Err(Error::unsupported(
                "what is written behind is decided later, and not in a step",
            ));
        }
        // First what is kept: a step that comes too late is told as that.
        let mut all = kept;
        all.extend(self.sealed(writes).await?);
        let unit = self.unit(context, all);
        let committing = log.committer.commit(unit);
        let committed = self.0.runtime.within(context.timeout, committing).await;
        committed.map_err(unknown_if_late)
    }

    /// Commits one write to the truth at once, whatever its entity's ways of writing are, and waits for nobody else.
    pub(super) async fn commit(&self, context: &Context, write: Write) -> Result<()> {
        let admitted = self.admitted(context, from_ref(&write)).await?;
        let log = admitted.log()?;
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
        acknowledge::demands(policies, context, writes, now)
    }

    /// For how long writes are held while their truth cannot be reached: for as long as all of them agree to.
    fn hold(&self, policies: &Policies, writes: &[Write]) -> Duration {
        let written = writes.iter().filter_map(|w| self.serving(w.entity.name()).ok());
        let holds = written.map(|serving| policies.of(&serving.policies).write.hold);
        holds.min().unwrap_or_default()
    }

    async fn write_through(&self, policies: &Policies, committed: &Committed) {
        through::write(policies, committed, &self.0.runtime).await;
    }

    /// Writes that take place each for itself, in order, in as few commits as possible.
    pub async fn write_each(&self, context: &Context, writes: Vec<Write>) -> Vec<Result<Written>> {
        if context.idempotency_key.is_some() {
            return writes.iter().map(|_| Err(needs_atomic())).collect();
        }
        let admitted = match self.admitted(context, &writes).await {
            Ok(admitted) => admitted,
            Err(error) => return writes.iter().map(|_| Err(error.duplicate())).collect(),
        };
        let policies = self.0.present.load_full();
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
            let serving = policies.servings.get(write.entity.name());
            match serving.map(|serving| (serving, &serving.behind)) {
                None => results[n] = Some(Err(self.unknown(write.entity.name()))),
                Some((serving, Some(behind))) => {
                    let hold = policies.of(&serving.policies).write.hold;
                    let unit = self.unit(context, vec![write]);
                    // One after the other, so that they stay in order; the journal gathers them all the same.
                    accepting.push((n, behind.accept(unit, hold).await));
                }
                Some((serving, None)) => {
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
        drop(admitted);
        for (n, answer) in self.all_acknowledged(context, &demands, committed).await {
            results[n] = Some(answer);
        }
        let missing = || Err(Error::internal("a write has no outcome").effect(Effect::Unknown));
        results.into_iter().map(|r| r.unwrap_or_else(missing)).collect()
    }

    /// Waits for each of some writes, which are named by their numbers.
    async fn all_acknowledged(
        &self,
        context: &Context,
        demands: &[Vec<Demand<'_>>],
        committed: Vec<(usize, Written)>,
    ) -> Vec<(usize, Result<Written>)> {
        let answers = committed.into_iter().map(|(n, written)| async move {
            let demands = demands.get(n).map_or(&[][..], Vec::as_slice);
            match self.acknowledged(demands, written, context.timeout).await {
                Ok(written) => (n, self.opened_written(written).await),
                refused => (n, refused),
            }
        });
        join_all(answers).await
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

    /// Lets writes in: they are committed where their entities are, which stay there until the answer is dropped.
    async fn admitted(&self, context: &Context, writes: &[Write]) -> Result<Admitted> {
        // Nobody waits but while a truth is moved.
        match self.admit(writes).now_or_never() {
            Some(admitted) => admitted,
            None => self.0.runtime.within(context.timeout, self.admit(writes)).await,
        }
    }

    async fn admit(&self, writes: &[Write]) -> Result<Admitted> {
        loop {
            let (mut servings, mut unknown) = (Vec::<Arc<Serving>>::new(), None);
            for write in writes {
                let name = write.entity.name();
                if !servings.iter().any(|known| known.entity.name() == name) {
                    match self.serving(name) {
                        Ok(serving) => servings.push(serving),
                        Err(error) => unknown = Some(error),
                    }
                }
            }
            let mut gates = Vec::with_capacity(servings.len());
            for serving in &servings {
                gates.push(Arc::clone(&serving.gate).read_owned().await);
            }
            let present = self.servings();
            let is_there = |serving: &Arc<Serving>| {
                present.get(serving.entity.name()).is_some_and(|now| Arc::ptr_eq(now, serving))
            };
            if servings.iter().all(is_there) {
                return Ok(Admitted { servings, unknown, _gates: gates });
            }
        }
    }
}

fn needs_atomic() -> Error {
    Error::invalid("an idempotency key needs an atomic batch").hint("send \"atomic\": true")
}

/// The entities of writes that were let in.
struct Admitted {
    servings: Vec<Arc<Serving>>,
    /// Set if there is no such entity.
    unknown: Option<Error>,
    _gates: Vec<OwnedRwLockReadGuard<()>>,
}

impl Admitted {
    /// The log of all of them.
    fn log(&self) -> Result<Arc<Log>> {
        if let Some(error) = &self.unknown {
            return Err(error.duplicate());
        }
        let first = self.servings.first();
        let first = first.ok_or_else(|| Error::invalid("there is nothing to write"))?;
        match self.servings.iter().find(|serving| serving.log.name != first.log.name) {
            None => Ok(Arc::clone(&first.log)),
            Some(other) => Err(Error::invalid("an atomic batch cannot span two truths")
                .of(other.entity.name())
                .hint("send one batch per truth")),
        }
    }

    /// What the writes wait behind, if one of them does.
    fn behind(&self) -> Option<&Arc<Behind>> {
        self.servings.iter().find_map(|serving| serving.behind.as_ref())
    }

    /// What became of a unit before the truth of one of its entities was moved, and in which log.
    async fn earlier(
        &self,
        unit: &Unit,
        runtime: &Runtime,
    ) -> Result<Option<(Arc<Log>, Committed)>> {
        for earlier in self.servings.iter().filter_map(|serving| serving.earlier.as_ref()) {
            if let Some(outcome) = earlier.outcome(unit, runtime).await? {
                return Ok(Some(outcome));
            }
        }
        Ok(None)
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
