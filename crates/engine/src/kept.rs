//! What is kept in a truth beside what happens there, in one entity of the engine's own: how far outlets have come, and
//! for streams of events snapshots, the states of processes and their timers. Each is a record like every other: written in
//! the units of the truth, under conditions, archived and restored with everything else.

use std::sync::{Arc, LazyLock};

use serde_json::Value as Json;
use unisono_core::entity::{Field, FieldType};
use unisono_core::kind::Options;
use unisono_core::query::{Comparison, Filter, Order, Path, Query};
use unisono_core::source::{Binding, Source};
use unisono_core::write::{Action, Condition, Write};
use unisono_core::{
    Entity, Error, ErrorKind, Key, Record, Result, Role, Stored, Timestamp, Value, Version,
};

use crate::log::Log;

/// Where the fields are.
const SPACE: usize = 1;
const DUE: usize = 2;
const DATA: usize = 3;

/// Something that is kept.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Kept {
    /// Its name within its space.
    pub(crate) name: String,
    /// Its version, for conditions.
    pub(crate) version: Version,
    /// When something is to be done about it, if ever.
    pub(crate) due: Option<Timestamp>,
    /// What is kept.
    pub(crate) data: Json,
}

/// The entity of which everything that is kept is a record.
pub(crate) fn entity() -> &'static Arc<Entity> {
    static ENTITY: LazyLock<Arc<Entity>> = LazyLock::new(|| {
        let required = |name, ty| Field { required: true, ..Field::new(name, ty) };
        let fields = vec![
            required("key", FieldType::String),
            required("space", FieldType::String),
            Field { index: true, ..Field::new("due", FieldType::Timestamp { precision: 6 }) },
            Field::new("data", FieldType::Json),
        ];
        let entity = Entity::system("kept", "key", fields);
        #[expect(
            clippy::expect_used,
            reason = "the names above are names, and the key is among them"
        )]
        Arc::new(entity.expect("a declaration that never changes"))
    });
    &ENTITY
}

/// Where a truth keeps all that, if it can.
pub(crate) fn binding(source: &Arc<dyn Source>) -> Option<Binding> {
    let entity = Arc::clone(entity());
    Arc::clone(source).truth().filter(|truth| truth.keeps(&entity))?;
    let (place, options) = (Arc::clone(entity.name()), Options::default());
    Some(Binding { entity, role: Role::Truth, place, options })
}

/// The write that keeps something.
pub(crate) fn put(
    space: &str,
    name: &str,
    due: Option<Timestamp>,
    data: Json,
    condition: Condition,
) -> Result<Write> {
    let key = key(space, name)?;
    let record = Record::new(vec![
        key.to_value(),
        Value::String(space.to_owned()),
        due.map_or(Value::Null, Value::Timestamp),
        Value::Json(data),
    ]);
    Ok(Write { entity: Arc::clone(entity()), key, action: Action::Put(record), condition })
}

/// The write that forgets something.
pub(crate) fn forget(space: &str, name: &str, condition: Condition) -> Result<Write> {
    let key = key(space, name)?;
    Ok(Write { entity: Arc::clone(entity()), key, action: Action::Delete, condition })
}

fn key(space: &str, name: &str) -> Result<Key> {
    Key::from_text(&format!("{space}/{name}"))
}

impl Log {
    /// What is kept under a name, as the truth has it.
    pub(crate) async fn kept(&self, space: &str, name: &str) -> Result<Option<Kept>> {
        let keys = [key(space, name)?];
        let mut found = self.reader.get(entity(), &keys).await?.value;
        found.pop().flatten().map(|stored| parse(space, stored)).transpose()
    }

    /// What of a space is due at a time, the longest overdue first.
    pub(crate) async fn kept_due(
        &self,
        space: &str,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Kept>> {
        let path = Path::whole;
        let due = Filter::Compare(path(DUE), Comparison::Lte, Value::Timestamp(until));
        let mine = Filter::Compare(path(SPACE), Comparison::Eq, Value::String(space.to_owned()));
        let order = vec![Order { path: path(DUE), descending: false }];
        let query = Query { filter: due.and(mine), order, limit, ..Query::all() };
        let page = self.reader.query(entity(), &query).await?.value;
        page.hits.into_iter().map(|hit| parse(space, hit.stored)).collect()
    }
}

fn parse(space: &str, stored: Stored) -> Result<Kept> {
    let corrupt = || Error::new(ErrorKind::Corrupt, "what is kept is not readable");
    let Key::String(key) = &stored.key else { return Err(corrupt()) };
    let name = key.strip_prefix(space).and_then(|rest| rest.strip_prefix('/'));
    let values = stored.record.values();
    let due = match values.get(DUE) {
        Some(Value::Timestamp(due)) => Some(*due),
        _ => None,
    };
    let data = match values.get(DATA) {
        Some(Value::Json(data)) => data.clone(),
        _ => Json::Null,
    };
    let name = name.ok_or_else(corrupt)?.to_owned();
    Ok(Kept { name, version: stored.version, due, data })
}
