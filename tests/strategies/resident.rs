//! Residency, byte by byte: what a region must never hold is in no store, cache, file, log or dead letter there, through retries,
//! refusals, restarts and repairs.

use std::collections::BTreeMap;
use std::io::{Read as _, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value as Json, json};
use tracing_subscriber::EnvFilter;
use unisono::core::query::{Filter, Query};
use unisono::core::write::{Action, Condition, Write as OfRecord};
use unisono::core::{Context, Key, json as of_json};
use unisono::engine::CacheStatus;
use unisono::engine::verify::report::{Depth, VerifyOptions};
use unisono_testkit::remains::{files_with, holds};

use crate::site::{Declared, Site, until};

/// In every record that must not leave its region, and in no other.
const FORBIDDEN: &str = "XENOTARSOSAUR";
/// In the others, so that a search that finds nothing is known to look.
const ALLOWED: &str = "OKAPILIKE";

/// The truth, the journal and a follower of the own region, and everything that there is in the other one.
const SOURCES: [Declared; 11] = [
    ("main", "sqlite", "path = \"eu-main.db\"\nregion = \"eu\""),
    ("queue", "sqlite", "path = \"eu-queue.db\"\nregion = \"eu\""),
    ("copy", "mysql", "region = \"eu\""),
    ("docs", "mongodb", "region = \"us\""),
    ("fast", "redis", "region = \"us\""),
    ("find", "opensearch", "region = \"us\""),
    ("rows", "postgres", "region = \"us\""),
    ("tree", "files", "path = \"us-tree\"\nregion = \"us\""),
    ("words", "tantivy", "path = \"us-words\"\nregion = \"us\""),
    ("near", "memory", "region = \"us\""),
    ("shared", "redis", "region = \"us\""),
];

/// Those on servers of the other region.
const ELSEWHERE: [&str; 5] = ["docs", "fast", "find", "rows", "shared"];

/// An order is written to the truth and cached in the process; an invoice is written behind and cached in Redis.
fn entities() -> String {
    let entity = |name: &str, rest: &str| {
        let map = "map = { units = \"record.units / (record.units - 7) * 0 + record.units\" }";
        let follower = |source: &str| {
            let map = if source == "docs" { map } else { "" };
            format!("[[entities.{name}.followers]]\nsource = \"{source}\"\n{map}\n")
        };
        let followers = ["copy", "docs", "fast", "find", "rows", "tree", "words"].map(follower);
        format!(
            r#"
            [entities.{name}]
            truth = "main"
            {rest}
            [entities.{name}.fields]
            id = "string"
            country = "string"
            kind = "string"
            units = {{ type = "integer", required = true }}
            note = "text"
            extra = "json"
            [[entities.{name}.residency]]
            region = "us"
            forbid = "record.country == 'de'"
            {}
            "#,
            followers.concat()
        )
    };
    let behind = "cache = { source = \"shared\" }\nwrite = { strategy = \"write_behind\", journal = \"queue\" }";
    entity("order", "cache = { source = \"near\" }") + &entity("invoice", behind)
}

fn record(id: &str, country: &str, n: u64) -> Json {
    let marker = if country == "de" { FORBIDDEN } else { ALLOWED };
    json!({
        "id": id,
        "country": country,
        "kind": format!("{marker} {n}"),
        "units": n,
        "note": format!("the {marker} of {n}"),
        "extra": { "of": [marker], marker: n },
    })
}

async fn act(site: &Site, entity: &str, id: &str, action: Action) {
    let entity = Arc::clone(site.engine.entity(entity).unwrap());
    let key = Key::from_text(id).unwrap();
    let write = OfRecord { entity, key, action, condition: Condition::None };
    site.engine.write(&Context::default(), vec![write]).await.unwrap();
}

async fn put(site: &Site, entity: &str, record: Json) {
    let parsed = of_json::parse(site.engine.entity(entity).unwrap(), &record).unwrap();
    act(site, entity, record["id"].as_str().unwrap(), Action::Put(parsed)).await;
}

/// Reads a record several times, of which no forbidden state may come into a cache.
async fn read(site: &Site, entity: &str, id: &str) {
    let entity = site.engine.entity(entity).unwrap();
    for _ in 0..3 {
        let key = Key::from_text(id).unwrap();
        let answer = site.engine.get(&Context::default(), entity, &key).await.unwrap();
        let is_cached = matches!(
            answer.cache,
            CacheStatus::Hit { .. } | CacheStatus::Miss { stored: true, .. }
        );
        let is_forbidden = answer
            .value
            .is_some_and(|stored| of_json::to_json(entity, &stored.record)["country"] == "de");
        assert!(!(is_cached && is_forbidden), "{id} was taken into the cache");
    }
}

/// Records that come, change, move between the regions in both directions, and go; `from` tells those of one call.
async fn busy(site: &Site, from: u64) {
    for n in from..from + 24 {
        for entity in ["order", "invoice"] {
            let (de, fr) = (format!("a{n}"), format!("b{n}"));
            put(site, entity, record(&de, "de", n)).await;
            put(site, entity, record(&fr, "fr", n)).await;
            read(site, entity, &de).await;
            read(site, entity, &fr).await;
            act(site, entity, &de, Action::Patch(json!({ "note": format!("again {FORBIDDEN}") })))
                .await;
            match n % 4 {
                0 => put(site, entity, record(&fr, "de", n)).await,
                1 => put(site, entity, record(&de, "fr", n)).await,
                2 => act(site, entity, &de, Action::Delete).await,
                _ => {}
            }
            read(site, entity, &de).await;
            read(site, entity, &fr).await;
        }
    }
    let entity = site.engine.entity("order").unwrap();
    let words = Query { search: Some(FORBIDDEN.to_lowercase()), ..Query::all() };
    // Whoever searches there does not find it.
    let found = site.engine.query(&Context::default(), entity, &words).await.unwrap();
    assert_eq!(found.value.hits.len(), 0, "{:?}", found.source);
    site.engine.count(&Context::default(), entity, &Filter::All, None).await.unwrap();
}

