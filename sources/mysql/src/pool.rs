//! Connections to one server: opened when needed, kept while idle, given up after every failure.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mysql_async::{Opts, Row};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use unisono_core::{Error, ErrorKind, Result};

use crate::connection::{Access, Connection};
use crate::error::{Class, Failed, timed_out};

/// The rows of each result of an exchange.
pub(crate) type Sets = Vec<Vec<Row>>;

/// Connections to one server for one purpose.
pub(crate) struct Pool {
    opts: Opts,
    access: Access,
    connect_timeout: Duration,
    request_timeout: Duration,
    room: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
}

/// A connection in use. Unless it is [released](Session::release) it is closed, which undoes its transaction: so do
/// a failure and a caller that no longer waits.
pub(crate) struct Session {
    connection: Connection,
    pool: Arc<Pool>,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    /// A pool without connections.
    pub(crate) fn new(
        opts: Opts,
        access: Access,
        size: usize,
        connect_timeout: Duration,
        request_timeout: Duration,
    ) -> Arc<Self> {
        let room = Arc::new(Semaphore::new(size));
        Arc::new(Pool {
            opts,
            access,
            connect_timeout,
            request_timeout,
            room,
            idle: Mutex::default(),
        })
    }

    /// A connection on which statements were run that may be repeated: those that begin a transaction, or read.
    ///
    /// A kept connection may have died in the meantime; then another is taken, so that callers do not notice that the
    /// server was away.
    pub(crate) async fn begin(self: &Arc<Self>, sql: &str) -> Result<(Session, Sets), Failed> {
        let waiting = Arc::clone(&self.room).acquire_owned();
        let permit = match timeout(self.request_timeout, waiting).await {
            Ok(permit) => permit.map_err(|_| closed())?,
            Err(_) => {
                let failed = timed_out(self.request_timeout, "request_timeout");
                let error = failed.error.hint("all connections are in use: raise connections");
                return Err(Failed { error, ..failed });
            }
        };
        loop {
            let kept = lock(&self.idle).pop();
            let is_kept = kept.is_some();
            let mut connection = match kept {
                Some(connection) => connection,
                None => self.open().await?,
            };
            match connection.run(sql).await {
                Err(failed) if is_kept && failed.class == Class::Lost => {}
                Err(failed) => return Err(failed),
                Ok(sets) => {
                    let pool = Arc::clone(self);
                    return Ok((Session { connection, pool, _permit: permit }, sets));
                }
            }
        }
    }

    /// Runs statements that may be repeated and leave nothing open.
    pub(crate) async fn run(self: &Arc<Self>, sql: &str) -> Result<Sets, Failed> {
        let (session, sets) = self.begin(sql).await?;
        session.release();
        Ok(sets)
    }

    /// Takes no more work and closes what is idle.
    pub(crate) fn close(&self) {
        self.room.close();
        self.forget_idle();
    }

    /// Closes what is idle, so that further work opens new connections.
    pub(crate) fn forget_idle(&self) {
        lock(&self.idle).clear();
    }

    async fn open(&self) -> Result<Connection, Failed> {
        Connection::open(&self.opts, self.access, self.connect_timeout, self.request_timeout).await
    }
}

impl Session {
    /// The connection.
    pub(crate) fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Runs statements.
    pub(crate) async fn run(&mut self, sql: &str) -> Result<Sets, Failed> {
        self.connection.run(sql).await
    }

    /// Gives the connection back. No transaction may be open.
    pub(crate) fn release(self) {
        let mut idle = lock(&self.pool.idle);
        if !self.pool.room.is_closed() {
            idle.push(self.connection);
        }
    }

    /// Ends a transaction that has only read, and gives the connection back.
    pub(crate) async fn end(mut self) -> Result<(), Failed> {
        self.run("COMMIT").await?;
        self.release();
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "the source is closed")
}
