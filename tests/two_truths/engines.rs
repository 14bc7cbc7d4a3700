//! Two truths that follow each other on real engines: PostgreSQL and MariaDB, PostgreSQL and SQLite; the lines between them
//! are cut and made whole, and their clocks differ. `engines/up postgres mysql` first.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

#[path = "../behaviour/engines/mysql.rs"]
mod mysql;
#[path = "../behaviour/engines/postgres.rs"]
mod postgres;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde_json::{Value as Json, json};
use unisono::config::{self, Process};
use unisono::core::clock::{Clock, SystemClock};
use unisono::core::kind::{OptionValue, Options};
use unisono::core::{Key, Position, Timestamp, json as of_json};
use unisono::engine::Runtime;
use unisono::engine::sync::Reason;
use unisono::{Handle, Registry, Unisono};
use unisono_testkit::proxy::{Network, Proxy};

const ENTITY: &str = r#"
key = "id"
[entities.item.fields]
id = "string"
name = "string"
price = "decimal(12,2)"
stock = { type = "integer", required = true }
code = { type = "string", unique = true, max_length = 40 }
tags = { type = "list", of = "string" }
changed = "timestamp"
[entities.item.sync]
fields = { stock = "counter", tags = "union" }
"#;

/// The machine's clock, and how far this one is off, in microseconds.
struct SkewedClock(Arc<AtomicI64>);

impl Clock for SkewedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros_clamped(SystemClock.now().micros() + self.0.load(Ordering::Relaxed))
    }
}

/// The options of an engine's source, and the same through a proxy.
async fn source(kind: &str, namespace: &str) -> (String, String, Proxy) {
    let base = std::env::var_os("UNISONO_ENGINES").unwrap_or("/tmp/unisono-engines".into());
    let file = PathBuf::from(base).join(kind).join("source.toml");
    let said = std::fs::read_to_string(&file)
        .unwrap_or_else(|e| panic!("{}: {e}\n    start it: engines/up {kind}", file.display()));
    let said: String = said.replace("{namespace}", namespace);
    let said: String = said
        .lines()
        .filter(|line| !line.starts_with("replicas"))
        .map(|l| format!("{l}\n"))
        .collect();
    let (_, after) = said.split_once("127.0.0.1:").unwrap();
    let port: String = after.chars().take_while(char::is_ascii_digit).collect();
    let proxy = Proxy::start(port.parse().unwrap()).await.unwrap();
    let through = said.replace(&port, &proxy.port().to_string());
    (format!("kind = \"{kind}\"\n{said}"), format!("kind = \"{kind}\"\n{through}"), proxy)
}

async fn open(
    own: (&str, &str),
    peer: (&str, &str),
    data: &Path,
    skew: &Arc<AtomicI64>,
) -> Unisono {
    let text = format!(
        "[sources.{}]\n{}\n[sources.{}]\n{}\n[entities.item]\ntruth = {:?}\n{ENTITY}with = {:?}\n",
        own.0, own.1, peer.0, peer.1, own.0, peer.0
    );
    let registry = Registry::builtin();
    let parsed = config::parse(&text, "test.toml", &registry, &Process);
    let mut configuration = parsed.unwrap_or_else(|problems| panic!("{problems}"));
    configuration.data = data.to_owned();
    let runtime = Runtime::seeded(Arc::new(SkewedClock(Arc::clone(skew))), 1);
    Unisono::open_with(configuration, &registry, runtime).await.unwrap()
}

async fn records(unisono: &Unisono) -> BTreeMap<Key, Json> {
    let entity = unisono.engine().entity("item").unwrap().clone();
    let (all, end) = unisono.engine().scan(&entity, None, 1000).await.unwrap();
    assert!(end);
    all.into_iter().map(|s| (s.key, of_json::to_json(&entity, &s.record))).collect()
}

/// Waits for a condition.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..1200 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it never came to this: {what}");
}

