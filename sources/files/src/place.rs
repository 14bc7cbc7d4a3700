//! [`Place`]: the folder of one entity: who may write, what readers see, the checkpoint, and the files of records.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, TryLockError};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde::{Deserialize, Serialize};
use unisono_core::source::Checkpoint;
use unisono_core::{Entity, Error, ErrorKind, Key, Position, Result, Uuid, Version};

use crate::archive::Archive;
use crate::codec::{self, Head, Named, State};
use crate::disk::{self, Disk, TEMPORARY};
use crate::error;

/// The folder of one entity.
pub(crate) struct Place {
    folder: PathBuf,
    records: PathBuf,
    pub(crate) disk: Disk,
    pub(crate) archive: Option<Archive>,
    /// The right to write, once this process has taken it.
    lock: Mutex<Option<File>>,
    /// Held by readers while they look, and by a writer while it makes a batch visible.
    visible: RwLock<()>,
    /// The keys that scans page through, once a scan has listed them.
    keys: Mutex<Option<BTreeSet<Key>>>,
    /// Remembered deletions that were seen, and that a later checkpoint lets go.
    deletions: Mutex<BTreeMap<Key, Version>>,
}

/// The content of `checkpoint.json`. It counts only beside the records that it was written for.
#[derive(Serialize, Deserialize)]
struct Saved {
    #[serde(flatten)]
    checkpoint: Checkpoint,
    incarnation: Uuid,
}

impl Place {
    pub(crate) fn new(folder: PathBuf, disk: Disk, archive: bool) -> Self {
        Place {
            records: folder.join("records"),
            archive: archive.then(|| Archive::new(folder.join("log"))),
            folder,
            disk,
            lock: Mutex::default(),
            visible: RwLock::default(),
            keys: Mutex::default(),
            deletions: Mutex::default(),
        }
    }

    /// The folder itself.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the files of records are.
    pub(crate) fn records(&self) -> &Path {
        &self.records
    }

    /// Runs `work` as the only writer. A writer that failed begins again with clearing what it left unfinished.
    pub(crate) fn write<T>(&self, work: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.own(&mut lock)?;
        work(self).inspect_err(|_| {
            *lock = None;
            self.forget_keys();
        })
    }

