//! A captured table that another program made, and what must always hold of its log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio_postgres::Client;
use unisono_core::kind::{OptionValue, Options};
use unisono_core::source::{Auditor, Binding, LogBounds, Reader, Source, Truth};
use unisono_core::write::{Action, Committed, Condition, Unit, Write};
use unisono_core::{
    Change, Entity, Field, FieldType, Key, Operation, Position, Result, Role, Stored, Timestamp,
};

use crate::common::{Database, open};

pub(crate) const TABLE: &str =
    "CREATE TABLE thing (id text PRIMARY KEY, sku text UNIQUE, v integer);";

/// A schema with a captured table.
pub(crate) struct Site {
    pub(crate) db: Database,
    pub(crate) entity: Arc<Entity>,
    pub(crate) source: Arc<dyn Source>,
}

/// The entity over [`TABLE`].
pub(crate) fn thing() -> Arc<Entity> {
    let fields = vec![
        Field::new("id", FieldType::String),
        Field::new("sku", FieldType::String),
        Field::new("v", FieldType::Integer),
    ];
    Arc::new(Entity::new("thing", "id", fields).unwrap())
}

/// An entity in a table of its name, captured or not.
pub(crate) fn binding(entity: &Arc<Entity>, capture: Option<&str>) -> Binding {
    let mut options = Options::default();
    if let Some(how) = capture {
        options.0.insert("capture".into(), OptionValue::Text(how.into()));
    }
    let place = Arc::clone(entity.name());
    Binding { entity: Arc::clone(entity), role: Role::Truth, place, options }
}

/// A client in a schema that is made for it.
pub(crate) async fn schema(db: &Database) -> Client {
    let client = db.outside().await;
    client.batch_execute(&format!("CREATE SCHEMA IF NOT EXISTS {}", db.schema)).await.unwrap();
    client
}

impl Site {
    /// With statements that the application has run before, behind [`TABLE`].
    pub(crate) async fn new(before: &str) -> Self {
        Site::at(Database::new(), before).await
    }

    pub(crate) async fn at(db: Database, before: &str) -> Self {
        schema(&db).await.batch_execute(&format!("{TABLE}{before}")).await.unwrap();
        let (entity, source) = (thing(), db.open().await);
        source.prepare(&[binding(&entity, Some("trigger"))]).await.unwrap();
        Site { db, entity, source }
    }

    /// Another process of Unisono over the same schema.
    pub(crate) async fn second(&self) -> Arc<dyn Source> {
        self.second_at(&self.db.url).await
    }

    /// The same, which reaches the server in another way.
    pub(crate) async fn second_at(&self, url: &str) -> Arc<dyn Source> {
        let source = open(&self.db.options_at(url)).await.unwrap();
        source.prepare(&[binding(&self.entity, Some("trigger"))]).await.unwrap();
        source
    }

    /// Another program.
    pub(crate) async fn other(&self) -> Client {
        self.db.outside().await
    }

