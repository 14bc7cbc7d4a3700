//! [`Disk`]: every change that is made to the file system, in one place, so that tests can stop after any of them.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use unisono_core::Result;

use crate::error;

/// What names of unfinished files and folders begin with.
pub(crate) const TEMPORARY: &str = ".tmp-";

/// Makes changes, durably unless told otherwise.
pub(crate) struct Disk {
    fsync: bool,
    temporaries: AtomicU64,
    #[cfg(test)]
    pub(crate) probe: crate::tests::Probe,
}

impl Disk {
    /// Without `fsync`, changes survive the end of the process but not the loss of power.
    pub(crate) fn new(fsync: bool) -> Self {
        Disk {
            fsync,
            temporaries: AtomicU64::new(0),
            #[cfg(test)]
            probe: Default::default(),
        }
    }

    /// A name in `folder` for something unfinished.
    pub(crate) fn temporary(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{TEMPORARY}{}", self.temporaries.fetch_add(1, Ordering::Relaxed)))
    }

    /// Makes a folder and those above it; tells whether it was missing.
    pub(crate) fn create_folder(&self, path: &Path) -> Result<bool> {
        if path.is_dir() {
            return Ok(false);
        }
        if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty()) {
            self.create_folder(above)?;
        }
        #[cfg(test)]
        self.probe.step(|| crate::tests::Step::CreateFolder(path.into()))?;
        match fs::create_dir(path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(error::io(path, e)),
            _ => {}
        }
        self.sync_parent(path)?;
        Ok(true)
    }

    /// Writes a file whose name is not visible to anybody yet, and makes its content durable.
    pub(crate) fn write(&self, path: &Path, content: &[u8]) -> Result<()> {
        #[cfg(test)]
        self.probe.write(path, content)?;
        let mut file = File::create(path).map_err(|e| error::io(path, e))?;
        file.write_all(content).map_err(|e| error::io(path, e))?;
        if self.fsync {
            #[cfg(test)]
            self.probe.step(|| crate::tests::Step::Sync(path.into()))?;
            file.sync_all().map_err(|e| error::io(path, e))?;
        }
        Ok(())
    }

    /// Gives something its final name, in place of what had it; durable after [`Disk::sync_folder`].
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        #[cfg(test)]
        self.probe.step(|| crate::tests::Step::Rename(from.into(), to.into()))?;
        fs::rename(from, to).map_err(|e| error::io(to, e))
    }

    /// Removes a file that may be gone already.
    pub(crate) fn remove(&self, path: &Path) -> Result<()> {
        #[cfg(test)]
        self.probe.step(|| crate::tests::Step::Remove(path.into()))?;
        absent_is_fine(path, fs::remove_file(path))
    }

    /// Removes a folder with all that is in it, which may be gone already.
    pub(crate) fn remove_folder(&self, path: &Path) -> Result<()> {
        #[cfg(test)]
        self.probe.step(|| crate::tests::Step::Remove(path.into()))?;
        absent_is_fine(path, fs::remove_dir_all(path))
    }

    /// Makes the names in a folder durable.
    pub(crate) fn sync_folder(&self, path: &Path) -> Result<()> {
        if !self.fsync {
            return Ok(());
        }
        #[cfg(test)]
        self.probe.step(|| crate::tests::Step::Sync(path.into()))?;
        File::open(path).and_then(|folder| folder.sync_all()).map_err(|e| error::io(path, e))
    }

    /// Replaces a file by a new content, durably: at any instant it has the old one or the new one.
    pub(crate) fn replace(&self, path: &Path, content: &[u8]) -> Result<()> {
        let temporary = self.temporary(path.parent().unwrap_or(Path::new(".")));
        self.write(&temporary, content)?;
        self.rename(&temporary, path)?;
        self.sync_parent(path)
    }

    fn sync_parent(&self, path: &Path) -> Result<()> {
        match path.parent() {
            Some(above) if !above.as_os_str().is_empty() => self.sync_folder(above),
            _ => self.sync_folder(Path::new(".")),
        }
    }
}

/// The content of a file; `None` if it is not there.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(e) if is_absent(&e) => Ok(None),
        Err(e) => Err(error::io(path, e)),
    }
}

/// The names in a folder, in no order; none if it is not there. Names that are not Unicode are not ours.
pub(crate) fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if is_absent(&e) => return Ok(Vec::new()),
        Err(e) => return Err(error::io(folder, e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| error::io(folder, e))?;
        names.extend(entry.file_name().into_string());
    }
    Ok(names)
}

fn absent_is_fine(path: &Path, result: io::Result<()>) -> Result<()> {
    match result {
        Err(e) if !is_absent(&e) => Err(error::io(path, e)),
        _ => Ok(()),
    }
}

/// A file in the place of a folder holds nothing of ours, as if the folder were not there.
fn is_absent(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
