//! Role truth: the server decides; what it accepted is looked at and recorded, which gives the change its position.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use unisono_core::source::{LogBounds, Truth};
use unisono_core::write::{Action, Committed, Condition, Unit, Write};
use unisono_core::{
    Change, Effect, Entity, Error, ErrorKind, Key, Position, Result, Timestamp, Uuid,
};

use crate::codec::{OPEN, status_word};
use crate::image::is_covered;
use crate::intent::{Intent, not_replaced};
use crate::look::Ask;
use crate::source::{Place, Shared, TemporalSource};

/// How often to look for what the capture recorded.
const POLL: Duration = Duration::from_millis(100);

impl Shared {
    /// Commits units of different workflows and different idempotency keys: the server's part of all at the same
    /// time, and then the journal's part of those that it accepted in one transaction, in order.
    async fn commit_wave(&self, wave: &[Unit]) -> Result<Vec<Result<Committed>>> {
        let keys = wave.iter().flat_map(|unit| unit.writes.iter().map(|write| write.key.clone()));
        let _held = self.locks.hold(&keys.collect::<Vec<_>>()).await;
        let mut results = self.earlier(wave).await?;
        let mut asked = Vec::new();
        for (unit, result) in wave.iter().zip(&results) {
            if result.is_none() {
                asked.push(self.accept(unit));
            }
        }
        let (mut units, mut open) = (Vec::new(), Vec::new());
        let unanswered = results.iter_mut().filter(|result| result.is_none());
        for (accepted, result) in join_all(asked).await.into_iter().zip(unanswered) {
            match accepted {
                Ok(unit) => {
                    units.push(unit);
                    open.push(result);
                }
                Err(error) => *result = Some(Err(error)),
            }
        }
        match self.journal.truth.commit(units).await {
            Ok(recorded) => {
                for (result, recorded) in open.into_iter().zip(recorded) {
                    *result = Some(recorded.map_err(not_recorded));
                }
            }
            Err(error) => {
                for result in open {
                    *result = Some(Err(not_recorded(error.duplicate())));
                }
            }
        }
        let missing = || Err(Error::internal("a unit has no outcome"));
        Ok(results.into_iter().map(|result| result.unwrap_or_else(missing)).collect())
    }

    /// The outcomes of units whose idempotency keys are known.
    ///
    /// The journal answers a known key whatever the unit holds, and a unit that cannot take place leaves no trace.
    async fn earlier(&self, wave: &[Unit]) -> Result<Vec<Option<Result<Committed>>>> {
        let mut results: Vec<_> = wave.iter().map(|_| None).collect();
        let (mut probes, mut probed) = (Vec::new(), Vec::new());
        for (unit, result) in wave.iter().zip(&mut results) {
            let Some(write) = unit.writes.first().filter(|_| unit.idempotency.is_some()) else {
                continue;
            };
            let impossible = Write {
                action: Action::Delete,
                condition: Condition::Version(Some(Position::MAX)),
                ..write.clone()
            };
            probes.push(Unit { writes: vec![impossible], ..unit.clone() });
            probed.push(result);
        }
        if probes.is_empty() {
            return Ok(results);
        }
        for (result, known) in probed.into_iter().zip(self.journal.truth.commit(probes).await?) {
            let reused = |e: &Error| e.kind() == ErrorKind::IdempotencyKeyReused;
            if known.as_ref().err().is_none_or(reused) {
                *result = Some(known);
            }
        }
        Ok(results)
    }

    /// Has the server carry out a unit. The answer is what the journal is to record.
    async fn accept(&self, unit: &Unit) -> Result<Unit> {
        let [write] = unit.writes.as_slice() else {
            return Err(Error::unsupported("workflows cannot be written together")
                .with("writes", unit.writes.len())
                .hint("send each write by itself: Temporal has no transaction over workflows"));
        };
        let named = self.named("commit", &write.entity);
        let key = &write.key;
        let failed = |e: Error| named(e.with("key", key));
        let place = self.place(&write.entity).map_err(failed)?;
        self.carry_out(&place, unit, write).await.map_err(failed)?;
        let known = self.journal.known(&place.entity, std::slice::from_ref(key)).await;
        let known = known.map_err(not_recorded)?.pop().flatten();
        let known = known.as_ref().map(|k| k.record.as_ref());
        let seen = self.look(&place, key, known, Ask::Nothing).await;
        let seen = seen.map_err(|e| failed(not_recorded(e)))?;
        let image = seen.ok_or_else(|| {
            failed(not_recorded(Error::new(
                ErrorKind::NotFound,
                "the workflow took the request and is gone since",
            )))
        })?;
        if place.layout.has_queries() {
            place.written.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone());
        }
        let action = Action::Put(image);
        let write = Write { action, condition: Condition::None, ..write.clone() };
        Ok(Unit { writes: vec![write], ..unit.clone() })
    }

    async fn carry_out(&self, place: &Place, unit: &Unit, write: &Write) -> Result<()> {
        let intent = Intent::of(&place.layout, write)?;
        let id = self.workflow_id(&write.key);
        // The server carries out requests of one id once.
        let again = unit.idempotency.as_ref().map(|known| known.key.to_string());
        let request_id = again.clone().unwrap_or_else(|| Uuid::now_v7().to_string());
        let request = match intent {
            Intent::Start(mut request) => {
                request.workflow_id = id;
                request.request_id = request_id;
                let started = self.client.start(*request).await;
                return started.map_err(|e| exists(e, write.condition));
            }
            request => request,
        };
        let found = self.find(place, &id, write.condition).await?;
        let asked = match request {
            // The server takes requests to cancel those, too, and does nothing.
            Intent::Signal(..) | Intent::Cancel if !OPEN.contains(&found.status) => {
                return Err(ended(&found));
            }
            Intent::Signal(name, input) => self.client.signal(&id, &name, input, request_id).await,
            Intent::Cancel => self.client.cancel(&id, request_id).await,
            _ => return self.terminate(&id, &found, again).await,
        };
        asked.map_err(|e| gone(e, &found))
    }

    /// Ends a workflow. The server does not remember requests to do so, but the history has what came with the last.
    async fn terminate(&self, id: &str, found: &Found, again: Option<String>) -> Result<()> {
        let asked = self.client.terminate(id, again.as_deref()).await;
        match (asked, again) {
            (Err(e), Some(again)) if e.kind() == ErrorKind::NotFound => {
                let ending = self.ending(id, &found.run).await?;
                if ending.is_of_request(&again) { Ok(()) } else { Err(ended(found)) }
            }
            (asked, _) => asked.map_err(|e| gone(e, found)),
        }
    }

    /// A workflow of the entity, which must be there.
    async fn find(&self, place: &Place, id: &str, condition: Condition) -> Result<Found> {
        let info = self.client.describe(id).await?;
        match info.filter(|info| is_covered(&place.layout, info)) {
            Some(info) => Ok(Found {
                status: status_word(info.status),
                run: info.execution.map(|e| e.run_id).unwrap_or_default(),
            }),
            None if condition == Condition::Present => {
                Err(Error::new(ErrorKind::VersionConflict, "there is no such workflow")
                    .with("actual", "absent"))
            }
            None => Err(Error::new(ErrorKind::NotFound, "there is no workflow with this key")),
        }
    }
}

