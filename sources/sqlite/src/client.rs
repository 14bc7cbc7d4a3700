//! The connections: one writes, a few read. Callers send their work to the threads that own them and await the answer;
//! a caller that finds the writer idle does its work in place, which saves two wake-ups of a thread.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use rusqlite::Connection;
use tokio::runtime::RuntimeFlavor;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use unisono_core::{Effect, Error, ErrorKind, Result, Role};

use crate::config::Settings;
use crate::connection::{self, Access, Checkpointer};
use crate::error::translate;
use crate::query::functions::Tests;
use crate::schema;
use crate::table::Table;
use crate::truth::mark::Mark;

/// Work that waits for one lane; further callers wait outside.
const QUEUE_JOBS_MAX: usize = 1024;
/// After this long without work the writer tidies up its log.
const IDLE: Duration = Duration::from_millis(200);

/// The prepared tables by entity name.
pub(crate) type Tables = HashMap<Arc<str>, Arc<Table>>;

/// A reader's connection with the tests that its current statement calls.
pub(crate) struct Session {
    pub(crate) connection: Connection,
    pub(crate) tests: Tests,
}

type Job<C> = Box<dyn FnOnce(Result<&mut C>) + Send>;

/// Work with the permit that bounds how much of it waits.
type Queued<C> = (Job<C>, OwnedSemaphorePermit);

/// Work for the threads of one lane, bounded by permits that travel with it.
struct Lane<C> {
    sender: Mutex<Option<Sender<Queued<C>>>>,
    room: Arc<Semaphore>,
}

impl<C> Lane<C> {
    fn new() -> (Self, Receiver<Queued<C>>) {
        let (sender, receiver) = channel();
        (
            Lane {
                sender: Mutex::new(Some(sender)),
                room: Arc::new(Semaphore::new(QUEUE_JOBS_MAX)),
            },
            receiver,
        )
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut C) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let permit = Arc::clone(&self.room).acquire_owned().await.map_err(|_| closed())?;
        let (answer, answered) = oneshot::channel();
        let job: Job<C> = Box::new(move |connection| {
            // A caller that no longer waits does not want the answer.
            let _ = answer.send(connection.and_then(work));
        });
        let sent = lock(&self.sender).as_ref().map(|sender| sender.send((job, permit)));
        if !matches!(sent, Some(Ok(()))) {
            return Err(closed());
        }
        answered.await.unwrap_or_else(|_| {
            Err(Error::internal("the work ended without an answer").effect(Effect::Unknown))
        })
    }

    /// Whether it is open and nothing waits for it.
    fn is_idle(&self) -> bool {
        self.room.available_permits() == QUEUE_JOBS_MAX && !self.room.is_closed()
    }

    /// Has a thread look around without anything to do; if there is no room, it has enough to do.
    fn wake(&self) {
        let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else { return };
        if let Some(sender) = lock(&self.sender).as_ref() {
            // Fails for a thread that has ended, which has nothing left to see to.
            let _ = sender.send((Box::new(|_| {}), permit));
        }
    }

    /// Takes no more work; what is queued is still done.
    fn close(&self) {
        self.room.close();
        lock(&self.sender).take();
    }
}

/// What the threads share.
struct Shared {
    settings: Settings,
    tables: RwLock<Arc<Tables>>,
    mark: Arc<Mark>,
    /// Whether acknowledged writes may be in the file and nowhere else.
    journal: AtomicBool,
    /// One for each reader thread; emptied by the writer when the file was replaced.
    sessions: Vec<Mutex<Option<Session>>>,
}

/// An open database.
pub(crate) struct Client {
    name: Arc<str>,
    writer: Arc<Mutex<Writer>>,
    writes: Lane<Connection>,
    readers: Lane<Session>,
    shared: Arc<Shared>,
    /// Resolve when the threads have ended.
    ended: Mutex<Vec<oneshot::Receiver<()>>>,
}

impl Client {
    /// Starts the threads and opens the database.
    pub(crate) async fn open(name: &str, settings: Settings) -> Result<Self> {
        let (writes, write_jobs) = Lane::new();
        let (readers, reader_jobs) = Lane::new();
        let sessions = (0..settings.readers).map(|_| Mutex::new(None)).collect();
        let mark = Arc::new(Mark::of(&settings.path));
        let (tables, journal) = (RwLock::default(), AtomicBool::new(false));
        let shared = Arc::new(Shared { settings, tables, mark, journal, sessions });
        let mut ended = Vec::new();
        let writer = Arc::new(Mutex::new(Writer::new(Arc::clone(&shared))));
        let for_thread = Arc::clone(&writer);
        ended.push(spawn(format!("{name} writer"), move || write_loop(&for_thread, &write_jobs))?);
        let reader_jobs = Arc::new(Mutex::new(reader_jobs));
        for slot in 0..shared.settings.readers {
            let (shared, jobs) = (Arc::clone(&shared), Arc::clone(&reader_jobs));
            ended.push(spawn(format!("{name} reader {slot}"), move || {
                read_loop(&shared, slot, &jobs)
            })?);
        }
        let ended = Mutex::new(ended);
        let client = Client { name: name.into(), writer, writes, readers, shared, ended };
        client.write("open", |_| Ok(())).await?;
        Ok(client)
    }

