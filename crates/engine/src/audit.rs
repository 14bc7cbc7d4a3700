//! The audit trail: beside the changes of records, what was done to the system itself, by whom, and what it decided.
//!
//! An entry is a record of an entity of the engine's own in a truth, so that it has its place among the changes of that
//! log, is kept, archived and chained with them, and cannot be taken out of it without being missed.

use std::sync::{Arc, LazyLock};

use serde_json::Value as Json;
use unisono_core::entity::{Field, FieldType};
use unisono_core::write::{Action, Condition, Unit, Write};
use unisono_core::{Entity, Key, Record, Result, Value};
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
        tracing::info!(target: "audit", action = entry.action, actor = ?entry.actor, entity = ?entry.entity, source = ?entry.source, details = %entry.details);
        if !self.truth.keeps(entity()) {
            return Ok(());
        }
        let (id, time) = (runtime.uuid(), runtime.now());
        let text = |text: &Option<Arc<str>>| match text {
            Some(text) => Value::String(text.as_ref().into()),
            None => Value::Null,
        };
        let values = vec![
            Value::Uuid(id),
            Value::Timestamp(time),
            text(&entry.actor),
            Value::String(entry.action.into()),
            text(&entry.entity),
            text(&entry.source),
            Value::Json(entry.details.clone()),
        ];
        let write = Write {
            entity: Arc::clone(entity()),
            key: Key::from_value(&Value::Uuid(id))?,
            action: Action::Put(Record::new(values)),
            condition: Condition::None,
        };
        let (writes, actor) = (vec![write], entry.actor.clone());
        let unit = Unit { writes, idempotency: None, time, actor, trace: None };
        self.committer.commit(unit).await.map(drop)
    }
}
