//! Options of streams of events.

use std::time::Duration;

use unisono_policy::strategy;

use super::replicating::{ADAPTIVE, FOLLOWER, RESIDENCY};
use super::{DAY, PERSONAL_FIELDS, READ};
use crate::options::{Key, Section, Shape};

/// `[streams.NAME]`
pub(crate) static STREAM: Section = Section::new(
    "A type of streams of events. The events are kept as the entity NAME_events, whose fields are key, stream, revision, position, id, type, data, metadata, tags, time and schema_version.",
    &[
        Key::required("truth", Shape::Text, "The source whose transaction appends."),
        Key::optional(
            "table",
            Shape::Text,
            "Name of its table in the truth; NAME_events if not given.",
        ),
        Key::optional("personal", Shape::Table(&PERSONAL_FIELDS), PERSONAL_FIELDS.doc),
        Key::optional("read", Shape::Table(&READ), READ.doc),
        Key::optional(
            "strategy",
            Shape::Choice(strategy::NAMES),
            "A name for how events reach the followers and when a writer is answered, as of an entity.",
        ),
        Key::defaulting(
            "ack",
            Shape::Ack,
            "truth",
            "Which sources must have an append before it is answered, as of an entity.",
        ),
        Key::defaulting(
            "ack_timeout",
            Shape::Duration { min: Duration::from_millis(1), max: DAY },
            "5s",
            "How long the answer to a committed append waits for them before it is `quorum_not_reached`.",
        ),
        Key::optional("adaptive", Shape::Table(&ADAPTIVE), ADAPTIVE.doc),
        Key::optional("followers", Shape::Tables(&FOLLOWER), FOLLOWER.doc),
        Key::optional("residency", Shape::Tables(&RESIDENCY), RESIDENCY.doc),
    ],
    &["retention", "upcast", "snapshots", "cache"],
);
