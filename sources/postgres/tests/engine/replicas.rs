//! Streaming replicas answer queries when they have what the primary has; nobody can tell otherwise.

use std::sync::Arc;

use unisono_core::kind::OptionValue;
use unisono_core::query::{Filter, Page, Query};
use unisono_core::source::{At, Source};
use unisono_core::{ErrorKind, Position, Result, Role};
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

fn position(number: u64) -> Position {
    Position::new(number).unwrap()
}

/// Everything there is up to a position: from a replica that has it, else from the primary; and whether a replica answered.
async fn list(source: &Arc<dyn Source>, at_least: u64) -> (At<Page>, bool) {
    let (entity, all) = (Sample::product(), Query { limit: 1000, ..Query::all() });
    let replicas = Arc::clone(source).replicas(position(at_least)).unwrap();
    let answered = replicas.query(&entity, &all).await;
    let counted = replicas.count(&entity, &Filter::All, None).await;
    match (answered, counted) {
        (Ok(page), Ok(count)) => {
            assert_eq!(page.value.hits.len() as u64, count.value);
            (page, true)
        }
        (Err(error), _) | (_, Err(error)) => {
            assert_eq!(error.kind(), ErrorKind::TooStale, "{error}");
            let reader = Arc::clone(source).reader().unwrap();
            (reader.query(&entity, &all).await.unwrap(), false)
        }
    }
}

/// Lists after every write; the answer must have it, and say so.
async fn lists_its_writes(source: &Arc<dyn Source>, numbers: std::ops::Range<u32>) {
    let entity = Sample::product();
    for number in numbers {
        let position = commit_one(source, put(&entity, Sample::product_record(number))).await;
        let (page, _) = list(source, position).await;
        assert_eq!(page.value.hits.len(), number as usize + 1);
        assert!(page.position.as_u64() >= position, "an answer from before the write");
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
    lists_its_writes(&source, 0..20).await;

    // It has everything now: the primary is asked for nothing.
    let there = column(&of_primary, "SELECT pg_current_wal_lsn()").await.remove(0);
    let has_all = format!("SELECT pg_last_wal_replay_lsn() >= '{there}'");
    until("the replica has everything", async || {
        (column(&of_replica, &has_all).await == ["t"]).then_some(())
    })
    .await;
    let before = last_statement(&primary).await;
    until("the replica is asked", async || {
        let (page, of_replica) = list(&source, 20).await;
        assert_eq!(page.value.hits.len(), 20);
        let is_asked = last_statement(&replica).await.contains("count(*)");
        (of_replica && is_asked).then_some(())
    })
    .await;
    assert_eq!(last_statement(&primary).await, before);
    let probe = source.probe().await.unwrap().engine;
    for part in ["primary 127.0.0.1:5548, timeline 1", "replica 127.0.0.1:5549: replayed 0/"] {
        assert!(probe.contains(part), "{probe}");
    }
    assert!(probe.contains("of timeline 1"), "{probe}");

    // What it does not replay it must not be asked for.
    column(&of_replica, "SELECT pg_wal_replay_pause()").await;
    lists_its_writes(&source, 20..25).await;
    column(&of_replica, "SELECT pg_wal_replay_resume()").await;

    replica.crash();
    lists_its_writes(&source, 25..30).await;
    let probe = source.probe().await.unwrap().engine;
    assert!(probe.contains("replica 127.0.0.1:5549: the server cannot be reached"), "{probe}");

    // Once promoted, it has a history of its own, however far that has come.
    replica.start().await;
    until("the replica is asked again", async || {
        let (page, of_replica) = list(&source, 30).await;
        assert_eq!(page.value.hits.len(), 30);
        of_replica.then_some(())
    })
    .await;
    replica.promote().await;
    let sql =
        format!("UPDATE {0}.unisono_head SET position = 1000; DELETE FROM {0}.product", db.schema);
    replica.client().await.batch_execute(&sql).await.unwrap();
    lists_its_writes(&source, 30..35).await;
    let probe = source.probe().await.unwrap().engine;
    assert!(probe.contains("no replica: it takes writes"), "{probe}");
}

/// Nobody can say what the primary had last, so that only an answer of whatever moment is to be had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_primary_is_away_a_replica_answers_as_of_its_own_position() {
    let mut primary = Server::primary(5556).await;
    let replica = primary.standby(5557).await;
    let db = Database::at(&primary.url());
    let source = with_replica(&db, &replica.url()).await;
    let entity = Sample::product();
    lists_its_writes(&source, 0..3).await;
    until("the replica has everything", async || list(&source, 3).await.1.then_some(())).await;
    primary.crash();

    let all = Query::all();
    let of = |at_least| Arc::clone(&source).replicas(position(at_least)).unwrap();
    let failed = of(4).query(&entity, &all).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::TooStale, "{failed}");
    let page = of(0).query(&entity, &all).await.unwrap();
    assert_eq!((page.value.hits.len(), page.position.as_u64()), (3, 3));
    let keys = [Sample::key("p1"), Sample::key("none")];
    let found: Result<_> = of(0).get(&entity, &keys).await;
    let At { value, position } = found.unwrap();
    assert_eq!(value[0].as_ref().map(|s| s.version.as_u64()), Some(2));
    assert_eq!((value[1].is_none(), position.as_u64()), (true, 3));
}
