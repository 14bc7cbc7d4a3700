//! The audit trail: beside the changes of records, what was done to the system itself, by whom, and what it decided.
//!
//! An entry is a record of an entity of the engine's own in a truth, so that it has its place among the changes of that
//! log, is kept, archived and chained with them, and cannot be taken out of it without being missed.

use std::sync::{Arc, LazyLock};

use serde_json::Value as Json;
use unisono_core::entity::{Field, FieldType};
use unisono_core::kind::Options;
use unisono_core::source::{Binding, Source};
use unisono_core::write::{Action, Condition, Unit, Write};
use unisono_core::{Entity, Key, Record, Result, Role, Value};
use unisono_policy::retry;

use crate::log::Log;
use crate::runtime::Runtime;

/// How often an entry is tried that the truth does not take.
const ATTEMPTS_MAX: u32 = 10;

/// Something that was done, or decided.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Who had it done; the engine itself if nobody.
    pub(crate) actor: Option<Arc<str>>,
    /// What it was, in one word such as `repair`.
    pub(crate) action: &'static str,
    /// The entity concerned, if it is one.
    pub(crate) entity: Option<Arc<str>>,
    /// The source concerned, if it is one.
    pub(crate) source: Option<Arc<str>>,
    /// What there is to say about it.
    pub(crate) details: Json,
}

/// The entity of which entries are records.
pub(crate) fn entity() -> &'static Arc<Entity> {
    static ENTITY: LazyLock<Arc<Entity>> = LazyLock::new(|| {
        let required = |name, ty| Field { required: true, ..Field::new(name, ty) };
        let fields = vec![
            Field::new("id", FieldType::Uuid),
            required("time", FieldType::Timestamp { precision: 6 }),
            Field::new("actor", FieldType::String),
            required("action", FieldType::String),
            Field::new("entity", FieldType::String),
            Field::new("source", FieldType::String),
            Field::new("details", FieldType::Json),
        ];
        let entity = Entity::system("audit", "id", fields);
        #[expect(
            clippy::expect_used,
            reason = "the names above are names, and the key is among them"
        )]
        Arc::new(entity.expect("a declaration that never changes"))
    });
    &ENTITY
}

/// Where a truth keeps entries, if it can.
pub(crate) fn binding(source: &Arc<dyn Source>) -> Option<Binding> {
    let entity = Arc::clone(entity());
    Arc::clone(source).truth().filter(|truth| truth.keeps(&entity))?;
    let (place, options) = (Arc::clone(entity.name()), Options::default());
    Some(Binding { entity, role: Role::Truth, place, options })
}

impl Log {
    /// Puts an entry into the log, in its own time: whoever does something does not wait for it, and a truth that does
    /// not answer for long goes without it.
    pub(crate) fn audit(self: &Arc<Self>, entry: Entry, runtime: &Runtime) {
        let (log, on) = (Arc::clone(self), runtime.clone());
        self.auditing.change(|entries| {
            *entries += 1;
            true
        });
        runtime.spawn(async move {
            log.audit_in_time(&entry, &on).await;
            log.auditing.change(|entries| {
                *entries -= 1;
                true
            });
        });
    }

    async fn audit_in_time(&self, entry: &Entry, on: &Runtime) {
        for attempt in 1..=ATTEMPTS_MAX {
            match self.audit_now(entry, on).await {
                Ok(()) => return,
                Err(error) if attempt == ATTEMPTS_MAX => {
                    tracing::error!(%error, ?entry, "an entry of the audit trail is lost");
                }
                Err(_) => on.sleep(retry::backoff(attempt, on.random())).await,
            }
        }
    }

    /// Puts an entry into the log.
    async fn audit_now(&self, entry: &Entry, runtime: &Runtime) -> Result<()> {
        entry.tell();
        if !self.truth.keeps(entity()) {
            return Ok(());
        }
        self.committer.commit(entry.unit(runtime)?).await.map(drop)
    }
}

impl Entry {
    fn tell(&self) {
        let Entry { actor, action, entity, source, details } = self;
        tracing::info!(target: "audit", action, ?actor, ?entity, ?source, %details);
    }

    /// The write of the entry.
    pub(crate) fn unit(&self, runtime: &Runtime) -> Result<Unit> {
        let (id, time) = (runtime.uuid(), runtime.now());
        let text = |text: &Option<Arc<str>>| match text {
            Some(text) => Value::String(text.as_ref().into()),
            None => Value::Null,
        };
        let values = vec![
            Value::Uuid(id),
            Value::Timestamp(time),
            text(&self.actor),
            Value::String(self.action.into()),
            text(&self.entity),
            text(&self.source),
            Value::Json(self.details.clone()),
        ];
        let write = Write {
            entity: Arc::clone(entity()),
            key: Key::from_value(&Value::Uuid(id))?,
            action: Action::Put(Record::new(values)),
            condition: Condition::None,
        };
        let (writes, actor) = (vec![write], self.actor.clone());
        Ok(Unit { writes, idempotency: None, time, actor, trace: None })
    }
}
