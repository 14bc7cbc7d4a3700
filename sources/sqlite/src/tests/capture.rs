//! Writes of other programs to a captured table.

use super::*;

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use unisono_core::{Change, ErrorKind, Operation, Position};

const TABLE: &str =
    "CREATE TABLE thing (id TEXT PRIMARY KEY NOT NULL, sku TEXT UNIQUE, v INTEGER);";

fn thing() -> Arc<Entity> {
    entity("thing", &[("sku", FieldType::String), ("v", FieldType::Integer)])
}

async fn capture(source: &SqliteSource, e: &Arc<Entity>, how: &str) -> Result<Vec<String>> {
    let mut options = Options::default();
    options.0.insert("capture".into(), OptionValue::Text(how.into()));
    let place = Arc::clone(e.name());
    let binding = Binding { entity: Arc::clone(e), role: Role::Truth, place, options };
    source.prepare(&[binding]).await
}

/// A captured table that another program has made.
async fn captured(sql: &str) -> (tempfile::TempDir, Arc<SqliteSource>, Arc<Entity>) {
    let folder = tempfile::tempdir().unwrap();
    raw(folder.path()).execute_batch(&format!("{TABLE}{sql}")).unwrap();
    let (source, e) = (open(folder.path()).await, thing());
    capture(&source, &e, "trigger").await.unwrap();
    (folder, source, e)
}

/// The whole log behind a position, by the tail's own way.
async fn log(source: &SqliteSource, mut after: Position) -> Vec<Arc<Change>> {
    let mut all = Vec::new();
    loop {
        // A run of the sequencer takes a part of what waits.
        let head = source.bounds().await.unwrap().head;
        let some = source.read_log(after, 50, usize::MAX).await.unwrap();
        let Some(last) = some.last() else {
            assert_eq!(after, head);
            return all;
        };
        after = last.position;
        all.extend(some);
    }
}

/// What follows from the log: the records at its end. Checks on the way what every follower relies on.
fn replay(e: &Entity, changes: &[Arc<Change>], from: Position) -> BTreeMap<Key, Json> {
    let mut state: BTreeMap<Key, (Position, Json)> = BTreeMap::new();
    let mut position = from;
    for change in changes {
        assert_eq!(change.position, position.next(), "positions are dense");
        position = change.position;
        let before = state.get(&change.key).map(|(version, _)| *version);
        assert_eq!(change.replaced, before, "{change:?} says what it replaced");
        match &change.image {
            Some(image) => {
                let json = unisono_core::json::to_json(e, image);
                state.insert(change.key.clone(), (position, json));
            }
            None => drop(state.remove(&change.key)),
        }
    }
    state.into_iter().map(|(key, (_, json))| (key, json)).collect()
}

async fn assert_log_tells_all(source: &SqliteSource, e: &Arc<Entity>) {
    let changes = log(source, Position::new(1).unwrap()).await;
    let told: Vec<_> = replay(e, &changes, Position::new(1).unwrap()).into_values().collect();
    assert_eq!(told, all(source, e).await);
    let page = source.scan(e, None, 1000).await.unwrap().value;
    for stored in page.records {
        let last = changes.iter().rev().find(|c| c.key == stored.key).unwrap();
        assert_eq!(stored.version, last.position, "a version is that of the last change");
    }
}

