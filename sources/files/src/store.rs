//! [`Store`]: what the layout needs of the place that keeps its files, a disk or a bucket.
//!
//! Paths are those of the layout. Calls block; they come from threads that may.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use unisono_core::Result;

/// A state of a file: a writer names the one it has seen, and writes nothing over another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tag {
    /// It is not there.
    Absent,
    /// It is there, in the state of this name.
    #[cfg(feature = "s3")]
    Is(String),
    /// Whatever it is, nobody else changes it: there is one writer.
    Locked,
}

/// The content of a file.
#[derive(Clone)]
pub(crate) struct Found {
    /// All of it.
    pub(crate) content: Vec<u8>,
    /// Which state of the file it is.
    pub(crate) tag: Tag,
}

/// A file directly in a folder.
pub(crate) struct Listed {
    /// Its name.
    pub(crate) name: String,
    /// Its size.
    pub(crate) bytes: u64,
}

/// A file that is complete, but not yet visible under its name.
pub(crate) struct Staged {
    /// Where it will be.
    pub(crate) path: PathBuf,
    /// What it holds.
    pub(crate) held: Held,
}

/// Where the content of a staged file waits.
pub(crate) enum Held {
    /// Durably, under another name.
    Beside(PathBuf),
    /// In memory.
    #[cfg(feature = "s3")]
    Here(Vec<u8>),
}

/// The files of folders, by name and state.
pub(crate) type Tree = BTreeMap<String, Vec<(String, Tag)>>;

/// The right to write; given back when it is dropped.
pub(crate) type Right = Box<dyn Send>;

/// Where files are kept.
pub(crate) trait Store: Send + Sync {
    /// What it is, for people.
    fn engine(&self) -> &'static str;

    /// How many files are read, and written, at the same time.
    fn parallel(&self) -> (usize, usize);

    /// Whether several processes may write at the same time, so that only conditions keep them apart.
    fn is_shared(&self) -> bool;

    /// A cheap sign of life.
    fn probe(&self, root: &Path) -> Result<()>;

    /// The right to write in a folder; `unavailable` if another process has it for itself. In a shared store, everybody
    /// has it.
    fn lock(&self, folder: &Path) -> Result<Right>;

    /// Whether the right is still that to this folder, which may have been deleted and made again.
    fn is_locked(&self, folder: &Path) -> bool;

    /// The content of a file; `None` if it is not there.
    fn read(&self, path: &Path) -> Result<Option<Found>>;

    /// A file to be read from its beginning.
    fn open(&self, path: &Path) -> Result<Box<dyn Read + Send>>;

    /// The names of the files and folders in a folder, in no order; none if it is not there.
    fn names(&self, folder: &Path) -> Result<Vec<String>>;

    /// The files in each folder of a folder by name and state, where the store gives them all at once.
    fn tree(&self, folder: &Path) -> Result<Option<Tree>>;

    /// The content of a file that was just listed in a state; a copy of the same state will do.
    fn read_as(&self, path: &Path, _: &Tag) -> Result<Option<Found>> {
        self.read(path)
    }

    /// The files in a folder whose names end like this, in no order.
    fn files(&self, folder: &Path, end: &str) -> Result<Vec<Listed>>;

    /// Makes a folder and those above it.
    fn create_folder(&self, path: &Path) -> Result<()>;

    /// Prepares a file.
    fn stage(&self, path: PathBuf, content: Vec<u8>) -> Result<Staged>;

    /// Gives a staged file its name, in place of what had it; answers its state, or `None`, and nothing changes, if what
    /// had the name is no longer in the state `seen`. Durable after [`Store::sync_folder`].
    fn publish(&self, staged: &Staged, seen: &Tag) -> Result<Option<Tag>>;

    /// Makes the names in a folder durable.
    fn sync_folder(&self, path: &Path) -> Result<()>;

    /// Replaces a file durably, if it is in the state `seen`; at any instant it has the old content or the new one.
    fn replace_if(&self, path: &Path, content: &[u8], seen: &Tag) -> Result<bool>;

    /// Replaces a file durably, whatever it is.
    fn replace(&self, path: &Path, content: &[u8]) -> Result<()>;

    /// Removes a file that may be gone already.
    fn remove(&self, path: &Path) -> Result<()>;

    /// Removes a folder with all that is in it, which may be gone already.
    fn remove_folder(&self, path: &Path) -> Result<()>;

    /// Takes a folder out of sight in one step, if the store can; answers where it is now.
    fn hide_folder(&self, path: &Path) -> Result<PathBuf>;

    /// Gives a folder the first of its numbered names that is free.
    fn move_folder(&self, from: &Path, name: &dyn Fn(u64) -> PathBuf) -> Result<()>;

    /// Removes from a folder what a writer left unfinished.
    fn clear_unfinished(&self, folder: &Path) -> Result<()>;

    /// The steps that tests watch and stop.
    #[cfg(test)]
    fn probe_of_tests(&self) -> &crate::tests::Probe;
}
