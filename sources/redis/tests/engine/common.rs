//! What the tests over real servers share: sources, plain clients, and servers of their own that may be harmed.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Client, FromRedisValue, TlsCertificates};
use unisono_core::clock::Clock;
use unisono_core::kind::{Environment, OptionValue, Options, SourceKind};
use unisono_core::source::{Advance, Batch, Binding, Checkpoint, Source};
use unisono_core::{Change, Entity, Position, Result, Role, Timestamp};
use unisono_source_redis::Redis;
use unisono_testkit::{Changes, ManualClock};

/// Repeats until something is true; fails loudly after a minute.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    for _ in 0..600 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("still not after a minute: {what}");
}

/// A name that no other test has.
pub(crate) fn namespace() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("tk{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// The options of a source as `engines/up redis` has written them, in a namespace of their own.
pub(crate) fn engine(file: &str) -> Options {
    let base = std::env::var_os("UNISONO_ENGINES").unwrap_or("/tmp/unisono-engines".into());
    let path = PathBuf::from(base).join("redis").join(file);
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|e| panic!("{}: {e}; start it: engines/up redis", path.display()));
    let table: toml::Table = toml::from_str(&text.replace("{namespace}", &namespace())).unwrap();
    let value = |value: toml::Value| match value {
        toml::Value::String(text) => OptionValue::Text(text),
        toml::Value::Boolean(yes) => OptionValue::Boolean(yes),
        other => panic!("not expected: {other}"),
    };
    Options(table.into_iter().map(|(name, given)| (name, value(given))).collect())
}

/// The options of a source at a url, without a prefix.
pub(crate) fn at(url: &str) -> Options {
    with(Options::default(), "url", url)
}

/// Options with one of them replaced.
pub(crate) fn with(mut options: Options, name: &str, value: &str) -> Options {
    options.0.insert(name.to_owned(), OptionValue::Text(value.to_owned()));
    options
}

/// Options with a url whose text is changed.
pub(crate) fn with_url(options: Options, from: &str, to: &str) -> Options {
    let url = options.text("url").unwrap().replace(from, to);
    with(options, "url", &url)
}

/// Options that give up soon.
pub(crate) fn impatient(mut options: Options) -> Options {
    for name in ["connect_timeout", "request_timeout"] {
        options.0.insert(name.to_owned(), OptionValue::Duration(Duration::from_millis(800)));
    }
    options
}

pub(crate) async fn open(options: &Options) -> Result<Arc<dyn Source>> {
    open_with(options, Arc::new(ManualClock::new())).await
}

/// The same with a clock that the test moves.
pub(crate) async fn open_with(options: &Options, clock: Arc<dyn Clock>) -> Result<Arc<dyn Source>> {
    Redis.open("tested", options, &Environment { data: "/".into(), clock }).await
}

/// How an entity is bound, with options of the entity.
pub(crate) fn binding(entity: &Arc<Entity>, role: Role, options: &[(&str, &str)]) -> Binding {
    let text =
        |(name, value): &(&str, &str)| ((*name).to_owned(), OptionValue::Text((*value).to_owned()));
    Binding {
        entity: Arc::clone(entity),
        role,
        place: Arc::clone(entity.name()),
        options: Options(options.iter().map(text).collect::<BTreeMap<_, _>>()),
    }
}

/// How an entity is cached whose records are compressed, all but the shortest.
pub(crate) fn compressed(entity: &Arc<Entity>) -> Binding {
    let mut bound = binding(entity, Role::Cache, &[]);
    bound.options.0.insert("compress_above".to_owned(), OptionValue::Integer(64));
    bound
}

/// An open source that follows an entity.
pub(crate) async fn following(options: &Options, entity: &Arc<Entity>) -> Arc<dyn Source> {
    let source = open(options).await.unwrap();
    source.prepare(&[binding(entity, Role::Follower, &[])]).await.unwrap();
    source
}

