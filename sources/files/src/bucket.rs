//! [`Bucket`]: files as objects of an S3-compatible store.
//!
//! An object is replaced at once, so nothing is prepared beside it. There is no lock: a writer names the state of
//! the object that it has seen, and the store refuses to write over another (`If-Match`, `If-None-Match`).

use std::collections::HashMap;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{StreamExt, TryStreamExt};
use object_store::path::Path as Location;
use object_store::{
    Error as Native, ListResult, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    UpdateVersion,
};
use tokio::runtime::Handle;
use unisono_core::{Error, ErrorKind, Result};

use crate::error;
use crate::store::{Found, Held, Listed, Right, Staged, Store, Tag, Tree};

/// How many requests are under way at the same time.
const PARALLEL: usize = 16;
/// The most bytes of objects that are kept in memory; beyond that it begins anew.
const KEPT_BYTES: usize = 64 << 20;
/// About the bytes of a copy beside its content.
const COPY_BYTES: usize = 256;
/// The object that shows, by refusing to be made twice, that the store keeps conditions.
const WITNESS: &str = ".unisono";

/// Objects of a bucket.
pub(crate) struct Bucket {
    objects: Arc<dyn ObjectStore>,
    /// Where requests run: callers are threads that wait.
    runtime: Handle,
    kept: Mutex<Kept>,
}

/// Copies of objects that questions have read, so that the next one reads only what has changed.
#[derive(Default)]
struct Kept {
    objects: HashMap<PathBuf, Found>,
    bytes: usize,
}

impl Kept {
    fn get(&self, path: &Path) -> Option<&Found> {
        self.objects.get(path)
    }

    fn keep(&mut self, path: &Path, found: &Found) {
        let size = |found: &Found| found.content.len() + COPY_BYTES;
        if self.bytes + size(found) > KEPT_BYTES {
            *self = Kept::default();
        }
        self.bytes += size(found);
        if let Some(before) = self.objects.insert(path.to_owned(), found.clone()) {
            self.bytes -= size(&before);
        }
    }
}

impl Bucket {
    /// Over the objects of a store; requests run on the given runtime.
    pub(crate) fn new(objects: Arc<dyn ObjectStore>, runtime: Handle) -> Self {
        Bucket { objects, runtime, kept: Mutex::default() }
    }

    /// Makes sure that the store can be reached, may be written, and keeps the conditions of writes.
    pub(crate) fn check(&self, root: &Path) -> Result<()> {
        let witness = root.join(WITNESS);
        let content = b"written by Unisono\n";
        if !self.replace_if(&witness, content, &Tag::Absent)? {
            return Ok(());
        }
        match self.replace_if(&witness, content, &Tag::Absent)? {
            false => Ok(()),
            true => Err(Error::unsupported("the store ignores the conditions of writes")
                .hint("use a store that knows If-Match and If-None-Match, or one of kind files")),
        }
    }

    /// The state of the object, now that it is written; `None` if it was not in the state that the mode names.
    fn put(&self, path: &Path, content: &[u8], mode: PutMode) -> Result<Option<Tag>> {
        let location = location(path)?;
        let options = PutOptions { mode, ..PutOptions::default() };
        let payload = content.to_vec().into();
        match self.runtime.block_on(self.objects.put_opts(&location, payload, options)) {
            Ok(done) => done.e_tag.map(|tag| Some(Tag::Is(tag))).ok_or_else(nameless),
            // Gone since it was seen: a state like any other.
            Err(Native::AlreadyExists { .. } | Native::Precondition { .. }) => Ok(None),
            Err(Native::NotFound { .. }) if self.is_there()? => Ok(None),
            Err(e) => Err(error::object(path, e)),
        }
    }

