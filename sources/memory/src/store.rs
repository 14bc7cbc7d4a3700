//! The data: a table for each entity, one log, the outcomes of idempotent units, the engine's own records.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use unisono_core::source::{Binding, Checkpoint};
use unisono_core::value::Ordered;
use unisono_core::{
    Change, Entity, Error, ErrorKind, FieldType, Key, Position, Record, Result, Role, Stored,
    Timestamp, Uuid, Value, Version,
};

use crate::journal::Space;

/// Everything that a disk holds.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) log: Log,
    pub(crate) tables: BTreeMap<Arc<str>, Table>,
    pub(crate) outcomes: BTreeMap<Arc<str>, Outcome>,
    pub(crate) records: BTreeMap<(String, String), String>,
    pub(crate) journal: BTreeMap<String, Space>,
    /// What was said of entities whose writes are refused.
    pub(crate) fences: BTreeMap<String, String>,
}

/// The ordered list of changes: those in `(trimmed, head]`.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    pub(crate) id: Uuid,
    pub(crate) changes: VecDeque<Arc<Change>>,
    pub(crate) trimmed: Position,
    pub(crate) head: Position,
}

/// What became of a unit with an idempotency key.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) fingerprint: u128,
    pub(crate) time: Timestamp,
    pub(crate) changes: Vec<Arc<Change>>,
}

/// The records of one entity.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) entity: Arc<Entity>,
    pub(crate) role: Role,
    pub(crate) live: BTreeMap<Key, Stored>,
    /// Versions of deletions that an older change may still follow.
    pub(crate) deleted: BTreeMap<Key, Version>,
    pub(crate) checkpoint: Option<Checkpoint>,
    /// Who has which value of a unique field; only a truth decides by it.
    unique: BTreeMap<(usize, Ordered), Key>,
}

impl State {
    pub(crate) fn new(log: Uuid) -> Self {
        let log = Log {
            id: log,
            changes: VecDeque::new(),
            trimmed: Position::ZERO,
            head: Position::ZERO,
        };
        State {
            log,
            tables: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            records: BTreeMap::new(),
            journal: BTreeMap::new(),
            fences: BTreeMap::new(),
        }
    }

    /// Makes the table of a binding exist and match; the answer says what was done.
    pub(crate) fn prepare(&mut self, binding: &Binding) -> Result<Vec<String>> {
        let (entity, name) = (&binding.entity, binding.entity.name());
        let Some(table) = self.tables.get_mut(&binding.place) else {
            let table = Table::new(entity, binding.role);
            self.tables.insert(Arc::clone(&binding.place), table);
            return Ok(vec![format!("{name}: made table {}", binding.place)]);
        };
        table.role = binding.role;
        if table.entity == *entity {
            return Ok(Vec::new());
        }
        let before = Arc::clone(&table.entity);
        let done = check_additive(&before, entity).map_err(|e| e.of(name))?;
        let reshape = |record: &Arc<Record>| Arc::new(reshaped(record, &before, entity));
        let mut next = Table::new(entity, binding.role);
        next.deleted = std::mem::take(&mut table.deleted);
        next.checkpoint = table.checkpoint.take();
        for (key, stored) in std::mem::take(&mut table.live) {
            let stored = Stored::new(key.clone(), stored.version, reshape(&stored.record));
            if let Some(field) = next.taken(&key, &stored.record) {
                return Err(mismatch(
                    "records share a value of a field that becomes unique",
                    field,
                ));
            }
            next.set(&key, Some(stored));
        }
        *table = next;
        for change in self.log.changes.iter_mut().filter(|c| c.entity == *name) {
            let image = change.image.as_ref().map(reshape);
            *change = Arc::new(Change { image, ..change.as_ref().clone() });
        }
        Ok(done)
    }
}

impl Table {
    pub(crate) fn new(entity: &Arc<Entity>, role: Role) -> Self {
        Table {
            entity: Arc::clone(entity),
            role,
            live: BTreeMap::new(),
            deleted: BTreeMap::new(),
            checkpoint: None,
            unique: BTreeMap::new(),
        }
    }

