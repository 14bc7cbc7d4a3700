//! Several processes over one truth and one Redis: who reads what the cache does not have. In real time, but for when entries
//! end.
//!
//! Needs a server: `engines/up redis`.
#![cfg(feature = "redis")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::join_all;
use unisono::core::clock::Clock;
use unisono::core::{Context, Key, Timestamp};
use unisono::engine::{Answer, CacheStatus, Runtime};
use unisono::{Registry, Unisono, config};

use crate::gated::{Gate, Gated, gate};
use crate::{is_hit, put, read};

/// The clock of all processes, which goes on only when the test says so.
struct Common(AtomicU64);

impl Clock for Common {
    fn now(&self) -> Timestamp {
        Timestamp::EPOCH.plus(Duration::from_secs(self.0.load(Ordering::SeqCst)))
    }
}

/// Processes that share a truth and a cache.
struct Nodes {
    all: Vec<Unisono>,
    clock: Arc<Common>,
    gate: Arc<Gate>,
    configuration: String,
}

impl Nodes {
    /// Three of them. Records 0 and 1 are there; nothing is cached.
    async fn open(name: &str, cache: &str) -> Nodes {
        let text = format!(
            r#"
{}
[sources.{name}]
kind = "gated"
[entities.item]
key = "id"
truth = "{name}"
fields = {{ id = "integer", name = "string", stock = "integer" }}
[entities.item.cache]
source = "near"
refresh = false
{cache}
"#,
            redis("near")
        );
        let clock = Arc::new(Common(AtomicU64::new(1_000_000_000)));
        let mut nodes = Nodes { all: Vec::new(), clock, gate: gate(name), configuration: text };
        nodes.start().await;
        let first = &nodes.all[0];
        put(first, 0, "a").await;
        put(first, 1, "a").await;
        let follows = async || first.engine().status().await.caches[0].applied.as_u64() == 2;
        until("the cache has followed", follows).await;
        nodes.start().await;
        nodes.start().await;
        nodes
    }

    /// Starts one more.
    async fn start(&mut self) {
        let registry = Registry::builtin().with(&Gated);
        let configuration =
            config::parse(&self.configuration, "test.toml", &registry, &config::Process)
                .unwrap_or_else(|report| panic!("{report}"));
        let runtime = Runtime::seeded(Arc::clone(&self.clock) as _, self.all.len() as u64);
        self.all.push(Unisono::open_with(configuration, &registry, runtime).await.unwrap());
    }

    async fn get(&self, node: usize, id: i64) -> Answer<Option<String>> {
        let context = Context { timeout: Duration::from_secs(120), ..Context::default() };
        read(&self.all[node], &context, id).await
    }

    /// Lets time pass, and waits until every cache knows again that it is current.
    async fn pass(&self, seconds: u64) {
        self.clock.0.fetch_add(seconds, Ordering::SeqCst);
        for node in 0..self.all.len() {
            until("the cache is current", async || is_hit(&self.get(node, 0).await)).await;
        }
    }
}

/// The table of a source over the running server, with a prefix that no other test has.
pub(crate) fn redis(source: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let base = std::env::var_os("UNISONO_ENGINES").unwrap_or("/tmp/unisono-engines".into());
    let file = PathBuf::from(base).join("redis/source.toml");
    let said = std::fs::read_to_string(&file)
        .unwrap_or_else(|e| panic!("{}: {e}\n    start it: engines/up redis", file.display()));
    let name = format!("tl{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    format!("[sources.{source}]\nkind = \"redis\"\n{}", said.replace("{namespace}", &name))
}

/// Repeats until something is true; fails loudly after a minute.
pub(crate) async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    for _ in 0..1200 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("still not after a minute: {what}");
}

#[tokio::test]
async fn a_crowd_at_several_processes_costs_one_read() {
    for (name, lease, reads_max) in [("leased", "30s", 1), ("unleased", "0s", 3)] {
        let nodes = Nodes::open(name, &format!("ttl = \"60s\"\nlease = \"{lease}\"")).await;
        nodes.get(0, 1).await;
        nodes.pass(61).await;
        let before = nodes.gate.gets();
        nodes.gate.take(50);
        let answers = join_all((0..1000).map(|n| nodes.get(n % 3, 1))).await;
        assert!(answers.iter().all(|a| a.value.as_deref() == Some("a")));
        let reads = nodes.gate.gets() - before;
        assert!((1..=reads_max).contains(&reads), "{name}: {reads} reads");
    }
}

