//! The archive: every change of an entity that the log delivered, as compressed JSON Lines in numbered segments.
//!
//! A segment is named after its first and last position. Each is written whole, before the checkpoint moves; what a
//! crash left beyond the checkpoint is removed before the same changes come again, so none is there twice.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use unisono_core::source::Advance;
use unisono_core::{Change, Entity, Error, Key, Operation, Position, Result, Uuid, Version, json};

use crate::disk::Disk;
use crate::error::{corrupt, io};
use crate::store::{Listed, Store};

const EXTENSION: &str = ".jsonl.zst";
/// Segments below this many bytes are joined when there are too many of them.
const SMALL_BYTES: u64 = 8 << 20;
/// How many small segments may lie at the end of the archive.
const SMALL_MAX: usize = 64;
const ZSTD_LEVEL: i32 = 3;

/// One archived change, as it stands in its line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its place in the log.
    pub position: Position,
    /// The kind of record.
    pub entity: String,
    /// The text of the key.
    pub key: String,
    /// `put` or `delete`.
    pub operation: String,
    /// The version that was replaced; absent if the record was new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced: Option<Version>,
    /// The record after the change; absent for a delete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Json>,
    /// When the request was taken, RFC 3339.
    pub time: String,
    /// Who asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// Trace of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

impl Entry {
    fn of(entity: &Entity, change: &Change) -> Self {
        Entry {
            position: change.position,
            entity: change.entity.to_string(),
            key: change.key.to_string(),
            operation: change.operation.as_str().to_owned(),
            replaced: change.replaced,
            image: change.image.as_deref().map(|record| json::to_json(entity, record)),
            time: change.time.to_string(),
            actor: change.actor.as_deref().map(str::to_owned),
            trace: change.trace.as_deref().map(str::to_owned),
        }
    }

    /// The change itself, by the entity as it is declared now; fails if the two no longer fit.
    pub fn change(&self, entity: &Entity) -> Result<Change> {
        let operation = Operation::parse(&self.operation).ok_or_else(|| {
            Error::invalid("is not an operation").with("operation", &self.operation)
        })?;
        let image = self.image.as_ref().map(|image| json::parse(entity, image)).transpose()?;
        Ok(Change {
            position: self.position,
            entity: self.entity.as_str().into(),
            key: Key::parse(entity, &self.key)?,
            operation,
            replaced: self.replaced,
            image: image.map(Arc::new),
            time: self.time.parse()?,
            actor: self.actor.as_deref().map(Into::into),
            trace: self.trace.as_deref().map(Into::into),
        })
    }
}

/// The archived changes after a position, in the order of the log, each once.
///
/// `folder` is the `log` folder of an entity; one that is not there is an empty archive. Fails with `unavailable` if
/// a file cannot be read, `corrupt` if it cannot be decoded; after a failure the iterator ends.
pub fn read(folder: &Path, after: Position) -> Result<impl Iterator<Item = Result<Entry>> + use<>> {
    read_in(Arc::new(Disk::new(false)), folder, after)
}

/// The same in any store.
pub(crate) fn read_in(
    store: Arc<dyn Store>,
    folder: &Path,
    after: Position,
) -> Result<impl Iterator<Item = Result<Entry>> + use<>> {
    let mut segments = segments(&*store, folder)?.into_iter();
    let mut lines: Option<Lines> = None;
    let mut last = after;
    let mut next = move || -> Result<Option<Entry>> {
        loop {
            if let Some(open) = &mut lines {
                match open.next_entry()? {
                    Some(entry) if entry.position <= last => continue,
                    Some(entry) => {
                        last = entry.position;
                        return Ok(Some(entry));
                    }
                    None => lines = None,
                }
            }
            match segments.find(|segment| segment.last > last) {
                Some(segment) => lines = Some(Lines::open(&*store, segment.path)?),
                None => return Ok(None),
            }
        }
    };
    let mut failed = false;
    Ok(std::iter::from_fn(move || {
        if failed {
            return None;
        }
        let entry = next();
        failed = entry.is_err();
        entry.transpose()
    }))
}

/// The archive of one entity, as its only writer uses it.
pub(crate) struct Archive {
    folder: PathBuf,
}

