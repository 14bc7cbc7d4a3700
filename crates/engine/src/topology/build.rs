//! From a declaration to what runs: what is declared as before goes on, the rest begins and ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use unisono_core::source::{Auditor, Follower, Reader, require};
use unisono_core::{Error, Result, Role};
use unisono_policy::declaration::{Declaration, EntityDeclaration, FollowerDeclaration};
use unisono_policy::delivery;

use crate::delivery::{Delivery, Target};
use crate::policies::Policies;
use crate::read::handle::SourceHandle;
use crate::read::serving::{Answering, Serving};
use crate::runtime::Runtime;
use crate::topology::{Handles, Logs, Servings, Topology, named};

/// Everything that a topology is made of; from here on nothing can fail.
pub(crate) struct Blueprint<'a> {
    sources: Handles,
    logs: Arc<Logs>,
    servings: Arc<Servings>,
    entities: Vec<(Arc<Serving>, Arc<SourceHandle>, Vec<Planned<'a>>)>,
}

/// One follower, with the roles that its source plays.
struct Planned<'a> {
    declared: &'a FollowerDeclaration,
    handle: Arc<SourceHandle>,
    follower: Arc<dyn Follower>,
    auditor: Arc<dyn Auditor>,
    reader: Arc<dyn Reader>,
}

impl<'a> Blueprint<'a> {
    /// Looks whether the sources can do what is declared.
    pub(crate) fn new(
        wanted: &'a Declaration,
        sources: Handles,
        (logs, servings): (Arc<Logs>, Arc<Servings>),
    ) -> Result<Self> {
        let plan = |declared: &'a EntityDeclaration| {
            let serving = servings.get(declared.entity.name()).cloned();
            let serving = serving.ok_or_else(|| Error::internal("the entity is not served"))?;
            let truth = Arc::clone(named(&sources, &declared.truth)?);
            let followers = delivery::in_order(&declared.followers)?;
            let followers = followers.into_iter().map(|f| Planned::new(f, &sources));
            Ok((serving, truth, followers.collect::<Result<_>>()?))
        };
        let entities = wanted.entities.values().map(plan).collect::<Result<_>>()?;
        Ok(Blueprint { sources, logs, servings, entities })
    }
}

impl<'a> Planned<'a> {
    fn new(declared: &'a FollowerDeclaration, sources: &Handles) -> Result<Self> {
        let name = &declared.source;
        let handle = Arc::clone(named(sources, name)?);
        let source = &handle.source;
        Ok(Planned {
            declared,
            follower: require(Arc::clone(source).follower(), name, "follower")?,
            auditor: require(Arc::clone(source).auditor(), name, "auditor")?,
            reader: require(Arc::clone(source).reader(), name, "reader")?,
            handle,
        })
    }
}

/// Starts what is not running, and ends what is not wanted any more.
pub(crate) fn build(plan: Blueprint<'_>, before: &Policies, runtime: &Runtime) -> Topology {
    let Blueprint { sources, logs, servings, entities } = plan;
    let mut topology = Topology { sources, logs, servings, ..Topology::default() };
    for (serving, truth, followers) in entities {
        let reader = Arc::clone(&serving.log.reader);
        let role = Role::Truth;
        let truth = Answering { handle: truth, reader, role, delivery: None };
        let mut answering = BTreeMap::from([(Arc::clone(&serving.log.name.truth), truth)]);
        for Planned { declared, handle, follower, auditor, reader } in followers {
            let name = Arc::clone(&declared.source);
            let target = Target {
                entity: Arc::clone(&serving.entity),
                source: Arc::clone(&name),
                follower,
                auditor,
                capability: handle.source.capability().clone(),
                filter: declared.filter.clone(),
                after: before_it(&answering, declared),
                policies: serving.policies.clone(),
                handle: Arc::clone(&handle),
            };
            let runs = before.deliveries.iter().find(|d| d.is_to(&target));
            let delivery = match runs {
                None => Delivery::start(target, Arc::clone(&serving.log), runtime),
                Some(runs) if runs.is_of(&serving.log) && runs.is_as(&target) => Arc::clone(runs),
                Some(runs) => Delivery::instead_of(runs, target, &serving.log),
            };
            topology.deliveries.push(Arc::clone(&delivery));
            let (role, delivery) = (Role::Follower, Some(delivery));
            answering.insert(name, Answering { handle, reader, role, delivery });
        }
        topology.answering.push(answering);
    }
    topology
}

/// The delivery that a follower comes after, which was made before it.
fn before_it(
    answering: &BTreeMap<Arc<str>, Answering>,
    declared: &FollowerDeclaration,
) -> Option<Arc<Delivery>> {
    answering.get(declared.delivery.after.as_ref()?)?.delivery.clone()
}
