//! Read replicas: they answer when they have what this process knows of, and the primary when they are away.
#![expect(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::sync::Arc;

use common::{Database, column, commit, open, prepare, put};
use unisono_core::Role;
use unisono_core::kind::OptionValue;
use unisono_core::source::Source;
use unisono_testkit::Sample;

async fn with_replica(db: &Database, replica: &str) -> Arc<dyn Source> {
    let mut options = db.options();
    options.0.insert("replicas".into(), OptionValue::List(vec![replica.to_owned()]));
    let source = open(&options).await.unwrap();
    prepare(&source, Role::Truth, &[&Sample::product()]).await.unwrap();
    source
}

/// Reads every write right after it.
async fn reads_its_writes(source: &Arc<dyn Source>) {
    let entity = Sample::product();
    let reader = Arc::clone(source).reader().unwrap();
    for n in 0..30 {
        let record = Sample::product_record(n);
        let key = entity.key_of(&record).unwrap();
        let position = *commit(source, vec![put(&entity, record)]).await[0].as_ref().unwrap();
        let found = reader.get(&entity, &[key]).await.unwrap();
        assert!(found.position.as_u64() >= position, "an answer from before the write");
        assert_eq!(found.value[0].as_ref().map(|s| s.version.as_u64()), Some(position));
    }
}

#[tokio::test]
async fn a_replica_answers_but_never_from_before_a_write() {
    let db = Database::new();
    let source = with_replica(&db, &db.replica_url()).await;
    reads_its_writes(&source).await;
    let mut replica = db.replicated().await;
    let connections = format!(
        "SELECT COUNT(*) > 0 FROM information_schema.processlist WHERE db = '{}' AND id <> CONNECTION_ID()",
        db.name
    );
    assert_eq!(column(&mut replica, &connections).await, ["1"], "the replica was asked");
    // Now that it has caught up its answers are taken.
    let entity = Sample::product();
    let reader = Arc::clone(&source).reader().unwrap();
    assert_eq!(
        reader.count(&entity, &unisono_core::query::Filter::All, None).await.unwrap().value,
        30
    );
    db.drop().await;
}

#[tokio::test]
async fn the_primary_answers_while_a_replica_is_away() {
    let db = Database::new();
    let source = with_replica(&db, &db.url().replace(":3351/", ":1/")).await;
    reads_its_writes(&source).await;
    db.drop().await;
}
