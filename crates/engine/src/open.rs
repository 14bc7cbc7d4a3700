//! Opening: sources are prepared, logs begun, entities bound to what answers for them and deliveries started.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use unisono_core::source::{Source, require};
use unisono_core::{Error, ErrorKind, LogName, Result};
use unisono_policy::declaration::{CacheDeclaration, Declaration, EntityDeclaration};

use crate::adaptive;
use crate::archive::{self, Archive};
use crate::cache::{Feed, warm, warm_questions};
use crate::delivery::turns::Turns;
use crate::late::Late;
use crate::log::tail::Tail;
use crate::log::{Log, trim};
use crate::notice::Notices;
use crate::personal::Keyring;
use crate::personal::erasing::{self, Erasing};
use crate::policies::{Policies, Present, PresentEntity};
use crate::read::handle::SourceHandle;
use crate::read::serving::Serving;
use crate::runtime::Runtime;
use crate::sample::{self, Sampler};
use crate::sync::Syncing;
use crate::topology::{self, Blueprint, Handles, named, pause};
use crate::write::behind::Behind;
use crate::write::commit::Committer;

/// Everything that runs from the start to the end; what can be changed meanwhile is a [`Topology`].
pub(crate) struct Running {
    pub(crate) logs: BTreeMap<Arc<str>, Arc<Log>>,
    pub(crate) entities: HashMap<Arc<str>, Arc<Serving>>,
    /// Who is told of what is found.
    pub(crate) notices: Arc<Notices>,
    /// The entities whose truth follows another one.
    pub(crate) syncs: Vec<Arc<Syncing>>,
    /// One for each log, if that is declared.
    pub(crate) archives: Vec<Arc<Archive>>,
    /// Set if it is declared.
    pub(crate) sampler: Option<Arc<Sampler>>,
    /// The keys of what is personal, if anything may be.
    pub(crate) personal: Option<Arc<Keyring>>,
    /// What has become of erasures.
    pub(crate) erasing: Arc<Erasing>,
    /// What was changed in the sources' schemas.
    pub(crate) notes: Vec<String>,
}

/// Prepares and starts everything that a declaration asks for.
pub(crate) async fn open(
    present: &Present,
    mut sources: BTreeMap<Arc<str>, Arc<dyn Source>>,
    runtime: &Runtime,
) -> Result<Running> {
    let declaration = Arc::clone(&present.load().declaration);
    let notes = prepare(&declaration, &mut sources, runtime).await?;
    let handles: Handles = sources
        .into_iter()
        .map(|(name, source)| {
            let handle = SourceHandle::new(source, declaration.is_far(&name));
            (name, Arc::new(handle))
        })
        .collect();
    let mut running = Running {
        logs: BTreeMap::new(),
        entities: HashMap::new(),
        notices: Arc::default(),
        syncs: Vec::new(),
        archives: Vec::new(),
        sampler: None,
        personal: None,
        erasing: Arc::default(),
        notes,
    };
    for declared in declaration.entities.values() {
        running.start_log(&declared.truth, &handles, runtime).await?;
    }
    running.personal = running.open_keys(&declaration, &handles, runtime).await?;
    running.remember_pauses(&handles).await?;
    for (number, declared) in declaration.entities.values().enumerate() {
        let policies = PresentEntity::new(present, number);
        policies.adaptive.declared(declared.adaptive.is_some(), runtime.now());
        let serving = Arc::new(running.serve(declared, policies, &handles, runtime).await?);
        running.start_sync(declared, &handles, runtime)?;
        running.entities.insert(Arc::clone(declared.entity.name()), serving);
    }
    running.refuse_forgotten_journals(&handles).await?;
    let vault = declaration.archive.as_ref().and_then(|declared| {
        let handle = handles.get(&declared.source)?;
        Arc::clone(&handle.source).vault()
    });
    running.archives = archive::start(&declaration, vault, running.logs.values(), runtime)?;
    let blueprint =
        Blueprint::new(&declaration, handles, &running.entities, running.personal.as_ref())?;
    let before = present.load_full();
    let topology = topology::build(blueprint, &before, runtime);
    let policies = Policies::new(Arc::clone(&declaration), topology, Some(&before));
    present.store(Arc::new(policies));
    running.begin(&declaration, present, runtime);
    // What is warmed goes by what was read before this start, and not by what is read from now on.
    tokio::task::yield_now().await;
    Ok(running)
}

