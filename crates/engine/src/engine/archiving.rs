//! [`Engine`]: backups, and what is built again from them.

use std::sync::Arc;

use serde_json::json;
use unisono_core::{Error, ErrorKind, Result};

use crate::archive::backup::Backup;
use crate::archive::restore::{RestoreTo, Restored};
use crate::archive::{Archive, ChainReport};
use crate::engine::Engine;

impl Engine {
    /// Makes a backup of each truth, or of the named one, while everything goes on; tells how many records it has read
    /// of the one that it is at.
    ///
    /// Fails with `unsupported` without `[archive]`, and with `unavailable` while the log cannot be archived.
    pub async fn back_up(
        &self,
        truth: Option<&str>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Vec<Backup>> {
        let mut made = Vec::new();
        for archive in self.archives(truth)? {
            let backup = archive.back_up(&self.0.runtime, progress).await?;
            let details = json!({ "name": backup.name, "end": backup.end });
            self.audit("backup", (None, Some(&backup.truth)), details);
            made.push(backup);
        }
        Ok(made)
    }

    /// The backups that there are, the oldest of each truth first.
    pub async fn backups(&self, truth: Option<&str>) -> Result<Vec<Backup>> {
        let mut backups = Vec::new();
        for archive in self.archives(truth)? {
            backups.extend(archive.backups().await?);
        }
        Ok(backups)
    }

    /// Fills each empty truth, or the named one, from the newest backup before a moment and the archived log up to it;
    /// tells how many records and changes it has written to the one that it is at.
    ///
    /// One that was interrupted goes on where it was. Fails with `invalid_input` if a truth holds other records,
    /// `not_found` without such a backup, `corrupt` if what was archived is not as it was written.
    pub async fn restore(
        &self,
        truth: Option<&str>,
        to: RestoreTo,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Vec<Restored>> {
        let mut restored = Vec::new();
        for archive in self.archives(truth)? {
            let of_truth = archive.restore(to, progress).await?;
            let details = json!({ "backup": of_truth.backup, "through": of_truth.through });
            self.audit("restore", (None, Some(&of_truth.truth)), details);
            restored.push(of_truth);
        }
        Ok(restored)
    }

    /// Whether the archived logs are as they were written, and the logs as they were archived.
    pub async fn check_archive(&self, truth: Option<&str>) -> Result<Vec<ChainReport>> {
        let mut reports = Vec::new();
        for archive in self.archives(truth)? {
            reports.push(archive.check().await?);
        }
        Ok(reports)
    }

    fn archives(&self, truth: Option<&str>) -> Result<Vec<Arc<Archive>>> {
        let all = self.0.running.archives.list();
        if all.is_empty() {
            return Err(Error::unsupported("nothing is archived")
                .hint("name a source of the kind files or s3 as `[archive] source`"));
        }
        let wanted = |archive: &&Arc<Archive>| truth.is_none_or(|t| *archive.log.name.truth == *t);
        let found: Vec<_> = all.iter().filter(wanted).cloned().collect();
        match (truth, found.is_empty()) {
            (Some(truth), true) => {
                Err(Error::new(ErrorKind::NotFound, "there is no truth with this name").at(truth))
            }
            _ => Ok(found),
        }
    }
}
