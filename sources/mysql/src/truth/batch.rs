//! One call of commit, worked out in memory over the rows that were read and locked: what each unit does, or why it
//! fails.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use unisono_core::source::fenced;
use unisono_core::stream;
use unisono_core::value::Ordered;
use unisono_core::write::{Action, Committed, Idempotency, Resolved, Unit, Write, resolve};
use unisono_core::{Change, Error, ErrorKind, Key, Position, Result, Role, Stored, Value, Version};

use crate::client::Tables;
use crate::mutation::Mutation;
use crate::table::Table;
use crate::truth::pending::Pending;

/// What is known of one record.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// The record, if it is there; without data unless a patch needs them.
    pub(super) stored: Option<Stored>,
    /// When it was deleted, if that is remembered.
    pub(super) deleted: Option<Version>,
    /// Whether there is a row, also one that no record can be made of.
    has_row: bool,
    /// Why none can be made of it.
    damage: Option<Arc<Error>>,
}

/// An earlier unit with an idempotency key.
#[derive(Clone, Debug)]
pub(super) struct Earlier {
    pub(super) fingerprint: u128,
    pub(super) changes: Vec<Arc<Change>>,
}

type RecordId = (Arc<str>, Key);
/// A unique field: its entity and index.
type Slot = (Arc<str>, usize);

/// The state that the units of one call see, each after the one before.
pub(super) struct Batch<'a> {
    tables: &'a Tables,
    /// The position of the last change so far.
    pub(super) head: Position,
    pub(super) outcomes: HashMap<Arc<str>, Earlier>,
    /// The entities whose writes are refused.
    fences: BTreeMap<String, String>,
    /// The longest row, in bytes of its literals.
    row_bytes_max: usize,
    records: Undoable<RecordId, Known>,
    /// Who has a unique value; of those values only that the units want to have.
    owners: Undoable<(Slot, Ordered), Key>,
    /// The same the other way round.
    owned: Undoable<(Slot, Key), Ordered>,
    /// The greatest keys of streams, by entity and name.
    ends: Undoable<(Arc<str>, Arc<str>), Key>,
}

impl<'a> Batch<'a> {
    /// Nothing known yet but the end of the log.
    pub(super) fn new(
        tables: &'a Tables,
        head: Position,
        row_bytes_max: usize,
        fences: BTreeMap<String, String>,
    ) -> Self {
        Batch {
            tables,
            head,
            fences,
            outcomes: HashMap::new(),
            row_bytes_max,
            records: Undoable::default(),
            owners: Undoable::default(),
            owned: Undoable::default(),
            ends: Undoable::default(),
        }
    }

    /// Takes note of the greatest key of a stream.
    pub(super) fn know_end(&mut self, entity: &Arc<str>, key: Key) {
        if let Some(name) = stream::name_of(&key) {
            self.ends.map.insert((Arc::clone(entity), name.into()), key);
        }
    }

    /// Takes note of a record that is there.
    pub(super) fn know(&mut self, entity: &Arc<str>, stored: Stored) {
        let id = (Arc::clone(entity), stored.key.clone());
        let mut known = self.records.get(&id).cloned().unwrap_or_default();
        known.stored = Some(stored);
        known.has_row = true;
        self.records.map.insert(id, known);
    }

    /// Takes note of a row that is no record, or not yet.
    pub(super) fn know_row(&mut self, entity: &Arc<str>, key: Key, damage: Option<Error>) {
        let known = self.records.map.entry((Arc::clone(entity), key)).or_default();
        known.has_row = true;
        known.damage = damage.map(Arc::new);
    }

    /// Takes note of a deletion.
    pub(super) fn know_deleted(&mut self, entity: &Arc<str>, key: Key, at: Version) {
        let id = (Arc::clone(entity), key);
        let mut known = self.records.get(&id).cloned().unwrap_or_default();
        known.deleted = Some(at);
        self.records.map.insert(id, known);
    }

