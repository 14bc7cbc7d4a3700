//! One entity's index: opening, noticing that it was deleted, committing, and the snapshot that readers use.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use serde::{Deserialize, Serialize};
use tantivy::indexer::IndexWriterOptions;
use tantivy::merge_policy::{LogMergePolicy, NoMergePolicy};
use tantivy::{Index, IndexReader, IndexSettings, IndexWriter, ReloadPolicy, Searcher};
use tokio::sync::Semaphore;
use unisono_core::source::Checkpoint;
use unisono_core::{Effect, Entity, Error, ErrorKind, Position, Result, Version};

use crate::error::{Fault, OrError, fault, unreadable};
use crate::folder::{clear, identity};
use crate::schema::{Layout, conflict, difference};
use crate::tokenizer::{self, Words};

/// How many blocks of stored records a segment keeps uncompressed, each of about 16 KB.
const BLOCKS_KEPT: usize = 16;

/// What is committed together with the records, in the engine's commit payload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Meta {
    /// [`Layout::fingerprint`] of the layout that wrote the index.
    pub(crate) layout: String,
    /// Up to where everything has been applied.
    pub(crate) checkpoint: Option<Checkpoint>,
    /// Deletions that must be remembered: text of the key, version.
    pub(crate) deleted: Vec<(String, Version)>,
}

/// One committed state: what readers see, with the checkpoint that belongs to it.
pub(crate) struct Snapshot {
    /// The layout of the index.
    pub(crate) layout: Arc<Layout>,
    /// The records.
    pub(crate) searcher: Searcher,
    checkpoint: Option<Checkpoint>,
}

impl Snapshot {
    /// Everything up to here is in the snapshot; zero while the first copy is being made.
    pub(crate) fn position(&self) -> Position {
        match &self.checkpoint {
            Some(Checkpoint { position, backfill: None, .. }) => *position,
            _ => Position::ZERO,
        }
    }
}

/// The opened index, for the one who writes.
pub(crate) struct Open {
    index: Index,
    reader: IndexReader,
    writer: Option<IndexWriter>,
    folder: (u64, u64),
    payload: String,
    /// What was committed last.
    pub(crate) meta: Meta,
    /// The state that was committed last.
    pub(crate) snapshot: Arc<Snapshot>,
}

/// One entity's index.
pub(crate) struct Handle {
    /// Name of the source.
    pub(crate) source: Arc<str>,
    /// The layout of the index.
    pub(crate) layout: Arc<Layout>,
    path: PathBuf,
    writer_memory: usize,
    open: Mutex<Option<Open>>,
    snapshot: RwLock<Option<Arc<Snapshot>>>,
    readers: Semaphore,
    closed: std::sync::atomic::AtomicBool,
}

impl Handle {
    /// A handle for an index that is not open yet.
    pub(crate) fn new(
        source: &Arc<str>,
        entity: &Arc<Entity>,
        path: PathBuf,
        writer_memory: usize,
    ) -> Self {
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        Handle {
            source: Arc::clone(source),
            layout: Arc::new(Layout::new(entity)),
            path,
            writer_memory,
            open: Mutex::new(None),
            snapshot: RwLock::new(None),
            readers: Semaphore::new(threads * 4),
            closed: false.into(),
        }
    }

