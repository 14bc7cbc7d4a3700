//! [`TemporalSource`]: identity, life cycle and roles of an open source.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::task::JoinSet;
use unisono_core::clock::Clock;
use unisono_core::kind::{Environment, Options, SourceKind};
use unisono_core::source::{Auditor, Binding, Probe, Reader, Source, Truth};
use unisono_core::{Capability, Entity, Error, ErrorKind, Key, Result, Role};

use crate::capture;
use crate::client::Client;
use crate::codec::attribute_fits;
use crate::config::Settings;
use crate::journal::Journal;
use crate::layout::{Layout, Meaning};
use crate::locks::Locks;

/// An entity whose truth is the source.
pub(crate) struct Place {
    /// Its fields.
    pub(crate) entity: Arc<Entity>,
    /// What they stand for.
    pub(crate) layout: Layout,
    /// How far the looks at all of its workflows are.
    pub(crate) progress: watch::Sender<Progress>,
    /// Written since the last look at all, so that their queries have not been asked yet.
    pub(crate) written: Mutex<BTreeSet<Key>>,
}

/// How far the looks at all workflows of an entity are.
#[derive(Clone, Debug)]
pub(crate) enum Progress {
    /// The first one since the source was opened goes on.
    First,
    /// The last one was completed.
    Complete,
    /// The last one failed: what others do is not seen.
    Failing(Arc<Error>),
}

impl Place {
    /// Fails while what others do is not seen.
    pub(crate) fn check_progress(&self) -> Result<()> {
        match &*self.progress.borrow() {
            Progress::First | Progress::Complete => Ok(()),
            Progress::Failing(reason) => {
                let error = Error::new(ErrorKind::Unavailable, "the workflows cannot be looked at");
                let hint = reason.hint_text().unwrap_or("see the log for the reason").to_owned();
                Err(error.of(self.entity.name()).with("reason", reason).hint(hint))
            }
        }
    }
}

/// What the roles and the capture work with.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) client: Client,
    pub(crate) journal: Journal,
    pub(crate) locks: Locks,
    pub(crate) clock: Arc<dyn Clock>,
    /// By the name of the entity.
    places: RwLock<BTreeMap<Arc<str>, Arc<Place>>>,
}

impl Shared {
    /// How an entity is kept.
    pub(crate) fn place(&self, entity: &Entity) -> Result<Arc<Place>> {
        self.client.check_open()?;
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        places.get(entity.name()).cloned().ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "the entity is not kept in this source")
                .hint("name the source as the truth of the entity")
        })
    }

    /// All entities that are kept.
    pub(crate) fn places(&self) -> Vec<Arc<Place>> {
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        places.values().cloned().collect()
    }

    /// How an entity is kept, once all of its workflows have been looked at; fails while that is impossible.
    pub(crate) async fn looked_at(&self, entity: &Entity) -> Result<Arc<Place>> {
        let place = self.place(entity)?;
        let mut progress = place.progress.subscribe();
        let limit = self.settings.request_timeout;
        let past_first = progress.wait_for(|progress| !matches!(progress, Progress::First));
        if !matches!(tokio::time::timeout(limit, past_first).await, Ok(Ok(_))) {
            return Err(Error::new(ErrorKind::TooStale, "the first look at the workflows goes on")
                .hint("try again; raise `parallel` if it takes too long"));
        }
        place.check_progress()?;
        Ok(place)
    }

    /// The workflow id of a key.
    pub(crate) fn workflow_id(&self, key: &Key) -> String {
        format!("{}{key}", self.settings.prefix)
    }

    /// Names the place of a failure.
    pub(crate) fn named(
        &self,
        operation: &'static str,
        entity: &Entity,
    ) -> impl Fn(Error) -> Error + use<> {
        let (source, entity) = (Arc::clone(self.client.name()), Arc::clone(entity.name()));
        move |e| e.on(operation).at(&source).of(&entity)
    }

    /// Compares the declared search attributes with those of the namespace.
    async fn check_attributes(&self, places: &[Arc<Place>]) -> Result<()> {
        let is_declared =
            |p: &Arc<Place>| p.layout.meanings.iter().any(|m| matches!(m, Meaning::Attribute(_)));
        if !places.iter().any(is_declared) {
            return Ok(());
        }
        let Some(known) = self.client.search_attributes().await? else { return Ok(()) };
        for place in places {
            for (field, meaning) in place.entity.fields().iter().zip(&place.layout.meanings) {
                let Meaning::Attribute(name) = meaning else { continue };
                let found = known.custom_attributes.get(name);
                let found = found.or_else(|| known.system_attributes.get(name));
                let message = match found {
                    Some(registered) if attribute_fits(&field.ty, *registered) => continue,
                    Some(_) => "the search attribute has another type in the namespace",
                    None => "the namespace has no such search attribute",
                };
                return Err(Error::new(ErrorKind::SchemaMismatch, message)
                    .of(place.entity.name())
                    .with("field", &field.name)
                    .with("search_attribute", name)
                    .hint("add it to the namespace with `temporal operator search-attribute create`, or correct the declaration"));
            }
        }
        Ok(())
    }
}

