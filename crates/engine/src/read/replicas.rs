//! Read replicas of the truth: they spare it questions, and answer for it while it is away.

use std::sync::Arc;

use unisono_core::source::At;
use unisono_core::{Consistency, Error, ErrorKind, Position, Result, Role};
use unisono_policy::breaker;
use unisono_policy::route::{Operation, Plan, Reason, Request};

use crate::read::ask::{Found, Question, Reading, fresh_enough};
use crate::read::serving::Answering;

impl<'a> Reading<'a> {
    /// Asks a source, or a read replica of it, to spare it what is not read by key. Answers too which it was.
    ///
    /// A replica must have all that this process knows of, which is less than what the source has by the moments that a
    /// change takes to get here; while nothing is heard of the source, nobody can say how much less that is.
    pub(super) async fn ask_source<T>(
        &self,
        request: &Request<'_>,
        answering: &Answering,
        question: Question<'_, T>,
    ) -> Result<(At<T>, bool)> {
        let spared = request.operation != Operation::Get
            && request.consistency != Consistency::Strong
            && answering.role == Role::Truth
            && !self.serving.log.tail.is_silent(self.runtime.now());
        let source = &answering.handle.source;
        let known = request.token.max(self.serving.log.tail.head());
        if spared && let Some(replicas) = Arc::clone(source).replicas(known) {
            match question(replicas).await {
                Err(error) if error.kind() == ErrorKind::TooStale => {}
                asked => return asked.map(|at| (at, true)),
            }
        }
        question(Arc::clone(&answering.reader)).await.map(|at| (at, false))
    }

    /// While the truth cannot be asked, its read replicas know what it knew. They answer nothing that the plan kept from
    /// the truth for another reason.
    pub(super) async fn ask_replicas<T>(
        &self,
        request: &Request<'_>,
        plan: &Plan,
        failed: &[(Arc<str>, Error)],
        question: Question<'a, T>,
    ) -> Option<Found<'a, T>> {
        let name = &self.serving.log.name.truth;
        let is_away =
            |(source, error): &(Arc<str>, Error)| source == name && breaker::counts(error.kind());
        let blocked = (Arc::clone(name), Reason::Blocked);
        let away = failed.iter().any(is_away) || plan.excluded.contains(&blocked);
        let fallback = self.policies.read.falls_back(request.fallback);
        if !away || !fallback || request.consistency == Consistency::Strong {
            return None;
        }
        let answering = self.policies.answering.get(name)?;
        let replicas = Arc::clone(&answering.handle.source).replicas(Position::ZERO)?;
        let asked = self.runtime.within(self.left(), question(replicas)).await;
        match asked.and_then(|at| fresh_enough(request, at)) {
            Ok(at) => Some(Found { answering, at, replica: true, refused: false }),
            Err(error) => {
                tracing::debug!(%error, source = %name, "no read replica can answer for it");
                None
            }
        }
    }
}
