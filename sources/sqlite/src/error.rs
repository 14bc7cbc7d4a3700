//! Native errors to kinds and effects: the one table.

use rusqlite::ffi;
use rusqlite::{Error as Native, ErrorCode};
use unisono_core::{Effect, Error, ErrorKind};

/// What a failure of the engine means. Nothing was written: a statement that fails is undone, and so is its
/// transaction; see [`at_commit`] for the one exception.
pub(crate) fn translate(native: Native) -> Error {
    let (kind, message, hint) = classify(&native);
    let error = Error::new(kind, message);
    let error = match kind {
        ErrorKind::ConstraintViolated => match constrained_field(&native) {
            Some(field) => error.with("field", field),
            None => error,
        },
        _ => error,
    };
    let error = match hint {
        Some(hint) => error.hint(hint),
        None => error,
    };
    error.caused_by(native)
}

/// A failure of `COMMIT` itself: when the log was written but its flush to the disk failed, a crash decides.
pub(crate) fn at_commit(native: Native) -> Error {
    let unknown = native.sqlite_error_code() == Some(ErrorCode::SystemIoFailure);
    translate(native).effect(if unknown { Effect::Unknown } else { Effect::None })
}

/// Whether only the statement is to blame, so that other work of the same transaction can go on.
pub(crate) fn is_of_statement(native: &Native) -> bool {
    matches!(native.sqlite_error_code(), Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig))
}

fn classify(native: &Native) -> (ErrorKind, &'static str, Option<&'static str>) {
    use ErrorKind::*;
    let Some(code) = native.sqlite_error_code() else {
        return match native {
            Native::FromSqlConversionFailure(..)
            | Native::InvalidColumnType(..)
            | Native::IntegralValueOutOfRange(..)
            | Native::Utf8Error(..) => (Corrupt, "a stored value cannot be decoded", None),
            _ => (Internal, "the statement is wrong", None),
        };
    };
    match code {
        ErrorCode::DatabaseBusy
        | ErrorCode::DatabaseLocked
        | ErrorCode::FileLockingProtocolFailed => (
            Unavailable,
            "another process is writing to the database",
            Some(
                "wait, or raise busy_timeout; long transactions of other programs hold up every write",
            ),
        ),
        ErrorCode::DiskFull => {
            (Unavailable, "the disk is full", Some("free space on the disk of the database"))
        }
        ErrorCode::SystemIoFailure => {
            (Unavailable, "the disk failed", Some("look at the system's log for disk errors"))
        }
        ErrorCode::CannotOpen | ErrorCode::PermissionDenied => (
            Unavailable,
            "the database file cannot be opened",
            Some("check that the folder exists and that this user may write to it"),
        ),
        ErrorCode::ReadOnly => {
            (NotPrimary, "the database is read-only", Some("check the file's permissions"))
        }
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => (
            Corrupt,
            "the database file is damaged or not a SQLite database",
            Some("restore it from a backup; a follower's file can be deleted and is then rebuilt"),
        ),
        ErrorCode::TooBig => (LimitExceeded, "a value is too big for SQLite", None),
        ErrorCode::ConstraintViolation if is_unique(native) => {
            (ConstraintViolated, "another record has the same value", None)
        }
        ErrorCode::ConstraintViolation => {
            (ConstraintViolated, "a constraint of the table refuses the record", None)
        }
        ErrorCode::OutOfMemory => (Overloaded, "out of memory", None),
        ErrorCode::OperationInterrupted => (Cancelled, "the statement was interrupted", None),
        ErrorCode::Unknown => (
            SchemaMismatch,
            "the tables are not as they were prepared",
            Some(
                "somebody changed them while the source was open: restart, so that they are checked again",
            ),
        ),
        _ => (Internal, "the engine refused a statement", None),
    }
}

fn is_unique(native: &Native) -> bool {
    matches!(
        native.sqlite_error().map(|e| e.extended_code),
        Some(
            ffi::SQLITE_CONSTRAINT_UNIQUE
                | ffi::SQLITE_CONSTRAINT_PRIMARYKEY
                | ffi::SQLITE_CONSTRAINT_ROWID
        )
    )
}

/// The columns named by `UNIQUE constraint failed: product.sku`, without their table.
fn constrained_field(native: &Native) -> Option<String> {
    let Native::SqliteFailure(_, Some(message)) = native else { return None };
    let (_, columns) = message.split_once("constraint failed: ")?;
    let names = columns.split(", ").map(|c| c.rsplit_once('.').map_or(c, |(_, name)| name));
    Some(names.collect::<Vec<_>>().join(","))
}
