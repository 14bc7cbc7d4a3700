//! [`Event`] and [`NewEvent`]: what callers append and read.

use serde_json::{Map, Value as Json, json};

use crate::entity::Entity;
use crate::error::{Error, ErrorKind, Result};
use crate::position::Position;
use crate::record::Record;
use crate::stream::at;
use crate::time::Timestamp;
use crate::value::Value;

/// One fact of a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The stream.
    pub stream: String,
    /// Its place in the stream, from 1.
    pub revision: u64,
    /// Its place in the log: later events of any stream of the truth have greater ones.
    pub position: Position,
    /// Its identity: no two events of a type of streams share one.
    pub id: String,
    /// What sort of fact.
    pub kind: String,
    /// What is told.
    pub data: Json,
    /// What is told about it: `correlation`, `causation`, `actor`, `trace`, and what the caller adds.
    pub metadata: Map<String, Json>,
    /// What append conditions look for.
    pub tags: Vec<String>,
    /// When it happened, or was appended.
    pub time: Timestamp,
    /// The version of the shape of its data, from 1.
    pub schema_version: i64,
}

impl Event {
    /// From a record of an entity of events.
    pub fn of(record: &Record) -> Result<Self> {
        let bad = || Error::new(ErrorKind::Corrupt, "a record is not an event");
        let value = |n: usize| record.values().get(n).ok_or_else(bad);
        let text = |n| value(n)?.as_str().map(str::to_owned).ok_or_else(bad);
        let number = |n| match value(n)? {
            Value::Integer(number) => Ok(*number),
            Value::Null => Ok(0),
            _ => Err(bad()),
        };
        let json = |n| match value(n)? {
            Value::Json(json) => Ok(json.clone()),
            _ => Ok(Json::Null),
        };
        let metadata = match json(at::METADATA)? {
            Json::Object(map) => map,
            _ => Map::new(),
        };
        let tags = match value(at::TAGS)? {
            Value::List(tags) => {
                tags.iter().filter_map(|t| t.as_str().map(str::to_owned)).collect()
            }
            _ => Vec::new(),
        };
        let Value::Timestamp(time) = value(at::TIME)? else { return Err(bad()) };
        Ok(Event {
            stream: text(at::STREAM)?,
            revision: u64::try_from(number(at::REVISION)?).map_err(|_| bad())?,
            position: Position::from_i64(number(at::POSITION)?)?,
            id: text(at::ID)?,
            kind: text(at::TYPE)?,
            data: json(at::DATA)?,
            metadata,
            tags,
            time: *time,
            schema_version: number(at::SCHEMA)?,
        })
    }

    /// As callers see it. Positions are strings, because JavaScript numbers cannot hold them.
    pub fn to_json(&self) -> Json {
        json!({
            "stream": self.stream, "revision": self.revision, "position": self.position, "id": self.id,
            "type": self.kind, "data": self.data, "metadata": self.metadata, "tags": self.tags,
            "time": self.time, "schema_version": self.schema_version,
        })
    }

    /// The same event as it was appended.
    pub fn as_new(&self) -> NewEvent {
        NewEvent {
            id: Some(self.id.clone()),
            kind: self.kind.clone(),
            data: self.data.clone(),
            metadata: self.metadata.clone(),
            tags: self.tags.clone(),
            time: Some(self.time),
            schema_version: self.schema_version,
        }
    }
}

/// An event that is to be appended.
#[derive(Clone, Debug, PartialEq)]
pub struct NewEvent {
    /// Its identity; a fresh one if not given.
    pub id: Option<String>,
    /// What sort of fact: 1 to 200 bytes, not beginning with `$`.
    pub kind: String,
    /// What is told.
    pub data: Json,
    /// What is told about it.
    pub metadata: Map<String, Json>,
    /// What append conditions look for; at most 16 of 1 to 200 bytes.
    pub tags: Vec<String>,
    /// When it happened; now if not given.
    pub time: Option<Timestamp>,
    /// The version of the shape of its data, from 1.
    pub schema_version: i64,
}

impl NewEvent {
    /// The most tags of one event.
    pub const TAGS_MAX: usize = 16;
    const WORD_BYTES_MAX: usize = 200;

