//! [`Plan`]: what becomes of the units of one call, worked out from what was read. Pure.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use unisono_core::stream;
use unisono_core::write::{Action, Condition, Idempotency, Resolved, Unit, Write, resolve};
use unisono_core::{
    Change, Error, ErrorKind, Key, Operation, Position, Record, Result, Role, Stored, Version,
};

use crate::client::Tables;
use crate::table::Table;

/// A record's identity.
pub(super) type Place = (Arc<str>, Key);

/// A stream's identity: the entity of its events, and its name.
pub(super) type StreamId = (Arc<str>, Arc<str>);

/// What a plan must know of the database.
#[derive(Default)]
pub(super) struct Needs {
    /// The streams whose ends decide.
    pub(super) streams: HashSet<StreamId>,
    /// The records whose state decides, and whether their data matters or only their version.
    pub(super) records: HashMap<Place, bool>,
    /// Idempotency keys.
    pub(super) outcomes: Vec<Arc<str>>,
}

impl Needs {
    /// A put without a condition needs nothing: it is the same over any record.
    pub(super) fn of(units: &[Unit]) -> Self {
        let mut needs = Needs::default();
        for unit in units {
            needs.outcomes.extend(unit.idempotency.iter().map(|i| Arc::clone(&i.key)));
            for write in unit.writes.iter().filter(|w| !is_blind(w)) {
                if let Action::Append(append) = &write.action {
                    let stream = (Arc::clone(write.entity.name()), Arc::clone(&append.stream));
                    needs.streams.insert(stream);
                    continue;
                }
                let place = (Arc::clone(write.entity.name()), write.key.clone());
                let whole = matches!(write.action, Action::Patch(_));
                *needs.records.entry(place).or_default() |= whole;
            }
        }
        needs
    }

    /// Whether units can be committed without reading anything first.
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty() && self.outcomes.is_empty() && self.streams.is_empty()
    }
}

fn is_blind(write: &Write) -> bool {
    matches!(write.action, Action::Put(_)) && write.condition == Condition::None
}

/// The outcome of an earlier unit.
pub(super) struct Earlier {
    pub(super) fingerprint: u128,
    pub(super) changes: Vec<Arc<Change>>,
}

/// What was read, all at one position of the log.
#[derive(Default)]
pub(super) struct Known {
    /// The position; none if nothing had to be read.
    pub(super) head: Option<Position>,
    /// The records asked for that are there, or why their rows cannot be read.
    pub(super) records: HashMap<Place, Result<Stored>>,
    /// The outcomes asked for that are there.
    pub(super) outcomes: HashMap<Arc<str>, Earlier>,
    /// The greatest keys of the streams asked for that have any.
    pub(super) ends: HashMap<StreamId, Key>,
}

/// One write to be made. Its place in the log is the head's plus its index plus one.
pub(super) struct Item {
    pub(super) table: Arc<Table>,
    pub(super) key: Key,
    /// The new state; none for a deletion.
    pub(super) image: Option<Arc<Record>>,
    /// The values of the new state in their binary form.
    pub(super) row: Vec<Option<Vec<u8>>>,
    /// Index of its unit.
    pub(super) unit: usize,
    /// Index of the item before it on the same record.
    pub(super) previous: Option<usize>,
}

/// What becomes of one unit.
pub(super) enum Decision {
    /// It takes place, by as many items from an index.
    Takes { first: usize, count: usize },
    /// It took place before.
    Replays(Vec<Arc<Change>>),
    /// It is the same as an earlier unit of this call.
    Repeats(usize),
    /// It fails, alone.
    Fails(Error),
}

/// What becomes of the units of one call.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) items: Vec<Item>,
    pub(super) decisions: Vec<Decision>,
}

impl Plan {
    /// Decides every unit in order; a later one sees the earlier ones.
    pub(super) fn new(units: &[Unit], tables: &Tables, known: &Known) -> Self {
        let mut planning = Planning { tables, known, done: Done::default(), keys: HashMap::new() };
        let mut plan = Plan::default();
        for (n, unit) in units.iter().enumerate() {
            let decision = planning.unit(&mut plan.items, n, unit);
            plan.decisions.push(decision.unwrap_or_else(Decision::Fails));
        }
        plan
    }

    /// Whether the rows can go as a set: where values are unique, giving one up and taking it must keep their order.
    pub(super) fn is_set(&self) -> bool {
        let unique = || self.items.iter().filter(|i| i.table.has_unique);
        // Deletions alone, as of the events of a stream, take nothing.
        let is_mixed = unique().any(|i| i.image.is_none()) && unique().any(|i| i.image.is_some());
        self.items.len() <= 1 || (unique().all(|i| i.previous.is_none()) && !is_mixed)
    }
}