#[tokio::test]
async fn every_kind_of_write_of_others_is_in_the_log_and_none_that_was_undone() {
    let (folder, source, e) = captured("").await;
    let other = raw(folder.path());
    for sql in [
        "INSERT INTO thing VALUES ('a', 'x', 1), ('b', 'y', 2), ('c', 'z', 3), ('d', NULL, 4)",
        "UPDATE thing SET v = v + 10 WHERE id < 'c'",
        "UPDATE thing SET id = 'e' WHERE id = 'd'",
        "REPLACE INTO thing VALUES ('a', 'x', 100)",
        "REPLACE INTO thing VALUES ('f', 'y', 6)",
        "UPDATE OR REPLACE thing SET sku = 'x' WHERE id = 'c'",
        "INSERT INTO thing VALUES ('a', 'w', 0) ON CONFLICT DO UPDATE SET v = 7",
        "DELETE FROM thing WHERE id = 'e'",
        "BEGIN; INSERT INTO thing VALUES ('never', NULL, 0); ROLLBACK",
        "BEGIN; INSERT INTO thing VALUES ('g', NULL, 0); SAVEPOINT s; UPDATE thing SET v = -1; ROLLBACK TO s; COMMIT",
        "INSERT INTO thing VALUES ('brief', NULL, 0); DELETE FROM thing WHERE id = 'brief'",
    ] {
        other.execute_batch(sql).unwrap();
        assert_log_tells_all(&source, &e).await;
    }
    let changes = log(&source, Position::new(1).unwrap()).await;
    let of = |id: &str| -> Vec<Operation> {
        changes.iter().filter(|c| c.key == key(id)).map(|c| c.operation).collect()
    };
    assert_eq!(of("b"), [Operation::Put, Operation::Put, Operation::Delete], "removed by REPLACE");
    assert_eq!(of("d"), [Operation::Put, Operation::Delete], "the old key");
    assert!(of("never").is_empty() && of("brief").is_empty());
    other.execute_batch("DELETE FROM thing").unwrap();
    assert_log_tells_all(&source, &e).await;
    assert!(all(&source, &e).await.is_empty());
}

/// What other programs may have on, and what their schemas may have beside the table.
#[tokio::test]
async fn rows_that_go_without_a_statement_of_their_own_are_captured() {
    for pragma in ["", "PRAGMA recursive_triggers = ON;"] {
        let folder = tempfile::tempdir().unwrap();
        raw(folder.path())
            .execute_batch(
                "CREATE TABLE owner (id INTEGER PRIMARY KEY);
                 CREATE TABLE thing (n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, sku TEXT, v INTEGER, place TEXT,
                    owner INTEGER REFERENCES owner ON DELETE CASCADE ON UPDATE CASCADE, UNIQUE (v, place));
                 INSERT INTO owner VALUES (1), (2);",
            )
            .unwrap();
        let (source, e) = (open(folder.path()).await, thing());
        capture(&source, &e, "trigger").await.unwrap();
        // Made after the triggers; what is unique by it is known from the next start on.
        raw(folder.path())
            .execute_batch(
                "CREATE UNIQUE INDEX by_sku ON thing (sku COLLATE NOCASE) WHERE sku <> ''",
            )
            .unwrap();
        assert_eq!(source.probe().await.unwrap_err().kind(), ErrorKind::SchemaMismatch);
        capture(&source, &e, "trigger").await.unwrap();
        source.probe().await.unwrap();
        let other = raw(folder.path());
        other.execute_batch(&format!("PRAGMA foreign_keys = ON; {pragma}")).unwrap();
        for (sql, left) in [
            (
                "INSERT INTO thing VALUES (1, 'a', 'x', 1, 'p', 1), (2, 'b', 'y', 2, 'p', 1), (3, 'c', 'z', 3, 'p', 2),
                    (4, 'd', '', 4, NULL, NULL), (5, 'e', '', 4, NULL, NULL)",
                "abcde",
            ),
            ("REPLACE INTO thing VALUES (1, 'f', 'x', 1, 'p', 1)", "bcdef"),
            ("REPLACE INTO thing VALUES (NULL, 'g', 'X', 7, 'p', 1)", "bcdeg"),
            ("UPDATE OR REPLACE thing SET v = 2 WHERE id = 'c'", "cdeg"),
            ("UPDATE OR REPLACE thing SET n = 3 WHERE id = 'd'", "deg"),
            ("UPDATE thing SET owner = 1, v = 9 WHERE id = 'e'; UPDATE owner SET id = 8 WHERE id = 1", "deg"),
            ("DELETE FROM owner WHERE id = 8", "d"),
        ] {
            other.execute_batch(sql).unwrap();
            let ids: String =
                all(&source, &e).await.iter().map(|r| r["id"].as_str().unwrap()).collect();
            assert_eq!(ids, left, "{sql}");
            assert_log_tells_all(&source, &e).await;
        }
    }
}

