//! Writes of other programs to captured tables, over the real server.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by them")]

mod common;

use std::collections::BTreeMap;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use common::{Database, column, commit, get, put, thing, unit};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, TxOpts};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value as Json, json};
use unisono_core::kind::{OptionValue, Options};
use unisono_core::source::{Binding, Source};
use unisono_core::write::{Action, Condition, Unit};
use unisono_core::{
    Change, Entity, Error, ErrorKind, Field, FieldType, Key, Operation, Position, Record, Result,
    Role, Value,
};
use unisono_testkit::Sample;

const TABLE: &str = "CREATE TABLE thing (id VARCHAR(60) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin PRIMARY KEY, \
                     sku VARCHAR(60) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin UNIQUE, v BIGINT) ENGINE = InnoDB";

fn entity() -> Arc<Entity> {
    thing(vec![
        Field::new("id", FieldType::String),
        Field::new("sku", FieldType::String),
        Field::new("v", FieldType::Integer),
    ])
}

fn key(text: &str) -> Key {
    Key::String(text.into())
}

fn record(entity: &Arc<Entity>, json: Json) -> Record {
    Sample::record(entity, &json)
}

fn captured_as(entity: &Arc<Entity>, how: &str) -> Binding {
    let mut options = Options::default();
    options.0.insert("capture".into(), OptionValue::Text(how.into()));
    let (entity, place) = (Arc::clone(entity), Arc::clone(entity.name()));
    Binding { entity, role: Role::Truth, place, options }
}

async fn capture(source: &Arc<dyn Source>, entity: &Arc<Entity>) -> Result<Vec<String>> {
    source.prepare(&[captured_as(entity, "trigger")]).await
}

