//! A cluster: parts that lose their data or fall back, and slots that move to another server.

use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use unisono_core::kind::Options;
use unisono_core::source::{Binding, Follower, Source};
use unisono_core::{Change, Entity, ErrorKind, Role};
use unisono_testkit::{Changes, LOG, Sample};

use crate::common::{ask, batch, binding, checkpoint, engine, now, open, plain_at};

/// The servers of `engines/redis/start`.
const NODES: [&str; 3] = ["127.0.0.1:6397", "127.0.0.1:6398", "127.0.0.1:6399"];

struct Cluster {
    place: &'static str,
    options: Options,
    nodes: Vec<MultiplexedConnection>,
    source: Arc<dyn Source>,
    follower: Arc<dyn Follower>,
    entity: Arc<Entity>,
    changes: Changes,
    all: Vec<Arc<Change>>,
}

impl Cluster {
    /// A follower in the cluster that holds 100 records. Its place decides which slots it has.
    async fn filled(place: &'static str) -> Cluster {
        let options = engine("source-cluster.toml");
        let mut nodes = Vec::new();
        for node in NODES {
            nodes.push(plain_at(&options, node).await);
        }
        let entity = Sample::product();
        let source = open(&options).await.unwrap();
        let bound = binding(&entity, Role::Follower, &[]);
        source.prepare(&[Binding { place: place.into(), ..bound }]).await.unwrap();
        let follower = source.clone().follower().unwrap();
        let mut changes = Changes::new();
        let all: Vec<_> =
            (0..100).map(|n| changes.put(&entity, Sample::product_record(n))).collect();
        follower.apply(batch(&entity, &changes, &all, 0, 100)).await.unwrap();
        Cluster { place, options, nodes, source, follower, entity, changes, all }
    }

    fn key(&self, part: usize, name: &str) -> Vec<u8> {
        let prefix = self.options.text("prefix").unwrap();
        format!("{prefix}:unisono:{{{}.{part}}}:{name}", self.place).into_bytes()
    }

    /// The number of the server that has a key.
    async fn owner(&mut self, key: &[u8]) -> usize {
        for (n, node) in self.nodes.iter_mut().enumerate() {
            let exists: redis::RedisResult<i64> =
                redis::cmd("EXISTS").arg(key).query_async(node).await;
            if exists.is_ok() {
                return n;
            }
        }
        panic!("no server has the slot of {}", String::from_utf8_lossy(key));
    }

    async fn ask<T: redis::FromRedisValue>(&mut self, key: &[u8], words: &[&[u8]]) -> T {
        let owner = self.owner(key).await;
        ask(&mut self.nodes[owner], words).await
    }
}

#[tokio::test]
async fn a_part_that_lost_its_data_takes_the_checkpoint_with_it() {
    let mut c = Cluster::filled("product").await;
    let stored = c.follower.checkpoint(&c.entity).await.unwrap();
    assert_eq!(stored, Some(checkpoint(&c.changes, 100)));
    let page = c.source.clone().auditor().unwrap().scan(&c.entity, None, 1000).await.unwrap();
    assert_eq!((page.value.records.len(), page.position.as_u64()), (100, 100));
    for name in ["ledger", "index", "deletions"] {
        let key = c.key(7, name);
        let _: i64 = c.ask(&key, &[b"DEL", &key]).await;
    }
    assert_eq!(c.follower.checkpoint(&c.entity).await.unwrap(), None);
    let reader = c.source.clone().reader().unwrap();
    let count = reader.count(&c.entity, &unisono_core::query::Filter::All, None).await.unwrap();
    assert_eq!(count.position.as_u64(), 0, "an answer must not claim to be complete");
    c.follower.reset(&c.entity).await.unwrap();
    c.follower.apply(batch(&c.entity, &c.changes, &c.all, 0, 100)).await.unwrap();
    let stored = c.follower.checkpoint(&c.entity).await.unwrap();
    assert_eq!(stored, Some(checkpoint(&c.changes, 100)));
}

#[tokio::test]
async fn a_part_that_fell_back_takes_all_back() {
    let mut c = Cluster::filled("product").await;
    // What a copy of part 3 holds that lags behind.
    let mut copy = Vec::new();
    for name in ["ledger", "index"] {
        let key = c.key(3, name);
        let dump: Vec<u8> = c.ask(&key, &[b"DUMP", &key]).await;
        copy.push((key, dump));
    }
    let mut from = 100;
    for round in 1..=3 {
        let more: Vec<_> = (0..30)
            .map(|n| c.changes.put(&c.entity, Sample::product_record(round * 100 + n)))
            .collect();
        let to = c.changes.head().as_u64();
        c.follower.apply(batch(&c.entity, &c.changes, &more, from, to)).await.unwrap();
        c.all.extend(more);
        from = to;
    }
    for (key, dump) in copy {
        let _: String = c.ask(&key, &[b"RESTORE", &key, b"0", &dump, b"REPLACE"]).await;
    }
    let stored = c.follower.checkpoint(&c.entity).await.unwrap();
    assert_eq!(stored, Some(checkpoint(&c.changes, 100)), "the part furthest behind counts");
    let late = c.follower.apply(batch(&c.entity, &c.changes, &[], from, from + 1)).await;
    assert_eq!(late.unwrap_err().kind(), ErrorKind::CheckpointMoved);
    let since = c.all[100..].to_vec();
    let again = c.follower.apply(batch(&c.entity, &c.changes, &since, 100, from)).await.unwrap();
    assert!(again.advanced);
    let page = c.source.clone().auditor().unwrap().scan(&c.entity, None, 1000).await.unwrap();
    assert_eq!((page.value.records.len() as u64, page.position.as_u64()), (190, from));
    let stored = c.follower.checkpoint(&c.entity).await.unwrap();
    assert_eq!(stored, Some(checkpoint(&c.changes, from)));
}