async fn agree(both: [&Unisono; 2]) {
    until("both hold the same", async || {
        let rest = async |unisono: &Unisono| {
            let sync = unisono.engine().status().await.syncs.remove(0);
            sync.behind == 0 && sync.held == 0 && sync.last_error.is_none()
        };
        rest(both[0]).await
            && rest(both[1]).await
            && records(both[0]).await == records(both[1]).await
    })
    .await;
}

async fn heads(both: [&Unisono; 2]) -> Vec<Position> {
    let mut heads = Vec::new();
    for unisono in both {
        heads.extend(unisono.engine().logs().await.unwrap().into_iter().map(|(_, b)| b.head));
    }
    heads
}

async fn add(items: &Handle<Json>, id: &str, more: i64) {
    let now = items.get(id).await.unwrap().unwrap();
    let stock = now["stock"].as_i64().unwrap() + more;
    items.patch(id, json!({ "stock": stock })).await.unwrap();
}

fn item(id: &str, name: &str, stock: i64, code: Option<&str>) -> Json {
    json!({ "id": id, "name": name, "price": "12.50", "stock": stock, "code": code,
            "tags": [name], "changed": "2026-01-02T03:04:05.678901Z" })
}

/// The whole story, whatever the engines are.
async fn story(east: &Unisono, west: &Unisono, lines: &[&Proxy], skew: &AtomicI64) {
    let both = [east, west];
    let items: [Handle<Json>; 2] = both.map(|unisono| unisono.entity("item").unwrap());
    // Both sides begin with data of their own.
    for n in 0..40 {
        items[n % 2].create(&item(&format!("i{n}"), "first", 10, None)).await.unwrap();
    }
    agree(both).await;
    assert_eq!(records(east).await.len(), 40);

    partition(east, west, &items, lines).await;
    skewed(east, west, &items, skew).await;
    unique(east, west, &items, lines).await;
}

/// The lines are cut; both sides go on, and write the same records.
async fn partition(east: &Unisono, west: &Unisono, items: &[Handle<Json>; 2], lines: &[&Proxy]) {
    let both = [east, west];
    lines.iter().for_each(|line| line.set(Network::Cut));
    for n in 0..10 {
        let id = format!("i{n}");
        add(&items[0], &id, 3).await;
        items[0].patch(&id, json!({ "name": format!("east {n}"), "tags": ["e"] })).await.unwrap();
        add(&items[1], &id, 4).await;
        items[1].patch(&id, json!({ "name": format!("west {n}"), "tags": ["w"] })).await.unwrap();
    }
    items[0].delete("i20").await.unwrap();
    items[1].patch("i20", json!({ "name": "too late" })).await.unwrap();
    items[0].delete("i21").await.unwrap();
    items[1].create(&item("i99", "new", 1, None)).await.unwrap();
    lines.iter().for_each(|line| line.set(Network::Whole));
    agree(both).await;
    let held = records(east).await;
    for n in 0..10 {
        let record = &held[&Key::from_text(&format!("i{n}")).unwrap()];
        assert_eq!(record["stock"], 17, "{record}");
        let mut tags: Vec<_> =
            record["tags"].as_array().unwrap().iter().map(Json::to_string).collect();
        tags.sort();
        assert_eq!(tags, ["\"e\"", "\"w\""], "{record}");
    }
    assert_eq!(held.len(), 39, "i20 and i21 are deleted, i99 is new");
    let conflicts = east.engine().conflicts(Some("item"), None, 1000).await.unwrap();
    let found = serde_json::to_string(&conflicts).unwrap();
    for n in 0..10 {
        let record = &held[&Key::from_text(&format!("i{n}")).unwrap()];
        let lost = if record["name"] == format!("east {n}") { "west" } else { "east" };
        assert!(found.contains(&format!("{lost} {n}")), "{lost} {n} is not recorded: {found}");
    }
    assert!(found.contains("too late"), "{found}");

    // Nothing goes to and fro.
    let before = heads(both).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(heads(both).await, before);
}

