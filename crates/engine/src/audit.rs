//! The audit trail: beside the changes of records, what was done to the system itself, by whom, and what it decided.
//!
//! An entry is a record of an entity of the engine's own in a truth, so that it has its place among the changes of that
//! log, is kept, archived and chained with them, and cannot be taken out of it without being missed.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use serde_json::Value as Json;
use unisono_core::entity::{Field, FieldType};
use unisono_core::kind::Options;
use unisono_core::source::{Binding, Source};
use unisono_core::write::{Action, Condition, Unit, Write};
use unisono_core::{Change, Entity, ErrorKind, Key, Record, Result, Role, Value};
use unisono_policy::retry;

use crate::log::Log;
use crate::runtime::Runtime;

/// What a move of a truth is called, in the log of the truth that it came to.
pub(crate) const PROMOTE: &str = "promote";
/// How often an entry is tried that the truth does not take.
const ATTEMPTS_MAX: u32 = 10;
/// How long is waited for an entry that comes before what it tells of.
const BEFORE_MAX: Duration = Duration::from_secs(5);

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

/// Whether a change of a log is the entry of a move to its truth: what the entity was before is not in this log.
pub(crate) fn is_promotion(change: &Change) -> bool {
    if change.entity != *entity().name() {
        return false;
    }
    let action = entity().index_of("action").zip(change.image.as_ref());
    action.and_then(|(n, image)| image.values().get(n)?.as_str()) == Some(PROMOTE)
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
        entry.tell();
        let (log, on) = (Arc::clone(self), runtime.clone());
        self.auditing.change(|entries| {
            *entries += 1;
            true
        });
        runtime.spawn(async move {
            if let Err(error) = log.audit_in_time(&entry, &on).await {
                tracing::error!(%error, ?entry, "an entry of the audit trail is lost");
            }
            log.auditing.change(|entries| {
                *entries -= 1;
                true
            });
        });
    }

    /// Puts an entry into the log before what it tells of is done, so that no end of the process comes between; fails if
    /// the truth does not take it for long.
    pub(crate) async fn audit_before(&self, entry: &Entry, runtime: &Runtime) -> Result<()> {
        entry.tell();
        let audited = runtime.within(BEFORE_MAX, self.audit_in_time(entry, runtime)).await;
        audited.map_err(|e| e.on("audit"))
    }

    /// It is one entry however often it is tried, also when an answer is lost.
    async fn audit_in_time(&self, entry: &Entry, on: &Runtime) -> Result<()> {
        if !self.truth.keeps(entity()) {
            return Ok(());
        }
        let unit = entry.unit(on)?;
        let mut attempt = 1;
        loop {
            match self.committer.commit(unit.clone()).await {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
                Err(error) if attempt == ATTEMPTS_MAX => return Err(error),
                Err(_) => on.sleep(retry::backoff(attempt, on.random())).await,
            }
            attempt += 1;
        }
    }
}

impl Entry {
    /// Tells the log of the program.
    pub(crate) fn tell(&self) {
        let Entry { actor, action, entity, source, details } = self;
        tracing::info!(target: "audit", action, ?actor, ?entity, ?source, %details);
    }

    /// The write of the entry, which takes place once.
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
            condition: Condition::Absent,
        };
        let (writes, actor) = (vec![write], self.actor.clone());
        Ok(Unit { writes, idempotency: None, time, actor, trace: None })
    }
}
