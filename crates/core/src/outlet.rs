//! Outlets: where messages about changes go that can be neither looked at nor taken back, such as other programs, brokers
//! and handlers. An outlet is fed like a follower, but what it has is known only to the truth.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value as Json, json};

use crate::capability::{ApplyCapability, Capability, QueryCapability, Role};
use crate::change::{Change, Operation};
use crate::entity::Entity;
use crate::error::{Error, ErrorKind, Result};
use crate::json::to_json;
use crate::kind::{OptionSpec, OptionType, Options};
use crate::source::{Binding, Probe, Source};
use crate::stream::{self, Event};

/// One change, as it is sent.
#[derive(Clone, Debug)]
pub struct Message {
    /// The entity, or that of the events of a type of streams.
    pub entity: Arc<Entity>,
    /// What happened.
    pub change: Arc<Change>,
    /// The event, if it is one.
    pub event: Option<Event>,
    /// Whether it may come behind later ones: it had been set aside, or the log does not have it any more.
    pub again: bool,
}

impl Message {
    /// What is sent of a change; `None` if nothing is: of events only what was appended to a stream.
    pub fn of(entity: &Arc<Entity>, change: &Arc<Change>, again: bool) -> Result<Option<Self>> {
        let event = match (entity.is_of_events(), &change.image) {
            (false, _) => None,
            (true, None) => return Ok(None),
            (true, Some(record)) => {
                let event = Event::of(record)?;
                // What describes or closes a stream did not happen in it.
                if event.kind.starts_with('$') {
                    return Ok(None);
                }
                Some(event)
            }
        };
        let (entity, change) = (Arc::clone(entity), Arc::clone(change));
        Ok(Some(Message { entity, change, event, again }))
    }

    /// Its identity: the same whenever it is sent, and that of nothing else.
    pub fn id(&self) -> String {
        match &self.event {
            Some(event) => event.id.clone(),
            None => format!("{}/{}@{}", self.entity.name(), self.change.key, self.change.position),
        }
    }

    /// What it is about: a stream, or the key of a record. Messages about the same are sent one after the other.
    pub fn subject(&self) -> String {
        match &self.event {
            Some(event) => event.stream.clone(),
            None => self.change.key.to_string(),
        }
    }

    /// What sort of fact: the type of the event, `put` or `delete`.
    pub fn kind(&self) -> &str {
        match &self.event {
            Some(event) => &event.kind,
            None => self.change.operation.as_str(),
        }
    }

    /// The type of the streams, or the entity.
    pub fn about(&self) -> &str {
        stream::type_of(&self.entity).unwrap_or(self.entity.name())
    }

    /// As a CloudEvent. That of a record has the state after the change as its data, or null if it is gone.
    pub fn to_cloud(&self) -> Json {
        if let Some(event) = &self.event {
            return stream::to_cloud(event, self.about());
        }
        let change = &self.change;
        let data = match (change.operation, &change.image) {
            (Operation::Put, Some(record)) => to_json(&self.entity, record),
            _ => Json::Null,
        };
        json!({
            "specversion": "1.0", "id": self.id(), "source": format!("/v1/{}", self.about()),
            "subject": self.subject(), "type": format!("{}.{}", self.about(), self.kind()), "time": change.time,
            "datacontenttype": "application/json", "data": data, "position": change.position,
        })
    }
}

/// Where a new outlet begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Begin {
    /// With what happens from then on.
    #[default]
    Now,
    /// With the first event or record that there is.
    First,
}

/// How an outlet is fed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manner {
    /// Where it begins, the first time.
    pub begin: Begin,
    /// How many messages are on their way at the same time; those about the same subject are never.
    pub lanes: usize,
    /// How often a message is sent that is refused, before it becomes a dead letter; at least 1.
    pub attempts: u32,
}

impl Default for Manner {
    fn default() -> Self {
        Manner { begin: Begin::Now, lanes: 8, attempts: 8 }
    }
}

impl Manner {
    /// The option `begin`, which every kind of outlet has.
    pub const BEGIN: OptionSpec = OptionSpec {
        name: "begin",
        ty: OptionType::Choice(&["now", "first"]),
        default: Some("now"),
        optional: false,
        doc: "Where it begins the first time: with what happens from then on, or with the first event or record that there is.",
    };
    /// The option `lanes`.
    pub const LANES: OptionSpec = OptionSpec {
        name: "lanes",
        ty: OptionType::Integer { min: 1, max: 256 },
        default: Some("8"),
        optional: false,
        doc: "How many messages are on their way at the same time; those about the same stream or record go one after the other.",
    };
    /// The option `attempts`.
    pub const ATTEMPTS: OptionSpec = OptionSpec {
        name: "attempts",
        ty: OptionType::Integer { min: 1, max: 1_000 },
        default: Some("8"),
        optional: false,
        doc: "How often a message is sent that the other side refuses, before it becomes a dead letter; while the other side cannot be reached, nothing is given up.",
    };

    /// What was declared by these options.
    pub fn of(options: &Options) -> Self {
        let default = Manner::default();
        let number = |name| options.integer(name).and_then(|n| u32::try_from(n).ok());
        Manner {
            begin: if options.text("begin") == Some("first") { Begin::First } else { Begin::Now },
            lanes: number("lanes").map_or(default.lanes, |n| n as usize),
            attempts: number("attempts").unwrap_or(default.attempts),
        }
    }
}

/// Takes messages for good.
#[async_trait]
pub trait Outlet: Send + Sync {
    /// Sends a message, and waits until the other side says that it has it.
    ///
    /// * `send-1` `Ok` means that the other side has it durably. A message can come again, with the same id.
    /// * `send-2` An error `unavailable`, `overloaded`, `rate_limited` or `timeout` means that the other side is not there:
    ///   it is sent until it is taken, not before the pause that the error names. Every other error refuses this message.
    async fn send(&self, message: &Message) -> Result<()>;

