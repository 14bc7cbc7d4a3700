//! [`Progress`]: how far a side has come with the other, as a small record of the engine's own in its truth, where the other
//! can read it. Not in the log: it would have something to tell the other side for ever.

use serde::{Deserialize, Serialize};
use unisono_core::source::Truth;
use unisono_core::{Error, ErrorKind, Position, Result, Uuid};

/// Where in a truth it is kept, by the name of the entity.
const SPACE: &str = "sync";

/// How far a side has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// The log that it follows; nil before it has met it.
    pub(super) log: Uuid,
    /// Identifies both logs, and how is resolved.
    pub(super) pair: String,
    /// Everything up to here has been taken in or set aside.
    pub(super) position: Position,
    /// Whether all records have been compared once.
    pub(super) merged: bool,
    /// The head of its own log when this began: what was there before may come from a common past.
    pub(super) born: Position,
    /// Everything up to here of the other log is known of records of which nothing is remembered any more.
    pub(super) floor: Position,
}

impl Progress {
    /// That of a side; `None` before its beginning.
    pub(super) async fn load(truth: &dyn Truth, entity: &str) -> Result<Option<Self>> {
        let kept = truth.list_state(SPACE).await?;
        let Some((_, text)) = kept.into_iter().find(|(name, _)| name == entity) else {
            return Ok(None);
        };
        serde_json::from_str(&text).map(Some).map_err(|e| {
            Error::new(ErrorKind::Corrupt, "how far a truth follows another cannot be read")
                .of(entity)
                .caused_by(e)
        })
    }

    /// Keeps it.
    pub(super) async fn save(&self, truth: &dyn Truth, entity: &str) -> Result<()> {
        let text = serde_json::to_string(self)
            .map_err(|e| Error::internal("progress cannot be written as JSON").caused_by(e))?;
        truth.put_state(SPACE, entity, Some(text)).await
    }

    /// Of a side that has not met the other one: all that it has up to a position was there before.
    pub(super) fn none(born: Position) -> Self {
        Progress {
            log: Uuid::nil(),
            pair: String::new(),
            position: Position::ZERO,
            merged: false,
            born,
            floor: Position::ZERO,
        }
    }
}
