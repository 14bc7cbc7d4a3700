//! Erasing persons over real servers: what is personal is in no dump of PostgreSQL and under no key of Redis, as a follower and
//! as a cache, before and after; and it is in a follower that is declared `clear`, until it is erased.
//!
//! ```text
//! engines/up postgres redis
//! cargo test -p unisono-tests --features full --test erased
//! ```
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

#[path = "../behaviour/engines/dump.rs"]
mod dump;
#[path = "../behaviour/engines/mod.rs"]
mod engines;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value as Json, json};
use unisono::core::stream::NewEvent;
use unisono::engine::stream::Appending;
use unisono::{Registry, Unisono, config};
use unisono_core::Context;
use unisono_core::kind::{OptionValue, Options};

const SECRET: &str = "QUAGGA";
const PLAIN: &str = "OKAPI";

fn section(kind: &str, namespace: &str) -> String {
    let base = std::env::var_os("UNISONO_ENGINES").unwrap_or("/tmp/unisono-engines".into());
    let file = PathBuf::from(base).join(kind).join("source.toml");
    let text = std::fs::read_to_string(&file)
        .unwrap_or_else(|_| String::from("# start it: engines/up ") + kind);
    let lines = text.lines().filter(|line| !line.starts_with("replicas = ["));
    lines.collect::<Vec<_>>().join("\n").replace("{namespace}", namespace)
}

fn options(section: &str) -> Options {
    let table: toml::Table = toml::from_str(section).unwrap();
    let text = |(name, value): (String, toml::Value)| {
        Some((name, OptionValue::Text(value.as_str()?.to_owned())))
    };
    Options(table.into_iter().filter_map(text).collect())
}

/// Everything that a source on a server holds.
async fn dump(kind: &str, section: &str) -> String {
    dump::of(kind, &options(section)).await
}

/// A truth in PostgreSQL, a follower and a cache in Redis, and a follower in PostgreSQL that has all as it is.
struct Site {
    folder: tempfile::TempDir,
    truth: String,
    clear: String,
    redis: String,
}

impl Site {
    fn new() -> Self {
        let name = format!("t{}_erasure", std::process::id());
        Site {
            folder: tempfile::tempdir().unwrap(),
            truth: section("postgres", &name),
            clear: section("postgres", &format!("{name}c")),
            redis: section("redis", &name),
        }
    }

    async fn open(&self) -> Unisono {
        let Site { folder, truth, clear, redis } = self;
        let text = format!(
            r#"
data = "{}"
[personal]
keys = "keys"
secret = "a2V5IG9mIGtleXMgZm9yIHRlc3RzLCAzMiBieXRlcyE="
[sources.keys]
kind = "sqlite"
path = "keys.db"
[sources.main]
kind = "postgres"
{truth}
[sources.clear]
kind = "postgres"
{clear}
[sources.fast]
kind = "redis"
{redis}
[sources.near]
kind = "redis"
{}
[entities.person]
truth = "main"
cache = {{ source = "near" }}
personal = {{ fields = ["name", "profile.mail"], subject = "id" }}
fields = {{ id = "string", name = "string", profile = "json", city = "string" }}
followers = [{{ source = "fast", format = "json" }}, {{ source = "clear", clear = true }}]
[streams.order]
truth = "main"
personal = {{ fields = ["data.address"], subject = "data.user" }}
followers = [{{ source = "fast", format = "json" }}]
"#,
            folder.path().display(),
            redis.replace("_erasure\"", "_erasurec\"")
        );
        let parsed = config::parse(&text, "erasure.toml", &Registry::builtin(), &config::Process);
        Unisono::open(parsed.map_err(|problems| problems.to_string()).unwrap()).await.unwrap()
    }
}

async fn put(unisono: &Unisono, id: &str, name: &str) {
    let people = unisono.entity::<Json>("person").unwrap();
    let mail = format!("{name}@example.org");
    let record = json!({ "id": id, "name": name, "profile": { "mail": mail, "tier": PLAIN }, "city": PLAIN });
    people.put(&record).await.unwrap();
    assert_eq!(people.get(id).await.unwrap().unwrap()["name"], name);
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_hold_nothing_personal_and_a_clear_one_only_until_it_is_erased() {
    let site = Site::new();
    let unisono = site.open().await;
    let engine = unisono.engine();
    put(&unisono, "7", &format!("Kim {SECRET}")).await;
    put(&unisono, "8", &format!("Ann {SECRET}")).await;
    put(&unisono, "7", &format!("Kim the {SECRET}")).await;
    let data = json!({ "user": "7", "address": [SECRET], "total": PLAIN });
    let orders = unisono.streams::<Json>("order").unwrap();
    let placed = vec![NewEvent::new("placed", data)];
    orders.append_events(Appending::to("o1", placed)).await.unwrap();
    let limit = Duration::from_secs(60);
    engine.wait_applied(&engine.head_token().await.unwrap(), limit).await.unwrap();

    let (truth, fast) = (dump("postgres", &site.truth).await, dump("redis", &site.redis).await);
    for (of, dump) in [("PostgreSQL", &truth), ("Redis", &fast)] {
        assert!(dump.contains(PLAIN), "{of} is looked at: {dump}");
        assert!(!dump.contains(SECRET), "{of} holds it: {dump}");
    }
    assert!(fast.contains("_erasurec:"), "the cache is looked at: {fast}");
    assert!(dump("postgres", &site.clear).await.contains(&format!("Kim the {SECRET}")));

    let erased = engine.erase_subject(&Context::default(), "7").await.unwrap();
    assert_eq!((erased.keys, erased.pending), (1, Vec::new()));
    let clear = dump("postgres", &site.clear).await;
    assert!(!clear.contains("Kim") && clear.contains(&format!("Ann {SECRET}")), "{clear}");
    let people = unisono.entity::<Json>("person").unwrap();
    assert_eq!(people.get("7").await.unwrap().unwrap()["name"], Json::Null);
    assert_eq!(people.get("8").await.unwrap().unwrap()["name"], format!("Ann {SECRET}"));
    assert_eq!(people.history("7", 10).await.unwrap().len(), 2);
    for change in people.history("7", 10).await.unwrap() {
        assert!(!format!("{change:?}").contains(SECRET), "{change:?}");
    }
    unisono.close().await.unwrap();
    for (engine, of) in
        [("postgres", &site.truth), ("postgres", &site.clear), ("redis", &site.redis)]
    {
        engines::wipe(engine, &options(of)).await.unwrap();
    }
    let cache = site.redis.replace("_erasure\"", "_erasurec\"");
    engines::wipe("redis", &options(&cache)).await.unwrap();
}
