//! Opening: sources are prepared, logs begun, entities bound to what answers for them and deliveries started.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use unisono_core::source::{Source, require};
use unisono_core::{Entity, Error, ErrorKind, LogName, Result};
use unisono_policy::declaration::{Declaration, EntityDeclaration};

use crate::adaptive;
use crate::archive::{Archive, Archives};
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
use crate::topology::moved::{self, Earlier, Look};
use crate::topology::{self, Blueprint, Handles, Logs, Servings, Topology, named, pause, versions};
use crate::write::behind::Behind;
use crate::write::commit::Committer;

/// Everything that runs from the start to the end; what can be changed meanwhile is a [`Topology`](crate::topology::Topology).
pub(crate) struct Running {
    /// The entities by name.
    pub(crate) declared: HashMap<Arc<str>, Arc<Entity>>,
    /// Who is told of what is found.
    pub(crate) notices: Arc<Notices>,
    /// The entities whose truth follows another one.
    pub(crate) syncs: Vec<Arc<Syncing>>,
    /// One for each log, if that is declared.
    pub(crate) archives: Archives,
    /// Set if it is declared.
    pub(crate) sampler: Option<Arc<Sampler>>,
    /// The keys of what is personal, if anything may be.
    pub(crate) personal: Option<Arc<Keyring>>,
    /// What has become of erasures.
    pub(crate) erasing: Arc<Erasing>,
    /// What was changed in the sources' schemas.
    pub(crate) notes: Vec<String>,
}

/// What is being put together.
struct Opening<'a> {
    logs: Logs,
    entities: Servings,
    notices: Arc<Notices>,
    syncs: Vec<Arc<Syncing>>,
    handles: &'a Handles,
    /// How long outcomes of writes are remembered.
    outcomes: Duration,
    runtime: &'a Runtime,
}

/// Prepares and starts everything that a declaration asks for.
pub(crate) async fn open(
    present: &Present,
    mut sources: BTreeMap<Arc<str>, Arc<dyn Source>>,
    runtime: &Runtime,
) -> Result<Running> {
    let wanted = Arc::clone(&present.load().declaration);
    let glance = moved::as_it_is(&wanted, &sources, Look::Glance).await?;
    let mut notes = prepare(&glance, &mut sources, runtime).await?;
    let declaration = moved::as_it_is(&wanted, &sources, Look::Settle).await?;
    let declaration = versions::as_they_are(declaration, &sources).await?;
    if truths(&declaration) != truths(&glance) || use_both_places(&declaration) {
        notes.extend(prepare(&declaration, &mut sources, runtime).await?);
    }
    let declaration = Arc::new(declaration);
    let nothing = Policies::new(Arc::clone(&declaration), Topology::default(), None);
    present.store(Arc::new(nothing));
    let handle = |(name, source): (Arc<str>, Arc<dyn Source>)| {
        let handle = SourceHandle::new(source, declaration.is_far(&name));
        (name, Arc::new(handle))
    };
    let handles: Handles = sources.into_iter().map(handle).collect();
    let mut opening = Opening {
        logs: BTreeMap::new(),
        entities: HashMap::new(),
        notices: Arc::default(),
        syncs: Vec::new(),
        handles: &handles,
        outcomes: declaration.log.outcomes,
        runtime,
    };
    for declared in declaration.entities.values() {
        opening.log(&declared.truth).await?;
    }
    let personal = opening.open_keys(&declaration).await?;
    opening.remember_pauses().await?;
    for (number, declared) in declaration.entities.values().enumerate() {
        let policies = PresentEntity::new(present, number);
        policies.adaptive.declared(declared.adaptive.is_some(), runtime.now());
        opening.entity(declared, policies).await?;
    }
    opening.refuse_forgotten_journals().await?;
    let Opening { logs, entities, notices, syncs, .. } = opening;
    let archives = archives(&declaration, &handles, &logs, runtime)?;
    let (logs, entities) = (Arc::new(logs), Arc::new(entities));
    let blueprint = Blueprint::new(
        &declaration,
        handles,
        (Arc::clone(&logs), Arc::clone(&entities)),
        personal.as_ref(),
    )?;
    let before = present.load_full();
    let topology = topology::build(blueprint, &before, runtime);
    let policies = Policies::new(Arc::clone(&declaration), topology, Some(&before));
    present.store(Arc::new(policies));
    begin(&declaration, &entities, present, runtime);
    for log in logs.values() {
        follow(log, archives.of(log), present, runtime);
    }
    let sampler = sample::start(present, logs.values(), runtime);
    let erasing = erase(personal.as_ref(), present, runtime);
    // What is warmed goes by what was read before this start, and not by what is read from now on.
    tokio::task::yield_now().await;
    let declared = entities.values().map(|s| (Arc::clone(s.entity.name()), Arc::clone(&s.entity)));
    let declared = declared.collect();
    Ok(Running { declared, notices, syncs, archives, sampler, personal, erasing, notes })
}

