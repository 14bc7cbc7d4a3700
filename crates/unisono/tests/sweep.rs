//! The sweep: what somebody does to a follower by hand is found and mended without anybody's asking, within bounds.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use unisono::core::write::{Action, Condition, Write};
use unisono::core::{Context, Key, json as record_json};
use unisono::engine::status::{DeliveryStatus, VerificationStatus};
use unisono::engine::verify::report::{Divergence, VerifyOptions};
use unisono::{Registry, Unisono, config};

const RECORDS: i64 = 1_500;

/// Records in one SQLite database and in another one.
async fn open(folder: &Path, sweep: &str) -> Unisono {
    let text = format!(
        r#"
        [sources]
        main = {{ kind = "sqlite", path = "main.db" }}
        copy = {{ kind = "sqlite", path = "copy.db" }}
        [sweep]
        every = "50ms"
        {sweep}
        [entities.item]
        truth = "main"
        fields = {{ id = "string", name = "string" }}
        followers = [{{ source = "copy" }}]
        "#
    );
    let parsed = config::parse(&text, "test.toml", &Registry::builtin(), &config::Process);
    let mut configuration = parsed.unwrap_or_else(|report| panic!("{report}"));
    configuration.data = folder.to_owned();
    let unisono = Unisono::open(configuration).await.unwrap();
    let entity = unisono.engine().entity("item").unwrap().clone();
    let writes = (0..RECORDS).map(|n| {
        let id = format!("i{n:04}");
        let record = record_json::parse(&entity, &json!({ "id": id, "name": "as it was" }));
        Write {
            entity: entity.clone(),
            key: Key::from_text(&id).unwrap(),
            action: Action::Put(record.unwrap()),
            condition: Condition::None,
        }
    });
    for written in unisono.engine().write_each(&Context::default(), writes.collect()).await {
        written.unwrap();
    }
    let has_everything = |d: &DeliveryStatus| d.lag_changes == 0;
    until(&unisono, has_everything).await;
    unisono
}

async fn until(unisono: &Unisono, holds: impl Fn(&DeliveryStatus) -> bool) {
    let waiting = async {
        while !holds(&unisono.engine().status().await.deliveries[0]) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(30), waiting).await.is_err() {
        panic!("{:?}", unisono.engine().status().await.deliveries[0]);
    }
}

/// A comparison that began after this one found something that satisfies a condition.
async fn until_found(unisono: &Unisono, holds: impl Fn(&BTreeMap<Divergence, u64>) -> bool) {
    let now = unisono.engine().runtime().now().plus(Duration::from_millis(20));
    let is_new = |v: &VerificationStatus| v.completed.is_some_and(|at| at > now);
    until(unisono, |d| d.verification.iter().any(|v| is_new(v) && holds(&v.different))).await;
}

fn by_hand(folder: &Path, sql: &str) -> usize {
    let connection = rusqlite::Connection::open(folder.join("copy.db")).unwrap();
    connection.busy_timeout(Duration::from_secs(10)).unwrap();
    connection.execute(sql, []).unwrap()
}

fn count(folder: &Path, condition: &str) -> i64 {
    let connection = rusqlite::Connection::open(folder.join("copy.db")).unwrap();
    let sql = format!("SELECT count(*) FROM item WHERE {condition}");
    connection.query_row(&sql, [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn what_is_missing_or_changed_is_mended_without_anybodys_asking() {
    let folder = tempfile::tempdir().unwrap();
    let unisono = open(folder.path(), "deep = \"1ms\"\nrate = 1000000").await;
    assert_eq!(by_hand(folder.path(), "DELETE FROM item WHERE id < 'i0003'"), 3);
    by_hand(folder.path(), "UPDATE item SET name = 'by hand' WHERE id = 'i0100'");
    until(&unisono, |_| count(folder.path(), "name = 'as it was'") == RECORDS).await;
    unisono.close().await.unwrap();
}

#[tokio::test]
async fn differences_are_only_told_where_that_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let unisono = open(folder.path(), "repair = \"report\"").await;
    by_hand(folder.path(), "DELETE FROM item WHERE id < 'i0003'");
    let missing = [(Divergence::Missing, 3)].into();
    until_found(&unisono, |different| *different == missing).await;
    until_found(&unisono, |different| *different == missing).await;
    assert_eq!(count(folder.path(), "TRUE"), RECORDS - 3);
    unisono.close().await.unwrap();
}

#[tokio::test]
async fn what_looks_like_a_mistake_of_the_whole_is_left_to_people() {
    let folder = tempfile::tempdir().unwrap();
    let unisono = open(folder.path(), "").await;
    by_hand(folder.path(), "DELETE FROM item WHERE id < 'i0020'");
    let missing = [(Divergence::Missing, 20)].into();
    until_found(&unisono, |different| *different == missing).await;
    until_found(&unisono, |different| *different == missing).await;
    let options = VerifyOptions { repair: true, ..VerifyOptions::default() };
    assert!(unisono.engine().verify(&options, &|_| {}).await.unwrap().agrees());
    assert_eq!(count(folder.path(), "TRUE"), RECORDS);
    unisono.close().await.unwrap();
}

#[tokio::test]
async fn a_version_that_the_truth_never_gave_is_outbid_only_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let unisono = open(folder.path(), "").await;
    by_hand(
        folder.path(),
        "UPDATE item SET unisono_version = 1400, name = 'by hand' WHERE id = 'i0007'",
    );
    let ahead = [(Divergence::Ahead, 1)].into();
    until_found(&unisono, |different| *different == ahead).await;
    assert_eq!(count(folder.path(), "name = 'by hand'"), 1);
    let options = VerifyOptions { repair: true, ..VerifyOptions::default() };
    let report = unisono.engine().verify(&options, &|_| {}).await.unwrap();
    assert!(report.agrees(), "{report:?}");
    assert_eq!(count(folder.path(), "name = 'as it was'"), RECORDS);
    // A record of the future is beyond what the truth could outbid.
    by_hand(folder.path(), "UPDATE item SET unisono_version = 9000000 WHERE id = 'i0008'");
    let report = unisono.engine().verify(&options, &|_| {}).await.unwrap();
    assert_eq!(report.comparisons[0].classes, [(Divergence::Ahead, 1)].into());
    assert!(!report.agrees());
    unisono.close().await.unwrap();
}

#[tokio::test]
async fn somebody_who_writes_there_again_and_again_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let unisono = open(folder.path(), "").await;
    for round in 1..=3 {
        by_hand(folder.path(), "DELETE FROM item WHERE id = 'i0005'");
        until(&unisono, |_| count(folder.path(), "id = 'i0005'") == 1).await;
        let often = unisono.engine().status().await.deliveries[0].repaired_often;
        assert_eq!(often, u64::from(round == 3), "after round {round}");
    }
    unisono.close().await.unwrap();
}
