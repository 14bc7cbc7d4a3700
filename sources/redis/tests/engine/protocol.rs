//! The cache protocol where chance is not needed: processes that really race, and what becomes of the lists of changed
//! keys. The random schedules are in `schedules.rs`.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use unisono_core::source::{Cache, Entry, Filled};
use unisono_core::{ErrorKind, Position, Role};
use unisono_testkit::{Changes, LOG, Sample};

use crate::common::{Server, ask, at, binding, now, open};
use crate::schedule::{KEYS, Log, at_position, processes};

/// Two processes at the same time, not step by step: each answer must be right whenever it comes.
#[tokio::test]
async fn processes_that_race_agree() {
    let server = Server::start(&[]).await;
    let entity = Sample::product();
    let caches = processes(&server.url()).await;
    let (log, ended, hits) = (RefCell::new(Log::new()), Cell::new(false), Cell::new(0));
    let writer = async {
        let mut rng = StdRng::seed_from_u64(1);
        let mut client = server.client().await;
        for n in 0..1500 {
            log.borrow_mut().commit(&mut rng);
            if n % 500 == 250 {
                let _: String = ask(&mut client, &[b"FLUSHALL"]).await;
            }
            let _: String = ask(&mut client, &[b"PING"]).await;
        }
        ended.set(true);
    };
    let follower = |cache: Arc<dyn Cache>| {
        let (log, entity, ended) = (&log, &entity, &ended);
        async move {
            while !ended.get() {
                let now = now();
                let found = cache.lookup(entity, &Sample::key("z"), now).await.unwrap();
                let (from, head) = (found.applied.as_u64() as usize, log.borrow().all.len());
                if found.epoch == 0 {
                    cache.restart(entity, LOG, at_position(head)).await.unwrap();
                    continue;
                }
                let changes = log.borrow().all[from..head].to_vec();
                let expires = now.plus(Duration::from_secs(900));
                let to = at_position(head);
                if let Err(error) = cache.follow(entity, &changes, found.applied, to, expires).await
                {
                    assert_eq!(error.kind(), ErrorKind::CheckpointMoved, "{error:?}");
                }
            }
        }
    };
    let filler = |cache: Arc<dyn Cache>, seed| {
        let (log, entity, ended, hits) = (&log, &entity, &ended, &hits);
        async move {
            let mut rng = StdRng::seed_from_u64(seed);
            while !ended.get() {
                let id = KEYS[rng.random_range(0..KEYS.len())];
                let key = Sample::key(id);
                let found = cache.lookup(entity, &key, now()).await.unwrap();
                if let Some(entry) = &found.entry {
                    hits.set(hits.get() + 1);
                    let wrong = log.borrow().judge(id, entry, found.applied);
                    assert_eq!(wrong, None);
                    continue;
                }
                let head = log.borrow().all.len();
                let read = head - rng.random_range(0..=head.min(3));
                let entry = log.borrow().read(id, read);
                tokio::task::yield_now().await;
                cache.fill(entity, &key, entry, at_position(read), found.epoch).await.unwrap();
            }
        }
    };
    let both = || caches.iter().cloned();
    let followers = futures::future::join_all(both().map(follower));
    let fillers = both().chain(both()).zip(10..).map(|(cache, seed)| filler(cache, seed));
    futures::join!(writer, followers, futures::future::join_all(fillers));
    assert!(hits.get() > 100, "too little happened: {} hits", hits.get());
}

/// The lists of changed keys are replaced in turn: what they no longer know counts as changed.
#[tokio::test]
async fn forgotten_changes_count_as_changed() {
    let server = Server::start(&[]).await;
    let entity = Sample::product();
    let source = open(&at(&server.url())).await.unwrap();
    source.prepare(&[binding(&entity, Role::Cache, &[])]).await.unwrap();
    let cache = source.cache().unwrap();
    let epoch = cache.restart(&entity, LOG, Position::ZERO).await.unwrap();
    let mut changes = Changes::new();
    let mut all = Vec::new();
    let mut last = HashMap::new();
    for n in 0..60_000_u32 {
        let record = Sample::product_record(n % 50_000);
        let change = changes.put(&entity, record);
        last.insert(change.key.clone(), change.position);
        all.push(change);
    }
    let expires = now().plus(Duration::from_secs(900));
    for (n, some) in all.chunks(1500).enumerate() {
        let (from, to) = (at_position(n * 1500), at_position(n * 1500 + some.len()));
        cache.follow(&entity, some, from, to, expires).await.unwrap();
    }
    let mut rng = StdRng::seed_from_u64(3);
    let (mut stored, mut refused) = (0, 0);
    for _ in 0..4000 {
        let change = &all[rng.random_range(0..all.len())];
        let read = rng.random_range(0..=all.len());
        let entry = Entry { stored: None, version: at_position(read), filled: now(), expires };
        let filled =
            cache.fill(&entity, &change.key, entry, at_position(read), epoch).await.unwrap();
        let changed = last[&change.key] > at_position(read);
        match filled {
            Filled::Stored => assert!(!changed, "{} was read at {read}", change.key),
            // Reads of the last 16,384 changes are judged key by key.
            Filled::Outdated => refused += usize::from(!changed && read + 16_384 > all.len()),
            Filled::OtherEpoch => panic!("nobody began a new life"),
        }
        stored += usize::from(filled == Filled::Stored);
        let found = cache.lookup(&entity, &change.key, now()).await.unwrap();
        refused -= usize::from(
            filled == Filled::Outdated
                && !changed
                && found.entry.is_some()
                && read + 16_384 > all.len(),
        );
    }
    assert!(stored > 100, "only {stored} fills were taken");
    assert_eq!(refused, 0, "reads that are new enough must not be refused");
}

