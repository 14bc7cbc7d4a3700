//! [`Client`]: the connections of an open source, to its primary and to its replicas.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::future::BoxFuture;
use unisono_core::clock::Clock;
use unisono_core::source::Binding;
use unisono_core::{Error, Result, Role};

use crate::cluster::{Cluster, Standing, open};
use crate::config::{Server, Settings};
use crate::error::{Class, Failed, closed, timed_out};
use crate::lanes::{Lane, Lanes};
use crate::life::Life;
use crate::pool::{Lease, Pool};
use crate::session::{Manner, Session};
use crate::table::Table;
use crate::{schema, tls};

/// How long a replica that failed is not asked.
const REST: Duration = Duration::from_secs(1);

/// The prepared tables by entity name.
pub(crate) type Tables = HashMap<Arc<str>, Arc<Table>>;

/// A streaming replica.
struct Replica {
    server: Server,
    pool: Pool,
    /// Not asked before this time, in microseconds.
    rests_until: AtomicI64,
}

/// The connections of an open source.
pub(crate) struct Client {
    name: Arc<str>,
    settings: Settings,
    manner: Manner,
    clock: Arc<dyn Clock>,
    cluster: Cluster,
    pool: Pool,
    lanes: Lanes,
    replicas: Vec<Replica>,
    next_replica: AtomicUsize,
    /// The one session that commits: batches of one process never wait for each other inside the server.
    pub(crate) writer: tokio::sync::Mutex<Option<Session>>,
    tables: RwLock<Arc<Tables>>,
    life: Life,
    closed: AtomicBool,
}

impl Client {
    /// Connects to the primary.
    pub(crate) async fn open(
        name: &str,
        settings: Settings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let manner = Manner {
            prepared: Arc::new(AtomicBool::new(settings.prepared)),
            pipelining: settings.pipelining,
            tls: settings.tls_ca.as_deref().map(tls::connector).transpose()?,
            connect_timeout: settings.connect_timeout,
        };
        let replica = |server: &Server| Replica {
            server: server.clone(),
            pool: Pool::new(settings.pool),
            rests_until: AtomicI64::new(i64::MIN),
        };
        let client = Client {
            name: name.into(),
            cluster: Cluster::new(settings.servers.clone()),
            pool: Pool::new(settings.pool),
            lanes: Lanes::new(settings.pool),
            replicas: settings.replicas.iter().map(replica).collect(),
            next_replica: AtomicUsize::new(0),
            writer: tokio::sync::Mutex::new(None),
            tables: RwLock::default(),
            life: Life::default(),
            closed: AtomicBool::new(false),
            manner,
            clock,
            settings,
        };
        client.lease().await?.keep();
        Ok(client)
    }

    /// The source's name.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The schema of all tables.
    pub(crate) fn schema(&self) -> &str {
        &self.settings.schema
    }

    /// The longest time of a call.
    pub(crate) fn request_timeout(&self) -> Duration {
        self.settings.request_timeout
    }

