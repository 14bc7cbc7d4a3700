//! Role vault: files of the engine's own, compressed, beside the folders of the entities.

use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use unisono_core::source::Source;
use unisono_core::vault::Vault;
use unisono_core::{Error, Result};

use crate::error::{corrupt, io};
use crate::parallel::blocking;
use crate::source::FilesSource;
use crate::store::{Store, Tag};

/// The folder that holds them; no entity has this name.
const FOLDER: &str = "unisono_vault";
const EXTENSION: &str = ".zst";
const ZSTD_LEVEL: i32 = 3;

/// The files below one folder.
pub(crate) struct Files {
    folder: PathBuf,
    store: Arc<dyn Store>,
    /// Held while this process writes: the lock of a folder keeps out other processes only. Lists the folders from
    /// which was removed what an interrupted writer left.
    cleared: Mutex<Vec<PathBuf>>,
}

impl Files {
    pub(crate) fn new(root: &Path, store: Arc<dyn Store>) -> Self {
        Files { folder: root.join(FOLDER), store, cleared: Mutex::default() }
    }

    fn create(&self, path: &str, content: &[u8]) -> Result<bool> {
        let path = self.path(path, EXTENSION)?;
        let folder = path.parent().unwrap_or(&self.folder);
        let content = zstd::encode_all(content, ZSTD_LEVEL).map_err(|e| io(&path, e))?;
        let mut cleared = self.cleared.lock().unwrap_or_else(PoisonError::into_inner);
        let _right = self.store.lock(&self.folder)?;
        self.store.create_folder(folder)?;
        if !cleared.iter().any(|known| known == folder) {
            self.store.clear_unfinished(folder)?;
            cleared.push(folder.to_owned());
        }
        if self.store.read(&path)?.is_some() {
            return Ok(false);
        }
        let staged = self.store.stage(path.clone(), content)?;
        let taken = self.store.publish(&staged, &Tag::Absent)?.is_some();
        self.store.sync_folder(folder)?;
        Ok(taken)
    }

    fn load(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let path = self.path(path, EXTENSION)?;
        let Some(found) = self.store.read(&path)? else { return Ok(None) };
        let mut content = Vec::new();
        let decoded = zstd::Decoder::new(found.content.as_slice())
            .and_then(|mut decoder| decoder.read_to_end(&mut content));
        decoded.map_err(|e| corrupt(&path, "the file is not what was written").caused_by(e))?;
        Ok(Some(content))
    }

    fn list(&self, folder: &str) -> Result<Vec<String>> {
        let mut names = self.store.names(&self.path(folder, "")?)?;
        names.retain(|name| !name.starts_with('.'));
        for name in &mut names {
            if let Some(stem) = name.strip_suffix(EXTENSION) {
                *name = stem.to_owned();
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn path(&self, path: &str, extension: &str) -> Result<PathBuf> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-./".contains(&b);
        let mut parts = Path::new(path).components();
        if !path.bytes().all(plain) || !parts.all(|part| matches!(part, Component::Normal(_))) {
            return Err(Error::internal("is not a path in a vault").with("path", path));
        }
        Ok(self.folder.join(format!("{path}{extension}")))
    }
}

#[async_trait]
impl Vault for FilesSource {
    async fn create(&self, path: &str, content: Vec<u8>) -> Result<bool> {
        let at = path.to_owned();
        self.in_vault("create", move |files| files.create(&at, &content)).await
    }

    async fn load(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let path = path.to_owned();
        self.in_vault("load", move |files| files.load(&path)).await
    }

    async fn list(&self, folder: &str) -> Result<Vec<String>> {
        let folder = folder.to_owned();
        self.in_vault("list", move |files| files.list(&folder)).await
    }
}

impl FilesSource {
    async fn in_vault<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Files) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.check_open()?;
        let files = Arc::clone(&self.vault);
        blocking(move || work(&files)).await.map_err(|e| e.on(operation).at(self.name()))
    }
}
