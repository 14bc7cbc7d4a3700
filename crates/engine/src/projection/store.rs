//! What the target keeps of a projection: read, and written behind a checkpoint that must be the one that was seen.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value as Json;
use unisono_core::source::{Advance, Applied, Batch, Checkpoint, Outcome};
use unisono_core::{
    Change, Entity, Error, ErrorKind, Key, Operation, Position, Record, Result, Value, Version,
};
use unisono_policy::projection::Group;

use super::{Part, Projector, Taken, newest};

/// What is written, and how.
pub(super) struct Written<'a> {
    pub(super) entity: &'a Arc<Entity>,
    pub(super) changes: Vec<Arc<Change>>,
    /// Whether what has the same version is written again.
    pub(super) again: bool,
}

impl Projector {
    /// What records contribute by their parts, with the versions of those.
    pub(super) async fn parts(&self, keys: &[Key]) -> Result<HashMap<Key, (Version, Part)>> {
        let mut found = HashMap::with_capacity(keys.len());
        for (key, version, state) in self.states(&self.projection.parts, keys).await? {
            let part = self.projection.parse(&state).map_err(|e| e.at(&self.target.source))?;
            found.insert(key, (version, part));
        }
        Ok(found)
    }

    /// What groups have come to, with their versions.
    pub(super) async fn groups(&self, keys: &[Key]) -> Result<HashMap<Key, (Version, Group)>> {
        let mut found = HashMap::with_capacity(keys.len());
        for (key, version, state) in self.states(&self.projection.groups, keys).await? {
            let group = Group::parse(&self.projection.shape, &state);
            let group = group.ok_or_else(|| self.unreadable(&key))?;
            found.insert(key, (version, group));
        }
        Ok(found)
    }

    async fn states(
        &self,
        entity: &Arc<Entity>,
        keys: &[Key],
    ) -> Result<Vec<(Key, Version, Json)>> {
        let mut found = Vec::with_capacity(keys.len());
        for keys in keys.chunks(self.changes_max) {
            let stored = self.target.reader.get(entity, keys).await?.value;
            for stored in stored.into_iter().flatten() {
                let state = state_of(&stored.record).ok_or_else(|| self.unreadable(&stored.key))?;
                found.push((stored.key, stored.version, state));
            }
        }
        Ok(found)
    }

    pub(super) fn unreadable(&self, key: &Key) -> Error {
        Error::new(ErrorKind::Corrupt, "what the projection keeps is not readable")
            .at(&self.target.source)
            .of(self.projection.name())
            .with("key", key)
            .hint("have it made anew: unisono projections rebuild")
    }

    /// Writes, and moves the checkpoint; nothing of it happens unless that is `from`.
    pub(super) async fn write(
        &self,
        written: Written<'_>,
        from: Option<Checkpoint>,
        to: Checkpoint,
    ) -> Result<()> {
        let Written { entity, mut changes, again } = written;
        while changes.len() > self.changes_max {
            let rest = changes.split_off(self.changes_max);
            let stays = from.clone().ok_or_else(|| self.moved("it has no checkpoint"))?;
            let advance = Some(Advance { from: from.clone(), to: stays });
            self.write_batch(entity, std::mem::replace(&mut changes, rest), again, advance).await?;
        }
        self.write_batch(entity, changes, again, Some(Advance { from, to })).await
    }

    /// Writes without regard to the checkpoint.
    pub(super) async fn write_as_they_are(
        &self,
        entity: &Arc<Entity>,
        changes: Vec<Arc<Change>>,
    ) -> Result<()> {
        self.write_batch(entity, changes, true, None).await
    }

    async fn write_batch(
        &self,
        entity: &Arc<Entity>,
        changes: Vec<Arc<Change>>,
        copied: bool,
        advance: Option<Advance>,
    ) -> Result<()> {
        let moves = advance.is_some();
        let batch = Batch { entity: Arc::clone(entity), changes, copied, advance };
        let Applied { outcomes, advanced } = self.target.follower.apply(batch).await?;
        for outcome in outcomes {
            match outcome {
                Outcome::Applied | Outcome::Stale => {}
                // Rows are what they are: without one of them the others would be wrong as well.
                Outcome::Rejected(error) | Outcome::Retry(error) => {
                    return Err(error.at(&self.target.source).of(entity.name()));
                }
            }
        }
        match advanced == moves {
            true => Ok(()),
            false => {
                Err(Error::internal("a batch without refused changes did not move the checkpoint"))
            }
        }
    }

    /// The parts of records as they are after the changes.
    pub(super) fn newest_parts(&self, taken: &[Taken]) -> Vec<Arc<Change>> {
        let newest = newest(taken);
        let is_newest =
            |t: &&Taken| newest.get(&t.change.key).is_some_and(|n| std::ptr::eq(*n, *t));
        let parts = taken.iter().filter(is_newest).map(|Taken { change, part }| {
            let state = (change.operation == Operation::Put).then(|| self.projection.to_json(part));
            self.change(
                &self.projection.parts,
                &change.key,
                change.position,
                state.map(|state| Record::new(vec![change.key.to_value(), Value::Json(state)])),
            )
        });
        parts.collect()
    }

    /// A change that leaves a record of the target as it is given, or removes it.
    pub(super) fn change(
        &self,
        entity: &Entity,
        key: &Key,
        version: Position,
        record: Option<Record>,
    ) -> Arc<Change> {
        let operation = if record.is_some() { Operation::Put } else { Operation::Delete };
        Arc::new(Change {
            position: version,
            entity: Arc::clone(entity.name()),
            key: key.clone(),
            operation,
            replaced: None,
            image: record.map(Arc::new),
            time: self.runtime.now(),
            actor: None,
            trace: None,
        })
    }

    /// A group as it is kept.
    pub(super) fn group_change(&self, key: &Key, version: Position, group: &Group) -> Arc<Change> {
        let state = Value::Json(group.to_json(&self.projection.shape));
        let record = Record::new(vec![key.to_value(), state]);
        self.change(&self.projection.groups, key, version, Some(record))
    }

    /// The row of a group; its removal if nothing contributes to it.
    pub(super) fn row_change(
        &self,
        key: &Key,
        version: Position,
        group: &Group,
    ) -> Result<Arc<Change>> {
        let row = match group.is_empty() {
            true => None,
            false => Some(self.projection.row(key, group)?),
        };
        Ok(self.change(&self.projection.rows, key, version, row))
    }
}

/// What is kept under a key.
pub(super) fn state_of(record: &Record) -> Option<Json> {
    match record.values() {
        [_, Value::Json(state)] => Some(state.clone()),
        _ => None,
    }
}