    /// The prepared tables.
    pub(crate) fn tables(&self) -> Arc<Tables> {
        Arc::clone(&self.tables.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The table of an entity.
    pub(crate) fn table(&self, entity: &str) -> Result<Arc<Table>> {
        self.tables().get(entity).cloned().ok_or_else(|| {
            Error::internal("the entity was not prepared for this source").at(&self.name).of(entity)
        })
    }

    /// Makes the tables match the bindings; answers what was done.
    pub(crate) async fn prepare(&self, bindings: &[Binding]) -> Result<Vec<String>, Failed> {
        let prepared = self
            .primary(|session| {
                Box::pin(async move { schema::prepare(&session, self.schema(), bindings).await })
            })
            .await?;
        let (tables, notes, bounds) = prepared;
        if tables.values().any(|table| table.role == Role::Truth) {
            self.life.begin(&bounds);
        }
        if !notes.is_empty() {
            // What was prepared on a session can be of tables that are no more.
            self.cluster.renew();
        }
        *self.tables.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(tables);
        Ok(notes)
    }

    /// Makes the tables of a source that only follows again, after they were deleted from outside. A truth whose
    /// tables are gone must not begin another log unnoticed.
    pub(crate) async fn make_again(&self, failed: Failed) -> Result<(), Failed> {
        let tables = self.tables();
        if failed.class != Class::Gone || tables.values().any(|t| t.role == Role::Truth) {
            return Err(failed);
        }
        let bindings: Vec<_> = tables.values().map(|t| t.binding()).collect();
        self.prepare(&bindings).await.map(drop)
    }

    /// Runs work on the primary. Work that changes nothing, or that can be repeated, is done again once if the
    /// connection turns out to be of no use.
    pub(crate) async fn primary<'w, T>(
        &self,
        work: impl Fn(Arc<Session>) -> BoxFuture<'w, Result<T, Failed>> + Send + Sync,
    ) -> Result<T, Failed> {
        self.repeated(|| self.once(&work, None)).await
    }

    /// Runs one short statement, no part of a transaction, on the primary: over a connection that others share at the
    /// same time, unless a pooler may be in between.
    pub(crate) async fn primary_shared<'w, T>(
        &self,
        work: impl Fn(Arc<Session>) -> BoxFuture<'w, Result<T, Failed>> + Send + Sync,
    ) -> Result<T, Failed> {
        let shares = self.manner.pipelining && self.manner.prepared.load(Ordering::Relaxed);
        let lane = self.lanes.next().filter(|_| shares);
        self.repeated(|| self.once(&work, lane)).await
    }

    async fn repeated<T, F>(&self, once: impl Fn() -> F) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, Failed>>,
    {
        match once().await {
            Err(failed) if self.is_worth_repeating(&failed) => {
                once().await.inspect_err(|failed| _ = self.is_worth_repeating(failed))
            }
            done => done,
        }
    }

    /// Takes note of a failure; answers whether another connection can do better.
    pub(crate) fn is_worth_repeating(&self, failed: &Failed) -> bool {
        match failed.class {
            Class::Lost | Class::Standby => {
                self.cluster.forget();
                // The time of the caller is over.
                failed.error.detail("request_timeout").is_none()
            }
            Class::Unprepared => self.manner.prepared.swap(false, Ordering::Relaxed),
            Class::Conflict => true,
            Class::Refused | Class::Gone | Class::Other => false,
        }
    }