    /// The source's name.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// How far the log has come.
    pub(crate) fn mark(&self) -> Arc<Mark> {
        Arc::clone(&self.shared.mark)
    }

    /// How long a write waits for another process.
    pub(crate) fn busy_timeout(&self) -> Duration {
        self.shared.settings.busy_timeout
    }

    /// Runs work on the writer's connection.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&mut Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let done = match self.write_in_place(work) {
            Ok(result) => result,
            Err(work) => self.writes.run(work).await,
        };
        done.map_err(|e| e.on(operation).at(&self.name))
    }

    /// Does work on this thread if the writer is idle and the runtime can do without the thread meanwhile; gives the
    /// work back otherwise.
    #[expect(
        clippy::disallowed_methods,
        reason = "a commit is shorter than the two wake-ups of a thread that it saves, and the runtime replaces the thread"
    )]
    fn write_in_place<T, W>(&self, work: W) -> Result<Result<T>, W>
    where
        W: FnOnce(&mut Connection) -> Result<T>,
    {
        let flavor = tokio::runtime::Handle::try_current().map(|handle| handle.runtime_flavor());
        if !matches!(flavor, Ok(RuntimeFlavor::MultiThread)) {
            return Err(work);
        }
        let Ok(mut writer) = self.writer.try_lock() else { return Err(work) };
        // Looked at with the lock held: a thread that ends closes the connection after it.
        if !self.writes.is_idle() {
            return Err(work);
        }
        let (result, untidy) = tokio::task::block_in_place(|| {
            let result = writer.run(|connection| connection.and_then(work));
            (result, writer.became_untidy())
        });
        drop(writer);
        if untidy {
            self.writes.wake();
        }
        Ok(result
            .unwrap_or_else(|| Err(Error::internal("the work panicked").effect(Effect::Unknown))))
    }

    /// Runs work on a reader's connection, inside one transaction: all of it sees one snapshot.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Session) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let in_snapshot = move |session: &mut Session| {
            let snapshot = session.connection.unchecked_transaction().map_err(translate)?;
            let answer = work(session);
            snapshot.finish().map_err(translate)?;
            answer
        };
        self.readers
            .run(in_snapshot)
            .await
            .map_err(|e| e.on(operation).at(&self.name).effect(Effect::None))
    }

    /// The prepared tables.
    pub(crate) fn tables(&self) -> Arc<Tables> {
        Arc::clone(&self.shared.tables.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The table of an entity.
    pub(crate) fn table(&self, entity: &str) -> Result<Arc<Table>> {
        self.tables().get(entity).cloned().ok_or_else(|| {
            Error::internal("the entity was not prepared for this source").at(&self.name).of(entity)
        })
    }

    /// Replaces the prepared tables.
    pub(crate) fn set_tables(&self, tables: Tables) {
        *self.shared.tables.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(tables);
    }

    /// Notes that acknowledged writes may be in the file and nowhere else.
    pub(crate) fn keeps_journal(&self) {
        self.shared.journal.store(true, Ordering::Release);
    }

    /// Finishes the queued work and closes the database.
    pub(crate) async fn close(&self) {
        self.writes.close();
        self.readers.close();
        let ended = std::mem::take(&mut *lock(&self.ended));
        for thread in ended {
            // An error is a thread that is gone, which is what is waited for.
            let _ = thread.await;
        }
    }
}

/// What writes. It opens the file, and opens it again after it was deleted or replaced.
struct Writer {
    shared: Arc<Shared>,
    connection: Option<Connection>,
    /// Identity of the write-ahead log that belongs to the connection.
    wal: Option<u64>,
    checkpointer: Checkpointer,
    /// How much work has been done, to see whether there was any.
    done: u64,
    /// Whether there was none since the log was tidied up.
    tidy: bool,
}

impl Writer {
    fn new(shared: Arc<Shared>) -> Self {
        let checkpointer = Checkpointer::new(&shared.settings);
        Writer { shared, connection: None, wal: None, checkpointer, done: 0, tidy: true }
    }

    /// Does a piece of work; `None` if it panicked.
    fn run<T>(&mut self, work: impl FnOnce(Result<&mut Connection>) -> T) -> Option<T> {
        self.done = self.done.wrapping_add(1);
        let outcome = catch_unwind(AssertUnwindSafe(|| work(self.ready())));
        // A connection that stands outside of every transaction is as before. Readers need it: without a writer none of
        // them could open the file.
        let is_sound = |c: &Connection| c.is_autocommit() || c.execute_batch("ROLLBACK").is_ok();
        if outcome.is_err() && !self.connection.as_ref().is_some_and(is_sound) {
            self.connection = None;
        }
        outcome.ok()
    }

    fn checkpoint(&mut self, idle: bool) {
        if let Some(connection) = &self.connection {
            self.checkpointer.run(connection, idle);
        }
        self.tidy = idle;
    }

    /// Whether the thread must see to the log, which it does not know by itself of work that others did.
    fn became_untidy(&mut self) -> bool {
        let due = self.connection.as_ref().is_some_and(|c| self.checkpointer.is_due(c));
        std::mem::replace(&mut self.tidy, false) || due
    }

    /// The connection to the file that is there now.
    fn ready(&mut self) -> Result<&mut Connection> {
        if let Some(connection) = &self.connection
            && connection::has_moved(connection)?
        {
            self.refuse_unless_follower()?;
            return self.reopen();
        }
        if self.connection.is_none() {
            return self.reopen();
        }
        self.connection.as_mut().ok_or_else(closed)
    }

    /// A follower's data can be made again; a truth or a journal whose file is gone must not begin anew unnoticed.
    fn refuse_unless_follower(&self) -> Result<()> {
        let tables = self.shared.tables.read().unwrap_or_else(PoisonError::into_inner);
        let journal = self.shared.journal.load(Ordering::Acquire);
        if !journal && !tables.values().any(|t| t.role == Role::Truth) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            "the database file was deleted or replaced while it was open",
        )
        .with("path", self.shared.settings.path.display())
        .hint("put the file back and restart; what is in it is nowhere else"))
    }

    /// Opens the file. No connection may be left to the earlier one: SQLite's locks and shared memory go by name.
    fn reopen(&mut self) -> Result<&mut Connection> {
        let mut sessions: Vec<_> = self.shared.sessions.iter().map(lock).collect();
        for session in &mut sessions {
            **session = None;
        }
        if self.connection.take().is_some() {
            connection::remove_orphaned_wal(&self.shared.settings.path, self.wal);
        }
        let mut connection = connection::open(&self.shared.settings, Access::Write)?;
        let tables = Arc::clone(&self.shared.tables.read().unwrap_or_else(PoisonError::into_inner));
        if !tables.is_empty() {
            let bindings: Vec<_> = tables.values().map(|t| t.binding()).collect();
            schema::prepare(&mut connection, &bindings, &self.shared.mark)?;
        }
        self.wal = connection::wal_identity(&self.shared.settings.path);
        Ok(self.connection.insert(connection))
    }
}