/// What the process says of itself.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Said {
    fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The logs of servers, and how long they are.
fn logs() -> BTreeMap<PathBuf, u64> {
    fn below(folder: &Path, found: &mut BTreeMap<PathBuf, u64>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            match entry.metadata() {
                Ok(of) if of.is_dir() => below(&path, found),
                Ok(of) if name.to_string_lossy().contains("log") => {
                    found.insert(path, of.len());
                }
                _ => {}
            }
        }
    }
    let base = std::env::var_os("UNISONO_ENGINES").unwrap_or("/tmp/unisono-engines".into());
    let mut found = BTreeMap::new();
    for kind in ["mongodb", "redis", "opensearch", "postgres"] {
        below(&Path::new(&base).join(kind), &mut found);
    }
    found
}

/// What came to a log since it was so long.
fn since(path: &Path, length: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A log that was begun anew is read from its begin.
    let is_read = std::fs::File::open(path).and_then(|mut log| {
        let from = if log.metadata()?.len() < length { 0 } else { length };
        log.seek(SeekFrom::Start(from))?;
        log.read_to_end(&mut bytes)
    });
    // One that is gone says nothing any more.
    is_read.map_or(Vec::new(), |_| bytes)
}

async fn repaired(site: &Site) {
    let options = VerifyOptions { depth: Depth::Deep, repair: true, ..VerifyOptions::default() };
    site.engine.verify(&options, &|_| {}).await.unwrap();
}

/// Waits until what waits in the journal is committed, and delivered.
async fn settled(site: &Site) {
    until("an empty journal", async || {
        site.engine.status().await.journals.iter().all(|journal| journal.pending == 0)
    })
    .await;
    site.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_not_leave_its_region_is_in_no_byte_elsewhere() {
    let (said, before) = (Said::default(), logs());
    let writer = said.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("info,unisono=trace"))
        .with_writer(move || writer.clone())
        .with_ansi(false);
    subscriber.init();
    let site = Site::open_all(&SOURCES, "region = \"eu\"", &entities()).await;
    site.settled().await;
    busy(&site, 0).await;
    settled(&site).await;
    // Seven of something is what a `map` cannot work out.
    let letters = site.engine.dead_letters().await.unwrap();
    let told: Vec<_> = letters.iter().map(|l| (&*l.source, l.key.as_str())).collect();
    assert!(told.contains(&("docs", "b7")) && !told.contains(&("docs", "a7")), "{letters:?}");
    let mut told = format!("{letters:?}");

    // Lines fail in the midst of it, and everything is tried again.
    for (n, source) in ["docs", "fast", "find", "rows", "tree", "words"].into_iter().enumerate() {
        site.cut(source, true);
        busy(&site, 100 * (n as u64 + 1)).await;
        site.cut(source, false);
    }
    settled(&site).await;
    let site = site.restart().await;
    settled(&site).await;
    busy(&site, 1000).await;
    settled(&site).await;
    // What is lost comes again, and only what may.
    site.wipe("fast").await;
    for source in ["docs", "find", "rows", "tree", "words"] {
        for entity in ["order", "invoice"] {
            site.engine.backfill(entity, source).await.unwrap();
        }
    }
    settled(&site).await;
    repaired(&site).await;
    let letters = site.engine.dead_letters().await.unwrap();
    for letter in &letters {
        site.engine.replay(letter).await.unwrap();
    }
    told += &format!("{letters:?}");
    let status = serde_json::to_string(&site.engine.status().await).unwrap();
    // With states that can be worked out everything agrees.
    for letter in letters {
        put(&site, &letter.entity, record(&letter.key, "fr", 8)).await;
    }
    settled(&site).await;

    for source in ELSEWHERE {
        let dump = site.dump(source).await;
        assert!(!holds(dump.as_bytes(), FORBIDDEN), "{source} holds it: {dump}");
        // What may be there is there: the caches hold what was read last.
        assert!(holds(dump.as_bytes(), ALLOWED), "{source} is looked at: {dump}");
    }
    let files = |text| -> Vec<String> {
        let found = files_with(site.folder.path(), text).into_iter();
        found.map(|p| p.strip_prefix(site.folder.path()).unwrap().display().to_string()).collect()
    };
    let (forbidden, allowed) = (files(FORBIDDEN), files(ALLOWED));
    assert!(forbidden.iter().all(|file| file.starts_with("eu-")), "{forbidden:?}");
    for place in ["us-tree", "us-words"] {
        assert!(allowed.iter().any(|file| file.starts_with(place)), "{place}: {allowed:?}");
    }
    assert!(forbidden.iter().any(|file| file.starts_with("eu-main")), "the truth has it");
    assert!(holds(site.dump("copy").await.as_bytes(), FORBIDDEN), "so has who may have it");
    assert!(!holds(told.as_bytes(), FORBIDDEN), "dead letters: {told}");
    assert!(!holds(status.as_bytes(), FORBIDDEN), "status: {status}");
    let said = said.bytes();
    assert!(said.len() > 1000 && !holds(&said, FORBIDDEN), "{}", String::from_utf8_lossy(&said));
    for (path, length) in before {
        assert!(!holds(&since(&path, length), FORBIDDEN), "{} holds it", path.display());
    }
    site.end().await;
}
