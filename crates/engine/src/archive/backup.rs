//! Backups: the records of a truth as they were at a position of its log, taken while it is written.
//!
//! The records are read one page after the other, not at one moment. Those that changed since the backup began are left
//! out: the archived log has their states from its begin to its end, and all others were there at its begin as they are
//! now. So records and changes together are the state at the end, and at every later position (a fuzzy backup with its
//! log, as databases take them).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::select;
use serde::{Deserialize, Serialize};
use unisono_core::{Entity, Error, ErrorKind, Position, Result, Timestamp, Uuid, json};
use unisono_policy::retry;

use super::{Archive, BACKUPS, sha256};
use crate::runtime::Runtime;
use crate::topology::moved;

const MANIFEST: &str = "manifest.json";
/// Records read from the truth at once.
const PAGE: usize = 1000;
/// Bounds a part, before compression.
const PART_BYTES: usize = 8 << 20;
/// How long archiving may take to come to the end of a backup.
const ARCHIVED_MAX: Duration = Duration::from_secs(120);

/// What a backup consists of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Backup {
    /// Its folder in the archive of the truth.
    pub name: String,
    /// The truth that it is of.
    pub truth: String,
    /// Identity of the log.
    pub log: Uuid,
    /// When it was begun.
    pub time: Timestamp,
    /// What changed after this position is not among the records.
    pub begin: Position,
    /// With the archived changes up to here, the records are whole.
    pub end: Position,
    /// What there is of each entity.
    pub entities: BTreeMap<String, BackedUp>,
}

/// The records of one entity in a backup.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BackedUp {
    /// How many there are.
    pub records: u64,
    /// The files that hold them, in the order of keys.
    pub parts: Vec<Part>,
}

/// One file of a backup.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Part {
    /// Its name in the folder.
    pub name: String,
    /// SHA-256 of its content.
    pub sha256: String,
}

/// Makes a backup whenever the newest one of this log is older than `every`, for as long as the engine runs.
pub(super) async fn run(archive: Arc<Archive>, every: Duration, runtime: Runtime) {
    let mut failures = 0;
    loop {
        let moves = archive.state.get().moves;
        let due = async {
            let newest = archive.newest_whole().await?.map(|backup| backup.time);
            archive.state.change(|state| {
                state.backup = state.backup.max(newest);
                false
            });
            let due = newest.map(|time| time.plus(every));
            let left = due.map_or(0, |due| due.micros().saturating_sub(runtime.now().micros()));
            match u64::try_from(left) {
                Ok(left) if left > 0 => Ok(Duration::from_micros(left)),
                _ => archive.back_up(&runtime, &|_| {}).await.map(|_| every),
            }
        };
        let pause = match due.await {
            Ok(pause) => {
                failures = 0;
                pause
            }
            Err(error) => {
                tracing::warn!(%error, log = %archive.log.name, "no backup can be made");
                failures += 1;
                retry::backoff(failures, runtime.random())
            }
        };
        let moved = archive.state.until(|state| state.moves != moves);
        select(Box::pin(runtime.sleep(pause)), Box::pin(moved)).await;
    }
}

impl Archive {
    /// The backups that are complete, the oldest first.
    pub(crate) async fn backups(&self) -> Result<Vec<Backup>> {
        let mut backups = Vec::new();
        for name in self.vault.list(&self.folder(BACKUPS)).await? {
            let path = self.in_backup(&name, MANIFEST);
            let Some(content) = self.vault.load(&path).await? else { continue };
            let backup: Backup = serde_json::from_slice(&content).map_err(|e| {
                Error::new(ErrorKind::Corrupt, "the manifest of a backup is not what was written")
                    .at(&self.source)
                    .with("path", &path)
                    .caused_by(e)
            })?;
            backups.push(backup);
        }
        Ok(backups)
    }

