//! Streaming replicas answer queries when they have what the primary has; nobody can tell otherwise.

use std::sync::Arc;

use unisono_core::Role;
use unisono_core::kind::OptionValue;
use unisono_core::query::{Filter, Query};
use unisono_core::source::Source;
use unisono_testkit::Sample;

use crate::common::{Database, column, commit_one, open, prepare, put, until};
use crate::server::Server;

async fn with_replica(db: &Database, replica: &str) -> Arc<dyn Source> {
    let mut options = db.options();
    options.0.insert("replicas".into(), OptionValue::List(vec![replica.to_owned()]));
    let source = open(&options).await.unwrap();
    prepare(&source, Role::Truth, &[&Sample::product()]).await.unwrap();
    source
}

/// Counts after every write; the answer must have it, and say so.
async fn counts_its_writes(source: &Arc<dyn Source>, numbers: std::ops::Range<u32>) {
    let entity = Sample::product();
    let reader = Arc::clone(source).reader().unwrap();
    for number in numbers {
        let position = commit_one(source, put(&entity, Sample::product_record(number))).await;
        let counted = reader.count(&entity, &Filter::All, None).await.unwrap();
        assert_eq!(counted.value, u64::from(number) + 1);
        assert!(counted.position.as_u64() >= position, "an answer from before the write");
        let page = reader.query(&entity, &Query { limit: 1000, ..Query::all() }).await.unwrap();
        assert_eq!(page.value.hits.len() as u64, counted.value);
    }
}

/// The last statement that a source's connections have begun on a server.
async fn last_statement(server: &Server) -> String {
    let sql = "SELECT query FROM pg_stat_activity WHERE application_name = 'unisono' ORDER BY query_start DESC LIMIT 1";
    column(&server.client().await, sql).await.join("")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_answers_what_it_has_and_the_primary_the_rest() {
    let primary = Server::primary(5548).await;
    let mut replica = primary.standby(5549).await;
    let db = Database::at(&primary.url());
    let source = with_replica(&db, &replica.url()).await;
    let (of_primary, of_replica) = (primary.client().await, replica.client().await);
    counts_its_writes(&source, 0..20).await;

    // It has everything now: the primary is asked for its position alone.
    let there = column(&of_primary, "SELECT pg_current_wal_lsn()").await.remove(0);
    let has_all = format!("SELECT pg_last_wal_replay_lsn() >= '{there}'");
    until("the replica has everything", async || {
        (column(&of_replica, &has_all).await == ["t"]).then_some(())
    })
    .await;
    let reader = Arc::clone(&source).reader().unwrap();
    let count = async || reader.count(&Sample::product(), &Filter::All, None).await.unwrap().value;
    until("the replica is asked", async || {
        assert_eq!(count().await, 20);
        let head = last_statement(&primary).await.contains("unisono_head");
        (head && last_statement(&replica).await == "COMMIT").then_some(())
    })
    .await;
    let probe = source.probe().await.unwrap().engine;
    for part in ["primary 127.0.0.1:5548, timeline 1", "replica 127.0.0.1:5549: replayed 0/"] {
        assert!(probe.contains(part), "{probe}");
    }
    assert!(probe.contains("of timeline 1"), "{probe}");

    // What it does not replay it must not be asked for.
    column(&of_replica, "SELECT pg_wal_replay_pause()").await;
    counts_its_writes(&source, 20..25).await;
    column(&of_replica, "SELECT pg_wal_replay_resume()").await;

    replica.crash();
    counts_its_writes(&source, 25..30).await;
    let probe = source.probe().await.unwrap().engine;
    assert!(probe.contains("replica 127.0.0.1:5549: the server cannot be reached"), "{probe}");

    // Once promoted, it has a history of its own, however far that has come.
    replica.start().await;
    let asked = async || last_statement(&replica).await == "COMMIT";
    until("the replica is asked again", async || {
        assert_eq!(count().await, 30);
        asked().await.then_some(())
    })
    .await;
    replica.promote().await;
    let sql =
        format!("UPDATE {0}.unisono_head SET position = 1000; DELETE FROM {0}.product", db.schema);
    replica.client().await.batch_execute(&sql).await.unwrap();
    counts_its_writes(&source, 30..35).await;
    let probe = source.probe().await.unwrap().engine;
    assert!(probe.contains("no replica: it takes writes"), "{probe}");
}
