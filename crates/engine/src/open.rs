//! Opening: sources are prepared, logs begun, entities bound to what answers for them and deliveries started.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use unisono_core::capability::Role;
use unisono_core::kind::Options;
use unisono_core::source::{Binding, Source, require};
use unisono_core::{Error, ErrorKind, LogName, Result};
use unisono_policy::declaration::{
    CacheDeclaration, Declaration, EntityDeclaration, FollowerDeclaration,
};
use unisono_policy::delivery;

use crate::adaptive;
use crate::archive::{self, Archive};
use crate::cache::{Feed, warm, warm_questions};
use crate::delivery::turns::Turns;
use crate::delivery::{Delivery, Target};
use crate::late::Late;
use crate::log::tail::Tail;
use crate::log::{Log, trim};
use crate::notice::Notices;
use crate::policies::{Present, PresentEntity};
use crate::read::handle::SourceHandle;
use crate::read::serving::{Answering, Serving};
use crate::runtime::Runtime;
use crate::sample::{self, Sampler};
use crate::write::behind::Behind;
use crate::write::commit::Committer;

/// Everything that runs.
pub(crate) struct Running {
    pub(crate) sources: BTreeMap<Arc<str>, Arc<SourceHandle>>,
    pub(crate) logs: BTreeMap<Arc<str>, Arc<Log>>,
    pub(crate) entities: HashMap<Arc<str>, Arc<Serving>>,
    pub(crate) deliveries: Vec<Arc<Delivery>>,
    /// Who is told of what is found.
    pub(crate) notices: Arc<Notices>,
    /// One for each log, if that is declared.
    pub(crate) archives: Vec<Arc<Archive>>,
    /// Set if it is declared.
    pub(crate) sampler: Option<Arc<Sampler>>,
    /// What was changed in the sources' schemas.
    pub(crate) notes: Vec<String>,
}

/// Prepares and starts everything that a declaration asks for.
pub(crate) async fn open(
    present: &Present,
    mut sources: BTreeMap<Arc<str>, Arc<dyn Source>>,
    runtime: &Runtime,
) -> Result<Running> {
    let declaration = &*Arc::clone(&present.load().declaration);
    let notes = prepare(declaration, &mut sources, runtime).await?;
    let mut running = Running {
        sources: sources
            .into_iter()
            .map(|(name, source)| {
                let handle = SourceHandle::new(source, declaration.is_far(&name));
                (name, Arc::new(handle))
            })
            .collect(),
        logs: BTreeMap::new(),
        entities: HashMap::new(),
        deliveries: Vec::new(),
        notices: Arc::default(),
        archives: Vec::new(),
        sampler: None,
        notes,
    };
    let mut all = Vec::new();
    for (number, declared) in declaration.entities.values().enumerate() {
        running.start_log(&declared.truth, runtime).await?;
        let policies = PresentEntity::new(present, number);
        policies.adaptive.declared(declared.adaptive.is_some(), runtime.now());
        let serving = Arc::new(running.serve(declared, policies, runtime).await?);
        let warms = |cache: &CacheDeclaration| cache.warm > 0 || cache.warm_hot > 0;
        if declared.cache.as_ref().is_some_and(warms) {
            runtime.spawn(warm::run(Arc::clone(&serving), runtime.clone()));
        }
        let questions = declared.cache.iter().flat_map(|cache| cache.warm_questions.clone());
        let questions: Vec<_> = questions.collect();
        if !questions.is_empty() {
            runtime.spawn(warm_questions::run(Arc::clone(&serving), questions, runtime.clone()));
        }
        all.push(Arc::clone(&serving));
        running.entities.insert(Arc::clone(declared.entity.name()), serving);
    }
    runtime.spawn(adaptive::run(all, runtime.clone()));
    running.refuse_forgotten_journals().await?;
    let vault = declaration.archive.as_ref().and_then(|declared| {
        let handle = running.sources.get(&declared.source)?;
        Arc::clone(&handle.source).vault()
    });
    running.archives = archive::start(declaration, vault, running.logs.values(), runtime)?;
    for log in running.logs.values() {
        runtime.spawn(Arc::clone(&log.tail).poll(runtime.clone()));
        let of_log = |d: &&Arc<Delivery>| {
            declaration
                .entities
                .get(d.target().entity.name())
                .is_some_and(|e| e.truth == log.name.truth)
        };
        let deliveries = running.deliveries.iter().filter(of_log).cloned().collect();
        let archive = running.archives.iter().find(|a| Arc::ptr_eq(&a.log, log)).cloned();
        let needed = trim::Needed { deliveries, archive };
        runtime.spawn(trim::run(Arc::clone(log), needed, Arc::clone(present), runtime.clone()));
    }
    running.sampler = sample::start(present, &running.entities, running.logs.values(), runtime);
    Ok(running)
}

