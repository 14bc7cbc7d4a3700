//! [`Engine`]: snapshots, which spare a reader of a stream the events before them.

use std::sync::Arc;

use serde_json::Value as Json;
use unisono_core::write::{Condition, Unit, Write};
use unisono_core::{Error, ErrorKind, Result, Version};

use crate::engine::Engine;
use crate::kept;
use crate::log::Log;

/// A snapshot as it is kept.
#[derive(Clone, Debug)]
pub struct KeptSnapshot {
    /// Its version: who keeps a newer one names it.
    pub version: Version,
    /// What was kept.
    pub data: Json,
}

impl Engine {
    /// Whether snapshots of streams of a type can be kept. What is personal would outlive its key in them: `unsupported`.
    pub fn keeps_snapshots(&self, ty: &str) -> Result<()> {
        let events = self.stream(ty)?;
        match events.personal().is_none() {
            true => Ok(()),
            false => Err(Error::unsupported(
                "a snapshot would hold what is personal in clear, beyond its erasure",
            )
            .of(events.name())
            .hint("load its aggregates without snapshots")),
        }
    }

    /// The snapshot of a stream, if one is kept.
    pub async fn snapshot(&self, ty: &str, stream: &str) -> Result<Option<KeptSnapshot>> {
        let kept = self.log_of_streams(ty)?.kept(&space(ty), stream).await?;
        Ok(kept.map(|kept| KeptSnapshot { version: kept.version, data: kept.data }))
    }

    /// Keeps a snapshot in place of the one of a version (`None`: of none); `version_conflict` if another one is there.
    pub async fn keep_snapshot(
        &self,
        ty: &str,
        stream: &str,
        data: Json,
        replaces: Option<Version>,
    ) -> Result<()> {
        self.keeps_snapshots(ty)?;
        let write = kept::put(&space(ty), stream, None, data, Condition::Version(replaces))?;
        self.commit_kept(ty, write).await
    }

    /// Forgets the snapshot of a stream.
    pub(super) async fn forget_snapshot(&self, ty: &str, stream: &str) -> Result<()> {
        let write = kept::forget(&space(ty), stream, Condition::None)?;
        match self.commit_kept(ty, write).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            forgotten => forgotten,
        }
    }

    async fn commit_kept(&self, ty: &str, write: Write) -> Result<()> {
        let (log, time) = (self.log_of_streams(ty)?, self.runtime().now());
        let unit = Unit { writes: vec![write], idempotency: None, time, actor: None, trace: None };
        log.committer.commit(unit).await.map(drop)
    }

    /// The log that streams of a type are in.
    pub(super) fn log_of_streams(&self, ty: &str) -> Result<Arc<Log>> {
        Ok(Arc::clone(&self.serving(self.stream(ty)?.name())?.log))
    }
}

fn space(ty: &str) -> String {
    format!("snapshot:{ty}")
}