    fn put_if(&self, path: &Path, content: &[u8], seen: &Tag) -> Result<Option<Tag>> {
        let mode = match seen {
            Tag::Absent => PutMode::Create,
            Tag::Is(tag) => {
                PutMode::Update(UpdateVersion { e_tag: Some(tag.clone()), version: None })
            }
            Tag::Locked => PutMode::Overwrite,
        };
        self.put(path, content, mode)
    }

    /// Whether the bucket itself is there; fails if it is not.
    fn is_there(&self) -> Result<bool> {
        let listed = self.runtime.block_on(async { self.objects.list(None).next().await });
        match listed {
            None | Some(Ok(_)) => Ok(true),
            Some(Err(e)) => Err(error::object(Path::new("/"), e)),
        }
    }

    fn list(&self, folder: &Path) -> Result<ListResult> {
        let prefix = location(folder)?;
        let listed = self.objects.list_with_delimiter(Some(&prefix));
        self.runtime.block_on(listed).map_err(|e| error::object(folder, e))
    }

    /// All objects below a folder.
    fn below(&self, folder: &Path) -> Result<Vec<Location>> {
        Ok(self.listed(folder)?.into_iter().map(|object| object.location).collect())
    }

    fn listed(&self, folder: &Path) -> Result<Vec<ObjectMeta>> {
        let prefix = location(folder)?;
        let listed = self.objects.list(Some(&prefix));
        self.runtime.block_on(listed.try_collect()).map_err(|e| error::object(folder, e))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for Bucket {
    fn engine(&self) -> &'static str {
        "S3 (JSON, zstd)"
    }

    fn parallel(&self) -> (usize, usize) {
        (PARALLEL, PARALLEL)
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn probe(&self, root: &Path) -> Result<()> {
        match self.read(&root.join(WITNESS))? {
            Some(_) => Ok(()),
            // Deleted from outside together with everything else; the store answers all the same.
            None => self.is_there().map(drop),
        }
    }

    fn lock(&self, _: &Path) -> Result<Right> {
        Ok(Box::new(()))
    }

    fn is_locked(&self, _: &Path) -> bool {
        true
    }

    fn read(&self, path: &Path) -> Result<Option<Found>> {
        let location = location(path)?;
        let read = async {
            let answer = self.objects.get(&location).await?;
            let tag = answer.meta.e_tag.clone();
            Ok((tag, answer.bytes().await?))
        };
        match self.runtime.block_on(read) {
            Ok((tag, content)) => {
                let tag = tag.ok_or_else(nameless)?;
                Ok(Some(Found { content: content.into(), tag: Tag::Is(tag) }))
            }
            Err(Native::NotFound { .. }) => Ok(None),
            Err(e) => Err(error::object(path, e)),
        }
    }

    fn open(&self, path: &Path) -> Result<Box<dyn Read + Send>> {
        let found = self.read(path)?.ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, "an object was removed while it was to be read")
                .with("path", path.display())
        })?;
        Ok(Box::new(Cursor::new(found.content)))
    }

    fn names(&self, folder: &Path) -> Result<Vec<String>> {
        let listed = self.list(folder)?;
        let files = listed.objects.iter().filter_map(|object| object.location.filename());
        let folders = listed.common_prefixes.iter().filter_map(|prefix| prefix.filename());
        Ok(files.chain(folders).map(str::to_owned).collect())
    }

    fn tree(&self, folder: &Path) -> Result<Option<Tree>> {
        let above = location(folder)?;
        let mut tree = Tree::new();
        for object in self.listed(folder)? {
            let mut names = object.location.prefix_match(&above).into_iter().flatten();
            if let (Some(folder), Some(file), None) = (names.next(), names.next(), names.next()) {
                let state = Tag::Is(object.e_tag.ok_or_else(nameless)?);
                let files = tree.entry(folder.as_ref().to_owned()).or_default();
                files.push((file.as_ref().to_owned(), state));
            }
        }
        Ok(Some(tree))
    }

    fn read_as(&self, path: &Path, state: &Tag) -> Result<Option<Found>> {
        if let Some(found) = self.kept().get(path).filter(|found| found.tag == *state) {
            return Ok(Some(found.clone()));
        }
        let found = self.read(path)?;
        if let Some(found) = &found {
            self.kept().keep(path, found);
        }
        Ok(found)
    }

    fn files(&self, folder: &Path, end: &str) -> Result<Vec<Listed>> {
        let listed = self.list(folder)?.objects.into_iter().filter_map(|object| {
            let name = object.location.filename().filter(|name| name.ends_with(end))?;
            Some(Listed { name: name.to_owned(), bytes: object.size })
        });
        Ok(listed.collect())
    }

    fn create_folder(&self, _: &Path) -> Result<()> {
        Ok(())
    }

    fn stage(&self, path: PathBuf, content: Vec<u8>) -> Result<Staged> {
        Ok(Staged { path, held: Held::Here(content) })
    }

    fn publish(&self, staged: &Staged, seen: &Tag) -> Result<Option<Tag>> {
        match &staged.held {
            Held::Here(content) => self.put_if(&staged.path, content, seen),
            Held::Beside(_) => Err(Error::internal("a bucket holds nothing beside an object")),
        }
    }

    fn sync_folder(&self, _: &Path) -> Result<()> {
        Ok(())
    }

    fn replace_if(&self, path: &Path, content: &[u8], seen: &Tag) -> Result<bool> {
        Ok(self.put_if(path, content, seen)?.is_some())
    }

    fn replace(&self, path: &Path, content: &[u8]) -> Result<()> {
        self.put(path, content, PutMode::Overwrite).map(drop)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        let location = location(path)?;
        match self.runtime.block_on(self.objects.delete(&location)) {
            Ok(()) | Err(Native::NotFound { .. }) => Ok(()),
            Err(e) => Err(error::object(path, e)),
        }
    }

    fn remove_folder(&self, path: &Path) -> Result<()> {
        let all = futures::stream::iter(self.below(path)?.into_iter().map(Ok)).boxed();
        let removed = self.objects.delete_stream(all).filter(|done| {
            let gone = matches!(done, Err(Native::NotFound { .. }));
            std::future::ready(!gone)
        });
        let removed = self.runtime.block_on(removed.try_for_each(|_| std::future::ready(Ok(()))));
        removed.map_err(|e| error::object(path, e))
    }

    fn hide_folder(&self, path: &Path) -> Result<PathBuf> {
        Ok(path.to_owned())
    }

    /// Object by object: what is interrupted goes on under the next free name.
    fn move_folder(&self, from: &Path, name: &dyn Fn(u64) -> PathBuf) -> Result<()> {
        let mut free = None;
        for n in 0.. {
            if self.below(&name(n))?.is_empty() {
                free = Some(name(n));
                break;
            }
        }
        let (Some(free), above) = (free, location(from)?) else { return Ok(()) };
        let free = location(&free)?;
        for object in self.below(from)? {
            let Some(below) = object.prefix_match(&above) else { continue };
            let to = Location::from_iter(free.parts().chain(below));
            let moved = async {
                self.objects.copy(&object, &to).await?;
                self.objects.delete(&object).await
            };
            self.runtime.block_on(moved).map_err(|e| error::object(from, e))?;
        }
        Ok(())
    }

    fn clear_unfinished(&self, _: &Path) -> Result<()> {
        Ok(())
    }

    #[cfg(test)]
    fn probe_of_tests(&self) -> &crate::tests::Probe {
        unreachable!("the steps of a disk are watched")
    }
}

fn nameless() -> Error {
    Error::unsupported("the store names no states of objects (ETag)")
}

/// The name of an object: the path with its names as they are.
fn location(path: &Path) -> Result<Location> {
    let names: Vec<_> = path.components().map(|c| c.as_os_str().to_string_lossy()).collect();
    Location::parse(names.join("/"))
        .map_err(|e| Error::internal("a path is no name of an object").caused_by(e))
}
