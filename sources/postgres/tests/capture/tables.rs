//! Captured tables that somebody renames, alters, or makes anew, and rows that no entity can hold.

use serde_json::json;
use std::sync::Arc;
use unisono_core::Operation::{Delete, Put};
use unisono_core::{Entity, ErrorKind, Field, FieldType};

use crate::site::{Site, binding, key, truth, unit};

#[tokio::test]
async fn a_table_that_was_renamed_gives_a_clear_error_and_holds_up_no_other() {
    let site = Site::new("CREATE TABLE other (id text PRIMARY KEY, v integer);").await;
    let fields = vec![Field::new("id", FieldType::String), Field::new("v", FieldType::Integer)];
    let other = Arc::new(Entity::new("other", "id", fields).unwrap());
    let both = [binding(&site.entity, Some("trigger")), binding(&other, Some("trigger"))];
    site.source.prepare(&both).await.unwrap();
    site.source.probe().await.unwrap();
    for (alter, restore) in [
        ("ALTER TABLE thing RENAME TO things", "ALTER TABLE things RENAME TO thing"),
        (
            "ALTER TABLE thing RENAME COLUMN sku TO code",
            "ALTER TABLE thing RENAME COLUMN code TO sku",
        ),
    ] {
        site.run(alter).await;
        let table = if alter.contains("things") { "things" } else { "thing" };
        site.run(&format!(
            "INSERT INTO {table} VALUES ('a', NULL, 1); INSERT INTO other VALUES ('a', 1)"
        ))
        .await;
        let head = site.bounds().await.head;
        site.run("UPDATE other SET v = 2").await;
        assert_eq!(site.bounds().await.head, head.next(), "the other table is followed");
        let put = |entity: &Arc<Entity>| {
            let record = unisono_core::json::parse(entity, &json!({"id": "b", "v": 1})).unwrap();
            let write = site.write(key("b"), unisono_core::write::Action::Put(record));
            unit(vec![unisono_core::write::Write { entity: Arc::clone(entity), ..write }])
        };
        let results =
            truth(&site.source).commit(vec![put(&site.entity), put(&other)]).await.unwrap();
        assert_eq!(results[0].as_ref().unwrap_err().kind(), ErrorKind::SchemaMismatch);
        assert!(results[1].is_ok(), "{results:?}");
        if alter.contains("things") {
            let error = site.source.probe().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::SchemaMismatch);
            assert_eq!(error.entity(), Some("thing"));
        }
        site.run(restore).await;
        site.source.probe().await.unwrap();
        assert_eq!(site.told_of("a").await.last(), Some(&(Put, Some(1))), "{alter}");
        site.run("DELETE FROM thing; DELETE FROM other").await;
        site.log().await;
    }
    site.db.drop().await;
}

#[tokio::test]
async fn triggers_that_are_gone_or_disabled_are_noticed_and_every_record_is_told_again() {
    let site = Site::new("").await;
    site.run("INSERT INTO thing VALUES ('a', NULL, 1), ('b', NULL, 2)").await;
    site.assert_log_tells_all().await;
    for sql in [
        "ALTER TABLE thing DISABLE TRIGGER ALL; UPDATE thing SET v = 5 WHERE id = 'a'",
        "DROP TRIGGER unisono_capture ON thing; DELETE FROM thing WHERE id = 'b'",
        "ALTER TABLE thing RENAME TO was; CREATE TABLE thing (id text PRIMARY KEY, sku text UNIQUE, v integer); \
         INSERT INTO thing SELECT * FROM was; DROP TABLE was; INSERT INTO thing VALUES ('c', NULL, 3)",
    ] {
        site.run(sql).await;
        let error = site.source.probe().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SchemaMismatch, "{sql}");
        let again = site.second().await;
        again.probe().await.unwrap();
        site.run("UPDATE unisono_sequencer SET until = '-infinity'").await;
        site.assert_log_tells_all().await;
    }
    assert_eq!(site.told_of("a").await[..2], [(Put, Some(1)), (Put, Some(5))]);
    assert_eq!(site.told_of("b").await.last(), Some(&(Delete, None)));
    assert_eq!(site.told_of("c").await, [(Put, Some(3))]);
    site.run("DROP TABLE thing").await;
    let gone = site.db.open().await.prepare(&[binding(&site.entity, Some("trigger"))]).await;
    assert_eq!(
        gone.unwrap_err().kind(),
        ErrorKind::SchemaMismatch,
        "an empty one would delete every record"
    );
    site.db.drop().await;
}