/// Makes each source match what is declared of it; nothing is served before all that are required do.
async fn prepare(
    declaration: &Declaration,
    sources: &mut BTreeMap<Arc<str>, Arc<dyn Source>>,
    runtime: &Runtime,
) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    for (name, bindings) in bindings(declaration, sources)? {
        let Some(source) = sources.get_mut(&name) else { continue };
        let required = declaration.sources.get(&name).is_none_or(|declared| declared.required);
        match source.prepare(&bindings).await {
            Ok(made) => notes.extend(made.into_iter().map(|note| format!("{name}: {note}"))),
            Err(error) if required => return Err(error.on("prepare").at(&name)),
            Err(error) => {
                let reason = error.on("prepare").at(&name);
                let late = Late::unprepared(Arc::clone(source), reason, runtime);
                let made = late.prepare(&bindings).await?;
                notes.extend(made.into_iter().map(|note| format!("{name}: {note}")));
                *source = late;
            }
        }
    }
    Ok(notes)
}

/// What each source keeps.
fn bindings(
    declaration: &Declaration,
    sources: &BTreeMap<Arc<str>, Arc<dyn Source>>,
) -> Result<BTreeMap<Arc<str>, Vec<Binding>>> {
    let mut bindings: BTreeMap<Arc<str>, Vec<Binding>> =
        sources.keys().map(|name| (Arc::clone(name), Vec::new())).collect();
    for declared in declaration.entities.values() {
        let mut bind = |source: &Arc<str>, role, place: Option<&Arc<str>>, options: &Options| {
            let entity = Arc::clone(&declared.entity);
            let place = Arc::clone(place.unwrap_or(declared.entity.name()));
            let Some(of_source) = bindings.get_mut(source) else {
                return Err(
                    Error::new(ErrorKind::InvalidConfig, "the source is not declared").at(source)
                );
            };
            of_source.push(Binding { entity, role, place, options: options.clone() });
            Ok(())
        };
        bind(&declared.truth, Role::Truth, declared.table.as_ref(), &declared.truth_options)?;
        for follower in &declared.followers {
            bind(&follower.source, Role::Follower, follower.place.as_ref(), &follower.options)?;
        }
        if let Some(cache) = &declared.cache {
            bind(&cache.source, Role::Cache, None, &cache.options)?;
        }
    }
    Ok(bindings)
}

impl Running {
    async fn start_log(&mut self, name: &Arc<str>, runtime: &Runtime) -> Result<()> {
        if self.logs.contains_key(name) {
            return Ok(());
        }
        let source = &self.source(name)?.source;
        let truth = require(Arc::clone(source).truth(), name, "truth")?;
        let bounds = truth.bounds().await.map_err(|e| e.at(name))?;
        let tail = Arc::new(Tail::new(Arc::clone(&truth), bounds, runtime.now()));
        let log = Log {
            name: LogName::of(name),
            id: bounds.log,
            reader: require(Arc::clone(source).reader(), name, "reader")?,
            auditor: require(Arc::clone(source).auditor(), name, "auditor")?,
            turns: Turns::default(),
            notices: Arc::clone(&self.notices),
            committer: Committer::new(Arc::clone(&truth), Arc::clone(&tail), runtime),
            truth,
            tail,
        };
        self.logs.insert(Arc::clone(name), Arc::new(log));
        Ok(())
    }

