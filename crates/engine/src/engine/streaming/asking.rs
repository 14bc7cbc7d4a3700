//! What streams are asked by: filters over the fields of events.

use unisono_core::query::{Comparison, Filter, Path};
use unisono_core::stream;
use unisono_core::{Consistency, Context, Entity, Error, ErrorKind, Position, Result, Value};

use crate::stream::Tagged;

/// The events that an item of a condition names.
pub(super) fn matching(events: &Entity, item: &Tagged) -> Filter {
    let tag = |tag: &String| Filter::Contains(path(events, "tags"), Value::String(tag.clone()));
    let mut all: Vec<Filter> = item.tags.iter().map(tag).collect();
    if !item.types.is_empty() {
        let types = item.types.iter().cloned().map(Value::String).collect();
        all.push(Filter::In(path(events, "type"), types));
    }
    Filter::And(all)
}

pub(super) fn beyond(events: &Entity, position: Position) -> Filter {
    let value = Value::Integer(position.as_i64());
    Filter::Compare(path(events, "position"), Comparison::Gt, value)
}

/// The events of a stream between two revisions, both included.
pub(super) fn between(events: &Entity, name: &str, first: u64, last: u64) -> Result<Filter> {
    let (first, last) = (stream::key(name, first)?, stream::key(name, last)?);
    Ok(Filter::Between(path(events, "key"), first.to_value(), last.to_value()))
}

/// A field that every entity of events has.
pub(super) fn path(events: &Entity, field: &str) -> Path {
    Path::whole(events.index_of(field).unwrap_or_default())
}

pub(super) fn strong(context: &Context) -> Context {
    Context { consistency: Consistency::Strong, ..context.clone() }
}

pub(super) fn deleted() -> Error {
    Error::new(ErrorKind::StreamClosed, "the stream was deleted")
        .hint("its events were removed, and its name is not given again")
}
