//! Several processes that write behind through one journal in Redis: one order, one flusher, seen by all. In real time.
//!
//! Needs a server: `engines/up redis`.
#![cfg(feature = "redis")]

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use unisono::core::query::Query;
use unisono::core::write::Condition;
use unisono::core::{Consistency, Context, Token};
use unisono::engine::{CacheStatus, Runtime, Written};
use unisono::{Registry, Unisono, config};

use crate::behind::{kill, past, status, strong, to_patch, to_put, write};
use crate::gated::{Gate, Gated, gate};
use crate::shared::{redis, until};
use crate::{item, read};

/// Processes that share a truth and a journal.
struct Nodes {
    all: Vec<Unisono>,
    text: String,
    gate: Arc<Gate>,
}

impl Nodes {
    async fn open(name: &str, flush_after: &str) -> Nodes {
        let text = format!(
            r#"
{}
[sources.{name}]
kind = "gated"
[entities.item]
key = "id"
truth = "{name}"
fields = {{ id = "integer", name = "string", stock = "integer", made = "timestamp" }}
[entities.item.write]
strategy = "write_behind"
journal = "queue"
flush_after = "{flush_after}"
"#,
            redis("queue")
        );
        let mut nodes = Nodes { all: Vec::new(), text, gate: gate(name) };
        for _ in 0..3 {
            nodes.add().await;
        }
        nodes
    }

    async fn add(&mut self) {
        let registry = Registry::builtin().with(&Gated);
        let configuration = config::parse(&self.text, "test.toml", &registry, &config::Process)
            .unwrap_or_else(|report| panic!("{report}"));
        let node = Unisono::open_with(configuration, &registry, Runtime::system()).await.unwrap();
        self.all.push(node);
    }

    /// Stores a name by way of a node.
    async fn put(&self, node: usize, id: i64, name: &str) -> Written {
        let node = &self.all[node];
        write(node, to_put(node, id, name, Condition::None)).await.unwrap()
    }

    /// What a node answers to who has a token.
    async fn get(&self, node: usize, id: i64, token: &Token) -> (Option<String>, CacheStatus) {
        let context = Context {
            token: token.clone(),
            timeout: Duration::from_secs(60),
            ..Context::default()
        };
        let answer = read(&self.all[node], &context, id).await;
        (answer.value, answer.cache)
    }

    /// Waits until no node has anything waiting.
    async fn drained(&self) {
        for node in &self.all {
            until("everything is flushed", async || status(node).await.pending == 0).await;
        }
    }

    async fn close(self) {
        for node in self.all {
            node.close().await.unwrap();
        }
    }
}

#[tokio::test]
async fn writes_at_several_processes_are_flushed_in_one_order_and_seen_by_all() {
    let nodes = Nodes::open("one_order", "20ms").await;
    for n in 0..60 {
        let name = format!("n{n:02}");
        let written = nodes.put(n % 3, 1, &name).await;
        for node in 0..3 {
            let (seen, _) = nodes.get(node, 1, &written.token).await;
            assert_eq!(seen, Some(name.clone()), "at node {node}");
        }
    }
    nodes.drained().await;
    let past = past(&nodes.all[0], 1).await;
    assert!(past.is_sorted(), "{past:?}");
    assert_eq!(past.last().map(String::as_str), Some("n59"));
    nodes.close().await;
}

#[tokio::test]
async fn what_waits_at_one_process_is_laid_over_reads_at_another() {
    let nodes = Nodes::open("laid_over", "20ms").await;
    nodes.put(0, 1, "a").await;
    nodes.drained().await;
    nodes.gate.set_down(true);
    let renamed = nodes.put(0, 1, "b").await;
    let (own, other) = (&nodes.all[0], &nodes.all[2]);
    let patched = write(other, to_patch(other, 1, json!({"stock": 9}))).await.unwrap();
    let mut both = renamed.token.clone();
    both.merge(&patched.token);
    for node in 0..3 {
        let (seen, status) = nodes.get(node, 1, &both).await;
        assert_eq!((seen.as_deref(), status), (Some("b"), CacheStatus::Pending), "at node {node}");
    }
    let soon =
        async || read(&nodes.all[1], &Context::default(), 1).await.value.as_deref() == Some("b");
    until("who has no token sees it, too", soon).await;
    nodes.gate.set_down(false);
    // What was seen while it waited is seen afterwards, also in answers about many records.
    let context = Context { token: both, timeout: Duration::from_secs(60), ..Context::default() };
    let page = other.engine().query(&context, &item(own), &Query::all()).await.unwrap();
    assert_eq!(page.value.hits.len(), 1);
    nodes.drained().await;
    assert_eq!(past(own, 1).await, ["a", "b", "b"]);
    nodes.close().await;
}

