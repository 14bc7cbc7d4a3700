//! What other programs read of a cache: the record's JSON at a key of the user's choice, never older than the entry.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use serde_json::{Value as Json, json};
use unisono_core::source::{Cache, Entry, Filled, Source};
use unisono_core::{Change, ErrorKind, Position, Role};
use unisono_testkit::{Changes, LOG, Sample};

use crate::common::{Server, ask, at, binding, now, open};
use crate::schedule::{at_position, run};

const SHOWN: [(&str, &str); 2] = [("format", "json"), ("key_template", "goods:{id}")];

async fn showing(server: &Server) -> Arc<dyn Source> {
    let source = open(&at(&server.url())).await.unwrap();
    source.prepare(&[binding(&Sample::product(), Role::Cache, &SHOWN)]).await.unwrap();
    source
}

/// An entry as a reader offers it that finds the state after a change.
fn entry(change: &Change) -> Entry {
    Entry {
        stored: change.stored().map(Arc::new),
        version: change.position,
        filled: now(),
        expires: now().plus(Duration::from_secs(60)),
    }
}

/// What another program reads at a key.
async fn read(client: &mut MultiplexedConnection, key: &str) -> Option<Json> {
    let text: Option<String> = ask(client, &[b"GET", key.as_bytes()]).await;
    text.map(|text| serde_json::from_str(&text).unwrap())
}

#[tokio::test]
async fn anybody_reads_what_is_cached_as_json() {
    let server = Server::start(&[]).await;
    let (entity, mut client) = (Sample::product(), server.client().await);
    let cache = showing(&server).await.cache().unwrap();
    let epoch = cache.restart(&entity, LOG, Position::ZERO).await.unwrap();
    let mut changes = Changes::new();
    let put = |changes: &mut Changes, stock: i32| {
        let json = json!({"id": "42", "name": "chair", "price": "9.50", "stock": stock});
        changes.put(&entity, Sample::record(&entity, &json))
    };
    let follow = async |change: Arc<Change>| {
        let (to, expires) = (change.position, now().plus(Duration::from_secs(60)));
        let from = at_position(to.as_u64() as usize - 1);
        cache.follow(&entity, &[change], from, to, expires).await.unwrap();
    };
    let fill = async |change: &Change| {
        let (key, read) = (&change.key, change.position);
        cache.fill(&entity, key, entry(change), read, epoch).await.unwrap()
    };

    let first = put(&mut changes, 1);
    follow(Arc::clone(&first)).await;
    assert_eq!(read(&mut client, "goods:42").await, None, "nobody has asked for it yet");
    assert_eq!(fill(&first).await, Filled::Stored);
    let shown = read(&mut client, "goods:42").await.unwrap();
    assert_eq!((&shown["price"], &shown["stock"]), (&json!("9.50"), &json!(1)));
    let left: i64 = ask(&mut client, &[b"PTTL", b"goods:42"]).await;
    assert!((50_000..=60_000).contains(&left), "{left}");

    // What somebody does to it never comes back into an answer.
    let _: String = ask(&mut client, &[b"SET", b"goods:42", b"{}"]).await;
    let found = cache.lookup(&entity, &first.key, now()).await.unwrap().entry.unwrap();
    assert_eq!(found.stored.unwrap().record, first.image.clone().unwrap());

    follow(put(&mut changes, 2)).await;
    assert_eq!(read(&mut client, "goods:42").await.unwrap()["stock"], 2, "an update is shown");
    assert_eq!(fill(&first).await, Filled::Outdated);
    assert_eq!(read(&mut client, "goods:42").await.unwrap()["stock"], 2, "a late fill is not");

    let gone = changes.delete(&entity, &first.key);
    follow(Arc::clone(&gone)).await;
    assert_eq!(read(&mut client, "goods:42").await, None, "a deleted record is not there");
    fill(&gone).await;
    assert_eq!(read(&mut client, "goods:42").await, None, "nor is the knowledge of its absence");

    // What is shown must not outlive its entry unnoticed.
    let again = put(&mut changes, 3);
    follow(Arc::clone(&again)).await;
    fill(&again).await;
    let entries: Vec<Vec<u8>> = ask(&mut client, &[b"KEYS", b"*:=42"]).await;
    let _: i64 = ask(&mut client, &[b"DEL", &entries[0]]).await;
    assert_eq!(read(&mut client, "goods:42").await.unwrap()["stock"], 3);
    follow(put(&mut changes, 4)).await;
    assert_eq!(read(&mut client, "goods:42").await, None, "its entry was evicted");
}

#[tokio::test]
async fn the_protocol_holds_for_a_cache_that_is_shown() {
    let server = Server::start(&[]).await;
    let mut caches: Vec<Arc<dyn Cache>> = Vec::new();
    for _ in 0..2 {
        caches.push(showing(&server).await.cache().unwrap());
    }
    let client = server.client().await;
    for seed in 0..200 {
        if let Err(wrong) = run(&client, &caches, seed, false).await {
            panic!("seed {seed}: {wrong}");
        }
    }
}

#[tokio::test]
async fn keys_that_a_follower_could_claim_are_refused() {
    let server = Server::start(&[]).await;
    let source = showing(&server).await;
    for (entity, template) in [(Sample::order(), "goods:{id}"), (Sample::product(), "goods:{id}")] {
        let follower = binding(&entity, Role::Follower, &[("key_template", template)]);
        let error = source.prepare(&[follower]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    }
    source.prepare(&[binding(&Sample::product(), Role::Follower, &[])]).await.unwrap();
}
