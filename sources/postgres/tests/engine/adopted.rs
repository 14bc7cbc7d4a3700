//! Tables that an application had before: taken over as they are, or refused with the reason.

use std::sync::Arc;

use serde_json::json;
use unisono_core::query::{Comparison, Filter, Path};
use unisono_core::source::Binding;
use unisono_core::write::Action;
use unisono_core::{Entity, ErrorKind, Field, FieldType, Key, Role, Value, json as values};
use unisono_testkit::Sample;

use crate::common::{Database, binding, commit, commit_one, get, put, thing, unit};

/// The schema, with a table as an application would make it.
async fn made_by_others(db: &Database, sql: &str) {
    let client = db.outside().await;
    client.batch_execute(&format!("CREATE SCHEMA {}; {sql}", db.schema)).await.unwrap();
}

fn legacy(entity: &Arc<Entity>) -> Binding {
    Binding { place: "legacy".into(), ..binding(Role::Truth, entity) }
}

const LEGACY: &str = "
    CREATE TYPE colour AS ENUM ('red', 'green', 'blue');
    CREATE TABLE legacy (
        id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        name varchar(80) COLLATE \"und-x-icu\" NOT NULL,
        colour colour,
        price numeric(10,2),
        made timestamp(3),
        free jsonb,
        twice numeric GENERATED ALWAYS AS (price * 2) STORED,
        internal text NOT NULL DEFAULT 'theirs',
        mark text UNIQUE
    );
    INSERT INTO legacy (name, colour, price, made, free) VALUES
        ('lamp', 'red', 1.50, '2026-01-02 03:04:05.678', '{\"a\": [1, 2]}'),
        ('Åse', 'blue', NULL, NULL, NULL), ('zebra', 'green', 20, '1999-12-31', '7');";

fn adopted() -> Arc<Entity> {
    thing(vec![
        Field::new("id", FieldType::Integer),
        Field { required: true, ..Field::new("name", FieldType::String) },
        Field { index: true, ..Field::new("colour", FieldType::String) },
        Field::new("price", FieldType::Decimal { precision: 10, scale: 2 }),
        Field { index: true, ..Field::new("made", FieldType::Timestamp { precision: 3 }) },
        Field::new("free", FieldType::Json),
        Field { default: Some(Value::Integer(5)), ..Field::new("stock", FieldType::Integer) },
        Field { unique: true, ..Field::new("mark", FieldType::String) },
    ])
}

#[tokio::test]
async fn a_table_keeps_its_rows_and_its_other_columns() {
    let db = Database::new();
    made_by_others(&db, LEGACY).await;
    let entity = adopted();
    let source = db.open().await;
    let notes = source.prepare(&[legacy(&entity)]).await.unwrap();
    assert!(notes.iter().any(|n| n.contains("adopted")), "{notes:?}");
    assert_eq!(source.prepare(&[legacy(&entity)]).await.unwrap(), Vec::<String>::new());
    let indexes = "SELECT indexname FROM pg_indexes WHERE tablename = 'legacy' AND indexdef LIKE '%mark%' \
                   AND schemaname = current_schema()";
    assert_eq!(db.see(indexes).await, ["legacy_mark_key"], "the application's is enough");
    let lamp = json!({
        "id": 1, "name": "lamp", "colour": "red", "price": "1.50",
        "made": "2026-01-02T03:04:05.678Z", "free": {"a": [1, 2]}, "stock": 5,
    });
    let found = get(&source, &entity, Key::Integer(1)).await;
    assert_eq!(found, Some(Sample::record(&entity, &lamp)));

    // Rows from before have a version above zero, and no change in the log.
    let patch =
        Action::Patch(json!({"colour": "blue", "made": "2026-05-01T00:00:00Z", "free": {"b": 7}}));
    let position = commit_one(&source, unit(&entity, Key::Integer(1), patch)).await;
    assert!(position > 1);
    let mut new = lamp.clone();
    new["id"] = json!(77);
    commit_one(&source, put(&entity, Sample::record(&entity, &new))).await;
    let sql = "SELECT concat_ws('|', id, name, colour, price, made, free, twice, internal, stock) FROM legacy \
               WHERE id IN (1, 77) ORDER BY id";
    assert_eq!(
        db.see(sql).await,
        [
            "1|lamp|blue|1.50|2026-05-01 00:00:00|{\"a\": [1, 2], \"b\": 7}|3.00|theirs|5",
            "77|lamp|red|1.50|2026-01-02 03:04:05.678|{\"a\": [1, 2]}|3.00|theirs|5",
        ]
    );
    let reader = Arc::clone(&source).reader().unwrap();
    let count = async |field: usize, comparison, value: serde_json::Value| {
        let ty = &entity.fields()[field].ty;
        let value = values::parse_value(ty, &value).unwrap();
        let filter = Filter::Compare(Path::whole(field), comparison, value);
        reader.count(&entity, &filter, None).await.unwrap().value
    };
    // By code points, whatever the collation of the column and the order of the enumeration are.
    assert_eq!(count(1, Comparison::Gt, json!("zebra")).await, 1);
    assert_eq!(count(2, Comparison::Lt, json!("green")).await, 2);
    assert_eq!(count(4, Comparison::Eq, json!("2026-05-01T00:00:00Z")).await, 1);
    // What the enumeration does not have is refused alone.
    let wrong = unit(&entity, Key::Integer(2), Action::Patch(json!({"colour": "pink"})));
    let right = unit(&entity, Key::Integer(3), Action::Patch(json!({"colour": "red"})));
    let results = commit(&source, vec![wrong, right]).await;
    assert_eq!(results[0].as_ref().unwrap_err().kind(), ErrorKind::InvalidInput, "{results:?}");
    assert!(results[1].is_ok(), "{results:?}");
    db.drop().await;
}