pub(crate) fn checkpoint(changes: &Changes, position: u64) -> Checkpoint {
    let position = Position::new(position).unwrap();
    Checkpoint { log: changes.log, position, backfill: None }
}

/// A batch that moves the checkpoint between two positions; 0 is none.
pub(crate) fn batch(
    entity: &Arc<Entity>,
    changes: &Changes,
    these: &[Arc<Change>],
    from: u64,
    to: u64,
) -> Batch {
    let advance = Advance {
        from: (from > 0).then(|| checkpoint(changes, from)),
        to: checkpoint(changes, to),
    };
    Batch {
        entity: Arc::clone(entity),
        changes: these.to_vec(),
        copied: false,
        advance: Some(advance),
    }
}

/// A plain client of the engine, as another program would have it; logs in as the administrator.
pub(crate) async fn plain(options: &Options) -> MultiplexedConnection {
    let url = options.text("url").unwrap();
    let host = url.rsplit_once('@').unwrap().1.split(',').next().unwrap();
    plain_at(options, host).await
}

pub(crate) async fn plain_at(options: &Options, host: &str) -> MultiplexedConnection {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let root_cert = Some(std::fs::read(options.text("tls_ca").unwrap()).unwrap());
    let certificates = TlsCertificates { client_tls: None, root_cert };
    let url = format!("rediss://default:admin-secret@{host}");
    let client = Client::build_with_tls(url, certificates).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

/// A command from its words.
pub(crate) async fn ask<T: FromRedisValue>(to: &mut MultiplexedConnection, words: &[&[u8]]) -> T {
    let mut command = redis::Cmd::new();
    for word in words {
        command.arg(*word);
    }
    command.query_async(to).await.unwrap_or_else(|e| panic!("{words:?}: {e}"))
}

/// A server of the test's own, without TLS and passwords, ended with the test.
pub(crate) struct Server {
    pub(crate) port: u16,
    pub(crate) folder: PathBuf,
    child: Child,
    arguments: Vec<String>,
}

impl Server {
    /// Starts a server on a free port, with further arguments.
    pub(crate) async fn start(arguments: &[&str]) -> Server {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = std::env::temp_dir().join(format!("unisono-redis-{}", namespace()));
        std::fs::create_dir_all(&folder).unwrap();
        let arguments: Vec<_> = arguments.iter().map(|a| (*a).to_owned()).collect();
        let child = Server::launch(free, &folder, &arguments);
        let server = Server { port: free, folder, child, arguments };
        server.ready().await;
        server
    }

    fn launch(port: u16, folder: &PathBuf, arguments: &[String]) -> Child {
        let mut command = Command::new("redis-server");
        // Sentinels write their state to a file, from which they also begin.
        match arguments.split_first() {
            Some((first, lines)) if first == "--sentinel" => {
                let file = folder.join("sentinel.conf");
                std::fs::write(&file, lines.join("\n")).unwrap();
                command.arg(file).args(["--sentinel"]);
            }
            _ => _ = command.args(["--save", ""]).args(arguments),
        }
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]).arg("--dir").arg(folder);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) async fn client(&self) -> MultiplexedConnection {
        let client = Client::open(self.url()).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }

    async fn ready(&self) {
        until("a server starts", || async {
            let Ok(client) = Client::open(self.url()) else { return false };
            let Ok(mut connection) = client.get_multiplexed_async_connection().await else {
                return false;
            };
            redis::cmd("PING").exec_async(&mut connection).await.is_ok()
        })
        .await;
    }

    /// Ends it at once, without a chance to write anything.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again over the same folder and port.
    pub(crate) async fn again(&mut self) {
        self.child = Server::launch(self.port, &self.folder, &self.arguments);
        self.ready().await;
    }

    /// Sends a signal, such as STOP and CONT.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([format!("-{name}"), id]).status().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The time that every source of these tests sees.
pub(crate) fn now() -> Timestamp {
    ManualClock::new().now()
}
