//! [`Session`]: one connection, and how statements go over it.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, CopyInSink, NoTls, Row, Socket, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::Server;
use crate::error::{Failed, timed_out};
use crate::parameter::Parameter;

/// The statements kept on one connection; beyond these, all are forgotten.
const STATEMENTS_MAX: usize = 128;
/// The statements of which it is known that they were asked before; beyond these, all are forgotten.
const ASKED_MAX: usize = 1024;
/// The longest that asking the server to cancel a statement may take.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(1);

/// Settings of the connection itself. A pooler refuses them, or does not hand them on to the server that it lends.
///
/// A transaction whose process is stopped, or can no longer be reached, must not stop the others for long: even one
/// that only reads holds up every change of its tables. Behind a pooler that is the pooler's to do.
const MARK: &str = "-c unisono.direct=on -c idle_in_transaction_session_timeout=10s";

/// How a statement is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Asked again and again: prepared, if statements are.
    Often,
    /// Perhaps asked in these words again: prepared when it is.
    Again,
    /// Asked in ever other words: parsed each time, in the same round trip.
    Once,
}

/// How the connections of a source speak to its servers.
#[derive(Clone)]
pub(crate) struct Manner {
    /// Whether statements are prepared; turned off for good when a pooler turns out to be in between.
    pub(crate) prepared: Arc<AtomicBool>,
    /// Whether statements are sent before earlier ones are answered.
    pub(crate) pipelining: bool,
    /// None for plain connections.
    pub(crate) tls: Option<MakeRustlsConnect>,
    /// The longest time to connect.
    pub(crate) connect_timeout: Duration,
}

/// One connection. Whoever drops it ends it, whatever was under way.
pub(crate) struct Session {
    client: Client,
    statements: Mutex<HashMap<String, Statement>>,
    /// Hashes of what may be asked again.
    asked: Mutex<HashSet<u64>>,
    manner: Manner,
    /// The server, for people.
    pub(crate) address: String,
    /// Which of the cluster's lives it belongs to.
    pub(crate) generation: u64,
}

impl Session {
    /// Connects to one server.
    ///
    /// Prepared statements are safe only where no pooler is in between: it would run them on connections where another
    /// process has prepared something else under the same name. So the connection is marked, and whoever asks the
    /// server for its standing looks whether the mark has arrived.
    pub(crate) async fn connect(
        server: &Server,
        manner: &Manner,
        generation: u64,
    ) -> Result<Self, Failed> {
        let mut config = server.config.clone();
        if manner.tls.is_some() {
            config.ssl_mode(SslMode::Require);
        }
        let mut connected = None;
        if manner.prepared.load(Ordering::Relaxed) {
            let given = config.get_options().unwrap_or_default();
            let mut marked = config.clone();
            marked.options(format!("{MARK} {given}"));
            connected = match reached(&marked, manner).await {
                Err(failed) if failed.is_of_startup() => {
                    manner.prepared.store(false, Ordering::Relaxed);
                    None
                }
                done => Some(done),
            };
        }
        let connected = match connected {
            Some(connected) => connected,
            None => reached(&config, manner).await,
        };
        Ok(Session {
            client: connected.map_err(|failed| failed.with_server(&server.address))?,
            statements: Mutex::default(),
            asked: Mutex::default(),
            manner: manner.clone(),
            address: server.address.clone(),
            generation,
        })
    }

    /// Whether the connection has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Whether statements that are run often are prepared, for which the connection must be ours alone.
    pub(crate) fn is_prepared(&self) -> bool {
        self.manner.prepared.load(Ordering::Relaxed)
    }

    /// Whether statements may be sent before earlier ones are answered.
    pub(crate) fn is_pipelining(&self) -> bool {
        self.manner.pipelining
    }

    /// Runs statements without parameters and rows, such as `BEGIN`.
    pub(crate) async fn run(&self, sql: &str) -> Result<(), Failed> {
        Ok(self.client.batch_execute(sql).await?)
    }

    /// The rows of a statement.
    pub(crate) async fn rows(
        &self,
        usage: Use,
        sql: &str,
        parameters: &[Parameter],
    ) -> Result<Vec<Row>, Failed> {
        if self.is_worth_preparing(usage, sql) {
            let statement = self.prepared(sql, parameters).await?;
            let values: Vec<_> = parameters.iter().map(|p| p as &(dyn ToSql + Sync)).collect();
            return Ok(self.client.query(&statement, &values).await?);
        }
        Ok(self.client.query_typed(sql, &typed(parameters)).await?)
    }