/// A clock that is ahead: what it wrote waits, and is not lost.
async fn skewed(east: &Unisono, west: &Unisono, items: &[Handle<Json>; 2], skew: &AtomicI64) {
    skew.store(4_000_000, Ordering::Relaxed);
    items[1].patch("i5", json!({ "name": "from the future" })).await.unwrap();
    let held = async || east.engine().status().await.syncs.remove(0).held_records;
    until("the record waits", async || held().await.iter().any(|h| h.reason == Reason::Clock))
        .await;
    items[0].patch("i6", json!({ "name": "goes on" })).await.unwrap();
    agree([east, west]).await;
    assert_eq!(items[0].get("i5").await.unwrap().unwrap()["name"], "from the future");
    skew.store(0, Ordering::Relaxed);
}

/// A unique value given away twice holds up those two records only.
async fn unique(east: &Unisono, west: &Unisono, items: &[Handle<Json>; 2], lines: &[&Proxy]) {
    let held = async || east.engine().status().await.syncs.remove(0).held_records;
    lines.iter().for_each(|line| line.set(Network::Cut));
    items[0].create(&item("u1", "east", 0, Some("same"))).await.unwrap();
    items[1].create(&item("u2", "west", 0, Some("same"))).await.unwrap();
    items[1].patch("i7", json!({ "name": "beside it" })).await.unwrap();
    lines.iter().for_each(|line| line.set(Network::Whole));
    until("the record is refused", async || {
        held().await.iter().any(|h| h.reason == Reason::Refused && h.key == "u2")
    })
    .await;
    until("others go on", async || {
        items[0].get("i7").await.unwrap().unwrap()["name"] == "beside it"
    })
    .await;
    items[1].patch("u2", json!({ "code": "other" })).await.unwrap();
    agree([east, west]).await;
    assert_eq!(records(east).await.len(), 41);
}

async fn wipe(kind: &str, source: &str) {
    let options: BTreeMap<String, OptionValue> = source
        .lines()
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, value)| {
            (name.to_owned(), OptionValue::Text(value.trim_matches('"').to_owned()))
        })
        .collect();
    match kind {
        "mysql" => mysql::wipe(&Options(options)).await.unwrap(),
        _ => postgres::wipe(&Options(options)).await.unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_and_mariadb() {
    let folder = tempfile::tempdir().unwrap();
    let (skews, name) =
        ([0, 300_000].map(|n| Arc::new(AtomicI64::new(n))), format!("tconf{}", std::process::id()));
    let (hq, hq_far, hq_line) = source("postgres", &name).await;
    let (branch, branch_far, branch_line) = source("mysql", &name).await;
    let east = open(("hq", &hq), ("branch", &branch_far), folder.path(), &skews[0]).await;
    let west = open(("branch", &branch), ("hq", &hq_far), folder.path(), &skews[1]).await;
    story(&east, &west, &[&hq_line, &branch_line], &skews[1]).await;
    east.close().await.unwrap();
    west.close().await.unwrap();
    wipe("postgres", &hq).await;
    wipe("mysql", &branch).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_and_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let (skews, name) = (
        [0, -300_000].map(|n| Arc::new(AtomicI64::new(n))),
        format!("tconfs{}", std::process::id()),
    );
    let (hq, hq_far, hq_line) = source("postgres", &name).await;
    let branch = "kind = \"sqlite\"\npath = \"branch.db\"".to_owned();
    // A file has no line that could be cut: this side always sees the other one.
    let east = open(("hq", &hq), ("branch", &branch), folder.path(), &skews[0]).await;
    let west = open(("branch", &branch), ("hq", &hq_far), folder.path(), &skews[1]).await;
    story(&east, &west, &[&hq_line], &skews[1]).await;
    east.close().await.unwrap();
    west.close().await.unwrap();
    wipe("postgres", &hq).await;
}
