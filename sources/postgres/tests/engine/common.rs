//! What the tests share: a schema of their own in the running server, and a client that looks at it from outside.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio_postgres::{Client, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;
use unisono_core::clock::SystemClock;
use unisono_core::kind::{Environment, OptionValue, Options, SourceKind};
use unisono_core::source::{Advance, Batch, Binding, Checkpoint, Source};
use unisono_core::write::{Action, Committed, Condition, Idempotency, Unit, Write};
use unisono_core::{Change, Entity, Field, Key, Position, Record, Result, Role, Timestamp, Uuid};
use unisono_source_postgres::Postgres;

/// The longest that anything is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A schema that no other test uses; dropped when the test ends well.
pub(crate) struct Database {
    /// Its name.
    pub(crate) schema: String,
    /// Where sources connect to.
    pub(crate) url: String,
    /// Where the server itself is.
    direct: String,
    /// The file of the authority that signed the server's certificate; none for a server without TLS.
    pub(crate) ca: Option<PathBuf>,
}

impl Database {
    /// In the server that `engines/up postgres` has started.
    pub(crate) fn new() -> Self {
        let url = setting("source.toml", "url");
        let ca = Some(setting("source.toml", "tls_ca").into());
        Database { direct: url.clone(), ca, ..Database::at(&url) }
    }

    /// In the same server, reached through PgBouncer in transaction mode.
    pub(crate) fn behind_bouncer() -> Self {
        Database { url: setting("source-pgbouncer.toml", "url"), ..Database::new() }
    }

    /// In a server without TLS.
    pub(crate) fn at(url: &str) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let schema = format!("tk{}_{number}", std::process::id());
        Database { schema, url: url.to_owned(), direct: url.to_owned(), ca: None }
    }

    /// The options of a source over it.
    pub(crate) fn options(&self) -> Options {
        self.options_at(&self.url)
    }

    /// The options of a source over it that is reached in another way.
    pub(crate) fn options_at(&self, url: &str) -> Options {
        let mut options = Options::default();
        let mut set = |name: &str, value| options.0.insert(name.to_owned(), value);
        set("url", OptionValue::Text(url.to_owned()));
        set("schema", OptionValue::Text(self.schema.clone()));
        if let Some(ca) = &self.ca {
            set("tls_ca", OptionValue::Text(ca.display().to_string()));
        }
        set("pool", OptionValue::Integer(4));
        set("prepared", OptionValue::Boolean(true));
        set("pipelining", OptionValue::Boolean(true));
        set("connect_timeout", OptionValue::Duration(Duration::from_secs(5)));
        set("request_timeout", OptionValue::Duration(Duration::from_secs(20)));
        options
    }

    /// A source over it, not prepared.
    pub(crate) async fn open(&self) -> Arc<dyn Source> {
        open(&self.options()).await.expect("the source opens")
    }

    /// A source over it that holds entities in a role.
    pub(crate) async fn prepared(&self, role: Role, entities: &[&Arc<Entity>]) -> Arc<dyn Source> {
        let source = self.open().await;
        prepare(&source, role, entities).await.expect("the source can be prepared");
        source
    }

    /// A client of the server itself, past the source, that looks into the schema.
    pub(crate) async fn outside(&self) -> Client {
        let client = connect(&self.direct, self.ca.as_deref()).await.expect("the server is there");
        client.batch_execute(&format!("SET search_path = {}", self.schema)).await.unwrap();
        client
    }

    /// The first column of a statement's rows, as text, seen from outside.
    pub(crate) async fn see(&self, sql: &str) -> Vec<String> {
        column(&self.outside().await, sql).await
    }

    /// Drops it.
    pub(crate) async fn drop(self) {
        let sql = format!("DROP SCHEMA IF EXISTS {} CASCADE", self.schema);
        self.outside().await.batch_execute(&sql).await.expect("the schema can be dropped");
    }
}

/// What `engines/up postgres` has written down.
fn setting(file: &str, name: &str) -> String {
    let base = std::env::var_os("UNISONO_ENGINES").unwrap_or("/tmp/unisono-engines".into());
    let file = Path::new(&base).join("postgres").join(file);
    let text = std::fs::read_to_string(&file)
        .unwrap_or_else(|e| panic!("{}: {e}\n    start it: engines/up postgres", file.display()));
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} = ")));
    line.unwrap_or_else(|| panic!("{} has no {name}", file.display())).trim_matches('"').to_owned()
}