async fn run(conn: &mut Conn, sql: &str) {
    conn.query_drop(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
}

/// A captured table that another program has made, a source over it, and a client that knows nothing of it.
struct World {
    db: Database,
    entity: Arc<Entity>,
    source: Arc<dyn Source>,
    other: Conn,
}

impl World {
    async fn new(sql: &str) -> Self {
        let db = Database::new();
        let (source, entity) = (db.open().await, entity());
        let mut other = db.outside().await;
        run(&mut other, &format!("{TABLE}; {sql}DO 1")).await;
        capture(&source, &entity).await.unwrap();
        World { db, entity, source, other }
    }

    async fn run(&mut self, sql: &str) {
        run(&mut self.other, sql).await;
    }

    /// Another process of Unisono.
    async fn another(&self) -> Arc<dyn Source> {
        let source = self.db.open().await;
        capture(&source, &self.entity).await.unwrap();
        source
    }

    fn put(&self, json: Json) -> Unit {
        put(&self.entity, record(&self.entity, json))
    }

    /// The whole log behind a position, by the tail's own way.
    async fn log(&self, after: u64) -> Vec<Arc<Change>> {
        log(&self.source, Position::new(after).unwrap()).await
    }

    async fn version(&self, id: &str) -> Position {
        let reader = Arc::clone(&self.source).reader().unwrap();
        let found = reader.get(&self.entity, &[key(id)]).await.unwrap().value;
        found[0].as_ref().unwrap().version
    }

    /// What the log says of a key: the values of `v`, and `None` where it was deleted.
    async fn told(&self, id: &str) -> Vec<Option<Value>> {
        let log = self.log(1).await;
        let of_key = log.iter().filter(|c| c.key == key(id));
        of_key.map(|c| c.image.as_ref().map(|image| image.values()[2].clone())).collect()
    }

    /// Another process may hold the lease of the sequencer for a while.
    async fn settle(&mut self) {
        while column(&mut self.other, "SELECT COUNT(*) FROM unisono_intake").await != ["0"] {
            head(&self.source).await;
        }
    }

    /// The log has every change, in an order that makes sense, and tells exactly what is in the table.
    async fn assert_log_tells_all(&mut self) {
        let first = Position::new(1).unwrap();
        let changes = log(&self.source, first).await;
        let told = replay(&self.entity, &changes, first);
        let rows: Vec<(String, Option<String>, Option<i64>)> =
            self.other.query("SELECT id, sku, v FROM thing ORDER BY id").await.unwrap();
        let there = rows
            .into_iter()
            .map(|(id, sku, v)| (id.clone(), json!({"id": id, "sku": sku, "v": v})));
        assert_eq!(told, there.collect::<BTreeMap<_, _>>(), "the log tells what is there");
        assert_eq!(column(&mut self.other, "SELECT COUNT(*) FROM unisono_intake").await, ["0"]);
        let page =
            Arc::clone(&self.source).auditor().unwrap().scan(&self.entity, None, 10_000).await;
        for stored in page.unwrap().value.records {
            let last = changes.iter().rev().find(|c| c.key == stored.key).unwrap();
            assert_eq!(stored.version, last.position, "a version is that of the last change");
        }
    }
}

async fn head(source: &Arc<dyn Source>) -> Position {
    Arc::clone(source).truth().unwrap().bounds().await.unwrap().head
}

async fn log(source: &Arc<dyn Source>, mut after: Position) -> Vec<Arc<Change>> {
    let truth = Arc::clone(source).truth().unwrap();
    let mut all = Vec::new();
    loop {
        // A run of the sequencer takes a part of what waits.
        let head = truth.bounds().await.unwrap().head;
        let some = truth.read_log(after, 50, usize::MAX).await.unwrap();
        let Some(last) = some.last() else {
            assert_eq!(after, head);
            return all;
        };
        after = last.position;
        all.extend(some);
    }
}

/// What follows from the log: the records at its end. Checks on the way what every follower relies on.
fn replay(entity: &Entity, changes: &[Arc<Change>], from: Position) -> BTreeMap<String, Json> {
    let mut state: BTreeMap<String, (Position, Json)> = BTreeMap::new();
    let mut position = from;
    for change in changes {
        assert_eq!(change.position, position.next(), "positions are dense");
        position = change.position;
        let before = state.get(&change.key.to_string()).map(|(version, _)| *version);
        assert_eq!(change.replaced, before, "{change:?} says what it replaced");
        match &change.image {
            Some(image) => {
                let json = unisono_core::json::to_json(entity, image);
                state.insert(change.key.to_string(), (position, json));
            }
            None => drop(state.remove(&change.key.to_string())),
        }
    }
    state.into_iter().map(|(key, (_, json))| (key, json)).collect()
}

fn kinds(results: &[Result<u64>]) -> Vec<Option<ErrorKind>> {
    results.iter().map(|r| r.as_ref().err().map(Error::kind)).collect()
}

#[tokio::test]
async fn every_kind_of_write_of_others_is_in_the_log_and_none_that_was_undone() {
    let mut world = World::new("").await;
    for sql in [
        "INSERT INTO thing VALUES ('a', 'x', 1), ('b', 'y', 2), ('c', 'z', 3), ('d', NULL, 4)",
        "UPDATE thing SET v = v + 10 WHERE id < 'c'",
        "UPDATE thing SET id = 'e' WHERE id = 'd'",
        "REPLACE INTO thing VALUES ('a', 'x', 100)",
        "REPLACE INTO thing VALUES ('f', 'y', 6)",
        "INSERT INTO thing VALUES ('a', 'w', 0) ON DUPLICATE KEY UPDATE v = 7, sku = 'w'",
        "INSERT IGNORE INTO thing VALUES ('a', 'w', 0), ('h', 'h', 8)",
        "DELETE FROM thing WHERE id = 'e'",
        "START TRANSACTION; INSERT INTO thing VALUES ('never', NULL, 0); ROLLBACK",
        "START TRANSACTION; INSERT INTO thing VALUES ('g', NULL, 0); SAVEPOINT s; UPDATE thing SET v = -1; \
         ROLLBACK TO s; COMMIT",
        "INSERT INTO thing VALUES ('brief', NULL, 0); DELETE FROM thing WHERE id = 'brief'",
        "INSERT INTO thing SELECT CONCAT('many ', seq), NULL, seq FROM seq_1_to_3000",
        "UPDATE thing AS a JOIN thing AS b ON a.v = b.v + 1 SET a.sku = CONCAT('joined ', a.id) WHERE a.v > 2990",
        "UPDATE thing SET id = CONCAT('_', id) ORDER BY id",
        "DELETE a FROM thing AS a LEFT JOIN thing AS b ON b.v = a.v + 1 WHERE b.id IS NULL",
    ] {
        world.run(sql).await;
        world.assert_log_tells_all().await;
    }
    let of = world.told("b").await;
    assert_eq!(of, [Some(Value::Integer(2)), Some(Value::Integer(12)), None], "removed by REPLACE");
    assert_eq!(world.told("d").await, [Some(Value::Integer(4)), None], "the old key");
    assert!(world.told("never").await.is_empty() && world.told("brief").await.is_empty());
    let actor = world.log(1).await[0].actor.clone().unwrap();
    assert!(actor.starts_with("app@"), "who wrote it: {actor}");
    world.run("DELETE FROM thing").await;
    world.assert_log_tells_all().await;
    world.db.drop().await;
}

#[tokio::test]
async fn a_table_that_is_emptied_without_a_trigger_is_noticed() {
    let mut world =
        World::new("INSERT INTO thing SELECT CONCAT('old ', seq), NULL, seq FROM seq_1_to_50; ")
            .await;
    // Emptied and filled again, partly with the same keys, with the sequencer in between or not.
    for (round, sequenced) in [(1, false), (2, true), (3, true)] {
        world.run("TRUNCATE TABLE thing").await;
        world
            .run("INSERT INTO thing SELECT CONCAT('old ', seq), NULL, 100 + seq FROM seq_10_to_30")
            .await;
        if sequenced {
            head(&world.source).await;
        }
        world.run(&format!("INSERT INTO thing VALUES ('new {round}', NULL, 0)")).await;
        let log = world.log(1).await;
        let gone = log.iter().filter(|c| c.operation == Operation::Delete).count();
        assert_eq!(gone, 29 + round - 1, "those that were not filled in again are gone");
        let reader = Arc::clone(&world.source).reader().unwrap();
        let found = reader.count(&world.entity, &unisono_core::query::Filter::All, None).await;
        assert_eq!(found.unwrap().value, 22);
    }
    // A write to a record that went by TRUNCATE finds none.
    world.run("TRUNCATE TABLE thing").await;
    let absent = Condition::Absent;
    let mut create = world.put(json!({"id": "old 11", "v": 1}));
    create.writes[0].condition = absent;
    let patch = unit(&world.entity, key("old 12"), Action::Patch(json!({"v": 2})));
    let results = commit(&world.source, vec![create, patch]).await;
    assert_eq!(kinds(&results), [None, Some(ErrorKind::NotFound)]);
    assert_eq!(world.told("old 12").await.last(), Some(&None), "its end is in the log");
    world.run("DELETE FROM thing").await;
    assert!(replay_from_adoption(&world).await.is_empty());
    world.db.drop().await;
}

/// The records that the log tells of, without the check of what each change replaced, as some were there before it.
async fn replay_from_adoption(world: &World) -> BTreeMap<String, Operation> {
    let mut last = BTreeMap::new();
    for change in world.log(1).await {
        last.insert(change.key.to_string(), change.operation);
    }
    last.retain(|_, operation| *operation == Operation::Put);
    last
}

#[tokio::test]
async fn records_from_before_have_a_version_and_no_column_is_added() {
    let mut world =
        World::new("INSERT INTO thing VALUES ('a', 'x', 1), ('it''s', NULL, 2); ").await;
    let reader = Arc::clone(&world.source).reader().unwrap();
    let found = reader.get(&world.entity, &[key("a"), key("it's")]).await.unwrap().value;
    let versions: Vec<_> = found.iter().flatten().map(|s| s.version.as_u64()).collect();
    assert_eq!(versions, [1, 1]);
    let columns = "SELECT GROUP_CONCAT(column_name ORDER BY ordinal_position) FROM information_schema.columns \
                   WHERE table_schema = DATABASE() AND table_name = 'thing'";
    assert_eq!(column(&mut world.other, columns).await, ["id,sku,v"]);
    assert_eq!(capture(&world.source, &world.entity).await.unwrap(), Vec::<String>::new());
    world.run("UPDATE thing SET v = 2 WHERE id = 'a'").await;
    let log = world.log(1).await;
    assert_eq!(log[0].replaced, Some(Position::new(1).unwrap()));
    let truth = Arc::clone(&world.source).truth().unwrap();
    let history = truth.history(&world.entity, &key("a"), None, 10).await.unwrap();
    assert_eq!(history.len(), 1, "the row from before the log has no history");
    let more =
        thing(vec![Field::new("id", FieldType::String), Field::new("added", FieldType::Integer)]);
    let error = world.db.open().await.prepare(&[captured_as(&more, "trigger")]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SchemaMismatch, "{error:?}");
    world.db.drop().await;
}

#[tokio::test]
async fn own_writes_are_logged_once_and_see_what_others_have_committed() {
    let mut world = World::new("").await;
    let first = commit(&world.source, vec![world.put(json!({"id": "a", "v": 1}))]).await;
    let version = Position::new(*first[0].as_ref().unwrap()).unwrap();
    world
        .run("UPDATE thing SET v = 2; INSERT INTO thing VALUES ('b', NULL, 5), ('taken', 'sku', 0)")
        .await;
    let mut stale = world.put(json!({"id": "a", "v": 3}));
    stale.writes[0].condition = Condition::Version(Some(version));
    let mut create = world.put(json!({"id": "b", "v": 3}));
    create.writes[0].condition = Condition::Absent;
    let units = vec![
        stale,
        create,
        unit(&world.entity, key("b"), Action::Patch(json!({"sku": "p"}))),
        world.put(json!({"id": "c", "sku": "sku"})),
        unit(&world.entity, key("a"), Action::Delete),
    ];
    let kinds = kinds(&commit(&world.source, units).await);
    use ErrorKind::{AlreadyExists, ConstraintViolated, VersionConflict};
    let expected =
        [Some(VersionConflict), Some(AlreadyExists), None, Some(ConstraintViolated), None];
    assert_eq!(kinds, expected);
    let found = get(&world.source, &world.entity, key("b")).await;
    assert_eq!(found, Some(record(&world.entity, json!({"id": "b", "sku": "p", "v": 5}))));
    let log = world.log(1).await;
    let count = |id: &str| log.iter().filter(|c| c.key == key(id)).count();
    assert_eq!((count("a"), count("b"), count("c")), (3, 2, 0));
    world.assert_log_tells_all().await;
    world.db.drop().await;
}

#[tokio::test]
async fn a_transaction_that_commits_late_is_not_passed_over() {
    let mut world = World::new("").await;
    let mut late = world.db.outside().await;
    run(&mut late, "START TRANSACTION; INSERT INTO thing VALUES ('late', NULL, 1)").await;
    for n in 0..5 {
        world.run(&format!("INSERT INTO thing VALUES ('early {n}', NULL, 2)")).await;
        assert_eq!(head(&world.source).await.as_u64(), 2 + n);
    }
    run(&mut late, "COMMIT").await;
    assert_eq!(world.log(1).await.last().unwrap().key, key("late"));
    world.assert_log_tells_all().await;
    world.db.drop().await;
}

#[tokio::test]
async fn changes_of_one_record_are_never_turned_around() {
    let mut world = World::new("INSERT INTO thing VALUES ('first', NULL, 0); ").await;
    // A begins first and takes its number first; B commits its change of the record before A makes its own.
    let mut a = world.db.outside().await;
    run(&mut a, "START TRANSACTION; UPDATE thing SET v = 1 WHERE id = 'first'").await;
    world.run("INSERT INTO thing VALUES ('k', NULL, 1)").await;
    head(&world.source).await;
    run(&mut a, "UPDATE thing SET v = 2 WHERE id = 'k'").await;
    head(&world.source).await;
    run(&mut a, "COMMIT").await;
    assert_eq!(world.told("k").await, [Some(Value::Integer(1)), Some(Value::Integer(2))]);
    // Now both are sequenced at once.
    run(&mut a, "START TRANSACTION; UPDATE thing SET v = 3 WHERE id = 'first'").await;
    world.run("UPDATE thing SET v = 5 WHERE id = 'k'").await;
    run(&mut a, "UPDATE thing SET v = 6 WHERE id = 'k'; COMMIT").await;
    assert_eq!(world.told("k").await.last(), Some(&Some(Value::Integer(6))));
    world.db.drop().await;
}

#[tokio::test]
async fn a_long_transaction_of_another_program_holds_up_only_its_own_records() {
    let mut world =
        World::new("INSERT INTO thing VALUES ('held', NULL, 1), ('free', NULL, 1); ").await;
    let mut long = world.db.outside().await;
    run(
        &mut long,
        "START TRANSACTION; UPDATE thing SET v = 2 WHERE id = 'held'; INSERT INTO thing VALUES ('coming', NULL, 3)",
    )
    .await;
    world.run("UPDATE thing SET v = 9 WHERE id = 'free'").await;
    assert_eq!(world.told("free").await, [Some(Value::Integer(9))], "others are sequenced");
    let held = get(&world.source, &world.entity, key("held")).await.unwrap();
    assert_eq!(held.values()[2], Value::Integer(1), "what is not committed is not read");
    let units = vec![
        world.put(json!({"id": "own 1"})),
        world.put(json!({"id": "held", "v": 7})),
        world.put(json!({"id": "coming", "v": 7})),
        unit(&world.entity, key("free"), Action::Patch(json!({"v": 10}))),
    ];
    let kinds = kinds(&commit(&world.source, units).await);
    let busy = Some(ErrorKind::Unavailable);
    assert_eq!(kinds, [None, busy, busy, None], "each unit fails alone");
    let another = world.another().await;
    assert!(commit(&another, vec![world.put(json!({"id": "own 2"}))]).await[0].is_ok());
    run(&mut long, "COMMIT").await;
    let again = commit(&world.source, vec![world.put(json!({"id": "held", "v": 7}))]).await;
    assert!(again[0].is_ok());
    assert_eq!(world.told("held").await, [Some(Value::Integer(2)), Some(Value::Integer(7))]);
    assert_eq!(world.told("coming").await, [Some(Value::Integer(3))]);
    world.db.drop().await;
}

#[tokio::test]
async fn a_table_that_somebody_has_locked_holds_up_nobody_who_follows() {
    let mut world = World::new("").await;
    assert!(commit(&world.source, vec![world.put(json!({"id": "a", "v": 1}))]).await[0].is_ok());
    let mut lock = world.db.outside().await;
    run(&mut lock, "LOCK TABLES thing WRITE; INSERT INTO thing VALUES ('b', NULL, 2)").await;
    assert_eq!(world.log(1).await.len(), 1, "the log is read as it is");
    run(&mut lock, "UNLOCK TABLES").await;
    world.assert_log_tells_all().await;
    assert_eq!(world.log(1).await.len(), 2);
    world.db.drop().await;
}

#[tokio::test]
async fn writes_are_captured_while_unisono_is_away_and_lost_triggers_are_noticed() {
    let mut world = World::new("INSERT INTO thing VALUES ('a', NULL, 1), ('b', NULL, 2); ").await;
    world.source.close().await.unwrap();
    world.run("UPDATE thing SET v = 5 WHERE id = 'a'").await;
    world.source = world.db.open().await;
    assert_eq!(capture(&world.source, &world.entity).await.unwrap(), Vec::<String>::new());
    assert_eq!(world.log(1).await.len(), 1);
    world.source.probe().await.unwrap();

    // As tools do that change a table by a copy of it.
    world
        .run(
            "CREATE TABLE made LIKE thing; INSERT INTO made SELECT * FROM thing; DROP TABLE thing; \
             RENAME TABLE made TO thing; DELETE FROM thing WHERE id = 'b'; INSERT INTO thing VALUES ('c', NULL, 3)",
        )
        .await;
    assert_eq!(world.source.probe().await.unwrap_err().kind(), ErrorKind::SchemaMismatch);
    world.source = world.another().await;
    world.source.probe().await.unwrap();
    world.settle().await;
    let told = world.log(2).await;
    let told: BTreeMap<_, _> = told.iter().map(|c| (c.key.to_string(), c.operation)).collect();
    let expected = [("a", Operation::Put), ("b", Operation::Delete), ("c", Operation::Put)];
    assert_eq!(told, expected.map(|(id, operation)| (id.to_owned(), operation)).into());

    // As a restore does: the triggers are there again, but they have not always been.
    let sql = "SELECT action_statement FROM information_schema.triggers WHERE trigger_schema = DATABASE() \
               AND trigger_name = 'unisono_update_thing'";
    let body = column(&mut world.other, sql).await.remove(0);
    world.run("DROP TRIGGER unisono_update_thing; UPDATE thing SET v = 77 WHERE id = 'a'").await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    world
        .run(&format!(
            "CREATE TRIGGER unisono_update_thing AFTER UPDATE ON thing FOR EACH ROW {body}"
        ))
        .await;
    assert_eq!(world.source.probe().await.unwrap_err().kind(), ErrorKind::SchemaMismatch);
    world.source = world.another().await;
    world.settle().await;
    assert_eq!(world.told("a").await.last(), Some(&Some(Value::Integer(77))));
    world.db.drop().await;
}

#[tokio::test]
async fn a_row_that_no_record_can_hold_stops_only_its_own_key() {
    let db = Database::new();
    let (source, mut other) = (db.open().await, db.outside().await);
    run(&mut other, "CREATE TABLE thing (id BIGINT PRIMARY KEY, flag TINYINT) ENGINE = InnoDB")
        .await;
    let flag = Field::new("flag", FieldType::Boolean);
    let entity = thing(vec![Field::new("id", FieldType::Integer), flag]);
    capture(&source, &entity).await.unwrap();
    let first = Position::new(1).unwrap();
    run(&mut other, "INSERT INTO thing VALUES (1, 9), (2, 1)").await;
    let keys: Vec<_> = log(&source, first).await.iter().map(|c| c.key.clone()).collect();
    assert_eq!(keys, [Key::Integer(2)]);
    let refused = "SELECT CONCAT(`key`, ' ', reason) FROM unisono_refused";
    let reasons = column(&mut other, refused).await;
    assert!(
        matches!(&reasons[..], [one] if one.starts_with("1 ") && one.contains("flag")),
        "{reasons:?}"
    );
    let reader = Arc::clone(&source).reader().unwrap();
    let error = reader.get(&entity, &[Key::Integer(1)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    // Its own unit fails that needs to know what is there, and no other.
    let units = vec![
        unit(&entity, Key::Integer(1), Action::Patch(json!({"flag": true}))),
        unit(&entity, Key::Integer(2), Action::Patch(json!({"flag": false}))),
    ];
    assert_eq!(kinds(&commit(&source, units).await), [Some(ErrorKind::Corrupt), None]);
    // Written over, or mended by others.
    let own = put(&entity, record(&entity, json!({"id": 1, "flag": true})));
    assert!(commit(&source, vec![own]).await[0].is_ok());
    run(&mut other, "INSERT INTO thing VALUES (3, 7)").await;
    head(&source).await;
    run(&mut other, "UPDATE thing SET flag = 0 WHERE id = 3").await;
    let log = log(&source, first).await;
    assert_eq!(replay(&entity, &log, first).len(), 3);
    assert_eq!(
        column(&mut other, "SELECT `key` FROM unisono_refused WHERE `key` <> '1'").await,
        Vec::<String>::new()
    );
    db.drop().await;
}

#[tokio::test]
async fn keys_of_every_type_are_captured() {
    let (ascii, bytes) = ("CHAR(36) CHARACTER SET ascii COLLATE ascii_bin", "BINARY(16)");
    let id = "0b0e1c9a-0000-4000-8000-00000000000a";
    let as_bytes = format!("UNHEX('{}')", id.replace('-', ""));
    for (ty, declared, literal, expected) in [
        (FieldType::Integer, "INT UNSIGNED", "4000000000".to_owned(), json!(4_000_000_000_i64)),
        (FieldType::Integer, "BIGINT", "-5".to_owned(), json!(-5)),
        (FieldType::Uuid, ascii, format!("'{id}'"), json!(id)),
        (FieldType::Uuid, bytes, as_bytes, json!(id)),
    ] {
        let db = Database::new();
        let (source, mut other) = (db.open().await, db.outside().await);
        let sql = format!(
            "CREATE TABLE thing (id {declared} PRIMARY KEY, v INT); INSERT INTO thing VALUES ({literal}, 0)"
        );
        run(&mut other, &sql).await;
        let entity = thing(vec![Field::new("id", ty), Field::new("v", FieldType::Integer)]);
        capture(&source, &entity).await.unwrap();
        run(&mut other, "UPDATE thing SET v = 1").await;
        let first = Position::new(1).unwrap();
        let told = log(&source, first).await;
        let image = unisono_core::json::to_json(&entity, told[0].image.as_ref().unwrap());
        assert_eq!((told.len(), image), (1, json!({"id": expected, "v": 1})), "{declared}");
        let own = put(&entity, record(&entity, json!({"id": expected, "v": 2})));
        assert_eq!(kinds(&commit(&source, vec![own]).await), [None]);
        run(&mut other, "TRUNCATE thing").await;
        let told = log(&source, first).await;
        assert_eq!(told.len(), 3, "{declared}");
        assert_eq!(told[2].operation, Operation::Delete);
        db.drop().await;
    }
}

#[tokio::test]
async fn what_triggers_of_the_application_do_is_captured_too() {
    let db = Database::new();
    let (source, mut other) = (db.open().await, db.outside().await);
    for sql in [
        TABLE,
        "CREATE TABLE total (id VARCHAR(60) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin PRIMARY KEY, n BIGINT)",
        "INSERT INTO total VALUES ('all', 0)",
        "CREATE TRIGGER doubles BEFORE INSERT ON thing FOR EACH ROW SET NEW.v = NEW.v * 2",
        "CREATE TRIGGER counts AFTER INSERT ON thing FOR EACH ROW UPDATE total SET n = n + NEW.v",
    ] {
        run(&mut other, sql).await;
    }
    let entity = entity();
    let fields = vec![Field::new("id", FieldType::String), Field::new("n", FieldType::Integer)];
    let total = Arc::new(Entity::new("total", "id", fields).unwrap());
    let bindings = [captured_as(&entity, "trigger"), captured_as(&total, "trigger")];
    source.prepare(&bindings).await.unwrap();
    run(&mut other, "INSERT INTO thing VALUES ('theirs', NULL, 5)").await;
    let own = put(&entity, record(&entity, json!({"id": "ours", "v": 4})));
    assert_eq!(kinds(&commit(&source, vec![own]).await), [None]);
    let log = log(&source, Position::new(1).unwrap()).await;
    let last = |entity: &str, id: &str| {
        let of_key = log.iter().rev().find(|c| &*c.entity == entity && c.key == key(id));
        of_key.unwrap().image.as_ref().unwrap().values().last().cloned().unwrap()
    };
    assert_eq!(last("thing", "theirs"), Value::Integer(10));
    assert_eq!(last("thing", "ours"), Value::Integer(8), "what is there, not what was written");
    assert_eq!(last("total", "all"), Value::Integer(18));
    db.drop().await;
}

#[tokio::test]
async fn what_would_escape_the_triggers_is_refused() {
    let db = Database::new();
    let (source, mut other) = (db.open().await, db.outside().await);
    run(
        &mut other,
        "CREATE TABLE owner (id INT PRIMARY KEY); \
         CREATE TABLE thing (id INT PRIMARY KEY, owner INT, FOREIGN KEY (owner) REFERENCES owner (id) ON DELETE CASCADE)",
    )
    .await;
    let fields =
        vec![Field::new("id", FieldType::Integer), Field::new("owner", FieldType::Integer)];
    let entity = thing(fields);
    let error = capture(&source, &entity).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SchemaMismatch, "{error:?}");
    assert!(error.hint_text().is_some_and(|h| h.contains("RESTRICT")), "{error:?}");
    source.prepare(&[captured_as(&entity, "record")]).await.unwrap();
    db.drop().await;
}

#[tokio::test]
async fn an_application_can_note_its_writes_down_itself() {
    let db = Database::new();
    let (source, mut other, entity) = (db.open().await, db.outside().await, entity());
    run(&mut other, TABLE).await;
    source.prepare(&[captured_as(&entity, "record")]).await.unwrap();
    for end in [false, true] {
        let mut transaction = other.start_transaction(TxOpts::default()).await.unwrap();
        transaction.query_drop("INSERT INTO thing VALUES ('a', NULL, 1)").await.unwrap();
        let (key, actor) = (key("a"), Some("importer"));
        unisono_source_mysql::record_in(&mut transaction, &db.name, "thing", &key, actor)
            .await
            .unwrap();
        if end { transaction.commit().await } else { transaction.rollback().await }.unwrap();
    }
    let changes = log(&source, Position::new(1).unwrap()).await;
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].actor.as_deref(), Some("importer"));
    assert_eq!(changes[0].key, key("a"));
    db.drop().await;
}

