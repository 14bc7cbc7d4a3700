//! [`Changes`]: a change log without a truth, for feeding followers and caches in tests.

use std::collections::HashMap;
use std::sync::Arc;

use unisono_core::{Change, Entity, Key, Operation, Position, Record, Timestamp, Uuid, Version};

/// Identity of the log that tests follow.
pub const LOG: Uuid = Uuid::from_u128(0x10_6000);

/// Makes the changes of one log, one position after the other, with what each replaced.
pub struct Changes {
    /// Identity of the log.
    pub log: Uuid,
    head: Position,
    versions: HashMap<(Arc<str>, Key), Version>,
}

impl Changes {
    /// An empty log.
    pub fn new() -> Self {
        Changes { log: LOG, head: Position::ZERO, versions: HashMap::new() }
    }

    /// The newest position.
    pub fn head(&self) -> Position {
        self.head
    }

    /// Puts a record, whose key must be valid.
    pub fn put(&mut self, entity: &Entity, record: Record) -> Arc<Change> {
        let key =
            entity.key_of(&record).unwrap_or_else(|e| unreachable!("tests give valid keys: {e}"));
        self.take(entity, key, Operation::Put, Some(Arc::new(record)))
    }

    /// Deletes a record, there or not.
    pub fn delete(&mut self, entity: &Entity, key: &Key) -> Arc<Change> {
        self.take(entity, key.clone(), Operation::Delete, None)
    }

    fn take(
        &mut self,
        entity: &Entity,
        key: Key,
        operation: Operation,
        image: Option<Arc<Record>>,
    ) -> Arc<Change> {
        self.head = self.head.next();
        let place = (Arc::clone(entity.name()), key.clone());
        let replaced = match operation {
            Operation::Put => self.versions.insert(place, self.head),
            Operation::Delete => self.versions.remove(&place),
        };
        Arc::new(Change {
            position: self.head,
            entity: Arc::clone(entity.name()),
            key,
            operation,
            replaced,
            image,
            time: Timestamp::EPOCH,
            actor: None,
            trace: None,
        })
    }
}

impl Default for Changes {
    fn default() -> Self {
        Changes::new()
    }
}