/// A client of a server, over TLS if there is an authority.
pub(crate) async fn connect(
    url: &str,
    ca: Option<&Path>,
) -> std::result::Result<Client, tokio_postgres::Error> {
    let mut config: tokio_postgres::Config = url.parse()?;
    let Some(ca) = ca else {
        let (client, connection) = config.connect(NoTls).await?;
        background(connection);
        return Ok(client);
    };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.ssl_mode(tokio_postgres::config::SslMode::Require);
    let (client, connection) = config.connect(MakeRustlsConnect::new(tls)).await?;
    background(connection);
    Ok(client)
}

/// Runs something beside the test.
pub(crate) fn background<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    #[expect(clippy::disallowed_methods, reason = "a test's runtime is its own")]
    tokio::spawn(work)
}

/// Opens a source.
pub(crate) async fn open(options: &Options) -> Result<Arc<dyn Source>> {
    assert_eq!(Postgres.check(options), []);
    let environment = Environment { data: "/nowhere".into(), clock: Arc::new(SystemClock) };
    Postgres.open("tested", options, &environment).await
}

/// How an entity is kept, in a table of its own name.
pub(crate) fn binding(role: Role, entity: &Arc<Entity>) -> Binding {
    let (entity, place) = (Arc::clone(entity), Arc::clone(entity.name()));
    Binding { entity, role, place, options: Options::default() }
}

/// Prepares entities.
pub(crate) async fn prepare(
    source: &Arc<dyn Source>,
    role: Role,
    entities: &[&Arc<Entity>],
) -> Result<Vec<String>> {
    let bindings: Vec<_> = entities.iter().map(|entity| binding(role, entity)).collect();
    source.prepare(&bindings).await
}

/// An entity `thing` with the key `id`.
pub(crate) fn thing(fields: Vec<Field>) -> Arc<Entity> {
    Arc::new(Entity::new("thing", "id", fields).unwrap())
}

/// A unit that puts one record.
pub(crate) fn put(entity: &Arc<Entity>, record: Record) -> Unit {
    let key = entity.key_of(&record).unwrap();
    unit(entity, key, Action::Put(record))
}

/// A unit of one write.
pub(crate) fn unit(entity: &Arc<Entity>, key: Key, action: Action) -> Unit {
    let write = Write { entity: Arc::clone(entity), key, action, condition: Condition::None };
    Unit {
        writes: vec![write],
        idempotency: None,
        time: Timestamp::EPOCH,
        actor: None,
        trace: None,
    }
}

/// The same under an idempotency key.
pub(crate) fn once(unit: Unit, key: &str) -> Unit {
    Unit { idempotency: Some(Idempotency { key: key.into(), fingerprint: 7 }), ..unit }
}

/// Commits units; the call itself must succeed.
pub(crate) async fn commit(source: &Arc<dyn Source>, units: Vec<Unit>) -> Vec<Result<Committed>> {
    Arc::clone(source).truth().unwrap().commit(units).await.expect("the call succeeds")
}

/// Commits one unit that must succeed; its position.
pub(crate) async fn commit_one(source: &Arc<dyn Source>, unit: Unit) -> u64 {
    let committed = commit(source, vec![unit]).await.remove(0).expect("the unit takes place");
    committed.changes[0].position.as_u64()
}

/// The record of a key.
pub(crate) async fn get(
    source: &Arc<dyn Source>,
    entity: &Arc<Entity>,
    key: Key,
) -> Option<Record> {
    let reader = Arc::clone(source).reader().unwrap();
    let found = reader.get(entity, &[key]).await.expect("the record can be read").value;
    found.into_iter().next().flatten().map(|s| s.record.as_ref().clone())
}

/// A batch that moves the checkpoint from one position to another; from nothing if that is zero.
pub(crate) fn batch(
    entity: &Arc<Entity>,
    changes: &[Arc<Change>],
    log: Uuid,
    from: u64,
    to: u64,
) -> Batch {
    let at = |n| Checkpoint { log, position: Position::new(n).unwrap(), backfill: None };
    let advance = Advance { from: (from > 0).then(|| at(from)), to: at(to) };
    let (entity, changes) = (Arc::clone(entity), changes.to_vec());
    Batch { entity, changes, copied: false, advance: Some(advance) }
}

/// The first column of a statement's rows, as text.
pub(crate) async fn column(client: &Client, sql: &str) -> Vec<String> {
    let rows = client.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    let text = |message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => {
            Some(row.get(0).unwrap_or("NULL").to_owned())
        }
        _ => None,
    };
    rows.into_iter().filter_map(text).collect()
}

/// Asks until the answer is as wanted.
pub(crate) async fn until<T>(what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("in vain: {what}"))
}
