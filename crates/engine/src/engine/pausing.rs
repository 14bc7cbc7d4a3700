//! [`Engine`]: sources that are left alone for a while.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use unisono_core::{Error, ErrorKind, Result};

use crate::engine::Engine;
use crate::log::Log;
use crate::read::handle::SourceHandle;
use crate::topology::pause::{self, Pause};

impl Engine {
    /// Leaves a source alone until [`Engine::resume_source`], also after a restart: nothing is delivered to it, and it is
    /// not asked. Its checkpoints stay; the log keeps what it lacks, up to `log.changes_max`. A cache is passed by. Who
    /// asked is whom the engine is [acting for](Engine::acting_for).
    ///
    /// Fails with `unsupported` for a truth and for a journal, without which nothing could be written.
    pub async fn pause_source(&self, name: &str) -> Result<Pause> {
        let _reloading = self.0.reloading.lock().await;
        let handle = self.source(name)?;
        let logs = self.logs_of_what_it_may_lack(name)?;
        if let Some(pause) = handle.paused() {
            return Ok(pause);
        }
        let pause = Pause { since: self.0.runtime.now(), by: self.1.clone() };
        self.audited("pause", (None, Some(name)), Json::Null, async {
            if let Err(error) = remember(&logs, name, Some(&pause)).await {
                // Where it cannot be forgotten either, it is paused after the next start, and says so.
                let _ = remember(&logs, name, None).await;
                return Err(error);
            }
            handle.pause(pause.clone());
            Ok(pause.clone())
        })
        .await
    }

    /// Goes on with a source: deliveries begin where they were, and it is asked when it has caught up. Answers whether it
    /// was paused.
    pub async fn resume_source(&self, name: &str) -> Result<bool> {
        let _reloading = self.0.reloading.lock().await;
        let handle = self.source(name)?;
        let was_paused = handle.is_paused();
        // In every truth: it may have been the follower of another one when it was paused.
        let logs: Vec<_> = self.logs_now().values().cloned().collect();
        let details = json!({ "paused": handle.paused() });
        self.audited("resume", (None, Some(name)), details, async {
            remember(&logs, name, None).await?;
            handle.resume();
            Ok(was_paused)
        })
        .await
    }

    /// Pauses and resumes sources as other processes on the same truths have, by what those remember.
    pub(super) async fn take_in_pauses(&self) -> Result<()> {
        // Who pauses one at present is not to be met half-way, and what is read is not to be older than what was said here.
        let Ok(_reloading) = self.0.reloading.try_lock() else { return Ok(()) };
        let present = self.0.present.load_full();
        let mut kept = BTreeMap::new();
        for log in present.logs.values() {
            kept.extend(pause::kept(log.truth.as_ref()).await?);
        }
        for (name, handle) in &present.sources {
            match (kept.get(name.as_ref()), handle.is_paused()) {
                (Some(pause), false) => {
                    tracing::warn!(source = %name, since = %pause.since, "another process has paused the source");
                    handle.pause(pause.clone());
                }
                (None, true) => {
                    tracing::warn!(source = %name, "another process has resumed the source");
                    handle.resume();
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn source(&self, name: &str) -> Result<Arc<SourceHandle>> {
        let present = self.0.present.load();
        let found = present.sources.get(name).cloned();
        found.ok_or_else(|| {
            let error =
                Error::new(ErrorKind::NotFound, "there is no source with this name").at(name);
            match unisono_core::spelling::closest(name, present.sources.keys().map(AsRef::as_ref)) {
                Some(near) => error.hint(format!("did you mean {near}?")),
                None => error,
            }
        })
    }

    /// The logs of the entities that a source follows or caches; that it does nothing else for any is certain.
    fn logs_of_what_it_may_lack(&self, name: &str) -> Result<Vec<Arc<Log>>> {
        let present = self.0.present.load();
        let mut logs: Vec<Arc<Log>> = Vec::new();
        for (entity, declared) in &present.declaration.entities {
            let needed = |what: &'static str| {
                Error::unsupported("nothing could be written while the source is paused")
                    .at(name)
                    .of(entity)
                    .with("role", what)
                    .hint("followers and caches can be paused")
            };
            if *declared.truth == *name {
                return Err(needed("truth"));
            }
            if declared.write.behind.as_ref().is_some_and(|behind| *behind.journal == *name) {
                return Err(needed("journal"));
            }
            let follows = declared.followers.iter().any(|f| *f.source == *name);
            let caches = declared.cache.as_ref().is_some_and(|cache| *cache.source == *name);
            let log = Arc::clone(&self.serving(entity)?.log);
            if (follows || caches) && !logs.iter().any(|known| Arc::ptr_eq(known, &log)) {
                logs.push(log);
            }
        }
        match logs.is_empty() {
            true => {
                Err(Error::invalid("nothing is kept in the source, so there is nothing to pause")
                    .at(name))
            }
            false => Ok(logs),
        }
    }
}

async fn remember(logs: &[Arc<Log>], name: &str, pause: Option<&Pause>) -> Result<()> {
    for log in logs {
        let kept = pause::keep(log.truth.as_ref(), name, pause).await;
        kept.map_err(|e| e.at(&log.name.truth))?;
    }
    Ok(())
}