#[tokio::test]
async fn an_application_notices_nothing() {
    let mut world = World::new("").await;
    world.run("CREATE TABLE counted (id BIGINT AUTO_INCREMENT PRIMARY KEY, v INT)").await;
    let fields = vec![Field::new("id", FieldType::Integer), Field::new("v", FieldType::Integer)];
    let counted = Arc::new(Entity::new("counted", "id", fields).unwrap());
    let bindings = [captured_as(&world.entity, "trigger"), captured_as(&counted, "trigger")];
    world.source.prepare(&bindings).await.unwrap();
    world.run("INSERT INTO thing VALUES ('a', NULL, 1), ('b', NULL, 1), ('c', NULL, 1)").await;
    world.run("INSERT INTO counted (v) VALUES (1), (2)").await;
    assert_eq!(world.other.last_insert_id(), Some(1), "not the number of an entry");
    world.run("UPDATE counted SET v = 3").await;
    assert_eq!(world.other.affected_rows(), 2);
    // A key that no record can have is the application's own affair.
    world.run("ALTER TABLE thing MODIFY id VARCHAR(760) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL").await;
    world.run("INSERT INTO thing VALUES (REPEAT('k', 760), NULL, 1)").await;
    assert_eq!(world.log(1).await.len(), 5);
    assert_eq!(
        column(&mut world.other, "SELECT LENGTH(`key`) FROM unisono_refused").await,
        ["760"]
    );
    world.db.drop().await;
}