    /// Does blocking work on a thread of its own, on the snapshot of this moment.
    pub(crate) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        operation: &'static str,
        work: impl FnOnce(&Snapshot) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let place = |e: Error| self.place(e, operation);
        let _permit = self.readers.acquire().await.map_err(|_| place(closed()))?;
        let snapshot = self.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone();
        let snapshot = snapshot.ok_or_else(|| place(closed()))?;
        let done = tokio::task::spawn_blocking(move || work(&snapshot)).await;
        // The engine panics over some kinds of damaged files.
        done.unwrap_or_else(|e| Err(unreadable("reading the search index panicked").caused_by(e)))
            .map_err(place)
    }

    /// Does blocking work on a thread of its own, alone, on the index as it is on disk.
    pub(crate) async fn write<T: Send + 'static>(
        self: &Arc<Self>,
        operation: &'static str,
        work: impl FnOnce(&Handle, &mut Open) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let handle = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || {
            let mut guard = handle.lock();
            let open = handle.ensure(&mut guard, &mut Vec::new())?;
            let result = work(&handle, open);
            if result.as_ref().is_err_and(|e| e.effect_on_data() == Effect::Unknown) {
                // What the engine has gathered is unknown: the next call starts from the disk.
                handle.shut(&mut guard);
            }
            result
        })
        .await;
        done.unwrap_or_else(|e| {
            Err(unreadable("writing the search index panicked")
                .effect(Effect::Unknown)
                .caused_by(e))
        })
        .map_err(|e| self.place(e, operation))
    }

    /// Opens the index, making it if needed; tells what was done.
    pub(crate) async fn prepare(self: &Arc<Self>) -> Result<Vec<String>> {
        let handle = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || {
            let mut report = Vec::new();
            handle.ensure(&mut handle.lock(), &mut report)?;
            Ok(report)
        });
        let done = done.await.unwrap_or_else(|e| Err(Error::internal("panicked").caused_by(e)));
        done.map_err(|e| self.place(e, "prepare"))
    }

    /// Forgets everything.
    pub(crate) async fn reset(self: &Arc<Self>) -> Result<()> {
        let handle = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || {
            let mut guard = handle.lock();
            handle.shut(&mut guard);
            clear(&handle.path)?;
            handle.ensure(&mut guard, &mut Vec::new()).map(|_| ())
        });
        let done = done.await.unwrap_or_else(|e| Err(Error::internal("panicked").caused_by(e)));
        done.map_err(|e| self.place(e, "reset").effect(Effect::Unknown))
    }

    /// Lets go of the index; afterwards calls fail with `unavailable`.
    pub(crate) async fn close(self: &Arc<Self>) {
        self.closed.store(true, std::sync::atomic::Ordering::SeqCst);
        let handle = Arc::clone(self);
        let shut = tokio::task::spawn_blocking(move || handle.shut(&mut handle.lock()));
        // A panic while closing leaves nothing to be done: what was committed is on disk.
        let _ = shut.await;
        *self.snapshot.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether the index is in a folder.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        self.path == path
    }

    /// Bytes on disk.
    pub(crate) fn bytes(&self) -> u64 {
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        entries.filter_map(|e| e.metadata().ok()).map(|m| m.len()).sum()
    }

    fn place(&self, e: Error, operation: &'static str) -> Error {
        e.on(operation).at(&self.source).of(self.layout.entity.name())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(|poisoned| {
            // Somebody panicked half-way through a batch: nothing of it may be committed later.
            self.open.clear_poison();
            let mut guard = poisoned.into_inner();
            self.shut(&mut guard);
            guard
        })
    }

    /// The open index, if the folder still holds what was committed last; else what the folder holds now.
    fn ensure<'a>(
        &self,
        open: &'a mut Option<Open>,
        report: &mut Vec<String>,
    ) -> Result<&'a mut Open> {
        if self.closed.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(closed());
        }
        if let Some(current) = open
            && !current.is_on_disk(&self.path)?
        {
            self.shut(open);
        }
        if open.is_none() {
            *open = Some(self.open_or_create(report)?);
        }
        let open = open.as_mut().ok_or_else(|| Error::internal("the index is not open"))?;
        *self.snapshot.write().unwrap_or_else(PoisonError::into_inner) =
            Some(Arc::clone(&open.snapshot));
        Ok(open)
    }

    /// Drops the handles, and waits for merges, so that none can write into a folder that is made anew.
    fn shut(&self, open: &mut Option<Open>) {
        let Some(writer) = open.take().and_then(|o| o.writer) else { return };
        writer.set_merge_policy(Box::new(NoMergePolicy));
        // The outcome does not matter: a merge changes no content, and what was not committed is given up.
        let _ = writer.wait_merging_threads();
    }

    fn open_or_create(&self, report: &mut Vec<String>) -> Result<Open> {
        fs::create_dir_all(&self.path).or_error()?;
        let (place, layout) = (self.path.display(), self.layout.fingerprint());
        if self.path.join("meta.json").exists() {
            let opened = catch_unwind(AssertUnwindSafe(|| self.open_existing()));
            let opened = opened.unwrap_or_else(|_| {
                Err(tantivy::TantivyError::InternalError("panicked".to_owned()))
            });
            match opened {
                Ok(open) if open.meta.layout == layout => return Ok(open),
                Ok(open) => {
                    if let Some((was, is)) = conflict(&open.meta.layout, &layout) {
                        return Err(Error::new(
                            ErrorKind::SchemaMismatch,
                            "a field has another type",
                        )
                        .with("indexed", was)
                        .with("declared", is)
                        .hint(format!(
                            "delete the folder {place}: it is built anew from the truth"
                        )));
                    }
                    let changes = difference(&open.meta.layout, &layout);
                    report.push(format!(
                        "index {place} is made anew, because the fields changed: {changes}"
                    ));
                }
                Err(e) if matches!(fault(&e), Fault::Machine | Fault::Locked) => {
                    return Err(e).or_error();
                }
                Err(e) => report
                    .push(format!("index {place} is made anew, because it cannot be read: {e}")),
            }
            clear(&self.path)?;
        } else {
            report.push(format!("index {place} is made"));
        }
        self.create().or_error()
    }

    fn open_existing(&self) -> tantivy::Result<Open> {
        let index = Index::open_in_dir(&self.path)?;
        self.opened(index, None)
    }

    /// Makes an empty index whose first commit says by which layout it was made.
    fn create(&self) -> tantivy::Result<Open> {
        let settings = IndexSettings {
            // Every thread more keeps memory of its own after its work.
            docstore_compress_dedicated_thread: false,
            ..IndexSettings::default()
        };
        let schema = self.layout.schema.clone();
        let index = Index::builder().schema(schema).settings(settings).create_in_dir(&self.path)?;
        let mut writer = self.writer(&index)?;
        let meta = Meta { layout: self.layout.fingerprint(), ..Meta::default() };
        let mut commit = writer.prepare_commit()?;
        commit.set_payload(&serde_json::to_string(&meta)?);
        commit.commit()?;
        self.opened(index, Some(writer))
    }

    fn opened(&self, index: Index, writer: Option<IndexWriter>) -> tantivy::Result<Open> {
        index.tokenizers().register(tokenizer::NAME, Words);
        let payload = index.load_metas()?.payload.unwrap_or_default();
        // An index without our payload was not made by us to the end: it has no layout and is made anew.
        let meta: Meta = serde_json::from_str(&payload).unwrap_or_default();
        let reader = index
            .reader_builder()
            .reload_policy(ReloadPolicy::Manual)
            .doc_store_cache_num_blocks(BLOCKS_KEPT)
            .try_into()?;
        let snapshot = self.snapshot_of(&reader, &meta);
        let folder = identity(&self.path)?;
        Ok(Open { index, reader, writer, folder, payload, meta, snapshot })
    }

    fn snapshot_of(&self, reader: &IndexReader, meta: &Meta) -> Arc<Snapshot> {
        Arc::new(Snapshot {
            layout: Arc::clone(&self.layout),
            searcher: reader.searcher(),
            checkpoint: meta.checkpoint.clone(),
        })
    }

    /// One thread that indexes and one that merges: a batch is small, and other entities want the cores too.
    fn writer(&self, index: &Index) -> tantivy::Result<IndexWriter> {
        let options = IndexWriterOptions::builder()
            .memory_budget_per_thread(self.writer_memory)
            .num_worker_threads(1)
            .num_merge_threads(1)
            .build();
        let writer = index.writer_with_options(options)?;
        let mut policy = LogMergePolicy::default();
        policy.set_min_layer_size(1_000);
        policy.set_level_log_size(2.0);
        policy.set_del_docs_ratio_before_merge(0.4);
        writer.set_merge_policy(Box::new(policy));
        // A process that ended before its commit leaves files of the very names that the next commit will use.
        writer.garbage_collect_files().wait()?;
        Ok(writer)
    }

    /// The writer, opened when the first change comes.
    pub(crate) fn writer_of<'a>(&self, open: &'a mut Open) -> Result<&'a mut IndexWriter> {
        if open.writer.is_none() {
            open.writer = Some(self.writer(&open.index).or_error()?);
        }
        open.writer.as_mut().ok_or_else(|| Error::internal("the writer is not open"))
    }

    /// Commits what the writer has gathered together with `meta`, and shows it to readers.
    pub(crate) fn commit(&self, open: &mut Open, meta: Meta) -> Result<()> {
        let payload = serde_json::to_string(&meta)
            .map_err(|e| Error::internal("the commit cannot be encoded").caused_by(e))?;
        let mut commit = self.writer_of(open)?.prepare_commit().or_error()?;
        commit.set_payload(&payload);
        commit.commit().or_error()?;
        open.reader.reload().or_error()?;
        open.payload = payload;
        open.snapshot = self.snapshot_of(&open.reader, &meta);
        open.meta = meta;
        *self.snapshot.write().unwrap_or_else(PoisonError::into_inner) =
            Some(Arc::clone(&open.snapshot));
        Ok(())
    }
}

impl Open {
    /// Whether the folder is the one that was opened, with what was committed last.
    fn is_on_disk(&self, path: &Path) -> Result<bool> {
        let same = || {
            Ok(identity(path)? == self.folder
                && self.index.load_metas()?.payload.as_deref() == Some(&self.payload))
        };
        match same() {
            Err(e) if matches!(fault(&e), Fault::Gone | Fault::Unreadable) => Ok(false),
            other => other.or_error(),
        }
    }
}

/// What every call gets once the source is closed.
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "the source is closed")
}
