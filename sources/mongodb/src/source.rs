//! [`MongodbSource`]: identity, life cycle and roles of an open source.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use mongodb::bson::doc;
use unisono_core::source::{Auditor, Binding, Follower, Probe, Reader, Source};
use unisono_core::{Capability, Entity, Error, ErrorKind, Result};

use crate::client::Client;
use crate::collection::Place;
use crate::config::Settings;
use crate::schema;

/// An open source.
pub(crate) struct MongodbSource {
    client: Client,
    capability: Capability,
    /// By the name of the entity.
    places: RwLock<HashMap<Arc<str>, Arc<Place>>>,
}

impl MongodbSource {
    /// Connects.
    pub(crate) async fn open(
        name: &str,
        settings: Settings,
        capability: Capability,
    ) -> Result<Self> {
        let client = Client::open(name, &settings).await?;
        Ok(MongodbSource { client, capability, places: RwLock::default() })
    }

    /// The connections.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// The collection of an entity.
    pub(crate) fn place(&self, entity: &Entity) -> Result<Arc<Place>> {
        self.client.check_open()?;
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        places.get(entity.name()).cloned().ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "the entity is not kept in this source")
                .hint("name the source among the followers of the entity")
        })
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
}

#[async_trait]
impl Source for MongodbSource {
    fn name(&self) -> &Arc<str> {
        self.client.name()
    }

    fn kind(&self) -> &'static str {
        "mongodb"
    }

    fn capability(&self) -> &Capability {
        &self.capability
    }

    async fn prepare(&self, bindings: &[Binding]) -> Result<Vec<String>> {
        let prepared = schema::prepare(&self.client, bindings).await;
        let (places, notes) = prepared.map_err(|e| e.on("prepare").at(self.client.name()))?;
        let mut known = self.places.write().unwrap_or_else(PoisonError::into_inner);
        known.extend(places.into_iter().map(|p| (Arc::clone(p.entity.name()), Arc::new(p))));
        Ok(notes)
    }

    async fn probe(&self) -> Result<Probe> {
        let request = self.client.database().run_command(doc! { "buildInfo": 1 });
        let answer = self.client.call(request).await;
        let answer = answer.map_err(|e| e.on("probe").at(self.client.name()))?;
        let version = answer.get_str("version").unwrap_or("of unknown version");
        let with = if self.client.transactions() { "with" } else { "without" };
        Ok(Probe { bytes: None, engine: format!("MongoDB {version} {with} transactions") })
    }

    async fn close(&self) -> Result<()> {
        self.client.close().await;
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