    /// Gives up the right to write.
    pub(crate) fn release(&self) {
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Takes the right to write if this process does not have it, or if its folder is no longer the one it was.
    fn own(&self, lock: &mut MutexGuard<'_, Option<File>>) -> Result<()> {
        let path = self.folder.join(".lock");
        if lock.is_none() || !path.exists() {
            self.disk.create_folder(&self.folder)?;
            let file = File::create(&path).map_err(|e| error::io(&path, e))?;
            file.try_lock().map_err(|e| match e {
                TryLockError::WouldBlock => {
                    Error::new(ErrorKind::Unavailable, "another process writes to this folder")
                        .with("path", self.folder.display())
                        .hint("stop the other process, or talk to it with --url")
                }
                TryLockError::Error(e) => error::io(&path, e),
            })?;
            self.clear_unfinished()?;
            **lock = Some(file);
        }
        if self.incarnation()?.is_none() {
            self.disk.create_folder(&self.records)?;
            self.disk.replace(&self.marker(), Uuid::now_v7().to_string().as_bytes())?;
        }
        Ok(())
    }

    /// Removes what a writer left behind when it was stopped.
    fn clear_unfinished(&self) -> Result<()> {
        let mut folders = vec![self.folder.clone(), self.records.clone()];
        folders.extend(self.shards()?.into_iter().map(|shard| self.records.join(shard)));
        for folder in folders {
            for name in disk::names(&folder)?.iter().filter(|name| name.starts_with(TEMPORARY)) {
                let path = folder.join(name);
                if path.is_dir() {
                    self.disk.remove_folder(&path)?;
                } else {
                    self.disk.remove(&path)?;
                }
            }
        }
        self.archive.as_ref().map_or(Ok(()), |archive| archive.clear_unfinished(&self.disk))
    }

    /// Keeps writers from making anything visible while the caller looks.
    pub(crate) fn look(&self) -> RwLockReadGuard<'_, ()> {
        self.visible.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps readers from looking while the caller makes a batch visible.
    pub(crate) fn show(&self) -> RwLockWriteGuard<'_, ()> {
        self.visible.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn marker(&self) -> PathBuf {
        self.records.join(".incarnation")
    }

    /// Which life of the folder of records this is; `None` if it is gone.
    fn incarnation(&self) -> Result<Option<Uuid>> {
        let content = disk::read(&self.marker())?;
        Ok(content.and_then(|bytes| Uuid::try_parse_ascii(bytes.trim_ascii()).ok()))
    }

    /// The stored checkpoint. One that cannot be read, or was written for other records, is none: the records are
    /// then copied anew.
    pub(crate) fn checkpoint(&self) -> Result<Option<Checkpoint>> {
        let Some(content) = disk::read(&self.checkpoint_path())? else { return Ok(None) };
        let incarnation = self.incarnation()?;
        let saved = serde_json::from_slice::<Saved>(&content).ok();
        Ok(saved.filter(|s| Some(s.incarnation) == incarnation).map(|s| s.checkpoint))
    }

    /// Stores the checkpoint durably. Called by the only writer, after everything that the checkpoint stands for.
    pub(crate) fn save_checkpoint(&self, checkpoint: &Checkpoint) -> Result<()> {
        let incarnation = self.incarnation()?.ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, "the records were deleted from outside meanwhile")
                .with("path", self.records.display())
        })?;
        let saved = Saved { checkpoint: checkpoint.clone(), incarnation };
        let content = serde_json::to_vec_pretty(&saved)
            .map_err(|e| Error::internal("the checkpoint cannot be written").caused_by(e))?;
        self.disk.replace(&self.checkpoint_path(), &content)
    }

    fn checkpoint_path(&self) -> PathBuf {
        self.folder.join("checkpoint.json")
    }

    /// Everything up to here is in the files that a reader sees now; nothing for certain while the first copy is
    /// being made.
    pub(crate) fn position(&self) -> Result<Position> {
        let complete = self.checkpoint()?.filter(|c| c.backfill.is_none());
        Ok(complete.map_or(Position::ZERO, |c| c.position))
    }

    /// Forgets the records and the checkpoint: both are gone with one rename.
    pub(crate) fn reset(&self) -> Result<()> {
        let unfinished = self.disk.temporary(&self.folder);
        {
            let _alone = self.show();
            self.disk.rename(&self.records, &unfinished)?;
            self.disk.sync_folder(&self.folder)?;
            self.forget_keys();
            self.deletions().clear();
        }
        self.disk.remove(&self.checkpoint_path())?;
        self.disk.remove_folder(&unfinished)
    }

    /// What the file of a key says now; `None` if it is not there.
    pub(crate) fn read(&self, entity: &Entity, key: &Key) -> Result<Option<State>> {
        let path = codec::path(&self.records, key);
        let Some(content) = disk::read(&path)? else { return Ok(None) };
        let state = codec::decode(entity, key, &path, &content)?;
        if let State::Deleted(version) = state {
            self.deletions().insert(key.clone(), version);
        }
        Ok(Some(state))
    }

    /// The version of a key, also if it was deleted; `None` if there is no file, or one that nobody can read.
    pub(crate) fn head(&self, entity: &Entity, key: &Key) -> Result<Option<Head>> {
        let content = disk::read(&codec::path(&self.records, key))?;
        let head = content.and_then(|bytes| serde_json::from_slice::<Head>(&bytes).ok());
        Ok(head.filter(|h| Key::parse(entity, &h.key).ok().as_ref() == Some(key)))
    }

    /// The folders of shards that are there.
    pub(crate) fn shards(&self) -> Result<Vec<String>> {
        let mut names = disk::names(&self.records)?;
        names.retain(|name| codec::is_shard(name));
        Ok(names)
    }

    /// The keys that have a file in a shard, in no order; an error for each file whose key cannot be told.
    pub(crate) fn keys_in(&self, entity: &Entity, shard: &str) -> Result<Vec<Result<Key>>> {
        let folder = self.records.join(shard);
        let mut keys = Vec::new();
        for name in disk::names(&folder)? {
            let key = match codec::parse_name(entity, &name) {
                Named::Key(key) => Ok(key),
                Named::Hashed => match disk::read(&folder.join(&name))? {
                    Some(content) => codec::hashed_key(entity, &folder.join(&name), &content),
                    None => continue,
                },
                Named::Foreign => continue,
            };
            // A file in the folder of another shard is not found by its key, so it is not there for anybody.
            if key.as_ref().map_or(true, |key| codec::shard(key) == shard) {
                keys.push(key);
            }
        }
        Ok(keys)
    }

    /// At most `limit` keys after `after` that have, or had, a file; from the listing, which is made when a scan
    /// starts or if there is none. The caller holds [`Place::look`].
    pub(crate) fn keys_after(
        &self,
        entity: &Entity,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Key>> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if after.is_none() {
            *keys = None;
        }
        let listed = match keys.as_mut() {
            Some(listed) => listed,
            None => keys.insert(self.list(entity)?),
        };
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        Ok(listed.range::<Key, _>((start, Bound::Unbounded)).take(limit).cloned().collect())
    }

    fn list(&self, entity: &Entity) -> Result<BTreeSet<Key>> {
        let mut listed = BTreeSet::new();
        for shard in self.shards()? {
            listed.extend(self.keys_in(entity, &shard)?.into_iter().flatten());
        }
        Ok(listed)
    }

    /// Adds keys whose files were just written to the listing.
    pub(crate) fn add_keys<'a>(&self, written: impl Iterator<Item = &'a Key>) {
        if let Some(keys) = self.keys.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            keys.extend(written.cloned());
        }
    }

    fn forget_keys(&self) {
        *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The remembered deletions.
    pub(crate) fn deletions(&self) -> MutexGuard<'_, BTreeMap<Key, Version>> {
        self.deletions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
