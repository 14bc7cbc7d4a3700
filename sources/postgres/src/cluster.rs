//! [`Cluster`]: the servers of one URL, and which of them takes writes.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::future::join_all;
use unisono_core::{Error, ErrorKind};

use crate::config::Server;
use crate::error::{Class, Failed};
use crate::parameter::{integer, optional_text, text};
use crate::session::{Manner, Session, Use};

/// The oldest server that is spoken to.
const VERSION_MIN: i64 = 150_000;

/// Readable by every user, on a primary and on a standby. A checkpoint still says the old timeline for a moment after
/// a promotion, so that a primary is asked for the name of the file that it writes.
const ROLE: &str = "SELECT pg_is_in_recovery()::int::bigint, \
     CASE WHEN pg_is_in_recovery() THEN (SELECT timeline_id::bigint FROM pg_control_checkpoint()) \
     ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint END, \
     current_setting('server_version_num')::bigint, current_setting('server_encoding'), \
     current_setting('unisono.direct', true)";

/// What a server says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Whether it takes writes.
    pub(crate) writable: bool,
    /// Its timeline; raised by every promotion.
    pub(crate) timeline: i64,
    /// Whether no pooler is in between.
    pub(crate) direct: bool,
}

/// What is known of the primary.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// Index of its server.
    primary: Option<usize>,
    /// The highest timeline that was ever seen writable: a server of a lower one was deposed.
    timeline: i64,
    /// Raised whenever another server becomes the primary.
    generation: u64,
}

/// The servers of one URL.
pub(crate) struct Cluster {
    servers: Vec<Server>,
    known: Mutex<Known>,
}

impl Cluster {
    /// Nothing asked yet.
    pub(crate) fn new(servers: Vec<Server>) -> Self {
        Cluster { servers, known: Mutex::default() }
    }

    /// The generation whose sessions are of use.
    pub(crate) fn generation(&self) -> u64 {
        self.known().generation
    }

    /// Makes the next connection look for the primary anew.
    pub(crate) fn forget(&self) {
        self.known().primary = None;
    }

    /// Makes every open session be given up.
    pub(crate) fn renew(&self) {
        self.known().generation += 1;
    }

    /// A session with the primary.
    pub(crate) async fn connect(&self, manner: &Manner) -> Result<(Session, Standing), Failed> {
        let known = *self.known();
        if let Some(server) = known.primary.and_then(|n| self.servers.get(n))
            && let Ok((session, standing)) = open(server, manner, known.generation).await
            && standing.writable
            && standing.timeline >= known.timeline
        {
            return Ok((session, standing));
        }
        self.find(manner).await
    }

    /// Asks all servers at the same time, and takes the writable one of the highest timeline.
    pub(crate) async fn find(&self, manner: &Manner) -> Result<(Session, Standing), Failed> {
        let asked = self.servers.iter().map(|server| open(server, manner, 0));
        let mut best: Option<(usize, Session, Standing)> = None;
        let mut standbys = 0;
        let mut failed: Option<Failed> = None;
        for (n, answer) in join_all(asked).await.into_iter().enumerate() {
            match answer {
                Ok((_, standing)) if !standing.writable => standbys += 1,
                Ok((session, standing)) => {
                    if best.as_ref().is_none_or(|(_, _, b)| standing.timeline > b.timeline) {
                        best = Some((n, session, standing));
                    }
                }
                // What is wrong with the configuration says more than a server that is away.
                Err(error) => {
                    if failed.as_ref().is_none_or(|f| f.class == Class::Lost) {
                        failed = Some(error);
                    }
                }
            }
        }
        let Some((n, mut session, standing)) = best else {
            self.forget();
            return Err(no_primary(standbys, failed));
        };
        let mut known = self.known();
        if standing.timeline < known.timeline {
            return Err(deposed(&session.address, standing, known.timeline));
        }
        if known.primary != Some(n) || known.timeline != standing.timeline {
            known.generation += 1;
        }
        (known.primary, known.timeline) = (Some(n), standing.timeline);
        session.generation = known.generation;
        Ok((session, standing))
    }

    /// Whether there is more than one server, so that another may have become the primary unnoticed.
    pub(crate) fn has_several(&self) -> bool {
        self.servers.len() > 1
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session with one server, and what that says of itself.
pub(crate) async fn open(
    server: &Server,
    manner: &Manner,
    generation: u64,
) -> Result<(Session, Standing), Failed> {
    let session = Session::connect(server, manner, generation).await?;
    let asked = tokio::time::timeout(manner.connect_timeout, standing(&session)).await;
    let standing = asked
        .unwrap_or_else(|_| Err(crate::error::timed_out(manner.connect_timeout, "connect_timeout")))
        .map_err(|failed| failed.with_server(&server.address))?;
    if !standing.direct {
        manner.prepared.store(false, Ordering::Relaxed);
    }
    Ok((session, standing))
}

/// What a server says of itself; fails for one that is too old or does not keep Unicode.
async fn standing(session: &Session) -> Result<Standing, Failed> {
    let rows = session.rows(Use::Once, ROLE, &[]).await.map_err(|failed| {
        // Even these functions are younger than the server.
        let lacks = failed.error.detail("sqlstate") == Some("42883");
        if lacks { too_old("9").into() } else { failed }
    })?;
    let row = rows.first().ok_or_else(|| Error::internal("the server did not answer"))?;
    let (version, encoding) = (integer(row, 2)?, text(row, 3)?);
    if version < VERSION_MIN {
        return Err(too_old(version / 10_000).into());
    }
    if encoding != "UTF8" {
        return Err(Error::new(ErrorKind::Unsupported, "the database does not keep Unicode")
            .with("encoding", encoding)
            .hint("create a database with ENCODING 'UTF8'")
            .into());
    }
    Ok(Standing {
        writable: integer(row, 0)? == 0,
        timeline: integer(row, 1)?,
        direct: optional_text(row, 4)? == Some("on"),
    })
}

fn too_old(version: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Unsupported, "the server is older than PostgreSQL 15")
        .with("version", version)
        .hint("upgrade the server: use PostgreSQL 15 or newer")
}

fn no_primary(standbys: usize, failed: Option<Failed>) -> Failed {
    match failed {
        Some(failed) if standbys == 0 || failed.class != Class::Lost => failed,
        failed => {
            let mut error = Error::new(ErrorKind::NotPrimary, "no server takes writes")
                .with("standbys", standbys)
                .hint("give the hosts of all members of the cluster in the url; if one is just being promoted, wait");
            if let Some(failed) = failed {
                error = error.caused_by(failed.error);
            }
            Failed { class: Class::Standby, error }
        }
    }
}

fn deposed(address: &str, standing: Standing, highest: i64) -> Failed {
    let error = Error::new(ErrorKind::NotPrimary, "the only writable server was deposed")
        .with("server", address)
        .with("timeline", standing.timeline)
        .with("newest_timeline", highest)
        .hint("bring the newest primary back, or restart to accept what is there");
    Failed { class: Class::Standby, error }
}