    /// Statements of another program, on a connection of their own.
    pub(crate) async fn run(&self, sql: &str) {
        self.other().await.batch_execute(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    }

    pub(crate) fn truth(&self) -> Arc<dyn Truth> {
        truth(&self.source)
    }

    pub(crate) async fn bounds(&self) -> LogBounds {
        self.truth().bounds().await.unwrap()
    }

    pub(crate) async fn get(&self, id: &str) -> Result<Option<Stored>> {
        let reader: Arc<dyn Reader> = Arc::clone(&self.source).reader().unwrap();
        Ok(reader.get(&self.entity, &[key(id)]).await?.value.remove(0))
    }

    pub(crate) fn put(&self, record: Json) -> Write {
        let record = unisono_core::json::parse(&self.entity, &record).unwrap();
        let key = self.entity.key_of(&record).unwrap();
        self.write(key, Action::Put(record))
    }

    pub(crate) fn delete(&self, id: &str) -> Write {
        self.write(key(id), Action::Delete)
    }

    pub(crate) fn write(&self, key: Key, action: Action) -> Write {
        Write { entity: Arc::clone(&self.entity), key, action, condition: Condition::None }
    }

    /// Writes of Unisono itself, in one unit.
    pub(crate) async fn commit(&self, writes: Vec<Write>) -> Result<Committed> {
        self.truth().commit(vec![unit(writes)]).await?.remove(0)
    }

    /// Every record by key, as the truth answers them.
    pub(crate) async fn stored(&self) -> Vec<Stored> {
        let auditor: Arc<dyn Auditor> = Arc::clone(&self.source).auditor().unwrap();
        auditor.scan(&self.entity, None, 100_000).await.unwrap().value.records
    }

    /// The rows as another program sees them, by key.
    pub(crate) async fn rows(&self) -> Vec<Json> {
        let rows = "SELECT id, sku, v::bigint FROM thing ORDER BY id COLLATE \"C\"";
        let rows = self.other().await.query(rows, &[]).await.unwrap();
        let cells = |row: &tokio_postgres::Row| {
            let (id, sku, v): (String, Option<String>, Option<i64>) =
                (row.get(0), row.get(1), row.get(2));
            let mut json = json!({"id": id});
            if let Some(sku) = sku {
                json["sku"] = json!(sku);
            }
            if let Some(v) = v {
                json["v"] = json!(v);
            }
            let record = unisono_core::json::parse(&self.entity, &json).unwrap();
            unisono_core::json::to_json(&self.entity, &record)
        };
        rows.iter().map(cells).collect()
    }

    /// The whole log, when everything that others have committed is in it.
    /// Waits for the lease of a process that is no more, if need be.
    pub(crate) async fn log(&self) -> Vec<Arc<Change>> {
        let waits = format!(
            "SELECT EXISTS (SELECT FROM {}.unisono_intake WHERE refused IS NULL)",
            self.db.schema
        );
        let other = self.other().await;
        let emptied = async {
            loop {
                self.bounds().await;
                if !other.query_one(&waits, &[]).await.unwrap().get::<_, bool>(0) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let emptied = tokio::time::timeout(Duration::from_secs(20), emptied).await;
        emptied.expect("the intake is emptied");
        log(&self.source).await
    }

    /// The log tells exactly what the table holds, and each version is that of the last change.
    pub(crate) async fn assert_log_tells_all(&self) -> Vec<Arc<Change>> {
        let changes = self.log().await;
        let from = self.bounds().await.trimmed;
        let told = replay(&self.entity, &changes, from);
        let records: Vec<_> = told.values().map(|(_, json)| json.clone()).collect();
        assert_eq!(records, self.rows().await, "the log tells what the table holds");
        let stored = self.stored().await;
        let versions: Vec<_> = stored.iter().map(|s| (s.key.clone(), s.version)).collect();
        let expected: Vec<_> = told.iter().map(|(key, (at, _))| (key.clone(), *at)).collect();
        assert_eq!(versions, expected, "a version is that of the last change");
        changes
    }

    /// What became of one record, in the log.
    pub(crate) async fn told_of(&self, id: &str) -> Vec<(Operation, Option<i64>)> {
        let changes = self.log().await;
        let of = changes.iter().filter(|c| c.key == key(id));
        let v = |c: &Change| match c.image.as_ref()?.values().get(2)? {
            unisono_core::Value::Integer(v) => Some(*v),
            _ => None,
        };
        of.map(|c| (c.operation, v(c))).collect()
    }
}

pub(crate) fn truth(source: &Arc<dyn Source>) -> Arc<dyn Truth> {
    Arc::clone(source).truth().unwrap()
}

/// The whole log, when everything that others have committed is in it.
pub(crate) async fn log(source: &Arc<dyn Source>) -> Vec<Arc<Change>> {
    let truth = truth(source);
    let mut all = Vec::new();
    let mut after = truth.bounds().await.unwrap().trimmed;
    loop {
        // Each run of the sequencer may take a part of what waits.
        let head = truth.bounds().await.unwrap().head;
        let some = truth.read_log(after, 1000, usize::MAX).await.unwrap();
        let Some(last) = some.last() else {
            assert_eq!(after, head);
            return all;
        };
        after = last.position;
        all.extend(some);
    }
}

/// What follows from a log: the records at its end with their versions. Checks what every follower relies on.
pub(crate) fn replay(
    entity: &Entity,
    changes: &[Arc<Change>],
    from: Position,
) -> BTreeMap<Key, (Position, Json)> {
    let mut state: BTreeMap<Key, (Position, Json)> = BTreeMap::new();
    let mut position = from;
    for change in changes {
        assert_eq!(change.position, position.next(), "positions are dense");
        position = change.position;
        let before = state.get(&change.key).map(|(version, _)| *version);
        // A record from before the log has a version that no change tells of.
        if before.is_some() || change.replaced.is_none_or(|replaced| replaced > from) {
            assert_eq!(change.replaced, before, "{change:?} says what it replaced");
        }
        match &change.image {
            Some(image) => {
                let json = unisono_core::json::to_json(entity, image);
                state.insert(change.key.clone(), (position, json));
            }
            None => drop(state.remove(&change.key)),
        }
    }
    state
}

pub(crate) fn key(text: &str) -> Key {
    Key::from_text(text).unwrap()
}

pub(crate) fn unit(writes: Vec<Write>) -> Unit {
    Unit { writes, idempotency: None, time: Timestamp::EPOCH, actor: None, trace: None }
}
