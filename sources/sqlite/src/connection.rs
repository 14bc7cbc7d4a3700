//! One connection: how it is opened, and how its write-ahead log is kept fast.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use unisono_core::{Error, ErrorKind, Result};

use crate::config::Settings;
use crate::error::translate;

/// The first release in which resetting the write-ahead log cannot lose a commit.
const VERSION_MIN: i32 = 3_051_003;
const PAGE_BYTES: u64 = 4096;
/// More statements than the source itself has; queries of callers share what is left.
const STATEMENTS_CACHED: usize = 256;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everything; there is one.
    Write,
    /// Reading only.
    Read,
}

/// Opens the database, in write-ahead mode and with every commit flushed to the disk.
pub(crate) fn open(settings: &Settings, access: Access) -> Result<Connection> {
    if rusqlite::version_number() < VERSION_MIN {
        return Err(Error::new(ErrorKind::Unsupported, "this release of SQLite can lose commits")
            .with("version", rusqlite::version())
            .hint("build with SQLite 3.51.3 or newer"));
    }
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if access == Access::Write {
        make_folder(&settings.path)?;
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    }
    let connection = Connection::open_with_flags(&settings.path, flags).map_err(translate)?;
    configure(&connection, settings, access).map_err(translate)?;
    if access == Access::Write {
        let mode: String = connection
            .pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))
            .map_err(translate)?;
        if mode != "wal" {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "the file system cannot hold a write-ahead log",
            )
            .with("journal_mode", mode)
            .hint("keep the database on a local disk"));
        }
        grow_wal(&connection, settings);
    }
    Ok(connection)
}

fn make_folder(path: &Path) -> Result<()> {
    let Some(folder) = path.parent() else { return Ok(()) };
    fs::create_dir_all(folder).map_err(|e| {
        Error::new(ErrorKind::Unavailable, "the folder of the database cannot be made")
            .with("folder", folder.display())
            .caused_by(e)
    })
}

fn configure(connection: &Connection, settings: &Settings, access: Access) -> rusqlite::Result<()> {
    connection.busy_timeout(settings.busy_timeout)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    let cache_kib = i64::try_from(settings.cache_bytes / 1024).unwrap_or(i64::MAX);
    connection.pragma_update(None, "cache_size", -cache_kib)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.pragma_update(None, "trusted_schema", false)?;
    // As in SQLite itself unless asked for: followers apply changes of different tables in any order.
    connection.pragma_update(None, "foreign_keys", false)?;
    if access == Access::Read {
        return connection.pragma_update(None, "query_only", true);
    }
    connection.pragma_update(None, "synchronous", "full")?;
    // What is deleted, such as the key of a person who is erased, does not stay in the pages that it was in.
    connection.pragma_update(None, "secure_delete", "fast")?;
    // The writer makes checkpoints itself, after it has answered.
    connection.pragma_update(None, "wal_autocheckpoint", 0)
}

/// Writes a transaction as big as the log is to be and undoes it: the file keeps the size, and later commits
/// write into blocks that it has, which is many times faster to flush than a file that grows.
///
/// Only speed depends on it, so a failure (a full disk, another writer) is left to the first real write.
fn grow_wal(connection: &Connection, settings: &Settings) {
    let has = fs::metadata(wal_path(&settings.path)).map_or(0, |m| m.len());
    let Some(missing) = settings.wal_bytes.checked_sub(has).filter(|&n| n > PAGE_BYTES) else {
        return;
    };
    let cache_kib = i64::try_from(settings.cache_bytes / 1024).unwrap_or(i64::MAX);
    // A small cache makes SQLite write pages to the log before the end of the transaction.
    let script = format!(
        "PRAGMA cache_size = 16; BEGIN IMMEDIATE; CREATE TABLE unisono_grow (filler BLOB); \
         INSERT INTO unisono_grow VALUES (zeroblob({missing})); ROLLBACK;"
    );
    let _ = connection.execute_batch(&script);
    if !connection.is_autocommit() {
        let _ = connection.execute_batch("ROLLBACK");
    }
    let _ = connection.pragma_update(None, "cache_size", -cache_kib);
}