#[tokio::test]
async fn a_strong_read_waits_for_what_others_have_kept() {
    let nodes = Nodes::open("strong_shared", "300ms").await;
    nodes.put(0, 1, "a").await;
    nodes.put(1, 1, "b").await;
    let context = Context { timeout: Duration::from_secs(60), ..strong() };
    assert_eq!(context.consistency, Consistency::Strong);
    let answer = read(&nodes.all[2], &context, 1).await;
    assert_eq!(answer.value.as_deref(), Some("b"));
    assert_ne!(answer.cache, CacheStatus::Pending);
    nodes.close().await;
}

#[tokio::test]
async fn a_request_that_is_repeated_at_another_process_is_kept_once() {
    let nodes = Nodes::open("kept_once", "20ms").await;
    nodes.gate.set_down(true);
    let mut told = Vec::new();
    for node in &nodes.all {
        let context = Context { idempotency_key: Some("request-1".into()), ..Context::default() };
        let writes = vec![to_put(node, 1, "a", Condition::None)];
        let written = node.engine().write(&context, writes).await.unwrap();
        told.push((written.accepted.unwrap().sequence, written.replayed));
    }
    assert_eq!(told, [(told[0].0, false), (told[0].0, true), (told[0].0, true)]);
    nodes.gate.set_down(false);
    nodes.drained().await;
    assert_eq!(past(&nodes.all[0], 1).await, ["a"]);
    nodes.close().await;
}

#[tokio::test]
async fn what_a_dead_process_has_acknowledged_is_flushed_by_another() {
    let mut nodes = Nodes::open("inherited", "20ms").await;
    nodes.gate.set_down(true);
    for id in 0..100 {
        nodes.put((id % 3) as usize, id, "a").await;
    }
    // The first of them flushes.
    kill(nodes.all.remove(0)).await;
    kill(nodes.all.remove(0)).await;
    nodes.gate.set_down(false);
    nodes.drained().await;
    for id in 0..100 {
        assert_eq!(past(&nodes.all[0], id).await, ["a"], "record {id}");
    }
    // Also when none of them is left.
    nodes.gate.set_down(true);
    nodes.put(0, 7, "b").await;
    kill(nodes.all.remove(0)).await;
    nodes.gate.set_down(false);
    nodes.add().await;
    nodes.drained().await;
    assert_eq!(past(&nodes.all[0], 7).await, ["a", "b"]);
    nodes.close().await;
}

#[tokio::test]
async fn what_a_dead_process_has_under_way_changes_nothing_when_it_arrives_late() {
    let mut nodes = Nodes::open("under_way", "20ms").await;
    nodes.put(0, 1, "a").await;
    nodes.drained().await;
    // The commit of the one that flushes is on its way when it dies.
    nodes.gate.holds.store(true, Ordering::SeqCst);
    nodes.put(0, 1, "b").await;
    let held = async || nodes.gate.held.load(Ordering::SeqCst) == 1;
    until("the commit is on its way", held).await;
    nodes.gate.holds.store(false, Ordering::SeqCst);
    nodes.put(1, 1, "c").await;
    kill(nodes.all.remove(0)).await;
    nodes.drained().await;
    assert_eq!(past(&nodes.all[0], 1).await, ["a", "c"]);
    nodes.gate.released.notify_one();
    until("it has arrived", async || nodes.gate.arrived.load(Ordering::SeqCst) == 1).await;
    assert_eq!(past(&nodes.all[0], 1).await, ["a", "c"], "it is a repetition of what is done");
    nodes.close().await;
}

#[tokio::test]
async fn one_that_closes_leaves_its_writes_and_its_claim_to_the_others() {
    let mut nodes = Nodes::open("resigned", "20ms").await;
    nodes.put(0, 1, "a").await;
    nodes.all.remove(0).close().await.unwrap();
    nodes.put(0, 1, "b").await;
    nodes.drained().await;
    assert_eq!(past(&nodes.all[0], 1).await.last().map(String::as_str), Some("b"));
    nodes.close().await;
}