#[tokio::test]
async fn a_table_that_does_not_fit_is_left_as_it_is() {
    let string = FieldType::String;
    let decimal = FieldType::Decimal { precision: 12, scale: 2 };
    let timestamp = FieldType::Timestamp { precision: 6 };
    for (columns, rows, ty, word) in [
        ("id text, x text", "", string.clone(), "rows apart"),
        ("id text PRIMARY KEY, x text, y integer NOT NULL", "", string.clone(), "needs a value"),
        ("id text PRIMARY KEY, x integer", "", string.clone(), "another type"),
        ("id text PRIMARY KEY, x text", "('a', E'\\x01')", string.clone(), "one form"),
        ("id text PRIMARY KEY, x bigint", "('a', 1)", FieldType::Boolean, "another type"),
        ("id text PRIMARY KEY, x numeric(6,1)", "", decimal.clone(), "another type"),
        ("id text PRIMARY KEY, x numeric", "('a', 'NaN')", decimal.clone(), "one form"),
        ("id text PRIMARY KEY, x numeric", "('a', 1.001)", decimal, "one form"),
        ("id text PRIMARY KEY, x float8", "('a', 'Infinity')", FieldType::Float, "one form"),
        ("id text PRIMARY KEY, x timestamptz", "('a', 'infinity')", timestamp.clone(), "one form"),
        ("id text PRIMARY KEY, x timestamptz(3)", "", timestamp, "another type"),
        ("id text PRIMARY KEY, x date", "('a', '-infinity')", FieldType::Date, "one form"),
        (
            "id text PRIMARY KEY, x text GENERATED ALWAYS AS (id || '!') STORED",
            "",
            string.clone(),
            "computed",
        ),
        ("id text PRIMARY KEY, x text COLLATE loose", "", string, "equal"),
    ] {
        let db = Database::new();
        let collation = "CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = FALSE)";
        let rows = if rows.is_empty() {
            String::new()
        } else {
            format!("INSERT INTO legacy VALUES {rows};")
        };
        made_by_others(&db, &format!("{collation}; CREATE TABLE legacy ({columns}); {rows}")).await;
        let entity = thing(vec![Field::new("id", FieldType::String), Field::new("x", ty)]);
        let source = db.open().await;
        let error = source.prepare(&[legacy(&entity)]).await.expect_err(columns);
        assert_eq!(error.kind(), ErrorKind::SchemaMismatch, "{columns}: {error:?}");
        assert!(error.message().contains(word), "{columns}: {error:?}");
        assert!(error.hint_text().is_some(), "{columns}: {error:?}");
        assert_eq!((error.source_name(), error.entity()), (Some("tested"), Some("thing")));
        let sql = format!(
            "SELECT relname FROM pg_class WHERE relnamespace = '{}'::regnamespace AND relkind = 'r'",
            db.schema
        );
        assert_eq!(db.see(&sql).await, ["legacy"], "{columns}: nothing was made");
        db.drop().await;
    }
}