async fn set_slot(node: &mut MultiplexedConnection, slot: &[u8], state: &str, name: &[u8]) {
    let _: String = ask(node, &[b"CLUSTER", b"SETSLOT", slot, state.as_bytes(), name]).await;
}

#[tokio::test]
async fn slots_that_move_are_followed() {
    let options = engine("source-cluster.toml");
    let mut slot = Vec::new();
    for node in NODES {
        let mut node = plain_at(&options, node).await;
        let number: i64 = ask(&mut node, &[b"CLUSTER", b"KEYSLOT", b"{moving.5}"]).await;
        slot = number.to_string().into_bytes();
        // A run that failed may have left it half-way.
        let _: String = ask(&mut node, &[b"CLUSTER", b"SETSLOT", &slot, b"STABLE"]).await;
    }
    let mut c = Cluster::filled("moving").await;
    let ledger = c.key(5, "ledger");
    let from = c.owner(&ledger).await;
    let to = (from + 1) % NODES.len();
    let mut names = Vec::new();
    for node in &mut c.nodes {
        names.push(ask::<String>(node, &[b"CLUSTER", b"MYID"]).await.into_bytes());
    }
    for (node, state, name) in [(to, "IMPORTING", &names[from]), (from, "MIGRATING", &names[to])] {
        set_slot(&mut c.nodes[node], &slot, state, name).await;
    }
    let words: [&[u8]; 4] = [b"CLUSTER", b"GETKEYSINSLOT", &slot, b"1000"];
    let keys: Vec<Vec<u8>> = ask(&mut c.nodes[from], &words).await;
    assert!(!keys.is_empty());
    for key in &keys {
        let port = NODES[to].rsplit_once(':').unwrap().1.as_bytes();
        let words: [&[u8]; 9] = [
            b"MIGRATE",
            b"127.0.0.1",
            port,
            key,
            b"0",
            b"5000",
            b"AUTH",
            b"admin-secret",
            b"REPLACE",
        ];
        let words = [&words[..6], &words[8..], &words[6..8]].concat();
        let _: String = ask(&mut c.nodes[from], &words).await;
    }
    // The slot is still the old server's, which redirects: what is there can be read, and records that are not there
    // cannot be written for a while, in one step with those that are.
    let (entity, follower) = (Arc::clone(&c.entity), Arc::clone(&c.follower));
    let reader = c.source.clone().reader().unwrap();
    let known: Vec<_> = c.all.iter().map(|change| change.key.clone()).collect();
    let found = reader.get(&entity, &known).await.unwrap();
    assert!(found.value.iter().all(Option::is_some) && found.position.as_u64() == 100);
    let more: Vec<_> =
        (200..240).map(|n| c.changes.put(&entity, Sample::product_record(n))).collect();
    let next = batch(&entity, &c.changes, &more, 100, 140);
    let error = follower.apply(next.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    for node in [to, from] {
        set_slot(&mut c.nodes[node], &slot, "NODE", &names[to]).await;
    }
    // Now it is the new server's. Part of the batch had been taken in; the checkpoint had not moved.
    assert_eq!(follower.checkpoint(&entity).await.unwrap(), Some(checkpoint(&c.changes, 100)));
    assert!(follower.apply(next).await.unwrap().advanced);
    follower.apply(batch(&entity, &c.changes, &[], 140, 141)).await.unwrap();
    let page = c.source.clone().auditor().unwrap().scan(&entity, None, 1000).await.unwrap();
    assert_eq!((page.value.records.len(), page.position.as_u64()), (140, 141));
    assert_eq!(c.owner(&ledger).await, to);
}

#[tokio::test]
async fn a_cache_is_spread_over_the_servers() {
    let options = engine("source-cluster.toml");
    let source = open(&options).await.unwrap();
    let entity = Sample::product();
    let cache = source.cache().unwrap();
    let position = |n| checkpoint(&Changes::new(), n).position;
    let epoch = cache.restart(&entity, LOG, position(0)).await.unwrap();
    let mut changes = Changes::new();
    let all: Vec<_> = (0..60).map(|n| changes.put(&entity, Sample::product_record(n))).collect();
    let expires = now().plus(std::time::Duration::from_secs(600));
    for change in &all {
        let at_most = std::time::Duration::from_secs(600);
        let looked = cache.lookup_or_lease(&entity, &change.key, now(), at_most).await.unwrap();
        assert_eq!(looked.1, unisono_core::source::Lease::Held, "{}", change.key);
        let entry = unisono_core::source::Entry {
            stored: None,
            version: position(0),
            filled: now(),
            expires,
        };
        let filled = cache.fill(&entity, &change.key, entry, position(0), epoch).await.unwrap();
        assert_eq!(filled, unisono_core::source::Filled::Stored);
    }
    cache.follow(&entity, &all, position(0), position(60), expires).await.unwrap();
    for change in &all {
        let found = cache.lookup(&entity, &change.key, now()).await.unwrap();
        let version = found.entry.map(|e| e.version);
        assert_eq!(
            (version, found.applied, found.epoch),
            (Some(change.position), position(60), epoch)
        );
    }
    // Another process has come as far in some parts, or in all of them.
    cache.follow(&entity, &all, position(0), position(61), expires).await.unwrap();
    cache.follow(&entity, &all[..30], position(0), position(30), expires).await.unwrap();
    let found = cache.lookup(&entity, &all[0].key, now()).await.unwrap();
    assert_eq!((found.applied, found.epoch), (position(61), epoch));
    let moved = cache.follow(&entity, &[], position(62), position(63), expires).await.unwrap_err();
    assert_eq!(moved.kind(), ErrorKind::CheckpointMoved);
}
