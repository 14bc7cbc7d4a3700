//! Archiving: what the log has gathered becomes a segment, again and again.

use std::sync::Arc;

use futures::future::select;
use unisono_core::source::LogBounds;
use unisono_core::{Error, ErrorKind, Position, Result};
use unisono_policy::retry;

use super::segment::{self, Header, Segment};
use super::{Archive, LOG, Last};
use crate::runtime::Runtime;

/// Bounds a segment.
pub(super) const CHANGES_MAX: usize = 16_384;
const BYTES_MAX: usize = 8 << 20;

const OTHER: &str =
    "the archive holds the log of another truth, which had come further than this one";

/// Archives a log for as long as the engine runs. Nothing is passed over: what cannot be archived is tried again, and
/// the log is kept for it as for a follower that is down.
pub(super) async fn run(archive: Arc<Archive>, runtime: Runtime) {
    let mut failures = 0;
    loop {
        match archive.once(&runtime).await {
            Ok(()) => failures = 0,
            Err(error) => {
                let (log, source) = (&archive.log.name, &archive.source);
                tracing::warn!(%error, %log, %source, "the log cannot be archived");
                archive.state.change(|state| {
                    state.error = Some(error.to_string());
                    false
                });
                failures += 1;
                runtime.sleep(retry::backoff(failures, runtime.random())).await;
            }
        }
    }
}

impl Archive {
    /// Waits until something has gathered, and archives it.
    async fn once(&self, runtime: &Runtime) -> Result<()> {
        let known = self.state.get().last.clone();
        let mut last = match known {
            Some(last) => last,
            None => self.look_for_last().await?,
        };
        self.begins(&last, &self.log.truth.bounds().await?)?;
        self.log.tail.beyond(last.through).await;
        let asked = self.state.until(|state| state.wanted > last.through);
        select(Box::pin(runtime.sleep(self.every)), Box::pin(asked)).await;
        while let Some(next) = self.archive_after(&last).await? {
            last = next;
        }
        Ok(())
    }

    /// Makes one segment of what comes after the last one; `None` if nothing does.
    async fn archive_after(&self, last: &Last) -> Result<Option<Last>> {
        let bounds = self.log.truth.bounds().await?;
        let after = self.begins(last, &bounds)?;
        let changes = self.log.truth.read_log(after, CHANGES_MAX, BYTES_MAX).await?;
        let Some(through) = changes.last().map(|change| change.position) else {
            return Ok(None);
        };
        let header = Header { log: bounds.log, after, through, previous: last.hash.clone() };
        let entity = |name: &str| self.by_name.get(name).map(|entity| &**entity);
        let segment = Segment::of(header, &changes, entity)?;
        let next = segment.end();
        let path = format!("{}/{}", self.folder(LOG), segment::name(after));
        let next = match self.vault.create(&path, segment.into_content()).await? {
            true => next,
            // Another process has archived it.
            false => self.look_for_last().await?,
        };
        if next.through <= last.through {
            return Err(Error::new(ErrorKind::Corrupt, "the end of the archived log is missing")
                .at(&self.source)
                .with("path", path)
                .hint("archive to another place, and make a backup"));
        }
        self.state.change(|state| {
            (state.last, state.error) = (Some(next.clone()), None);
            true
        });
        Ok(Some(next))
    }

    /// The position after which the next segment begins.
    ///
    /// Another log can follow if it was begun above the one that is archived, as by a restore; a log of this truth
    /// may have lost what was trimmed.
    fn begins(&self, last: &Last, bounds: &LogBounds) -> Result<Position> {
        if bounds.log == last.log || bounds.trimmed >= last.through {
            return Ok(last.through.max(bounds.trimmed));
        }
        Err(Error::new(ErrorKind::InvalidConfig, OTHER)
            .at(&self.source)
            .with("archived", last.through)
            .hint("restore it with `unisono restore`, or archive to another place"))
    }

    /// The end of the chain in the vault; where the log begins if there is none.
    async fn look_for_last(&self) -> Result<Last> {
        let last = match self.newest().await? {
            Some(segment) => segment.end(),
            None => {
                let bounds = self.log.truth.bounds().await?;
                Last { log: bounds.log, through: bounds.trimmed, hash: None }
            }
        };
        let found = last.clone();
        self.state.change(|state| {
            state.last = Some(found);
            true
        });
        Ok(last)
    }
}
