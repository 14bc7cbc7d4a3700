//! [`Site`]: an engine over a truth in PostgreSQL and followers on other servers, each at the end of a line that can be cut or
//! made slow, in namespaces of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value as Json;
use unisono::config::{self, Process};
use unisono::core::kind::{OptionValue, Options};
use unisono::core::source::{Reader, Source};
use unisono::core::write::{Action, Condition, Write};
use unisono::core::{Ack, Consistency, Context, Entity, Key, Position, Result, json as of_json};
use unisono::engine::status::{DeliveryState, DeliveryStatus};
use unisono::engine::verify::report::{Depth, VerifyOptions};
use unisono::engine::{Engine, Runtime, Written};
use unisono::{Registry, open_sources};
use unisono_testkit::link::Link;

use crate::{dump, engines};

/// How long anything may take that comes by itself.
const LIMIT: Duration = Duration::from_secs(90);

/// A source that a test declares: its name and its kind, and what stands beside the address.
pub(crate) type Declared = (&'static str, &'static str, &'static str);

/// The truth, and followers on four servers.
pub(crate) const SERVERS: [Declared; 5] = [
    ("main", "postgres", ""),
    ("fast", "redis", ""),
    ("find", "opensearch", ""),
    ("docs", "mongodb", ""),
    ("copy", "mysql", ""),
];

/// An engine, and the lines to its sources.
pub(crate) struct Site {
    pub(crate) folder: tempfile::TempDir,
    text: String,
    /// Kind and options of what is on a server.
    servers: BTreeMap<&'static str, (&'static str, String)>,
    pub(crate) engine: Engine,
    sources: BTreeMap<Arc<str>, Arc<dyn Source>>,
    cuts: BTreeMap<Arc<str>, Arc<AtomicBool>>,
    links: BTreeMap<Arc<str>, Arc<Link>>,
}

/// The options of a source on a server that runs, as they stand in a configuration.
fn section(kind: &str, namespace: &str) -> String {
    let base = std::env::var_os("UNISONO_ENGINES").unwrap_or("/tmp/unisono-engines".into());
    let file = PathBuf::from(base).join(kind).join("source.toml");
    let said = std::fs::read_to_string(&file)
        .unwrap_or_else(|e| panic!("{}: {e}\n    start it: engines/up {kind}", file.display()));
    let lines = said.lines().filter(|line| !line.starts_with("replicas = ["));
    lines.map(|line| line.replace("{namespace}", namespace) + "\n").collect()
}

fn options(section: &str) -> Options {
    let table: toml::Table = toml::from_str(section).unwrap();
    let text = |(name, value): (String, toml::Value)| {
        Some((name, OptionValue::Text(value.as_str()?.to_owned())))
    };
    Options(table.into_iter().filter_map(text).collect())
}

impl Site {
    /// Sources, and the entity `order` as `rest` has it, from which `[entities.order]` and `truth` are left out.
    pub(crate) async fn open(declared: &[Declared], rest: &str) -> Site {
        let entity = format!("[entities.order]\ntruth = \"main\"\n{rest}{FIELDS}");
        Self::open_all(declared, "", &entity).await
    }

    /// The same with what stands at the `top` of a configuration, and any entities.
    pub(crate) async fn open_all(declared: &[Declared], top: &str, entities: &str) -> Site {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut servers = BTreeMap::new();
        let mut text = format!("{top}\n[sweep]\nevery = \"0s\"\n");
        for (name, kind, beside) in declared {
            text += &format!("[sources.{name}]\nkind = \"{kind}\"\n{beside}\n");
            if !beside.contains("path = ") && *kind != "memory" {
                let said = section(kind, &format!("t{}_{number}{name}", std::process::id()));
                text += &said;
                servers.insert(*name, (*kind, said));
            }
        }
        text += entities;
        let folder = tempfile::tempdir().unwrap();
        let cuts: BTreeMap<Arc<str>, _> =
            declared.iter().map(|(name, ..)| ((*name).into(), Arc::default())).collect();
        let (engine, sources, links) = start(&text, &folder, &cuts).await;
        Site { folder, text, servers, engine, sources, cuts, links }
    }

    /// Ends the engine, and begins again.
    pub(crate) async fn restart(mut self) -> Site {
        self.engine.close().await.unwrap();
        (self.engine, self.sources, self.links) = start(&self.text, &self.folder, &self.cuts).await;
        self
    }

    /// Cuts the line to a source, or makes it whole.
    pub(crate) fn cut(&self, source: &str, cut: bool) {
        self.cuts[source].store(cut, Ordering::Relaxed);
    }

    /// Has every call to a source take so much longer.
    pub(crate) fn delay(&self, source: &str, by: Duration) {
        self.links[source].delay(by);
    }

    pub(crate) fn entity(&self) -> &Arc<Entity> {
        self.engine.entity("order").unwrap()
    }

    /// Writes an order, as declared or with an `ack` of its own.
    pub(crate) async fn put_with(&self, ack: Option<Ack>, record: &Json) -> Result<Written> {
        let entity = self.entity();
        let record = of_json::parse(entity, record).unwrap();
        let (key, action) = (entity.key_of(&record).unwrap(), Action::Put(record));
        let write = Write { entity: Arc::clone(entity), key, action, condition: Condition::None };
        let context = Context { ack, ..Context::default() };
        self.engine.write(&context, vec![write]).await
    }

    pub(crate) async fn put(&self, record: &Json) -> Written {
        self.put_with(None, record).await.unwrap()
    }

