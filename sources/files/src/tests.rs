//! Tests of the kind as a whole, and what they share: entities, changes, and a disk that dies at a given step.

mod archive;
#[cfg(feature = "s3")]
mod bucket;
mod crash;
mod names;
mod roles;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::{Value as Json, json};
use unisono_core::source::{Advance, Batch, Checkpoint};
use unisono_core::{
    Change, Entity, Field, FieldType, Key, Operation, Position, Result, Timestamp, Uuid,
    json as codec,
};

use crate::disk::Disk;
use crate::place::Place;

/// One change to the file system.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    CreateFolder(PathBuf),
    Write(PathBuf),
    Sync(PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

/// Records the steps of a [`Disk`], and from a given one on refuses all of them: the process is as good as dead.
#[derive(Default)]
pub(crate) struct Probe(Mutex<(Vec<Step>, Option<usize>)>);

impl Probe {
    pub(crate) fn step(&self, step: impl FnOnce() -> Step) -> Result<()> {
        let (steps, dies_at) = &mut *self.0.lock().unwrap();
        if dies_at.is_some_and(|n| steps.len() >= n) {
            return Err(crate::error::io(Path::new("?"), io::Error::other("killed")));
        }
        steps.push(step());
        Ok(())
    }

    /// A write that is the last step leaves half of its content.
    pub(crate) fn write(&self, path: &Path, content: &[u8]) -> Result<()> {
        self.step(|| Step::Write(path.into()))?;
        let (steps, dies_at) = &mut *self.0.lock().unwrap();
        if Some(steps.len()) == *dies_at {
            std::fs::write(path, &content[..content.len() / 2]).unwrap();
            return Err(crate::error::io(path, io::Error::other("killed while writing")));
        }
        Ok(())
    }

    pub(crate) fn die_after(&self, steps: usize) {
        *self.0.lock().unwrap() = (Vec::new(), Some(steps));
    }

    pub(crate) fn take(&self) -> Vec<Step> {
        std::mem::take(&mut self.0.lock().unwrap().0)
    }
}

pub(crate) const LOG: Uuid = Uuid::from_u128(7);

pub(crate) fn entity() -> Arc<Entity> {
    let fields = vec![
        Field::new("id", FieldType::String),
        Field::new("name", FieldType::Text),
        Field::new("stock", FieldType::Integer),
        Field::new("price", FieldType::Decimal { precision: 12, scale: 2 }),
        Field::new("weight", FieldType::Float),
    ];
    Arc::new(Entity::new("product", "id", fields).unwrap())
}

pub(crate) fn key(text: &str) -> Key {
    Key::from_text(text).unwrap()
}

pub(crate) fn at(n: u64) -> Position {
    Position::new(n).unwrap()
}

fn change(n: u64, id: &str, image: Option<Json>) -> Arc<Change> {
    let entity = entity();
    Arc::new(Change {
        position: at(n),
        entity: Arc::clone(entity.name()),
        key: key(id),
        operation: if image.is_some() { Operation::Put } else { Operation::Delete },
        replaced: None,
        image: image.map(|json| Arc::new(codec::parse(&entity, &json).unwrap())),
        time: Timestamp::from_micros(n as i64).unwrap(),
        actor: Some("ann".into()),
        trace: None,
    })
}

pub(crate) fn put(n: u64, id: &str) -> Arc<Change> {
    change(
        n,
        id,
        Some(json!({"id": id, "name": format!("{id} at {n}"), "stock": n, "weight": 0.1})),
    )
}

pub(crate) fn delete(n: u64, id: &str) -> Arc<Change> {
    change(n, id, None)
}

pub(crate) fn checkpoint(n: u64) -> Checkpoint {
    Checkpoint { log: LOG, position: at(n), backfill: None }
}

/// A batch from the log that moves the checkpoint from one position (0: there is none) to another.
pub(crate) fn batch(from: u64, to: u64, changes: Vec<Arc<Change>>) -> Batch {
    let advance = Advance { from: (from > 0).then(|| checkpoint(from)), to: checkpoint(to) };
    Batch { entity: entity(), changes, copied: false, advance: Some(advance) }
}

/// States read from the truth, which leave the checkpoint alone.
pub(crate) fn copied(changes: Vec<Arc<Change>>) -> Batch {
    Batch { entity: entity(), changes, copied: true, advance: None }
}

pub(crate) fn place(folder: &Path) -> Place {
    Place::new(folder.to_owned(), Arc::new(Disk::new(true)), true)
}

/// The records that there are: key and version, by key.
pub(crate) fn versions(place: &Place) -> Vec<(String, u64)> {
    let entity = entity();
    let keys = place.keys_after(&entity, None, usize::MAX).unwrap();
    let stored =
        keys.iter().filter_map(|k| crate::reader::present(place.read(&entity, k).unwrap()));
    stored.map(|s| (s.key.to_string(), s.version.as_u64())).collect()
}

/// The positions in the archive, in the order in which it is read.
pub(crate) fn archived(folder: &Path) -> Vec<u64> {
    let entries = crate::archive::read(&folder.join("log"), Position::ZERO).unwrap();
    entries.map(|entry| entry.unwrap().position.as_u64()).collect()
}