    /// Up to where everything has been taken in. A copy that is still being made holds nothing for certain.
    pub(crate) fn position(&self, head: Position) -> Position {
        match (&self.checkpoint, self.role) {
            (_, Role::Truth) => head,
            (Some(Checkpoint { position, backfill: None, .. }), _) => *position,
            _ => Position::ZERO,
        }
    }

    /// The version of a record, deleted or not.
    pub(crate) fn version(&self, key: &Key) -> Option<Version> {
        self.live.get(key).map(|s| s.version).or_else(|| self.deleted.get(key).copied())
    }

    /// Replaces a record, or removes it; the answer is what was there.
    pub(crate) fn set(&mut self, key: &Key, stored: Option<Stored>) -> Option<Stored> {
        let after: Vec<_> = stored.iter().flat_map(|s| self.unique_values(&s.record)).collect();
        let before = match stored {
            Some(stored) => self.live.insert(key.clone(), stored),
            None => self.live.remove(key),
        };
        for held in before.iter().flat_map(|s| self.unique_values(&s.record)).collect::<Vec<_>>() {
            self.unique.remove(&held);
        }
        self.unique.extend(after.into_iter().map(|held| (held, key.clone())));
        before
    }

    /// The unique field whose value in this record belongs to another one.
    pub(crate) fn taken(&self, key: &Key, record: &Record) -> Option<&str> {
        let held = self.unique_values(record);
        let taken = held.into_iter().find(|h| self.unique.get(h).is_some_and(|k| k != key));
        taken.map(|(field, _)| self.entity.fields()[field].name.as_ref())
    }

    /// The values of unique fields; none for a follower, whose records may hold one value twice for a moment.
    fn unique_values(&self, record: &Record) -> Vec<(usize, Ordered)> {
        let fields = self.entity.fields().iter().zip(record.values()).enumerate();
        fields
            .filter(|(_, (field, value))| {
                self.role == Role::Truth && field.unique && !value.is_null()
            })
            .map(|(n, (_, value))| (n, Ordered(value.clone())))
            .collect()
    }
}

/// What is added between two declarations, or why records of the one cannot be records of the other.
fn check_additive(before: &Entity, after: &Entity) -> Result<Vec<String>> {
    if before.key_field().name != after.key_field().name {
        return Err(mismatch("the key is another field", &after.key_field().name));
    }
    for field in before.fields() {
        match after.field(&field.name) {
            None => return Err(mismatch("a field is no longer declared", &field.name)),
            Some(next) if !widens(&field.ty, &next.ty) => {
                let error = mismatch("a field has another type", &field.name);
                return Err(error.with("before", &field.ty).with("after", &next.ty));
            }
            Some(_) => {}
        }
    }
    let added = after.fields().iter().filter(|f| before.field(&f.name).is_none());
    let mut done: Vec<_> =
        added.map(|f| format!("{}: added field {} ({})", after.name(), f.name, f.ty)).collect();
    if done.is_empty() {
        done.push(format!("{}: took over the changed declaration", after.name()));
    }
    Ok(done)
}

/// Whether every value of one type is a value of the other as it is.
fn widens(before: &FieldType, after: &FieldType) -> bool {
    use FieldType::{Decimal, String, Text, Timestamp};
    match (before, after) {
        (Decimal { precision: a, scale: s }, Decimal { precision: b, scale: t }) => {
            a <= b && s == t
        }
        (Timestamp { precision: a }, Timestamp { precision: b }) => a <= b,
        (String, Text) | (Text, String) => true,
        (before, after) => before == after,
    }
}

fn mismatch(message: &'static str, field: &str) -> Error {
    Error::new(ErrorKind::SchemaMismatch, message)
        .with("field", field)
        .hint("declare the field under another name, or restart: memory keeps nothing")
}

/// A record in the order of another declaration; added fields are null.
fn reshaped(record: &Record, before: &Entity, after: &Entity) -> Record {
    let value = |name: &str| match before.index_of(name) {
        Some(n) => record.values().get(n).cloned().unwrap_or_default(),
        None => Value::Null,
    };
    Record::new(after.fields().iter().map(|f| value(&f.name)).collect())
}