/// The thread of the writer: does what is sent to it, and tidies up the log.
fn write_loop(writer: &Mutex<Writer>, jobs: &Receiver<Queued<Connection>>) {
    let (mut tidy, mut seen) = (true, 0);
    loop {
        let received = if tidy {
            jobs.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            jobs.recv_timeout(IDLE)
        };
        let mut writer = lock(writer);
        match received {
            Ok((job, _permit)) => {
                writer.run(job);
                writer.checkpoint(false);
                tidy = false;
            }
            Err(RecvTimeoutError::Timeout) if writer.done == seen => {
                writer.checkpoint(true);
                tidy = true;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                writer.connection = None;
                return;
            }
        }
        seen = writer.done;
    }
}

fn read_loop(shared: &Shared, slot: usize, jobs: &Mutex<Receiver<Queued<Session>>>) {
    loop {
        let received = lock(jobs).recv();
        let Ok((job, _permit)) = received else { break };
        let Some(session) = shared.sessions.get(slot) else { break };
        let mut session = lock(session);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            job(match &mut *session {
                Some(open) => Ok(open),
                none => open_session(&shared.settings).map(|open| none.insert(open)),
            });
        }));
        if outcome.is_err() {
            *session = None;
        }
    }
    if let Some(session) = shared.sessions.get(slot) {
        *lock(session) = None;
    }
}

fn open_session(settings: &Settings) -> Result<Session> {
    let connection = connection::open(settings, Access::Read)?;
    let tests = Tests::register(&connection).map_err(translate)?;
    Ok(Session { connection, tests })
}

fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> Result<oneshot::Receiver<()>> {
    let (running, ended) = oneshot::channel::<()>();
    let body = move || {
        work();
        drop(running);
    };
    thread::Builder::new().name(name).spawn(body).map_err(|e| {
        Error::new(ErrorKind::Overloaded, "a thread for the database cannot be started")
            .caused_by(e)
    })?;
    Ok(ended)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "the source is closed")
}
