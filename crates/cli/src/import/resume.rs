//! [`Resume`]: how far the import of a file has come, kept beside the data so that it goes on where it stopped.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use flate2::Crc;
use serde::{Deserialize, Serialize};
use unisono::core::{Error, ErrorKind, Result};

/// How far an import has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Done {
    /// Every line up to here has been stored or refused.
    pub(crate) lines: u64,
    /// Records stored.
    pub(crate) records: u64,
    /// Lines refused.
    pub(crate) refused: u64,
}

/// How much of a file tells it from others.
const HEAD_BYTES: usize = 64 << 10;

/// The progress file of one import.
#[derive(Debug)]
pub(crate) struct Resume {
    path: PathBuf,
}

impl Resume {
    /// For a file and an entity. A file is known by its size and its first bytes, wherever it lies.
    ///
    /// `folder` tells apart where it is imported to.
    pub(crate) fn of(folder: &Path, entity: &str, file: &Path) -> Result<Self> {
        let fail = |e| super::lines::unreadable(file, e);
        let opened = File::open(file).map_err(fail)?;
        let size = opened.metadata().map_err(fail)?.len();
        let mut head = Vec::new();
        opened.take(HEAD_BYTES as u64).read_to_end(&mut head).map_err(fail)?;
        Ok(Resume::named(folder, entity, size, &head))
    }

    /// For the bytes of a file in memory.
    pub(crate) fn of_bytes(folder: &Path, entity: &str, bytes: &[u8]) -> Self {
        let head = bytes.get(..HEAD_BYTES).unwrap_or(bytes);
        Resume::named(folder, entity, bytes.len() as u64, head)
    }

    fn named(folder: &Path, entity: &str, size: u64, head: &[u8]) -> Self {
        let mut crc = Crc::new();
        crc.update(head);
        Resume { path: folder.join(format!("{entity}-{size}-{:08x}.json", crc.sum())) }
    }

    /// Where it stopped; `None` if it never began, was completed, or its progress file is damaged.
    pub(crate) fn begun(&self) -> Option<Done> {
        serde_json::from_slice(&fs::read(&self.path).ok()?).ok()
    }

    /// Remembers how far it has come. A crash between two calls repeats what lies between them, which changes nothing
    /// because records are put whole.
    pub(crate) fn save(&self, done: Done) -> Result<()> {
        let text = serde_json::to_vec(&done)
            .map_err(|e| Error::internal("progress cannot be written as JSON").caused_by(e))?;
        let next = self.path.with_extension("next");
        let folder = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&next, text))
            .and_then(|()| fs::rename(&next, &self.path))
            .map_err(|e| {
                Error::new(ErrorKind::Unavailable, "the progress of the import cannot be saved")
                    .with("file", self.path.display())
                    .caused_by(e)
            })
    }

    /// Forgets it: the import is complete, or starts over.
    pub(crate) fn clear(&self) {
        // A file that cannot be removed is overwritten by the next import.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_found_again_for_the_same_file_and_entity_only() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.jsonl");
        fs::write(&file, "one\n").unwrap();
        let done = Done { lines: 7, records: 6, refused: 1 };
        let resume = Resume::of(folder.path(), "product", &file).unwrap();
        assert_eq!(resume.begun(), None);
        resume.save(done).unwrap();

        let moved = folder.path().join("b.jsonl");
        fs::rename(&file, &moved).unwrap();
        assert_eq!(Resume::of(folder.path(), "product", &moved).unwrap().begun(), Some(done));
        assert_eq!(Resume::of(folder.path(), "order", &moved).unwrap().begun(), None);
        fs::write(&moved, "two\n").unwrap();
        assert_eq!(Resume::of(folder.path(), "product", &moved).unwrap().begun(), None);

        resume.clear();
        assert_eq!(resume.begun(), None);
    }
}
