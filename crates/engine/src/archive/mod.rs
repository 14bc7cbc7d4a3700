//! The archive: the log as a chain of files in a vault, and backups, from which a lost truth is built again.
//!
//! ```text
//! {truth}/log/00000000000000000001.jsonl                      a segment, named after its first position
//! {truth}/backups/{begin}-{time}/{entity}-000001.jsonl        a part of a backup
//! {truth}/backups/{begin}-{time}/manifest.json                written last: without it there is no backup
//! ```
//!
//! A segment names the SHA-256 of the one before it, so that none can be changed, taken out or put in without every
//! later one telling. Segments are created and never replaced: of several processes that archive the same log each
//! segment is written by the one that came first, and the others go on after it.

pub mod backup;
mod chain;
pub mod restore;
mod segment;
mod writer;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use sha2::{Digest, Sha256};
use unisono_core::vault::Vault;
use unisono_core::{Entity, Error, ErrorKind, Position, Result, Timestamp, Uuid};
use unisono_policy::declaration::{ArchiveDeclaration, Declaration};

use crate::archive::segment::Segment;
use crate::audit;
use crate::kept;
use crate::log::Log;
use crate::runtime::Runtime;
use crate::sync;
use crate::watched::Watched;

pub use chain::ChainReport;

/// The archives of all logs; none if nothing is archived.
pub(crate) struct Archives {
    declared: Option<(ArchiveDeclaration, Arc<dyn Vault>)>,
    all: ArcSwap<Vec<Arc<Archive>>>,
}

/// The archive of one log.
pub(crate) struct Archive {
    vault: Arc<dyn Vault>,
    /// The source that keeps it.
    pub(crate) source: Arc<str>,
    pub(crate) log: Arc<Log>,
    /// The entities whose truth this is, in the order of their names.
    entities: ArcSwap<Vec<Arc<Entity>>>,
    /// All entities, as one may have been here before.
    by_name: HashMap<Arc<str>, Arc<Entity>>,
    /// How long changes gather before they are archived.
    every: Duration,
    state: Watched<State>,
}

/// How far archiving has come.
#[derive(Clone, Debug, Default)]
struct State {
    /// The last segment; `None` until it has been looked for.
    last: Option<Last>,
    /// A position up to which somebody wants the log to be archived without delay.
    wanted: Position,
    /// Why the last attempt failed.
    error: Option<String>,
    /// The newest backup of this log.
    backup: Option<Timestamp>,
    /// How often entities have come here or gone.
    moves: u64,
}

/// The end of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Last {
    log: Uuid,
    through: Position,
    /// SHA-256 of the last segment; `None` if there is none.
    hash: Option<String>,
}

/// How an archive is doing.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ArchiveStatus {
    /// The truth whose log it is.
    pub truth: Arc<str>,
    /// The source that keeps it.
    pub source: Arc<str>,
    /// Every change up to here is archived.
    pub position: Position,
    /// How many changes are not yet.
    pub lag_changes: u64,
    /// SHA-256 of the newest segment: who keeps it elsewhere can tell later that nothing before it was changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// When the newest backup of this log was begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<Timestamp>,
    /// Why nothing can be archived at present.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Archives {
    /// Those of a declaration; fails with `invalid_config` if the source cannot keep them.
    pub(crate) fn open(
        declaration: &Declaration,
        vault: Option<Arc<dyn Vault>>,
    ) -> Result<Archives> {
        let declared = declaration.archive.clone().map(|declared| match vault {
            Some(vault) => Ok((declared, vault)),
            None => Err(Error::new(ErrorKind::InvalidConfig, "the source cannot keep an archive")
                .at(&declared.source)
                .with("field", "archive.source")
                .hint("name a source of the kind files or s3")),
        });
        Ok(Archives { declared: declared.transpose()?, all: ArcSwap::default() })
    }

    /// Starts to archive a log, if anything is archived.
    pub(crate) fn begin(
        &self,
        log: &Arc<Log>,
        declaration: &Declaration,
        runtime: &Runtime,
    ) -> Result<()> {
        let Some((declared, vault)) = &self.declared else { return Ok(()) };
        let archive = Arc::new(Archive::new(declared, Arc::clone(vault), log, declaration)?);
        runtime.spawn(writer::run(Arc::clone(&archive), runtime.clone()));
        if !declared.backups.is_zero() {
            runtime.spawn(backup::run(Arc::clone(&archive), declared.backups, runtime.clone()));
        }
        let mut all = self.list().as_ref().clone();
        all.push(archive);
        self.all.store(Arc::new(all));
        Ok(())
    }

    /// Goes by where the truths are from now on.
    pub(crate) fn moved(&self, declaration: &Declaration) -> Result<()> {
        self.list().iter().try_for_each(|archive| archive.moved(declaration))
    }

    /// All of them.
    pub(crate) fn list(&self) -> Arc<Vec<Arc<Archive>>> {
        self.all.load_full()
    }

    /// That of a log, if it is archived.
    pub(crate) fn of(&self, log: &Arc<Log>) -> Option<Arc<Archive>> {
        self.list().iter().find(|archive| Arc::ptr_eq(&archive.log, log)).cloned()
    }
}

