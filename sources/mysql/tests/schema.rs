//! Tables over the real server: adopted, migrated, and prepared again after a crash between two statements.

mod common;

use std::sync::Arc;

use common::{Database, column, commit, get, prepare, put, thing, unit};
use mysql_async::prelude::Queryable;
use serde_json::json;
use unisono_core::query::{Comparison, Filter, Order, Path, Query};
use unisono_core::write::Action;
use unisono_core::{Entity, ErrorKind, Field, FieldType, Key, Role, Value};
use unisono_testkit::Sample;

const EXACT: &str = "CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin";

fn key(text: &str) -> Key {
    Key::String(text.into())
}

#[tokio::test]
async fn a_table_of_an_application_is_adopted() {
    let db = Database::new();
    db.open().await;
    let mut outside = db.outside().await;
    let sql = format!(
        "CREATE TABLE thing (number INT AUTO_INCREMENT PRIMARY KEY, id VARCHAR(40) {EXACT} NOT NULL UNIQUE, \
         name VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci, price DECIMAL(14,4), \
         made TIMESTAMP(3) NULL, colour VARCHAR(9) NOT NULL DEFAULT 'red', code BINARY(16), small TINYINT UNSIGNED, \
         size ENUM('small', 'large', 'huge') CHARACTER SET utf8mb4, mark VARCHAR(9) {EXACT} UNIQUE) \
         ENGINE = InnoDB; \
         INSERT INTO thing (id, name, price, made, colour, small, size) VALUES \
         ('a', 'Lamp', 1.5, '2026-01-02 03:04:05.678', 'blue', 7, 'large'), \
         ('b', 'lamp', NULL, NULL, 'red', NULL, 'small'), ('c', 'LAMP', 2, NULL, 'red', NULL, 'huge')"
    );
    outside.query_drop(sql).await.unwrap();
    let entity = thing(vec![
        Field::new("id", FieldType::String),
        Field { index: true, ..Field::new("name", FieldType::String) },
        Field::new("price", FieldType::Decimal { precision: 12, scale: 2 }),
        Field::new("made", FieldType::Timestamp { precision: 3 }),
        Field::new("code", FieldType::Uuid),
        Field::new("small", FieldType::Integer),
        Field::new("added", FieldType::Float),
        Field::new("size", FieldType::String),
        Field { unique: true, ..Field::new("mark", FieldType::String) },
    ]);
    let source = db.open().await;
    let notes = prepare(&source, Role::Truth, &[&entity]).await.unwrap();
    assert!(notes.contains(&"adopted the table thing".to_owned()), "{notes:?}");
    let indexes = "SELECT DISTINCT index_name FROM information_schema.statistics WHERE table_schema = DATABASE() \
                   AND table_name = 'thing' AND column_name = 'mark'";
    assert_eq!(column(&mut outside, indexes).await, ["mark"], "the application's is enough");
    assert_eq!(prepare(&source, Role::Truth, &[&entity]).await.unwrap(), Vec::<String>::new());
    let expected = json!({"id": "a", "name": "Lamp", "price": "1.50", "made": "2026-01-02T03:04:05.678Z", "small": 7, "size": "large"});
    let found = get(&source, &entity, key("a")).await;
    assert_eq!(found, Some(Sample::record(&entity, &expected)), "a row from before");
    // The application's collation folds case; Unisono's answers do not.
    let reader = Arc::clone(&source).reader().unwrap();
    let lamp = Value::String("lamp".into());
    let filter = Filter::Compare(Path::whole(1), Comparison::Eq, lamp);
    assert_eq!(reader.count(&entity, &filter, None).await.unwrap().value, 1);
    let by_name = Order { path: Path::whole(1), descending: false };
    let query = Query { order: vec![by_name], limit: 2, ..Query::all() };
    let page = reader.query(&entity, &query).await.unwrap().value;
    let ids: Vec<_> = page.hits.iter().map(|h| h.stored.key.to_string()).collect();
    assert_eq!(ids, ["c", "a"], "capitals come first");
    // By its text, whatever the order of the enumeration is; a word that it does not have is refused.
    let words =
        Query { order: vec![Order { path: Path::whole(7), descending: false }], ..Query::all() };
    let page = reader.query(&entity, &words).await.unwrap().value;
    let ids: Vec<_> = page.hits.iter().map(|h| h.stored.key.to_string()).collect();
    assert_eq!(ids, ["c", "a", "b"]);
    let is =
        |word: &str| Filter::Compare(Path::whole(7), Comparison::Gt, Value::String(word.into()));
    assert_eq!(reader.count(&entity, &is("large"), None).await.unwrap().value, 1);
    assert_eq!(reader.count(&entity, &is("LARGE"), None).await.unwrap().value, 3);
    let wrong = Action::Patch(json!({"size": "tiny"}));
    let results = commit(&source, vec![unit(&entity, key("a"), wrong)]).await;
    assert_eq!(
        results[0].as_ref().unwrap_err().kind(),
        ErrorKind::ConstraintViolated,
        "{results:?}"
    );
    let patch = Action::Patch(
        json!({"size": "huge", "price": "9.99", "code": "00000000-0000-0000-0000-000000000007", "added": -0.0}),
    );
    let results = commit(&source, vec![unit(&entity, key("a"), patch)]).await;
    assert!(results[0].as_ref().is_ok_and(|p| *p > 1), "{results:?}");
    let row =
        "SELECT CONCAT_WS(' ', number, price, colour, HEX(code), size) FROM thing WHERE id = 'a'";
    assert_eq!(
        column(&mut outside, row).await,
        ["1 9.9900 blue 00000000000000000000000000000007 huge"],
        "the row, as other programs see it"
    );
    let sql = "INSERT INTO thing (id, name) VALUES ('d', 'x')";
    outside.query_drop(sql).await.expect("the application can go on inserting");
    db.drop().await;
}

