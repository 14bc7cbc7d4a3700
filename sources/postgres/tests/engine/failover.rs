//! Several hosts in the URL: the writable one of the highest timeline is found, and a deposed one never used.

use std::sync::Arc;

use unisono_core::source::Source;
use unisono_core::write::Unit;
use unisono_core::{Effect, ErrorKind, Key, Role};
use unisono_testkit::Sample;

use crate::common::{Database, column, commit_one, get, once, prepare, put, until};
use crate::server::Server;

fn unit(number: u32) -> Unit {
    once(put(&Sample::product(), Sample::product_record(number)), &format!("write {number}"))
}

/// Commits a unit, again and again while nobody takes it, as an engine does; its position.
async fn commit_somewhere(source: &Arc<dyn Source>, number: u32) -> u64 {
    let truth = Arc::clone(source).truth().unwrap();
    let committed = until("a server takes the write", async || {
        let error = match truth.commit(vec![unit(number)]).await {
            Ok(mut results) => return Some(results.remove(0).unwrap()),
            Err(error) => error,
        };
        let kinds = [ErrorKind::Unavailable, ErrorKind::NotPrimary];
        assert!(kinds.contains(&error.kind()), "{error:?}");
        None
    });
    committed.await.changes[0].position.as_u64()
}

async fn holds(source: &Arc<dyn Source>, number: u32) -> bool {
    let key = Key::String(format!("p{number}").into());
    get(source, &Sample::product(), key).await.is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_primary_is_found_after_a_promotion_and_the_deposed_one_is_not_used() {
    let mut first = Server::primary(5546).await;
    let second = first.standby(5547).await;
    let hosts = format!("{},{}", second.address(), first.address());
    let mut db = Database::at(&first.url());
    db.url = format!("postgresql://app@{hosts}/postgres");
    let source = db.prepared(Role::Truth, &[&Sample::product()]).await;
    let probe = source.probe().await.unwrap().engine;
    assert!(probe.contains("primary 127.0.0.1:5546, timeline 1"), "{probe}");
    assert_eq!(commit_one(&source, unit(1)).await, 1);
    let replayed = format!(
        "SELECT pg_last_wal_replay_lsn() >= '{}'",
        column(&first.client().await, "SELECT pg_current_wal_lsn()").await[0]
    );
    let standby = second.client().await;
    until("the standby has everything", async || {
        (column(&standby, &replayed).await == ["t"]).then_some(())
    })
    .await;

    first.crash();
    let nobody = source.probe().await.unwrap_err();
    assert_eq!(nobody.kind(), ErrorKind::NotPrimary, "{nobody:?}");
    assert_eq!(nobody.effect_on_data(), Effect::None);
    assert!(nobody.hint_text().is_some_and(|h| h.contains("promoted")), "{nobody:?}");
    second.promote().await;
    assert_eq!(commit_somewhere(&source, 2).await, 2);
    assert!(holds(&source, 1).await && holds(&source, 2).await);
    let probe = source.probe().await.unwrap().engine;
    assert!(probe.contains("primary 127.0.0.1:5547, timeline 2"), "{probe}");

    // The old primary comes back and still believes that it takes writes.
    first.start().await;
    let fresh = db.prepared(Role::Truth, &[&Sample::product()]).await;
    assert_eq!(commit_somewhere(&fresh, 3).await, 3);
    assert_eq!(commit_somewhere(&source, 4).await, 4);
    drop(second);
    let deposed = source.probe().await.unwrap_err();
    assert_eq!(deposed.kind(), ErrorKind::NotPrimary, "{deposed:?}");
    let truth = Arc::clone(&source).truth().unwrap();
    until("the connection is noticed to be dead", async || {
        let error = truth.commit(vec![unit(5)]).await.expect_err("a deposed server took a write");
        (error.kind() == ErrorKind::NotPrimary).then_some(())
    })
    .await;
    let of_first = first.client().await;
    let sql = format!("SELECT max(position) FROM {}.unisono_log", db.schema);
    assert_eq!(column(&of_first, &sql).await, ["1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promotion_beside_a_primary_that_lives_is_noticed_by_the_next_probe() {
    let first = Server::primary(5544).await;
    let second = first.standby(5545).await;
    let mut db = Database::at(&first.url());
    db.url = format!("postgresql://app@{},{}/postgres", first.address(), second.address());
    let source = db.open().await;
    let entity = Sample::product();
    prepare(&source, Role::Truth, &[&entity]).await.unwrap();
    let standby = second.client().await;
    let sql = format!("SELECT to_regclass('{}.product') IS NOT NULL", db.schema);
    until("the standby has the table", async || {
        (column(&standby, &sql).await == ["t"]).then_some(())
    })
    .await;
    second.promote().await;
    source.probe().await.unwrap();
    assert_eq!(commit_somewhere(&source, 1).await, 1);
    let written = format!("SELECT count(*) FROM {}.product", db.schema);
    assert_eq!(column(&second.client().await, &written).await, ["1"]);
    assert_eq!(column(&first.client().await, &written).await, ["0"]);
    assert!(holds(&source, 1).await);
}
