//! Streams: an event is a record of an entity that only grows. Here are its shape, its keys, and the one rule by which
//! a truth numbers what is appended. Pure: every truth calls [`number`] in its transaction.
//!
//! The key of an event is its stream and its revision, so the end of a stream is the greatest key in a range, which an
//! index answers; its `position` is its place in the log, so "all events in order" is a question that every source answers.

use std::sync::Arc;

use crate::entity::{Entity, Field, FieldType, SYSTEM};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::position::Position;
use crate::record::Record;
use crate::value::Value;
use crate::write::{Action, Condition, Write};

mod cloud;
mod event;

pub use cloud::{from_cloud, to_cloud};
pub use event::{Event, NewEvent};

/// The revision at which a stream ends for good: a record there closes it. The greatest integer that JSON numbers hold
/// everywhere; the first event has revision 1.
pub const CLOSED: u64 = (1 << 53) - 1;
/// Digits of a revision in a key.
const DIGITS: usize = 16;
/// The longest name of a stream in bytes.
pub const STREAM_BYTES_MAX: usize = 400;
/// What the names of entities of events end with.
const SUFFIX: &str = "_events";

/// Type of the event that closes a stream whose events stay.
pub const ARCHIVED: &str = "$archived";
/// Type of the event that closes a stream whose events were removed.
pub const TOMBSTONE: &str = "$tombstone";
/// Type of the record that describes a stream: see [`Description`](event::Event).
pub const DESCRIPTION: &str = "$description";

/// Where the fields of an event are among those of its entity, behind its key.
pub(crate) mod at {
    pub(crate) const STREAM: usize = 1;
    pub(crate) const REVISION: usize = 2;
    pub(crate) const POSITION: usize = 3;
    pub(crate) const ID: usize = 4;
    pub(crate) const TYPE: usize = 5;
    pub(crate) const DATA: usize = 6;
    pub(crate) const METADATA: usize = 7;
    pub(crate) const TAGS: usize = 8;
    pub(crate) const TIME: usize = 9;
    pub(crate) const SCHEMA: usize = 10;
}

/// What must hold of a stream for an append to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expected {
    /// Nothing.
    #[default]
    Any,
    /// It has no event yet.
    None,
    /// It has at least one event.
    Exists,
    /// Its last event has this revision.
    Revision(u64),
}

impl Expected {
    /// From the words and numbers that callers use; 0 is a stream without events.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "any" => Ok(Expected::Any),
            "none" | "0" => Ok(Expected::None),
            "exists" => Ok(Expected::Exists),
            number => {
                number.parse().ok().filter(|n| *n < CLOSED).map(Expected::Revision).ok_or_else(
                    || {
                        Error::invalid(
                            "an expected revision is a number, \"any\", \"none\" or \"exists\"",
                        )
                        .with("field", "expected_revision")
                    },
                )
            }
        }
    }

    fn holds(self, last: u64) -> bool {
        match self {
            Expected::Any => true,
            Expected::None => last == 0,
            Expected::Exists => last > 0,
            Expected::Revision(revision) => last == revision,
        }
    }
}

impl std::fmt::Display for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Expected::Any => f.write_str("any"),
            Expected::None => f.write_str("none"),
            Expected::Exists => f.write_str("exists"),
            Expected::Revision(revision) => write!(f, "{revision}"),
        }
    }
}

/// An event on its way to the end of a stream: which revision, key and position it gets is decided by the truth.
#[derive(Clone, Debug, PartialEq)]
pub struct Append {
    /// The stream.
    pub stream: Arc<str>,
    /// What must hold of it. Of several events of one unit the first says it; the others follow whatever is there.
    pub expected: Expected,
    /// The event; its key, revision and position are filled in.
    pub event: Record,
    /// Whether it closes the stream, and so has the revision [`CLOSED`] whatever is there.
    pub closes: bool,
}

impl Append {
    /// The write that appends.
    pub fn write(self, entity: &Arc<Entity>) -> Result<Write> {
        // Only of what closes a stream the place is known beforehand.
        let key = key(&self.stream, if self.closes { CLOSED } else { 0 })?;
        let action = Action::Append(Box::new(self));
        Ok(Write { entity: Arc::clone(entity), key, action, condition: Condition::None })
    }
}

/// The entity that holds the events of a type of streams: `order` is kept as `order_events`.
pub fn entity(ty: &str) -> Result<Entity> {
    let required = |name, ty| Field { required: true, ..Field::new(name, ty) };
    let fields = vec![
        required("key", FieldType::String),
        required("stream", FieldType::String),
        required("revision", FieldType::Integer),
        Field { index: true, ..Field::new("position", FieldType::Integer) },
        Field { unique: true, ..required("id", FieldType::String) },
        required("type", FieldType::String),
        Field::new("data", FieldType::Json),
        Field::new("metadata", FieldType::Json),
        Field::new("tags", FieldType::List(Box::new(FieldType::String))),
        required("time", FieldType::Timestamp { precision: 6 }),
        required("schema_version", FieldType::Integer),
    ];
    Entity::of_events(&format!("{ty}{SUFFIX}"), "key", fields)
}