#[tokio::test]
async fn other_programs_notice_nothing_of_the_triggers() {
    let folder = tempfile::tempdir().unwrap();
    let other = raw(folder.path());
    other
        .execute_batch("CREATE TABLE thing (id INTEGER PRIMARY KEY, sku TEXT UNIQUE, v INTEGER)")
        .unwrap();
    let e = Arc::new(
        Entity::new(
            "thing",
            "id",
            vec![
                Field::new("id", FieldType::Integer),
                Field::new("sku", FieldType::String),
                Field::new("v", FieldType::Integer),
            ],
        )
        .unwrap(),
    );
    let source = open(folder.path()).await;
    capture(&source, &e, "trigger").await.unwrap();
    other.execute("INSERT INTO thing (id, sku) VALUES (41, 'a')", []).unwrap();
    other.execute("INSERT INTO thing (sku) VALUES ('b')", []).unwrap();
    assert_eq!(other.last_insert_rowid(), 42);
    assert_eq!(other.execute("UPDATE thing SET v = 1", []).unwrap(), 2);
    let returned: i64 = other
        .query_row("INSERT INTO thing (sku) VALUES ('c') RETURNING id", [], |r| r.get(0))
        .unwrap();
    assert_eq!(returned, 43);
    assert_eq!(other.execute("INSERT OR IGNORE INTO thing VALUES (41, 'd', 1)", []).unwrap(), 0);
    assert!(
        other.execute("INSERT OR FAIL INTO thing VALUES (50, 'e', 1), (41, 'f', 1)", []).is_err()
    );
    // The same file under another name of its schema.
    let attached = Connection::open_in_memory().unwrap();
    let path = folder.path().join("main.db");
    attached.execute("ATTACH ?1 AS shop", [path.to_str()]).unwrap();
    attached.execute("DELETE FROM shop.thing WHERE sku = 'a'", []).unwrap();
    assert_log_tells_all(&source, &e).await;
    assert_eq!(all(&source, &e).await.len(), 3);
}

#[tokio::test]
async fn more_than_one_transaction_takes_is_sequenced_at_once() {
    let (folder, source, e) = captured("").await;
    raw(folder.path())
        .execute_batch(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
             INSERT INTO thing SELECT 'k' || i, NULL, i FROM n",
        )
        .unwrap();
    assert_eq!(source.bounds().await.unwrap().head, Position::new(5001).unwrap());
    let changes = log(&source, Position::new(1).unwrap()).await;
    assert_eq!(replay(&e, &changes, Position::new(1).unwrap()).len(), 5000);
}

#[tokio::test]
async fn records_from_before_have_a_version_and_no_column_is_added() {
    let (folder, source, e) = captured("INSERT INTO thing VALUES ('a', 'x', 1);").await;
    let stored = get(&source, &e, "a").await.unwrap().unwrap();
    assert_eq!(stored.version, Position::new(1).unwrap());
    let columns: i64 = raw(folder.path())
        .query_row("SELECT count(*) FROM pragma_table_info('thing')", [], |r| r.get(0))
        .unwrap();
    assert_eq!(columns, 3);
    raw(folder.path()).execute_batch("UPDATE thing SET v = 2").unwrap();
    let changes = log(&source, Position::new(1).unwrap()).await;
    assert_eq!(changes[0].replaced, Some(stored.version));
    let history = source.history(&e, &key("a"), None, 10).await.unwrap();
    assert_eq!(history.len(), 1, "the row from before the log has no history");
    let more = entity("thing", &[("sku", FieldType::String), ("new", FieldType::Integer)]);
    let error = capture(&source, &more, "trigger").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SchemaMismatch);
}

