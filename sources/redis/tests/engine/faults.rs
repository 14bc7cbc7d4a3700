//! Errors that name their remedy, and servers that are killed, paused, emptied or restored.

use std::sync::Arc;
use std::time::Duration;

use unisono_core::source::Outcome;
use unisono_core::{Effect, ErrorKind, Role};
use unisono_testkit::{Changes, LOG, Sample};

use crate::common::{
    Server, ask, at, batch, binding, checkpoint, engine, following, impatient, open, until, with,
    with_url,
};

#[tokio::test]
async fn every_way_not_to_get_in_has_its_own_error() {
    let good = || impatient(engine("source.toml"));
    let system = || {
        let mut options = good();
        options.0.remove("tls_ca");
        options
    };
    let unknown = with_url(good(), "127.0.0.1", "no-such-host.invalid");
    for (options, message, hint) in [
        (
            with_url(good(), "app-secret", "wrong-secret"),
            "refuses the user or the password",
            "ACL LIST",
        ),
        (with_url(good(), "app:", "unknown:"), "refuses the user or the password", "ACL LIST"),
        (with_url(good(), "app:app-secret@", ""), "refuses the user or the password", "ACL LIST"),
        (system(), "certificate is not trusted", "tls_ca"),
        (with_url(good(), ":6391", ":1"), "cannot be reached", "host and port"),
        (unknown, "cannot be reached", "host and port"),
        (with_url(good(), "rediss:", "redis:"), "closed the connection", "rediss://"),
    ] {
        let Err(error) = open(&options).await else { panic!("{message}: it was opened") };
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(error.message().contains(message), "{message}: {error:?}");
        assert!(error.hint_text().is_some_and(|h| h.contains(hint)), "{hint}: {error:?}");
        assert_eq!(error.source_name(), Some("tested"));
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }
    let Err(error) = open(&with(good(), "tls_ca", "/nowhere")).await else { panic!("opened") };
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error:?}");
    let plain = Server::start(&[]).await;
    let url = plain.url().replace("redis:", "rediss:");
    let options = impatient(with(at(&url), "tls_ca", good().text("tls_ca").unwrap()));
    let Err(error) = open(&options).await else { panic!("opened") };
    assert_eq!(error.kind(), ErrorKind::Unavailable, "TLS to a port without: {error:?}");
}

#[tokio::test]
async fn a_user_without_rights_is_told_what_is_missing() {
    let options = with_url(engine("source.toml"), "app:app-secret", "nobody:nobody-secret");
    let source = open(&options).await.unwrap();
    let entity = Sample::product();
    let error = source.prepare(&[binding(&entity, Role::Follower, &[])]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.hint_text().is_some_and(|h| h.contains("ACL SETUSER")), "{error:?}");
    let cache = source.cache().unwrap();
    let error =
        cache.restart(&entity, LOG, checkpoint(&Changes::new(), 0).position).await.unwrap_err();
    assert!(error.message().contains("lacks rights"), "{error:?}");
}

#[tokio::test]
async fn a_server_that_forgets_is_no_follower() {
    let server =
        Server::start(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]).await;
    let source = open(&at(&server.url())).await.unwrap();
    let entity = Sample::product();
    let (follow, cache) =
        (binding(&entity, Role::Follower, &[]), binding(&entity, Role::Cache, &[]));
    let error = source.prepare(std::slice::from_ref(&follow)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.hint_text().is_some_and(|h| h.contains("noeviction")), "{error:?}");
    let notes = source.prepare(std::slice::from_ref(&cache)).await.unwrap();
    assert!(notes.iter().any(|n| n.contains("volatile-lru")), "{notes:?}");
    let mut client = server.client().await;
    let set: [&[u8]; 4] = [b"CONFIG", b"SET", b"maxmemory-policy", b"volatile-lru"];
    let _: String = ask(&mut client, &set).await;
    let notes = source.prepare(&[follow, cache]).await.unwrap();
    assert!(notes.iter().any(|n| n.contains("append-only")), "{notes:?}");
    source.probe().await.unwrap();
    let set: [&[u8]; 4] = [b"CONFIG", b"SET", b"maxmemory-policy", b"allkeys-random"];
    let _: String = ask(&mut client, &set).await;
    assert_eq!(source.probe().await.unwrap_err().kind(), ErrorKind::InvalidConfig);
}

