//! What transactions of other programs do: every kind of write, late and long ones, and those that were undone.

use unisono_core::Operation::{Delete, Put};

use crate::common::{column, connect};
use crate::site::{Site, key};

#[tokio::test]
async fn every_kind_of_write_of_others_is_in_the_log_and_none_that_was_undone() {
    let site = Site::new("").await;
    for sql in [
        "INSERT INTO thing VALUES ('a', 'x', 1), ('b', 'y', 2), ('c', 'z', 3), ('d', NULL, 4)",
        "UPDATE thing SET v = v + 10 WHERE id < 'c'",
        "UPDATE thing SET id = 'e' WHERE id = 'd'",
        "INSERT INTO thing VALUES ('a', 'w', 0) ON CONFLICT (id) DO UPDATE SET v = 7",
        "INSERT INTO thing VALUES ('a', 'w', 0) ON CONFLICT DO NOTHING",
        "DELETE FROM thing WHERE id = 'e'",
        "WITH gone AS (DELETE FROM thing WHERE id = 'b' RETURNING *) INSERT INTO thing SELECT 'b2', sku, v FROM gone",
        "BEGIN; INSERT INTO thing VALUES ('never', NULL, 0); ROLLBACK",
        "BEGIN; INSERT INTO thing VALUES ('g', NULL, 0); SAVEPOINT s; UPDATE thing SET v = -1; \
         INSERT INTO thing VALUES ('never', NULL, 0); ROLLBACK TO s; COMMIT",
        "BEGIN; SAVEPOINT s; INSERT INTO thing VALUES ('h', NULL, 1); RELEASE s; UPDATE thing SET v = 2 WHERE id = 'h'; COMMIT",
        "INSERT INTO thing VALUES ('brief', NULL, 0); DELETE FROM thing WHERE id = 'brief'",
        "CREATE TABLE more (LIKE thing); INSERT INTO more SELECT 'm' || n, NULL, n FROM generate_series(1, 50) n; \
         MERGE INTO thing t USING more m ON t.id = m.id WHEN NOT MATCHED THEN INSERT VALUES (m.id, NULL, m.v)",
        "DO $$ BEGIN INSERT INTO thing VALUES ('a', NULL, 0); EXCEPTION WHEN unique_violation THEN UPDATE thing SET v = 8 WHERE id = 'a'; END $$",
    ] {
        site.run(sql).await;
        site.assert_log_tells_all().await;
    }
    assert_eq!(site.told_of("d").await, [(Put, Some(4)), (Delete, None)], "the old key");
    assert_eq!(site.told_of("h").await, [(Put, Some(2))], "once for each transaction or less");
    assert!(site.told_of("never").await.is_empty() && site.told_of("brief").await.is_empty());
    let changes = site.log().await;
    let actor = changes.first().and_then(|c| c.actor.as_deref());
    assert_eq!(actor, Some("app"), "the database's user");
    site.db.drop().await;
}

