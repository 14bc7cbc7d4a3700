//! How far an outlet has come, and which process sends: one record in the truth, written only in the version that was seen.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use unisono_core::source::Checkpoint;
use unisono_core::write::{Condition, Unit};
use unisono_core::{Error, ErrorKind, Position, Result, Uuid, Version};

use super::{SPACE, Sender};
use crate::kept::{self, Kept};
use crate::runtime::Stopwatch;

/// How long a process sends by its claim without having renewed it.
const HELD: Duration = Duration::from_secs(5);
/// How often it renews it while it sends.
pub(super) const RENEW: Duration = Duration::from_millis(1500);
/// How long another process must have seen nothing new before it takes the claim: longer, because a message may be under way.
const ABANDONED: Duration = Duration::from_secs(8);
/// How often it looks meanwhile.
const LOOK: Duration = Duration::from_millis(500);

/// What is kept of an outlet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Place {
    at: Checkpoint,
    /// What a copy brings up to here was sent before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<Position>,
    /// Who sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    holder: Option<Uuid>,
}

/// What this process knows of it.
pub(super) struct Claim {
    me: Uuid,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// What this process wrote last, and since when it counts; nothing if it does not hold the claim.
    held: Option<(Version, Place, Stopwatch)>,
    /// The version in which another one was seen to hold it, and since when.
    other: Option<(Version, Stopwatch)>,
}

impl Claim {
    pub(super) fn new(me: Uuid) -> Self {
        Claim { me, known: Mutex::default() }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sender {
    /// How far it has come, if it ever began.
    pub(super) async fn look(&self) -> Result<Option<Checkpoint>> {
        Ok(self.read().await?.map(|(_, place)| place.at))
    }

    /// What a copy brings up to here was sent before.
    pub(super) async fn since(&self) -> Result<Option<Position>> {
        Ok(self.read().await?.and_then(|(_, place)| place.since))
    }

    /// Keeps where it begins.
    pub(super) async fn make(&self, first: &Checkpoint) -> Result<()> {
        let place = Place { at: first.clone(), since: None, holder: None };
        self.write(None, place).await.map(drop)
    }

    /// Has this process send, from a checkpoint on; fails with `checkpoint_moved` if another one does, or has.
    pub(super) async fn hold(&self, from: &Checkpoint) -> Result<()> {
        loop {
            if self.is_held().is_some_and(|place| self.is_at(&place, from)) {
                return Ok(());
            }
            let (version, place) = self.read().await?.ok_or_else(|| self.moved())?;
            if !self.is_at(&place, from) {
                return Err(self.moved());
            }
            let is_free = match place.holder {
                Some(holder) if holder != self.claim.me => self.is_abandoned(version),
                _ => true,
            };
            if is_free {
                let mine = Place { holder: Some(self.claim.me), ..place };
                return self.write(Some(version), mine).await;
            }
            self.runtime.sleep(LOOK).await;
        }
    }

    /// Keeps that it has come further.
    pub(super) async fn keep(
        &self,
        from: &Checkpoint,
        to: Checkpoint,
        since: Option<Position>,
    ) -> Result<()> {
        self.hold(from).await?;
        let held = self.claim.known().held.as_ref().map(|(version, ..)| *version);
        let version = held.ok_or_else(|| self.moved())?;
        let since = since.filter(|_| to.backfill.is_some());
        let place = Place { at: to.clone(), since, holder: Some(self.claim.me) };
        self.write(Some(version), place).await?;
        *self.passed() = None;
        match to.backfill {
            None => self.settled().retain(|position, _| *position > to.position),
            Some(_) => self.settled().clear(),
        }
        Ok(())
    }

    /// Goes on holding the claim while messages are sent.
    pub(super) async fn renew(&self) -> Result<()> {
        let held =
            self.claim.known().held.as_ref().map(|(version, place, _)| (*version, place.clone()));
        let (version, place) = held.ok_or_else(|| self.moved())?;
        match self.write(Some(version), place).await {
            // The truth is away for a moment: the claim counts as long as it did.
            Err(error) if error.kind() != ErrorKind::CheckpointMoved && self.may_send() => Ok(()),
            renewed => renewed,
        }
    }

    /// Whether no other process can have taken the claim.
    pub(super) fn may_send(&self) -> bool {
        self.claim.known().held.as_ref().is_some_and(|(_, _, since)| since.elapsed() < HELD)
    }

    /// Leaves the claim to others, if that can be done.
    pub(super) async fn let_go(&self) {
        let held = self.claim.known().held.take();
        if let Some((version, place, _)) = held {
            // Without it they wait for a few seconds.
            let _ = self.write(Some(version), Place { holder: None, ..place }).await;
            self.claim.known().held = None;
        }
    }

    fn is_held(&self) -> Option<Place> {
        let known = self.claim.known();
        let (_, place, since) = known.held.as_ref()?;
        (since.elapsed() < RENEW).then(|| place.clone())
    }

    /// Whether a place is a checkpoint, or was until nothing but changes without messages came.
    fn is_at(&self, place: &Place, checkpoint: &Checkpoint) -> bool {
        let passed = self.passed();
        let is_passed =
            passed.as_ref().is_some_and(|(kept, at)| *kept == place.at && at == checkpoint);
        place.at == *checkpoint || is_passed
    }

    /// Whether whoever holds the claim has not renewed it for long.
    fn is_abandoned(&self, version: Version) -> bool {
        let mut known = self.claim.known();
        match &known.other {
            Some((seen, since)) if *seen == version => since.elapsed() >= ABANDONED,
            _ => {
                known.other = Some((version, self.runtime.stopwatch()));
                false
            }
        }
    }

    async fn read(&self) -> Result<Option<(Version, Place)>> {
        let Some(Kept { version, data, .. }) = self.log.kept(SPACE, &self.name).await? else {
            return Ok(None);
        };
        let place = serde_json::from_value(data).map_err(|e| {
            Error::new(ErrorKind::Corrupt, "how far the outlet has come is not readable")
                .at(&self.source)
                .caused_by(e)
        })?;
        Ok(Some((version, place)))
    }

    /// Writes the record if it still has a version. An answer that is lost has it read again.
    async fn write(&self, version: Option<Version>, place: Place) -> Result<()> {
        let since = self.runtime.stopwatch();
        let data = serde_json::to_value(&place)
            .map_err(|e| Error::internal("a checkpoint cannot be encoded").caused_by(e))?;
        let write = kept::put(SPACE, &self.name, None, data, Condition::Version(version))?;
        let (writes, time) = (vec![write], self.runtime.now());
        let unit = Unit { writes, idempotency: None, time, actor: None, trace: None };
        let mine = place.holder == Some(self.claim.me);
        match self.log.committer.commit(unit).await {
            Ok(committed) => {
                let version = committed.changes.first().map(|change| change.position);
                let mut known = self.claim.known();
                known.held = version.filter(|_| mine).map(|version| (version, place, since));
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::VersionConflict => {
                self.claim.known().held = None;
                Err(self.moved())
            }
            Err(error) => Err(error),
        }
    }
}