    /// Runs a statement; answers how many rows it changed.
    pub(crate) async fn execute(
        &self,
        usage: Use,
        sql: &str,
        parameters: &[Parameter],
    ) -> Result<u64, Failed> {
        if self.is_worth_preparing(usage, sql) {
            let statement = self.prepared(sql, parameters).await?;
            let values: Vec<_> = parameters.iter().map(|p| p as &(dyn ToSql + Sync)).collect();
            return Ok(self.client.execute(&statement, &values).await?);
        }
        Ok(self.client.execute_typed(sql, &typed(parameters)).await?)
    }

    fn is_worth_preparing(&self, usage: Use, sql: &str) -> bool {
        self.is_prepared()
            && match usage {
                Use::Often => true,
                Use::Once => false,
                Use::Again => {
                    let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
                    if asked.len() >= ASKED_MAX {
                        asked.clear();
                    }
                    let mut hasher = DefaultHasher::new();
                    sql.hash(&mut hasher);
                    !asked.insert(hasher.finish())
                }
            }
    }

    /// Gives every row of a statement to `each` as it comes.
    pub(crate) async fn each_row(
        &self,
        sql: &str,
        parameters: &[Parameter],
        each: &mut (dyn FnMut(&Row) -> unisono_core::Result<()> + Send),
    ) -> Result<(), Failed> {
        let typed = parameters.iter().map(|p| (p, p.ty.clone()));
        let mut rows = pin!(self.client.query_typed_raw(sql, typed).await?);
        while let Some(row) = rows.try_next().await? {
            each(&row)?;
        }
        Ok(())
    }

    /// Prepares a statement that is used often, so that the next use of it is sent at once.
    pub(crate) async fn prepare(&self, sql: &str, parameters: &[Parameter]) -> Result<(), Failed> {
        match self.manner.prepared.load(Ordering::Relaxed) {
            true => self.prepared(sql, parameters).await.map(drop),
            false => Ok(()),
        }
    }

    /// Begins to copy rows into a table. Unless the sink is finished, the statement fails.
    pub(crate) async fn copy_in(&self, sql: &str) -> Result<CopyInSink<Bytes>, Failed> {
        let statement = self.prepared(sql, &[]).await?;
        Ok(self.client.copy_in(&statement).await?)
    }

    async fn prepared(&self, sql: &str, parameters: &[Parameter]) -> Result<Statement, Failed> {
        let lock = || self.statements.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(statement) = lock().get(sql) {
            return Ok(statement.clone());
        }
        let types: Vec<_> = parameters.iter().map(|p| p.ty.clone()).collect();
        let statement = self.client.prepare_typed(sql, &types).await?;
        let mut statements = lock();
        if statements.len() >= STATEMENTS_MAX {
            statements.clear();
        }
        statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    /// Asks the server to give up what the connection is doing, because nobody waits for it any more.
    pub(crate) async fn cancel(&self) {
        let token = self.client.cancel_token();
        // If this fails, the server notices the closed connection when it answers.
        let _ = match &self.manner.tls {
            Some(tls) => {
                tokio::time::timeout(CANCEL_TIMEOUT, token.cancel_query(tls.clone())).await
            }
            None => tokio::time::timeout(CANCEL_TIMEOUT, token.cancel_query(NoTls)).await,
        };
    }
}

fn typed(parameters: &[Parameter]) -> Vec<(&(dyn ToSql + Sync), Type)> {
    parameters.iter().map(|p| (p as &(dyn ToSql + Sync), p.ty.clone())).collect()
}

async fn reached(config: &tokio_postgres::Config, manner: &Manner) -> Result<Client, Failed> {
    let limit = manner.connect_timeout;
    let done = match &manner.tls {
        Some(tls) => tokio::time::timeout(limit, client(config, tls.clone())).await,
        None => tokio::time::timeout(limit, client(config, NoTls)).await,
    };
    done.unwrap_or_else(|_| Err(timed_out(limit, "connect_timeout")))
}

async fn client<T>(config: &tokio_postgres::Config, tls: T) -> Result<Client, Failed>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
{
    let (client, connection) = config.connect(tls).await?;
    #[expect(
        clippy::disallowed_methods,
        reason = "the driver's end of the connection; it ends when the session is dropped, as in a crash"
    )]
    tokio::spawn(async move {
        // Whoever waits for an answer gets the failure there.
        let _ = connection.await;
    });
    Ok(client)
}