/// Starts to archive every log, if that is declared.
fn archives(
    declaration: &Declaration,
    handles: &Handles,
    logs: &Logs,
    runtime: &Runtime,
) -> Result<Archives> {
    let vault = declaration.archive.as_ref().and_then(|declared| {
        let handle = handles.get(&declared.source)?;
        Arc::clone(&handle.source).vault()
    });
    let archives = Archives::open(declaration, vault)?;
    logs.values().try_for_each(|log| archives.begin(log, declaration, runtime))?;
    Ok(archives)
}

/// Has erasures carried out, where anything is personal; answers what becomes of them.
fn erase(keyring: Option<&Arc<Keyring>>, present: &Present, runtime: &Runtime) -> Arc<Erasing> {
    let erasing = Arc::<Erasing>::default();
    if let Some(keyring) = keyring {
        let (keyring, erasing) = (Arc::clone(keyring), Arc::clone(&erasing));
        runtime.spawn(erasing::run(keyring, erasing, Arc::clone(present), runtime.clone()));
    }
    erasing
}

fn use_both_places(declaration: &Declaration) -> bool {
    let mut projections = declaration.entities.values().filter_map(|e| e.projection.as_ref());
    projections.any(|projection| projection.versions.uses_both_places())
}

fn truths(declaration: &Declaration) -> Vec<&Arc<str>> {
    declaration.entities.values().map(|declared| &declared.truth).collect()
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

/// Starts what works on its own from now on, with everything else in its place.
fn begin(declaration: &Declaration, entities: &Servings, present: &Present, runtime: &Runtime) {
    for declared in declaration.entities.values() {
        let Some(serving) = entities.get(declared.entity.name()) else { continue };
        if serving.cache.is_some() {
            runtime.spawn(warm::run(Arc::clone(serving), runtime.clone()));
            runtime.spawn(warm_questions::run(Arc::clone(serving), runtime.clone()));
        }
    }
    runtime.spawn(adaptive::run(Arc::clone(present), runtime.clone()));
}

/// Starts what keeps a log going.
pub(crate) fn follow(
    log: &Arc<Log>,
    archive: Option<Arc<Archive>>,
    present: &Present,
    runtime: &Runtime,
) {
    runtime.spawn(Arc::clone(&log.tail).poll(runtime.clone()));
    let present = Arc::clone(present);
    runtime.spawn(trim::run(Arc::clone(log), archive, present, runtime.clone()));
}

/// The log of a truth; nothing follows it yet.
pub(crate) async fn log(
    name: &Arc<str>,
    handles: &Handles,
    notices: &Arc<Notices>,
    runtime: &Runtime,
) -> Result<Arc<Log>> {
    let source = &named(handles, name)?.source;
    let truth = require(Arc::clone(source).truth(), name, "truth")?;
    let bounds = truth.bounds().await.map_err(|e| e.at(name))?;
    let tail = Arc::new(Tail::new(Arc::clone(&truth), bounds, runtime.now()));
    Ok(Arc::new(Log {
        name: LogName::of(name),
        id: bounds.log,
        reader: require(Arc::clone(source).reader(), name, "reader")?,
        auditor: require(Arc::clone(source).auditor(), name, "auditor")?,
        turns: Turns::default(),
        notices: Arc::clone(notices),
        committer: Committer::new(Arc::clone(&truth), Arc::clone(&tail), runtime),
        truth,
        tail,
        auditing: Default::default(),
    }))
}

/// The cache of an entity, which follows a log from now on.
pub(crate) async fn feed(
    declared: &EntityDeclaration,
    policies: &PresentEntity,
    log: &Arc<Log>,
    handles: &Handles,
    runtime: &Runtime,
) -> Result<Option<Arc<Feed>>> {
    let Some(cache) = &declared.cache else { return Ok(None) };
    let handle = named(handles, &cache.source)?;
    let source = &handle.source;
    let role = require(Arc::clone(source).cache(), &cache.source, "cache")?;
    let played = (role, Arc::clone(handle));
    let (log, entity) = (Arc::clone(log), &declared.entity);
    Ok(Some(Feed::start(entity, cache, policies.clone(), played, log, runtime).await))
}

impl Opening<'_> {
    /// The keys of what is personal, and whether they are those of every truth.
    async fn open_keys(&self, declaration: &Declaration) -> Result<Option<Arc<Keyring>>> {
        let Some(declared) = &declaration.personal else { return Ok(None) };
        let source = &named(self.handles, &declared.keys)?.source;
        let store = require(Arc::clone(source).truth(), &declared.keys, "truth")?;
        let keyring = Keyring::open(declared, store, self.runtime).await?;
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
    async fn remember_pauses(&self) -> Result<()> {
        for log in self.logs.values() {
            for (name, pause) in pause::kept(log.truth.as_ref()).await? {
                let Some(handle) = self.handles.get(name.as_str()) else { continue };
                tracing::warn!(source = %name, since = %pause.since, "the source is paused");
                handle.pause(pause);
            }
        }
        Ok(())
    }

    async fn log(&mut self, name: &Arc<str>) -> Result<()> {
        if !self.logs.contains_key(name) {
            let log = log(name, self.handles, &self.notices, self.runtime).await?;
            self.logs.insert(Arc::clone(name), log);
        }
        Ok(())
    }

    async fn entity(
        &mut self,
        declared: &EntityDeclaration,
        policies: PresentEntity,
    ) -> Result<()> {
        let (entity, handles, runtime) = (&declared.entity, self.handles, self.runtime);
        let log = Arc::clone(
            self.logs.get(&declared.truth).ok_or_else(|| Error::internal("the log is not open"))?,
        );
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
        let serving = Serving {
            entity: Arc::clone(entity),
            cache: feed(declared, &policies, &log, handles, runtime).await?,
            earlier: Earlier::of(&log, entity, handles, self.outcomes).await?,
            log,
            flights: Default::default(),
            policies,
            behind,
            hedges: Default::default(),
            gate: Default::default(),
        };
        self.start_sync(declared)?;
        self.entities.insert(Arc::clone(entity.name()), Arc::new(serving));
        Ok(())
    }

    /// Has the truth of an entity follow another one, if it is to.
    fn start_sync(&mut self, declared: &EntityDeclaration) -> Result<()> {
        let Some(sync) = &declared.sync else { return Ok(()) };
        let log = self.logs.get(&declared.truth);
        let log = log.ok_or_else(|| Error::internal("the log is not open"))?;
        let peer = &named(self.handles, &sync.with)?.source;
        let started = Syncing::start(declared, log, peer, self.runtime)?;
        self.syncs.extend(started);
        Ok(())
    }

    fn behinds(&self) -> impl Iterator<Item = &Arc<Behind>> {
        self.entities.values().filter_map(|serving| serving.behind.as_ref())
    }

    /// Acknowledged writes must not lie in a journal that nobody flushes.
    async fn refuse_forgotten_journals(&self) -> Result<()> {
        for (name, handle) in self.handles {
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
