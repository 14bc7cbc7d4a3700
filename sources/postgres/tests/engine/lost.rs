//! Connections that are lost in the middle of a commit: nobody knows, and whoever asks again is told.

use std::sync::Arc;

use unisono_core::query::Query;
use unisono_core::source::{Source, Truth};
use unisono_core::write::{Committed, Unit};
use unisono_core::{Effect, Error, ErrorKind, Result, Role};
use unisono_testkit::Sample;

use crate::common::{Database, background, commit_one, once, open, prepare, put, until};
use crate::proxy::{Network, Proxy};

/// A truth whose connections go through a proxy.
struct Fragile {
    db: Database,
    proxy: Proxy,
    source: Arc<dyn Source>,
}

impl Fragile {
    async fn new() -> Self {
        let db = Database::new();
        let proxy = Proxy::start(5541).await;
        let url = db.url.replace(":5541/", &format!(":{}/", proxy.port));
        let source = open(&db.options_at(&url)).await.unwrap();
        prepare(&source, Role::Truth, &[&Sample::product()]).await.unwrap();
        assert_eq!(commit_one(&source, Fragile::unit(0)).await, 1);
        Fragile { db, proxy, source }
    }

    fn unit(number: u32) -> Unit {
        let unit = put(&Sample::product(), Sample::product_record(number));
        once(unit, &format!("write {number}"))
    }

    fn truth(&self) -> Arc<dyn Truth> {
        Arc::clone(&self.source).truth().unwrap()
    }

    async fn again(&self) -> Committed {
        self.truth().commit(vec![Fragile::unit(1)]).await.unwrap().remove(0).unwrap()
    }

    /// Commits while the head of the log is locked from outside; does something meanwhile, then lets go of the lock if
    /// that has not.
    async fn held_up(&self, meanwhile: impl AsyncFnOnce(&tokio_postgres::Client)) -> Error {
        let outside = self.db.outside().await;
        outside.batch_execute("BEGIN; SELECT FROM unisono_head FOR UPDATE").await.unwrap();
        let truth = self.truth();
        let task = background(async move { truth.commit(vec![Fragile::unit(1)]).await });
        self.waits(1).await;
        meanwhile(&outside).await;
        let result: Result<_> = task.await.unwrap();
        result.expect_err("the connection was lost")
    }

    /// Until so many statements wait for the lock.
    async fn waits(&self, count: usize) {
        let sql = format!(
            "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%{}%'",
            self.db.schema
        );
        until("a commit waits for the lock", async || {
            (self.db.see(&sql).await.len() == count).then_some(())
        })
        .await;
    }

    async fn positions(&self) -> Vec<String> {
        self.db.see("SELECT position FROM unisono_log ORDER BY position").await
    }
}

fn check_unknown(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert_eq!(error.effect_on_data(), Effect::Unknown, "{error:?}");
    assert_eq!(error.source_name(), Some("tested"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_was_lost_is_not_repeated() {
    let site = Fragile::new().await;
    let error = site.held_up(async |outside| {
        site.proxy.set(Network::LosesAnswers);
        outside.batch_execute("ROLLBACK").await.unwrap();
    });
    check_unknown(&error.await);
    site.proxy.set(Network::Whole);
    let committed = site.again().await;
    assert!(committed.replayed, "it had taken place");
    assert_eq!(committed.changes[0].position.as_u64(), 2);
    assert_eq!(site.positions().await, ["1", "2"]);
    site.db.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_takes_place_after_its_connection_was_lost_is_not_repeated() {
    let site = Fragile::new().await;
    let error = site.held_up(async |outside| {
        site.proxy.cut();
        // The retry is under way before the first attempt has taken place.
        let truth = site.truth();
        let retry = background(async move { truth.commit(vec![Fragile::unit(1)]).await });
        site.waits(2).await;
        outside.batch_execute("ROLLBACK").await.unwrap();
        let committed = retry.await.unwrap().unwrap().remove(0).unwrap();
        assert!(committed.replayed, "the first attempt came first");
        assert_eq!(committed.changes[0].position.as_u64(), 2);
    });
    check_unknown(&error.await);
    assert_eq!(site.positions().await, ["1", "2"]);
    site.db.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_was_ended_at_the_server_takes_place_when_it_is_repeated() {
    let site = Fragile::new().await;
    let error = site.held_up(async |outside| {
        let sql = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%{}%'",
            site.db.schema
        );
        outside.batch_execute(&format!("{sql}; ROLLBACK")).await.unwrap();
    });
    check_unknown(&error.await);
    let committed = site.again().await;
    assert!(!committed.replayed, "it had not taken place");
    assert_eq!(site.positions().await, ["1", "2"]);
    site.db.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_goes_away_leaves_no_half_of_a_commit() {
    let site = Fragile::new().await;
    let outside = site.db.outside().await;
    outside.batch_execute("BEGIN; SELECT FROM unisono_head FOR UPDATE").await.unwrap();
    let truth = site.truth();
    let task = background(async move { truth.commit(vec![Fragile::unit(1)]).await });
    site.waits(1).await;
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    let truth = site.truth();
    let next = background(async move { truth.commit(vec![Fragile::unit(2)]).await });
    site.waits(2).await;
    outside.batch_execute("ROLLBACK").await.unwrap();
    let committed = next.await.unwrap().unwrap().remove(0).unwrap();
    assert_eq!(committed.changes[0].position.as_u64(), 3, "both have taken place, in order");
    assert!(site.again().await.replayed);
    assert_eq!(site.positions().await, ["1", "2", "3"]);
    site.db.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_died_while_idle_are_not_noticed() {
    let site = Fragile::new().await;
    let reader = Arc::clone(&site.source).reader().unwrap();
    for number in 1..4 {
        site.proxy.cut();
        let found = reader.get(&Sample::product(), &[Sample::key("p0")]).await.unwrap();
        assert!(found.value[0].is_some(), "a read right after");
        assert_eq!(commit_one(&site.source, Fragile::unit(number)).await, u64::from(number) + 1);
    }
    site.db.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_cannot_be_reached_any_more_holds_up_nobody() {
    let site = Fragile::new().await;
    let reader = Arc::clone(&site.source).reader().unwrap();
    let (entity, query) = (Sample::product(), Query::all());
    let ask = || reader.query(&entity, &query);
    assert_eq!(ask().await.unwrap().value.hits.len(), 1);
    site.proxy.set(Network::Dies);
    let error = ask().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let outside = site.db.outside().await;
    let drop = format!("SET lock_timeout = '40s'; DROP SCHEMA {} CASCADE", site.db.schema);
    outside.batch_execute(&drop).await.unwrap();
}
