//! What the tests over the real server share: a database of their own, and a client that looks at it from outside.
#![expect(dead_code, reason = "each test program uses a part of it")]
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by them")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, Row, SslOpts};
use unisono_core::clock::SystemClock;
use unisono_core::kind::{Environment, OptionValue, Options, SourceKind};
use unisono_core::source::{Advance, Batch, Binding, Checkpoint, Source};
use unisono_core::write::{Action, Condition, Unit, Write};
use unisono_core::{Change, Entity, Field, Key, Position, Record, Result, Role, Timestamp};
use unisono_source_mysql::Mysql;

/// A database that no other test uses; dropped when the test ends well.
pub(crate) struct Database {
    /// Its name.
    pub(crate) name: String,
    url: String,
    /// The file of the authority that signed the server's certificate.
    pub(crate) ca: PathBuf,
}

impl Database {
    /// Of the server that `engines/up mysql` has started.
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Database::named(format!("tk{}_{count}", std::process::id()))
    }

    /// One that may be there already.
    pub(crate) fn named(name: String) -> Self {
        let base = std::env::var_os("UNISONO_ENGINES").unwrap_or("/tmp/unisono-engines".into());
        let file = Path::new(&base).join("mysql/source.toml");
        let text = std::fs::read_to_string(&file)
            .unwrap_or_else(|e| panic!("{}: {e}\n    start it: engines/up mysql", file.display()));
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} = ")));
            line.unwrap_or_else(|| panic!("{} has no {name}", file.display())).trim_matches('"')
        };
        Database {
            url: value("url").replace("{namespace}", &name),
            ca: value("tls_ca").into(),
            name,
        }
    }

    /// The URL, of a user with all rights on this database.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The URL of the replica.
    pub(crate) fn replica_url(&self) -> String {
        self.url.replace(":3351/", ":3352/")
    }

    /// The options of a source over it.
    pub(crate) fn options(&self) -> Options {
        self.options_with(&self.url, Some(&self.ca))
    }

    /// The options of a source over another URL.
    pub(crate) fn options_with(&self, url: &str, ca: Option<&Path>) -> Options {
        let mut options = Options::default();
        let mut set = |name: &str, value| options.0.insert(name.to_owned(), value);
        set("url", OptionValue::Text(url.to_owned()));
        if let Some(ca) = ca {
            set("tls_ca", OptionValue::Text(ca.display().to_string()));
        }
        set("connections", OptionValue::Integer(4));
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

    /// A client of the server, past the source.
    pub(crate) async fn outside(&self) -> Conn {
        connect(&self.url, &self.ca).await
    }

    /// A client of the replica, once it has everything that the primary has now.
    pub(crate) async fn replicated(&self) -> Conn {
        let there = column(&mut self.outside().await, "SELECT @@gtid_binlog_pos").await.remove(0);
        let url = self.replica_url().replace(&self.name, "information_schema");
        let mut replica = connect(&url, &self.ca).await;
        let wait = format!("SELECT MASTER_GTID_WAIT('{there}', 20)");
        assert_eq!(column(&mut replica, &wait).await, ["0"], "the replica follows");
        replica
    }

    /// Another one, into which this one was restored from a backup that the server's own programs have made.
    pub(crate) async fn restored(&self, dump: &str, client: &str) -> Database {
        let restored = Database::new();
        drop(restored.open().await);
        let opts = Opts::from_url(&self.url).unwrap();
        let with = |program: &str| {
            let mut command = Command::new(program);
            command
                .args(["--no-defaults", "--host", opts.ip_or_hostname(), "--port"])
                .arg(opts.tcp_port().to_string())
                .arg(format!("--user={}", opts.user().unwrap()))
                .arg(format!("--password={}", opts.pass().unwrap()))
                .arg(format!("--ssl-ca={}", self.ca.display()));
            command
        };
        let made = with(dump).args(["--single-transaction", "--triggers", &self.name]).output();
        let made = made.expect("the program that makes backups is installed");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut client = with(client).arg(&restored.name).stdin(Stdio::piped()).spawn().unwrap();
        client.stdin.take().unwrap().write_all(&made.stdout).unwrap();
        assert!(client.wait().unwrap().success(), "the backup can be restored");
        restored
    }

    /// Drops it.
    pub(crate) async fn drop(self) {
        let mut conn = self.outside().await;
        let sql = format!("DROP DATABASE `{}`", self.name);
        conn.query_drop(sql).await.expect("the database can be dropped");
    }
}

/// A client of a server.
pub(crate) async fn connect(url: &str, ca: &Path) -> Conn {
    let tls = SslOpts::default()
        .with_root_certs(vec![ca.to_owned().into()])
        .with_disable_built_in_roots(true);
    let opts =
        OptsBuilder::from_opts(Opts::from_url(url).unwrap()).prefer_socket(false).ssl_opts(tls);
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Conn::new(opts).await.expect("the server can be reached")
}

/// Opens a source.
pub(crate) async fn open(options: &Options) -> Result<Arc<dyn Source>> {
    assert_eq!(Mysql.check(options), []);
    let environment = Environment { data: "/nowhere".into(), clock: Arc::new(SystemClock) };
    Mysql.open("tested", options, &environment).await
}

/// Prepares entities, each in a table of its own name.
pub(crate) async fn prepare(
    source: &Arc<dyn Source>,
    role: Role,
    entities: &[&Arc<Entity>],
) -> Result<Vec<String>> {
    let binding = |entity: &&Arc<Entity>| Binding {
        entity: Arc::clone(entity),
        role,
        place: Arc::clone(entity.name()),
        options: Options::default(),
    };
    source.prepare(&entities.iter().map(binding).collect::<Vec<_>>()).await
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

/// Commits units; the position of each, or its error.
pub(crate) async fn commit(source: &Arc<dyn Source>, units: Vec<Unit>) -> Vec<Result<u64>> {
    let truth = Arc::clone(source).truth().unwrap();
    let results = truth.commit(units).await.expect("the call succeeds");
    results.into_iter().map(|r| r.map(|c| c.changes[0].position.as_u64())).collect()
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

/// A batch that moves the checkpoint from nothing to the last change.
pub(crate) fn batch(
    entity: &Arc<Entity>,
    changes: &[Arc<Change>],
    log: unisono_core::Uuid,
) -> Batch {
    let position = changes.last().map_or(Position::ZERO, |c| c.position);
    let advance = Some(Advance { from: None, to: Checkpoint { log, position, backfill: None } });
    Batch { entity: Arc::clone(entity), changes: changes.to_vec(), copied: false, advance }
}

/// The first column of a statement's rows, as text.
pub(crate) async fn column(conn: &mut Conn, sql: &str) -> Vec<String> {
    let rows: Vec<Row> = conn.query(sql).await.expect("the statement succeeds");
    let text = |row: Row| row.get::<Option<String>, _>(0).flatten().unwrap_or("NULL".into());
    rows.into_iter().map(text).collect()
}
