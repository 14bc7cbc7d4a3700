//! [`PostgresSource`]: identity, life cycle and roles of an open database.

use std::sync::Arc;

use async_trait::async_trait;
use unisono_core::clock::Clock;
use unisono_core::source::{Auditor, Binding, Follower, Probe, Reader, Source, Truth};
use unisono_core::{Capability, Described, Position, Result, Uuid};

use crate::capture::{self, Ailing};
use crate::client::Client;
use crate::config::Settings;
use crate::error::Failed;
use crate::parameter::{Parameter, optional_integer, text};
use crate::replicas::ReplicaReader;
use crate::session::{Session, Use};

/// What a server says of itself, for people: the primary with the size of the schema, a replica with its place.
const PRIMARY: &str = "SELECT current_setting('server_version'), \
     (SELECT sum(c.relpages::bigint)::bigint * current_setting('block_size')::bigint \
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1), \
     'timeline ' || ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint";
const REPLICA: &str = "SELECT CASE WHEN pg_is_in_recovery() \
     THEN format('replayed %s of timeline %s, %s s ago', pg_last_wal_replay_lsn(), (SELECT timeline_id FROM pg_control_checkpoint()), \
      coalesce(round(extract(epoch FROM now() - pg_last_xact_replay_timestamp()))::text, '?')) \
     ELSE 'no replica: it takes writes' END";

/// An open database.
pub(crate) struct PostgresSource {
    client: Client,
    capability: Capability,
    /// Who it is among the processes that may hold the sequencer's lease.
    holder: Uuid,
    ailing: Ailing,
}

impl PostgresSource {
    /// Connects to the server.
    pub(crate) async fn open(
        name: &str,
        settings: Settings,
        clock: Arc<dyn Clock>,
        capability: Capability,
    ) -> Result<Self> {
        let client = Client::open(name, settings, clock).await;
        let client = client.map_err(|e| e.on("open").at(name))?;
        let (holder, ailing) = (Uuid::now_v7(), Ailing::default());
        Ok(PostgresSource { client, capability, holder, ailing })
    }

    /// The connections.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Its name as the holder of a lease.
    pub(crate) fn holder(&self) -> Uuid {
        self.holder
    }

    /// Captured tables that are left alone.
    pub(crate) fn ailing(&self) -> &Ailing {
        &self.ailing
    }

    /// Fails if writes to a captured table can be missed.
    async fn check_capture(&self) -> Result<(), Failed> {
        let (schema, tables) = (self.client.schema(), &*self.client.tables());
        if tables.values().any(|table| table.capture.is_some()) {
            let checked = self.client.primary(move |session: Arc<Session>| {
                Box::pin(async move { capture::check(&session, schema, tables).await })
            });
            checked.await?;
            self.ailing.clear();
        }
        Ok(())
    }

    fn named(&self, operation: &'static str, failed: Failed) -> unisono_core::Error {
        failed.error.on(operation).at(self.client.name())
    }
}

#[async_trait]
impl Source for PostgresSource {
    fn name(&self) -> &Arc<str> {
        self.client.name()
    }

    fn kind(&self) -> &'static str {
        "postgres"
    }

    fn capability(&self) -> &Capability {
        &self.capability
    }

    async fn prepare(&self, bindings: &[Binding]) -> Result<Vec<String>> {
        self.ailing.clear();
        self.client.prepare(bindings).await.map_err(|failed| self.named("prepare", failed))
    }

    async fn describe(&self, place: &str) -> Result<Described> {
        let described = self.client.primary(move |session: Arc<Session>| {
            Box::pin(async move { capture::describe(&session, self.client.schema(), place).await })
        });
        described.await.map_err(|failed| self.named("describe", failed))
    }

    async fn probe(&self) -> Result<Probe> {
        self.client.look_around().await.map_err(|failed| self.named("probe", failed))?;
        let schema = &[Parameter::text(self.client.schema())];
        let answer = self.client.primary(move |session| {
            Box::pin(async move {
                let rows = session.rows(Use::Once, PRIMARY, schema).await?;
                Ok((rows, session.address.clone()))
            })
        });
        let answer = answer.await;
        let (rows, address) = answer.map_err(|failed| self.named("probe", failed))?;
        let Some(row) = rows.first() else {
            return Err(unisono_core::Error::internal("the server did not answer"));
        };
        self.check_capture().await.map_err(|failed| self.named("probe", failed))?;
        let mut engine =
            format!("PostgreSQL {}, primary {address}, {}", text(row, 0)?, text(row, 2)?);
        let asked = self.client.replicas(|session| {
            Box::pin(async move { session.rows(Use::Once, REPLICA, &[]).await })
        });
        for (replica, said) in asked.await {
            let said = match &said {
                Ok(rows) => rows.first().map_or(Ok("?"), |row| text(row, 0))?.to_owned(),
                Err(failed) => failed.error.message().to_owned(),
            };
            engine += &format!("; replica {replica}: {said}");
        }
        let bytes = optional_integer(row, 1)?.and_then(|n| u64::try_from(n).ok());
        Ok(Probe { bytes, engine })
    }

    async fn close(&self) -> Result<()> {
        self.client.close().await;
        Ok(())
    }

    fn reader(self: Arc<Self>) -> Option<Arc<dyn Reader>> {
        Some(self)
    }

    fn replicas(self: Arc<Self>, at_least: Position) -> Option<Arc<dyn Reader>> {
        let any = self.client.replica_count() > 0;
        any.then(|| Arc::new(ReplicaReader { source: self, at_least }) as _)
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
