//! [`Mark`]: how far the log has come, in a file beside the database, so that an older copy of the database is noticed.
//!
//! Nothing inside a file tells that it is yesterday's copy of itself. Followers that are ahead of its head do, but only
//! until as many new changes have taken the positions of the lost ones; from then on they would differ unnoticed.

use std::fs::{self, File};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, params};
use unisono_core::source::LogBounds;
use unisono_core::{Error, ErrorKind, Position, Result, Uuid};

use crate::error::translate;
use crate::truth::bounds;

/// The mark of one database.
pub(crate) struct Mark {
    path: PathBuf,
    begun: Mutex<Option<Begun>>,
}

/// The file, and what this process knows to be committed.
struct Begun {
    file: File,
    log: Uuid,
    head: Position,
}

impl Begun {
    fn write(&mut self) -> io::Result<()> {
        // All marks have the same length, so that none leaves a rest of another.
        let text = format!("{} {:020}\n", self.log, self.head.as_u64());
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(text.as_bytes())
    }
}

impl Mark {
    /// The mark of a database; nothing is read or written yet.
    pub(crate) fn of(database: &Path) -> Self {
        let mut path = database.as_os_str().to_owned();
        path.push("-head");
        Mark { path: path.into(), begun: Mutex::new(None) }
    }

    /// Begins another log if the database is an older copy of the one that was marked; answers what to tell people.
    ///
    /// Positions go on in the next generation, so that none is given twice; every follower is copied again.
    pub(crate) fn begin_anew(&self, connection: &Connection) -> Result<Option<String>> {
        let LogBounds { log, head: found, .. } = bounds(connection)?;
        let Some((_, marked)) = self.read().filter(|(of, head)| *of == log && *head > found) else {
            return Ok(None);
        };
        let head = marked.next_generation();
        let sql = "UPDATE unisono_head SET log = ?1, trimmed = ?2";
        let row = params![Uuid::now_v7().to_string(), head.as_i64()];
        connection.execute(sql, row).map_err(translate)?;
        Ok(Some(format!(
            "the database is an older copy of itself: its log ended at {found} and had come to {marked}; began another \
             log, and every follower is copied again"
        )))
    }

    /// Keeps the file from now on.
    pub(crate) fn begin(&self, bounds: &LogBounds) -> Result<()> {
        let begin = || {
            let file = File::options().create(true).truncate(false).write(true).open(&self.path)?;
            let mut begun = Begun { file, log: bounds.log, head: bounds.head };
            begun.write().map(|()| begun)
        };
        let begun = begin().map_err(|e| {
            Error::new(ErrorKind::Unavailable, "the file beside the database cannot be written")
                .with("path", self.path.display())
                .hint("check that this user may write to the folder, and that the disk is not full")
                .caused_by(e)
        })?;
        *self.begun() = Some(begun);
        Ok(())
    }

    /// The newest position that this process knows to be committed.
    pub(crate) fn head(&self) -> Position {
        self.begun().as_ref().map_or(Position::ZERO, |begun| begun.head)
    }

    /// Moves the mark to a committed position, before anybody is told of it.
    ///
    /// A mark that cannot be written fails nobody: all that it could do is to miss a restore. Of two processes that
    /// write at the same moment the slower one may leave the smaller mark; the next commit puts that right.
    pub(crate) fn raise(&self, head: Position) {
        if let Some(begun) = &mut *self.begun()
            && head > begun.head
        {
            begun.head = head;
            let _ = begun.write();
        }
    }

    /// `None` also for a file that holds no mark.
    fn read(&self) -> Option<(Uuid, Position)> {
        let text = fs::read_to_string(&self.path).ok()?;
        let (log, head) = text.trim_end().split_once(' ')?;
        Some((Uuid::try_parse(log).ok()?, head.parse().ok()?))
    }

    fn begun(&self) -> MutexGuard<'_, Option<Begun>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Fails if the head of the log is before a position that was committed when it was read.
pub(crate) fn check(head: Position, committed: Position) -> Result<()> {
    if head >= committed {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unavailable, "the database was replaced by an older copy of itself")
        .with("head", head)
        .with("committed", committed)
        .hint("restart, so that another log is begun and every follower is copied again"))
}