    /// Takes note of who has a unique value.
    pub(super) fn know_owner(&mut self, entity: &Arc<str>, field: usize, value: Value, key: Key) {
        let slot = (Arc::clone(entity), field);
        let value = Ordered(value);
        self.owned.map.insert((slot.clone(), key.clone()), value.clone());
        self.owners.map.insert((slot, value), key);
    }

    /// Works out one unit, which takes place unless [`Batch::undo`] is called before the next.
    pub(super) fn unit(&mut self, unit: &Unit, pending: &mut Pending) -> Result<Committed> {
        self.records.keep();
        self.owners.keep();
        self.owned.keep();
        self.ends.keep();
        if let Some(idempotency) = &unit.idempotency
            && let Some(earlier) = self.earlier(idempotency)?
        {
            return Ok(earlier);
        }
        let begun = self.head;
        let mut own = Pending::default();
        let writes = unit.writes.iter().map(|write| self.write(unit, write, &mut own));
        let changes = match writes.collect::<Result<Vec<_>>>() {
            Ok(changes) => changes,
            Err(error) => {
                self.undo(begun);
                return Err(error);
            }
        };
        if let Some(Idempotency { key, fingerprint }) = &unit.idempotency {
            own.outcome(unit, begun, changes.len());
            let earlier = Earlier { fingerprint: *fingerprint, changes: changes.clone() };
            self.outcomes.insert(Arc::clone(key), earlier);
        }
        pending.append(own);
        Ok(Committed { changes, replayed: false })
    }

    /// Takes back the last unit, before which the log ended at `begun`.
    pub(super) fn undo(&mut self, begun: Position) {
        self.records.undo();
        self.owners.undo();
        self.owned.undo();
        self.ends.undo();
        self.head = begun;
    }

    /// Forgets the outcome of a unit that was taken back.
    pub(super) fn forget_outcome(&mut self, unit: &Unit) {
        if let Some(idempotency) = &unit.idempotency {
            self.outcomes.remove(&idempotency.key);
        }
    }

    fn earlier(&self, idempotency: &Idempotency) -> Result<Option<Committed>> {
        let Some(earlier) = self.outcomes.get(&idempotency.key) else { return Ok(None) };
        if earlier.fingerprint != idempotency.fingerprint {
            return Err(Error::new(
                ErrorKind::IdempotencyKeyReused,
                "the idempotency key was used for another request",
            )
            .hint("take a new idempotency key for every request; repeat a request with exactly the same content"));
        }
        Ok(Some(Committed { changes: earlier.changes.clone(), replayed: true }))
    }