#[tokio::test]
async fn capture_can_end_and_begin_again() {
    let mut world = World::new("").await;
    world.run("INSERT INTO thing VALUES ('a', NULL, 1)").await;
    let before = head(&world.source).await;
    world.source = world.db.prepared(Role::Truth, &[&world.entity]).await;
    assert!(world.version("a").await >= before);
    world.run("UPDATE thing SET v = 2").await;
    assert_eq!(head(&world.source).await, before, "nobody captures it");
    let error = capture(&world.db.open().await, &world.entity).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SchemaMismatch);
    world.run("ALTER TABLE thing DROP COLUMN unisono_version").await;
    world.source = world.another().await;
    assert!(world.version("a").await >= before);
    world.run("UPDATE thing SET v = 3").await;
    world.settle().await;
    assert_eq!(world.log(before.as_u64()).await.len(), 1);
    world.db.drop().await;
}

#[tokio::test]
async fn a_table_that_unisono_makes_can_be_captured() {
    let db = Database::new();
    let (source, entity) = (db.open().await, entity());
    capture(&source, &entity).await.unwrap();
    let own = put(&entity, record(&entity, json!({"id": "a", "v": 1})));
    assert_eq!(commit(&source, vec![own]).await[0].as_ref().unwrap(), &1);
    let mut other = db.outside().await;
    run(&mut other, "UPDATE thing SET v = 2").await;
    assert_eq!(log(&source, Position::ZERO).await.len(), 2);
    let every = |source: &Arc<dyn Source>| Arc::clone(source).truth().unwrap().poll_every();
    assert!(every(&source) < Duration::from_millis(50), "others' writes are looked for");
    assert_eq!(every(&db.open().await), Duration::from_secs(1));
    let more = Field { default: Some(Value::Integer(7)), ..Field::new("more", FieldType::Integer) };
    let more = thing(entity.fields().iter().cloned().chain([more]).collect());
    let source = db.open().await;
    capture(&source, &more).await.unwrap();
    let found = get(&source, &more, key("a")).await.unwrap();
    assert_eq!(found.values()[3], Value::Integer(7));
    db.drop().await;
}

