//! Role truth: units one after the other, each entirely or not at all, each write with its entry of the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use unisono_core::source::{LogBounds, Truth, begins_above, fenced as fenced_off};
use unisono_core::stream;
use unisono_core::write::{Action, Committed, Unit, Write, resolve};
use unisono_core::{Change, Entity, Error, ErrorKind, Key, Position, Result, Stored, Timestamp};

use crate::source::MemorySource;
use crate::store::{Outcome, State, Table};

/// What a write replaced, to be put back if its unit fails.
struct Replaced {
    place: Arc<str>,
    key: Key,
    before: Option<Stored>,
}

impl MemorySource {
    fn commit_unit(&self, state: &mut State, unit: Unit) -> Result<Committed> {
        if let Some(known) = known_outcome(state, &unit) {
            return known;
        }
        let mut replaced = Vec::with_capacity(unit.writes.len());
        let mut changes = Vec::with_capacity(unit.writes.len());
        for write in &unit.writes {
            let position = state.log.head.plus(changes.len() as u64 + 1);
            let fenced = state.fences.contains_key(write.entity.name().as_ref());
            let allowed = if fenced { Err(fenced_off(write.entity.name())) } else { Ok(()) };
            match allowed.and_then(|()| self.write(state, write, position)) {
                Ok((change, undo)) => {
                    replaced.push(undo);
                    changes.push(Arc::new(Change {
                        time: unit.time,
                        actor: unit.actor.clone(),
                        trace: unit.trace.clone(),
                        ..change
                    }));
                }
                Err(error) => {
                    roll_back(state, replaced);
                    return Err(error.on("commit").at(unisono_core::source::Source::name(self)));
                }
            }
        }
        state.log.head = state.log.head.plus(changes.len() as u64);
        state.log.changes.extend(changes.iter().cloned());
        if let Some(idempotency) = unit.idempotency {
            let fingerprint = idempotency.fingerprint;
            let outcome = Outcome { fingerprint, time: unit.time, changes: changes.clone() };
            state.outcomes.insert(idempotency.key, outcome);
        }
        Ok(Committed { changes, replayed: false })
    }

    /// Does one write in its table; the change still lacks what its unit knows.
    fn write(
        &self,
        state: &mut State,
        write: &Write,
        position: Position,
    ) -> Result<(Change, Replaced)> {
        let binding = self.binding(&write.entity, "commit")?;
        let new = || Table::new(&binding.entity, binding.role);
        let table = state.tables.entry(Arc::clone(&binding.place)).or_insert_with(new);
        let numbered = match &write.action {
            Action::Append(append) => {
                let (first, last) = stream::range(&append.stream)?;
                let newest = table.live.range(first..=last).next_back().map(|(key, _)| key);
                Some(stream::number(write, append, newest, position)?)
            }
            _ => None,
        };
        let write = numbered.as_ref().unwrap_or(write);
        let resolved = resolve(write, table.live.get(&write.key))?;
        if let Some(field) = resolved.image.as_ref().and_then(|r| table.taken(&write.key, r)) {
            return Err(Error::new(
                ErrorKind::ConstraintViolated,
                "another record has this value of a unique field",
            )
            .of(write.entity.name())
            .with("field", field)
            .with("key", &write.key));
        }
        let stored = |image| Stored::new(write.key.clone(), position, image);
        let before = table.set(&write.key, resolved.image.clone().map(stored));
        let change = Change {
            position,
            entity: Arc::clone(write.entity.name()),
            key: write.key.clone(),
            operation: resolved.operation,
            replaced: resolved.replaced,
            image: resolved.image,
            time: Timestamp::EPOCH,
            actor: None,
            trace: None,
        };
        Ok((change, Replaced { place: binding.place, key: write.key.clone(), before }))
    }
}

/// The outcome of a unit whose idempotency key is known.
fn known_outcome(state: &State, unit: &Unit) -> Option<Result<Committed>> {
    let idempotency = unit.idempotency.as_ref()?;
    let outcome = state.outcomes.get(&idempotency.key)?;
    if outcome.fingerprint != idempotency.fingerprint {
        return Some(Err(Error::new(
            ErrorKind::IdempotencyKeyReused,
            "the idempotency key was used for another request",
        )
        .on("commit")
        .hint("use a fresh key for each request, and the same one only to repeat it")));
    }
    Some(Ok(Committed { changes: outcome.changes.clone(), replayed: true }))
}