struct Planning<'a> {
    tables: &'a Tables,
    known: &'a Known,
    /// What the units so far have done.
    done: Done,
    /// The units that took place under an idempotency key in this call.
    keys: HashMap<Arc<str>, (u128, usize)>,
}

/// What later writes see of earlier ones.
#[derive(Default)]
struct Done {
    /// The last item of each record.
    latest: HashMap<Place, usize>,
    /// The greatest key of each stream that was appended to.
    ends: HashMap<StreamId, Key>,
}

impl Planning<'_> {
    fn unit(&mut self, items: &mut Vec<Item>, n: usize, unit: &Unit) -> Result<Decision> {
        if let Some(idempotency) = &unit.idempotency
            && let Some(earlier) = self.earlier(idempotency)?
        {
            return Ok(earlier);
        }
        let first = items.len();
        let mut own = Done::default();
        for write in &unit.writes {
            match self.write(items, &own, n, write) {
                Ok(item) => {
                    let entity = item.table.entity.name();
                    if let Action::Append(append) = &write.action {
                        let stream = (Arc::clone(entity), Arc::clone(&append.stream));
                        own.ends.insert(stream, item.key.clone());
                    }
                    own.latest.insert((Arc::clone(entity), item.key.clone()), items.len());
                    items.push(item);
                }
                Err(error) => {
                    items.truncate(first);
                    return Err(error);
                }
            }
        }
        self.done.latest.extend(own.latest);
        self.done.ends.extend(own.ends);
        if let Some(Idempotency { key, fingerprint }) = &unit.idempotency {
            self.keys.insert(Arc::clone(key), (*fingerprint, n));
        }
        Ok(Decision::Takes { first, count: items.len() - first })
    }

    fn earlier(&self, idempotency: &Idempotency) -> Result<Option<Decision>> {
        let (fingerprint, decision) = match self.known.outcomes.get(&idempotency.key) {
            Some(earlier) => (earlier.fingerprint, Decision::Replays(earlier.changes.clone())),
            None => match self.keys.get(&idempotency.key) {
                Some((fingerprint, unit)) => (*fingerprint, Decision::Repeats(*unit)),
                None => return Ok(None),
            },
        };
        if fingerprint == idempotency.fingerprint {
            return Ok(Some(decision));
        }
        Err(Error::new(ErrorKind::IdempotencyKeyReused, "the idempotency key was used for another request")
            .hint("take a new idempotency key for every request; repeat a request with exactly the same content"))
    }

    fn write(&self, items: &[Item], own: &Done, unit: usize, write: &Write) -> Result<Item> {
        let numbered = match &write.action {
            Action::Append(append) => {
                let id = (Arc::clone(write.entity.name()), Arc::clone(&append.stream));
                let end = own.ends.get(&id).or_else(|| self.done.ends.get(&id));
                let end = end.or_else(|| self.known.ends.get(&id));
                Some(stream::number(write, append, end, self.version(items.len()))?)
            }
            _ => None,
        };
        let write = numbered.as_ref().unwrap_or(write);
        let entity = write.entity.name();
        let table = self.tables.get(entity).filter(|t| t.role == Role::Truth).ok_or_else(|| {
            Error::internal("the source was not prepared as the truth of the entity").of(entity)
        })?;
        let place = (Arc::clone(entity), write.key.clone());
        let previous = own.latest.get(&place).or_else(|| self.done.latest.get(&place)).copied();
        let current = match previous.and_then(|n| Some((n, items.get(n)?))) {
            Some((n, item)) => item
                .image
                .as_ref()
                .map(|image| Stored::new(write.key.clone(), self.version(n), Arc::clone(image))),
            None => match self.known.records.get(&place) {
                Some(Ok(stored)) => Some(stored.clone()),
                Some(Err(error)) => return Err(error.duplicate()),
                None => None,
            },
        };
        let Resolved { image, .. } = resolve(write, current.as_ref())?;
        let row = image.as_ref().map(|record| table.encode(record)).transpose();
        let row = row.map_err(|e| e.with("key", &write.key))?.unwrap_or_default();
        let (table, key) = (Arc::clone(table), write.key.clone());
        Ok(Item { table, key, image, row, unit, previous })
    }

    /// The version that an item gives its record. Where nothing was read, nobody looks at it.
    fn version(&self, item: usize) -> Version {
        self.known.head.unwrap_or_default().plus(item as u64 + 1)
    }
}

/// The change of an item that was committed.
pub(super) fn change(
    item: &Item,
    unit: &Unit,
    position: Position,
    replaced: Option<Version>,
) -> Change {
    Change {
        position,
        entity: Arc::clone(item.table.entity.name()),
        key: item.key.clone(),
        operation: if item.image.is_some() { Operation::Put } else { Operation::Delete },
        replaced,
        image: item.image.clone(),
        time: unit.time,
        actor: unit.actor.clone(),
        trace: unit.trace.clone(),
    }
}