#[tokio::test]
async fn an_existing_table_is_described_with_what_cannot_be_kept() {
    let db = Database::new();
    let (source, mut other) = (db.open().await, db.outside().await);
    run(
        &mut other,
        "CREATE TABLE thing (Id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(20) NOT NULL UNIQUE, price DECIMAL(10,2), \
         born DATE, at DATETIME(3), on_sale TINYINT(1), small TINYINT(1), data JSON, code BINARY(16), `two words` TEXT, \
         huge BIGINT UNSIGNED NOT NULL, twice INT AS (price * 2), kind ENUM('a', 'b') NOT NULL) CHARACTER SET utf8mb4; \
         INSERT INTO thing (name, price, born, at, on_sale, small, data, huge, kind) \
         VALUES ('x', 2.5, '2026-01-02', '2026-01-02 03:04:05.678', 1, 5, '{}', 7, 'a')",
    )
    .await;
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
            "on_sale boolean",
            "small integer",
            "data json",
            "code uuid",
            "kind string"
        ]
    );
    assert!(described.fields[1].unique && described.fields[1].required);
    let left_out: Vec<_> = described.left_out.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(left_out, ["two words", "huge", "twice"]);
    assert_eq!(described.notes.len(), 1, "a column that needs a value: {:?}", described.notes);
    // What is described can be captured.
    run(&mut other, "ALTER TABLE thing MODIFY huge BIGINT UNSIGNED NOT NULL DEFAULT 0").await;
    let entity = Arc::new(Entity::new("thing", "id", described.fields).unwrap());
    capture(&source, &entity).await.unwrap();
    assert_eq!(source.describe("none").await.unwrap_err().kind(), ErrorKind::NotFound);
    db.drop().await;
}

