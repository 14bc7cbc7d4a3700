//! What callers say and get of streams of events.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json, json};
use unisono_core::stream::{Event, Expected, NewEvent};
use unisono_core::{Error, Position, Result, Token};

/// Events for the end of a stream.
#[derive(Clone, Debug)]
pub struct Appending {
    /// The stream: 1 to 400 bytes, without `/`.
    pub stream: String,
    /// What must hold of it.
    pub expected: Expected,
    /// The events, 1 to [`Appending::EVENTS_MAX`]: they are appended together or not at all.
    pub events: Vec<NewEvent>,
    /// What else must hold.
    pub condition: Option<AppendCondition>,
}

impl Appending {
    /// The most events of one append.
    pub const EVENTS_MAX: usize = 1000;

    /// Events for a stream, whatever is in it.
    pub fn to(stream: impl Into<String>, events: Vec<NewEvent>) -> Self {
        Appending { stream: stream.into(), expected: Expected::Any, events, condition: None }
    }

    /// The same, if the stream is as expected.
    #[must_use]
    pub fn expecting(self, expected: Expected) -> Self {
        Appending { expected, ..self }
    }

    /// The same, if no event has come that matters.
    #[must_use]
    pub fn unless(self, condition: AppendCondition) -> Self {
        Appending { condition: Some(condition), ..self }
    }

    /// From `{"events": […], "expected_revision"?, "condition"?}`.
    pub fn from_json(stream: &str, json: &Json) -> Result<Self> {
        let Json::Object(map) = json else {
            return Err(Error::invalid("the body is a JSON object"));
        };
        let mut appending = Appending::to(stream, Vec::new());
        for (name, value) in map {
            match (name.as_str(), value) {
                ("events", Json::Array(events)) => {
                    let event =
                        |(n, json)| NewEvent::from_json(json).map_err(|e| e.with("event", n));
                    appending.events =
                        events.iter().enumerate().map(event).collect::<Result<_>>()?;
                }
                ("expected_revision", Json::String(word)) => {
                    appending.expected = Expected::parse(word)?;
                }
                ("expected_revision", Json::Number(number)) => {
                    appending.expected = Expected::parse(&number.to_string())?;
                }
                ("condition", condition) => {
                    appending.condition = Some(AppendCondition::from_json(condition)?);
                }
                _ => {
                    return Err(Error::invalid("is not part of an append, or of another type")
                        .with("field", name)
                        .hint("send events, expected_revision and condition"));
                }
            }
        }
        Ok(appending)
    }
}

/// Refuses an append if an event has come that its caller had not seen when it decided: a consistency boundary that
/// the caller draws by tags, across streams of one type.
#[derive(Clone, Debug, PartialEq)]
pub struct AppendCondition {
    /// What matters: an event that is like one of these, 1 to [`AppendCondition::ITEMS_MAX`].
    pub any_of: Vec<Tagged>,
    /// Up to where the caller has seen everything: the position that came with what it read.
    pub after: Position,
}

/// Events that have all of these tags and, if types are named, one of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tagged {
    /// At least one.
    pub tags: Vec<String>,
    /// All types if empty.
    pub types: Vec<String>,
}

impl AppendCondition {
    /// The most of what can matter.
    pub const ITEMS_MAX: usize = 16;

    /// From `{"any_of": [{"tags": […], "types"?: […]}], "after"?: "position"}`.
    pub fn from_json(json: &Json) -> Result<Self> {
        let bad = |field: &'static str, what: &'static str| {
            Error::invalid(what).with("field", field).hint(
                "a condition is {\"any_of\": [{\"tags\": [\"user:7\"], \"types\": []}], \"after\": \"position\"}",
            )
        };
        let Json::Object(map) = json else { return Err(bad("condition", "must be an object")) };
        if let Some(name) = map.keys().find(|k| !["any_of", "after"].contains(&k.as_str())) {
            return Err(bad("condition", "has a member that is not known").with("member", name));
        }
        let after = match map.get("after") {
            None | Some(Json::Null) => Position::ZERO,
            Some(Json::String(text)) => text.parse()?,
            Some(_) => return Err(bad("after", "must be a position, which is a text")),
        };
        let items = map.get("any_of").and_then(Json::as_array);
        let items = items.ok_or_else(|| bad("any_of", "must be a list"))?;
        let item = |item: &Json| {
            let words = |name: &str| -> Option<Vec<String>> {
                let Some(words) = item.get(name) else { return Some(Vec::new()) };
                words.as_array()?.iter().map(|w| w.as_str().map(str::to_owned)).collect()
            };
            let known = |map: &Map<String, Json>| map.keys().all(|k| k == "tags" || k == "types");
            match (item.as_object().is_some_and(known), words("tags"), words("types")) {
                (true, Some(tags), Some(types)) => Ok(Tagged { tags, types }),
                _ => Err(bad(
                    "any_of",
                    "must hold objects of tags and types, which are lists of texts",
                )),
            }
        };
        let condition =
            AppendCondition { any_of: items.iter().map(item).collect::<Result<_>>()?, after };
        condition.check().map(|()| condition)
    }