/// What a log is of by a declaration, in the order of names.
fn entities(log: &Log, declaration: &Declaration) -> Result<Vec<Arc<Entity>>> {
    let mut entities = Vec::new();
    for of_log in declaration.entities.values().filter(|e| e.truth == log.name.truth) {
        entities.push(Arc::clone(&of_log.entity));
        let kept = sync::bindings(of_log)?.into_iter();
        let here = kept.filter(|(source, b)| *source == of_log.truth && b.entity.is_system());
        entities.extend(here.map(|(_, binding)| binding.entity));
    }
    let own = [audit::entity(), kept::entity()].into_iter();
    entities.extend(own.filter(|entity| log.truth.keeps(entity)).cloned());
    Ok(entities)
}

impl Archive {
    fn new(
        declared: &ArchiveDeclaration,
        vault: Arc<dyn Vault>,
        log: &Arc<Log>,
        declaration: &Declaration,
    ) -> Result<Self> {
        let entities = entities(log, declaration)?;
        let elsewhere = declaration.entities.values().map(|declared| &declared.entity);
        let all = elsewhere.chain(&entities);
        let by_name = all.map(|e| (Arc::clone(e.name()), Arc::clone(e))).collect();
        Ok(Archive {
            vault,
            source: Arc::clone(&declared.source),
            log: Arc::clone(log),
            entities: ArcSwap::from_pointee(entities),
            by_name,
            every: declared.every,
            state: Watched::default(),
        })
    }

    fn moved(&self, declaration: &Declaration) -> Result<()> {
        self.entities.store(Arc::new(entities(&self.log, declaration)?));
        self.state.change(|state| {
            state.moves += 1;
            true
        });
        Ok(())
    }

    /// How it is doing.
    pub(crate) fn status(&self) -> ArchiveStatus {
        // One after the other: in one statement the lock of the first would still be held.
        let state = self.state.get().clone();
        let position = self.position();
        let head = self.log.tail.head();
        ArchiveStatus {
            truth: Arc::clone(&self.log.name.truth),
            source: Arc::clone(&self.source),
            position,
            lag_changes: head.since(position),
            sha256: state.last.and_then(|last| last.hash),
            backup: state.backup,
            error: state.error,
        }
    }

    /// The position up to which the log is not needed here any more.
    pub(crate) fn position(&self) -> Position {
        self.state.get().last.as_ref().map_or(Position::ZERO, |last| last.through)
    }

    /// Waits until the log is archived up to a position.
    pub(crate) async fn archived(&self, position: Position) {
        self.state.change(|state| {
            state.wanted = state.wanted.max(position);
            true
        });
        let is_there = |last: &Last| last.log == self.log.id && last.through >= position;
        self.state.until(|state| state.last.as_ref().is_some_and(is_there)).await;
    }

    /// The segments that can hold changes after a position, in order.
    async fn segments_after(&self, after: Position) -> Result<Vec<String>> {
        let mut names = self.vault.list(&self.folder(LOG)).await?;
        let first = names.partition_point(|name| segment::first(name).is_none_or(|f| f <= after));
        // The one before may reach beyond.
        names.drain(..first.saturating_sub(1));
        Ok(names)
    }

    /// The newest segment in the vault.
    async fn newest(&self) -> Result<Option<Segment>> {
        match self.vault.list(&self.folder(LOG)).await?.last() {
            Some(name) => self.segment(name).await.map(Some),
            None => Ok(None),
        }
    }

    /// A segment as it was written.
    async fn segment(&self, name: &str) -> Result<Segment> {
        let path = format!("{}/{name}", self.folder(LOG));
        let content = self.load(&path).await?;
        Segment::parse(content).map_err(|e| e.at(&self.source).with("path", path))
    }

    async fn load(&self, path: &str) -> Result<Vec<u8>> {
        let found = self.vault.load(path).await?;
        found.ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, "a file of the archive is missing")
                .at(&self.source)
                .with("path", path)
        })
    }

    /// A file of a backup.
    fn in_backup(&self, backup: &str, file: &str) -> String {
        format!("{}/{backup}/{file}", self.folder(BACKUPS))
    }

    fn folder(&self, name: &str) -> String {
        format!("{}/{name}", self.log.name.truth)
    }
}

const LOG: &str = "log";
const BACKUPS: &str = "backups";

/// SHA-256 in hexadecimal digits.
fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}
