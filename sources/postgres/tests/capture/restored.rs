//! A database that was restored, or failed over with a loss: its log must not go on as if nothing had happened.

use std::process::{Command, Stdio};

use serde_json::json;
use unisono_core::{ErrorKind, Position};

use crate::common::{Database, until};
use crate::follower::Copy;
use crate::server::Server;
use crate::site::{Site, binding, log, replay, thing, truth};

const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";

/// The schema as `pg_dump` writes it.
fn dump(server: &Server, schema: &str) -> Vec<u8> {
    let mut command = Command::new(format!("{PROGRAMS}/pg_dump"));
    let output = command.args(["-n", schema, "-d", &server.url()]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// What [`dump`] wrote, into another database.
fn restore(server: &Server, dump: Vec<u8>) {
    let mut command = Command::new(format!("{PROGRAMS}/psql"));
    let arguments = ["-q", "-v", "ON_ERROR_STOP=1", "-d", &server.url()];
    let mut psql =
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    std::io::Write::write_all(&mut psql.stdin.take().unwrap(), &dump).unwrap();
    assert!(psql.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_restored_into_a_new_cluster_is_another_log_above_the_old_one() {
    let (old, young) = (Server::primary(5548).await, Server::primary(5549).await);
    let site = Site::at(Database::at(&old.url()), "").await;
    // Many transactions, so that the new cluster's numbers are far below.
    for n in 0..200 {
        site.run(&format!("INSERT INTO thing VALUES ('{n}', NULL, {n})")).await;
    }
    let mut copy = Copy::new(&site.source, &site.entity).await;
    while copy.follow(&site.source).await > 0 {}
    site.run("UPDATE thing SET v = 1000 WHERE id = '7'").await;
    let dump = dump(&old, &site.db.schema);
    // What is lost with the old cluster, but for the follower.
    site.run("UPDATE thing SET v = 2000 WHERE id = '8'; DELETE FROM thing WHERE id = '9'").await;
    while copy.follow(&site.source).await > 0 {}
    drop((site.source, old));

    let mut db = Database::at(&young.url());
    db.schema.clone_from(&site.db.schema);
    let outside = db.outside().await;
    restore(&young, dump);
    // More waits than was lost: without another log the follower would find its place taken by other changes.
    outside
        .batch_execute("UPDATE thing SET v = -1 WHERE id IN ('1', '2', '3', '4', '5')")
        .await
        .unwrap();
    let source = db.open().await;
    let notes = source.prepare(&[binding(&thing(), Some("trigger"))]).await.unwrap();
    assert!(notes.iter().any(|note| note.contains("began another log")), "{notes:?}");
    let bounds = truth(&source).bounds().await.unwrap();
    assert_ne!(bounds.log, copy.saved.log, "the follower's checkpoint means nothing here");
    assert!(bounds.trimmed > copy.saved.position, "no position is given twice");
    assert_eq!(bounds.trimmed.generation(), 1);

    let site = Site { db, source, entity: site.entity };
    let told = |changes: &[_]| replay(&site.entity, changes, bounds.trimmed).len();
    let changes = site.log().await;
    assert_eq!(told(&changes), 6, "also what waited in the dump");
    for n in 0..50 {
        site.run(&format!("UPDATE thing SET v = v + 1 WHERE id = '{n}'")).await;
    }
    assert_eq!(told(&site.log().await), 51 - 1);
    let own = site.commit(vec![site.put(json!({"id": "8", "v": 1}))]).await.unwrap();
    assert!(own.changes[0].position > bounds.trimmed);
    let again = site.db.open().await;
    assert!(again.prepare(&[binding(&thing(), Some("trigger"))]).await.unwrap().is_empty());
    assert_eq!(truth(&again).bounds().await.unwrap().log, bounds.log);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_that_is_restored_under_a_running_process_is_noticed_by_it() {
    let server = Server::primary(5550).await;
    let site = Site::at(Database::at(&server.url()), "").await;
    site.run("INSERT INTO thing VALUES ('a', NULL, 1)").await;
    let before = site.bounds().await;
    let dump = dump(&server, &site.db.schema);
    site.run("UPDATE thing SET v = 2; INSERT INTO thing VALUES ('b', NULL, 1)").await;
    site.bounds().await;
    site.run(&format!("DROP SCHEMA {} CASCADE", site.db.schema)).await;
    restore(&server, dump);
    let error = until("it is noticed", async || truth(&site.source).bounds().await.err()).await;
    assert!(error.hint_text().is_some_and(|hint| hint.contains("restart")), "{error:?}");
    let refused = site.commit(vec![site.put(json!({"id": "c"}))]).await.unwrap_err();
    assert!(refused.hint_text().is_some_and(|hint| hint.contains("restart")), "{refused:?}");
    let source = site.second().await;
    let bounds = truth(&source).bounds().await.unwrap();
    assert_ne!(bounds.log, before.log);
    assert!(log(&source).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_lacked_changes_is_noticed_and_one_that_did_not_is_not() {
    for is_behind in [true, false] {
        let mut first = Server::primary(5551).await;
        let mut second = first.standby(5552).await;
        let mut db = Database::at(&first.url());
        db.url = format!("postgresql://app@{},{}/postgres", first.address(), second.address());
        let site = Site::at(db, "").await;
        site.run("INSERT INTO thing VALUES ('a', NULL, 1)").await;
        let log = site.bounds().await.log;
        let caught_up = format!(
            "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn >= '{}'",
            site.db.see("SELECT pg_current_wal_lsn()").await[0]
        );
        until("the standby has it", async || {
            (site.db.see(&caught_up).await == ["1"]).then_some(())
        })
        .await;
        if is_behind {
            second.crash();
            site.run("UPDATE thing SET v = 2; INSERT INTO thing VALUES ('b', NULL, 1)").await;
            site.bounds().await;
            first.crash();
            second.start().await;
        } else {
            first.crash();
        }
        second.promote().await;
        let ask = async || match truth(&site.source).bounds().await {
            Ok(bounds) => Some(Ok(bounds)),
            Err(e) if e.hint_text().is_some_and(|hint| hint.contains("restart")) => Some(Err(e)),
            Err(_) => None,
        };
        let seen = until("the new primary is found", ask).await;
        let source = site.second().await;
        let bounds = truth(&source).bounds().await.unwrap();
        match is_behind {
            true => {
                assert_eq!(seen.unwrap_err().kind(), ErrorKind::Unavailable);
                assert_ne!(bounds.log, log);
                assert!(bounds.head >= Position::ZERO.next_generation());
            }
            false => {
                assert_eq!(seen.unwrap().log, log);
                assert_eq!(bounds.log, log, "nothing was lost");
            }
        }
    }
}