#[tokio::test]
async fn own_writes_are_logged_once_and_see_what_others_have_committed() {
    let (folder, source, e) = captured("").await;
    let other = raw(folder.path());
    let first = commit(&source, vec![put(&e, json!({"id": "a", "v": 1}))]).await.unwrap();
    let version = first.changes[0].position;
    other.execute_batch("UPDATE thing SET v = 2; INSERT INTO thing VALUES ('b', NULL, 5)").unwrap();
    let conditional = Write {
        condition: Condition::Version(Some(version)),
        ..put(&e, json!({"id": "a", "v": 3}))
    };
    let refused = commit(&source, vec![conditional]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::VersionConflict);
    let create = Write { condition: Condition::Absent, ..put(&e, json!({"id": "b", "v": 3})) };
    let refused = commit(&source, vec![create]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
    let patch = Write { action: Action::Patch(json!({"sku": "p"})), ..put(&e, json!({"id": "b"})) };
    commit(&source, vec![patch, delete(&e, "a")]).await.unwrap();
    assert_eq!(all(&source, &e).await, [json!({"id": "b", "sku": "p", "v": 5})]);
    let changes = log(&source, Position::new(1).unwrap()).await;
    let count = |id: &str| changes.iter().filter(|c| c.key == key(id)).count();
    assert_eq!((count("a"), count("b")), (3, 2));
    assert_log_tells_all(&source, &e).await;
}

#[tokio::test]
async fn a_trigger_of_the_application_that_changes_an_own_write_further_is_captured() {
    let (_folder, source, e) = captured(
        "CREATE TRIGGER twice AFTER INSERT ON thing BEGIN UPDATE thing SET v = v * 2 WHERE id = NEW.id; END;",
    )
    .await;
    let own = commit(&source, vec![put(&e, json!({"id": "a", "v": 4}))]).await.unwrap();
    assert_eq!(own.changes[0].image.as_ref().unwrap().values()[2], unisono_core::Value::Integer(4));
    assert_eq!(all(&source, &e).await[0]["v"], json!(8));
    assert_log_tells_all(&source, &e).await;
}

#[tokio::test]
async fn a_long_transaction_of_another_program_holds_up_nobody_who_reads() {
    let (folder, source, e) = captured("").await;
    let other = raw(folder.path());
    other.execute_batch("INSERT INTO thing VALUES ('a', NULL, 1)").unwrap();
    let long = raw(folder.path());
    long.execute_batch(
        "BEGIN IMMEDIATE; UPDATE thing SET v = 2; INSERT INTO thing VALUES ('b', NULL, 2)",
    )
    .unwrap();
    let head = source.bounds().await.unwrap().head;
    assert_eq!(head, Position::new(1).unwrap(), "nothing can be written now");
    assert_eq!(
        get(&source, &e, "a").await.unwrap().unwrap().record.values()[2],
        unisono_core::Value::Integer(1)
    );
    let refused = commit(&source, vec![put(&e, json!({"id": "c"}))]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    long.execute_batch("COMMIT").unwrap();
    assert_log_tells_all(&source, &e).await;
    assert_eq!(all(&source, &e).await.len(), 2);
}

#[tokio::test]
async fn writes_are_captured_while_unisono_is_away_and_lost_triggers_are_noticed() {
    let (folder, source, e) =
        captured("INSERT INTO thing VALUES ('a', NULL, 1), ('b', NULL, 2);").await;
    let other = raw(folder.path());
    source.close().await.unwrap();
    other.execute_batch("UPDATE thing SET v = 5 WHERE id = 'a'").unwrap();
    let source = open(folder.path()).await;
    assert!(capture(&source, &e, "trigger").await.unwrap().is_empty());
    assert_eq!(log(&source, Position::new(1).unwrap()).await.len(), 1);
    source.probe().await.unwrap();

    // As tools do that cannot change a column in place.
    other
        .execute_batch(
            "ALTER TABLE thing RENAME TO old; CREATE TABLE thing (id TEXT PRIMARY KEY NOT NULL, sku TEXT, v INTEGER);
             INSERT INTO thing SELECT * FROM old; DROP TABLE old;
             DELETE FROM thing WHERE id = 'b'; INSERT INTO thing VALUES ('c', NULL, 3)",
        )
        .unwrap();
    assert_eq!(source.probe().await.unwrap_err().kind(), ErrorKind::SchemaMismatch);
    source.close().await.unwrap();
    let source = open(folder.path()).await;
    capture(&source, &e, "trigger").await.unwrap();
    source.probe().await.unwrap();
    let changes = log(&source, Position::new(2).unwrap()).await;
    let told: Vec<_> = changes.iter().map(|c| (c.key.to_string(), c.operation)).collect();
    let expected = [("a", Operation::Put), ("b", Operation::Delete), ("c", Operation::Put)];
    assert_eq!(told, expected.map(|(id, operation)| (id.to_owned(), operation)));
}

#[tokio::test]
async fn a_row_that_no_record_can_hold_stops_only_its_own_key() {
    let (folder, source, e) = captured("").await;
    let other = raw(folder.path());
    other.execute_batch("INSERT INTO thing VALUES ('a', NULL, 'many'), ('b', NULL, 2)").unwrap();
    let changes = log(&source, Position::new(1).unwrap()).await;
    assert_eq!(changes.iter().map(|c| &c.key).collect::<Vec<_>>(), [&key("b")]);
    let reason: String = other
        .query_row("SELECT refused FROM unisono_intake WHERE key = 'a'", [], |r| r.get(0))
        .unwrap();
    assert!(reason.contains('v'), "{reason}");
    assert_eq!(get(&source, &e, "a").await.unwrap_err().kind(), ErrorKind::Corrupt);
    commit(&source, vec![put(&e, json!({"id": "a", "v": 1}))]).await.unwrap();
    other
        .execute_batch(
            "INSERT INTO thing VALUES ('c', NULL, 'bad'); UPDATE thing SET v = 3 WHERE id = 'c'",
        )
        .unwrap();
    assert_log_tells_all(&source, &e).await;
    let left: i64 =
        other.query_row("SELECT count(*) FROM unisono_intake", [], |r| r.get(0)).unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn an_application_can_note_its_writes_down_itself() {
    let folder = tempfile::tempdir().unwrap();
    let mut other = raw(folder.path());
    other.execute_batch(TABLE).unwrap();
    let (source, e) = (open(folder.path()).await, thing());
    capture(&source, &e, "record").await.unwrap();
    let unknown = crate::record_in(&other.transaction().unwrap(), "think", &key("a"), None);
    assert_eq!(unknown.unwrap_err().kind(), ErrorKind::NotFound);
    for end in [false, true] {
        let transaction = other.transaction().unwrap();
        transaction.execute("INSERT INTO thing VALUES ('a', NULL, 1)", []).unwrap();
        crate::record_in(&transaction, "thing", &key("a"), Some("importer")).unwrap();
        if end { transaction.commit().unwrap() } else { transaction.rollback().unwrap() }
    }
    let changes = log(&source, Position::new(1).unwrap()).await;
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].actor.as_deref(), Some("importer"));
    assert_log_tells_all(&source, &e).await;
}

#[tokio::test]
async fn capture_can_end_and_begin_again() {
    let (folder, source, e) = captured("").await;
    let other = raw(folder.path());
    other.execute_batch("INSERT INTO thing VALUES ('a', NULL, 1)").unwrap();
    let head = source.bounds().await.unwrap().head;
    prepare(&source, Role::Truth, &e).await.unwrap();
    assert!(get(&source, &e, "a").await.unwrap().unwrap().version >= head);
    other.execute_batch("UPDATE thing SET v = 2").unwrap();
    assert_eq!(source.bounds().await.unwrap().head, head, "nobody captures it");
    let error = capture(&source, &e, "trigger").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SchemaMismatch);
    other.execute_batch("ALTER TABLE thing DROP COLUMN unisono_version").unwrap();
    capture(&source, &e, "trigger").await.unwrap();
    assert!(get(&source, &e, "a").await.unwrap().unwrap().version >= head);
}

