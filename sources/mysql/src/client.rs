//! An open source: its connections, its prepared tables, and the choice of the server that answers a read.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use unisono_core::source::{Binding, Checkpoint};
use unisono_core::{Error, ErrorKind, Position, Result, Role, Uuid};

use crate::capture::{self, Reason};
use crate::codec::{number_of, text_of};
use crate::config::Settings;
use crate::connection::{ATTEMPTS, Access, Server};
use crate::error::{Class, Failed};
use crate::literal;
use crate::pool::{Pool, Session, Sets};
use crate::schema;
use crate::table::Table;

/// The prepared tables by entity name.
pub(crate) type Tables = HashMap<Arc<str>, Arc<Table>>;

/// Connections that write: the commit under way, a batch, and what the engine keeps of its own.
const WRITERS: usize = 4;

/// A snapshot that is open on a server.
pub(crate) struct Snapshot {
    /// The session, in a transaction that reads.
    pub(crate) session: Session,
    /// The position up to which the snapshot holds everything.
    pub(crate) position: Position,
    /// Whether rows may be newer than their versions: what others have written waits to be sequenced.
    lags: bool,
    /// The rows of the statements that were asked with it.
    pub(crate) sets: Sets,
}

/// An open source.
pub(crate) struct Client {
    name: Arc<str>,
    /// Tells this process's turns at the sequencer from those of others.
    holder: Uuid,
    server: Server,
    writer: Arc<Pool>,
    reader: Arc<Pool>,
    replicas: Vec<Arc<Pool>>,
    turn: AtomicUsize,
    /// The newest position of the log that this process has heard of.
    seen: AtomicU64,
    tables: RwLock<Arc<Tables>>,
}

impl Client {
    /// Connects to the primary. Replicas are looked for when they are asked.
    pub(crate) async fn open(name: &str, settings: Settings) -> Result<Self> {
        let pool = |opts, access, size| {
            Pool::new(opts, access, size, settings.connect_timeout, settings.request_timeout)
        };
        let writer = pool(settings.primary.clone(), Access::Write, WRITERS);
        let reader = pool(settings.primary.clone(), Access::Read, settings.connections);
        let replica = |opts| pool(opts, Access::Replica, settings.connections);
        let replicas = settings.replicas.iter().cloned().map(replica).collect();
        let (mut session, _) =
            writer.begin("DO 1").await.map_err(|f| Error::from(f).on("open").at(name))?;
        let server = session.connection().server.clone();
        session.release();
        Ok(Client {
            name: name.into(),
            holder: Uuid::now_v7(),
            server,
            writer,
            reader,
            replicas,
            turn: AtomicUsize::new(0),
            seen: AtomicU64::new(0),
            tables: RwLock::default(),
        })
    }

    /// The source's name.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// As whom this process holds the lease of the sequencer.
    pub(crate) fn holder(&self) -> Uuid {
        self.holder
    }

    /// The engine that was found when the source was opened.
    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// Connections that write.
    pub(crate) fn writer(&self) -> &Arc<Pool> {
        &self.writer
    }

