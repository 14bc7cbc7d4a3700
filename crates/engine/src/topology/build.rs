//! From a declaration to what runs: what is declared as before goes on, the rest begins and ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use unisono_core::outlet::{Manner, Outlet};
use unisono_core::source::{Auditor, Follower, Reader, require};
use unisono_core::{Error, Result, Role};
use unisono_policy::declaration::{Declaration, EntityDeclaration, FollowerDeclaration};
use unisono_policy::delivery;
use unisono_policy::mapping::Mapping;
use unisono_policy::projection::Projection;
use unisono_policy::rule::Rule;

use crate::delivery::{Delivery, Target};
use crate::log::Log;
use crate::outlet::Sender;
use crate::personal::Keyring;
use crate::personal::clear::Clear;
use crate::policies::Policies;
use crate::projection::{Projector, Roles, Shown};
use crate::read::handle::SourceHandle;
use crate::read::serving::{Answering, Serving};
use crate::runtime::Runtime;
use crate::topology::{Handles, Logs, Servings, Topology, named};

/// Everything that a topology is made of; from here on nothing can fail.
pub(crate) struct Blueprint<'a> {
    sources: Handles,
    logs: Arc<Logs>,
    servings: Arc<Servings>,
    entities: Vec<Entity<'a>>,
    personal: Option<Arc<Keyring>>,
}

/// An entity: what works it out if something does, its truth and its followers.
type Entity<'a> = (Arc<Serving>, Projected<'a>, Arc<SourceHandle>, Vec<Planned<'a>>);

/// What works an entity out, if something does.
type Projected<'a> = Option<&'a Arc<Projection>>;

/// One follower, with the roles that its source plays.
struct Planned<'a> {
    declared: &'a FollowerDeclaration,
    map: Option<Arc<Mapping>>,
    handle: Arc<SourceHandle>,
    played: Played,
}

/// What a source that is fed does with it.
enum Played {
    Keeps { follower: Arc<dyn Follower>, auditor: Arc<dyn Auditor>, reader: Arc<dyn Reader> },
    Sends(Arc<dyn Outlet>, Manner),
}

impl<'a> Blueprint<'a> {
    /// Looks whether the sources can do what is declared.
    pub(crate) fn new(
        wanted: &'a Declaration,
        sources: Handles,
        (logs, servings): (Arc<Logs>, Arc<Servings>),
        personal: Option<&Arc<Keyring>>,
    ) -> Result<Self> {
        let plan = |declared: &'a EntityDeclaration| {
            let serving = servings.get(declared.entity.name()).cloned();
            let serving = serving.ok_or_else(|| Error::internal("the entity is not served"))?;
            let truth = Arc::clone(named(&sources, &declared.truth)?);
            let followers = delivery::in_order(&declared.followers)?;
            let map = |f: &FollowerDeclaration| Mapping::of(&f.source, &declared.followers);
            let followers = followers.into_iter().map(|f| Planned::new(f, map(f), &sources));
            let followers = followers.collect::<Result<_>>()?;
            Ok((serving, declared.projection.as_ref(), truth, followers))
        };
        let entities = wanted.entities.values().map(plan).collect::<Result<_>>()?;
        Ok(Blueprint { sources, logs, servings, entities, personal: personal.cloned() })
    }
}

impl<'a> Planned<'a> {
    fn new(
        declared: &'a FollowerDeclaration,
        map: Option<Arc<Mapping>>,
        sources: &Handles,
    ) -> Result<Self> {
        let name = &declared.source;
        let handle = Arc::clone(named(sources, name)?);
        let source = &handle.source;
        let played = match Arc::clone(source).outlet() {
            Some((outlet, manner)) => Played::Sends(outlet, manner),
            None => Played::Keeps {
                follower: require(Arc::clone(source).follower(), name, "follower")?,
                auditor: require(Arc::clone(source).auditor(), name, "auditor")?,
                reader: require(Arc::clone(source).reader(), name, "reader")?,
            },
        };
        Ok(Planned { declared, map, handle, played })
    }

    /// Who reads what it holds, and whether that answers: of a projection one version does. Nobody reads an outlet.
    fn reader_of(&self, version: Option<&Projection>) -> (Option<Arc<dyn Reader>>, bool) {
        let Played::Keeps { reader, .. } = &self.played else { return (None, false) };
        let reader = Arc::clone(reader);
        match version {
            None => (Some(reader), true),
            Some(version) => {
                let rows = Arc::clone(&version.rows);
                (Some(Arc::new(Shown { reader, rows })), version.is_live())
            }
        }
    }