#[tokio::test]
async fn a_table_that_was_not_captured_for_some_time_is_told_again() {
    let (folder, source, e) = captured("INSERT INTO thing VALUES ('a', NULL, 1);").await;
    let other = raw(folder.path());
    let head = source.bounds().await.unwrap().head;
    prepare(&source, Role::Truth, &e).await.unwrap();
    other.execute_batch("UPDATE thing SET v = 2").unwrap();
    other.execute_batch("ALTER TABLE thing DROP COLUMN unisono_version").unwrap();
    capture(&source, &e, "trigger").await.unwrap();
    let changes = log(&source, head).await;
    assert_eq!(changes.len(), 1, "followers learn of what nobody noted down");
    assert_eq!(changes[0].image.as_ref().unwrap().values()[2], unisono_core::Value::Integer(2));

    other.execute_batch("ALTER TABLE thing RENAME TO moved").unwrap();
    let error = capture(&source, &e, "trigger").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SchemaMismatch, "no empty table takes its place");
    other.execute_batch("ALTER TABLE moved RENAME TO thing").unwrap();
    capture(&source, &e, "trigger").await.unwrap();
    let nobody = entity("nobody", &[]);
    let notes = prepare(&source, Role::Truth, &nobody).await.unwrap();
    assert!(notes.iter().any(|note| note.contains("still noted down")), "{notes:?}");
}

