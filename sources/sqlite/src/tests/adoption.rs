//! Tables that applications had before.

use super::*;

use unisono_core::query::{Order, Path as FieldPath, Query};
use unisono_core::{ErrorKind, Position};

async fn adopt(
    sql: &str,
    e: &Arc<Entity>,
) -> (tempfile::TempDir, Arc<SqliteSource>, Result<Vec<String>>) {
    let folder = tempfile::tempdir().unwrap();
    raw(folder.path()).execute_batch(sql).unwrap();
    let source = open(folder.path()).await;
    let notes = prepare(&source, Role::Truth, e).await;
    (folder, source, notes)
}

#[tokio::test]
async fn the_columns_of_ordinary_applications_are_read_written_and_ordered() {
    let e = entity(
        "thing",
        &[
            ("name", FieldType::String),
            ("price", DECIMAL),
            ("count", FieldType::Integer),
            ("on_sale", FieldType::Boolean),
            ("born", FieldType::Date),
            ("uid", FieldType::Uuid),
            ("tags", FieldType::Json),
            ("fresh", FieldType::Integer),
        ],
    );
    let (folder, source, notes) = adopt(
        "CREATE TABLE thing (id VARCHAR(20) PRIMARY KEY, name NVARCHAR(50), price DECIMAL(12,2), count BIGINT,
            on_sale TINYINT, born DATE, uid UUID, tags TEXT, extra TEXT, more INTEGER NOT NULL DEFAULT 3);
         INSERT INTO thing (id, name, price, count, on_sale, born, uid, tags, extra) VALUES
            ('a', 'x', 10.5, 1, 1, '2026-01-02', '67e55044-10b1-426f-9247-bb680e5fe0c8', '{ \"b\": 1 }', 'kept'),
            ('b', 'y', 9, 2, 0, NULL, NULL, NULL, NULL), ('c', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);",
        &e,
    )
    .await;
    assert!(notes.unwrap().contains(&"adopted the table thing".to_owned()));
    let found = all(&source, &e).await;
    assert_eq!((&found[0]["price"], &found[1]["price"]), (&json!("10.50"), &json!("9.00")));
    assert_eq!(found[0]["tags"], json!({"b": 1}));
    let stored = get(&source, &e, "a").await.unwrap().unwrap();
    let bounds = source.bounds().await.unwrap();
    assert_eq!(
        (stored.version, bounds.trimmed),
        (bounds.head, bounds.head),
        "the log does not tell how the rows came to be"
    );
    assert_eq!(stored.version, Position::new(1).unwrap());

    let mut next = found[0].clone();
    next["price"] = json!("9999999999.99");
    commit(&source, vec![put(&e, next.clone())]).await.unwrap();
    assert_eq!(all(&source, &e).await[0], next);
    let kept: (String, i64) = raw(folder.path())
        .query_row("SELECT extra, more FROM thing WHERE id = 'a'", [], |r| {
            Ok((r.get(0)?, r.get(1)?))
        })
        .unwrap();
    assert_eq!(kept, ("kept".into(), 3));
    commit(&source, vec![put(&e, json!({"id": "d", "price": "9.01"}))]).await.unwrap();
    let query = Query {
        order: vec![Order { path: FieldPath::whole(2), descending: true }],
        ..Query::all()
    };
    let page = source.query(&e, &query).await.unwrap().value;
    let keys: Vec<_> = page.hits.iter().map(|h| h.stored.key.to_string()).collect();
    assert_eq!(keys, ["a", "d", "b", "c"]);
    let history = source.history(&e, &key("b"), None, 10).await.unwrap();
    assert!(history.is_empty(), "a row from before the log has no history");
}

#[tokio::test]
async fn what_could_not_be_kept_exactly_is_refused_and_stays_as_it_was() {
    let cases = [
        ("CREATE TABLE thing (id TEXT, v INT)", FieldType::Integer, "no key"),
        (
            "CREATE TABLE thing (id TEXT, other TEXT, v INT, PRIMARY KEY (id, other))",
            FieldType::Integer,
            "a composite key",
        ),
        (
            "CREATE TABLE thing (id TEXT PRIMARY KEY COLLATE NOCASE, v INT)",
            FieldType::Integer,
            "a collation",
        ),
        (
            "CREATE TABLE thing (id TEXT PRIMARY KEY, v INT, must TEXT NOT NULL)",
            FieldType::Integer,
            "a column that needs a value",
        ),
        ("CREATE TABLE thing (id TEXT PRIMARY KEY, v TEXT)", FieldType::Integer, "numbers as text"),
        (
            "CREATE TABLE thing (id TEXT PRIMARY KEY, v NUMERIC)",
            FieldType::String,
            "text that would become a number",
        ),
        ("CREATE TABLE thing (id TEXT PRIMARY KEY, v TEXT)", DECIMAL, "decimals that sort as text"),
        (
            "CREATE TABLE thing (id TEXT PRIMARY KEY, v INTEGER)",
            DECIMAL,
            "decimals without their point",
        ),
        (
            "CREATE TABLE thing (id TEXT PRIMARY KEY, v NUMERIC)",
            FieldType::Decimal { precision: 16, scale: 2 },
            "more digits than a double has",
        ),
        (
            "CREATE TABLE thing (id TEXT PRIMARY KEY, v NUMERIC); INSERT INTO thing VALUES ('a', 1.005)",
            DECIMAL,
            "digits beyond the scale",
        ),
        (
            "CREATE TABLE thing (id TEXT PRIMARY KEY, v DATE); INSERT INTO thing VALUES ('a', '1.2.2026')",
            FieldType::Date,
            "another form of date",
        ),
        (
            "CREATE TABLE thing (id TEXT PRIMARY KEY, v INT); INSERT INTO thing VALUES ('a', 'many')",
            FieldType::Integer,
            "text among numbers",
        ),
        (
            "CREATE TABLE thing (id TEXT PRIMARY KEY, v INT); INSERT INTO thing VALUES ('a', 2)",
            FieldType::Boolean,
            "neither true nor false",
        ),
        ("CREATE VIEW thing AS SELECT 'a' AS id, 1 AS v", FieldType::Integer, "a view"),
    ];
    for (sql, ty, what) in cases {
        let (folder, _source, notes) = adopt(sql, &entity("thing", &[("v", ty)])).await;
        let error = notes.expect_err(what);
        assert_eq!(error.kind(), ErrorKind::SchemaMismatch, "{what}: {error}");
        assert!(error.hint_text().is_some(), "{what}");
        let columns =
            "SELECT count(*) FROM pragma_table_info('thing') WHERE name = 'unisono_version'";
        let columns: i64 = raw(folder.path()).query_row(columns, [], |r| r.get(0)).unwrap();
        assert_eq!(columns, 0, "{what}");
    }
}

#[tokio::test]
async fn a_table_whose_key_is_unique_by_an_index_is_adopted() {
    let sql = "CREATE TABLE thing (n INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, v INT);
               CREATE UNIQUE INDEX thing_id ON thing (id);";
    let e = entity("thing", &[("v", FieldType::Integer)]);
    let (_folder, source, notes) = adopt(sql, &e).await;
    notes.unwrap();
    commit(&source, vec![put(&e, json!({"id": "a", "v": 1}))]).await.unwrap();
    assert_eq!(all(&source, &e).await, [json!({"id": "a", "v": 1})]);
}
