//! A segment: some consecutive changes of a log as JSON Lines, under a line that ties it to the one before.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use unisono_core::json::change;
use unisono_core::{Change, Entity, Error, ErrorKind, Position, Result, Uuid};

use super::{Last, sha256};

const EXTENSION: &str = ".jsonl";

/// The first line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Header {
    /// Identity of the log.
    pub(super) log: Uuid,
    /// The changes are those after this position.
    pub(super) after: Position,
    /// The last of them.
    pub(super) through: Position,
    /// SHA-256 of the segment before, in the order of names; `None` for the first.
    pub(super) previous: Option<String>,
}

/// A segment as it is in the vault.
pub(super) struct Segment {
    pub(super) header: Header,
    pub(super) hash: String,
    content: Vec<u8>,
}

impl Segment {
    /// A segment of some changes, of which there is one at least.
    pub(super) fn of<'a>(
        header: Header,
        changes: &[Arc<Change>],
        entity: impl Fn(&str) -> Option<&'a Entity>,
    ) -> Result<Self> {
        let mut content = line(&serde_json::to_value(&header).map_err(unwritable)?)?;
        for one in changes {
            content.extend(line(&change::to_json(entity(&one.entity), one))?);
        }
        Ok(Segment { hash: sha256(&content), header, content })
    }

    /// Takes a segment apart.
    pub(super) fn parse(content: Vec<u8>) -> Result<Self> {
        let first = content.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let header = serde_json::from_slice(first).map_err(|e| {
            Error::new(ErrorKind::Corrupt, "a segment of the archive has no header").caused_by(e)
        })?;
        Ok(Segment { header, hash: sha256(&content), content })
    }

    /// What a chain ends with that ends with it.
    pub(super) fn end(&self) -> Last {
        let Header { log, through, .. } = self.header;
        Last { log, through, hash: Some(self.hash.clone()) }
    }

    pub(super) fn into_content(self) -> Vec<u8> {
        self.content
    }

    /// The changes, in order, as JSON.
    pub(super) fn lines(&self) -> impl Iterator<Item = Result<Json>> + '_ {
        let lines = self.content.split(|byte| *byte == b'\n').skip(1);
        lines.filter(|line| !line.is_empty()).map(|line| {
            serde_json::from_slice(line).map_err(|e| {
                Error::new(ErrorKind::Corrupt, "a line of the archived log is not JSON")
                    .caused_by(e)
            })
        })
    }
}

/// What the segment whose changes begin after a position is called.
pub(super) fn name(after: Position) -> String {
    format!("{:020}{EXTENSION}", after.next().as_u64())
}

/// The first position that a name stands for.
pub(super) fn first(name: &str) -> Option<Position> {
    Position::new(name.strip_suffix(EXTENSION)?.parse().ok()?).ok()
}

fn line(json: &Json) -> Result<Vec<u8>> {
    let mut line = serde_json::to_vec(json).map_err(unwritable)?;
    line.push(b'\n');
    Ok(line)
}

fn unwritable(e: serde_json::Error) -> Error {
    Error::internal("a change cannot be written as JSON").caused_by(e)
}
