//! What the behaviour suite, which runs against every kind, does not see: files, statements, migrations, adoption.

mod adoption;
mod capture;
mod files;
mod follower;
mod journal;
mod migration;
mod query;
mod truth;

use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;
use serde_json::{Value as Json, json};
use unisono_core::clock::SystemClock;
use unisono_core::kind::{Environment, OptionValue, Options, SourceKind};
use unisono_core::source::{Auditor, Binding, Reader, Source, Truth};
use unisono_core::write::{Action, Committed, Condition, Idempotency, Unit, Write};
use unisono_core::{Entity, Error, Field, FieldType, Key, Record, Result, Role, Stored, Timestamp};

use crate::client::Client;
use crate::config::Settings;
use crate::source::SqliteSource;
use crate::{Sqlite, codec};

const DECIMAL: FieldType = FieldType::Decimal { precision: 12, scale: 2 };

/// An entity with the key `id` (string) and these fields.
fn entity(name: &str, fields: &[(&str, FieldType)]) -> Arc<Entity> {
    let fields = fields.iter().map(|(name, ty)| Field::new(name, ty.clone())).collect();
    entity_of(name, fields)
}

fn entity_of(name: &str, mut fields: Vec<Field>) -> Arc<Entity> {
    fields.insert(0, Field::new("id", FieldType::String));
    Arc::new(Entity::new(name, "id", fields).unwrap())
}

fn settings(folder: &Path) -> Settings {
    let mut options = Options::default();
    options.0.insert("path".into(), OptionValue::Text("main.db".into()));
    let environment = Environment { data: folder.to_owned(), clock: Arc::new(SystemClock) };
    Settings {
        busy_timeout: std::time::Duration::from_millis(20),
        ..Settings::from_options(&options, &environment).unwrap()
    }
}

async fn open(folder: &Path) -> Arc<SqliteSource> {
    Arc::new(SqliteSource::open("main", settings(folder), Sqlite.capability()).await.unwrap())
}

async fn prepare(source: &SqliteSource, role: Role, entity: &Arc<Entity>) -> Result<Vec<String>> {
    let binding = Binding {
        entity: Arc::clone(entity),
        role,
        place: Arc::clone(entity.name()),
        options: Options::default(),
    };
    source.prepare(&[binding]).await
}

async fn open_truth(folder: &Path, entity: &Arc<Entity>) -> Arc<SqliteSource> {
    let source = open(folder).await;
    prepare(&source, Role::Truth, entity).await.unwrap();
    source
}

/// The database past Unisono.
fn raw(folder: &Path) -> Connection {
    Connection::open(folder.join("main.db")).unwrap()
}

fn key(text: &str) -> Key {
    Key::from_text(text).unwrap()
}

fn record(entity: &Entity, json: Json) -> Record {
    unisono_core::json::parse(entity, &json).unwrap()
}

fn put(entity: &Arc<Entity>, json: Json) -> Write {
    let record = record(entity, json);
    let key = entity.key_of(&record).unwrap();
    Write {
        entity: Arc::clone(entity),
        key,
        action: Action::Put(record),
        condition: Condition::None,
    }
}

fn delete(entity: &Arc<Entity>, id: &str) -> Write {
    Write {
        entity: Arc::clone(entity),
        key: key(id),
        action: Action::Delete,
        condition: Condition::None,
    }
}

fn unit(writes: Vec<Write>) -> Unit {
    Unit { writes, idempotency: None, time: Timestamp::EPOCH, actor: None, trace: None }
}

fn idempotent(key: &str, writes: Vec<Write>) -> Unit {
    Unit { idempotency: Some(Idempotency { key: key.into(), fingerprint: 7 }), ..unit(writes) }
}

async fn commit(source: &SqliteSource, writes: Vec<Write>) -> Result<Committed> {
    source.commit(vec![unit(writes)]).await?.remove(0)
}

async fn get(source: &SqliteSource, entity: &Arc<Entity>, id: &str) -> Result<Option<Stored>> {
    Ok(source.get(entity, &[key(id)]).await?.value.remove(0))
}

/// Every record as JSON, by key.
async fn all(source: &SqliteSource, entity: &Arc<Entity>) -> Vec<Json> {
    let page = source.scan(entity, None, 1000).await.unwrap().value;
    page.records.iter().map(|s| unisono_core::json::to_json(entity, &s.record)).collect()
}