/// A user with rights on the table alone, and what replication or a restore writes, for which triggers rest unless they
/// always fire.
#[tokio::test]
async fn writes_by_whoever_and_however_are_in_the_log() {
    let site = Site::new("").await;
    let (schema, role) = (&site.db.schema, format!("{}_writer", site.db.schema));
    site.run(&format!(
        "CREATE ROLE {role}; GRANT {role} TO app; GRANT USAGE ON SCHEMA {schema} TO {role}; \
         GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON thing TO {role}"
    ))
    .await;
    for sql in ["INSERT INTO thing VALUES ('a', NULL, 1), ('b', NULL, 2)", "TRUNCATE thing"] {
        site.run(&format!("SET ROLE {role}; {sql}")).await;
        site.assert_log_tells_all().await;
    }
    let url = site.db.url.replace("app:app-secret", "postgres:super-secret");
    let replication = connect(&url, site.db.ca.as_deref()).await.unwrap();
    let sql = format!(
        "SET session_replication_role = replica; INSERT INTO {schema}.thing VALUES ('r', NULL, 3)"
    );
    replication.batch_execute(&sql).await.unwrap();
    site.assert_log_tells_all().await;
    assert_eq!(site.told_of("r").await, [(Put, Some(3))]);
    site.run(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
    site.db.drop().await;
}

#[tokio::test]
async fn a_table_that_was_emptied_is_empty_everywhere() {
    let site = Site::new("").await;
    site.run("INSERT INTO thing SELECT n, NULL, n FROM generate_series(1, 5000) n").await;
    assert_eq!(site.assert_log_tells_all().await.len(), 5000);
    site.run("TRUNCATE thing; INSERT INTO thing VALUES ('7', NULL, -7)").await;
    let changes = site.assert_log_tells_all().await;
    let deletions = changes.iter().filter(|c| c.operation == Delete).count();
    assert_eq!(deletions, 4999, "a record that is there again was replaced");
    site.run("BEGIN; TRUNCATE thing; ROLLBACK").await;
    site.run("BEGIN; TRUNCATE thing; INSERT INTO thing VALUES ('new', NULL, 1); SAVEPOINT s; TRUNCATE thing; ROLLBACK TO s; COMMIT").await;
    site.assert_log_tells_all().await;
    assert_eq!(site.rows().await.len(), 1);
    let left = site.db.see("SELECT count(*) FROM unisono_intake").await;
    assert_eq!(left, ["0"], "the intake is cleaned up");
    site.db.drop().await;
}

/// The first of two transactions to begin, and to write, commits last: a reader of "number > last" loses it.
#[tokio::test]
async fn a_late_commit_is_not_passed_over() {
    let site = Site::new("").await;
    let late = site.other().await;
    late.batch_execute("BEGIN; INSERT INTO thing VALUES ('late', NULL, 1)").await.unwrap();
    for n in 0..20 {
        site.run(&format!("INSERT INTO thing VALUES ('{n}', NULL, {n})")).await;
        assert_eq!(site.bounds().await.head.as_u64(), 1 + n + 1, "nobody waits for the late one");
    }
    late.batch_execute("COMMIT").await.unwrap();
    let changes = site.assert_log_tells_all().await;
    assert_eq!(changes.last().unwrap().key, key("late"), "it comes when it is committed");
    site.db.drop().await;
}

/// A takes its number, B writes the record and commits, A writes it again: by number, A's state would come first.
#[tokio::test]
async fn changes_of_one_record_are_never_turned_around() {
    let site = Site::new("").await;
    for round in 0..10 {
        let (a, b) = (site.other().await, site.other().await);
        a.batch_execute(&format!("BEGIN; INSERT INTO thing VALUES ('of a{round}', NULL, 0)"))
            .await
            .unwrap();
        b.batch_execute(
            "INSERT INTO thing VALUES ('hot', NULL, 1) ON CONFLICT (id) DO UPDATE SET v = 1",
        )
        .await
        .unwrap();
        if round % 2 == 0 {
            site.bounds().await;
        }
        a.batch_execute("UPDATE thing SET v = 2 WHERE id = 'hot'; COMMIT").await.unwrap();
        site.assert_log_tells_all().await;
        assert_eq!(site.told_of("hot").await.last(), Some(&(Put, Some(2))));
    }
    site.db.drop().await;
}

#[tokio::test]
async fn a_long_transaction_holds_up_neither_others_nor_own_writes() {
    let site = Site::new("INSERT INTO thing VALUES ('x', NULL, 0), ('y', NULL, 0);").await;
    let long = site.other().await;
    let sql = "BEGIN; UPDATE thing SET v = 1 WHERE id = 'x'; INSERT INTO thing VALUES ('fresh', 'taken', 1)";
    long.batch_execute(sql).await.unwrap();
    // One that only looks, for ever, keeps a snapshot.
    let idle = site.other().await;
    idle.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM thing").await.unwrap();
    for n in 0..20 {
        site.run(&format!("UPDATE thing SET v = {n} WHERE id = 'y'")).await;
        let own = site.commit(vec![site.put(serde_json::json!({"id": format!("own {n}")}))]).await;
        let position = own.unwrap().changes[0].position;
        assert!(site.bounds().await.head >= position);
        assert_eq!(site.told_of("y").await.last(), Some(&(Put, Some(n))));
    }
    assert!(site.told_of("x").await.is_empty() && site.told_of("fresh").await.is_empty());
    long.batch_execute("COMMIT").await.unwrap();
    assert_eq!(site.told_of("x").await, [(Put, Some(1))]);
    assert_eq!(site.told_of("fresh").await, [(Put, Some(1))]);
    idle.batch_execute("COMMIT").await.unwrap();
    site.db.drop().await;
}

#[tokio::test]
async fn what_was_rolled_back_again_and_again_leaves_nothing() {
    let site = Site::new("").await;
    let storm =
        "BEGIN; INSERT INTO thing SELECT n, NULL, n FROM generate_series(1, 100) n; ROLLBACK";
    let clients = [site.other().await, site.other().await, site.other().await];
    for _ in 0..20 {
        let all = clients.iter().map(|client| client.batch_execute(storm));
        futures::future::try_join_all(all).await.unwrap();
        site.run("INSERT INTO thing VALUES ('a', NULL, 1) ON CONFLICT (id) DO UPDATE SET v = thing.v + 1").await;
    }
    let changes = site.assert_log_tells_all().await;
    assert!(changes.iter().all(|c| c.key == key("a")));
    assert_eq!(site.told_of("a").await.last(), Some(&(Put, Some(20))));
    site.db.drop().await;
}

#[tokio::test]
async fn records_from_before_have_a_version_and_no_column_is_added() {
    let site = Site::new("INSERT INTO thing VALUES ('a', 'x', 1);").await;
    let before = site.get("a").await.unwrap().unwrap();
    assert_eq!(before.version, site.bounds().await.trimmed);
    let columns = site
        .db
        .see("SELECT attname FROM pg_attribute WHERE attrelid = 'thing'::regclass AND attnum > 0");
    assert_eq!(columns.await, ["id", "sku", "v"]);
    site.run("UPDATE thing SET v = 2").await;
    let changes = site.log().await;
    assert_eq!(changes[0].replaced, Some(before.version));
    let now = site.get("a").await.unwrap().unwrap();
    assert_eq!(now.version, changes[0].position);
    let history = site.truth().history(&site.entity, &key("a"), None, 10).await.unwrap();
    assert_eq!(history, changes);
    assert_eq!(column(&site.other().await, "SELECT count(*) FROM thing").await, ["1"]);
    site.db.drop().await;
}