/// Keeps the write-ahead log at its size: copies it into the database, so that it is used again from its start.
pub(crate) struct Checkpointer {
    /// From this many pages in the log it is copied although there is work to do.
    pages: i64,
    /// From this many pages in the log readers are waited for.
    restart_pages: i64,
    busy_timeout: Duration,
}

impl Checkpointer {
    /// The longest that commits are held up for readers that keep the log from its start.
    const READERS_WAIT: Duration = Duration::from_millis(50);

    pub(crate) fn new(settings: &Settings) -> Self {
        let pages = i64::try_from(settings.wal_bytes / PAGE_BYTES).unwrap_or(i64::MAX);
        Checkpointer {
            pages,
            restart_pages: pages.saturating_mul(8),
            busy_timeout: settings.busy_timeout,
        }
    }

    /// Whether there is so much in the log that [`Self::run`] would copy it although there is work to do.
    pub(crate) fn is_due(&self, connection: &Connection) -> bool {
        let (written, copied) = checkpoint(connection, "NOOP");
        written >= self.pages && written > copied
    }

    /// To be called after each commit, and with `idle` when there is nothing else to do.
    ///
    /// A failure is not reported: the commits are safe in the log, and the next call tries again.
    pub(crate) fn run(&mut self, connection: &Connection, idle: bool) {
        let (written, copied) = checkpoint(connection, "NOOP");
        if written < self.pages {
            self.restart_pages = self.pages.saturating_mul(8);
        }
        if written >= self.restart_pages {
            // Readers that overlap all the time never let go of the log by themselves.
            let _ = connection.busy_timeout(Self::READERS_WAIT);
            checkpoint(connection, "RESTART");
            let _ = connection.busy_timeout(self.busy_timeout);
            // If they did not let go in that time, much is written before they hold up a commit again.
            self.restart_pages = written.saturating_add(self.pages);
        } else if written > copied && (idle || written >= self.pages) {
            checkpoint(connection, "PASSIVE");
        }
    }
}

/// Pages in the write-ahead log, and how many of them have been copied.
fn checkpoint(connection: &Connection, mode: &str) -> (i64, i64) {
    let sql = format!("PRAGMA wal_checkpoint({mode})");
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(1)?, row.get(2)?));
    connection.prepare_cached(&sql).and_then(|mut s| s.query_row([], read)).unwrap_or((0, 0))
}

/// Whether the file was deleted or replaced since the connection was opened.
pub(crate) fn has_moved(connection: &Connection) -> Result<bool> {
    #[cfg(unix)]
    {
        let mut moved = 0;
        connection
            .file_control(None::<&str>, rusqlite::FileControl::HasMoved(&mut moved))
            .map_err(translate)?;
        Ok(moved != 0)
    }
    #[cfg(not(unix))]
    Ok(connection.path().is_some_and(|path| !Path::new(path).exists()))
}

/// Identity of the write-ahead log's file, where the system tells it.
#[cfg(unix)]
pub(crate) fn wal_identity(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(wal_path(path)).ok().map(|m| m.ino())
}

/// Identity of the write-ahead log's file, where the system tells it.
#[cfg(not(unix))]
pub(crate) fn wal_identity(_path: &Path) -> Option<u64> {
    None
}

/// Removes the write-ahead log that belonged to a database which is no longer there: SQLite would apply it to
/// whatever file has the database's name now.
pub(crate) fn remove_orphaned_wal(path: &Path, identity: Option<u64>) {
    if identity.is_some() && wal_identity(path) == identity {
        let _ = fs::remove_file(wal_path(path));
        let _ = fs::remove_file(with_suffix(path, "-shm"));
    }
}

fn wal_path(path: &Path) -> PathBuf {
    with_suffix(path, "-wal")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
