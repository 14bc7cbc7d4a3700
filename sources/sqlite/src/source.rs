//! [`SqliteSource`]: identity, life cycle and roles of an open database.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use unisono_core::journal::Journal;
use unisono_core::source::{Auditor, Binding, Follower, Probe, Reader, Source, Truth};
use unisono_core::{Capability, Described, Error, ErrorKind, Result, Role};

use crate::client::Client;
use crate::config::Settings;
use crate::{capture, connection, schema};

/// An open database.
pub(crate) struct SqliteSource {
    client: Client,
    capability: Capability,
    path: PathBuf,
}

impl SqliteSource {
    /// Opens the file, or makes it.
    pub(crate) async fn open(
        name: &str,
        settings: Settings,
        capability: Capability,
    ) -> Result<Self> {
        let path = settings.path.clone();
        Ok(SqliteSource { client: Client::open(name, settings).await?, capability, path })
    }

    /// The threads that own the connections.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }
}

#[async_trait]
impl Source for SqliteSource {
    fn name(&self) -> &Arc<str> {
        self.client.name()
    }

    fn kind(&self) -> &'static str {
        "sqlite"
    }

    fn capability(&self) -> &Capability {
        &self.capability
    }

    async fn prepare(&self, bindings: &[Binding]) -> Result<Vec<String>> {
        let (bindings, mark) = (bindings.to_vec(), self.client.mark());
        let prepared = self
            .client
            .write("prepare", move |connection| schema::prepare(connection, &bindings, &mark));
        let (tables, notes) = prepared.await?;
        self.client.set_tables(tables);
        Ok(notes)
    }

    async fn describe(&self, place: &str) -> Result<Described> {
        let place = place.to_owned();
        self.client
            .read("describe", move |session| capture::describe(&session.connection, &place))
            .await
    }

    async fn probe(&self) -> Result<Probe> {
        let is_truth = self.client.tables().values().any(|t| t.role == Role::Truth);
        let moved =
            self.client.read("probe", |session| connection::has_moved(&session.connection)).await?;
        if moved && is_truth {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "the database file was deleted or replaced",
            )
            .on("probe")
            .at(self.client.name())
            .hint("put the file back and restart"));
        }
        let tables = self.client.tables();
        let missing = self
            .client
            .read("probe", move |session| capture::missing_triggers(&session.connection, &tables));
        let missing = missing.await?;
        if !missing.is_empty() {
            return Err(capture::triggers_gone(&missing).on("probe").at(self.client.name()));
        }
        Ok(Probe {
            bytes: fs::metadata(&self.path).ok().map(|m| m.len()),
            engine: format!("SQLite {}", rusqlite::version()),
        })
    }

    async fn close(&self) -> Result<()> {
        self.client.close().await;
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

    fn journal(self: Arc<Self>) -> Option<Arc<dyn Journal>> {
        Some(self)
    }

    fn auditor(self: Arc<Self>) -> Option<Arc<dyn Auditor>> {
        Some(self)
    }
}
