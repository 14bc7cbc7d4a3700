//! [`Serving`]: an entity and everything that can answer for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use unisono_core::source::{Reader, Source};
use unisono_core::{Entity, ErrorKind, Position, Role, Timestamp};
use unisono_policy::breaker::{self, Breaker, BreakerOptions, Transition};
use unisono_policy::route::Facts;

use crate::cache::Feed;
use crate::delivery::Delivery;
use crate::log::Log;
use crate::read::flight::Flights;

/// An opened source, and whether it is asked at present.
pub(crate) struct SourceHandle {
    pub(crate) source: Arc<dyn Source>,
    breaker: Mutex<Breaker>,
}

impl SourceHandle {
    pub(crate) fn new(source: Arc<dyn Source>) -> Self {
        SourceHandle { source, breaker: Mutex::new(Breaker::new(BreakerOptions::default())) }
    }

    pub(crate) fn is_blocked(&self, now: Timestamp) -> bool {
        !self.breaker().would_allow(now)
    }

    /// Takes note that the source was heard of by another way than a question.
    pub(crate) fn heard(&self, at: Timestamp) {
        self.breaker().heard(at);
    }

    pub(crate) fn allows(&self, now: Timestamp) -> bool {
        self.breaker().allows(now)
    }

    pub(crate) fn succeeded(&self, now: Timestamp) {
        let transition = self.breaker().succeeded(now);
        self.tell(transition);
    }

    /// Takes note of a failure, if it is one of the source and not of the question.
    pub(crate) fn failed(&self, kind: ErrorKind, now: Timestamp, jitter: f64) {
        if breaker::counts(kind) {
            let transition = self.breaker().failed(now, jitter);
            self.tell(transition);
        } else {
            self.breaker().abandoned();
        }
    }

    fn tell(&self, transition: Option<Transition>) {
        if let Some(transition) = transition {
            tracing::warn!(source = %self.source.name(), ?transition, "breaker");
        }
    }

    fn breaker(&self) -> std::sync::MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A source that can answer questions about an entity.
pub(crate) struct Answering {
    pub(crate) handle: Arc<SourceHandle>,
    pub(crate) reader: Arc<dyn Reader>,
    pub(crate) role: Role,
    /// Set for a follower.
    pub(crate) delivery: Option<Arc<Delivery>>,
}

/// An entity and everything that can answer for it.
pub(crate) struct Serving {
    pub(crate) entity: Arc<Entity>,
    pub(crate) log: Arc<Log>,
    pub(crate) answering: BTreeMap<Arc<str>, Answering>,
    pub(crate) cache: Option<Arc<Feed>>,
    pub(crate) flights: Flights,
}

impl Serving {
    /// What routing may look at.
    pub(crate) fn facts(&self, now: Timestamp) -> Vec<Facts> {
        // The log hears of its truth more often than readers ask it: what it hears ends the opening of a breaker that
        // would otherwise refuse strong reads for up to a minute after the truth is back.
        let truths = self.answering.values().filter(|a| a.delivery.is_none());
        truths.for_each(|a| a.handle.heard(self.log.tail.heard()));
        let of_source = |(name, a): (&Arc<str>, &Answering)| Facts {
            source: Arc::clone(name),
            role: a.role,
            query: a.handle.source.capability().query,
            blocked: a.handle.is_blocked(now),
            applied: self.applied(a),
            lag: a
                .delivery
                .as_ref()
                .map_or(Duration::ZERO, |d| Duration::from_secs_f64(d.status().lag_seconds)),
            filtered: a.delivery.as_ref().is_some_and(|d| d.target().filter.is_some()),
        };
        self.answering.iter().map(of_source).collect()
    }

    fn applied(&self, answering: &Answering) -> Option<Position> {
        match &answering.delivery {
            Some(delivery) => delivery.is_complete().then(|| delivery.applied()),
            None => Some(self.log.tail.head()),
        }
    }
}
