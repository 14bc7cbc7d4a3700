//! The folder of an index: whether it is still the same one, and how it is emptied.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use unisono_core::Result;

use crate::error::OrError;

/// What tells a folder from another of the same name.
pub(crate) fn identity(path: &Path) -> tantivy::Result<(u64, u64)> {
    let data = fs::metadata(path)?;
    Ok((data.dev(), data.ino()))
}

/// Removes an index and nothing else from a folder. What makes it an index goes first, so that a crash in between
/// leaves none.
pub(crate) fn clear(path: &Path) -> Result<()> {
    let remove = |path: &Path| match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e).or_error(),
        _ => Ok(()),
    };
    remove(&path.join("meta.json"))?;
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e).or_error(),
    };
    for entry in entries {
        let entry = entry.or_error()?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let of_segment = name
            .split('.')
            .next()
            .is_some_and(|stem| stem.len() == 32 && stem.bytes().all(|b| b.is_ascii_hexdigit()));
        // The lock file stays: another process may hold it.
        if of_segment || name == ".managed.json" {
            remove(&entry.path())?;
        }
    }
    Ok(())
}