    /// Runs work over the connection of a lane, or over one that is lent to it alone, which the lane then has if it had none.
    async fn once<'w, T>(
        &self,
        work: impl Fn(Arc<Session>) -> BoxFuture<'w, Result<T, Failed>> + Send + Sync,
        lane: Option<&Lane>,
    ) -> Result<T, Failed> {
        self.check_open()?;
        let limit = self.settings.request_timeout;
        if let Some(ride) = lane.and_then(|lane| lane.ride(&*self.clock, |s| self.is_current(s))) {
            let done = tokio::time::timeout(limit, work(Arc::clone(ride.session()))).await;
            return match done {
                Ok(done) => ride.end(done),
                Err(_) => ride.end(Err(timed_out(limit, "request_timeout"))),
            };
        }
        let leased = tokio::time::timeout(limit, self.lease()).await;
        let lease = leased.unwrap_or_else(|_| Err(timed_out(limit, "request_timeout")))?;
        self.on(lease, work, lane).await
    }

    /// Runs work on a leased session, which goes to the lane or back to its pool if it is of further use.
    async fn on<'w, T>(
        &self,
        lease: Lease<'_>,
        work: impl Fn(Arc<Session>) -> BoxFuture<'w, Result<T, Failed>> + Send + Sync,
        lane: Option<&Lane>,
    ) -> Result<T, Failed> {
        let limit = self.settings.request_timeout;
        match tokio::time::timeout(limit, work(Arc::clone(lease.session()))).await {
            Ok(Ok(done)) => {
                match lane {
                    Some(lane) => lane.keep(lease),
                    None => lease.keep(),
                }
                Ok(done)
            }
            Ok(Err(failed)) => Err(failed.with_server(&lease.session().address)),
            Err(_) => {
                lease.session().cancel().await;
                Err(timed_out(limit, "request_timeout"))
            }
        }
    }

    async fn lease(&self) -> Result<Lease<'_>, Failed> {
        self.check_open()?;
        let room = self.pool.room().await?;
        let session = match self.pool.take(self.cluster.generation()) {
            Some(session) => session,
            None => Arc::new(self.connect().await?.0),
        };
        Ok(self.pool.lend(session, room))
    }

    /// A fresh session with the primary, and what that says of itself.
    pub(crate) async fn connect(&self) -> Result<(Session, Standing), Failed> {
        self.check_open()?;
        let (session, standing) = self.cluster.connect(&self.manner).await?;
        self.life.check_session(&session, self.schema()).await?;
        Ok((session, standing))
    }

    /// Has every connection made anew, and asked for the log that it leads to.
    pub(crate) fn distrust(&self) {
        self.cluster.renew();
    }

    /// What is known of the log.
    pub(crate) fn life(&self) -> &Life {
        &self.life
    }

    /// Looks whether another server has become the primary.
    pub(crate) async fn look_around(&self) -> Result<(), Failed> {
        if self.cluster.has_several() {
            self.cluster.find(&self.manner).await?;
        }
        Ok(())
    }

    /// Whether a session is still one with the primary.
    pub(crate) fn is_current(&self, session: &Session) -> bool {
        !session.is_closed() && session.generation == self.cluster.generation()
    }

    /// How many replicas there are.
    pub(crate) fn replica_count(&self) -> usize {
        self.replicas.len()
    }

    /// Runs work on a replica that is up, or says that there is none. A replica that fails is left alone for a moment.
    pub(crate) async fn replica<'w, T>(
        &self,
        work: impl Fn(Arc<Session>) -> BoxFuture<'w, Result<T, Failed>> + Send + Sync,
    ) -> Option<T> {
        let first = self.next_replica.fetch_add(1, Ordering::Relaxed);
        for n in 0..self.replicas.len() {
            let replica = self.replicas.get((first.wrapping_add(n)) % self.replicas.len())?;
            if replica.rests_until.load(Ordering::Relaxed) > self.clock.now().micros() {
                continue;
            }
            let Some(room) = replica.pool.room_now() else { continue };
            let session = match replica.pool.take(0) {
                Some(session) => Ok(session),
                None => open(&replica.server, &self.manner, 0)
                    .await
                    .map(|(session, _)| Arc::new(session)),
            };
            let done = match session {
                Ok(session) => self.on(replica.pool.lend(session, room), &work, None).await,
                Err(failed) => Err(failed),
            };
            match done {
                Ok(done) => return Some(done),
                Err(failed) => {
                    tracing::debug!(source = %self.name, replica = replica.server.address, error = %failed.error, "a replica failed");
                    let until = self.clock.now().plus(REST).micros();
                    replica.rests_until.store(until, Ordering::Relaxed);
                }
            }
        }
        None
    }

    /// Asks every replica what it says of itself; errors are part of the answer.
    pub(crate) async fn replicas<'w, T>(
        &self,
        work: impl Fn(Arc<Session>) -> BoxFuture<'w, Result<T, Failed>> + Send + Sync,
    ) -> Vec<(&str, Result<T, Failed>)> {
        let work = &work;
        let ask = |replica: &'_ Replica| {
            let server = replica.server.clone();
            async move {
                let (session, _) = open(&server, &self.manner, 0).await?;
                let limit = self.settings.connect_timeout;
                let asked = tokio::time::timeout(limit, work(Arc::new(session))).await;
                asked.unwrap_or_else(|_| Err(timed_out(limit, "connect_timeout")))
            }
        };
        let answers = futures::future::join_all(self.replicas.iter().map(ask)).await;
        self.replicas.iter().map(|r| r.server.address.as_str()).zip(answers).collect()
    }

    fn check_open(&self) -> Result<(), Failed> {
        if self.closed.load(Ordering::Acquire) { Err(closed().into()) } else { Ok(()) }
    }

    /// Ends every connection; what is under way is still answered.
    pub(crate) async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.cluster.renew();
        self.pool.clear();
        self.lanes.clear();
        for replica in &self.replicas {
            replica.pool.clear();
        }
        *self.writer.lock().await = None;
    }
}