#[tokio::test]
async fn what_cannot_be_adopted_is_told_and_left_alone() {
    let db = Database::new();
    db.open().await;
    let mut outside = db.outside().await;
    let id = format!("id VARCHAR(40) {EXACT} PRIMARY KEY");
    let folding = "id VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PRIMARY KEY";
    for (columns, rows, detail) in [
        (format!("{folding}, name LONGTEXT {EXACT}"), "", "collation"),
        (format!("{id}, name VARCHAR(9) CHARACTER SET latin1"), "", "stored"),
        (format!("{id}, name DATETIME"), "", "stored"),
        (format!("{id}, name LONGTEXT {EXACT}, other INT NOT NULL"), "", "column"),
        (
            format!("number INT PRIMARY KEY, id VARCHAR(40) {EXACT}, name LONGTEXT {EXACT}"),
            "",
            "primary_key",
        ),
        (format!("{id}, name LONGTEXT {EXACT}"), "('a', 'x\\0')", "value"),
        (format!("{id}, name LONGTEXT {EXACT}"), "('', 'x')", "value"),
    ] {
        let sql =
            format!("DROP TABLE IF EXISTS thing; CREATE TABLE thing ({columns}) ENGINE = InnoDB");
        outside.query_drop(sql).await.unwrap();
        if !rows.is_empty() {
            outside.query_drop(format!("INSERT INTO thing VALUES {rows}")).await.unwrap();
        }
        let before = column(&mut outside, "SELECT column_type FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = 'thing'").await;
        let entity =
            thing(vec![Field::new("id", FieldType::String), Field::new("name", FieldType::String)]);
        let source = db.open().await;
        let error = prepare(&source, Role::Truth, &[&entity]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SchemaMismatch, "{columns}: {error:?}");
        assert!(error.detail(detail).is_some(), "{columns}: {error:?}");
        assert!(error.hint_text().is_some(), "{columns}: {error:?}");
        let after = column(&mut outside, "SELECT column_type FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = 'thing'").await;
        assert_eq!(before, after, "{columns}: the table was changed");
    }
    db.drop().await;
}

fn before() -> Arc<Entity> {
    thing(vec![
        Field::new("id", FieldType::String),
        Field { index: true, max_length: Some(20), ..Field::new("name", FieldType::String) },
        Field::new("price", FieldType::Decimal { precision: 6, scale: 1 }),
        Field::new("at", FieldType::Timestamp { precision: 0 }),
    ])
}

fn after() -> Arc<Entity> {
    thing(vec![
        Field::new("id", FieldType::String),
        Field { unique: true, ..Field::new("name", FieldType::String) },
        Field::new("price", FieldType::Decimal { precision: 10, scale: 3 }),
        Field::new("at", FieldType::Timestamp { precision: 6 }),
        Field {
            default: Some(Value::String("dé'f".into())),
            ..Field::new("note", FieldType::Text)
        },
        Field {
            index: true,
            default: Some(Value::Integer(-5)),
            ..Field::new("count", FieldType::Integer)
        },
        Field::new("ratio", FieldType::Float),
    ])
}

