//! [`Place`]: the folder of one entity: who may write, what readers see, the checkpoint, and the files of records.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde::{Deserialize, Serialize};
use unisono_core::source::Checkpoint;
use unisono_core::{Entity, Error, ErrorKind, Key, Position, Result, Uuid, Version};

use crate::archive::Archive;
use crate::codec::{self, Head, Named, State};
use crate::known::Known;
use crate::parallel::each;
use crate::store::{Found, Right, Store, Tag};

/// The folder of one entity.
pub(crate) struct Place {
    folder: PathBuf,
    records: PathBuf,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) archive: Option<Archive>,
    /// The right to write, once this process has taken it.
    lock: Mutex<Option<Right>>,
    /// Held by readers while they look, and by a writer while it makes a batch visible.
    visible: RwLock<()>,
    /// The keys that scans page through, once a scan has listed them.
    keys: Mutex<Option<BTreeSet<Key>>>,
    /// What is known of files without looking, where looking costs a request.
    known: Option<Known>,
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

/// A folder of records.
pub(crate) struct Shard {
    name: String,
    /// Its files by name and state, if they came with it.
    files: Option<Vec<(String, Tag)>>,
}

impl Place {
    pub(crate) fn new(folder: PathBuf, store: Arc<dyn Store>, archive: bool) -> Self {
        Place {
            records: folder.join("records"),
            archive: archive.then(|| Archive::new(folder.join("log"))),
            folder,
            known: store.is_shared().then(Known::default),
            store,
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
    fn own(&self, lock: &mut MutexGuard<'_, Option<Right>>) -> Result<()> {
        if lock.is_none() || !self.store.is_locked(&self.folder) {
            let right = self.store.lock(&self.folder)?;
            self.clear_unfinished()?;
            **lock = Some(right);
        }
        if self.incarnation()?.is_none() {
            self.forget_keys();
            self.store.create_folder(&self.records)?;
            self.store.replace(&self.marker(), Uuid::now_v7().to_string().as_bytes())?;
        }
        Ok(())
    }

    /// Removes what a writer left behind when it was stopped.
    fn clear_unfinished(&self) -> Result<()> {
        let mut folders = vec![self.folder.clone(), self.records.clone()];
        folders.extend(self.shards()?.into_iter().map(|shard| self.records.join(shard.name)));
        for folder in folders {
            self.store.clear_unfinished(&folder)?;
        }
        self.archive.as_ref().map_or(Ok(()), |archive| archive.clear_unfinished(&*self.store))
    }

    /// Keeps writers from making anything visible while the caller looks.
    pub(crate) fn look(&self) -> RwLockReadGuard<'_, ()> {
        self.visible.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps readers of this process from looking while the caller makes a batch visible. Where other processes write
    /// too, readers see parts of a batch in any case, and do not wait.
    pub(crate) fn show(&self) -> Option<RwLockWriteGuard<'_, ()>> {
        let wait = || self.visible.write().unwrap_or_else(PoisonError::into_inner);
        (!self.store.is_shared()).then(wait)
    }

    fn marker(&self) -> PathBuf {
        self.records.join(".incarnation")
    }

    /// Which life of the folder of records this is; `None` if it is gone.
    fn incarnation(&self) -> Result<Option<Uuid>> {
        let found = self.store.read(&self.marker())?;
        Ok(found.and_then(|found| Uuid::try_parse_ascii(found.content.trim_ascii()).ok()))
    }

    /// The stored checkpoint. One that cannot be read, or was written for other records, is none: the records are
    /// then copied anew.
    pub(crate) fn checkpoint(&self) -> Result<Option<Checkpoint>> {
        Ok(self.tagged_checkpoint()?.0)
    }

    /// The stored checkpoint, and the state of its file.
    pub(crate) fn tagged_checkpoint(&self) -> Result<(Option<Checkpoint>, Tag)> {
        let Some(found) = self.store.read(&self.checkpoint_path())? else {
            return Ok((None, Tag::Absent));
        };
        let incarnation = self.incarnation()?;
        let saved = serde_json::from_slice::<Saved>(&found.content).ok();
        let saved = saved.filter(|s| Some(s.incarnation) == incarnation);
        Ok((saved.map(|s| s.checkpoint), found.tag))
    }

    /// Stores the checkpoint durably, after everything that it stands for; `checkpoint_moved` if another writer has
    /// stored one since its file was in the state `seen`.
    pub(crate) fn save_checkpoint(&self, checkpoint: &Checkpoint, seen: &Tag) -> Result<()> {
        let incarnation = self.incarnation()?.ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, "the records were deleted from outside meanwhile")
                .with("path", self.records.display())
        })?;
        let saved = Saved { checkpoint: checkpoint.clone(), incarnation };
        let content = serde_json::to_vec_pretty(&saved)
            .map_err(|e| Error::internal("the checkpoint cannot be written").caused_by(e))?;
        let replaced = self.store.replace_if(&self.checkpoint_path(), &content, seen)?;
        // A write that was repeated after its answer was lost meets what it wrote itself.
        if replaced || self.checkpoint()?.as_ref() == Some(checkpoint) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::CheckpointMoved, "another writer has moved the checkpoint"))
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

    /// Forgets the records and the checkpoint: on a disk, both are gone with one rename.
    pub(crate) fn reset(&self) -> Result<()> {
        let hidden = {
            let _alone = self.show();
            let hidden = self.store.hide_folder(&self.records)?;
            self.forget_keys();
            self.deletions().clear();
            hidden
        };
        self.store.remove(&self.checkpoint_path())?;
        self.store.remove_folder(&hidden)
    }

    /// What the file of a key says now; `None` if it is not there.
    pub(crate) fn read(&self, entity: &Entity, key: &Key) -> Result<Option<State>> {
        let found = self.store.read(&codec::path(&self.records, key))?;
        self.decode(entity, key, found)
    }

    /// The same for a file that was just listed in a state.
    pub(crate) fn read_as(&self, entity: &Entity, key: &Key, state: &Tag) -> Result<Option<State>> {
        let found = self.store.read_as(&codec::path(&self.records, key), state)?;
        self.decode(entity, key, found)
    }

    fn decode(&self, entity: &Entity, key: &Key, found: Option<Found>) -> Result<Option<State>> {
        let Some(found) = found else { return Ok(None) };
        let state = codec::decode(entity, key, &codec::path(&self.records, key), &found.content)?;
        if let State::Deleted(version) = state {
            self.deletions().insert(key.clone(), version);
        }
        Ok(Some(state))
    }

    /// The version of a key, also if it was deleted, and the state of its file; no version if there is no file, or
    /// one that nobody can read.
    pub(crate) fn head(&self, entity: &Entity, key: &Key) -> Result<(Option<Head>, Tag)> {
        let Some(found) = self.store.read(&codec::path(&self.records, key))? else {
            return Ok((None, Tag::Absent));
        };
        let head = serde_json::from_slice::<Head>(&found.content).ok();
        let head = head.filter(|h| Key::parse(entity, &h.key).ok().as_ref() == Some(key));
        Ok((head, found.tag))
    }

    /// The version of a key for which there is `news`, also if it was deleted, and the state of its file, as far as they
    /// are known: the store refuses what is written over another state. Where nothing would be written, because what is
    /// known is as new, the file is looked at: it may have come back as it was before. A first copy finds most files
    /// absent; those are not looked for.
    pub(crate) fn version(
        &self,
        entity: &Entity,
        key: &Key,
        news: Version,
        is_first_copy: bool,
    ) -> Result<(Option<Version>, Tag)> {
        if let Some(known) = &self.known {
            if let Some((version, tag)) = known.get(key).filter(|(version, _)| *version < news) {
                return Ok((Some(version), tag));
            }
            if is_first_copy && !self.is_listed(entity, key)? {
                return Ok((None, Tag::Absent));
            }
        }
        let (head, tag) = self.head(entity, key)?;
        let version = head.map(|head| head.version);
        self.remember(key, version.map(|version| (version, tag.clone())));
        Ok((version, tag))
    }

    /// Takes note of what the file of a key is now; `None` if that is not known.
    pub(crate) fn remember(&self, key: &Key, state: Option<(Version, Tag)>) {
        match (&self.known, state) {
            (Some(known), Some((version, tag))) => known.set(key, version, tag),
            (Some(known), None) => known.forget(key),
            (None, _) => {}
        }
    }

    fn is_listed(&self, entity: &Entity, key: &Key) -> Result<bool> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let listed = match keys.as_mut() {
            Some(listed) => listed,
            None => keys.insert(self.list(entity)?),
        };
        Ok(listed.contains(key))
    }

    /// The folders of shards that are there.
    pub(crate) fn shards(&self) -> Result<Vec<Shard>> {
        let mut shards: Vec<Shard> = match self.store.tree(&self.records)? {
            Some(tree) => {
                tree.into_iter().map(|(name, files)| Shard { name, files: Some(files) }).collect()
            }
            None => {
                let names = self.store.names(&self.records)?;
                names.into_iter().map(|name| Shard { name, files: None }).collect()
            }
        };
        shards.retain(|shard| codec::is_shard(&shard.name));
        Ok(shards)
    }

    /// The keys that have a file in a shard, in no order; an error for each file whose key cannot be told.
    pub(crate) fn keys_in(
        &self,
        entity: &Entity,
        shard: &Shard,
    ) -> Result<Vec<Result<(Key, Tag)>>> {
        let folder = self.records.join(&shard.name);
        let names = match &shard.files {
            Some(files) => files.clone(),
            None => {
                let names = self.store.names(&folder)?;
                names.into_iter().map(|name| (name, Tag::Locked)).collect()
            }
        };
        let mut keys = Vec::new();
        for (name, state) in names {
            let key = match codec::parse_name(entity, &name) {
                Named::Key(key) => Ok(key),
                Named::Hashed => match self.store.read(&folder.join(&name))? {
                    Some(found) => codec::hashed_key(entity, &folder.join(&name), &found.content),
                    None => continue,
                },
                Named::Foreign => continue,
            };
            // A file in the folder of another shard is not found by its key, so it is not there for anybody.
            if key.as_ref().map_or(true, |key| codec::shard(key) == shard.name) {
                keys.push(key.map(|key| (key, state)));
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
        let (readers, _) = self.store.parallel();
        let shards = each(&self.shards()?, readers, |shard| self.keys_in(entity, shard))?;
        Ok(shards.into_iter().flatten().flatten().map(|(key, _)| key).collect())
    }

    /// Adds keys whose files were just written to the listing.
    pub(crate) fn add_keys<'a>(&self, written: impl Iterator<Item = &'a Key>) {
        if let Some(keys) = self.keys.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            keys.extend(written.cloned());
        }
    }

    fn forget_keys(&self) {
        self.known.iter().for_each(Known::clear);
        *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The remembered deletions.
    pub(crate) fn deletions(&self) -> MutexGuard<'_, BTreeMap<Key, Version>> {
        self.deletions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