#[tokio::test]
async fn a_full_memory_refuses_a_batch_as_a_whole() {
    let server = Server::start(&["--maxmemory-policy", "noeviction"]).await;
    let entity = Sample::product();
    let source = following(&at(&server.url()), &entity).await;
    let follower = source.clone().follower().unwrap();
    let mut changes = Changes::new();
    let first = changes.put(&entity, Sample::product_record(1));
    follower.apply(batch(&entity, &changes, &[first], 0, 1)).await.unwrap();
    let mut client = server.client().await;
    let _: String = ask(&mut client, &[b"CONFIG", b"SET", b"maxmemory", b"1"]).await;
    let deleted = changes.delete(&entity, &Sample::key("p1"));
    let second = changes.put(&entity, Sample::product_record(2));
    let next = batch(&entity, &changes, &[deleted, second], 1, 3);
    let error = follower.apply(next.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("memory is full"), "{error:?}");
    let reader = source.clone().reader().unwrap();
    let found = reader.get(&entity, &[Sample::key("p1")]).await.unwrap();
    assert!(found.value[0].is_some() && found.position.as_u64() == 1, "half of a batch was done");
    let _: String = ask(&mut client, &[b"CONFIG", b"SET", b"maxmemory", b"0"]).await;
    assert!(follower.apply(next).await.unwrap().advanced);
}

