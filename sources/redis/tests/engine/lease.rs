//! Leases where a server gives none: full, or cut off from its copies, it still answers from what it holds.

use std::sync::Arc;
use std::time::Duration;

use unisono_core::source::{Entry, Filled, Lease};
use unisono_core::{Position, Role};
use unisono_testkit::{Changes, LOG, Sample};

use crate::common::{Server, ask, at, binding, now, open};

#[tokio::test]
async fn entries_are_found_where_nothing_can_be_written() {
    let server = Server::start(&["--maxmemory-policy", "noeviction"]).await;
    let (entity, mut client) = (Sample::product(), server.client().await);
    let source = open(&at(&server.url())).await.unwrap();
    source.prepare(&[binding(&entity, Role::Cache, &[])]).await.unwrap();
    let cache = source.cache().unwrap();
    let epoch = cache.restart(&entity, LOG, Position::ZERO).await.unwrap();
    let change = Changes::new().put(&entity, Sample::product_record(1));
    let entry = Entry {
        stored: change.stored().map(Arc::new),
        version: change.position,
        filled: now(),
        expires: now().plus(Duration::from_secs(60)),
    };
    let filled = cache.fill(&entity, &change.key, entry, change.position, epoch).await.unwrap();
    assert_eq!(filled, Filled::Stored);
    let (missing, unknown) = (Sample::key("missing"), Sample::key("unknown"));
    let look = async |key| {
        let at_most = Duration::from_secs(600);
        cache.lookup_or_lease(&entity, key, now(), at_most).await.unwrap()
    };
    assert_eq!(look(&missing).await.1, Lease::Held);

    for name in ["maxmemory", "min-replicas-to-write"] {
        let set = async |value: &str| {
            let words = [&b"CONFIG"[..], b"SET", name.as_bytes(), value.as_bytes()];
            let _: String = ask(&mut client.clone(), &words).await;
        };
        set("1").await;
        let (found, lease) = look(&change.key).await;
        assert!(found.entry.is_some(), "{name}: what is there is found");
        assert_eq!(lease, Lease::Free, "{name}");
        let (found, lease) = look(&unknown).await;
        assert!(found.entry.is_none() && found.epoch == epoch, "{name}: {found:?}");
        assert_eq!(lease, Lease::Free, "{name}: who misses it reads");
        set("0").await;
    }
    // A full server lets go of what it holds.
    let _: String = ask(&mut client, &[b"CONFIG", b"SET", b"maxmemory", b"1"]).await;
    cache.release(&entity, &missing).await.unwrap();
    let leases: Vec<Vec<u8>> = ask(&mut client, &[b"KEYS", b"*lease*"]).await;
    assert_eq!(leases, Vec::<Vec<u8>>::new());
}
