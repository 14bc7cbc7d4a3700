//! Asking the sources in the order of the plan until one answers.

use std::pin::pin;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use unisono_core::query::{Filter, Order, Path};
use unisono_core::source::{At, Reader};
use unisono_core::{Consistency, Context, Error, ErrorKind, Key, Result, Role, Token, Version};
use unisono_policy::breaker;
use unisono_policy::hedge::HedgeBudget;
use unisono_policy::route::{self, Candidate, Facts, Operation, Request};

use crate::answer::{Answer, CacheStatus};
use crate::delivery::Delivery;
use crate::policies::EntityPolicies;
use crate::read::serving::{Answering, Serving};
use crate::read::words;
use crate::runtime::{Runtime, Stopwatch};

/// How long a read waits for a follower to apply its token while another source could answer instead.
const CATCH_UP: Duration = Duration::from_millis(500);

/// Asks one source a question.
pub(crate) type Question<'a, T> =
    &'a (dyn Fn(Arc<dyn Reader>) -> BoxFuture<'a, Result<At<T>>> + Sync);

/// One read: what it demands, and the time that it has left.
pub(crate) struct Reading<'a> {
    pub(crate) serving: &'a Serving,
    pub(crate) policies: &'a EntityPolicies,
    pub(crate) context: &'a Context,
    /// The records that are read by their keys; none for a question.
    pub(crate) keys: &'a [Key],
    pub(crate) runtime: &'a Runtime,
    pub(crate) watch: Stopwatch,
}

/// What a source has found.
pub(super) struct Found<'a, T> {
    pub(super) answering: &'a Answering,
    pub(super) at: At<T>,
    /// Whether a read replica of the source has.
    pub(super) replica: bool,
    /// Whether it may lack what the source refuses.
    pub(super) refused: bool,
}

/// Who was asked and what came of it, in the order of their answers: one candidate, or two at once.
type Outcomes<'c, 'a, T> = [Option<(&'c Candidate, Result<Found<'a, T>>)>; 2];

/// Whether an outcome makes that of another source unnecessary.
fn settles<T>(result: &Result<T>) -> bool {
    result.as_ref().err().is_none_or(|error| !passes_on(error.kind()))
}

impl<'a> Reading<'a> {
    pub(crate) fn new(
        serving: &'a Serving,
        policies: &'a EntityPolicies,
        context: &'a Context,
        runtime: &'a Runtime,
    ) -> Self {
        Reading { serving, policies, context, keys: &[], runtime, watch: runtime.stopwatch() }
    }

