//! Failures of the file system and of what is stored in it, as Unisono's errors.

use std::io;
use std::path::Path;

use unisono_core::{Error, ErrorKind};

/// A refusal by the file system.
pub(crate) fn io(path: &Path, cause: io::Error) -> Error {
    let hint = match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space on the file system"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "let the user that runs Unisono write to this folder"
        }
        _ => "check that the file system is mounted and healthy",
    };
    Error::new(ErrorKind::Unavailable, "the file system refuses")
        .with("path", path.display())
        .hint(hint)
        .caused_by(cause)
}

/// A file whose content is not what was written by this crate.
pub(crate) fn corrupt(path: &Path, reason: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, "a stored file cannot be decoded")
        .with("path", path.display())
        .with("reason", reason)
        .hint("run `unisono repair`: it writes the file again from the truth")
}