#[tokio::test]
async fn a_restored_database_goes_on_where_it_was() {
    let mut world = World::new("INSERT INTO thing VALUES ('before', NULL, 0); ").await;
    for n in 0..20 {
        world.run(&format!("INSERT INTO thing VALUES ('k{n}', NULL, {n})")).await;
    }
    head(&world.source).await;
    world
        .run("UPDATE thing SET v = v + 100 WHERE id < 'k2'; DELETE FROM thing WHERE id = 'k3'")
        .await;
    let restored = world.db.restored("mariadb-dump", "mariadb").await;
    let mut other = restored.outside().await;
    // In the new server numbers begin anew, below those of the entries that came along.
    run(&mut other, "UPDATE unisono_intake SET id = id + 1000000; INSERT INTO unisono_intake (id, entity, `key`, time) \
                     SELECT 1, 'thing', 'k5', 0 FROM DUAL; UPDATE thing SET v = 55 WHERE id = 'k5'")
        .await;
    let source = restored.open().await;
    let notes = capture(&source, &world.entity).await.unwrap();
    assert!(
        notes.iter().any(|n| n.contains("read again")),
        "nobody knows what was restored: {notes:?}"
    );
    // The lease came along as well.
    while column(&mut other, "SELECT COUNT(*) FROM unisono_intake").await != ["0"] {
        head(&source).await;
    }
    let told = log(&source, Position::new(1).unwrap()).await;
    let first = Position::new(21).unwrap();
    assert!(told.windows(2).all(|w| w[1].position == w[0].position.next()), "dense");
    let last: BTreeMap<_, _> = told
        .iter()
        .filter(|c| c.position > first)
        .map(|c| (c.key.to_string(), c.image.clone()))
        .collect();
    assert_eq!(last["k5"].as_ref().unwrap().values()[2], Value::Integer(55));
    assert_eq!(last["k1"].as_ref().unwrap().values()[2], Value::Integer(101));
    assert_eq!(last["k3"], None);
    run(&mut other, "UPDATE thing SET v = 1 WHERE id = 'k7'").await;
    let after = log(&source, told.last().unwrap().position).await;
    assert_eq!(after.len(), 1, "captured there as well");
    restored.drop().await;
    world.db.drop().await;
}

