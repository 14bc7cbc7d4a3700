//! Building an index anew: other programs find the old one until the new one is complete.

use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value as Json, json};
use unisono_core::source::Checkpoint;
use unisono_core::{Entity, ErrorKind, Field, FieldType, Position};
use unisono_testkit::Sample;

use crate::server::{Server, binding};

fn everything() -> Json {
    json!({"match_all": {}})
}

fn thing(fields: Vec<Field>) -> Arc<Entity> {
    let mut all = vec![Field::new("id", FieldType::String)];
    all.extend(fields);
    Arc::new(Entity::new("thing", "id", all).unwrap())
}

#[tokio::test]
async fn the_alias_moves_when_the_copy_is_complete() {
    let server = Server::new();
    let mut followed = server.follow(&Sample::product()).await;
    let entity = followed.entity.clone();
    let changes: Vec<_> =
        (0..5).map(|n| followed.changes.put(&entity, Sample::product_record(n))).collect();
    let head = followed.changes.head();
    followed.advance(&changes, head).await;
    let before = server.behind("product").await;
    followed.follower().reset(&entity).await.unwrap();
    followed.checkpoint = None;
    assert_eq!(followed.stored_checkpoint().await, None);
    assert!(followed.get(&Sample::key("p1")).await.is_none(), "our own reads see the new index");
    assert_eq!(server.behind("product").await, before, "other programs see the old one");
    let backfill = Some("p2".to_owned());
    let to = Checkpoint { log: followed.changes.log, position: head, backfill };
    followed.move_to(&changes[..3], to).await;
    assert_eq!(server.behind("product").await, before, "the copy is not complete");
    assert_eq!(server.count("product", everything()).await, 5);
    followed.advance(&changes[3..], head).await;
    let after = server.behind("product").await;
    assert!(after.len() == 1 && after != before, "{before:?} {after:?}");
    assert_eq!(server.count("product", everything()).await, 5);
    assert_eq!(server.behind(&before[0]).await, Vec::<String>::new(), "the old index is left");
    server.wipe().await;
}

#[tokio::test]
async fn added_fields_are_taken_in_and_other_changes_build_anew() {
    let server = Server::new();
    let before = thing(vec![Field::new("name", FieldType::String)]);
    let mut followed = server.follow(&before).await;
    let record = Sample::record(&before, &json!({"id": "a", "name": "x"}));
    let change = followed.changes.put(&before, record);
    followed.advance(&[change], Position::new(1).unwrap()).await;
    let index = server.behind("thing").await;
    // A field that is added: records and checkpoint stay.
    let note = || Field { search: true, ..Field::new("note", FieldType::Text) };
    let more = thing(vec![note(), Field::new("name", FieldType::String)]);
    let report = followed.source.prepare(&[binding(&more)]).await.unwrap();
    assert!(report.len() == 1 && report[0].contains("gets fields: note"), "{report:?}");
    assert_eq!(followed.source.prepare(&[binding(&more)]).await.unwrap(), Vec::<String>::new());
    followed.entity = Arc::clone(&more);
    assert_eq!(followed.stored_checkpoint().await, followed.checkpoint);
    assert_eq!(server.behind("thing").await, index);
    let record = Sample::record(&more, &json!({"id": "b", "note": "ice cream"}));
    let change = followed.changes.put(&more, record);
    followed.advance(&[change], Position::new(2).unwrap()).await;
    let words = |text| json!({"match": {"words.note": text}});
    assert_eq!(server.count("thing", words("cream")).await, 1);
    // A field that is searched from now on: its words are not in the index.
    let name = Field { search: true, ..Field::new("name", FieldType::String) };
    let searched = thing(vec![note(), name]);
    let report = followed.source.prepare(&[binding(&searched)]).await.unwrap();
    assert!(report.len() == 1 && report[0].contains("made anew"), "{report:?}");
    followed.entity = searched;
    assert_eq!(followed.stored_checkpoint().await, None);
    assert_eq!(server.count("thing", words("cream")).await, 1, "other programs see the old one");
    server.wipe().await;
}

#[tokio::test]
async fn a_foreign_index_of_the_name_is_left_alone() {
    let server = Server::new();
    server.ask(Method::PUT, "product", Json::Null).await;
    let source = server.open_with(&[]).await.unwrap();
    let error = source.prepare(&[binding(&Sample::product())]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SchemaMismatch, "{error:?}");
    assert!(error.hint_text().is_some_and(|hint| hint.contains("prefix")), "{error:?}");
    assert_eq!(server.count("product", everything()).await, 0);
    server.wipe().await;
}