/// A workflow to which a request goes.
struct Found {
    status: &'static str,
    run: String,
}

/// The error of a request to a workflow that was found: the server says of one that has ended that there is none.
fn gone(error: Error, found: &Found) -> Error {
    if error.kind() == ErrorKind::NotFound { ended(found) } else { error }
}

fn ended(found: &Found) -> Error {
    Error::new(ErrorKind::ConstraintViolated, "the workflow has ended")
        .with("status", found.status)
        .hint("a workflow takes requests only while it runs")
}

/// The error of a start where a workflow is or was.
fn exists(error: Error, condition: Condition) -> Error {
    if error.kind() != ErrorKind::AlreadyExists {
        return error;
    }
    match condition {
        Condition::Absent => error,
        Condition::Version(_) => {
            Error::new(ErrorKind::VersionConflict, "there is a workflow with this key")
        }
        _ => not_replaced(),
    }
}

/// The error of a request that the server took, but that could not be looked at or recorded. The capture will.
fn not_recorded(error: Error) -> Error {
    error.effect(Effect::Committed).hint(
        "the server has taken the request; its effect will be seen by the next look at the workflow",
    )
}

/// How many units, from the first, are of different workflows and different idempotency keys.
fn wave_length(units: &[Unit], most: usize) -> usize {
    let (mut keys, mut requests) = (HashSet::new(), HashSet::new());
    let mut length = 0;
    for unit in units.iter().take(most) {
        let is_new = unit.writes.iter().all(|write| keys.insert(&write.key))
            && unit.idempotency.as_ref().is_none_or(|known| requests.insert(&known.key));
        if !is_new {
            break;
        }
        length += 1;
    }
    length.max(1)
}

#[async_trait]
impl Truth for TemporalSource {
    /// Workflows only.
    fn keeps(&self, entity: &Entity) -> bool {
        !entity.is_system()
    }

    async fn commit(&self, units: Vec<Unit>) -> Result<Vec<Result<Committed>>> {
        let named = |e: Error| e.on("commit").at(self.shared.client.name());
        self.shared.client.check_open().map_err(named)?;
        let mut results = Vec::with_capacity(units.len());
        let mut rest = units.as_slice();
        while !rest.is_empty() {
            let (wave, after) = rest.split_at(wave_length(rest, self.shared.settings.parallel));
            match self.shared.commit_wave(wave).await {
                Ok(outcomes) => results.extend(outcomes),
                Err(error) => results.extend(wave.iter().map(|_| Err(named(error.duplicate())))),
            }
            rest = after;
        }
        Ok(results)
    }

    /// Fails while what others do is not seen: nobody then knows how far the log should have come.
    async fn bounds(&self) -> Result<LogBounds> {
        for place in self.shared.places() {
            place.check_progress().map_err(|e| e.on("bounds").at(self.shared.client.name()))?;
        }
        self.shared.journal.truth.bounds().await
    }

    /// The journal is a file at hand: the capture alone decides how late a change is known.
    fn poll_every(&self) -> Duration {
        POLL.min(self.shared.settings.look_interval)
    }

    async fn read_log(
        &self,
        after: Position,
        changes_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Arc<Change>>> {
        self.shared.journal.truth.read_log(after, changes_max, bytes_max).await
    }

    async fn history(
        &self,
        entity: &Arc<Entity>,
        key: &Key,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<Arc<Change>>> {
        self.shared.journal.truth.history(entity, key, before, limit).await
    }

    async fn trim(&self, through: Position, outcomes_before: Timestamp) -> Result<u64> {
        self.shared.journal.truth.trim(through, outcomes_before).await
    }

    async fn put_state(&self, space: &str, name: &str, value: Option<String>) -> Result<()> {
        self.shared.journal.truth.put_state(space, name, value).await
    }

    async fn list_state(&self, space: &str) -> Result<Vec<(String, String)>> {
        self.shared.journal.truth.list_state(space).await
    }
}
