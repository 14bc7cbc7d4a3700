//! Connections that reads by key share: few for many callers, and none that nobody hears from any more.

use std::sync::Arc;
use std::time::Duration;

use unisono_core::Role;
use unisono_core::kind::OptionValue;
use unisono_core::query::Query;
use unisono_core::source::Source;
use unisono_testkit::Sample;

use crate::common::{Database, PATIENCE, background, commit_one, get, open, prepare, put, until};
use crate::proxy::{Network, Proxy};

/// One in four connections of the pool is shared.
const POOL: i64 = 8;
const SHARED: usize = 2;

/// A truth with the product p0, which was read often enough that there are all shared connections.
async fn warm(db: &Database, url: &str) -> Arc<dyn Source> {
    let mut options = db.options_at(url);
    options.0.insert("pool".into(), OptionValue::Integer(POOL));
    let source = open(&options).await.unwrap();
    let entity = Sample::product();
    prepare(&source, Role::Truth, &[&entity]).await.unwrap();
    commit_one(&source, put(&entity, Sample::product_record(0))).await;
    for _ in 0..2 * SHARED {
        assert!(get(&source, &entity, Sample::key("p0")).await.is_some());
    }
    source
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_share_few_connections_and_leave_the_others_to_questions() {
    let db = Database::new();
    let source = warm(&db, &db.url).await;
    let (entity, outside) = (Sample::product(), db.outside().await);
    outside.batch_execute("BEGIN; LOCK TABLE product").await.unwrap();
    let read = |n: usize| {
        let (source, entity) = (Arc::clone(&source), Arc::clone(&entity));
        background(async move { get(&source, &entity, Sample::key(["p0", "x"][n % 2])).await })
    };
    let readers: Vec<_> = (0..100).map(read).collect();
    let sql = format!(
        "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%{}%'",
        db.schema
    );
    until("all shared connections wait for the lock", async || {
        (db.see(&sql).await.len() == SHARED).then_some(())
    })
    .await;
    let reader = Arc::clone(&source).reader().unwrap();
    let (entity_of_list, everything) = (Arc::clone(&entity), Query::all());
    let list = background(async move { reader.query(&entity_of_list, &everything).await });
    until("a question has a connection of its own", async || {
        (db.see(&sql).await.len() == SHARED + 1).then_some(())
    })
    .await;
    outside.batch_execute("COMMIT").await.unwrap();
    for (n, reader) in readers.into_iter().enumerate() {
        assert_eq!(reader.await.unwrap().is_some(), n % 2 == 0, "each has its own answer");
    }
    assert_eq!(list.await.unwrap().unwrap().value.hits.len(), 1);
    db.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_its_callers_gave_up_on_is_replaced() {
    let db = Database::new();
    let proxy = Proxy::start(5541).await;
    let url = db.url.replace(":5541/", &format!(":{}/", proxy.port));
    let source = warm(&db, &url).await;
    let entity = Sample::product();
    proxy.set(Network::Dies);
    let patience = Duration::from_millis(1100);
    for _ in 0..SHARED {
        let read = get(&source, &entity, Sample::key("p0"));
        assert!(tokio::time::timeout(patience, read).await.is_err(), "nothing is heard");
    }
    // What is dead stays so: only connections that are made from now on are of use.
    proxy.set(Network::Whole);
    let again = async {
        for _ in 0..2 * SHARED {
            assert!(get(&source, &entity, Sample::key("p0")).await.is_some());
        }
    };
    let limit = PATIENCE / 2;
    assert!(tokio::time::timeout(limit, again).await.is_ok(), "before the request timeout");
    db.drop().await;
}