    /// A record as a source holds it, asked past the line and the engine.
    pub(crate) async fn held(&self, source: &str, id: &str) -> Option<Json> {
        let reader = self.reader(source);
        let entity = self.entity();
        let key = Key::from_text(id).unwrap();
        let found = reader.get(entity, &[key]).await.unwrap().value.remove(0);
        found.map(|stored| of_json::to_json(entity, &stored.record))
    }

    /// How many of some records a source holds.
    pub(crate) async fn holds(&self, source: &str, ids: &[String]) -> usize {
        let keys: Vec<Key> = ids.iter().map(|id| Key::from_text(id).unwrap()).collect();
        let found = self.reader(source).get(self.entity(), &keys).await.unwrap().value;
        found.iter().flatten().count()
    }

    fn reader(&self, source: &str) -> Arc<dyn Reader> {
        Arc::clone(&self.sources[source]).reader().unwrap()
    }

    pub(crate) async fn delivery(&self, source: &str) -> DeliveryStatus {
        let status = self.engine.status().await;
        status.deliveries.into_iter().find(|d| *d.source == *source).unwrap()
    }

    /// The head of the log of the truth.
    pub(crate) async fn head(&self) -> Position {
        self.engine.logs().await.unwrap()[0].1.head
    }

    /// A read that says who has answered.
    pub(crate) async fn read(&self, id: &str, hints: &[&str]) -> Result<(Option<Json>, String)> {
        let entity = self.entity();
        let context = Context {
            consistency: Consistency::Eventual,
            hints: hints.iter().map(|hint| (*hint).into()).collect(),
            ..Context::default()
        };
        let answer = self.engine.get(&context, entity, &Key::from_text(id).unwrap()).await?;
        let record = answer.value.map(|stored| of_json::to_json(entity, &stored.record));
        Ok((record, answer.source.to_string()))
    }

    /// Waits until every follower has everything.
    pub(crate) async fn settled(&self) {
        let token = self.engine.head_token().await.unwrap();
        self.engine.wait_applied(&token, LIMIT).await.unwrap();
        until("live followers", async || {
            let status = self.engine.status().await;
            status.deliveries.iter().all(|d| d.state == DeliveryState::Live)
        })
        .await;
    }

    /// What a promise of agreement comes down to: nothing is a dead letter, and every follower holds what it is to hold, by
    /// its versions and by every byte of its data.
    pub(crate) async fn agrees(&self) {
        self.settled().await;
        assert_eq!(self.engine.dead_letters().await.unwrap(), []);
        for depth in [Depth::Observed, Depth::Deep] {
            let options = VerifyOptions { depth, ..VerifyOptions::default() };
            let report = self.engine.verify(&options, &|_| {}).await.unwrap();
            assert!(report.agrees(), "{report:?}");
            let followers = self.engine.status().await.deliveries.len();
            assert_eq!(report.comparisons.len(), followers, "{report:?}");
        }
    }

    /// Loses everything that a source on a server holds, as by a mistake.
    pub(crate) async fn wipe(&self, source: &str) {
        let (kind, section) = &self.servers[source];
        engines::wipe(kind, &options(section)).await.unwrap();
    }

    /// Everything that a source on a server holds.
    pub(crate) async fn dump(&self, source: &str) -> String {
        let (kind, section) = &self.servers[source];
        dump::of(kind, &options(section)).await
    }

    /// Compares once more, ends the engine, and deletes what is on servers.
    pub(crate) async fn end(self) {
        self.agrees().await;
        self.engine.close().await.unwrap();
        for source in self.servers.keys() {
            self.wipe(source).await;
        }
    }
}

/// The fields of `order`.
pub(crate) const FIELDS: &str = r#"
[entities.order.fields]
id = "string"
kind = "string"
country = "string"
amount = "decimal(12,2)"
units = { type = "integer", required = true }
note = "text"
"#;

type Opened = (Engine, BTreeMap<Arc<str>, Arc<dyn Source>>, BTreeMap<Arc<str>, Arc<Link>>);

/// Opens what a configuration says, with a line to the truth and to each follower.
async fn start(
    text: &str,
    folder: &tempfile::TempDir,
    cuts: &BTreeMap<Arc<str>, Arc<AtomicBool>>,
) -> Opened {
    let registry = Registry::builtin();
    let parsed = config::parse(text, "strategies.toml", &registry, &Process);
    let mut configuration = parsed.unwrap_or_else(|problems| panic!("{problems}\n{text}"));
    configuration.data = folder.path().to_owned();
    let runtime = Runtime::system();
    let sources = open_sources(&configuration, &registry, &runtime).await.unwrap();
    let declaration = configuration.declaration;
    let feeds = |name: &Arc<str>| {
        let keeps = |e: &unisono::policy::declaration::EntityDeclaration| {
            e.truth == *name || e.followers.iter().any(|f| f.source == *name)
        };
        declaration.entities.values().any(keeps)
    };
    let lines = sources.iter().filter(|(name, _)| feeds(name)).zip(0..);
    let links: BTreeMap<_, _> = lines
        .map(|((name, source), seed)| {
            (Arc::clone(name), Link::new(Arc::clone(source), &cuts[name], seed))
        })
        .collect();
    let lined = sources.iter().map(|(name, source)| match links.get(name) {
        Some(link) => (Arc::clone(name), Arc::clone(link) as Arc<dyn Source>),
        None => (Arc::clone(name), Arc::clone(source)),
    });
    let lined = lined.collect();
    let (engine, _) = Engine::open(declaration, lined, runtime).await.unwrap();
    (engine, sources, links)
}

/// Waits for what is to come to be.
pub(crate) async fn until(what: &str, mut is: impl AsyncFnMut() -> bool) {
    let looking = async {
        while !is().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(LIMIT, looking).await;
    waited.unwrap_or_else(|_| panic!("{what} did not come to be"));
}