    async fn serve(
        &mut self,
        declared: &EntityDeclaration,
        policies: PresentEntity,
        runtime: &Runtime,
    ) -> Result<Serving> {
        let entity = &declared.entity;
        let log = Arc::clone(
            self.logs.get(&declared.truth).ok_or_else(|| Error::internal("the log is not open"))?,
        );
        let mut answering = BTreeMap::new();
        let handle = Arc::clone(self.source(&declared.truth)?);
        let reader = Arc::clone(&log.reader);
        answering.insert(
            Arc::clone(&declared.truth),
            Answering { handle, reader, role: Role::Truth, delivery: None },
        );
        for follower in delivery::in_order(&declared.followers)? {
            let name = &follower.source;
            let handle = Arc::clone(self.source(name)?);
            let source = &handle.source;
            let target = Target {
                entity: Arc::clone(entity),
                source: Arc::clone(name),
                follower: require(Arc::clone(source).follower(), name, "follower")?,
                auditor: require(Arc::clone(source).auditor(), name, "auditor")?,
                capability: source.capability().clone(),
                filter: follower.filter.clone(),
                after: before(&answering, follower),
                policies: policies.clone(),
            };
            let reader = require(Arc::clone(source).reader(), name, "reader")?;
            let delivery = Delivery::start(target, Arc::clone(&log), runtime);
            self.deliveries.push(Arc::clone(&delivery));
            let follower =
                Answering { handle, reader, role: Role::Follower, delivery: Some(delivery) };
            answering.insert(Arc::clone(name), follower);
        }
        let cache = match &declared.cache {
            None => None,
            Some(cache) => {
                let source = &self.source(&cache.source)?.source;
                let role = require(Arc::clone(source).cache(), &cache.source, "cache")?;
                let log = Arc::clone(&log);
                Some(Feed::start(entity, cache, policies.clone(), role, log, runtime).await)
            }
        };
        let behind = match &declared.write.behind {
            None => None,
            Some(policy) => {
                let source = &self.source(&policy.journal)?.source;
                let journal = require(Arc::clone(source).journal(), &policy.journal, "journal")?;
                let (log, policies) = (Arc::clone(&log), policies.clone());
                let opened = Behind::open(entity, policy, policies, journal, log, runtime).await;
                Some(opened.map_err(|e| e.at(&policy.journal).of(entity.name()))?)
            }
        };
        Ok(Serving {
            entity: Arc::clone(entity),
            log,
            answering,
            cache,
            flights: Default::default(),
            policies,
            behind,
            hedges: Default::default(),
        })
    }

    /// What is written behind.
    pub(crate) fn behinds(&self) -> impl Iterator<Item = &Arc<Behind>> {
        self.entities.values().filter_map(|serving| serving.behind.as_ref())
    }

    /// Acknowledged writes must not lie in a journal that nobody flushes.
    async fn refuse_forgotten_journals(&self) -> Result<()> {
        for (name, handle) in &self.sources {
            let Some(journal) = Arc::clone(&handle.source).journal() else { continue };
            let spaces = match journal.spaces().await {
                Err(error) if self.behinds().all(|behind| *behind.journal_name() != *name) => {
                    tracing::warn!(%error, source = %name, "it cannot be told whether acknowledged writes wait there");
                    continue;
                }
                spaces => spaces?,
            };
            for (space, entries) in spaces {
                let behind = self.entities.get(space.as_str()).and_then(|s| s.behind.as_ref());
                if behind.is_some_and(|behind| *behind.journal_name() == *name) {
                    continue;
                }
                return Err(Error::new(
                    ErrorKind::InvalidConfig,
                    "the journal holds acknowledged writes that would never be flushed",
                )
                .at(name)
                .of(&space)
                .with("pending", entries)
                .hint("declare the entity with `strategy = \"write_behind\"` and this journal until they are flushed"));
            }
        }
        Ok(())
    }

    fn source(&self, name: &Arc<str>) -> Result<&Arc<SourceHandle>> {
        self.sources.get(name).ok_or_else(|| {
            Error::new(ErrorKind::InvalidConfig, "the source is not declared").at(name)
        })
    }
}

/// The delivery that a follower comes after, which was started before it.
fn before(
    answering: &BTreeMap<Arc<str>, Answering>,
    follower: &FollowerDeclaration,
) -> Option<Arc<Delivery>> {
    answering.get(follower.delivery.after.as_ref()?)?.delivery.clone()
}