/// An open source.
pub(crate) struct TemporalSource {
    pub(crate) shared: Arc<Shared>,
    capability: Capability,
    /// The capture, which ends with the source.
    tasks: Mutex<JoinSet<()>>,
}

impl TemporalSource {
    /// Connects and opens the journal.
    pub(crate) async fn open(
        name: &str,
        settings: Settings,
        journal: &'static dyn SourceKind,
        environment: &Environment,
        capability: Capability,
    ) -> Result<Self> {
        let named = |e: Error| e.on("open").at(name);
        let client = Client::open(name, &settings).await.map_err(named)?;
        let journal = Journal::open(name, journal, &settings, environment).await.map_err(named)?;
        let shared = Shared {
            settings,
            client,
            journal,
            locks: Locks::new(),
            clock: Arc::clone(&environment.clock),
            places: RwLock::default(),
        };
        Ok(TemporalSource { shared: Arc::new(shared), capability, tasks: Mutex::default() })
    }
}

#[async_trait]
impl Source for TemporalSource {
    fn name(&self) -> &Arc<str> {
        self.shared.client.name()
    }

    fn kind(&self) -> &'static str {
        "temporal"
    }

    fn capability(&self) -> &Capability {
        &self.capability
    }

    async fn prepare(&self, bindings: &[Binding]) -> Result<Vec<String>> {
        let named = |e: Error| e.on("prepare").at(self.name());
        self.shared.client.check_open().map_err(named)?;
        let places: Result<Vec<_>> = bindings.iter().map(place).collect();
        let places = places.map_err(named)?;
        self.shared.check_attributes(&places).await.map_err(named)?;
        // The options are of this kind, not of the one that keeps the journal.
        let plain = |b: &Binding| Binding { options: Options::default(), ..b.clone() };
        let plain: Vec<_> = bindings.iter().map(plain).collect();
        let notes = self.shared.journal.source.prepare(&plain).await?;
        let mut known = self.shared.places.write().unwrap_or_else(PoisonError::into_inner);
        known.extend(places.into_iter().map(|p| (Arc::clone(p.entity.name()), p)));
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if tasks.is_empty() && !known.is_empty() {
            tasks.spawn(capture::run(Arc::clone(&self.shared)));
        }
        Ok(notes)
    }

    async fn probe(&self) -> Result<Probe> {
        let version = self.shared.client.server_version().await;
        let version = version.map_err(|e| e.on("probe").at(self.name()))?;
        let bytes = self.shared.journal.source.probe().await?.bytes;
        let mut going_on = String::new();
        for place in self.shared.places() {
            place.check_progress().map_err(|e| e.on("probe").at(self.name()))?;
            if matches!(*place.progress.borrow(), Progress::First) {
                going_on += &format!(", the first look at {} goes on", place.entity.name());
            }
        }
        Ok(Probe { bytes, engine: format!("Temporal {version}{going_on}") })
    }

    async fn close(&self) -> Result<()> {
        self.shared.client.close();
        let mut tasks =
            std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
        self.shared.journal.source.close().await
    }

    fn reader(self: Arc<Self>) -> Option<Arc<dyn Reader>> {
        Some(self)
    }

    fn truth(self: Arc<Self>) -> Option<Arc<dyn Truth>> {
        Some(self)
    }

    fn auditor(self: Arc<Self>) -> Option<Arc<dyn Auditor>> {
        Some(self)
    }
}

fn place(binding: &Binding) -> Result<Arc<Place>> {
    let entity = &binding.entity;
    if binding.role != Role::Truth {
        return Err(Error::unsupported("workflows can only be the truth of an entity")
            .of(entity.name())
            .with("role", binding.role.as_str()));
    }
    match Layout::of(entity, &binding.options) {
        Ok(layout) => Ok(Arc::new(Place {
            entity: Arc::clone(entity),
            layout,
            progress: watch::Sender::new(Progress::First),
            written: Mutex::default(),
        })),
        Err(problems) => {
            let texts: Vec<_> =
                problems.iter().map(|(on, text)| format!("`{on}` {text}")).collect();
            Err(Error::new(ErrorKind::InvalidConfig, texts.join("; ")).of(entity.name()))
        }
    }
}
