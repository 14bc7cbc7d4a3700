//! [`Disk`]: every change that is made to the file system, in one place, so that tests can stop after any of them.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use unisono_core::{Error, ErrorKind, Result};

use crate::error;
use crate::parallel::{WRITERS, readers};
use crate::store::{Found, Held, Listed, Right, Staged, Store, Tag, Tree};

/// What names of unfinished files and folders begin with.
const TEMPORARY: &str = ".tmp-";
/// The file that the process that writes has a lock on.
const LOCK: &str = ".lock";

/// Makes changes, durably unless told otherwise.
pub(crate) struct Disk {
    fsync: bool,
    temporaries: AtomicU64,
    #[cfg(test)]
    probe: crate::tests::Probe,
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
    fn temporary(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{TEMPORARY}{}", self.temporaries.fetch_add(1, Ordering::Relaxed)))
    }

    /// Writes a file whose name is not visible to anybody yet, and makes its content durable.
    fn write(&self, path: &Path, content: &[u8]) -> Result<()> {
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

    /// Gives something its final name, in place of what had it; durable after [`Store::sync_folder`].
    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        #[cfg(test)]
        self.probe.step(|| crate::tests::Step::Rename(from.into(), to.into()))?;
        fs::rename(from, to).map_err(|e| error::io(to, e))
    }

    fn sync_parent(&self, path: &Path) -> Result<()> {
        self.sync_folder(folder_of(path))
    }
}

impl Store for Disk {
    fn engine(&self) -> &'static str {
        "files (JSON, zstd)"
    }

    fn parallel(&self) -> (usize, usize) {
        (readers(), WRITERS)
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn probe(&self, root: &Path) -> Result<()> {
        fs::metadata(root).map(drop).map_err(|e| error::io(root, e))
    }

    fn lock(&self, folder: &Path) -> Result<Right> {
        let path = folder.join(LOCK);
        self.create_folder(folder)?;
        let file = File::create(&path).map_err(|e| error::io(&path, e))?;
        file.try_lock().map_err(|e| match e {
            TryLockError::WouldBlock => {
                Error::new(ErrorKind::Unavailable, "another process writes to this folder")
                    .with("path", folder.display())
                    .hint("stop the other process, or talk to it with --url")
            }
            TryLockError::Error(e) => error::io(&path, e),
        })?;
        Ok(Box::new(file))
    }

    fn is_locked(&self, folder: &Path) -> bool {
        folder.join(LOCK).exists()
    }

    fn read(&self, path: &Path) -> Result<Option<Found>> {
        match fs::read(path) {
            Ok(content) => Ok(Some(Found { content, tag: Tag::Locked })),
            Err(e) if is_absent(&e) => Ok(None),
            Err(e) => Err(error::io(path, e)),
        }
    }

    fn open(&self, path: &Path) -> Result<Box<dyn Read + Send>> {
        Ok(Box::new(File::open(path).map_err(|e| error::io(path, e))?))
    }

    /// Names that are not Unicode are not ours.
    fn names(&self, folder: &Path) -> Result<Vec<String>> {
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

    fn tree(&self, _: &Path) -> Result<Option<Tree>> {
        Ok(None)
    }

    fn files(&self, folder: &Path, end: &str) -> Result<Vec<Listed>> {
        let mut names = self.names(folder)?;
        names.retain(|name| name.ends_with(end));
        let listed = names.into_iter().map(|name| {
            let path = folder.join(&name);
            let bytes = fs::metadata(&path).map_err(|e| error::io(&path, e))?.len();
            Ok(Listed { name, bytes })
        });
        listed.collect()
    }

    fn create_folder(&self, path: &Path) -> Result<()> {
        if path.is_dir() {
            return Ok(());
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
        self.sync_parent(path)
    }

    fn stage(&self, path: PathBuf, content: Vec<u8>) -> Result<Staged> {
        let temporary = self.temporary(folder_of(&path));
        self.write(&temporary, &content)?;
        Ok(Staged { path, held: Held::Beside(temporary) })
    }

    fn publish(&self, staged: &Staged, _: &Tag) -> Result<Option<Tag>> {
        match &staged.held {
            Held::Beside(temporary) => self.rename(temporary, &staged.path)?,
            #[cfg(feature = "s3")]
            Held::Here(content) => self.replace(&staged.path, content)?,
        }
        Ok(Some(Tag::Locked))
    }

    fn sync_folder(&self, path: &Path) -> Result<()> {
        if !self.fsync {
            return Ok(());
        }
        #[cfg(test)]
        self.probe.step(|| crate::tests::Step::Sync(path.into()))?;
        File::open(path).and_then(|folder| folder.sync_all()).map_err(|e| error::io(path, e))
    }

    fn replace_if(&self, path: &Path, content: &[u8], _: &Tag) -> Result<bool> {
        self.replace(path, content).map(|()| true)
    }

    fn replace(&self, path: &Path, content: &[u8]) -> Result<()> {
        let temporary = self.temporary(folder_of(path));
        self.write(&temporary, content)?;
        self.rename(&temporary, path)?;
        self.sync_parent(path)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        #[cfg(test)]
        self.probe.step(|| crate::tests::Step::Remove(path.into()))?;
        absent_is_fine(path, fs::remove_file(path))
    }

    fn remove_folder(&self, path: &Path) -> Result<()> {
        #[cfg(test)]
        self.probe.step(|| crate::tests::Step::Remove(path.into()))?;
        absent_is_fine(path, fs::remove_dir_all(path))
    }

    fn hide_folder(&self, path: &Path) -> Result<PathBuf> {
        let hidden = self.temporary(folder_of(path));
        self.rename(path, &hidden)?;
        self.sync_parent(path)?;
        Ok(hidden)
    }

    fn move_folder(&self, from: &Path, name: &dyn Fn(u64) -> PathBuf) -> Result<()> {
        match (0..).map(name).find(|path| !path.exists()) {
            Some(free) => self.rename(from, &free),
            None => Ok(()),
        }
    }

    fn clear_unfinished(&self, folder: &Path) -> Result<()> {
        for name in self.names(folder)?.iter().filter(|name| name.starts_with(TEMPORARY)) {
            let path = folder.join(name);
            if path.is_dir() {
                self.remove_folder(&path)?;
            } else {
                self.remove(&path)?;
            }
        }
        Ok(())
    }

    #[cfg(test)]
    fn probe_of_tests(&self) -> &crate::tests::Probe {
        &self.probe
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."))
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
