//! [`DataLock`]: one process at a time on a data directory.

use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use unisono::core::{Error, ErrorKind, Result};

const NAME: &str = "unisono.lock";

/// Held while a process has the embedded sources below a data directory open. The operating system lets go of it when
/// the process ends, however it ends; while it is held, the file names the address of the server that holds it.
#[derive(Debug)]
pub(crate) struct DataLock {
    file: File,
}

impl DataLock {
    /// Takes the lock, or says who has it.
    pub(crate) fn take(data: &Path) -> Result<Self> {
        let failed = |e: std::io::Error| {
            Error::new(ErrorKind::Unavailable, "the data directory cannot be used")
                .with("data", data.display())
                .hint("check that it exists and may be written, or name another with --data")
                .caused_by(e)
        };
        std::fs::create_dir_all(data).map_err(failed)?;
        let path = data.join(NAME);
        let mut options = File::options();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {
                let mut lock = DataLock { file };
                lock.write("").map_err(failed)?;
                Ok(lock)
            }
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Without its address the refusal is less helpful, but still right.
                let _ = file.read_to_string(&mut holder);
                Err(refusal(data, holder.trim()))
            }
            Err(TryLockError::Error(e)) => Err(failed(e)),
        }
    }

    /// Tells others under which address the holder serves.
    pub(crate) fn announce(&mut self, address: &str) -> Result<()> {
        self.write(address).map_err(|e| {
            Error::new(ErrorKind::Unavailable, "the lock file cannot be written").caused_by(e)
        })
    }

    fn write(&mut self, text: &str) -> std::io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(text.as_bytes())
    }
}

fn refusal(data: &Path, holder: &str) -> Error {
    let error = |message: &'static str| {
        Error::new(ErrorKind::Unavailable, message).with("data", data.display())
    };
    if holder.is_empty() {
        return error("another unisono command is working on this data directory")
            .hint("wait until it has ended, or name another directory with --data");
    }
    error("a server is running on this data directory")
        .with("address", holder)
        .hint(format!("use --url {holder}, or stop the server first"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_taker_is_told_the_address_and_gets_in_after_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = DataLock::take(folder.path()).unwrap();
        let other = DataLock::take(folder.path()).unwrap_err();
        assert!(other.message().contains("another unisono command"), "{other}");
        first.announce("http://127.0.0.1:3000").unwrap();
        let second = DataLock::take(folder.path()).unwrap_err();
        assert_eq!(second.kind(), ErrorKind::Unavailable);
        assert!(second.hint_text().unwrap().contains("--url http://127.0.0.1:3000"), "{second:?}");
        drop(first);
        let third = DataLock::take(folder.path()).unwrap();
        drop(third);
        assert_eq!(
            std::fs::read_to_string(folder.path().join(NAME)).unwrap(),
            "",
            "the address is gone"
        );
    }
}
