//! [`Side`]: one of the two truths, and how what it knows of its records is read.

use std::collections::HashMap;
use std::sync::Arc;

use unisono_core::source::{Auditor, Reader, Truth};
use unisono_core::{
    Entity, Error, ErrorKind, Key, Operation, Position, Result, Stored, Timestamp, Version,
};
use unisono_policy::conflict::merge::How;
use unisono_policy::conflict::{LocalWrite, Plan, State};

use super::memory::{Known, Memories};
use super::progress::Progress;

/// How often a record that changes meanwhile is read again at once.
const READS_MAX: usize = 8;
/// How many changes of a record are looked through for whether it was there from the beginning.
const PAST: usize = 256;

/// One of the two truths.
pub(super) struct Side {
    /// Its number: 0 for the one whose log has the lesser identity.
    pub(super) number: usize,
    pub(super) name: Arc<str>,
    pub(super) truth: Arc<dyn Truth>,
    pub(super) reader: Arc<dyn Reader>,
    pub(super) auditor: Arc<dyn Auditor>,
}

/// What a side holds of one record.
pub(super) struct Held {
    pub(super) key: Key,
    /// Where what it remembers stands in its log, whether or not that can be used.
    pub(super) version: Option<Version>,
    pub(super) known: Option<Known>,
    pub(super) record: Option<Stored>,
}

/// What both have in common.
pub(super) struct Common {
    pub(super) entity: Arc<Entity>,
    pub(super) memories: Memories,
    pub(super) plan: Plan,
    /// Identifies the two logs, and how is resolved.
    pub(super) pair: String,
    /// The number of the side whose writes win over concurrent ones of the other, if one is preferred.
    pub(super) preferred: Option<usize>,
}

/// When a side wrote what; empty for nothing known.
pub(super) type Times = HashMap<Position, Timestamp>;

impl Side {
    /// What it holds of some records. Where `settled`, what it remembers and the record are of one moment each.
    pub(super) async fn held(
        &self,
        common: &Common,
        keys: &[Key],
        settled: bool,
    ) -> Result<Vec<Held>> {
        let mut all = Vec::with_capacity(keys.len());
        let mut keys = keys.to_vec();
        for _ in 0..READS_MAX {
            if keys.is_empty() {
                return Ok(all);
            }
            let known = &common.memories.known;
            let before = self.reader.get(known, &keys).await?.value;
            let records = self.reader.get(&common.entity, &keys).await?.value;
            let after = match settled {
                true => self.reader.get(known, &keys).await?.value,
                false => before.clone(),
            };
            let mut moved = Vec::new();
            for (((key, before), record), after) in
                keys.into_iter().zip(before).zip(records).zip(after)
            {
                let version = before.as_ref().map(|known| known.version);
                if version != after.map(|known| known.version) {
                    moved.push(key);
                    continue;
                }
                let known = match &before {
                    Some(stored) => Known::parse(&common.plan, &common.pair, stored)?,
                    None => None,
                };
                all.push(Held { key, version, known, record });
            }
            keys = moved;
        }
        Err(Error::new(ErrorKind::Overloaded, "a record changes faster than it can be read")
            .at(&self.name)
            .of(common.entity.name()))
    }

    /// What it knows of a record. `other` is what the other side remembers of it. With `times`, when it wrote is found
    /// out; without, it is left open.
    pub(super) async fn state(
        &self,
        common: &Common,
        held: &Held,
        other: Option<&Known>,
        progress: &Progress,
        times: Option<&Times>,
    ) -> Result<(State, bool)> {
        let plan = &common.plan;
        let mut before = held.known.as_ref().map(|known| known.state.clone()).unwrap_or_default();
        let record = held.record.as_ref();
        if held.known.as_ref().is_some_and(|known| known.is_about(record)) {
            plan.fill(&mut before, record.map(|stored| stored.record.as_ref()));
            return Ok((before, false));
        }
        if record.is_none() {
            plan.fill(&mut before, None);
            // A deletion of what the other side never knew leaves nothing to be told.
            let was_known = other.is_some_and(|other| other.state.dot(self.number) > 0)
                || held.known.as_ref().is_some_and(|known| !known.gone);
            if !was_known {
                return Ok((before, false));
            }
        }
        let write = self.local_write(common, held, progress, times).await?;
        Ok((plan.written(&before, self.number, &write, common.preferred)?, true))
    }

    /// What was written to the record by itself.
    async fn local_write(
        &self,
        common: &Common,
        held: &Held,
        progress: &Progress,
        times: Option<&Times>,
    ) -> Result<LocalWrite> {
        let record = held.record.as_ref();
        let floor = progress.floor.as_u64();
        let image = record.map(|stored| Arc::clone(&stored.record));
        let counts = common.plan.ways().any(|merge| matches!(merge.how, How::Sum));
        let mut old =
            held.known.is_none() && record.is_some_and(|stored| stored.version <= progress.born);
        let by_version = record.map(|stored| stored.version);
        let known = times.and_then(|times| times.get(&by_version?).copied());
        let unsure = counts && held.known.is_none() && record.is_some() && !old;
        let (mut dot, mut time) = (by_version, known.unwrap_or(Timestamp::EPOCH));
        if record.is_none() || unsure || (known.is_none() && times.is_some()) {
            let limit = if unsure { PAST } else { 1 };
            let past = self.truth.history(&common.entity, &held.key, None, limit).await?;
            match (past.first(), record) {
                (Some(last), None) if last.operation == Operation::Delete => {
                    (dot, time) = (Some(last.position), last.time);
                }
                (Some(last), Some(stored)) if last.position == stored.version => time = last.time,
                // The log does not go back so far.
                (None, _) => {}
                (Some(_), _) => {
                    return Err(Error::new(ErrorKind::Overloaded, "the record changed meanwhile")
                        .at(&self.name)
                        .of(common.entity.name())
                        .with("key", &held.key));
                }
            }
            let since = past.iter().take_while(|change| change.position > progress.born).last();
            old |= unsure && since.is_some_and(|first| first.replaced.is_some());
        }
        // Of a deletion that the log has forgotten it is known that it is not after what was forgotten.
        let dot = match dot {
            Some(dot) => dot,
            None => self.truth.bounds().await?.trimmed,
        };
        Ok(LocalWrite { dot: dot.as_u64(), floor, time, record: image, old })
    }
}
