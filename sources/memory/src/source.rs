//! [`MemorySource`]: identity, life cycle, and the way from an entity to its table.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError, RwLock};

use async_trait::async_trait;
use unisono_core::capability::{Capability, Role};
use unisono_core::journal::Journal;
use unisono_core::source::{Auditor, Binding, Cache, Follower, Probe, Reader, Source, Truth};
use unisono_core::{Entity, Error, ErrorKind, Result};

use crate::cache::Caches;
use crate::config::Settings;
use crate::disk::MemoryDisk;
use crate::store::{State, Table};

/// A source of kind `memory`.
pub(crate) struct MemorySource {
    name: Arc<str>,
    capability: Capability,
    disk: Arc<MemoryDisk>,
    bindings: RwLock<HashMap<Arc<str>, Binding>>,
    closed: AtomicBool,
    pub(crate) caches: Caches,
}

impl MemorySource {
    pub(crate) fn new(name: &str, disk: Arc<MemoryDisk>, settings: Settings) -> Self {
        MemorySource {
            name: name.into(),
            capability: settings.capability(),
            disk,
            bindings: RwLock::default(),
            closed: AtomicBool::new(false),
            caches: Caches::new(settings.capacity),
        }
    }

    /// Fails after [`Source::close`].
    pub(crate) fn check_open(&self, operation: &'static str) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Unavailable, "the source is closed")
                .on(operation)
                .at(&self.name));
        }
        Ok(())
    }

    /// The data, for one synchronous step.
    pub(crate) fn state(&self, operation: &'static str) -> Result<MutexGuard<'_, State>> {
        self.check_open(operation)?;
        Ok(self.disk.lock())
    }

    /// How an entity is kept here.
    pub(crate) fn binding(&self, entity: &Entity, operation: &'static str) -> Result<Binding> {
        let bindings = self.bindings.read().unwrap_or_else(PoisonError::into_inner);
        let missing = || {
            Error::internal("the entity was not prepared in this source")
                .on(operation)
                .at(&self.name)
                .of(entity.name())
        };
        bindings.get(entity.name()).cloned().ok_or_else(missing)
    }

    /// Does something with the data of an entity, in one step.
    pub(crate) fn with_table<T>(
        &self,
        entity: &Entity,
        operation: &'static str,
        step: impl FnOnce(&State, &Table) -> Result<T>,
    ) -> Result<T> {
        let binding = self.binding(entity, operation)?;
        let state = self.state(operation)?;
        let step = match state.tables.get(&binding.place) {
            Some(table) => step(&state, table),
            // The disk was wiped: to a reader that is an empty table.
            None => step(&state, &Table::new(&binding.entity, binding.role)),
        };
        step.map_err(|e| e.on(operation).at(&self.name).of(entity.name()))
    }
}

#[async_trait]
impl Source for MemorySource {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "memory"
    }

    fn capability(&self) -> &Capability {
        &self.capability
    }

    async fn prepare(&self, bindings: &[Binding]) -> Result<Vec<String>> {
        let mut state = self.state("prepare")?;
        let mut next = state.clone();
        let mut done = Vec::new();
        for binding in bindings.iter().filter(|b| b.role != Role::Cache) {
            done.extend(next.prepare(binding).map_err(|e| e.on("prepare").at(&self.name))?);
        }
        *state = next;
        let mut known = self.bindings.write().unwrap_or_else(PoisonError::into_inner);
        known.extend(bindings.iter().map(|b| (Arc::clone(b.entity.name()), b.clone())));
        Ok(done)
    }

    async fn probe(&self) -> Result<Probe> {
        self.check_open("probe")?;
        let engine = format!("memory {}", env!("CARGO_PKG_VERSION"));
        Ok(Probe { bytes: None, engine })
    }

    async fn close(&self) -> Result<()> {
        self.closed.store(true, Ordering::Release);
        Ok(())
    }

    fn reader(self: Arc<Self>) -> Option<Arc<dyn Reader>> {
        Some(self)
    }

    fn truth(self: Arc<Self>) -> Option<Arc<dyn Truth>> {
        Some(self)
    }

    fn follower(self: Arc<Self>) -> Option<Arc<dyn Follower>> {
        Some(self)
    }

    fn cache(self: Arc<Self>) -> Option<Arc<dyn Cache>> {
        Some(self)
    }

    fn journal(self: Arc<Self>) -> Option<Arc<dyn Journal>> {
        Some(self)
    }

    fn auditor(self: Arc<Self>) -> Option<Arc<dyn Auditor>> {
        Some(self)
    }
}