/// Makes each source match what is declared of it; nothing is served before all that are required do.
async fn prepare(
    declaration: &Declaration,
    sources: &mut BTreeMap<Arc<str>, Arc<dyn Source>>,
    runtime: &Runtime,
) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    for (name, bindings) in topology::bindings(declaration, sources.iter())? {
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

impl Running {
    /// Starts what works on its own from now on, with everything else in its place.
    fn begin(&mut self, declaration: &Declaration, present: &Present, runtime: &Runtime) {
        let mut all = Vec::new();
        for declared in declaration.entities.values() {
            let Some(serving) = self.entities.get(declared.entity.name()) else { continue };
            let warms = |cache: &CacheDeclaration| cache.warm > 0 || cache.warm_hot > 0;
            if declared.cache.as_ref().is_some_and(warms) {
                runtime.spawn(warm::run(Arc::clone(serving), runtime.clone()));
            }
            let questions = declared.cache.iter().flat_map(|cache| cache.warm_questions.clone());
            let questions: Vec<_> = questions.collect();
            if !questions.is_empty() {
                let serving = Arc::clone(serving);
                runtime.spawn(warm_questions::run(serving, questions, runtime.clone()));
            }
            all.push(Arc::clone(serving));
        }
        runtime.spawn(adaptive::run(all, runtime.clone()));
        for log in self.logs.values() {
            runtime.spawn(Arc::clone(&log.tail).poll(runtime.clone()));
            let archive = self.archives.iter().find(|a| Arc::ptr_eq(&a.log, log)).cloned();
            let present = Arc::clone(present);
            runtime.spawn(trim::run(Arc::clone(log), archive, present, runtime.clone()));
        }
        self.sampler = sample::start(present, &self.entities, self.logs.values(), runtime);
        if let Some(keyring) = &self.personal {
            let (keyring, erasing) = (Arc::clone(keyring), Arc::clone(&self.erasing));
            runtime.spawn(erasing::run(keyring, erasing, Arc::clone(present), runtime.clone()));
        }
    }

    /// The keys of what is personal, and whether they are those of every truth.
    async fn open_keys(
        &self,
        declaration: &Declaration,
        handles: &Handles,
        runtime: &Runtime,
    ) -> Result<Option<Arc<Keyring>>> {
        let Some(declared) = &declaration.personal else { return Ok(None) };
        let source = &named(handles, &declared.keys)?.source;
        let store = require(Arc::clone(source).truth(), &declared.keys, "truth")?;
        let keyring = Keyring::open(declared, store, runtime).await?;
        for (name, log) in &self.logs {
            let is_personal =
                |e: &EntityDeclaration| e.truth == *name && e.entity.personal().is_some();
            if declaration.entities.values().any(is_personal) {
                keyring.belongs_to(log.truth.as_ref()).await.map_err(|e| e.at(name))?;
            }
        }
        Ok(Some(Arc::new(keyring)))
    }

    /// What was paused before the process ended stays so.
    async fn remember_pauses(&self, handles: &Handles) -> Result<()> {
        for log in self.logs.values() {
            for (name, pause) in pause::kept(log.truth.as_ref()).await? {
                let Some(handle) = handles.get(name.as_str()) else { continue };
                tracing::warn!(source = %name, since = %pause.since, "the source is paused");
                handle.pause(pause);
            }
        }
        Ok(())
    }

    async fn start_log(
        &mut self,
        name: &Arc<str>,
        handles: &Handles,
        runtime: &Runtime,
    ) -> Result<()> {
        if self.logs.contains_key(name) {
            return Ok(());
        }
        let source = &named(handles, name)?.source;
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
            auditing: Default::default(),
        };
        self.logs.insert(Arc::clone(name), Arc::new(log));
        Ok(())
    }

    async fn serve(
        &mut self,
        declared: &EntityDeclaration,
        policies: PresentEntity,
        handles: &Handles,
        runtime: &Runtime,
    ) -> Result<Serving> {
        let entity = &declared.entity;
        let log = Arc::clone(
            self.logs.get(&declared.truth).ok_or_else(|| Error::internal("the log is not open"))?,
        );
        let cache = match &declared.cache {
            None => None,
            Some(cache) => {
                let handle = named(handles, &cache.source)?;
                let source = &handle.source;
                let role = require(Arc::clone(source).cache(), &cache.source, "cache")?;
                let log = Arc::clone(&log);
                let played = (role, Arc::clone(handle));
                Some(Feed::start(entity, cache, policies.clone(), played, log, runtime).await)
            }
        };
        let behind = match &declared.write.behind {
            None => None,
            Some(policy) => {
                let source = &named(handles, &policy.journal)?.source;
                let journal = require(Arc::clone(source).journal(), &policy.journal, "journal")?;
                let (log, policies) = (Arc::clone(&log), policies.clone());
                let opened = Behind::open(entity, policy, policies, journal, log, runtime).await;
                Some(opened.map_err(|e| e.at(&policy.journal).of(entity.name()))?)
            }
        };
        Ok(Serving {
            entity: Arc::clone(entity),
            log,
            cache,
            flights: Default::default(),
            policies,
            behind,
            hedges: Default::default(),
        })
    }

    /// Has the truth of an entity follow another one, if it is to.
    fn start_sync(
        &mut self,
        declared: &EntityDeclaration,
        handles: &Handles,
        runtime: &Runtime,
    ) -> Result<()> {
        let Some(sync) = &declared.sync else { return Ok(()) };
        let log = self.logs.get(&declared.truth);
        let log = log.ok_or_else(|| Error::internal("the log is not open"))?;
        let peer = &named(handles, &sync.with)?.source;
        let started = Syncing::start(declared, log, peer, runtime)?;
        self.syncs.extend(started);
        Ok(())
    }

    /// What is written behind.
    pub(crate) fn behinds(&self) -> impl Iterator<Item = &Arc<Behind>> {
        self.entities.values().filter_map(|serving| serving.behind.as_ref())
    }

    /// Acknowledged writes must not lie in a journal that nobody flushes.
    async fn refuse_forgotten_journals(&self, handles: &Handles) -> Result<()> {
        for (name, handle) in handles {
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
}