#[tokio::test]
async fn a_process_that_starts_finds_what_others_have_filled() {
    let mut nodes = Nodes::open("joined", "ttl = \"60s\"").await;
    nodes.get(0, 1).await;
    let before = nodes.gate.gets();
    nodes.start().await;
    for node in 0..4 {
        assert!(is_hit(&nodes.get(node, 1).await), "node {node}");
    }
    assert_eq!(nodes.gate.gets(), before);
}

#[tokio::test]
async fn one_process_reads_an_entry_again_that_all_of_them_serve() {
    let nodes = Nodes::open("renewing", "ttl = \"20s\"\nstale = \"60s\"\nlease = \"30s\"").await;
    nodes.get(0, 1).await;
    nodes.pass(30).await;
    // Record 0 was read again by whoever came first, while time passed.
    let renewed = async |id| {
        for node in 0..3 {
            let fresh = async || {
                let answer = nodes.get(node, id).await;
                assert!(is_hit(&answer), "nobody waits: {answer:?}");
                matches!(answer.cache, CacheStatus::Hit { refreshing: false, .. })
            };
            until("it was read again", fresh).await;
        }
    };
    renewed(0).await;
    let before = nodes.gate.gets();
    nodes.gate.take(50);
    let served = join_all((0..300).map(|n| nodes.get(n % 3, 1))).await;
    assert!(served.iter().all(is_hit), "nobody waits");
    renewed(1).await;
    assert_eq!(nodes.gate.gets(), before + 1);
}

#[tokio::test]
async fn a_holder_that_is_gone_holds_nobody_up_for_good() {
    let nodes = Nodes::open("forsaken", "lease = \"500ms\"").await;
    nodes.get(0, 0).await;
    nodes.pass(0).await;
    let before = nodes.gate.gets();
    nodes.gate.take(3_600_000);
    {
        let reads = nodes.get(0, 1);
        let begun = until("the holder reads", async || nodes.gate.gets() > before);
        tokio::select! {
            answer = reads => panic!("it cannot have an answer: {answer:?}"),
            () = begun => {}
        }
    }
    nodes.gate.take(0);
    let others = join_all([1, 2].map(|node| nodes.get(node, 1)));
    let answers = tokio::time::timeout(Duration::from_secs(60), others).await.unwrap();
    assert!(answers.iter().all(|a| a.value.as_deref() == Some("a")));
    let reads = nodes.gate.gets() - before;
    assert!((2..=3).contains(&reads), "{reads} reads");
}

#[tokio::test]
async fn a_holder_that_fails_lets_the_next_one_read() {
    let nodes = Nodes::open("failing", "lease = \"60s\"").await;
    nodes.get(0, 0).await;
    nodes.pass(0).await;
    nodes.gate.set_down(true);
    let (engine, context) = (nodes.all[0].engine(), Context::default());
    let item = Arc::clone(engine.entity("item").unwrap());
    let failed = engine.get(&context, &item, &Key::Integer(1)).await;
    assert!(failed.is_err(), "{failed:?}");
    nodes.gate.set_down(false);
    nodes.pass(0).await;
    let before = nodes.gate.gets();
    let answer = tokio::time::timeout(Duration::from_secs(30), nodes.get(1, 1)).await;
    assert_eq!(answer.unwrap().value.as_deref(), Some("a"), "sooner than the lease would end");
    assert_eq!(nodes.gate.gets(), before + 1);
}

#[tokio::test]
async fn what_is_cached_outlives_writes_by_any_process() {
    let nodes = Nodes::open("outliving", "ttl = \"600s\"").await;
    nodes.get(0, 0).await;
    nodes.get(0, 1).await;
    nodes.pass(0).await;
    let before = nodes.gate.gets();
    for round in 0..20 {
        put(&nodes.all[round % 3], 1, &format!("b{round}")).await;
        for node in &nodes.all {
            let reached = 3 + round as u64;
            let follows =
                async || node.engine().status().await.caches[0].applied.as_u64() == reached;
            until("the cache has followed", follows).await;
        }
    }
    for node in 0..3 {
        let (same, written) = (nodes.get(node, 0).await, nodes.get(node, 1).await);
        assert!(is_hit(&same) && is_hit(&written), "{same:?} {written:?}");
        assert_eq!(written.value.as_deref(), Some("b19"));
    }
    assert_eq!(nodes.gate.gets(), before, "nothing was read again");
}
