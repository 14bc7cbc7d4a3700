//! [`Serving`]: an entity and everything that can answer for it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::RwLock;
use unisono_core::source::Reader;
use unisono_core::{Entity, Position, Role, Timestamp};
use unisono_policy::hedge::HedgeBudget;
use unisono_policy::route::{Facts, Operation};

use crate::cache::Feed;
use crate::delivery::Delivery;
use crate::log::Log;
use crate::policies::{EntityPolicies, PresentEntity};
use crate::read::flight::Flights;
use crate::read::handle::SourceHandle;
use crate::topology::moved::Earlier;
use crate::write::behind::Behind;

/// A source that can answer questions about an entity.
pub(crate) struct Answering {
    pub(crate) handle: Arc<SourceHandle>,
    pub(crate) reader: Arc<dyn Reader>,
    pub(crate) role: Role,
    /// Set for a follower.
    pub(crate) delivery: Option<Arc<Delivery>>,
}

impl Answering {
    /// Whether it holds records as its `map` makes them.
    pub(crate) fn is_mapped(&self) -> bool {
        self.delivery.as_ref().is_some_and(|delivery| delivery.target().map.is_some())
    }
}

/// An entity and everything that can answer for it.
pub(crate) struct Serving {
    pub(crate) entity: Arc<Entity>,
    pub(crate) log: Arc<Log>,
    pub(crate) cache: Option<Arc<Feed>>,
    pub(crate) flights: Flights,
    /// How it is read and written at present.
    pub(crate) policies: PresentEntity,
    /// Set if it is written behind.
    pub(crate) behind: Option<Arc<Behind>>,
    pub(crate) hedges: Mutex<HedgeBudget>,
    /// Held by each write while it is committed, and by who moves the truth while none may be.
    pub(crate) gate: Arc<RwLock<()>>,
    /// The log that had it before, while outcomes of writes there are remembered.
    pub(crate) earlier: Option<Earlier>,
}

impl Serving {
    /// What routing may look at.
    pub(crate) fn facts(
        &self,
        policies: &EntityPolicies,
        operation: Operation,
        now: Timestamp,
    ) -> Vec<Facts> {
        let answering = &policies.answering;
        // The log hears of its truth more often than readers ask it: what it hears ends the opening of a breaker that
        // would otherwise refuse strong reads for up to a minute after the truth is back.
        let truths = answering.values().filter(|a| a.delivery.is_none());
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
                .map_or(Duration::ZERO, |d| Duration::from_secs_f64(d.lag_seconds())),
            load: a.handle.expected(operation),
            filtered: a.delivery.as_ref().is_some_and(|d| d.target().is_filtered()),
            mapped: a.is_mapped(),
            far: a.handle.far,
            clear: a.delivery.as_ref().is_some_and(|d| d.target().clear.is_some()),
        };
        answering.iter().map(of_source).collect()
    }

    fn applied(&self, answering: &Answering) -> Option<Position> {
        match &answering.delivery {
            Some(delivery) => delivery.is_complete().then(|| delivery.applied()),
            None => Some(self.log.tail.head()),
        }
    }
}
