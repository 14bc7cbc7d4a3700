//! [`Policies`]: what is declared at present, and what runs because of it. It is replaced as a whole by [`Engine::reload`](crate::Engine::reload);
//! a call looks once, and works to its end with what it saw.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use unisono_policy::ack::AckPolicy;
use unisono_policy::adaptive::{AdaptivePolicy, GATHER};
use unisono_policy::declaration::{CacheDeclaration, Declaration, FollowerDeclaration};
use unisono_policy::delivery::{BatchPolicy, DeliveryPolicy};
use unisono_policy::read::ReadPolicy;
use unisono_policy::write::{BehindPolicy, WritePolicy};

use crate::adaptive::Adaptive;
use crate::delivery::Delivery;
use crate::read::results::Results;
use crate::read::serving::Answering;
use crate::topology::{Handles, Logs, Servings, Topology};

/// Where the present policies are.
pub(crate) type Present = Arc<ArcSwap<Policies>>;

/// Everything that is declared, and for each entity what calls need of it.
pub(crate) struct Policies {
    pub(crate) declaration: Arc<Declaration>,
    pub(crate) sources: Handles,
    pub(crate) logs: Arc<Logs>,
    pub(crate) servings: Arc<Servings>,
    pub(crate) deliveries: Vec<Arc<Delivery>>,
    /// In the order of the declaration.
    entities: Vec<EntityPolicies>,
}

/// How an entity is read, written and cached.
pub(crate) struct EntityPolicies {
    pub(crate) read: ReadPolicy,
    pub(crate) write: WritePolicy,
    pub(crate) ack: AckPolicy,
    /// What `adaptive` goes by, where that is the strategy.
    pub(crate) adaptive: Option<AdaptivePolicy>,
    /// By the follower's source.
    pub(crate) deliveries: BTreeMap<Arc<str>, DeliveryPolicy>,
    pub(crate) cache: Option<CacheDeclaration>,
    /// The answers that are kept, if any are to be.
    pub(crate) results: Option<Results>,
    /// The sources that can answer for it.
    pub(crate) answering: BTreeMap<Arc<str>, Answering>,
}

impl Policies {
    /// Those of a declaration, and what runs for it. Answers that were kept under the policies `before` stay where they
    /// are still to be.
    pub(crate) fn new(
        declaration: Arc<Declaration>,
        topology: Topology,
        before: Option<&Policies>,
    ) -> Self {
        let Topology { logs, servings, sources, deliveries, answering } = topology;
        let mut answering = answering.into_iter();
        let entities = declaration.entities.values().enumerate().map(|(number, declared)| {
            let before = before.and_then(|before| before.entities.get(number)?.results.as_ref());
            let ttl = declared.cache.as_ref().map_or(Duration::ZERO, |cache| cache.results);
            EntityPolicies {
                read: declared.read.clone(),
                write: declared.write.clone(),
                ack: declared.ack.clone(),
                adaptive: declared.adaptive,
                deliveries: declared.followers.iter().map(delivery).collect(),
                cache: declared.cache.clone(),
                results: (!ttl.is_zero()).then(|| Results::new(ttl, before)),
                answering: answering.next().unwrap_or_default(),
            }
        });
        let entities = entities.collect();
        Policies { entities, declaration, sources, logs, servings, deliveries }
    }

    pub(crate) fn of(&self, entity: &PresentEntity) -> &EntityPolicies {
        // A declaration with other entities never takes the place of the one that the numbers are from.
        &self.entities[entity.number]
    }
}

fn delivery(follower: &FollowerDeclaration) -> (Arc<str>, DeliveryPolicy) {
    (Arc::clone(&follower.source), follower.delivery.clone())
}

/// Finds the policies of one entity among the present ones.
#[derive(Clone)]
pub(crate) struct PresentEntity {
    pub(crate) present: Present,
    /// Its number in the order of the declaration.
    number: usize,
    /// What `adaptive` has made of the present policies; a reload leaves it alone.
    pub(crate) adaptive: Arc<Adaptive>,
}

impl PresentEntity {
    pub(crate) fn new(present: &Present, number: usize) -> Self {
        PresentEntity { present: Arc::clone(present), number, adaptive: Arc::default() }
    }

    /// Reads from the policy of writing behind; the default for an entity that is not written so.
    pub(crate) fn behind<T: Default>(&self, read: impl FnOnce(&BehindPolicy) -> T) -> T {
        let policies = self.present.load();
        policies.of(self).write.behind.as_ref().map(read).unwrap_or_default()
    }

    /// How changes are delivered to a follower.
    pub(crate) fn delivery(&self, source: &str) -> DeliveryPolicy {
        let policies = self.present.load();
        let policies = policies.of(self);
        let mut delivery = policies.deliveries.get(source).cloned().unwrap_or_default();
        let free = delivery.batch == BatchPolicy::default();
        if free && policies.adaptive.is_some() && self.adaptive.is_unfit(source) {
            delivery.batch.age = GATHER;
        }
        delivery
    }

    /// How long after a change its entry is gone from the cache.
    pub(crate) fn cached_for(&self) -> Duration {
        let policies = self.present.load();
        policies.of(self).cache.as_ref().map_or(Duration::ZERO, |cache| cache.ttl + cache.stale)
    }
}
