//! Asking the sources in the order of the plan until one answers.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use unisono_core::source::{At, Reader, Replicas};
use unisono_core::{Consistency, Context, Error, ErrorKind, Key, Result, Role, Token, Version};
use unisono_policy::breaker;
use unisono_policy::route::{self, Candidate, Operation, Request};

use crate::answer::{Answer, CacheStatus};
use crate::read::serving::{Answering, Serving};
use crate::runtime::{Runtime, Stopwatch};

/// How long a read waits for a follower to apply its token while another source could answer instead.
const CATCH_UP: Duration = Duration::from_millis(500);

/// Asks one source a question.
pub(crate) type Question<'a, T> =
    &'a (dyn Fn(Arc<dyn Reader>) -> BoxFuture<'a, Result<At<T>>> + Sync);

/// What a source said.
struct Said<T> {
    at: At<T>,
    /// Whether a read replica of it said so.
    replica: bool,
    /// Whether it may lack what the source refuses.
    refused: bool,
}

/// One read: what it demands, and the time that it has left.
pub(crate) struct Reading<'a> {
    pub(crate) serving: &'a Serving,
    pub(crate) context: &'a Context,
    /// Set for a read of one record.
    pub(crate) key: Option<&'a Key>,
    pub(crate) runtime: &'a Runtime,
    pub(crate) watch: Stopwatch,
}

impl<'a> Reading<'a> {
    pub(crate) fn new(serving: &'a Serving, context: &'a Context, runtime: &'a Runtime) -> Self {
        Reading { serving, context, key: None, runtime, watch: runtime.stopwatch() }
    }

    /// What the plan is made from.
    pub(crate) fn request(&self, operation: Operation) -> Request {
        Request {
            operation,
            consistency: self.context.consistency,
            token: self.context.token.position(&self.serving.log.name),
            fallback: self.context.fallback,
        }
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
        operation: Operation,
        question: Question<'a, T>,
    ) -> Result<Answer<T>> {
        let request = self.request(operation);
        let plan = route::plan(&request, &self.serving.facts(self.runtime.now()));
        let mut failed: Vec<(Arc<str>, Error)> = Vec::new();
        for (n, candidate) in plan.candidates.iter().enumerate() {
            let Some(answering) = self.serving.answering.get(&candidate.source) else { continue };
            let last = n + 1 == plan.candidates.len();
            match self.try_one(&request, candidate, answering, last, question).await {
                Ok(said) => return Ok(self.answer(candidate, answering, said, failed)),
                Err(error) if passes_on(error.kind()) => {
                    failed.push((Arc::clone(&candidate.source), error))
                }
                Err(error) => {
                    return Err(error.at(&candidate.source).of(self.serving.entity.name()));
                }
            }
        }
        match self.ask_replicas(&request, &plan, &mut failed, question).await {
            Some(answer) => Ok(answer),
            None => Err(self.nobody_answered(&plan, failed)),
        }
    }

    /// While the truth cannot be asked, its read replicas know what it knew.
    async fn ask_replicas<T>(
        &self,
        request: &Request,
        plan: &route::Plan,
        failed: &mut Vec<(Arc<str>, Error)>,
        question: Question<'a, T>,
    ) -> Option<Answer<T>> {
        let name = &self.serving.log.name.truth;
        let is_away =
            |(source, error): &(Arc<str>, Error)| source == name && breaker::counts(error.kind());
        let blocked = (Arc::clone(name), route::Reason::Blocked);
        let away = failed.iter().any(is_away) || plan.excluded.contains(&blocked);
        if !away || !request.fallback || request.consistency == Consistency::Strong {
            return None;
        }
        let answering = self.serving.answering.get(name)?;
        let replicas = Arc::clone(&answering.handle.source).replicas(Replicas::Any)?;
        let left = self.context.timeout.saturating_sub(self.watch.elapsed());
        let asked = self.runtime.within(left, question(replicas)).await;
        match asked.and_then(|at| fresh_enough(request, at)) {
            Ok(at) => {
                let candidate = Candidate {
                    source: Arc::clone(name),
                    role: answering.role,
                    why: route::Why::Truth,
                    needs_wait: None,
                    stale: true,
                };
                let said = Said { at, replica: true, refused: false };
                Some(self.answer(&candidate, answering, said, std::mem::take(failed)))
            }
            Err(error) => {
                tracing::debug!(%error, source = %name, "no read replica can answer for it");
                None
            }
        }
    }