    fn write(&mut self, unit: &Unit, write: &Write, pending: &mut Pending) -> Result<Arc<Change>> {
        let entity = write.entity.name();
        if self.fences.contains_key(entity.as_ref()) {
            return Err(fenced(entity));
        }
        let table = table(self.tables, entity)?;
        let position = self.head.next();
        let numbered = self.number(write, position)?;
        let write = numbered.as_ref().unwrap_or(write);
        let id = (Arc::clone(entity), write.key.clone());
        let known = self.records.get(&id).cloned().unwrap_or_default();
        if let (Some(damage), Action::Patch(_)) = (&known.damage, &write.action) {
            return Err(damage.duplicate());
        }
        let Resolved { operation, image, replaced } = resolve(write, known.stored.as_ref())?;
        // The history of a record goes on behind its deletion.
        let previous = replaced.or(known.deleted);
        self.move_values(table, &write.key, image.as_deref())?;
        let row = image.as_ref().map(|record| table.row(record, position)).transpose()?;
        let mutation = Mutation {
            table: Arc::clone(table),
            key: write.key.clone(),
            existed: known.has_row,
            row,
        };
        let change = Change {
            position,
            entity: Arc::clone(entity),
            key: write.key.clone(),
            operation,
            replaced,
            image,
            time: unit.time,
            actor: unit.actor.clone(),
            trace: unit.trace.clone(),
        };
        let bytes = pending.change(table, &change, previous, mutation);
        if bytes > self.row_bytes_max {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                "the record is too big for the server",
            )
            .of(entity)
            .with("key", &write.key)
            .with("bytes", bytes)
            .with("limit", self.row_bytes_max)
            .hint("raise max_allowed_packet of the server"));
        }
        let stored = change
            .image
            .as_ref()
            .map(|image| Stored::new(write.key.clone(), position, Arc::clone(image)));
        let deleted = match &stored {
            None => Some(Some(position)),
            Some(_) if known.stored.is_none() && known.deleted.is_some() => Some(None),
            Some(_) => None,
        };
        if let Some(deleted) = deleted {
            pending.tombstone(entity, &write.key, deleted);
        }
        let deleted = deleted.unwrap_or(known.deleted);
        let has_row = stored.is_some();
        self.records.set(id, Some(Known { stored, deleted, has_row, damage: None }));
        self.head = position;
        Ok(Arc::new(change))
    }

    /// The write of an event at the end of its stream, if it is one.
    fn number(&mut self, write: &Write, position: Position) -> Result<Option<Write>> {
        let Action::Append(append) = &write.action else { return Ok(None) };
        let id = (Arc::clone(write.entity.name()), Arc::clone(&append.stream));
        let numbered = stream::number(write, append, self.ends.get(&id), position)?;
        self.ends.set(id, Some(numbered.key.clone()));
        Ok(Some(numbered))
    }

    /// Gives the unique values of a record to it, and frees those that it had.
    fn move_values(
        &mut self,
        table: &Table,
        key: &Key,
        image: Option<&unisono_core::Record>,
    ) -> Result<()> {
        for (field, _) in &table.unique {
            let slot = (Arc::clone(table.entity.name()), *field);
            let value = image.and_then(|record| record.values().get(*field));
            let value = value.filter(|v| !v.is_null()).map(|v| Ordered(v.clone()));
            if let Some(value) = &value
                && let Some(owner) = self.owners.get(&(slot.clone(), value.clone()))
                && owner != key
            {
                let name = table.columns.get(*field).map_or("", |c| &c.field);
                return Err(Error::new(
                    ErrorKind::ConstraintViolated,
                    "another record has the same value",
                )
                .of(table.entity.name())
                .with("field", name)
                .with("key", key));
            }
            let id = (slot.clone(), key.clone());
            if let Some(old) = self.owned.get(&id).cloned() {
                self.owners.set((slot.clone(), old), None);
            }
            if let Some(value) = &value {
                self.owners.set((slot, value.clone()), Some(key.clone()));
            }
            self.owned.set(id, value);
        }
        Ok(())
    }
}

/// The table of an entity whose truth the source is.
pub(super) fn table<'t>(tables: &'t Tables, entity: &Arc<str>) -> Result<&'t Arc<Table>> {
    tables.get(entity).filter(|t| t.role == Role::Truth).ok_or_else(|| {
        Error::internal("the source was not prepared as the truth of the entity").of(entity)
    })
}

/// A map whose latest changes can be taken back.
struct Undoable<K, V> {
    map: BTreeMap<K, V>,
    journal: Vec<(K, Option<V>)>,
}

impl<K, V> Default for Undoable<K, V> {
    fn default() -> Self {
        Undoable { map: BTreeMap::new(), journal: Vec::new() }
    }
}

impl<K: Ord + Clone, V> Undoable<K, V> {
    fn get(&self, key: &K) -> Option<&V> {
        self.map.get(key)
    }

    fn set(&mut self, key: K, value: Option<V>) {
        let before = match value {
            Some(value) => self.map.insert(key.clone(), value),
            None => self.map.remove(&key),
        };
        self.journal.push((key, before));
    }

    fn keep(&mut self) {
        self.journal.clear();
    }

    fn undo(&mut self) {
        while let Some((key, before)) = self.journal.pop() {
            match before {
                Some(value) => self.map.insert(key, value),
                None => self.map.remove(&key),
            };
        }
    }
}
