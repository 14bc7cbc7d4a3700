//! From a declaration to what runs: what is declared as before goes on, the rest begins and ends.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use unisono_core::source::{Auditor, Follower, Reader, require};
use unisono_core::{Error, Result, Role};
use unisono_policy::declaration::{Declaration, EntityDeclaration, FollowerDeclaration};
use unisono_policy::delivery;

use crate::delivery::{Delivery, Target};
use crate::log::Log;
use crate::personal::Keyring;
use crate::personal::clear::Clear;
use crate::policies::Policies;
use crate::read::handle::SourceHandle;
use crate::read::serving::{Answering, Serving};
use crate::runtime::Runtime;
use crate::topology::{Handles, Topology, named};

/// Everything that a topology is made of; from here on nothing can fail.
pub(crate) struct Blueprint<'a> {
    sources: Handles,
    entities: Vec<(&'a Arc<Serving>, Arc<SourceHandle>, Vec<Planned<'a>>)>,
    personal: Option<Arc<Keyring>>,
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
        entities: &'a HashMap<Arc<str>, Arc<Serving>>,
        personal: Option<&Arc<Keyring>>,
    ) -> Result<Self> {
        let plan = |declared: &'a EntityDeclaration| {
            let serving = entities.get(declared.entity.name());
            let serving = serving.ok_or_else(|| Error::internal("the entity is not served"))?;
            let truth = Arc::clone(named(&sources, &declared.truth)?);
            let followers = delivery::in_order(&declared.followers)?;
            let followers = followers.into_iter().map(|f| Planned::new(f, &sources));
            Ok((serving, truth, followers.collect::<Result<_>>()?))
        };
        let entities = wanted.entities.values().map(plan).collect::<Result<_>>()?;
        Ok(Blueprint { sources, entities, personal: personal.cloned() })
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
    let Blueprint { sources, entities, personal } = plan;
    let mut topology = Topology { sources, ..Topology::default() };
    for (serving, truth, followers) in entities {
        let reader = Arc::clone(&serving.log.reader);
        let role = Role::Truth;
        let truth = Answering { handle: truth, reader, role, delivery: None };
        let mut answering = BTreeMap::from([(Arc::clone(&serving.log.name.truth), truth)]);
        for Planned { declared, handle, follower, auditor, reader } in followers {
            let name = Arc::clone(&declared.source);
            let clear = personal.as_ref().filter(|_| declared.clear).cloned();
            let target = Target {
                entity: Arc::clone(&serving.entity),
                source: Arc::clone(&name),
                follower,
                auditor,
                truth: shown(&serving.log, clear.as_ref()),
                clear,
                capability: handle.source.capability().clone(),
                filter: declared.filter.clone(),
                after: before_it(&answering, declared),
                policies: serving.policies.clone(),
                handle: Arc::clone(&handle),
            };
            let runs = before.deliveries.iter().find(|d| d.is_to(&target));
            let delivery = match runs {
                None => Delivery::start(target, Arc::clone(&serving.log), runtime),
                Some(runs) if runs.is_as(&target) => Arc::clone(runs),
                Some(runs) => Delivery::instead_of(runs, target),
            };
            topology.deliveries.push(Arc::clone(&delivery));
            let (role, delivery) = (Role::Follower, Some(delivery));
            answering.insert(name, Answering { handle, reader, role, delivery });
        }
        topology.answering.push(answering);
    }
    topology
}

/// A truth as a follower is to hold it.
fn shown(log: &Log, clear: Option<&Arc<Keyring>>) -> (Arc<dyn Reader>, Arc<dyn Auditor>) {
    let (reader, auditor) = (Arc::clone(&log.reader), Arc::clone(&log.auditor));
    match clear {
        None => (reader, auditor),
        Some(keyring) => {
            let clear = Arc::new(Clear { reader, auditor, keyring: Arc::clone(keyring) });
            (Arc::clone(&clear) as Arc<dyn Reader>, clear)
        }
    }
}

/// The delivery that a follower comes after, which was made before it.
fn before_it(
    answering: &BTreeMap<Arc<str>, Answering>,
    declared: &FollowerDeclaration,
) -> Option<Arc<Delivery>> {
    answering.get(declared.delivery.after.as_ref()?)?.delivery.clone()
}
