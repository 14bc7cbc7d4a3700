//! [`Node`]: one server, over connections that are made when needed and replaced when they broke.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, RedisConnectionInfo, Value};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use unisono_core::{Error, Result};

use crate::error::{Trouble, no_login, slow_connection, unreachable};
use crate::sentinel::Sentinels;
use crate::url::Address;

/// How connections are made.
#[derive(Clone)]
pub(crate) struct Dialer {
    pub(crate) tls: Option<Arc<ClientConfig>>,
    pub(crate) login: RedisConnectionInfo,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
}

/// A connection that many requests share; it ends when the last of them has let go of it.
pub(crate) struct Link {
    connection: MultiplexedConnection,
    broken: Arc<AtomicBool>,
    /// Moves the bytes; aborted with the link.
    _driver: JoinSet<()>,
}

impl Dialer {
    /// Connects and logs in, within the connect timeout.
    pub(crate) async fn dial(&self, address: &Address) -> Result<Link> {
        let dialed = timeout(self.connect_timeout, self.dial_now(address)).await;
        dialed.unwrap_or_else(|_| Err(slow_connection(address)))
    }

    async fn dial_now(&self, address: &Address) -> Result<Link> {
        let failed = |e| unreachable(address, e);
        let socket =
            TcpStream::connect((address.host.as_str(), address.port)).await.map_err(failed)?;
        socket.set_nodelay(true).map_err(failed)?;
        let Some(tls) = &self.tls else { return self.log_in(address, socket).await };
        let name = ServerName::try_from(address.host.clone()).map_err(|_| {
            Error::invalid("the host of the url is not a name").with("address", address)
        })?;
        let stream = TlsConnector::from(Arc::clone(tls)).connect(name, socket).await;
        self.log_in(address, stream.map_err(failed)?).await
    }

    async fn log_in<S>(&self, address: &Address, stream: S) -> Result<Link>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(self.request_timeout));
        let made = MultiplexedConnection::new_with_config(&self.login, stream, config).await;
        let (connection, driver) = made.map_err(|e| no_login(address, e))?;
        let broken = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&broken);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            driver.await;
            ended.store(true, Ordering::Release);
        });
        Ok(Link { connection, broken, _driver: tasks })
    }
}

impl Link {
    /// Sends one command and waits for its answer, within the request timeout.
    pub(crate) async fn send(&self, command: &Cmd) -> Result<Value, Trouble> {
        command.query_async(&mut self.connection.clone()).await.map_err(Trouble::of)
    }

    /// Sends a command for a slot that this server is about to take over.
    async fn send_asking(&self, command: &Cmd) -> Result<Value, Trouble> {
        let mut both = redis::pipe();
        both.cmd("ASKING").ignore().add_command(command.clone());
        let answer: Result<(Value,), _> = both.query_async(&mut self.connection.clone()).await;
        answer.map(|(value,)| value).map_err(Trouble::of)
    }
}

/// Which server a node is.
pub(crate) enum Target {
    /// The one at this address.
    Fixed(Address),
    /// The one that sentinels name as the primary.
    Primary(Sentinels),
}

/// Large requests have a connection of their own, so that they do not hold up small ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// A key or a few.
    Quick,
    /// Batches and scans.
    Bulk,
}

/// One server.
pub(crate) struct Node {
    target: Target,
    dialer: Dialer,
    quick: Line,
    bulk: Line,
}

/// The connection of one lane.
#[derive(Default)]
struct Line {
    link: RwLock<Option<Arc<Link>>>,
    /// Held by the one who connects.
    dialing: Mutex<()>,
    /// How many attempts to connect have ended.
    attempts: AtomicU64,
}

impl Line {
    fn working(&self) -> Option<Arc<Link>> {
        let link = self.link.read().unwrap_or_else(PoisonError::into_inner);
        link.as_ref().filter(|link| !link.broken.load(Ordering::Acquire)).cloned()
    }

    fn replace(&self, link: Option<Arc<Link>>) {
        *self.link.write().unwrap_or_else(PoisonError::into_inner) = link;
    }

    /// Gives up a connection, unless it was replaced already.
    fn forget(&self, link: &Arc<Link>) {
        let mut current = self.link.write().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, link)) {
            *current = None;
        }
    }
}

impl Node {
    pub(crate) fn new(target: Target, dialer: Dialer) -> Self {
        Node { target, dialer, quick: Line::default(), bulk: Line::default() }
    }

    /// Sends a command. A connection that broke or gave no answer is not used again.
    pub(crate) async fn send(
        &self,
        lane: Lane,
        command: &Cmd,
        asking: bool,
    ) -> Result<Value, Trouble> {
        let link = self.link(lane).await.map_err(Trouble::Unsent)?;
        let answer = match asking {
            false => link.send(command).await,
            true => link.send_asking(command).await,
        };
        let stale = match &answer {
            Err(Trouble::Lost(_)) => true,
            // It was a primary when it was connected to: ask again who is.
            Err(Trouble::Refused(e)) => {
                e.kind() == redis::ErrorKind::Server(redis::ServerErrorKind::ReadOnly)
            }
            _ => false,
        };
        if stale {
            self.line(lane).forget(&link);
        }
        answer
    }

    fn line(&self, lane: Lane) -> &Line {
        match lane {
            Lane::Quick => &self.quick,
            Lane::Bulk => &self.bulk,
        }
    }

    /// The connection of a lane, made if there is none.
    ///
    /// Callers that wait for an attempt share its failure: none of them waits for a second one.
    async fn link(&self, lane: Lane) -> Result<Arc<Link>> {
        let line = self.line(lane);
        if let Some(link) = line.working() {
            return Ok(link);
        }
        let seen = line.attempts.load(Ordering::Acquire);
        let _one = line.dialing.lock().await;
        if let Some(link) = line.working() {
            return Ok(link);
        }
        if line.attempts.load(Ordering::Acquire) != seen {
            return Err(Error::new(
                unisono_core::ErrorKind::Unavailable,
                "the server could not be reached a moment ago",
            ));
        }
        let made = match &self.target {
            Target::Fixed(address) => self.dialer.dial(address).await,
            Target::Primary(sentinels) => sentinels.dial_primary(&self.dialer).await,
        };
        line.attempts.fetch_add(1, Ordering::Release);
        let link = Arc::new(made?);
        line.replace(Some(Arc::clone(&link)));
        Ok(link)
    }

    /// Lets go of the connections; requests under way end by themselves.
    pub(crate) async fn close(&self) {
        for line in [&self.quick, &self.bulk] {
            let _nobody_connects = line.dialing.lock().await;
            line.replace(None);
        }
    }
}
