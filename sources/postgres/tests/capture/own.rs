//! Writes of Unisono itself to a table that others write, too: one log, one order, and conditions that hold.

use serde_json::json;
use unisono_core::Operation::{Delete, Put};
use unisono_core::write::{Action, Condition, Write};
use unisono_core::{Effect, ErrorKind};

use crate::common::background;
use crate::site::{Site, key, unit};

#[tokio::test]
async fn own_writes_are_logged_once_and_see_what_others_have_committed() {
    let site = Site::new("").await;
    let first = site.commit(vec![site.put(json!({"id": "a", "v": 1}))]).await.unwrap();
    let version = first.changes[0].position;
    assert_eq!(site.bounds().await.head, version, "the trigger leaves it out");
    site.run("UPDATE thing SET v = 2; INSERT INTO thing VALUES ('b', NULL, 5)").await;
    let conditional = Write {
        condition: Condition::Version(Some(version)),
        ..site.put(json!({"id": "a", "v": 3}))
    };
    let refused = site.commit(vec![conditional]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::VersionConflict);
    let create = Write { condition: Condition::Absent, ..site.put(json!({"id": "b", "v": 3})) };
    assert_eq!(site.commit(vec![create]).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    let patch = site.write(key("b"), Action::Patch(json!({"sku": "p"})));
    site.commit(vec![patch, site.delete("a")]).await.unwrap();
    assert_eq!(site.rows().await.len(), 1);
    assert_eq!(site.told_of("a").await, [(Put, Some(1)), (Put, Some(2)), (Delete, None)]);
    assert_eq!(site.told_of("b").await, [(Put, Some(5)), (Put, Some(5))]);
    site.assert_log_tells_all().await;
    site.db.drop().await;
}

#[tokio::test]
async fn a_condition_holds_for_the_version_that_a_reader_got_of_a_row_that_others_wrote() {
    let site = Site::new("").await;
    for v in 0..10 {
        site.run(&format!(
            "INSERT INTO thing VALUES ('a', NULL, {v}) ON CONFLICT (id) DO UPDATE SET v = {v}"
        ))
        .await;
        // Nobody has followed the log yet: the read itself has the change sequenced.
        let stored = site.get("a").await.unwrap().unwrap();
        let write = Write {
            condition: Condition::Version(Some(stored.version)),
            ..site.put(json!({"id": "a", "v": v + 100}))
        };
        let changes = site.commit(vec![write]).await.unwrap().changes;
        assert_eq!(changes[0].replaced, Some(stored.version));
    }
    site.run("TRUNCATE thing").await;
    let absent = Write { condition: Condition::Absent, ..site.put(json!({"id": "a", "v": 7})) };
    let changes = site.commit(vec![absent]).await.expect("the table was emptied").changes;
    assert_eq!(changes[0].replaced, None);
    site.assert_log_tells_all().await;
    site.db.drop().await;
}

#[tokio::test]
async fn triggers_of_the_application_that_change_an_own_write_further_are_captured() {
    let site = Site::new("").await;
    site.run(
        "CREATE FUNCTION twice() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$ BEGIN \
           UPDATE thing SET v = v * 2 WHERE id = NEW.id; RETURN NULL; END $$; \
         CREATE TRIGGER twice AFTER INSERT ON thing FOR EACH ROW EXECUTE FUNCTION twice()",
    )
    .await;
    let own = site.commit(vec![site.put(json!({"id": "a", "v": 4}))]).await.unwrap();
    assert_eq!(own.changes[0].image.as_ref().unwrap().values()[2], unisono_core::Value::Integer(4));
    assert_eq!(site.told_of("a").await, [(Put, Some(4)), (Put, Some(8))]);
    site.assert_log_tells_all().await;
    site.db.drop().await;
}

#[tokio::test]
async fn a_trigger_that_changes_rows_before_they_are_written_is_taken_into_account() {
    let site = Site::new(
        "CREATE FUNCTION upper_sku() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.sku = upper(NEW.sku); RETURN NEW; END $$; \
         CREATE TRIGGER upper_sku BEFORE INSERT OR UPDATE ON thing FOR EACH ROW EXECUTE FUNCTION upper_sku();",
    )
    .await;
    site.commit(vec![site.put(json!({"id": "a", "sku": "x"}))]).await.unwrap();
    site.assert_log_tells_all().await;
    site.db.drop().await;
}

#[tokio::test]
async fn rows_that_go_with_a_row_that_unisono_deletes_are_captured() {
    let site = Site::new(
        "ALTER TABLE thing ADD FOREIGN KEY (sku) REFERENCES thing (id) ON DELETE CASCADE;",
    )
    .await;
    site.run("INSERT INTO thing VALUES ('parent', NULL, 1), ('c1', 'parent', 2)").await;
    site.assert_log_tells_all().await;
    site.commit(vec![site.delete("parent")]).await.unwrap();
    assert_eq!(site.told_of("c1").await.last(), Some(&(Delete, None)));
    site.assert_log_tells_all().await;
    site.db.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_another_transaction_keeps_locked_fails_alone_and_soon() {
    let site = Site::new("").await;
    site.run("INSERT INTO thing VALUES ('locked', NULL, 0), ('free', NULL, 0)").await;
    let other = site.other().await;
    other.batch_execute("BEGIN; UPDATE thing SET v = 1 WHERE id = 'locked'; INSERT INTO thing VALUES ('new', NULL, 1)").await.unwrap();
    let put = |id: &str| unit(vec![site.put(json!({"id": id, "v": 9}))]);
    let mut units = vec![put("free"), put("locked"), put("new"), put("other")];
    units.extend((0..200).map(|_| put("locked")));
    let results = site.truth().commit(units).await.unwrap();
    assert!(results[0].is_ok() && results[3].is_ok());
    for result in results[1..3].iter().chain(&results[4..]) {
        let error = result.as_ref().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert_eq!(error.effect_on_data(), Effect::None);
        assert!(
            error.hint_text().is_some_and(|hint| hint.contains("pg_stat_activity")),
            "{error:?}"
        );
    }
    other.batch_execute("COMMIT").await.unwrap();
    site.commit(vec![site.put(json!({"id": "locked", "v": 5}))]).await.unwrap();
    assert_eq!(site.told_of("locked").await, [(Put, Some(1)), (Put, Some(5))]);
    site.assert_log_tells_all().await;
    site.db.drop().await;
}

/// The other program commits while Unisono, which has decided already, waits for the row.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_was_overtaken_while_it_waited_is_decided_anew() {
    let site = Site::new("INSERT INTO thing VALUES ('a', NULL, 1);").await;
    for (sql, kind) in [
        ("UPDATE thing SET v = v + 1 WHERE id = 'a'", ErrorKind::VersionConflict),
        ("TRUNCATE thing; INSERT INTO thing VALUES ('a', NULL, 1)", ErrorKind::VersionConflict),
        ("DELETE FROM thing WHERE id = 'a'", ErrorKind::VersionConflict),
    ] {
        let version = site.get("a").await.unwrap().unwrap().version;
        let write = Write {
            condition: Condition::Version(Some(version)),
            ..site.put(json!({"id": "a", "v": 77}))
        };
        let other = site.other().await;
        other.batch_execute(&format!("BEGIN; {sql}")).await.unwrap();
        let truth = site.truth();
        let own = background(async move { truth.commit(vec![unit(vec![write])]).await });
        // The wait for the row is short: end it as soon as it has begun.
        let waits = format!(
            "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%{}%'",
            site.db.schema
        );
        crate::common::until("the commit waits or has given up", async || {
            (own.is_finished() || !site.db.see(&waits).await.is_empty()).then_some(())
        })
        .await;
        other.batch_execute("COMMIT").await.unwrap();
        let refused = own.await.unwrap().unwrap().remove(0).unwrap_err();
        let gave_up = refused.kind() == ErrorKind::Unavailable;
        assert!(gave_up || refused.kind() == kind, "{refused:?}");
        assert!(site.rows().await.iter().all(|row| row["v"] != json!(77)));
    }
    site.db.drop().await;
}