/// Puts back what the writes of a failed unit replaced, the last one first.
fn roll_back(state: &mut State, replaced: Vec<Replaced>) {
    for Replaced { place, key, before } in replaced.into_iter().rev() {
        if let Some(table) = state.tables.get_mut(&place) {
            table.set(&key, before);
        }
    }
}

#[async_trait]
impl Truth for MemorySource {
    async fn commit(&self, units: Vec<Unit>) -> Result<Vec<Result<Committed>>> {
        let mut state = self.state("commit")?;
        Ok(units.into_iter().map(|unit| self.commit_unit(&mut state, unit)).collect())
    }

    async fn bounds(&self) -> Result<LogBounds> {
        let log = &self.state("bounds")?.log;
        Ok(LogBounds { log: log.id, trimmed: log.trimmed, head: log.head })
    }

    async fn begin_above(&self, position: Position) -> Result<Position> {
        let log = &mut self.state("begin_above")?.log;
        let bounds = LogBounds { log: log.id, trimmed: log.trimmed, head: log.head };
        if let Some(head) = begins_above(&bounds, position)? {
            (log.trimmed, log.head) = (head, head);
        }
        Ok(log.head)
    }

    async fn commit_above(&self, position: Position, unit: Unit) -> Result<Committed> {
        let mut state = self.state("commit_above")?;
        let before = state.log.head;
        if before <= position {
            state.log.head = position.next_generation();
        }
        let committed = self.commit_unit(&mut state, unit);
        if !committed.as_ref().is_ok_and(|c| !c.replayed && !c.changes.is_empty()) {
            state.log.head = before;
        }
        committed
    }

    async fn fence(
        &self,
        entity: &str,
        from: Option<&str>,
        to: Option<&str>,
    ) -> Result<Option<Position>> {
        let mut state = self.state("fence")?;
        if state.fences.get(entity).map(String::as_str) != from {
            return Ok(None);
        }
        match to {
            Some(to) => drop(state.fences.insert(entity.to_owned(), to.to_owned())),
            None => drop(state.fences.remove(entity)),
        }
        Ok(Some(state.log.head))
    }

    async fn fences(&self) -> Result<BTreeMap<String, String>> {
        Ok(self.state("fences")?.fences.clone())
    }

    async fn read_log(
        &self,
        after: Position,
        changes_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Arc<Change>>> {
        let log = &self.state("read_log")?.log;
        if after < log.trimmed {
            return Err(Error::new(ErrorKind::LogTruncated, "the log was trimmed beyond this")
                .on("read_log")
                .with("after", after)
                .with("trimmed", log.trimmed));
        }
        let start = log.changes.partition_point(|change| change.position <= after);
        let (mut page, mut bytes) = (Vec::new(), 0_usize);
        for change in log.changes.iter().skip(start).take(changes_max) {
            bytes = bytes.saturating_add(change.weight());
            if bytes > bytes_max && !page.is_empty() {
                break;
            }
            page.push(Arc::clone(change));
        }
        Ok(page)
    }

    async fn history(
        &self,
        entity: &Arc<Entity>,
        key: &Key,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<Arc<Change>>> {
        let log = &self.state("history")?.log;
        let of_record = |c: &&Arc<Change>| c.key == *key && c.entity == *entity.name();
        let changes = log.changes.iter().rev().filter(|c| before.is_none_or(|p| c.position < p));
        Ok(changes.filter(of_record).take(limit).cloned().collect())
    }

    async fn trim(&self, through: Position, outcomes_before: Timestamp) -> Result<u64> {
        let mut state = self.state("trim")?;
        state.outcomes.retain(|_, outcome| outcome.time >= outcomes_before);
        let log = &mut state.log;
        let gone = log.changes.partition_point(|c| c.position <= through);
        log.changes.drain(..gone);
        log.trimmed = log.trimmed.max(through.min(log.head));
        Ok(gone as u64)
    }

    async fn put_state(&self, space: &str, name: &str, value: Option<String>) -> Result<()> {
        let records = &mut self.state("put_state")?.records;
        let place = (space.to_owned(), name.to_owned());
        match value {
            Some(value) => records.insert(place, value),
            None => records.remove(&place),
        };
        Ok(())
    }

    async fn list_state(&self, space: &str) -> Result<Vec<(String, String)>> {
        let records = &self.state("list_state")?.records;
        let of_space = records
            .range((space.to_owned(), String::new())..)
            .take_while(|((of, _), _)| of == space);
        Ok(of_space.map(|((_, name), value)| (name.clone(), value.clone())).collect())
    }
}
