//! [`FilesSource`]: an open folder, its life cycle, and the way from an entity to its [`Place`].

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use unisono_core::source::{Auditor, Binding, Follower, Probe, Reader, Source};
use unisono_core::vault::Vault;
use unisono_core::{Capability, Entity, Error, ErrorKind, Result, Role};

use crate::parallel::blocking;
use crate::place::Place;
use crate::schema;
use crate::store::Store;
use crate::vault::Files;

/// An open folder of files, on a disk or in a bucket.
pub(crate) struct FilesSource {
    name: Arc<str>,
    kind: &'static str,
    root: PathBuf,
    store: Arc<dyn Store>,
    archive: bool,
    capability: Capability,
    pub(crate) vault: Arc<Files>,
    closed: AtomicBool,
    /// By the name of the entity.
    places: RwLock<HashMap<Arc<str>, Arc<Place>>>,
}

impl FilesSource {
    pub(crate) fn new(
        name: &str,
        kind: &'static str,
        root: PathBuf,
        store: Arc<dyn Store>,
        archive: bool,
        capability: Capability,
    ) -> Self {
        FilesSource {
            name: name.into(),
            kind,
            vault: Arc::new(Files::new(&root, Arc::clone(&store))),
            root,
            store,
            archive,
            capability,
            closed: AtomicBool::new(false),
            places: RwLock::default(),
        }
    }

    /// Does blocking work with the files of an entity, and names the place of a failure.
    pub(crate) async fn at<T: Send + 'static>(
        &self,
        operation: &'static str,
        entity: &Arc<Entity>,
        work: impl FnOnce(&Place, &Arc<Entity>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let named = |e: Error| e.on(operation).at(&self.name).of(entity.name());
        let place = self.place(entity).map_err(named)?;
        let entity_of_work = Arc::clone(entity);
        blocking(move || work(&place, &entity_of_work)).await.map_err(named)
    }

    fn place(&self, entity: &Entity) -> Result<Arc<Place>> {
        self.check_open()?;
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        places.get(entity.name()).cloned().ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "the entity is not kept in this source")
                .hint("name the source among the followers of the entity")
        })
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Unavailable, "the source is closed").at(&self.name));
        }
        Ok(())
    }

    fn check_binding(&self, binding: &Binding) -> Result<()> {
        if binding.role != Role::Follower {
            return Err(Error::unsupported("files can only be a follower")
                .with("role", binding.role.as_str())
                .hint("choose another source for this role, for example one of kind sqlite"));
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if binding.place.is_empty()
            || binding.place.starts_with('.')
            || !binding.place.bytes().all(plain)
        {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "the place is not the name of a folder",
            )
            .with("place", &binding.place)
            .hint("use letters, digits, _, - and ., not starting with a point"));
        }
        Ok(())
    }
}

#[async_trait]
impl Source for FilesSource {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn kind(&self) -> &'static str {
        self.kind
    }

    fn capability(&self) -> &Capability {
        &self.capability
    }

    async fn prepare(&self, bindings: &[Binding]) -> Result<Vec<String>> {
        self.check_open()?;
        let mut wanted = Vec::with_capacity(bindings.len());
        for binding in bindings {
            self.check_binding(binding)
                .map_err(|e| e.on("prepare").at(&self.name).of(binding.entity.name()))?;
            let known = self.places.read().unwrap_or_else(PoisonError::into_inner);
            let folder = self.root.join(binding.place.as_ref());
            let place = match known.get(binding.entity.name()) {
                Some(place) if place.folder() == folder => Arc::clone(place),
                _ => Arc::new(Place::new(folder, Arc::clone(&self.store), self.archive)),
            };
            wanted.push((Arc::clone(&binding.entity), place));
        }
        let prepared = wanted.clone();
        let said = blocking(move || schema::prepare(&prepared))
            .await
            .map_err(|e| e.on("prepare").at(&self.name))?;
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        places.extend(wanted.into_iter().map(|(entity, place)| (Arc::clone(entity.name()), place)));
        Ok(said)
    }

    async fn probe(&self) -> Result<Probe> {
        self.check_open()?;
        let (store, root) = (Arc::clone(&self.store), self.root.clone());
        let sign = blocking(move || store.probe(&root)).await;
        sign.map_err(|e| e.on("probe").at(&self.name))?;
        Ok(Probe { bytes: None, engine: self.store.engine().to_owned() })
    }

    async fn close(&self) -> Result<()> {
        self.closed.store(true, Ordering::Release);
        let places: Vec<_> = {
            let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
            places.drain().map(|(_, place)| place).collect()
        };
        blocking(move || {
            places.iter().for_each(|place| place.release());
            Ok(())
        })
        .await
    }

    fn reader(self: Arc<Self>) -> Option<Arc<dyn Reader>> {
        Some(self)
    }

    fn follower(self: Arc<Self>) -> Option<Arc<dyn Follower>> {
        Some(self)
    }

    fn auditor(self: Arc<Self>) -> Option<Arc<dyn Auditor>> {
        Some(self)
    }

    fn vault(self: Arc<Self>) -> Option<Arc<dyn Vault>> {
        Some(self)
    }
}
