//! [`Client`]: the servers of a source, whatever their arrangement, and the scripts that run there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redis::{Cmd, RedisConnectionInfo, ServerErrorKind, Value};
use unisono_core::Result;

use crate::cluster::Cluster;
use crate::config::Settings;
use crate::error::{Trouble, closed};
use crate::node::{Dialer, Lane, Node, Target};
use crate::script::Call;
use crate::sentinel::Sentinels;
use crate::tls;

/// The servers of a source.
pub(crate) struct Client {
    servers: Servers,
    closed: AtomicBool,
}

enum Servers {
    /// One server, or the one that sentinels name.
    One(Arc<Node>),
    Many(Box<Cluster>),
}

impl Client {
    /// Prepares connections without making any.
    pub(crate) fn new(settings: &Settings) -> Result<Self> {
        let url = &settings.url;
        let tls = url.tls.then(|| tls::config(settings.tls_ca.as_deref())).transpose()?;
        let mut login = RedisConnectionInfo::default().set_db(url.database).set_skip_set_lib_name();
        if let Some(password) = &url.password {
            login = login.set_password(password);
        }
        if let Some(user) = &url.user {
            login = login.set_username(user);
        }
        let dialer = Dialer {
            tls,
            login,
            connect_timeout: settings.connect_timeout,
            request_timeout: settings.request_timeout,
        };
        let servers = match (&url.service, settings.cluster, url.hosts.first()) {
            (Some(service), _, _) => {
                let mut login = RedisConnectionInfo::default().set_skip_set_lib_name();
                if let Some(password) = &settings.sentinel_password {
                    login = login.set_password(password);
                }
                let hosts = url.hosts.clone();
                let sentinels = Sentinels { hosts, service: service.clone(), login };
                Servers::One(Arc::new(Node::new(Target::Primary(sentinels), dialer)))
            }
            (None, false, Some(host)) => {
                Servers::One(Arc::new(Node::new(Target::Fixed(host.clone()), dialer)))
            }
            (None, _, _) => Servers::Many(Box::new(Cluster::new(url.hosts.clone(), dialer))),
        };
        Ok(Client { servers, closed: AtomicBool::new(false) })
    }

    /// Runs a script that changes something. It was carried out or not when the connection is lost.
    pub(crate) async fn write(&self, lane: Lane, call: &Call) -> Result<Value> {
        self.run(lane, call).await.map_err(|trouble| trouble.into_error(true))
    }

    /// Runs a script that can be repeated without effect; once more if the connection broke.
    pub(crate) async fn read(&self, lane: Lane, call: &Call) -> Result<Value> {
        repeated(|| self.run(lane, call)).await
    }

    /// Sends a command that only reads to the server that has the slot of a key; once more if the connection broke.
    pub(crate) async fn look(&self, key: &[u8], command: &Cmd) -> Result<Value> {
        repeated(|| self.send(Lane::Quick, key, command)).await
    }

    /// Sends a command to the server that has the slot of a key.
    pub(crate) async fn command(&self, key: &[u8], command: &Cmd) -> Result<Value> {
        let sent = self.send(Lane::Quick, key, command).await;
        sent.map_err(|trouble| trouble.into_error(true))
    }

    /// The answer of every primary to a command.
    pub(crate) async fn everywhere(&self, command: &Cmd) -> Result<Vec<Value>> {
        self.check_open()?;
        let nodes = match &self.servers {
            Servers::One(node) => vec![Arc::clone(node)],
            Servers::Many(cluster) => cluster.primaries().await?,
        };
        let ask = |node: Arc<Node>| async move {
            repeated(|| node.send(Lane::Quick, command, false)).await
        };
        futures::future::try_join_all(nodes.into_iter().map(ask)).await
    }

    /// Lets go of the connections; from now on every call fails.
    pub(crate) async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        match &self.servers {
            Servers::One(node) => node.close().await,
            Servers::Many(cluster) => cluster.close().await,
        }
    }

    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(closed()) } else { Ok(()) }
    }

    async fn run(&self, lane: Lane, call: &Call) -> Result<Value, Trouble> {
        let key = call.keys.first().map(Vec::as_slice).unwrap_or_default();
        match self.send(lane, key, &call.script.command(true, call)).await {
            Err(Trouble::Refused(e))
                if e.kind() == redis::ErrorKind::Server(ServerErrorKind::NoScript) =>
            {
                self.send(lane, key, &call.script.command(false, call)).await
            }
            answer => answer,
        }
    }

    async fn send(&self, lane: Lane, key: &[u8], command: &Cmd) -> Result<Value, Trouble> {
        self.check_open().map_err(Trouble::Unsent)?;
        match &self.servers {
            Servers::One(node) => node.send(lane, command, false).await,
            Servers::Many(cluster) => cluster.send(lane, key, command).await,
        }
    }
}

/// What has no effect may be sent again.
async fn repeated<F: Future<Output = Result<Value, Trouble>>>(
    send: impl Fn() -> F,
) -> Result<Value> {
    let answer = match send().await {
        Err(Trouble::Lost(e)) if !e.is_timeout() => send().await,
        answer => answer,
    };
    answer.map_err(|trouble| trouble.into_error(false))
}