impl Archive {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Archive { folder }
    }

    /// Adds the changes of a batch durably, in place of whatever is there beyond the checkpoint that it begins at.
    pub(crate) fn append(
        &self,
        store: &dyn Store,
        entity: &Entity,
        changes: &[Arc<Change>],
        advance: &Advance,
    ) -> Result<()> {
        self.adopt(store, advance.to.log)?;
        // The position of an unfinished first copy says nothing about what was delivered from the log.
        let from = advance.from.as_ref().filter(|from| from.backfill.is_none());
        let after_checkpoint = from.map(|from| from.position.next());
        let first = changes.first().map(|change| change.position);
        // What lies beyond may be of another writer, who has come further; a change that stands in two segments is
        // the same in both, and is read once.
        if let Some(start) = after_checkpoint.into_iter().chain(first).min()
            && !store.is_shared()
        {
            self.cut(store, start)?;
        }
        self.join_small(store)?;
        if changes.is_empty() {
            return Ok(());
        }
        let mut segment = Writer::new()?;
        for change in changes {
            segment.add(&Entry::of(entity, change))?;
        }
        segment.finish(store, &self.folder).map(drop)
    }

    /// Removes what an interrupted writer left: unfinished files, and segments whose changes are also in another.
    pub(crate) fn clear_unfinished(&self, store: &dyn Store) -> Result<()> {
        store.clear_unfinished(&self.folder)?;
        let mut covered = None;
        for segment in segments(store, &self.folder)? {
            if covered.is_some_and(|last| segment.last <= last) {
                store.remove(&segment.path)?;
            } else {
                covered = Some(segment.last);
            }
        }
        Ok(())
    }

    /// Makes the folder that of `log`. Positions of another log mean nothing in it: its archive is set aside.
    fn adopt(&self, store: &dyn Store, log: Uuid) -> Result<()> {
        let marker = self.folder.join(".log");
        if let Some(found) = store.read(&marker)? {
            let found = Uuid::try_parse_ascii(found.content.trim_ascii())
                .map_err(|e| corrupt(&marker, e))?;
            if found == log {
                return Ok(());
            }
            let aside = |n| self.folder.with_file_name(format!("log-{found}-{n}"));
            store.move_folder(&self.folder, &aside)?;
        }
        store.create_folder(&self.folder)?;
        store.replace(&marker, log.to_string().as_bytes())
    }

    /// Removes every change from a position on.
    fn cut(&self, store: &dyn Store, start: Position) -> Result<()> {
        let mut removed = false;
        let found = segments(store, &self.folder)?;
        for segment in found.into_iter().filter(|segment| segment.last >= start) {
            if segment.first < start {
                let mut kept = Writer::new()?;
                let mut lines = Lines::open(store, segment.path.clone())?;
                while let Some(entry) = lines.next_entry()?.filter(|entry| entry.position < start) {
                    kept.add(&entry)?;
                }
                kept.finish(store, &self.folder)?;
            }
            store.remove(&segment.path)?;
            removed = true;
        }
        if removed { store.sync_folder(&self.folder) } else { Ok(()) }
    }

    /// Joins the small segments at the end, if there are too many, into segments that are no longer small.
    fn join_small(&self, store: &dyn Store) -> Result<()> {
        let mut small = segments(store, &self.folder)?;
        let large = small.iter().rposition(|segment| segment.bytes >= SMALL_BYTES);
        small.drain(..large.map_or(0, |n| n + 1));
        if small.len() <= SMALL_MAX {
            return Ok(());
        }
        let mut joined = Writer::new()?;
        let mut parts = Vec::new();
        for segment in small {
            joined.add_all(store, &segment)?;
            parts.push(segment.path);
            // Never one alone: it would get the name that it has, and then be removed.
            if parts.len() > 1 && joined.bytes() >= SMALL_BYTES {
                let whole = std::mem::replace(&mut joined, Writer::new()?);
                remove_parts(store, &mut parts, whole.finish(store, &self.folder)?)?;
            }
        }
        if parts.len() > 1 {
            remove_parts(store, &mut parts, joined.finish(store, &self.folder)?)?;
        }
        store.sync_folder(&self.folder)
    }
}

