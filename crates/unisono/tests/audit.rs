//! The audit trail: what is done to the system itself, and by whom, is in the log beside the changes of records.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::time::Duration;

use serde_json::{Value as Json, json};
use unisono::config::Configuration;
use unisono::core::write::{Action, Condition, Write};
use unisono::core::{Context, Key, LogName, Position, json as record_json};
use unisono::engine::Engine;
use unisono::engine::verify::report::{Depth, VerifyOptions};
use unisono::{Registry, Unisono, config};

fn configuration(folder: &Path, batch: u32) -> Configuration {
    let text = format!(
        r#"
        [sources]
        main = {{ kind = "sqlite", path = "main.db" }}
        copy = {{ kind = "sqlite", path = "copy.db" }}
        [sweep]
        every = "0s"
        [entities.item]
        truth = "main"
        fields = {{ id = "string", name = "string" }}
        followers = [{{ source = "copy", batch = {{ size = {batch} }} }}]
        "#
    );
    let parsed = config::parse(&text, "test.toml", &Registry::builtin(), &config::Process);
    let mut configuration = parsed.unwrap_or_else(|report| panic!("{report}"));
    configuration.data = folder.to_owned();
    configuration
}

/// The entries of the audit trail, in order, as callers of the log see them.
async fn entries(engine: &Engine) -> Vec<Json> {
    let log = LogName::of(&"main".into());
    let changes = engine.changes(&log, Position::ZERO, 10_000, Duration::ZERO).await.unwrap();
    let entries = changes.iter().filter(|change| *change.entity == *"unisono_audit");
    let json = |change| {
        let entity = engine.entity_of_log("unisono_audit").map(|entity| &**entity);
        record_json::change::to_json(entity, change)
    };
    entries.map(|change| json(change)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_repaired_and_reloaded_is_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let unisono = Unisono::open(configuration(folder.path(), 100)).await.unwrap();
    let engine = unisono.engine();
    let item = engine.entity("item").unwrap().clone();
    for id in ["a", "b", "c"] {
        let record = record_json::parse(&item, &json!({ "id": id, "name": "as it was" })).unwrap();
        let (key, action) = (Key::from_text(id).unwrap(), Action::Put(record));
        let entity = item.clone();
        let write = Write { entity, key, action, condition: Condition::None };
        engine.write(&Context::default(), vec![write]).await.unwrap();
    }
    let token = engine.head_token().await.unwrap();
    engine.wait_applied(&token, Duration::from_secs(30)).await.unwrap();
    let options = VerifyOptions { depth: Depth::Deep, repair: true, ..VerifyOptions::default() };
    engine.acting_for(Some("mia".into())).verify(&options, &|_| {}).await.unwrap();
    assert_eq!(entries(engine).await, Vec::<Json>::new(), "nothing was repaired");

    let database = rusqlite::Connection::open(folder.path().join("copy.db")).unwrap();
    let sql = "UPDATE item SET name = 'by hand' WHERE id = 'b'";
    assert_eq!(database.execute(sql, []).unwrap(), 1);
    drop(database);
    let mia = engine.acting_for(Some("mia".into()));
    assert!(mia.verify(&options, &|_| {}).await.unwrap().agrees());
    unisono.reload(configuration(folder.path(), 200)).await.unwrap();
    unisono.close().await.unwrap();

    // It is durable, and its place among the changes is that of its time.
    let unisono = Unisono::open(configuration(folder.path(), 200)).await.unwrap();
    let found = entries(unisono.engine()).await;
    let [repair, reload] = &found[..] else { panic!("{found:?}") };
    assert_eq!((&repair["actor"], &repair["record"]["action"]), (&json!("mia"), &json!("repair")));
    let about = &repair["record"];
    assert_eq!((&about["entity"], &about["source"]), (&json!("item"), &json!("copy")));
    assert_eq!(about["details"]["repaired"], 1);
    assert_eq!(about["details"]["records"], json!([{ "key": "b", "class": "corrupt" }]));
    assert_eq!(reload["record"]["action"], "reload");
    assert!(reload["record"]["details"].to_string().contains("batch"), "{reload}");
    unisono.close().await.unwrap();
}

/// What somebody has done to a dead letter is in the log before it is done, and that it failed as well.
#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_of_a_dead_letter_is_told_before() {
    let folder = tempfile::tempdir().unwrap();
    let unisono = Unisono::open(configuration(folder.path(), 100)).await.unwrap();
    let engine = unisono.engine();
    let database = rusqlite::Connection::open(folder.path().join("copy.db")).unwrap();
    let trigger = "CREATE TRIGGER no BEFORE INSERT ON item BEGIN SELECT RAISE(ABORT, 'no'); END";
    database.execute_batch(trigger).unwrap();
    let item = engine.entity("item").unwrap().clone();
    let record = record_json::parse(&item, &json!({ "id": "a", "name": "unwanted" })).unwrap();
    let (key, action) = (Key::from_text("a").unwrap(), Action::Put(record));
    let write = Write { entity: item, key, action, condition: Condition::None };
    engine.write(&Context::default(), vec![write]).await.unwrap();
    let mut letters = Vec::new();
    while letters.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
        letters = engine.dead_letters().await.unwrap();
    }
    let mia = engine.acting_for(Some("mia".into()));
    let told = async || -> Vec<Json> {
        entries(engine).await.into_iter().map(|mut entry| entry["record"].take()).collect()
    };
    // Nothing can be told to a follower that is left alone.
    mia.pause_source("copy").await.unwrap();
    mia.discard(&letters[0]).await.unwrap_err();
    mia.resume_source("copy").await.unwrap();
    mia.discard(&letters[0]).await.unwrap();
    let found = told().await;
    let actions: Vec<_> = found.iter().filter(|e| e["details"]["failed"].is_null()).collect();
    let actions: Vec<_> = actions.iter().map(|entry| entry["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["pause", "discard", "resume", "discard"], "at once: {found:?}");
    assert!(found.iter().all(|entry| entry["actor"] == "mia"), "{found:?}");
    unisono.close().await.unwrap();
    let unisono = Unisono::open(configuration(folder.path(), 100)).await.unwrap();
    let entries = entries(unisono.engine()).await;
    let failed = entries.iter().filter(|e| !e["record"]["details"]["failed"].is_null());
    let failed: Vec<_> = failed.map(|e| (&e["record"]["action"], &e["actor"])).collect();
    assert_eq!(failed, [(&json!("discard"), &json!("mia"))], "{entries:?}");
    unisono.close().await.unwrap();
}
