//! The running cluster, sources over it in a namespace of their own, and a look at it from outside.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::Method;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value as Json;
use unisono_core::kind::{Environment, OptionValue, Options, SourceKind};
use unisono_core::source::{
    Advance, Applied, Auditor, Batch, Binding, Checkpoint, Follower, Outcome, Reader, Source,
};
use unisono_core::{Change, Entity, Key, Position, Result, Role, Stored};
use unisono_source_opensearch::Opensearch;
use unisono_testkit::{Changes, ManualClock};

/// The cluster that `engines/up` has started, and a namespace in it.
pub(crate) struct Server {
    options: BTreeMap<String, String>,
    http: reqwest::Client,
}

impl Server {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let base = std::env::var_os("UNISONO_ENGINES").unwrap_or("/tmp/unisono-engines".into());
        let file = PathBuf::from(base).join("opensearch/source.toml");
        let text = std::fs::read_to_string(&file)
            .unwrap_or_else(|e| panic!("{}: {e}: start it: engines/up opensearch", file.display()));
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let text = text.replace("{namespace}", &format!("e{}_{count}", std::process::id()));
        let options: BTreeMap<String, toml::Value> = toml::from_str(&text).unwrap();
        let text = |value: toml::Value| value.as_str().map(str::to_owned);
        let options: BTreeMap<_, _> =
            options.into_iter().filter_map(|(name, value)| Some((name, text(value)?))).collect();
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(trusting(&options["tls_ca"]))
            .timeout(Duration::from_secs(30))
            .build()
            .unwrap();
        Server { options, http }
    }

    /// An option as it is written in the file.
    pub(crate) fn option(&self, name: &str) -> &str {
        &self.options[name]
    }

    /// Opens a source with some options given otherwise; an empty one is left out.
    pub(crate) async fn open_with(&self, given: &[(&str, &str)]) -> Result<Arc<dyn Source>> {
        let mut options = self.options.clone();
        options.extend(given.iter().map(|(name, value)| ((*name).into(), (*value).into())));
        options.retain(|_, value| !value.is_empty());
        let mut options: BTreeMap<_, _> =
            options.into_iter().map(|(name, value)| (name, OptionValue::Text(value))).collect();
        options.insert("replicas".to_owned(), OptionValue::Integer(0));
        let options = Options(options);
        assert_eq!(Opensearch.check(&options), []);
        let clock = Arc::new(ManualClock::new());
        let environment = Environment { data: std::env::temp_dir(), clock };
        Opensearch.open("search", &options, &environment).await
    }

    /// Opens a source and prepares an entity.
    pub(crate) async fn follow(&self, entity: &Arc<Entity>) -> Followed {
        let source = self.open_with(&[]).await.unwrap();
        source.prepare(&[binding(entity)]).await.unwrap();
        Followed { source, entity: Arc::clone(entity), changes: Changes::new(), checkpoint: None }
    }

    /// Asks the cluster from outside; `path` is below the namespace's prefix.
    pub(crate) async fn ask(&self, method: Method, path: &str, body: Json) -> Json {
        let url = format!("{}/{}{path}", self.option("url"), self.option("prefix"));
        self.send(method, url, body).await
    }

    /// Asks the cluster from outside, about anything.
    pub(crate) async fn ask_all(&self, method: Method, path: &str, body: Json) -> Json {
        self.send(method, format!("{}{path}", self.option("url")), body).await
    }

    async fn send(&self, method: Method, url: String, body: Json) -> Json {
        let mut request = self.http.request(method, url);
        if !body.is_null() {
            request = request.json(&body);
        }
        request.send().await.unwrap().json().await.unwrap()
    }

    /// The indexes behind an alias, without their prefix.
    pub(crate) async fn behind(&self, alias: &str) -> Vec<String> {
        let found = self.ask(Method::GET, alias, Json::Null).await;
        let names = found.as_object().into_iter().flatten().map(|(name, _)| name.clone());
        let prefix = self.option("prefix");
        names.filter_map(|name| name.strip_prefix(prefix).map(str::to_owned)).collect()
    }

    /// How many documents a query of another program finds, after a refresh.
    pub(crate) async fn count(&self, index: &str, query: Json) -> u64 {
        self.ask(Method::POST, &format!("{index}/_refresh"), Json::Null).await;
        let body = serde_json::json!({"query": query});
        let found = self.ask(Method::POST, &format!("{index}/_count"), body).await;
        found["count"].as_u64().unwrap_or_else(|| panic!("{found}"))
    }

    /// Deletes everything in the namespace.
    pub(crate) async fn wipe(&self) {
        self.ask(Method::DELETE, "*", Json::Null).await;
    }
}

fn trusting(authorities: &str) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authorities).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap();
    config.with_root_certificates(roots).with_no_client_auth()
}

pub(crate) fn binding(entity: &Arc<Entity>) -> Binding {
    let (entity, place) = (Arc::clone(entity), Arc::clone(entity.name()));
    Binding { entity, role: Role::Follower, place, options: Options::default() }
}

/// A source that follows one entity, and the log that it is fed from.
pub(crate) struct Followed {
    pub(crate) source: Arc<dyn Source>,
    pub(crate) entity: Arc<Entity>,
    pub(crate) changes: Changes,
    pub(crate) checkpoint: Option<Checkpoint>,
}

impl Followed {
    pub(crate) fn follower(&self) -> Arc<dyn Follower> {
        Arc::clone(&self.source).follower().unwrap()
    }

    pub(crate) fn reader(&self) -> Arc<dyn Reader> {
        Arc::clone(&self.source).reader().unwrap()
    }

    pub(crate) fn auditor(&self) -> Arc<dyn Auditor> {
        Arc::clone(&self.source).auditor().unwrap()
    }

    pub(crate) fn batch(&self, changes: &[Arc<Change>]) -> Batch {
        let (entity, changes) = (Arc::clone(&self.entity), changes.to_vec());
        Batch { entity, changes, copied: false, advance: None }
    }

    /// Applies changes without moving the checkpoint.
    pub(crate) async fn apply(&self, changes: &[Arc<Change>]) -> Vec<&'static str> {
        words(&self.follower().apply(self.batch(changes)).await.unwrap())
    }

    /// Applies changes and moves the checkpoint.
    pub(crate) async fn advance(&mut self, changes: &[Arc<Change>], to: Position) {
        let to = Checkpoint { log: self.changes.log, position: to, backfill: None };
        self.move_to(changes, to).await;
    }

    pub(crate) async fn move_to(&mut self, changes: &[Arc<Change>], to: Checkpoint) {
        let advance = Advance { from: self.checkpoint.clone(), to: to.clone() };
        let batch = Batch { advance: Some(advance), ..self.batch(changes) };
        let applied = self.follower().apply(batch).await.unwrap();
        assert!(applied.advanced, "{:?}", applied.outcomes);
        self.checkpoint = Some(to);
    }

    pub(crate) async fn get(&self, key: &Key) -> Option<Stored> {
        let found = self.reader().get(&self.entity, std::slice::from_ref(key)).await.unwrap();
        found.value.into_iter().next().flatten()
    }

    pub(crate) async fn stored_checkpoint(&self) -> Option<Checkpoint> {
        self.follower().checkpoint(&self.entity).await.unwrap()
    }
}

pub(crate) fn words(applied: &Applied) -> Vec<&'static str> {
    let word = |outcome: &Outcome| match outcome {
        Outcome::Applied => "applied",
        Outcome::Stale => "stale",
        Outcome::Rejected(_) => "rejected",
        Outcome::Retry(_) => "retry",
    };
    applied.outcomes.iter().map(word).collect()
}