/// A list of changed keys that was evicted holds fills up only until the next changes.
#[tokio::test]
async fn a_lost_list_of_changes_is_begun_again() {
    let server = Server::start(&[]).await;
    let entity = Sample::product();
    let source = open(&at(&server.url())).await.unwrap();
    source.prepare(&[binding(&entity, Role::Cache, &[])]).await.unwrap();
    let cache = source.cache().unwrap();
    let epoch = cache.restart(&entity, LOG, Position::ZERO).await.unwrap();
    let mut client = server.client().await;
    let mut changes = Changes::new();
    let expires = now().plus(Duration::from_secs(900));
    for (n, list) in ["recent", "previous", "recent"].into_iter().enumerate() {
        let key = Sample::key(&format!("k{n}"));
        let absent = |read: usize| {
            let position = at_position(read);
            let entry = Entry { stored: None, version: position, filled: now(), expires };
            cache.fill(&entity, &key, entry, position, epoch)
        };
        let keys: Vec<Vec<u8>> = ask(&mut client, &[b"KEYS", format!("*{list}").as_bytes()]).await;
        assert_eq!(keys.len(), 1, "{list}");
        let _: i64 = ask(&mut client, &[b"DEL", &keys[0]]).await;
        assert_eq!(absent(n).await.unwrap(), Filled::Outdated, "{list} is gone");
        let change = changes.put(&entity, Sample::product_record(7));
        let (from, to) = (at_position(n), at_position(n + 1));
        cache.follow(&entity, &[change], from, to, expires).await.unwrap();
        assert_eq!(absent(n).await.unwrap(), Filled::Outdated, "read before {list} began again");
        assert_eq!(absent(n + 1).await.unwrap(), Filled::Stored, "{list} has begun again");
    }
}

/// What is left of an earlier life neither shows nor stands in the way.
#[tokio::test]
async fn a_new_life_knows_nothing_of_the_one_before() {
    let server = Server::start(&[]).await;
    let entity = Sample::product();
    let source = open(&at(&server.url())).await.unwrap();
    source.prepare(&[binding(&entity, Role::Cache, &[])]).await.unwrap();
    let cache = source.cache().unwrap();
    let first = cache.restart(&entity, LOG, Position::ZERO).await.unwrap();
    let expires = now().plus(Duration::from_secs(900));
    let (cached, changed) = (Sample::key("cached"), Sample::key("p1"));
    let absent = |key, read: usize, epoch| {
        let position = at_position(read);
        let entry = Entry { stored: None, version: position, filled: now(), expires };
        cache.fill(&entity, key, entry, position, epoch)
    };
    assert_eq!(absent(&cached, 9, first).await.unwrap(), Filled::Stored);
    let change = Changes::new().put(&entity, Sample::product_record(1));
    let mut late = change.as_ref().clone();
    late.position = at_position(9);
    cache
        .follow(&entity, &[Arc::new(late)], Position::ZERO, at_position(9), expires)
        .await
        .unwrap();
    // The truth was restored: its positions are lower again.
    let second = cache.restart(&entity, LOG, at_position(5)).await.unwrap();
    for key in [&cached, &changed] {
        assert!(cache.lookup(&entity, key, now()).await.unwrap().entry.is_none(), "{key}");
        assert_eq!(absent(key, 9, first).await.unwrap(), Filled::OtherEpoch, "{key}");
        assert_eq!(absent(key, 5, second).await.unwrap(), Filled::Stored, "{key}");
    }
}