    /// What feeds it: the changes of the entity itself, or of the one that a projection works it out from.
    fn target(
        &self,
        serving: &Serving,
        projection: Option<Arc<Projection>>,
        after: Option<Arc<Delivery>>,
        clear: Option<Arc<Keyring>>,
        runtime: &Runtime,
    ) -> Target {
        let Planned { declared, map, handle, played } = self;
        let capability = handle.source.capability();
        let outlet = matches!(played, Played::Sends(..));
        let (follower, auditor, reader) = match played {
            Played::Keeps { follower, auditor, reader } => {
                (Arc::clone(follower), Arc::clone(auditor), Some(Arc::clone(reader)))
            }
            Played::Sends(outlet, manner) => {
                let (entity, name, log) = (&serving.entity, &declared.source, &serving.log);
                let outlet = (Arc::clone(outlet), *manner);
                let sender = Arc::new(Sender::new(entity, name, outlet, log, runtime));
                (Arc::clone(&sender) as Arc<dyn Follower>, sender as Arc<dyn Auditor>, None)
            }
        };
        let target = Target {
            entity: Arc::clone(&serving.entity),
            projection: projection.clone(),
            still: false,
            news: None,
            source: Arc::clone(&declared.source),
            outlet,
            follower,
            auditor,
            truth: shown(&serving.log, clear.as_ref()),
            clear,
            capability: capability.clone(),
            filter: declared.filter.clone(),
            rule: rule(declared.filter.as_deref(), map.as_deref()),
            map: map.clone(),
            after,
            policies: serving.policies.clone(),
            handle: Arc::clone(handle),
        };
        let Some((projection, reader)) = projection.zip(reader) else { return target };
        let Target { source, follower, auditor, .. } = &target;
        let roles = Roles {
            source: Arc::clone(source),
            follower: Arc::clone(follower),
            auditor: Arc::clone(auditor),
            reader,
        };
        let projector = Arc::new(Projector::new(&projection, roles, capability, runtime));
        Target {
            entity: Arc::clone(&projection.from),
            follower: Arc::clone(&projector) as Arc<dyn Follower>,
            still: projection.still == Some(projection.version),
            news: Some(projector.news()),
            auditor: projector,
            capability: Projector::fed(capability),
            filter: projection.filter.clone(),
            ..target
        }
    }
}

/// Starts what is not running, and ends what is not wanted any more.
pub(crate) fn build(plan: Blueprint<'_>, before: &Policies, runtime: &Runtime) -> Topology {
    let Blueprint { sources, logs, servings, entities, personal } = plan;
    let mut topology = Topology { sources, logs, servings, ..Topology::default() };
    for (serving, projection, truth, followers) in entities {
        let reader = Arc::clone(&serving.log.reader);
        let role = Role::Truth;
        let truth = Answering { handle: truth, reader, role, delivery: None };
        let truth = (Arc::clone(&serving.log.name.truth), truth);
        // Of what a projection works out the truth knows nothing.
        let mut answering: BTreeMap<_, _> =
            projection.is_none().then_some(truth).into_iter().collect();
        for planned in followers {
            for version in versions(projection) {
                let after = before_it(&answering, planned.declared);
                let clear = personal.as_ref().filter(|_| planned.declared.clear).cloned();
                let (reader, answers) = planned.reader_of(version.as_deref());
                let target = planned.target(&serving, version, after, clear, runtime);
                let runs = before.deliveries.iter().find(|d| d.is_to(&target));
                let delivery = match runs {
                    None => Delivery::start(target, Arc::clone(&serving.log), runtime),
                    Some(runs) if runs.is_of(&serving.log) && runs.is_as(&target) => {
                        Arc::clone(runs)
                    }
                    Some(runs) => Delivery::instead_of(runs, target, &serving.log),
                };
                topology.deliveries.push(Arc::clone(&delivery));
                if let Some(reader) = reader.filter(|_| answers) {
                    let (role, delivery) = (Role::Follower, Some(delivery));
                    let (name, handle) = (&planned.declared.source, Arc::clone(&planned.handle));
                    let answers = Answering { handle, reader, role, delivery };
                    answering.insert(Arc::clone(name), answers);
                }
            }
        }
        topology.answering.push(answering);
    }
    topology
}

/// The versions that follow the truth; one that is none for what is not worked out.
fn versions(projection: Projected<'_>) -> Vec<Option<Arc<Projection>>> {
    match projection {
        None => vec![None],
        Some(projection) => {
            let following = projection.versions.following();
            following.map(|version| Some(Arc::new(projection.at(version)))).collect()
        }
    }
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

/// The texts of what a follower holds; nothing if that is all records as they are.
fn rule(filter: Option<&Rule>, map: Option<&Mapping>) -> Option<String> {
    let texts = [filter.map(Rule::text), map.map(Mapping::text)];
    let texts: Vec<&str> = texts.into_iter().flatten().collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}

/// The delivery that a follower comes after, which was made before it.
fn before_it(
    answering: &BTreeMap<Arc<str>, Answering>,
    declared: &FollowerDeclaration,
) -> Option<Arc<Delivery>> {
    answering.get(declared.delivery.after.as_ref()?)?.delivery.clone()
}