    /// What must stay in order: messages with the same answer are sent one after the other.
    fn order(&self, message: &Message) -> String {
        message.subject()
    }

    /// A cheap sign of life.
    async fn probe(&self) -> Result<Probe> {
        Ok(Probe::default())
    }

    /// Lets go of everything.
    async fn close(&self) {}
}

/// Whether an error says that the other side is not there, rather than that it refuses a message.
pub fn is_away(error: &Error) -> bool {
    use ErrorKind::{Cancelled, Overloaded, RateLimited, Timeout, Unavailable};
    matches!(error.kind(), Unavailable | Overloaded | RateLimited | Timeout | Cancelled)
}

/// An outlet as a source, which is what it is declared, watched and paused as.
pub struct OutletSource {
    name: Arc<str>,
    kind: &'static str,
    capability: Capability,
    outlet: Arc<dyn Outlet>,
    manner: Manner,
}

/// The most messages between two checkpoints.
const BATCH_MAX: usize = 256;
const BATCH_BYTES_MAX: usize = 4 << 20;

impl OutletSource {
    /// A source of a kind that is an outlet.
    pub fn over(
        name: &str,
        kind: &'static str,
        outlet: Arc<dyn Outlet>,
        manner: Manner,
    ) -> Arc<dyn Source> {
        let (name, capability) = (name.into(), Self::capability());
        Arc::new(OutletSource { name, kind, capability, outlet, manner })
    }

    /// What every outlet can do: be sent every change, one batch after the other.
    pub fn capability() -> Capability {
        Capability {
            roles: &[Role::Outlet],
            naming: &[],
            durable: true,
            query: QueryCapability::default(),
            apply: ApplyCapability {
                lanes: 1,
                copy_lanes: 1,
                batch_changes_max: BATCH_MAX,
                batch_bytes_max: BATCH_BYTES_MAX,
                history: true,
            },
            refuses: |_, _| None,
        }
    }
}

#[async_trait]
impl Source for OutletSource {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn kind(&self) -> &'static str {
        self.kind
    }

    fn capability(&self) -> &Capability {
        &self.capability
    }

    async fn prepare(&self, _bindings: &[Binding]) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    async fn probe(&self) -> Result<Probe> {
        self.outlet.probe().await.map_err(|e| e.at(&self.name))
    }

    async fn close(&self) -> Result<()> {
        self.outlet.close().await;
        Ok(())
    }

    fn outlet(self: Arc<Self>) -> Option<(Arc<dyn Outlet>, Manner)> {
        Some((Arc::clone(&self.outlet), self.manner))
    }
}

/// The pause after which a message that was refused is sent again, after so many refusals in a row.
pub fn pause(attempt: u32) -> Duration {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(10);
    (FIRST * (1 << attempt.saturating_sub(1).min(16))).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::{Field, FieldType};
    use crate::key::Key;
    use crate::position::Position;
    use crate::record::Record;
    use crate::stream::NewEvent;
    use crate::time::Timestamp;
    use crate::value::Value;

    fn change(entity: &Arc<Entity>, image: Option<Record>) -> Arc<Change> {
        Arc::new(Change {
            position: Position::ZERO.plus(7),
            entity: Arc::clone(entity.name()),
            key: Key::from_text("a").unwrap(),
            operation: if image.is_some() { Operation::Put } else { Operation::Delete },
            replaced: None,
            image: image.map(Arc::new),
            time: Timestamp::EPOCH,
            actor: None,
            trace: None,
        })
    }

    #[test]
    fn a_record_is_told_with_its_state_and_the_place_of_the_change() {
        let entity = Entity::new("thing", "id", vec![Field::new("id", FieldType::String)]).unwrap();
        let entity = Arc::new(entity);
        let put = change(&entity, Some(Record::new(vec![Value::String("a".into())])));
        let cloud = Message::of(&entity, &put, false).unwrap().unwrap().to_cloud();
        assert_eq!(cloud["id"], "thing/a@7");
        assert_eq!((&cloud["type"], &cloud["data"]), (&json!("thing.put"), &json!({"id": "a"})));
        let gone = Message::of(&entity, &change(&entity, None), false).unwrap().unwrap();
        assert_eq!((gone.kind(), gone.to_cloud()["data"].is_null()), ("delete", true));
    }

    #[test]
    fn of_streams_only_what_happened_is_told() {
        let events = Arc::new(stream::entity("order").unwrap());
        let record = |kind: &str| {
            let event = NewEvent::new(kind, Json::Null);
            let mut record = event.record(&events, "e1".into(), Timestamp::EPOCH);
            record.values_mut()[..4].clone_from_slice(&[
                Value::String("o1/0000000000000001".into()),
                Value::String("o1".into()),
                Value::Integer(1),
                Value::Integer(7),
            ]);
            record
        };
        let of = |image| Message::of(&events, &change(&events, image), false).unwrap();
        assert!(of(None).is_none(), "an event that was removed");
        assert!(of(Some(record(stream::ARCHIVED))).is_none());
        let told = of(Some(record("placed"))).unwrap();
        assert_eq!((told.id().as_str(), told.subject().as_str()), ("e1", "o1"));
        assert_eq!(
            (told.about(), told.to_cloud()["source"].as_str()),
            ("order", Some("/v1/streams/order"))
        );
    }

    #[test]
    fn pauses_double_up_to_ten_seconds() {
        let millis = [1, 2, 3, 7, 8, 99].map(|n| pause(n).as_millis());
        assert_eq!(millis, [100, 200, 400, 6400, 10_000, 10_000]);
    }
}
