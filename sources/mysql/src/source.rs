//! [`MysqlSource`]: identity, life cycle and roles of an open source.

use std::sync::Arc;

use async_trait::async_trait;
use unisono_core::source::{Auditor, Binding, Follower, Probe, Reader, Source, Truth};
use unisono_core::{Capability, Described, Result, Role};

use crate::client::Client;
use crate::config::Settings;
use crate::schema;

/// An open source.
pub(crate) struct MysqlSource {
    client: Client,
    capability: Capability,
}

impl MysqlSource {
    /// Connects to the server.
    pub(crate) async fn open(
        name: &str,
        settings: Settings,
        capability: Capability,
    ) -> Result<Self> {
        Ok(MysqlSource { client: Client::open(name, settings).await?, capability })
    }

    /// The connections and tables.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }
}

#[async_trait]
impl Source for MysqlSource {
    fn name(&self) -> &Arc<str> {
        self.client.name()
    }

    fn kind(&self) -> &'static str {
        "mysql"
    }

    fn capability(&self) -> &Capability {
        &self.capability
    }

    async fn prepare(&self, bindings: &[Binding]) -> Result<Vec<String>> {
        let prepared = self.client.prepare(bindings).await;
        let notes = prepared.map_err(|f| f.error.on("prepare").at(self.client.name()))?;
        if bindings.iter().any(|b| b.role == Role::Truth) {
            self.warn_if_not_durable().await;
        }
        Ok(notes)
    }

    async fn describe(&self, place: &str) -> Result<Described> {
        let described = schema::describe(self.client.reader(), place).await;
        described.map_err(|f| f.error.on("describe").at(self.client.name()))
    }

    async fn probe(&self) -> Result<Probe> {
        let is_truth = self.client.tables().values().any(|t| t.role == Role::Truth);
        let sql = if is_truth { "SELECT `position` FROM unisono_head" } else { "DO 1" };
        let answer = self.client.reader().run(sql).await;
        let place = |f: crate::error::Failed| f.error.on("probe").at(self.client.name());
        answer.map_err(place)?;
        self.client.check_triggers().await.map_err(place)?;
        Ok(Probe { bytes: None, engine: self.client.server().engine.clone() })
    }

    async fn close(&self) -> Result<()> {
        self.client.close();
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

    fn auditor(self: Arc<Self>) -> Option<Arc<dyn Auditor>> {
        Some(self)
    }
}

impl MysqlSource {
    /// A truth must not lose what it has acknowledged; whether the server flushes is its administrator's to decide.
    async fn warn_if_not_durable(&self) {
        let sql = "SELECT @@innodb_flush_log_at_trx_commit = 1";
        let durable = self.client.reader().run(sql).await.ok();
        let cell = durable.iter().flatten().flatten().next().and_then(|row| row.as_ref(0));
        if cell.is_some_and(|cell| *cell == mysql_async::Value::Bytes(b"0".to_vec())) {
            tracing::warn!(
                source = %self.client.name(),
                "innodb_flush_log_at_trx_commit is not 1: the server can lose acknowledged writes when it crashes"
            );
        }
    }
}