#[tokio::test]
async fn an_index_of_the_application_is_not_made_twice() {
    let folder = tempfile::tempdir().unwrap();
    let other = raw(folder.path());
    other.execute_batch(&format!("{TABLE} CREATE INDEX by_v ON thing (v, sku)")).unwrap();
    let fields = vec![
        Field { unique: true, ..Field::new("sku", FieldType::String) },
        Field { index: true, ..Field::new("v", FieldType::Integer) },
    ];
    let (source, e) = (open(folder.path()).await, entity_of("thing", fields));
    let ours = || -> i64 {
        let sql = "SELECT count(*) FROM pragma_index_list('thing') WHERE name LIKE 'unisono%'";
        other.query_row(sql, [], |r| r.get(0)).unwrap()
    };
    capture(&source, &e, "trigger").await.unwrap();
    assert_eq!(ours(), 0);
    other.execute_batch("DROP INDEX by_v").unwrap();
    capture(&source, &e, "trigger").await.unwrap();
    assert_eq!(ours(), 1, "what is declared is there");
    commit(&source, vec![put(&e, json!({"id": "a", "sku": "x"}))]).await.unwrap();
    let twice = commit(&source, vec![put(&e, json!({"id": "b", "sku": "x"}))]).await.unwrap_err();
    assert_eq!((twice.kind(), twice.detail("field")), (ErrorKind::ConstraintViolated, Some("sku")));
}