/// A process that does nothing but sequence, in the database that the environment names; see `Sequencing`.
#[tokio::test]
#[ignore = "the body of another process"]
async fn a_process_that_sequences() {
    let Ok(name) = std::env::var("UNISONO_TEST_DATABASE") else { return };
    let db = Database::named(name);
    let (source, entity) = (db.open().await, entity());
    capture(&source, &entity).await.unwrap();
    loop {
        let _ = Arc::clone(&source).truth().unwrap().bounds().await;
    }
}

/// Another process, which is killed at the end.
struct Sequencing(Child);

impl Sequencing {
    fn new(db: &Database) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "a_process_that_sequences"])
            .env("UNISONO_TEST_DATABASE", &db.name)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn();
        Sequencing(child.unwrap())
    }

    fn signal(&self, signal: &str) {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }
}

impl Drop for Sequencing {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sequencer_that_is_stopped_or_killed_leaves_the_log_whole() {
    let mut world = World::new("").await;
    let mut holder = String::new();
    for round in 0..4 {
        let process = Sequencing::new(&world.db);
        // Until the other process has the lease.
        let sql = "SELECT holder FROM unisono_sequencer";
        let before = std::mem::take(&mut holder);
        let mut n = 0;
        while holder.is_empty() || holder == before {
            n += 1;
            world
                .run(&format!("REPLACE INTO thing VALUES ('{round} {}', NULL, {n})", n % 20))
                .await;
            holder = column(&mut world.other, sql).await.remove(0);
        }
        for n in 0..60 {
            world
                .run(&format!("REPLACE INTO thing VALUES ('{round} {}', NULL, {n})", n % 20))
                .await;
        }
        process.signal(if round % 2 == 0 { "-STOP" } else { "-KILL" });
        world.run(&format!("INSERT INTO thing VALUES ('last of {round}', NULL, 0)")).await;
        // Whatever it was doing: somebody else goes on as soon as its lease or its transaction has timed out.
        let last = key(&format!("last of {round}"));
        let waiting = async { while !world.log(1).await.iter().any(|c| c.key == last) {} };
        tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("somebody goes on");
        if round % 2 == 0 {
            process.signal("-CONT");
            world.run(&format!("REPLACE INTO thing VALUES ('{round} 0', NULL, -1)")).await;
            head(&world.source).await;
        }
        holder = column(&mut world.other, sql).await.remove(0);
    }
    world.settle().await;
    world.assert_log_tells_all().await;
    let epoch = column(&mut world.other, "SELECT epoch FROM unisono_sequencer").await;
    assert!(epoch[0].parse::<u64>().unwrap() >= 4, "each new holder begins an epoch: {epoch:?}");
    world.db.drop().await;
}

/// One random statement, or several, of a program that knows nothing of Unisono.
fn statement(random: &mut StdRng) -> String {
    let (a, b) = (random.random_range(0..8), random.random_range(0..8));
    match random.random_range(0..11) {
        0 => format!("REPLACE INTO thing VALUES ('{a}', 's{b}', {a})"),
        1 => format!("INSERT IGNORE INTO thing VALUES ('{a}', 's{b}', {b})"),
        2 => format!("UPDATE IGNORE thing SET id = '{b}', v = v + 1 WHERE id = '{a}'"),
        3 => format!("DELETE FROM thing WHERE id >= '{a}'"),
        4 => format!("START TRANSACTION; UPDATE thing SET v = {a}; ROLLBACK"),
        5 => format!(
            "START TRANSACTION; DELETE FROM thing WHERE id = '{a}'; SAVEPOINT s; DELETE FROM thing; ROLLBACK TO s; \
             REPLACE INTO thing VALUES ('{b}', NULL, {a}); COMMIT"
        ),
        6 => format!(
            "INSERT INTO thing VALUES ('{a}', 's{a}', 1), ('{b}x', NULL, 2) ON DUPLICATE KEY UPDATE v = v + 1"
        ),
        7 => format!(
            "START TRANSACTION; UPDATE thing SET v = v + 1 WHERE id = '{a}'; DO SLEEP(0.01); \
             UPDATE thing SET v = v - 1 WHERE id = '{b}'; COMMIT"
        ),
        8 => format!("UPDATE thing SET v = v * 2 WHERE id < '{a}'"),
        9 if a == 0 => "TRUNCATE TABLE thing".into(),
        _ => format!("DELETE FROM thing WHERE sku = 's{a}'"),
    }
}

/// Random units of Unisono's own; whether one is refused depends on what the others did.
async fn write(source: &Arc<dyn Source>, e: &Arc<Entity>, random: &mut StdRng) {
    let (a, b) = (random.random_range(0..8), random.random_range(0..8));
    let own = put(e, record(e, json!({"id": a.to_string(), "sku": format!("s{b}"), "v": 50})));
    let id = key(&b.to_string());
    let units = match random.random_range(0..5) {
        0 => vec![own],
        1 => vec![own, unit(e, id.clone(), Action::Delete)],
        2 => vec![unit(e, id.clone(), Action::Patch(json!({"v": 60}))), own],
        3 => {
            head(source).await;
            return;
        }
        _ => Vec::new(),
    };
    let done = match units.is_empty() {
        true => Arc::clone(source).reader().unwrap().get(e, &[id]).await.map(drop),
        false => Arc::clone(source).truth().unwrap().commit(units).await.map(drop),
    };
    // Others can be in the way for too long, or empty the table in this very moment.
    if let Err(error) = done {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert_eq!(error.effect_on_data(), unisono_core::Effect::None, "{error:?}");
    }
}

/// Programs that write as they like and two processes of Unisono, all at the same few records at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn random_writes_of_many_leave_a_log_that_tells_exactly_what_is_there() {
    for seed in 0..6 {
        println!("seed {seed}");
        let mut world = World::new("").await;
        let mut tasks = tokio::task::JoinSet::new();
        for n in 4..6 {
            let mut random = StdRng::seed_from_u64(seed * 100 + n);
            let (source, e) = (world.another().await, Arc::clone(&world.entity));
            tasks.spawn(async move {
                for _ in 0..80 {
                    write(&source, &e, &mut random).await;
                }
            });
        }
        for n in 0..4 {
            let mut random = StdRng::seed_from_u64(seed * 100 + n);
            let mut conn = world.db.outside().await;
            tasks.spawn(async move {
                for _ in 0..120 {
                    // Deadlocks, waits and duplicates are the program's own affair.
                    if conn.query_drop(statement(&mut random)).await.is_err() {
                        run(&mut conn, "ROLLBACK").await;
                    }
                }
            });
        }
        tasks.join_all().await;
        world.settle().await;
        world.assert_log_tells_all().await;
        world.db.drop().await;
    }
}