    /// The newest backup of this log from which its entities, and nothing else, can be restored: one that was begun when
    /// all of them were here.
    async fn newest_whole(&self) -> Result<Option<Backup>> {
        let entities = self.entities.load_full();
        let mut since = Position::ZERO;
        for entity in entities.iter() {
            let kept = moved::kept(self.log.truth.as_ref(), entity.name()).await?;
            since = since.max(kept.and_then(|kept| kept.origin).map_or(since, |o| o.begin));
        }
        let is_here = |name: &String| entities.iter().any(|e| **e.name() == **name);
        let is_whole =
            |b: &Backup| b.log == self.log.id && b.begin >= since && b.entities.keys().all(is_here);
        Ok(self.backups().await?.into_iter().rfind(is_whole))
    }

    /// Makes a backup; tells how many records it has read so far.
    pub(crate) async fn back_up(
        &self,
        runtime: &Runtime,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Backup> {
        let bounds = self.log.truth.bounds().await?;
        let (begin, time) = (bounds.head, runtime.now());
        let name = format!("{:020}-{}", begin.as_u64(), time.micros());
        let mut entities = BTreeMap::new();
        let mut done = 0;
        for entity in self.entities.load_full().iter() {
            let mut read = |records| {
                done += records;
                progress(done);
            };
            let backed_up = self.copy(entity, begin, &name, &mut read).await?;
            entities.insert(entity.name().to_string(), backed_up);
        }
        let after = self.log.truth.bounds().await?;
        if after.log != bounds.log {
            return Err(Error::new(ErrorKind::Unavailable, "another log began during the backup")
                .at(&self.log.name.truth)
                .hint("make the backup again"));
        }
        let archived = async {
            self.archived(after.head).await;
            Ok(())
        };
        runtime.within(ARCHIVED_MAX, archived).await.map_err(|_| {
            let error = self.state.get().error.clone();
            Error::new(ErrorKind::Unavailable, "the log is not archived up to the backup's end")
                .at(&self.source)
                .with("reason", error.unwrap_or_default())
        })?;
        let truth = self.log.name.truth.to_string();
        let (log, end) = (bounds.log, after.head);
        let backup = Backup { name, truth, log, time, begin, end, entities };
        let manifest = serde_json::to_vec_pretty(&backup)
            .map_err(|e| Error::internal("a manifest cannot be written as JSON").caused_by(e))?;
        let path = self.in_backup(&backup.name, MANIFEST);
        self.vault.create(&path, manifest).await?;
        self.state.change(|state| {
            state.backup = Some(time);
            false
        });
        Ok(backup)
    }

    /// Copies the records of an entity that have not changed since the backup began.
    async fn copy(
        &self,
        entity: &Arc<Entity>,
        begin: Position,
        backup: &str,
        read: &mut (dyn FnMut(u64) + Send),
    ) -> Result<BackedUp> {
        let mut found = BackedUp::default();
        let (mut part, mut after) = (Vec::new(), None);
        loop {
            let page = self.log.auditor.scan(entity, after.as_ref(), PAGE).await?.value;
            read(page.records.len() as u64);
            for stored in page.records.iter().filter(|stored| stored.version <= begin) {
                part.extend(json::to_vec(entity, &stored.record));
                part.push(b'\n');
                found.records += 1;
            }
            if part.len() >= PART_BYTES || (page.end && !part.is_empty()) {
                let name = format!("{}-{:06}.jsonl", entity.name(), found.parts.len() + 1);
                let content = std::mem::take(&mut part);
                let sha256 = sha256(&content);
                self.vault.create(&self.in_backup(backup, &name), content).await?;
                found.parts.push(Part { name, sha256 });
            }
            match page.records.last() {
                Some(last) if !page.end => after = Some(last.key.clone()),
                _ => return Ok(found),
            }
        }
    }

    /// A part of a backup, as it was written.
    pub(super) async fn part(&self, backup: &Backup, part: &Part) -> Result<Vec<u8>> {
        let path = self.in_backup(&backup.name, &part.name);
        let content = self.load(&path).await?;
        if sha256(&content) != part.sha256 {
            return Err(Error::new(
                ErrorKind::Corrupt,
                "a part of a backup is not what was written",
            )
            .at(&self.source)
            .with("path", path)
            .hint("restore from another backup"));
        }
        Ok(content)
    }
}