#[tokio::test]
async fn a_table_is_brought_up_to_the_declaration() {
    let db = Database::new();
    let (old, new) = (before(), after());
    let source = db.prepared(Role::Truth, &[&old]).await;
    let record = json!({"id": "a", "name": "x", "price": "12345.6", "at": "2026-01-02T03:04:05Z"});
    commit(&source, vec![put(&old, Sample::record(&old, &record))]).await;
    let source = db.open().await;
    let notes = prepare(&source, Role::Truth, &[&new]).await.unwrap();
    assert!(notes.len() >= 6, "{notes:?}");
    assert_eq!(prepare(&source, Role::Truth, &[&new]).await.unwrap(), Vec::<String>::new());
    let expected = json!({"id": "a", "name": "x", "price": "12345.600", "at": "2026-01-02T03:04:05Z", "note": "dé'f", "count": -5});
    assert_eq!(get(&source, &new, key("a")).await, Some(Sample::record(&new, &expected)));
    // The log was written under the old declaration.
    let truth = Arc::clone(&source).truth().unwrap();
    let log = truth.read_log(unisono_core::Position::ZERO, 10, usize::MAX).await.unwrap();
    let image = json!({"id": "a", "name": "x", "price": "12345.600", "at": "2026-01-02T03:04:05Z"});
    assert_eq!(log[0].image.as_deref(), Some(&Sample::record(&new, &image)));
    let long = "n".repeat(5000);
    let named = |id: &str| put(&new, Sample::record(&new, &json!({"id": id, "name": long})));
    let results = commit(&source, vec![named("b"), named("c")]).await;
    assert!(results[0].is_ok(), "the name can be long now");
    let error = results[1].as_ref().unwrap_err();
    assert_eq!(error.detail("field"), Some("name"), "and is unique: {error:?}");
    // Past Unisono the server itself keeps it unique, by its hash.
    let sql = "INSERT INTO thing (id, name, unisono_version) SELECT 'd', name, 1 FROM thing WHERE id = 'b'";
    let error = db.outside().await.query_drop(sql).await.unwrap_err().to_string();
    assert!(error.contains("unisono_unique_name"), "{error}");
    // A change that would lose data changes nothing.
    let lossy =
        thing(vec![Field::new("id", FieldType::String), Field::new("name", FieldType::Integer)]);
    let error = prepare(&source, Role::Truth, &[&lossy]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SchemaMismatch, "{error:?}");
    let source = db.prepared(Role::Truth, &[&new]).await;
    assert!(get(&source, &new, key("b")).await.is_some());
    db.drop().await;
}

#[tokio::test]
async fn preparing_goes_on_after_a_crash_between_any_two_statements() {
    let (old, new) = (before(), after());
    for done in 0.. {
        let db = Database::new();
        let source = db.prepared(Role::Truth, &[&old]).await;
        let record = json!({"id": "a", "name": "x", "price": "1.5", "at": "2026-01-02T03:04:05Z"});
        commit(&source, vec![put(&old, Sample::record(&old, &record))]).await;
        let mut outside = db.outside().await;
        // What preparing does to the table, as far as a process came that was killed.
        let steps = [
            "DROP INDEX unisono_index_name ON thing",
            "ALTER TABLE thing MODIFY COLUMN name LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin",
            "ALTER TABLE thing MODIFY COLUMN price DECIMAL(10,3)",
            "ALTER TABLE thing MODIFY COLUMN at DATETIME(6)",
            "ALTER TABLE thing ADD COLUMN note LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin DEFAULT ('dé\\'f')",
            "ALTER TABLE thing ALTER COLUMN note DROP DEFAULT",
            "ALTER TABLE thing ADD COLUMN count BIGINT DEFAULT (-5)",
            "ALTER TABLE thing ADD COLUMN ratio DOUBLE",
            "ALTER TABLE thing ADD COLUMN unisono_hash_name BINARY(32) GENERATED ALWAYS AS (UNHEX(SHA2(name, 256))) STORED",
            "CREATE UNIQUE INDEX unisono_unique_name ON thing (unisono_hash_name)",
        ];
        for step in steps.iter().take(done) {
            outside.query_drop(*step).await.unwrap();
        }
        let source = db.prepared(Role::Truth, &[&new]).await;
        let expected = json!({"id": "a", "name": "x", "price": "1.500", "at": "2026-01-02T03:04:05Z", "note": "dé'f", "count": -5});
        let found = get(&source, &new, key("a")).await;
        assert_eq!(found, Some(Sample::record(&new, &expected)), "after {done} steps");
        assert_eq!(prepare(&source, Role::Truth, &[&new]).await.unwrap(), Vec::<String>::new());
        let written = json!({"id": "b", "name": "y", "ratio": -0.0});
        let results = commit(&source, vec![put(&new, Sample::record(&new, &written))]).await;
        assert!(results[0].is_ok(), "{results:?}");
        db.drop().await;
        if done == steps.len() {
            break;
        }
    }
}

#[tokio::test]
async fn values_that_are_not_unique_are_named() {
    let db = Database::new();
    let name = Field { index: true, ..Field::new("name", FieldType::String) };
    let old = thing(vec![Field::new("id", FieldType::String), name.clone()]);
    let source = db.prepared(Role::Truth, &[&old]).await;
    let record = |id: &str| put(&old, Sample::record(&old, &json!({"id": id, "name": "same"})));
    commit(&source, vec![record("a"), record("b")]).await;
    let new = thing(vec![Field::new("id", FieldType::String), Field { unique: true, ..name }]);
    let error = prepare(&db.open().await, Role::Truth, &[&new]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SchemaMismatch, "{error:?}");
    assert_eq!(error.detail("keys"), Some("a and b"), "{error:?}");
    db.drop().await;
}

#[tokio::test]
async fn two_processes_prepare_at_the_same_time() {
    let db = Database::new();
    let entity = Sample::product();
    let (a, b) = (db.open().await, db.open().await);
    let entities = [&entity];
    let (first, second) =
        tokio::join!(prepare(&a, Role::Truth, &entities), prepare(&b, Role::Truth, &entities));
    let notes = [first.unwrap().len(), second.unwrap().len()];
    assert!(
        notes.contains(&0) && notes.iter().sum::<usize>() > 0,
        "one of them made it: {notes:?}"
    );
    db.drop().await;
}
