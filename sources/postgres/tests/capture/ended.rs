//! Capture by the application itself, and capture that begins, ends, and begins again.

use unisono_core::ErrorKind;
use unisono_core::Operation::Put;
use unisono_source_postgres::record_in;

use crate::common::Database;
use crate::site::{Site, TABLE, binding, key, schema, thing};

#[tokio::test]
async fn an_application_can_note_its_writes_down_itself() {
    let db = Database::new();
    schema(&db).await.batch_execute(TABLE).await.unwrap();
    let (entity, source) = (thing(), db.open().await);
    source.prepare(&[binding(&entity, Some("record"))]).await.unwrap();
    let site = Site { db, entity, source };
    let mut other = site.other().await;
    for end in [false, true] {
        let transaction = other.transaction().await.unwrap();
        record_in(&transaction, &site.db.schema, "thing", &key("a"), Some("importer"))
            .await
            .unwrap();
        transaction.execute("INSERT INTO thing VALUES ('a', NULL, 1)", &[]).await.unwrap();
        if end {
            transaction.commit().await.unwrap();
        } else {
            transaction.rollback().await.unwrap();
        }
    }
    let changes = site.assert_log_tells_all().await;
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].actor.as_deref(), Some("importer"));
    let transaction = other.transaction().await.unwrap();
    let unknown = record_in(&transaction, &site.db.schema, "nothing", &key("a"), None).await;
    assert_eq!(unknown.unwrap_err().kind(), ErrorKind::NotFound);
    transaction.rollback().await.unwrap();
    let transaction = other.transaction().await.unwrap();
    let unknown = record_in(&transaction, "nowhere", "thing", &key("a"), None).await;
    assert_eq!(unknown.unwrap_err().kind(), ErrorKind::SchemaMismatch);
    transaction.rollback().await.unwrap();
    site.db.drop().await;
}

#[tokio::test]
async fn capture_can_end_and_begin_again() {
    let site = Site::new("").await;
    site.run("INSERT INTO thing VALUES ('a', NULL, 1)").await;
    let head = site.bounds().await.head;
    let uncaptured = site.db.open().await;
    uncaptured.prepare(&[binding(&site.entity, None)]).await.unwrap();
    let site = Site { source: uncaptured, ..site };
    assert!(site.get("a").await.unwrap().unwrap().version >= head);
    site.run("UPDATE thing SET v = 2").await;
    assert_eq!(site.bounds().await.head, head, "nobody captures it");
    let error = site.source.prepare(&[binding(&site.entity, Some("trigger"))]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SchemaMismatch);
    site.run("ALTER TABLE thing DROP COLUMN unisono_version").await;
    let again = site.second().await;
    let site = Site { source: again, ..site };
    let told = site.told_of("a").await;
    assert_eq!(told.last(), Some(&(Put, Some(2))), "what nobody captured is told again");
    assert!(site.get("a").await.unwrap().unwrap().version > head);
    site.db.drop().await;
}

#[tokio::test]
async fn writes_are_captured_while_unisono_is_away() {
    let site = Site::new("").await;
    site.source.close().await.unwrap();
    site.run("INSERT INTO thing VALUES ('a', NULL, 1); UPDATE thing SET v = 5").await;
    let source = site.db.open().await;
    let notes = source.prepare(&[binding(&site.entity, Some("trigger"))]).await.unwrap();
    assert!(notes.is_empty(), "{notes:?}");
    let site = Site { source, ..site };
    assert_eq!(site.told_of("a").await, [(Put, Some(5))]);
    site.assert_log_tells_all().await;
    let bare = site.db.open().await;
    let notes = bare.prepare(&[]).await.unwrap();
    assert!(notes.iter().any(|note| note.contains("still noted down")), "{notes:?}");
    site.db.drop().await;
}