#[tokio::test]
async fn a_server_that_was_killed_is_used_again() {
    let mut server = Server::start(&["--appendonly", "yes", "--appendfsync", "always"]).await;
    let entity = Sample::product();
    let source = following(&impatient(at(&server.url())), &entity).await;
    let follower = source.clone().follower().unwrap();
    let mut changes = Changes::new();
    let first = changes.put(&entity, Sample::product_record(1));
    follower.apply(batch(&entity, &changes, &[first], 0, 1)).await.unwrap();
    server.kill();
    let second = changes.put(&entity, Sample::product_record(2));
    let next = batch(&entity, &changes, &[second], 1, 2);
    for _ in 0..3 {
        let error = follower.apply(next.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert_eq!(source.probe().await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    server.again().await;
    until("the source is back", || async { source.probe().await.is_ok() }).await;
    assert_eq!(follower.checkpoint(&entity).await.unwrap(), Some(checkpoint(&changes, 1)));
    assert!(follower.apply(next).await.unwrap().advanced, "without opening it again");
}

#[tokio::test]
async fn a_paused_server_holds_nobody_up() {
    let server = Server::start(&[]).await;
    let entity = Sample::product();
    let source = following(&impatient(at(&server.url())), &entity).await;
    let follower = source.clone().follower().unwrap();
    let reader = source.clone().reader().unwrap();
    let mut changes = Changes::new();
    let first = changes.put(&entity, Sample::product_record(1));
    follower.apply(batch(&entity, &changes, &[first], 0, 1)).await.unwrap();
    server.signal("STOP");
    let second = changes.put(&entity, Sample::product_record(2));
    let next = batch(&entity, &changes, &[second], 1, 2);
    let keys = [Sample::key("p1")];
    let reads = futures::future::join_all((0..50).map(|_| reader.get(&entity, &keys)));
    let calls = futures::future::join(reads, follower.apply(next.clone()));
    // Far more than the timeouts of the source, far less than fifty of them one after the other.
    let calls = tokio::time::timeout(Duration::from_secs(15), calls).await;
    let (reads, applied) = calls.expect("callers are held up");
    assert!(reads.iter().all(|r| r.is_err()));
    let error = applied.unwrap_err();
    assert_eq!((error.kind(), error.effect_on_data()), (ErrorKind::Timeout, Effect::Unknown));
    server.signal("CONT");
    until("the source is back", || async { source.probe().await.is_ok() }).await;
    // What was sent before the pause may have been carried out since: to repeat it is safe.
    let stored = follower.checkpoint(&entity).await.unwrap();
    if stored == Some(checkpoint(&changes, 1)) {
        follower.apply(next).await.unwrap();
    }
    assert_eq!(follower.checkpoint(&entity).await.unwrap(), Some(checkpoint(&changes, 2)));
    assert!(reader.get(&entity, &[Sample::key("p2")]).await.unwrap().value[0].is_some());
}

#[tokio::test]
async fn a_restored_copy_resumes_where_it_was() {
    let mut server = Server::start(&[]).await;
    let entity = Sample::product();
    let source = following(&at(&server.url()), &entity).await;
    let follower = source.clone().follower().unwrap();
    let mut changes = Changes::new();
    let all: Vec<_> = (0..6).map(|n| changes.put(&entity, Sample::product_record(n))).collect();
    follower.apply(batch(&entity, &changes, &all[..3], 0, 3)).await.unwrap();
    let mut client = server.client().await;
    let _: String = ask(&mut client, &[b"SAVE"]).await;
    follower.apply(batch(&entity, &changes, &all[3..], 3, 6)).await.unwrap();
    server.kill();
    server.again().await;
    until("the source is back", || async { source.probe().await.is_ok() }).await;
    assert_eq!(follower.checkpoint(&entity).await.unwrap(), Some(checkpoint(&changes, 3)));
    let late = follower.apply(batch(&entity, &changes, &[], 6, 6)).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::CheckpointMoved);
    let applied = follower.apply(batch(&entity, &changes, &all[3..], 3, 6)).await.unwrap();
    assert!(applied.outcomes.iter().all(|o| matches!(o, Outcome::Applied)));
    let page = source.clone().auditor().unwrap().scan(&entity, None, 10).await.unwrap();
    assert_eq!((page.value.records.len(), page.position.as_u64()), (6, 6));
}

#[tokio::test]
async fn emptying_that_was_interrupted_is_finished() {
    let server = Server::start(&[]).await;
    let entity = Sample::product();
    let source = following(&at(&server.url()), &entity).await;
    let follower = source.clone().follower().unwrap();
    let mut changes = Changes::new();
    let all: Vec<_> = (0..1500).map(|n| changes.put(&entity, Sample::product_record(n))).collect();
    follower.apply(batch(&entity, &changes, &all, 0, 1500)).await.unwrap();
    let mut client = server.client().await;
    let ledger: &[u8] = b"unisono:{product.0}:ledger";
    // As a process leaves it that ended after its first step.
    let _: i64 = ask(&mut client, &[b"HSET", ledger, b"", b"emptying:somebody"]).await;
    assert_eq!(follower.checkpoint(&entity).await.unwrap(), None);
    let again: Vec<_> = all[..1].iter().map(Arc::clone).collect();
    follower.apply(batch(&entity, &changes, &again, 0, 1)).await.unwrap();
    let page = source.clone().auditor().unwrap().scan(&entity, None, 10).await.unwrap();
    assert_eq!(page.value.records.len(), 1, "what was left must be gone");
    follower.reset(&entity).await.unwrap();
    let keys: Vec<String> = ask(&mut client, &[b"KEYS", b"*"]).await;
    assert_eq!(keys, ["unisono:{product.0}:schema"], "a reset leaves nothing but the declaration");
}

/// An emptying that was overtaken, by another one or by a follower that was filled again, removes nothing more.
#[tokio::test]
async fn a_late_step_of_an_emptying_does_nothing() {
    let server = Server::start(&[]).await;
    let entity = Sample::product();
    let source = following(&at(&server.url()), &entity).await;
    let follower = source.clone().follower().unwrap();
    let mut changes = Changes::new();
    let first = changes.put(&entity, Sample::product_record(1));
    follower.apply(batch(&entity, &changes, &[first], 0, 1)).await.unwrap();
    let mut client = server.client().await;
    let script = include_str!("../../src/lua/sweep.lua");
    let controls = ["ledger", "index", "deletions"].map(|n| format!("unisono:{{product.0}}:{n}"));
    let mut words: Vec<&[u8]> = vec![b"EVAL", script.as_bytes(), b"4"];
    words.extend(controls.iter().map(|key| key.as_bytes()));
    words.extend([b"product:p1".as_slice(), b"emptying:earlier", b"p1"]);
    assert_eq!(ask::<i64>(&mut client, &words).await, 0);
    let reader = source.clone().reader().unwrap();
    let found = reader.get(&entity, &[Sample::key("p1")]).await.unwrap();
    assert!(found.value[0].is_some() && found.position.as_u64() == 1);
    assert_eq!(follower.checkpoint(&entity).await.unwrap(), Some(checkpoint(&changes, 1)));
}