    pub(crate) fn check(&self) -> Result<()> {
        let counts = (1..=Self::ITEMS_MAX).contains(&self.any_of.len());
        let sizes = |item: &Tagged| {
            (1..=NewEvent::TAGS_MAX).contains(&item.tags.len())
                && item.types.len() <= NewEvent::TAGS_MAX
        };
        let words = self.tags().iter().all(|tag| (1..=200).contains(&tag.len()));
        if counts && words && self.any_of.iter().all(sizes) {
            return Ok(());
        }
        Err(Error::invalid(
            "a condition has 1 to 16 items, each with 1 to 16 tags of 1 to 200 bytes",
        )
        .with("field", "any_of"))
    }

    /// All tags that it names.
    pub(crate) fn tags(&self) -> BTreeSet<&str> {
        self.any_of.iter().flat_map(|item| &item.tags).map(String::as_str).collect()
    }
}

/// What was appended.
#[derive(Clone, Debug)]
pub struct Appended {
    /// The events, with the places that they got.
    pub events: Vec<Event>,
    /// Whether they had been appended before: under the same idempotency key, or with the same ids.
    pub replayed: bool,
    /// What the caller should send with later reads to see them.
    pub token: Token,
}

impl Appended {
    /// As callers see it.
    pub fn to_json(&self) -> Json {
        let revision = self.events.last().map(|e| e.revision);
        let position = self.events.last().map(|e| e.position);
        let place = |e: &Event| json!({"id": e.id, "revision": e.revision, "position": e.position});
        json!({
            "revision": revision, "position": position, "replayed": self.replayed,
            "events": self.events.iter().map(place).collect::<Vec<_>>(),
        })
    }
}

/// Which part of a stream is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Excerpt {
    /// From which revision on; forward from the first, backward from the last if absent.
    pub from: Option<u64>,
    /// Whether the newest event comes first.
    pub backward: bool,
    /// The most events, 1 to 1000.
    pub limit: usize,
}

impl Default for Excerpt {
    fn default() -> Self {
        Excerpt { from: None, backward: false, limit: 100 }
    }
}

/// A page of one stream.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamPage {
    /// The events, in the order that was asked for.
    pub events: Vec<Event>,
    /// From which revision the next page is read; none if this is the last.
    pub next: Option<u64>,
    /// Whether the stream takes no more events.
    pub archived: bool,
}

/// Which events of all streams of a type are read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sought {
    /// Those behind this position; backward those before it, or all if absent.
    pub after: Option<Position>,
    /// Whether the newest event comes first.
    pub backward: bool,
    /// Only those of a type.
    pub kind: Option<String>,
    /// Only those with a tag.
    pub tag: Option<String>,
    /// Only those of a stream.
    pub stream: Option<String>,
    /// The most events, 1 to 1000; 100 if 0.
    pub limit: usize,
}

/// A page of the events of all streams of a type, in the order of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct EventsPage {
    /// The events.
    pub events: Vec<Event>,
    /// Behind (backward: before) which position the next page begins; none if this is the last for now.
    pub next: Option<Position>,
    /// Read forward: everything sought up to here has been given. What an [`AppendCondition`] is to come `after`, and
    /// where to go on from.
    pub through: Position,
}

/// What is declared of one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Only so many of its newest events are given and kept.
    pub max_count: Option<u64>,
    /// Only events that are younger, in seconds.
    pub max_age_seconds: Option<u64>,
}

impl Limits {
    /// From `{"max_count"?: 100, "max_age_seconds"?: 3600}`.
    pub fn from_json(json: &Json) -> Result<Self> {
        let bad = |field: &str| {
            Error::invalid(
                "must be {\"max_count\"?: number, \"max_age_seconds\"?: number}, each from 1",
            )
            .with("field", field)
        };
        let Json::Object(map) = json else { return Err(bad("body")) };
        let mut limits = Limits::default();
        for (name, value) in map {
            let number = match value {
                Json::Null => None,
                value => Some(value.as_u64().filter(|n| *n > 0).ok_or_else(|| bad(name))?),
            };
            match name.as_str() {
                "max_count" => limits.max_count = number,
                "max_age_seconds" => limits.max_age_seconds = number,
                _ => return Err(bad(name)),
            }
        }
        Ok(limits)
    }

    /// As callers see it.
    pub fn to_json(&self) -> Json {
        json!({"max_count": self.max_count, "max_age_seconds": self.max_age_seconds})
    }
}