/// The entity that notes when a tag was last appended under: what append conditions are checked with. It has no followers.
pub fn tags_entity(ty: &str) -> Result<Entity> {
    Entity::system(&format!("{ty}{SUFFIX}_tags"), "tag", vec![Field::new("tag", FieldType::String)])
}

/// The name of [`tags_entity`].
pub fn tags_name(ty: &str) -> String {
    format!("{SYSTEM}{ty}{SUFFIX}_tags")
}

/// Whether an entity is a [`tags_entity`].
pub fn is_of_tags(entity: &Entity) -> bool {
    entity.is_system() && entity.name().ends_with("_events_tags")
}

/// The name of the entity that holds the events of a type of streams.
pub fn entity_name(ty: &str) -> String {
    format!("{ty}{SUFFIX}")
}

/// The type of streams whose events an entity holds.
pub fn type_of(entity: &Entity) -> Option<&str> {
    entity.is_of_events().then(|| entity.name().strip_suffix(SUFFIX)).flatten()
}

/// Checks the name of a stream: 1 to 400 bytes, without `/` and control characters.
pub fn check_name(stream: &str) -> Result<()> {
    let reason = match stream {
        "" => "the name of a stream is empty",
        _ if stream.len() > STREAM_BYTES_MAX => "the name of a stream is longer than 400 bytes",
        _ if stream.contains(['/', '\0']) || stream.contains(char::is_control) => {
            "the name of a stream has no / and no control characters"
        }
        _ if stream.starts_with('_') => "the name of a stream does not begin with _",
        _ => return Ok(()),
    };
    Err(Error::invalid(reason).with("field", "stream"))
}

/// The key of the event of a stream with a revision; revision 0 is the description of the stream.
pub fn key(stream: &str, revision: u64) -> Result<Key> {
    Key::from_text(&format!("{stream}/{revision:0DIGITS$}"))
}

/// The keys between which all events of a stream are, and what closes it; both included.
pub fn range(stream: &str) -> Result<(Key, Key)> {
    Ok((key(stream, 1)?, key(stream, CLOSED)?))
}

/// The revision that a key says.
pub fn revision_of(key: &Key) -> Option<u64> {
    let Key::String(text) = key else { return None };
    text.rsplit_once('/').and_then(|(_, revision)| revision.parse().ok())
}

/// The stream that a key says.
pub fn name_of(key: &Key) -> Option<&str> {
    let Key::String(text) = key else { return None };
    text.rsplit_once('/').map(|(stream, _)| stream)
}

/// The put that an append means behind `newest`, the greatest key in the [`range`] of its stream as the truth's
/// transaction sees it, at the place in the log where its change will be.
///
/// `version_conflict` with the actual revision if the expectation does not hold, `stream_closed` if the stream is closed.
pub fn number(
    write: &Write,
    append: &Append,
    newest: Option<&Key>,
    position: Position,
) -> Result<Write> {
    let last = newest
        .map_or(Some(0), revision_of)
        .ok_or_else(|| Error::new(ErrorKind::Corrupt, "the key of an event has no revision"))?;
    let about = |error: Error| error.of(write.entity.name()).with("stream", &append.stream);
    let (revision, condition) = match append.closes {
        true => (CLOSED, Condition::None),
        false if last == CLOSED => return Err(about(closed())),
        false if !append.expected.holds(last) => {
            return Err(about(unexpected(append.expected, last)));
        }
        false => (last + 1, Condition::Absent),
    };
    let key = key(&append.stream, revision)?;
    let mut event = append.event.clone();
    if let [of_key, of_stream, of_revision, of_position, ..] = event.values_mut() {
        *of_key = key.to_value();
        *of_stream = Value::String(append.stream.to_string());
        *of_revision = Value::Integer(revision as i64);
        *of_position = Value::Integer(position.as_i64());
    }
    Ok(Write { entity: Arc::clone(&write.entity), key, action: Action::Put(event), condition })
}

fn closed() -> Error {
    Error::new(ErrorKind::StreamClosed, "the stream is closed: it takes no more events")
        .hint("it was archived or deleted for good; append to a stream of another name")
}

fn unexpected(expected: Expected, last: u64) -> Error {
    let hint = match expected {
        Expected::Exists => "append with \"any\" or \"none\" to begin the stream",
        _ => "read the events that came since, decide anew, and append with the actual revision",
    };
    Error::new(ErrorKind::VersionConflict, "the stream is not at the expected revision")
        .with("expected", expected)
        .with("actual", last)
        .hint(hint)
}

#[cfg(test)]
mod tests;
