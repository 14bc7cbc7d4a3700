//! A primary that is killed: sentinels name another one, and cache and follower go on there.

use std::sync::Arc;
use std::time::Duration;

use unisono_core::source::{Entry, Filled};
use unisono_core::{ErrorKind, Position, Role};
use unisono_testkit::{Changes, LOG, Sample};

use crate::common::{
    Server, ask, at, batch, binding, engine, impatient, now, open, until, with_url,
};

async fn agree(sentinels: &[Server]) {
    for sentinel in sentinels {
        let client = sentinel.client().await;
        let knows = || {
            let mut client = client.clone();
            async move {
                let words: [&[u8]; 3] = [b"SENTINEL", b"MASTER", b"main"];
                let said: Vec<String> = ask(&mut client, &words).await;
                let value =
                    |name: &str| said.chunks(2).find(|c| c[0] == name).map(|c| c[1].clone());
                value("num-slaves").as_deref() == Some("1")
                    && value("num-other-sentinels").as_deref() == Some("2")
            }
        };
        until("sentinels know each other and the copy", knows).await;
    }
}

#[tokio::test]
async fn cache_and_follower_survive_a_failover() {
    let mut primary = Server::start(&["--repl-diskless-sync-delay", "0"]).await;
    let copy = Server::start(&["--replicaof", "127.0.0.1", &primary.port.to_string()]).await;
    let mut watching = copy.client().await;
    loop {
        let info: String = ask(&mut watching, &[b"INFO", b"replication"]).await;
        if info.contains("master_link_status:up") {
            break;
        }
    }
    let monitor = format!("sentinel monitor main 127.0.0.1 {} 2", primary.port);
    let lines = [
        "--sentinel",
        &monitor,
        "sentinel down-after-milliseconds main 500",
        "sentinel failover-timeout main 3000",
    ];
    let sentinels =
        [Server::start(&lines).await, Server::start(&lines).await, Server::start(&lines).await];
    agree(&sentinels).await;

    let hosts: Vec<_> = sentinels.iter().map(|s| format!("127.0.0.1:{}", s.port)).collect();
    let options = impatient(at(&format!("redis+sentinel://{}/main", hosts.join(","))));
    let source = open(&options).await.unwrap();
    let entity = Sample::product();
    let both = [binding(&entity, Role::Follower, &[]), binding(&entity, Role::Cache, &[])];
    source.prepare(&both).await.unwrap();
    let (follower, cache) = (source.clone().follower().unwrap(), source.clone().cache().unwrap());
    let mut changes = Changes::new();
    let first = changes.put(&entity, Sample::product_record(1));
    follower.apply(batch(&entity, &changes, &[Arc::clone(&first)], 0, 1)).await.unwrap();
    let epoch = cache.restart(&entity, LOG, Position::new(1).unwrap()).await.unwrap();
    let entry = Entry {
        stored: None,
        version: Position::new(1).unwrap(),
        filled: now(),
        expires: now().plus(Duration::from_secs(600)),
    };
    let read = Position::new(1).unwrap();
    let key = Sample::key("none");
    assert_eq!(cache.fill(&entity, &key, entry, read, epoch).await.unwrap(), Filled::Stored);
    let mut client = primary.client().await;
    let _: i64 = ask(&mut client, &[b"WAIT", b"1", b"5000"]).await;

    primary.kill();
    let second = changes.put(&entity, Sample::product_record(2));
    let next = batch(&entity, &changes, &[second], 1, 2);
    until("a batch is taken in by the new primary", || async {
        match follower.apply(next.clone()).await {
            Ok(applied) => applied.advanced,
            Err(error) => {
                let kinds = [ErrorKind::Unavailable, ErrorKind::NotPrimary, ErrorKind::Timeout];
                assert!(kinds.contains(&error.kind()), "{error:?}");
                false
            }
        }
    })
    .await;
    let found = cache.lookup(&entity, &key, now()).await.unwrap();
    assert_eq!((found.epoch, found.applied.as_u64()), (epoch, 1), "the life goes on");
    assert!(found.entry.is_some());
    let to = Position::new(2).unwrap();
    let expires = now().plus(Duration::from_secs(600));
    cache.follow(&entity, &[], read, to, expires).await.unwrap();

    // The old primary comes back as a copy of the new one.
    primary.again().await;
    let found = source.reader().unwrap().get(&entity, &[Sample::key("p2")]).await.unwrap();
    assert_eq!((found.value[0].is_some(), found.position.as_u64()), (true, 2));
}

#[tokio::test]
async fn a_server_that_became_a_copy_is_left() {
    let (first, second) = (Server::start(&[]).await, Server::start(&[]).await);
    let source = open(&at(&first.url())).await.unwrap();
    let entity = Sample::product();
    source.prepare(&[binding(&entity, Role::Follower, &[])]).await.unwrap();
    let follower = source.clone().follower().unwrap();
    let mut changes = Changes::new();
    let change = changes.put(&entity, Sample::product_record(1));
    let mut client = first.client().await;
    let port = second.port.to_string();
    let _: String = ask(&mut client, &[b"REPLICAOF", b"127.0.0.1", port.as_bytes()]).await;
    let next = batch(&entity, &changes, &[change], 0, 1);
    let error = follower.apply(next.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotPrimary, "{error:?}");
    let _: String = ask(&mut client, &[b"REPLICAOF", b"NO", b"ONE"]).await;
    until("it is a primary again", || async { follower.apply(next.clone()).await.is_ok() }).await;
}

#[tokio::test]
async fn sentinels_are_asked_over_tls_and_must_know_the_name() {
    let options = engine("source-sentinel.toml");
    let source = open(&options).await.unwrap();
    assert!(source.probe().await.unwrap().engine.contains("7."));
    let Err(error) = open(&with_url(options, "/main", "/other")).await else { panic!("opened") };
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("know no such primary"), "{error:?}");
}