    /// Connections that read from the primary.
    pub(crate) fn reader(&self) -> &Arc<Pool> {
        &self.reader
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

    /// Makes the database match the bindings.
    pub(crate) async fn prepare(&self, bindings: &[Binding]) -> Result<Vec<String>, Failed> {
        let (tables, notes) = schema::prepare(&self.writer, bindings).await?;
        *self.tables.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(tables);
        Ok(notes)
    }

    /// Makes the tables of followers again that somebody dropped; a truth that is gone must not begin another log
    /// unnoticed.
    pub(crate) async fn restore(&self, failed: Failed) -> Result<(), Failed> {
        let tables = self.tables();
        if failed.class != Class::Gone || tables.values().any(|t| t.role == Role::Truth) {
            return Err(failed);
        }
        // If the database itself is gone, a new connection makes it.
        for pool in [&self.writer, &self.reader] {
            pool.forget_idle();
        }
        let bindings: Vec<_> = tables.values().map(|t| t.binding()).collect();
        self.prepare(&bindings).await.map(drop)
    }

    /// Tells of a position that the log has reached: reads that follow must not miss it.
    pub(crate) fn heard_of(&self, position: Position) {
        self.seen.fetch_max(position.as_u64(), Ordering::AcqRel);
    }

    /// A snapshot of the server that answers, with the rows of statements on a table, which may be none. What others have
    /// written to a captured table gets its version first.
    pub(crate) async fn snapshot(&self, table: &Table, sql: &str) -> Result<Snapshot, Failed> {
        let snapshot = self.current(table, sql).await?;
        if !snapshot.lags {
            return Ok(snapshot);
        }
        // The engine goes on with what is there: a busy program can always be faster.
        match self.sequence(Reason::Read).await? {
            true => {
                snapshot.session.end().await?;
                self.current(table, sql).await
            }
            false => Ok(snapshot),
        }
    }

    async fn current(&self, table: &Table, sql: &str) -> Result<Snapshot, Failed> {
        let sql = format!("START TRANSACTION READ ONLY; {}{sql}", position_sql(table));
        if table.role == Role::Truth && !self.replicas.is_empty() {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            if let Some(replica) = self.replicas.get(turn % self.replicas.len())
                && let Ok(snapshot) = snapshot(replica, table, &sql).await
            {
                let is_current = snapshot.position.as_u64() >= self.seen.load(Ordering::Acquire);
                if is_current && !snapshot.lags {
                    return Ok(snapshot);
                }
                // Behind what this process has told its callers; the answer is thrown away.
                let _ = snapshot.session.end().await;
            }
        }
        let mut attempt = 1;
        loop {
            match snapshot(&self.reader, table, &sql).await {
                // Somebody changed or emptied the table in this moment.
                Err(failed)
                    if failed.class == Class::Conflict
                        && !failed.is_lock_wait()
                        && attempt < ATTEMPTS =>
                {
                    attempt += 1;
                }
                snapshot => return snapshot,
            }
        }
    }

    /// Lets go of everything.
    pub(crate) fn close(&self) {
        for pool in [&self.writer, &self.reader].into_iter().chain(&self.replicas) {
            pool.close();
        }
    }
}

async fn snapshot(pool: &Arc<Pool>, table: &Table, sql: &str) -> Result<Snapshot, Failed> {
    let (session, mut sets) = pool.begin(sql).await?;
    let first = if sets.is_empty() { Vec::new() } else { sets.remove(0) };
    let cell = first.first().and_then(|row| row.as_ref(0));
    let position = match (table.role, cell) {
        (Role::Truth, Some(cell)) => Position::from_i64(number_of(cell)?.unwrap_or_default())?,
        (Role::Truth, None) => return Err(head_missing().into()),
        // While the first copy is being made, records are missing that are older than the checkpoint.
        (_, Some(cell)) => checkpoint_of(text_of(cell)?)?
            .filter(|c| c.backfill.is_none())
            .map_or(Position::ZERO, |c| c.position),
        (_, None) => Position::ZERO,
    };
    let lags = match first.first().and_then(|row| row.as_ref(1)) {
        Some(cell) => number_of(cell)? == Some(1),
        None => false,
    };
    Ok(Snapshot { session, position, lags, sets })
}

/// Asks for what says up to where the table holds everything.
fn position_sql(table: &Table) -> String {
    match table.role {
        Role::Truth if table.capture.is_some() => format!(
            "SELECT `position`, {} FROM unisono_head WHERE `only` = 1; ",
            capture::waiting(table.entity.name())
        ),
        Role::Truth => "SELECT `position` FROM unisono_head WHERE `only` = 1; ".into(),
        _ => format!("{}; ", checkpoint_sql(table.entity.name())),
    }
}

/// Asks for the stored checkpoint of an entity.
pub(crate) fn checkpoint_sql(entity: &str) -> String {
    format!(
        "SELECT `checkpoint` FROM unisono_checkpoints WHERE `entity` = {}",
        literal::text(entity)
    )
}

/// A checkpoint from its stored text.
pub(crate) fn checkpoint_of(text: Option<&str>) -> Result<Option<Checkpoint>> {
    let parse = |text| {
        serde_json::from_str(text).map_err(|e| {
            Error::new(ErrorKind::Corrupt, "the stored checkpoint cannot be decoded").caused_by(e)
        })
    };
    text.map(parse).transpose()
}

/// The error of a log without its head.
pub(crate) fn head_missing() -> Error {
    Error::new(ErrorKind::Corrupt, "the head row of the log is missing")
        .hint("restore the database from a backup")
}