#[tokio::test]
async fn a_row_that_no_record_can_hold_stops_only_its_own_key() {
    let site = Site::new("").await;
    site.run("INSERT INTO thing VALUES ('a', chr(1) || 'x', 1), ('b', NULL, 2), (chr(1) || 'y', NULL, 3), ('', NULL, 4)").await;
    let changes = site.log().await;
    assert_eq!(changes.iter().map(|c| &c.key).collect::<Vec<_>>(), [&key("b")]);
    let reasons = site.db.see("SELECT refused FROM unisono_intake WHERE refused IS NOT NULL").await;
    assert_eq!(reasons.len(), 3, "{reasons:?}");
    assert_eq!(site.get("a").await.unwrap_err().kind(), ErrorKind::Corrupt);
    // One that needs the broken row fails alone; one that replaces it mends it.
    let patch = site.write(key("a"), unisono_core::write::Action::Patch(json!({"v": 2})));
    let units = vec![unit(vec![patch]), unit(vec![site.put(json!({"id": "d"}))])];
    let results = truth(&site.source).commit(units).await.unwrap();
    assert_eq!(results[0].as_ref().unwrap_err().kind(), ErrorKind::Corrupt);
    assert!(results[1].is_ok());
    site.commit(vec![site.put(json!({"id": "a", "v": 1}))]).await.unwrap();
    site.run("INSERT INTO thing VALUES ('e', chr(1) || 'z', 1)").await;
    site.bounds().await;
    site.run("UPDATE thing SET v = 2 WHERE id = 'e'").await;
    site.bounds().await;
    assert_eq!(
        site.db.see("SELECT count(*) FROM unisono_intake").await,
        ["3"],
        "once for each record"
    );
    site.run("UPDATE thing SET sku = NULL WHERE id = 'e'; DELETE FROM thing WHERE v IN (3, 4)")
        .await;
    site.bounds().await;
    site.assert_log_tells_all().await;
    assert_eq!(
        site.db.see("SELECT count(*) FROM unisono_intake").await,
        ["2"],
        "nobody can tell what became of keys that cannot be read"
    );
    site.db.drop().await;
}

#[tokio::test]
async fn a_captured_table_gets_no_column_and_must_have_those_that_are_declared() {
    let site = Site::new("").await;
    let fields = vec![Field::new("id", FieldType::String), Field::new("new", FieldType::Integer)];
    let more = Arc::new(Entity::new("thing", "id", fields).unwrap());
    let error = site.db.open().await.prepare(&[binding(&more, Some("trigger"))]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SchemaMismatch);
    assert!(error.detail("field").is_some(), "{error:?}");
    site.db.drop().await;
}

#[tokio::test]
async fn a_table_is_described_with_what_cannot_be_kept() {
    let site = Site::new(
        "CREATE TYPE mood AS ENUM ('good', 'bad'); \
         CREATE TABLE wide (id integer PRIMARY KEY, name varchar(20) NOT NULL UNIQUE, price numeric(10,2), born date, \
          at timestamptz(3), on_sale boolean, \"two words\" text, odd date, twice integer GENERATED ALWAYS AS (id * 2) STORED, \
          must numeric(40,3) NOT NULL, how mood, tags jsonb, place point); \
         INSERT INTO wide (id, name, odd, must) VALUES (1, 'x', 'infinity', 1);",
    )
    .await;
    let described = site.source.describe("wide").await.unwrap();
    assert_eq!(described.key.as_deref(), Some("id"));
    let fields: Vec<_> = described.fields.iter().map(|f| format!("{} {}", f.name, f.ty)).collect();
    assert_eq!(
        fields,
        [
            "id integer",
            "name string",
            "price decimal(10,2)",
            "born date",
            "at timestamp(3)",
            "on_sale boolean",
            "how string",
            "tags json"
        ]
    );
    assert!(described.fields[1].unique && described.fields[1].required);
    let left_out: Vec<_> = described.left_out.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(left_out, ["two words", "odd", "twice", "must", "place"]);
    assert_eq!(described.notes.len(), 1, "a column that needs a value and cannot be kept");
    assert_eq!(site.source.describe("none").await.unwrap_err().kind(), ErrorKind::NotFound);
    site.db.drop().await;
}
