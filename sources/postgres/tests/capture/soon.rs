//! How soon a commit of another program is in the log, when the truth is asked as often as it wants to be.

use std::time::Duration;

use tokio::time::Instant;
use unisono_core::Operation::Put;
use unisono_core::Role;

use crate::common::{background, prepare};
use crate::site::{Site, thing};

/// Prints what it measures; a machine that is busy with other things must not fail it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_of_others_is_seen_soon() {
    let site = Site::new("").await;
    let every = site.truth().poll_every();
    assert!(every <= Duration::from_millis(20), "{every:?}");
    let truth = site.truth();
    let (seen, mut heads) = tokio::sync::watch::channel(site.bounds().await.head);
    let polling = background(async move {
        loop {
            tokio::time::sleep(truth.poll_every()).await;
            seen.send_replace(truth.bounds().await.unwrap().head);
        }
    });
    let other = site.other().await;
    let mut took = Vec::new();
    for n in 0..100 {
        let before = *heads.borrow();
        other.batch_execute(&format!("INSERT INTO thing VALUES ('{n}', NULL, {n})")).await.unwrap();
        let watch = Instant::now();
        heads.wait_for(|head| *head > before).await.unwrap();
        took.push(watch.elapsed());
    }
    polling.abort();
    took.sort();
    println!("commit of others -> in the log: p50 {:?}, p99 {:?}", took[50], took[98]);
    site.run("INSERT INTO thing SELECT 'bulk' || n, NULL, n FROM generate_series(1, 50000) n")
        .await;
    let watch = Instant::now();
    while site.bounds().await.head.as_u64() < 50_101 {}
    println!("sequenced: {:.0} records/s", 50_000.0 / watch.elapsed().as_secs_f64());
    assert_eq!(site.told_of("bulk7").await, [(Put, Some(7))]);
    site.db.drop().await;
}

#[tokio::test]
async fn a_truth_without_captured_tables_is_asked_seldom() {
    let db = crate::common::Database::new();
    let source = db.open().await;
    prepare(&source, Role::Truth, &[&thing()]).await.unwrap();
    assert_eq!(crate::site::truth(&source).poll_every(), Duration::from_secs(1));
    db.drop().await;
}
