//! [`Engine`]: the steps of processes. A step is one unit of the truth: what the process has come to, what it appends and
//! writes, and the timers that it sets and cancels take place together or not at all.

use serde_json::Value as Json;
use unisono_core::write::{Condition, Write};
use unisono_core::{Context, Error, ErrorKind, Result, Timestamp, Version};
use xxhash_rust::xxh3::xxh3_128;

use super::notes;
use crate::engine::Engine;
use crate::kept;
use crate::stream::Appending;

/// What a process has come to, as it is kept.
#[derive(Clone, Debug)]
pub struct KeptProcess {
    /// Its version: the next step names it.
    pub version: Version,
    /// What was kept.
    pub data: Json,
}

/// A timer that is due.
#[derive(Clone, Debug)]
pub struct DueTimer {
    /// Which process it belongs to.
    pub key: String,
    /// Its name within that.
    pub name: String,
    /// When it is due.
    pub due: Timestamp,
    /// What was given with it.
    pub data: Json,
    /// Its version: it fires only in this one.
    pub version: Version,
}

/// One step of a process.
#[derive(Clone, Debug)]
pub struct ProcessStep {
    /// The name of all processes of its sort.
    pub process: String,
    /// Which of them.
    pub key: String,
    /// The version that the step was decided in.
    pub replaces: Option<Version>,
    /// What it has come to.
    pub data: Json,
    /// What it appends: the types of the streams, and the events.
    pub appends: Vec<(String, Appending)>,
    /// What else it writes.
    pub writes: Vec<Write>,
    /// The timers that it sets: name, when they are due, and what is given with them.
    pub sets: Vec<(String, Timestamp, Json)>,
    /// The timers that are there and that it cancels.
    pub cancels: Vec<String>,
    /// The timer that fired, and its version.
    pub fired: Option<(String, Version)>,
    /// What the step is taken for: it is taken once, for as long as outcomes of writes are remembered.
    pub once: String,
}

impl Engine {
    /// What a process has come to.
    pub async fn process(&self, ty: &str, process: &str, key: &str) -> Result<Option<KeptProcess>> {
        let kept = self.log_of_streams(ty)?.kept(&of_states(process), key).await?;
        Ok(kept.map(|kept| KeptProcess { version: kept.version, data: kept.data }))
    }

    /// The version of a timer that is set.
    pub async fn timer(
        &self,
        ty: &str,
        process: &str,
        key: &str,
        name: &str,
    ) -> Result<Option<Version>> {
        let log = self.log_of_streams(ty)?;
        let kept = log.kept(&of_timers(process), &format!("{key}/{name}")).await?;
        Ok(kept.map(|kept| kept.version))
    }

    /// The timers of processes that are due at a time, the longest overdue first.
    pub async fn due_timers(
        &self,
        ty: &str,
        process: &str,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<DueTimer>> {
        let found = self.log_of_streams(ty)?.kept_due(&of_timers(process), until, limit).await?;
        let timer = |kept: kept::Kept| {
            let (key, name) = kept.name.rsplit_once('/')?;
            let (key, name) = (key.to_owned(), name.to_owned());
            let (version, data) = (kept.version, kept.data);
            Some(DueTimer { key, name, due: kept.due?, data, version })
        };
        Ok(found.into_iter().filter_map(timer).collect())
    }

    /// Takes a step of a process, if nobody took another one since: else `version_conflict`, as when its timer was
    /// cancelled or has fired. A step that was taken before has no effect.
    pub async fn take_step(&self, ty: &str, step: ProcessStep) -> Result<()> {
        let events = self.stream(ty)?.clone();
        let writes = self.writes_of(&step)?;
        let kept = kept_by(&step)?;
        let once: String = format!("process {} {} {}", step.process, step.key, step.once);
        let context = Context {
            fingerprint: Some(xxh3_128(once.as_bytes())),
            idempotency_key: Some(once.into()),
            ..Context::default()
        };
        self.take_beside(&context, &events, writes, kept).await.map(drop)
    }

    fn writes_of(&self, step: &ProcessStep) -> Result<Vec<Write>> {
        let mut writes = step.writes.clone();
        for (ty, appending) in &step.appends {
            super::check(appending)?;
            let (events, tags) = (self.stream(ty)?, self.tags_of(ty)?);
            writes.extend(self.appends(events, appending)?);
            writes.extend(notes(tags, appending, appending.condition.as_ref())?);
        }
        Ok(writes)
    }
}

/// What a step keeps: the process first, so that a step that comes too late is told as that.
fn kept_by(step: &ProcessStep) -> Result<Vec<Write>> {
    let (states, timers) = (of_states(&step.process), of_timers(&step.process));
    let condition = Condition::Version(step.replaces);
    let mut writes = vec![kept::put(&states, &step.key, None, step.data.clone(), condition)?];
    let named = |name: &str| {
        if name.is_empty() || name.contains('/') {
            return Err(
                Error::invalid("the name of a timer is not empty and has no /").with("timer", name)
            );
        }
        Ok(format!("{}/{name}", step.key))
    };
    if let Some((name, version)) = &step.fired {
        writes.push(kept::forget(&timers, &named(name)?, Condition::Version(Some(*version)))?);
    }
    for name in &step.cancels {
        writes.push(kept::forget(&timers, &named(name)?, Condition::None)?);
    }
    for (name, due, data) in &step.sets {
        let name = named(name)?;
        writes.push(kept::put(&timers, &name, Some(*due), data.clone(), Condition::None)?);
    }
    Ok(writes)
}

/// Whether an error says that another step was taken since, or the timer is gone: what was decided is decided anew.
pub fn is_overtaken(error: &Error) -> bool {
    let is_kept = error.entity() == Some(kept::entity().name());
    is_kept && matches!(error.kind(), ErrorKind::VersionConflict | ErrorKind::NotFound)
}

fn of_states(process: &str) -> String {
    format!("process:{process}")
}

fn of_timers(process: &str) -> String {
    format!("timer:{process}")
}
