//! [`OpensearchSource`]: identity, life cycle and roles of a cluster.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use serde::Deserialize;
use unisono_core::source::{Auditor, Binding, Follower, Probe, Reader, Source};
use unisono_core::{Capability, Entity, Error, ErrorKind, Result, Role};

use crate::cluster::Cluster;
use crate::config::is_name;
use crate::handle::Handle;

/// A cluster.
pub(crate) struct OpensearchSource {
    cluster: Arc<Cluster>,
    capability: Capability,
    handles: RwLock<HashMap<Arc<str>, Arc<Handle>>>,
}

impl OpensearchSource {
    /// A source over a cluster.
    pub(crate) fn new(cluster: Cluster, capability: Capability) -> Self {
        let (cluster, handles) = (Arc::new(cluster), RwLock::default());
        OpensearchSource { cluster, capability, handles }
    }

    /// The handle of an entity that was prepared.
    pub(crate) fn handle(&self, entity: &Entity) -> Result<Arc<Handle>> {
        let handles = self.handles.read().unwrap_or_else(PoisonError::into_inner);
        handles.get(entity.name()).cloned().ok_or_else(|| {
            Error::internal("the entity was not prepared").at(self.name()).of(entity.name())
        })
    }

    /// The handle of a binding: the one that is there if the entity is the same, else a new one.
    fn bind(&self, binding: &Binding) -> Result<Arc<Handle>> {
        let (entity, place) = (&binding.entity, &binding.place);
        let refuse = |e: Error| e.on("prepare").at(self.name()).of(entity.name());
        if binding.role != Role::Follower {
            return Err(refuse(Error::unsupported(crate::FOLLOWER_ONLY)));
        }
        if !is_name(place) || place.starts_with("unisono_") || place.len() > 100 {
            let e = Error::new(ErrorKind::InvalidConfig, "no index can have this name");
            return Err(refuse(e.with("index", place)).hint(
                "use at most 100 of a-z, 0-9, _, - and ., the first one a letter or digit, and not unisono_",
            ));
        }
        let mut handles = self.handles.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = handles.get(entity.name())
            && (&handle.layout.entity, &handle.place) == (entity, place)
        {
            return Ok(Arc::clone(handle));
        }
        let handle = Arc::new(Handle::new(&self.cluster, entity, place));
        handles.insert(Arc::clone(entity.name()), Arc::clone(&handle));
        Ok(handle)
    }

    /// Bytes of all indexes that hold records.
    async fn bytes(&self) -> Result<Option<u64>> {
        #[derive(Deserialize)]
        struct Stats {
            #[serde(rename = "_all")]
            all: All,
        }
        #[derive(Deserialize)]
        struct All {
            total: Total,
        }
        #[derive(Deserialize)]
        struct Total {
            store: Store,
        }
        #[derive(Deserialize)]
        struct Store {
            size_in_bytes: u64,
        }
        let indexes: Vec<_> = {
            let handles = self.handles.read().unwrap_or_else(PoisonError::into_inner);
            handles.values().filter_map(|handle| handle.index().ok()).collect()
        };
        if indexes.is_empty() {
            return Ok(None);
        }
        let path = format!("/{}/_stats/store?level=cluster", indexes.join(","));
        // An index that was deleted is the delivery's to notice.
        let Some(answer) = self.cluster.client.get(&path).await?.found()? else { return Ok(None) };
        Ok(answer.parse::<Stats>().ok().map(|stats| stats.all.total.store.size_in_bytes))
    }

    async fn healthy(&self) -> Result<Probe> {
        self.cluster.client.get("/_cluster/health?filter_path=status").await?.ok()?;
        Ok(Probe { bytes: self.bytes().await?, engine: self.cluster.product.to_string() })
    }
}

#[async_trait]
impl Source for OpensearchSource {
    fn name(&self) -> &Arc<str> {
        self.cluster.client.source()
    }

    fn kind(&self) -> &'static str {
        crate::NAME
    }

    fn capability(&self) -> &Capability {
        &self.capability
    }

    async fn prepare(&self, bindings: &[Binding]) -> Result<Vec<String>> {
        let mut report = Vec::new();
        for binding in bindings {
            let handle = self.bind(binding)?;
            report.extend(handle.prepare().await.map_err(|e| handle.locate(e, "prepare"))?);
        }
        Ok(report)
    }

    async fn probe(&self) -> Result<Probe> {
        self.healthy().await.map_err(|e| e.on("probe").at(self.name()))
    }

    async fn close(&self) -> Result<()> {
        self.cluster.client.close();
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
