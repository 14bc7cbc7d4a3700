#![doc = include_str!("../README.md")]

mod auditor;
mod client;
mod codec;
mod config;
mod error;
mod folder;
mod follower;
mod query;
mod reader;
mod schema;
mod tokenizer;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use unisono_core::capability::{ApplyCapability, QueryCapability};
use unisono_core::kind::{Environment, OptionSpec, Options, SourceKind};
use unisono_core::source::{Auditor, Binding, Follower, Probe, Reader, Source};
use unisono_core::{Capability, Entity, Error, Result, Role};

use crate::client::Handle;
use crate::config::Config;
use crate::error::OrError;

const NAME: &str = "tantivy";

/// The kind `tantivy`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tantivy;

#[async_trait]
impl SourceKind for Tantivy {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "Full-text search, filters, facets and groups, embedded: folders of index files."
    }

    fn options(&self) -> &'static [OptionSpec] {
        config::OPTIONS
    }

    fn capability(&self) -> Capability {
        capability()
    }

    fn check(&self, options: &Options) -> Vec<(&'static str, String)> {
        config::check(options)
    }

    async fn open(
        &self,
        name: &str,
        options: &Options,
        environment: &Environment,
    ) -> Result<Arc<dyn Source>> {
        let config = Config::read(options, environment).map_err(|e| e.at(name))?;
        let path = config.path.clone();
        let made = tokio::task::spawn_blocking(move || std::fs::create_dir_all(path).or_error());
        made.await
            .unwrap_or_else(|e| Err(Error::internal("panicked").caused_by(e)))
            .map_err(|e| e.on("open").at(name).with("path", config.path.display()))?;
        Ok(Arc::new(TantivySource {
            name: name.into(),
            config,
            capability: capability(),
            handles: RwLock::new(Some(HashMap::new())),
        }))
    }
}

fn capability() -> Capability {
    Capability {
        roles: &[Role::Follower],
        durable: true,
        naming: &[],
        query: QueryCapability {
            get: true,
            filter: true,
            aggregate: true,
            search: true,
            scans: false,
        },
        apply: ApplyCapability {
            lanes: 1,
            copy_lanes: 1,
            batch_changes_max: 8_192,
            batch_bytes_max: 16_000_000,
            history: false,
        },
        refuses: |role, _| {
            (role != Role::Follower).then(|| "a search index can only be a follower".to_owned())
        },
    }
}

/// A source of this kind.
struct TantivySource {
    name: Arc<str>,
    config: Config,
    capability: Capability,
    /// `None` once the source is closed.
    handles: RwLock<Option<HashMap<Arc<str>, Arc<Handle>>>>,
}

impl TantivySource {
    fn handle(&self, entity: &Entity) -> Result<Arc<Handle>> {
        let handles = self.handles.read().unwrap_or_else(PoisonError::into_inner);
        let handles = handles.as_ref().ok_or_else(|| self.closed())?;
        handles.get(entity.name()).cloned().ok_or_else(|| {
            Error::internal("the entity was not prepared").at(&self.name).of(entity.name())
        })
    }

    fn all(&self) -> Result<Vec<Arc<Handle>>> {
        let handles = self.handles.read().unwrap_or_else(PoisonError::into_inner);
        Ok(handles.as_ref().ok_or_else(|| self.closed())?.values().cloned().collect())
    }

    fn closed(&self) -> Error {
        client::closed().at(&self.name)
    }

    /// The handle of a binding: the one that is there if the entity is the same, else a new one.
    async fn bind(&self, binding: &Binding) -> Result<Arc<Handle>> {
        if binding.role != Role::Follower {
            return Err(Error::unsupported("a search index can only be a follower")
                .at(&self.name)
                .of(binding.entity.name()));
        }
        let entity = &binding.entity;
        let path = self.config.path.join(binding.place.as_ref());
        let bound = self.all()?.into_iter().find(|h| h.layout.entity.name() == entity.name());
        if let Some(handle) = bound {
            if handle.layout.entity == *entity && handle.is_at(&path) {
                return Ok(handle);
            }
            handle.close().await;
        }
        let handle = Arc::new(Handle::new(&self.name, entity, path, self.config.writer_memory));
        let mut handles = self.handles.write().unwrap_or_else(PoisonError::into_inner);
        handles
            .as_mut()
            .ok_or_else(|| self.closed())?
            .insert(Arc::clone(entity.name()), Arc::clone(&handle));
        Ok(handle)
    }
}

#[async_trait]
impl Source for TantivySource {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn kind(&self) -> &'static str {
        NAME
    }

    fn capability(&self) -> &Capability {
        &self.capability
    }

    async fn prepare(&self, bindings: &[Binding]) -> Result<Vec<String>> {
        let mut report = Vec::new();
        for binding in bindings {
            report.extend(self.bind(binding).await?.prepare().await?);
        }
        Ok(report)
    }

    async fn probe(&self) -> Result<Probe> {
        let handles = self.all()?;
        let path = self.config.path.clone();
        let probe = tokio::task::spawn_blocking(move || {
            std::fs::metadata(&path).or_error()?;
            Ok(handles.iter().map(|handle| handle.bytes()).sum())
        });
        let bytes = probe.await.unwrap_or_else(|e| Err(Error::internal("panicked").caused_by(e)));
        let bytes = bytes.map_err(|e| e.on("probe").at(&self.name))?;
        Ok(Probe { bytes: Some(bytes), engine: tantivy::version_string().to_owned() })
    }

    async fn close(&self) -> Result<()> {
        let handles = self.handles.write().unwrap_or_else(PoisonError::into_inner).take();
        for handle in handles.into_iter().flatten().map(|(_, handle)| handle) {
            handle.close().await;
        }
        Ok(())
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
}

#[cfg(test)]
mod tests;
