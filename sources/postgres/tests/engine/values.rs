//! Values that PostgreSQL cannot hold, or would hold in another way.

use std::sync::Arc;

use serde_json::json;
use unisono_core::query::{Comparison, Filter, Path, Query};
use unisono_core::{ErrorKind, Field, FieldType, Key, Record, Role, Value, json as record_json};
use unisono_testkit::{Changes, Sample};

use crate::common::{Database, batch, commit, commit_one, get, put, thing};

#[tokio::test]
async fn u0000_stays_in_keys_texts_lists_and_json() {
    let entity = thing(vec![
        Field::new("id", FieldType::String),
        Field { unique: true, ..Field::new("name", FieldType::Text) },
        Field::new("tags", FieldType::List(Box::new(FieldType::String))),
        Field::new("free", FieldType::Json),
    ]);
    let texts =
        ["a", "a ", "A", "á", "a\u{301}", "a\0", "a\0\0", "a\u{1}", "a\u{1}\u{1}", "\0", "ß"];
    let record = |text: &str| {
        let free = json!({ "x": text, text: [text], "n": 1e300 });
        let json = json!({ "id": text, "name": text, "tags": [text, "b"], "free": free });
        Sample::record(&entity, &json)
    };
    let mut log = Changes::new();
    for role in [Role::Truth, Role::Follower] {
        let db = Database::new();
        let source = db.prepared(role, &[&entity]).await;
        if role == Role::Truth {
            let units = texts.iter().map(|text| put(&entity, record(text))).collect();
            let results = commit(&source, units).await;
            assert!(results.iter().all(Result::is_ok), "unique values too: {results:?}");
            let truth = Arc::clone(&source).truth().unwrap();
            let read = truth.read_log(Default::default(), 100, 1 << 20).await.unwrap();
            let images: Vec<_> = read.iter().map(|c| c.image.as_deref().cloned()).collect();
            assert_eq!(images, texts.map(|text| Some(record(text))), "the log");
        } else {
            let changes: Vec<_> = texts.iter().map(|text| log.put(&entity, record(text))).collect();
            let follower = Arc::clone(&source).follower().unwrap();
            let batch = batch(&entity, &changes, log.log, 0, texts.len() as u64);
            assert!(follower.apply(batch).await.unwrap().advanced);
        }
        let reader = Arc::clone(&source).reader().unwrap();
        for text in texts {
            let found = get(&source, &entity, Key::String(text.into())).await;
            assert_eq!(found, Some(record(text)), "{text:?}");
            let value = Value::String(text.to_owned());
            for filter in [
                Filter::Compare(Path::whole(1), Comparison::Eq, value.clone()),
                Filter::Contains(Path::whole(2), value),
            ] {
                let count = reader.count(&entity, &filter, None).await.unwrap().value;
                assert_eq!(count, 1, "{text:?} {filter:?}");
            }
        }
        let page = reader.query(&entity, &Query::all()).await.unwrap().value;
        let ids: Vec<_> = page.hits.iter().map(|hit| hit.stored.key.clone()).collect();
        let mut sorted = texts;
        sorted.sort_unstable();
        assert_eq!(ids, sorted.map(|text| Key::String(text.into())), "by code points");
        db.drop().await;
    }
}

#[tokio::test]
async fn an_adopted_jsonb_column_refuses_u0000_for_its_record_alone() {
    let db = Database::new();
    let sql = format!(
        "CREATE SCHEMA {0}; CREATE TABLE {0}.thing (id text PRIMARY KEY, free jsonb)",
        db.schema
    );
    db.outside().await.batch_execute(&sql).await.unwrap();
    let entity =
        thing(vec![Field::new("id", FieldType::String), Field::new("free", FieldType::Json)]);
    let record = |id: &str, text: &str| {
        Record::new(vec![Value::String(id.to_owned()), Value::Json(json!({ "x": text }))])
    };
    let source = db.prepared(Role::Truth, &[&entity]).await;
    let units = vec![put(&entity, record("a", "good")), put(&entity, record("b", "bad\0"))];
    let results = commit(&source, units).await;
    assert!(results[0].is_ok(), "{results:?}");
    let error = results[1].as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    assert!(error.hint_text().is_some_and(|h| h.contains("U+0000")), "{error:?}");
    assert_eq!(db.see("SELECT id FROM thing").await, ["a"]);
    assert_eq!(db.see("SELECT count(*) FROM unisono_log").await, ["1"]);
    db.drop().await;
}

#[tokio::test]
async fn other_programs_find_plain_columns() {
    let db = Database::new();
    let entity = Sample::product();
    let source = db.prepared(Role::Truth, &[&entity]).await;
    let record = Sample::product_record(1);
    let position = commit_one(&source, put(&entity, record.clone())).await;
    let sql = "SELECT concat_ws('|', id, name, price, stock, active, tags->>0, attributes->>'colour', \
               updated_at AT TIME ZONE 'UTC', unisono_version) FROM product";
    let expected =
        format!("p1|green lamp 1|1.01|0|f|green|green|2026-01-02 03:04:05.678901|{position}");
    assert_eq!(db.see(sql).await, [expected]);
    let sql =
        "SELECT concat_ws('|', position, entity, key, operation, image->>'price') FROM unisono_log";
    assert_eq!(db.see(sql).await, [format!("{position}|product|p1|put|1.01")]);
    let image = db.see("SELECT image FROM unisono_log").await.remove(0);
    let parsed = record_json::parse(&entity, &serde_json::from_str(&image).unwrap()).unwrap();
    assert_eq!(parsed, record);
    db.drop().await;
}