/// Removes segments that another now holds; one that already held all the others had its name, and stays.
fn remove_parts(store: &dyn Store, parts: &mut Vec<PathBuf>, whole: Option<PathBuf>) -> Result<()> {
    let mut others = parts.drain(..).filter(|path| Some(path) != whole.as_ref());
    others.try_for_each(|path| store.remove(&path))
}

struct Segment {
    first: Position,
    last: Position,
    path: PathBuf,
    bytes: u64,
}

/// The segments of an archive by their first position; of those with the same, the longest first.
fn segments(store: &dyn Store, folder: &Path) -> Result<Vec<Segment>> {
    let mut found = Vec::new();
    for Listed { name, bytes } in store.files(folder, EXTENSION)? {
        let bounds = name.strip_suffix(EXTENSION).and_then(|stem| stem.split_once('-'));
        let Some((Ok(first), Ok(last))) = bounds.map(|(first, last)| (first.parse(), last.parse()))
        else {
            continue;
        };
        found.push(Segment { first, last, path: folder.join(&name), bytes });
    }
    found.sort_by_key(|segment| (segment.first, std::cmp::Reverse(segment.last)));
    Ok(found)
}

/// Reads the lines of one segment.
struct Lines {
    path: PathBuf,
    input: BufReader<zstd::Decoder<'static, BufReader<Box<dyn Read + Send>>>>,
    line: String,
}

impl Lines {
    fn open(store: &dyn Store, path: PathBuf) -> Result<Self> {
        let file = store.open(&path)?;
        let input = BufReader::new(zstd::Decoder::new(file).map_err(|e| io(&path, e))?);
        Ok(Lines { path, input, line: String::new() })
    }

    fn next_entry(&mut self) -> Result<Option<Entry>> {
        self.line.clear();
        if self.input.read_line(&mut self.line).map_err(|e| corrupt(&self.path, e))? == 0 {
            return Ok(None);
        }
        serde_json::from_str(&self.line).map(Some).map_err(|e| corrupt(&self.path, e))
    }
}

/// Writes one segment: in memory, then whole.
struct Writer {
    output: zstd::Encoder<'static, Vec<u8>>,
    first: Option<Position>,
    last: Position,
}

impl Writer {
    fn new() -> Result<Self> {
        let mut output = zstd::Encoder::new(Vec::new(), ZSTD_LEVEL).map_err(unwritable)?;
        output.include_checksum(true).map_err(unwritable)?;
        Ok(Writer { output, first: None, last: Position::ZERO })
    }

    fn add(&mut self, entry: &Entry) -> Result<()> {
        serde_json::to_writer(&mut self.output, entry).map_err(|e| unwritable(e.into()))?;
        self.output.write_all(b"\n").map_err(unwritable)?;
        self.extend(entry.position, entry.position);
        Ok(())
    }

    fn add_all(&mut self, store: &dyn Store, segment: &Segment) -> Result<()> {
        let file = store.open(&segment.path)?;
        zstd::stream::copy_decode(file, &mut self.output).map_err(|e| corrupt(&segment.path, e))?;
        self.extend(segment.first, segment.last);
        Ok(())
    }

    fn extend(&mut self, first: Position, last: Position) {
        self.first.get_or_insert(first);
        self.last = self.last.max(last);
    }

    /// Compressed bytes so far.
    fn bytes(&self) -> u64 {
        self.output.get_ref().len() as u64
    }

    /// Makes the segment appear durably under its name, which is answered; nothing if it is empty.
    fn finish(self, store: &dyn Store, folder: &Path) -> Result<Option<PathBuf>> {
        let Some(first) = self.first else { return Ok(None) };
        let content = self.output.finish().map_err(unwritable)?;
        let name = format!("{:020}-{:020}{EXTENSION}", first.as_u64(), self.last.as_u64());
        let path = folder.join(name);
        store.replace(&path, &content)?;
        Ok(Some(path))
    }
}

/// Compressing in memory fails only for want of memory.
fn unwritable(cause: std::io::Error) -> Error {
    Error::internal("an archive segment cannot be compressed").caused_by(cause)
}
