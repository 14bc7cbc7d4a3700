//! Engine failures → [`Error`]: kind, effect and what to do.

use std::io;

use tantivy::TantivyError;
use tantivy::directory::error::{OpenDirectoryError, OpenReadError, OpenWriteError};
use unisono_core::{Error, ErrorKind};

const REBUILD: &str = "delete the index's folder; it is rebuilt from the truth by itself";

/// What an engine failure says about the stored index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Files are missing: somebody deleted or replaced the folder.
    Gone,
    /// Files are there but cannot be understood.
    Unreadable,
    /// Another process has the index open for writing.
    Locked,
    /// The machine refused: disk full, permissions, too many open files.
    Machine,
    /// Anything else, which is a bug in Unisono or in the engine.
    Bug,
}

/// Classifies an engine failure.
pub(crate) fn fault(error: &TantivyError) -> Fault {
    use TantivyError as T;
    match error {
        T::OpenReadError(OpenReadError::FileDoesNotExist(_)) => Fault::Gone,
        T::OpenDirectoryError(OpenDirectoryError::DoesNotExist(_)) => Fault::Gone,
        T::OpenReadError(OpenReadError::IoError { io_error, .. }) => of_io(io_error),
        T::OpenReadError(OpenReadError::IncompatibleIndex(_)) => Fault::Unreadable,
        T::OpenWriteError(OpenWriteError::IoError { io_error, .. }) => of_io(io_error),
        T::IoError(error) => of_io(error),
        T::DataCorruption(_) | T::IncompatibleIndex(_) | T::DeserializeError(_) => {
            Fault::Unreadable
        }
        T::MissingPlugin(_) | T::UnexpectedPlugin(_) => Fault::Unreadable,
        T::LockFailure(..) => Fault::Locked,
        T::OpenDirectoryError(_) | T::OpenWriteError(_) | T::SystemError(_) => Fault::Machine,
        // A worker thread that failed hides its cause, which is nearly always the disk.
        T::ErrorInThread(_) => Fault::Machine,
        _ => Fault::Bug,
    }
}

fn of_io(error: &io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::NotFound => Fault::Gone,
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Fault::Unreadable,
        _ => Fault::Machine,
    }
}

/// An engine failure as Unisono's error.
pub(crate) fn from_engine(error: TantivyError) -> Error {
    let fault = fault(&error);
    let e = match fault {
        Fault::Gone => Error::new(ErrorKind::Unavailable, "a file of the search index is missing")
            .hint("the index is made anew with the next change; nothing has to be done"),
        Fault::Unreadable => unreadable("the search index cannot be read"),
        Fault::Locked => {
            Error::new(ErrorKind::Unavailable, "another process has the search index open")
                .hint("let only one process use a path")
        }
        Fault::Machine => Error::new(ErrorKind::Unavailable, "the search index is out of reach")
            .hint("look at the free space and the permissions of its folder"),
        Fault::Bug => Error::internal("the search engine refused a request"),
    };
    e.caused_by(error)
}

/// A failure of the file system outside the engine.
pub(crate) fn from_io(error: io::Error) -> Error {
    from_engine(TantivyError::from(error))
}

/// Stored bytes that cannot be decoded.
pub(crate) fn unreadable(message: &'static str) -> Error {
    Error::new(ErrorKind::Corrupt, message).hint(REBUILD)
}

/// Turns engine results into Unisono's.
pub(crate) trait OrError<T> {
    /// The value, or the failure as an [`Error`].
    fn or_error(self) -> unisono_core::Result<T>;
}

impl<T> OrError<T> for tantivy::Result<T> {
    fn or_error(self) -> unisono_core::Result<T> {
        self.map_err(from_engine)
    }
}

impl<T> OrError<T> for io::Result<T> {
    fn or_error(self) -> unisono_core::Result<T> {
        self.map_err(from_io)
    }
}