    /// What one candidate says.
    async fn try_one<T>(
        &self,
        request: &Request,
        candidate: &Candidate,
        answering: &Answering,
        last: bool,
        question: Question<'a, T>,
    ) -> Result<Said<T>> {
        let left = self.context.timeout.saturating_sub(self.watch.elapsed());
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
        if !answering.handle.allows(self.runtime.now()) {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "the source has failed repeatedly and is given a pause",
            ));
        }
        let refused = self.refused(answering);
        let left = self.context.timeout.saturating_sub(self.watch.elapsed());
        let asked = ask_source(request, answering, question);
        let result = self.runtime.within(left, asked).await;
        match &result {
            Ok(_) => answering.handle.succeeded(self.runtime.now()),
            Err(error) => {
                answering.handle.failed(error.kind(), self.runtime.now(), self.runtime.random())
            }
        }
        let (at, replica) = result?;
        // A dead letter that came or went meanwhile counts as well: the answer may be from either side of it.
        let refused = refused.0 || self.refused(answering) != refused;
        if self.key.is_some() && refused {
            return Err(Error::new(ErrorKind::TooStale, "the follower refuses this record")
                .hint("see `unisono dead-letters list`"));
        }
        Ok(Said { at: fresh_enough(request, at)?, replica, refused })
    }

    /// Whether a follower refuses the record asked for. A position says nothing about a refused record.
    fn refused(&self, answering: &Answering) -> (bool, u64) {
        answering.delivery.as_ref().map_or((false, 0), |d| d.is_refused(self.key))
    }

    fn answer<T>(
        &self,
        candidate: &Candidate,
        answering: &Answering,
        said: Said<T>,
        failed: Vec<(Arc<str>, Error)>,
    ) -> Answer<T> {
        let Said { at, replica, refused } = said;
        let log = &self.serving.log;
        let mut token = self.context.token.clone();
        token.merge(&Token::at(log.name.clone(), at.position));
        let behind = answering.role != Role::Truth && at.position < log.tail.head();
        // While the truth cannot be asked, nobody knows how far its log has come.
        let asked_in_vain = failed.iter().any(|(source, _)| *source == log.name.truth);
        let now = self.runtime.now();
        let silent = answering.role != Role::Truth && log.tail.is_silent(now);
        let unknown = candidate.stale || asked_in_vain || silent;
        let lag = match &answering.delivery {
            Some(delivery) if behind => delivery.status().lag_seconds,
            // Until then every answer had what the truth had.
            None if replica && unknown => now.seconds_since(log.tail.heard()).max(0.0),
            _ => 0.0,
        };
        Answer {
            value: at.value,
            source: Arc::clone(&candidate.source),
            role: answering.role,
            replica,
            position: at.position,
            token,
            age: Duration::from_secs_f64(lag),
            stale: unknown || behind || refused,
            cache: CacheStatus::Bypass,
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

/// Asks a source, or a read replica that has everything, to spare it what is not read by key. Answers too which it was.
async fn ask_source<T>(
    request: &Request,
    answering: &Answering,
    question: Question<'_, T>,
) -> Result<(At<T>, bool)> {
    let spared = request.operation != Operation::Get && request.consistency != Consistency::Strong;
    let source = Arc::clone(&answering.handle.source);
    if answering.role == Role::Truth
        && spared
        && let Some(replicas) = source.replicas(Replicas::Current)
    {
        match question(replicas).await {
            Err(error) if error.kind() == ErrorKind::TooStale => {}
            asked => return asked.map(|at| (at, true)),
        }
    }
    question(Arc::clone(&answering.reader)).await.map(|at| (at, false))
}

/// Refuses an answer that lacks what the caller has seen.
fn fresh_enough<T>(request: &Request, at: At<T>) -> Result<At<T>> {
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