    /// What the plan for a read by key is made from.
    pub(crate) fn request(&self, operation: Operation) -> Request<'a> {
        Request {
            consistency: self.context.consistency,
            token: self.context.token.position(&self.serving.log.name),
            fallback: self.context.fallback,
            hints: &self.context.hints,
            actor: self.context.actor.as_deref(),
            ..Request::new(operation)
        }
    }

    /// What the plan for a question with a filter is made from.
    pub(crate) fn request_for(
        &self,
        operation: Operation,
        filter: &Filter,
        order: &[Order],
    ) -> Request<'a> {
        let paths = filter.paths();
        let criteria = paths.len();
        let name = |path: &Path| Some(&*self.serving.entity.fields().get(path.field)?.name);
        let all: Vec<_> = paths.into_iter().chain(order.iter().map(|o| &o.path)).collect();
        let searched = operation.searches()
            && self.serving.entity.search_fields().any(|(n, _)| self.is_personal(&Path::whole(n)));
        let clear = searched || all.iter().any(|path| self.is_personal(path));
        let fields = all.into_iter().filter_map(name).collect();
        Request { criteria, fields, clear, ..self.request(operation) }
    }

    /// Whether only a source that has personal values as they are can tell what is there.
    pub(crate) fn is_personal(&self, path: &Path) -> bool {
        self.serving.entity.personal().is_some_and(|personal| personal.covers(path))
    }

    /// What the plan is made from beside the request.
    pub(crate) fn facts(&self, operation: Operation) -> Vec<Facts> {
        self.serving.facts(self.policies, operation, self.runtime.now())
    }

    /// The time that is left for it.
    pub(crate) fn left(&self) -> Duration {
        self.context.timeout.saturating_sub(self.watch.elapsed())
    }

    /// Whether an answer may be kept: not one with personal values as they are, which an erasure would not reach, nor one with
    /// what a `map` makes of records.
    pub(crate) fn may_keep(&self, source: &str) -> bool {
        let answering = self.policies.answering.get(source);
        let delivery = answering.and_then(|answering| answering.delivery.as_ref());
        delivery.is_none_or(|delivery| {
            let target = delivery.target();
            target.clear.is_none() && target.map.is_none()
        })
    }

    /// Whether a page that was found before may be the answer.
    pub(crate) fn may_use_kept(&self) -> bool {
        self.context.consistency != Consistency::Strong && self.context.hints.is_empty()
    }

    /// Whether a search that failed is answered as well as can be by sources that do not search.
    pub(crate) fn goes_on_without_search(&self, error: &Error) -> bool {
        self.policies.read.falls_back(self.context.fallback) && words::is_away(error.kind())
    }

    /// A token for versions that were shown. A follower may have taken in single records beyond its position; who saw
    /// one is not to see it go back.
    pub(crate) fn token_of(&self, shown: impl IntoIterator<Item = Version>) -> Token {
        let newest = shown.into_iter().max().unwrap_or_default();
        Token::at(self.serving.log.name.clone(), newest)
    }

    /// Asks the candidates one after another. What is wrong with the question itself is answered at once; what is
    /// wrong with a source makes the next one be asked.
    pub(crate) async fn ask<T>(
        &self,
        request: &Request<'_>,
        question: Question<'a, T>,
    ) -> Result<Answer<T>> {
        let (policy, facts) = (&self.policies.read, self.facts(request.operation));
        if request.clear && !facts.iter().any(|source| source.clear) {
            return Err(encrypted().of(self.serving.entity.name()));
        }
        let plan = route::plan(request, policy, &facts, self.runtime.random());
        let mut failed: Vec<(Arc<str>, Error)> = Vec::new();
        let mut candidates = plan.candidates.as_slice();
        while !candidates.is_empty() {
            let outcomes = self.ask_next(request, candidates, question).await;
            let asked = outcomes.iter().flatten().count();
            for (candidate, result) in outcomes.into_iter().flatten() {
                match result {
                    Ok(found) => {
                        let Candidate { source, stale, .. } = candidate;
                        return Ok(self.answer(&plan.rule, source, *stale, found, failed));
                    }
                    Err(error) if passes_on(error.kind()) => {
                        failed.push((Arc::clone(&candidate.source), error));
                    }
                    Err(error) => {
                        return Err(error.at(&candidate.source).of(self.serving.entity.name()));
                    }
                }
            }
            candidates = &candidates[asked..];
        }
        match self.ask_replicas(request, &plan, &failed, question).await {
            Some(found) => {
                Ok(self.answer(&plan.rule, &self.serving.log.name.truth, true, found, failed))
            }
            None => Err(self.nobody_answered(&plan, failed)),
        }
    }

    /// Asks the first candidate, and the second as well if that takes long and is declared: who has answered, or failed
    /// and been followed by the other.
    async fn ask_next<'c, T>(
        &self,
        request: &Request<'_>,
        candidates: &'c [Candidate],
        question: Question<'a, T>,
    ) -> Outcomes<'c, 'a, T> {
        let last = candidates.len() == 1;
        let first = &candidates[0];
        let hedge = self.policies.read.hedge.filter(|_| request.operation == Operation::Get);
        let (Some(pause), Some(second)) = (hedge, candidates.get(1)) else {
            return [Some((first, self.try_one(request, first, last, question).await)), None];
        };
        let mut one = pin!(self.try_one(request, first, last, question));
        self.hedges().earn();
        let slow = async {
            self.runtime.sleep(pause).await;
            // Without a budget it is waited for alone.
            if !self.hedges().spend() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            result = &mut one => return [Some((first, result)), None],
            () = slow => {}
        }
        metrics::counter!("unisono_reads_hedged_total", "source" => second.source.to_string())
            .increment(1);
        let mut other = pin!(self.try_one(request, second, candidates.len() == 2, question));
        tokio::select! {
            biased;
            result = &mut one => match settles(&result) {
                true => [Some((first, result)), None],
                false => [Some((first, result)), Some((second, other.await))],
            },
            result = &mut other => match settles(&result) {
                true => [Some((second, result)), None],
                false => [Some((second, result)), Some((first, one.await))],
            },
        }
    }

    fn hedges(&self) -> MutexGuard<'_, HedgeBudget> {
        self.serving.hedges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One answer, and whether it may lack what the source refuses.
    pub(super) async fn try_one<T>(
        &self,
        request: &Request<'_>,
        candidate: &Candidate,
        last: bool,
        question: Question<'a, T>,
    ) -> Result<Found<'a, T>> {
        let answering = self.policies.answering.get(&candidate.source);
        let answering = answering.ok_or_else(|| Error::internal("a candidate cannot answer"))?;
        let left = self.left();
        if let (Some(position), Some(delivery)) = (candidate.needs_wait, &answering.delivery) {
            let limit = if last { left } else { left.min(CATCH_UP) };
            let caught_up = async {
                delivery.wait_applied(position).await;
                Ok(())
            };
            let behind = |_| {
                Error::new(ErrorKind::TooStale, "the follower has not applied the token in time")
            };
            self.runtime.within(limit, caught_up).await.map_err(behind)?;
        }
        let asked = answering.handle.ask(request.operation, self.runtime)?;
        let refused = self.refused(answering);
        // Before the answer, which need not contain what is applied meanwhile.
        let reach = answering.delivery.as_ref().and_then(|delivery| delivery.reach());
        let asking = self.ask_source(request, answering, question);
        let result = self.runtime.within(self.left(), asking).await;
        asked.end(&result);
        let (mut at, replica) = result?;
        let is_lost = |delivery: &Arc<Delivery>| reach.is_some() && !delivery.is_complete();
        if answering.delivery.as_ref().is_some_and(is_lost) {
            let message = "the follower began to be filled anew meanwhile";
            return Err(Error::new(ErrorKind::TooStale, message));
        }
        at.position = reach.map_or(at.position, |reach| reach.contained_at(at.position));
        // A dead letter that came or went meanwhile counts as well: the answer may be from either side of it.
        let refused = refused.0 || self.refused(answering) != refused;
        if !self.keys.is_empty() && refused {
            return Err(Error::new(ErrorKind::TooStale, "the follower refuses the record")
                .hint("see `unisono dead-letters list`"));
        }
        Ok(Found { answering, at: fresh_enough(request, at)?, replica, refused })
    }

    /// Whether a follower refuses a record asked for. A position says nothing about a refused record.
    fn refused(&self, answering: &Answering) -> (bool, u64) {
        answering.delivery.as_ref().map_or((false, 0), |d| d.is_refused(self.keys))
    }

    /// `stale` says that nobody can tell whether newer data exists.
    pub(super) fn answer<T>(
        &self,
        rule: &Arc<str>,
        source: &Arc<str>,
        stale: bool,
        Found { answering, at, replica, refused }: Found<'_, T>,
        failed: Vec<(Arc<str>, Error)>,
    ) -> Answer<T> {
        let log = &self.serving.log;
        let mut token = self.context.token.clone();
        token.merge(&Token::at(log.name.clone(), at.position));
        let behind = answering.role != Role::Truth && at.position < log.tail.head();
        // While the truth cannot be asked, nobody knows how far its log has come.
        let asked_in_vain = failed.iter().any(|(source, _)| *source == log.name.truth);
        let now = self.runtime.now();
        let silent = answering.role != Role::Truth && log.tail.is_silent(now);
        let unknown = stale || asked_in_vain || silent;
        let lag = match &answering.delivery {
            Some(delivery) if behind => delivery.lag_seconds(),
            // Until then every answer had what the truth had.
            None if replica && unknown => now.seconds_since(log.tail.heard()).max(0.0),
            _ => 0.0,
        };
        Answer {
            value: at.value,
            source: Arc::clone(source),
            role: answering.role,
            replica,
            position: at.position,
            token,
            age: Duration::from_secs_f64(lag),
            stale: unknown || behind || refused,
            cache: CacheStatus::Bypass,
            rule: Arc::clone(rule),
            failed: failed.into_iter().map(|(source, error)| (source, error.to_string())).collect(),
        }
    }

    /// The error when every candidate failed, or none could be asked.
    fn nobody_answered(&self, plan: &route::Plan, failed: Vec<(Arc<str>, Error)>) -> Error {
        let entity = self.serving.entity.name();
        if let Some((source, error)) = failed.into_iter().last() {
            return error.at(&source).of(entity);
        }
        let reasons: Vec<_> =
            plan.excluded.iter().map(|(source, reason)| format!("{source}: {reason}")).collect();
        let unable = plan.excluded.iter().all(|(_, reason)| *reason == route::Reason::Unable);
        let (kind, message, hint) = if unable {
            (
                ErrorKind::Unsupported,
                "no source of the entity can answer such a question",
                "declare a follower that can, such as one of kind tantivy for search",
            )
        } else {
            (
                ErrorKind::Unavailable,
                "no source can answer now",
                "try again, or allow another consistency",
            )
        };
        Error::new(kind, message).of(entity).with("sources", reasons.join("; ")).hint(hint)
    }
}

/// The error for a question that nobody can answer, since what it looks at is encrypted everywhere.
fn encrypted() -> Error {
    Error::unsupported(
        "personal fields are kept encrypted, so that they cannot be tested, ordered by or searched",
    )
    .hint("ask without them, or declare a follower with `clear = true` that can answer")
}

/// Refuses an answer that lacks what the caller has seen.
pub(super) fn fresh_enough<T>(request: &Request<'_>, at: At<T>) -> Result<At<T>> {
    if request.consistency != Consistency::Eventual && at.position < request.token {
        return Err(Error::new(ErrorKind::TooStale, "the source is behind the token"));
    }
    Ok(at)
}

/// Whether a failure is one of the source, so that another may answer.
pub(crate) fn passes_on(kind: ErrorKind) -> bool {
    breaker::counts(kind)
        || matches!(
            kind,
            ErrorKind::TooStale
                | ErrorKind::Unsupported
                | ErrorKind::Timeout
                | ErrorKind::Unavailable
        )
}