#[tokio::test]
async fn an_existing_table_is_described_with_what_cannot_be_kept() {
    let folder = tempfile::tempdir().unwrap();
    raw(folder.path())
        .execute_batch(
            "CREATE TABLE thing (Id INTEGER PRIMARY KEY, name VARCHAR(20) NOT NULL UNIQUE, price DECIMAL(10,2), born DATE,
               at DATETIME, on_sale BOOLEAN, \"two words\" TEXT, odd DATE, twice INT AS (Id * 2), must NUMERIC NOT NULL);
             INSERT INTO thing (Id, name, price, born, at, on_sale, odd, must) VALUES
               (1, 'x', 2.5, '2026-01-02', '2026-01-02T03:04:05.678Z', 1, '1.2.2026', 'text')",
        )
        .unwrap();
    let source = open(folder.path()).await;
    let described = source.describe("thing").await.unwrap();
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
            "on_sale boolean"
        ]
    );
    assert!(described.fields[1].unique && described.fields[1].required);
    let left_out: Vec<_> = described.left_out.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(left_out, ["two words", "odd", "twice", "must"]);
    assert_eq!(described.notes.len(), 1, "a column that needs a value and cannot be kept");
    assert_eq!(source.describe("THING").await.unwrap().place, "thing");
    let missing = source.describe("none").await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert_eq!(missing.hint_text(), Some("the database has thing"));
    raw(folder.path())
        .execute_batch(
            "CREATE VIEW seen AS SELECT * FROM thing;
             CREATE TABLE folded (id TEXT PRIMARY KEY COLLATE NOCASE);
             CREATE TABLE free (id TEXT PRIMARY KEY, name TEXT, kind TEXT);
             CREATE INDEX by_kind ON free (kind); CREATE UNIQUE INDEX by_name ON free (lower(name));",
        )
        .unwrap();
    assert_eq!(source.describe("seen").await.unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(source.describe("folded").await.unwrap_err().kind(), ErrorKind::SchemaMismatch);
    let free = source.describe("free").await.unwrap();
    assert!(free.fields[2].index && !free.fields[1].index);
    assert!(free.notes[0].contains("expression"), "{:?}", free.notes);
}

/// Two other programs and two Unisono processes write the same few records, statement by statement.
#[tokio::test]
async fn random_writes_of_many_leave_a_log_that_tells_exactly_what_is_there() {
    for seed in 0..20 {
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let (folder, first, e) = captured("").await;
        let second = open(folder.path()).await;
        capture(&second, &e, "trigger").await.unwrap();
        let others = [raw(folder.path()), raw(folder.path())];
        for _ in 0..60 {
            let (a, b) = (random.random_range(0..5), random.random_range(0..5));
            let own = if random.random() { &first } else { &second };
            let sql = match random.random_range(0..9) {
                0 => format!("INSERT OR REPLACE INTO thing VALUES ('{a}', 's{b}', {a})"),
                1 => format!("INSERT OR IGNORE INTO thing VALUES ('{a}', 's{b}', {b})"),
                2 => format!("UPDATE OR REPLACE thing SET id = '{b}', v = v + 1 WHERE id = '{a}'"),
                3 => format!("DELETE FROM thing WHERE id >= '{a}'"),
                4 => format!("BEGIN; UPDATE thing SET v = {a}; ROLLBACK"),
                5 => format!(
                    "BEGIN; DELETE FROM thing WHERE id = '{a}'; SAVEPOINT s; DELETE FROM thing; ROLLBACK TO s; \
                     INSERT OR REPLACE INTO thing VALUES ('{b}', NULL, {a}); COMMIT"
                ),
                6 => {
                    let units = vec![
                        unit(vec![put(&e, json!({"id": a.to_string(), "sku": format!("s{b}")}))]),
                        unit(vec![
                            delete(&e, &b.to_string()),
                            put(&e, json!({"id": a.to_string(), "v": 1})),
                        ]),
                    ];
                    // Whether it is refused depends on what the others did.
                    let _ = own.commit(units).await.unwrap();
                    continue;
                }
                7 => {
                    own.bounds().await.unwrap();
                    continue;
                }
                _ => {
                    get(own, &e, &a.to_string()).await.unwrap();
                    continue;
                }
            };
            others[usize::from(random.random::<bool>())].execute_batch(&sql).unwrap();
        }
        assert_log_tells_all(&first, &e).await;
    }
}