    /// A fact of a kind.
    pub fn new(kind: impl Into<String>, data: Json) -> Self {
        NewEvent {
            id: None,
            kind: kind.into(),
            data,
            metadata: Map::new(),
            tags: Vec::new(),
            time: None,
            schema_version: 1,
        }
    }

    /// Adds a tag.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// From `{"type", "data", "id"?, "metadata"?, "tags"?, "time"?, "schema_version"?}`.
    pub fn from_json(json: &Json) -> Result<Self> {
        let Json::Object(map) = json else {
            return Err(Error::invalid("an event is a JSON object"));
        };
        let mut event = NewEvent::new("", Json::Null);
        for (name, value) in map {
            let wrong = |what| Error::invalid(what).with("field", name);
            let text = || value.as_str().map(str::to_owned);
            match (name.as_str(), value) {
                ("type", _) => event.kind = text().ok_or_else(|| wrong("must be text"))?,
                ("data", _) => event.data = value.clone(),
                (_, Json::Null) => {}
                ("id", _) => event.id = Some(text().ok_or_else(|| wrong("must be text"))?),
                ("metadata", Json::Object(map)) => event.metadata = map.clone(),
                ("metadata", _) => return Err(wrong("must be an object")),
                ("tags", _) => {
                    event.tags = tags(value).ok_or_else(|| wrong("must be a list of texts"))?
                }
                ("time", _) => event.time = Some(time(value).map_err(|e| e.with("field", name))?),
                ("schema_version", _) => {
                    let version = value.as_i64().filter(|n| (1..=i64::from(i32::MAX)).contains(n));
                    event.schema_version =
                        version.ok_or_else(|| wrong("must be a number from 1"))?;
                }
                _ => {
                    return Err(wrong("is not part of an event").hint(
                        "an event has type, data, id, metadata, tags, time and schema_version",
                    ));
                }
            }
        }
        event.check().map(|()| event)
    }

    /// Checks what the types do not say.
    pub fn check(&self) -> Result<()> {
        let wrong =
            |field: &str, what: &'static str| Err(Error::invalid(what).with("field", field));
        let is_word = |text: &str| (1..=Self::WORD_BYTES_MAX).contains(&text.len());
        if !is_word(&self.kind) || self.kind.starts_with('$') {
            return wrong("type", "must be 1 to 200 bytes, and not begin with $");
        }
        if self.id.as_deref().is_some_and(|id| !is_word(id) || id.starts_with('$')) {
            return wrong("id", "must be 1 to 200 bytes, and not begin with $");
        }
        if self.tags.len() > Self::TAGS_MAX || !self.tags.iter().all(|tag| is_word(tag)) {
            return wrong("tags", "must be at most 16, each of 1 to 200 bytes");
        }
        Ok(())
    }

    /// The record that is kept, without what the truth fills in.
    pub fn record(&self, entity: &Entity, id: String, time: Timestamp) -> Record {
        let mut record = Record::new(vec![Value::Null; entity.fields().len()]);
        let mut set = |n: usize, value| {
            if let Some(cell) = record.values_mut().get_mut(n) {
                *cell = value;
            }
        };
        let json = |json: Json| if json.is_null() { Value::Null } else { Value::Json(json) };
        set(at::ID, Value::String(id));
        set(at::TYPE, Value::String(self.kind.clone()));
        set(at::DATA, json(self.data.clone()));
        let metadata = Json::Object(self.metadata.clone());
        set(at::METADATA, if self.metadata.is_empty() { Value::Null } else { json(metadata) });
        if !self.tags.is_empty() {
            set(at::TAGS, Value::List(self.tags.iter().cloned().map(Value::String).collect()));
        }
        set(at::TIME, Value::Timestamp(self.time.unwrap_or(time)));
        set(at::SCHEMA, Value::Integer(self.schema_version));
        record
    }
}

fn tags(value: &Json) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|tag| tag.as_str().map(str::to_owned)).collect()
}

pub(super) fn time(value: &Json) -> Result<Timestamp> {
    let text = value.as_str().ok_or_else(|| Error::invalid("must be an RFC 3339 time"))?;
    text.parse()
}
