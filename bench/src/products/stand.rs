//! What is measured: the same products in two schemas of one PostgreSQL, and the servers over them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::load;
use super::redis::connect;
use super::work::{Goods, What, Work};
use crate::engines::load::{products, write_all};
use crate::engines::{Engine, open, postgres};
use crate::places::{Server, free_address};
use crate::{Plan, Result};

/// Which server.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    /// The product, with its cache in Redis.
    Ours,
    /// The product, with its cache in the process.
    OursNear,
    /// By hand in Rust, with Redis.
    A,
    /// By hand in Rust, with a cache in the process before Redis.
    B,
    /// The Node service.
    C,
}

impl Kind {
    pub(super) fn is_ours(self) -> bool {
        matches!(self, Kind::Ours | Kind::OursNear)
    }

    fn in_process(self) -> bool {
        matches!(self, Kind::OursNear | Kind::B)
    }
}

/// A server that runs.
pub(super) struct Side {
    pub(super) kind: Kind,
    pub(super) collection: &'static str,
    pub(super) server: Server,
    replica: usize,
}

/// The engines with the data in them.
pub(super) struct Stand {
    pub(super) goods: Arc<Goods>,
    pub(super) ours: Engine,
    pub(super) hand: Engine,
    redis: Engine,
    /// Where the services by hand reach the same Redis.
    by_hand: String,
    folder: tempfile::TempDir,
    /// Where the Node service is installed, if it could be.
    node: Option<PathBuf>,
}

const FIELDS: &str = r#"
[entities.product]
key = "id"
truth = "main"
[entities.product.fields]
id = "string"
department = "string"
category = "string"
type = "string"
brand = "string"
manufacturer = "string"
package_size = "string"
price = "decimal(12,2)"
stock = "integer"
"#;

impl Stand {
    /// Loads the catalogue for both, once. `by_hand` is where the services by hand reach Redis, if not at the URL that it
    /// has for the product.
    pub(super) async fn new(plan: &Plan, redis: Engine, by_hand: Option<String>) -> Result<Self> {
        let records = products(plan)?;
        let by_hand = by_hand.unwrap_or_else(|| redis.text("url").to_owned());
        let stand = Stand {
            goods: Arc::new(Goods::read(plan, &records)?),
            ours: Engine::new("postgres")?,
            hand: Engine::new("postgres")?,
            redis,
            by_hand,
            folder: tempfile::tempdir()?,
            node: install_node(),
        };
        let ours = open(&stand.configuration(None, 0)?, stand.folder.path()).await?;
        write_all(&ours, &records).await?;
        ours.close().await?;
        postgres::load(&stand.hand, &records).await?;
        let admin = postgres::connect(&stand.hand).await?;
        admin.batch_execute("ALTER TABLE by_hand ADD stock bigint").await?;
        for engine in [&stand.ours, &stand.hand] {
            postgres::connect(engine).await?.batch_execute("ANALYZE").await?;
        }
        stand.replayed().await?;
        Ok(stand)
    }

    /// Waits until the replicas have what the primary has.
    async fn replayed(&self) -> Result<()> {
        let primary = postgres::at(&self.hand, self.hand.text("url")).await?;
        let place: String =
            primary.query_one("SELECT pg_current_wal_lsn()::text", &[]).await?.get(0);
        let deadline = Instant::now() + Duration::from_secs(60);
        for n in 0..2 {
            let replica = postgres::at(&self.hand, self.hand.replica(n)?).await?;
            let sql = "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn";
            while !replica.query_one(sql, &[&place]).await?.get::<_, bool>(0) {
                if Instant::now() > deadline {
                    return Err("a replica does not follow the primary".into());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    fn configuration(&self, cache: Option<&str>, replica: usize) -> Result<String> {
        let of = |name| self.ours.text(name);
        let mut text = format!(
            "[sources.main]\nkind = \"postgres\"\nurl = \"{}\"\ntls_ca = \"{}\"\nschema = \"{}\"\nreplicas = [\"{}\"]\n",
            of("url"),
            of("tls_ca"),
            of("schema"),
            self.ours.replica(replica)?
        );
        text += FIELDS;
        if let Some(cache) = cache {
            text += "[entities.product.cache]\nsource = \"cache\"\nttl = \"60s\"\n";
            text += cache;
        }
        Ok(text)
    }

    /// Starts a server that reads from the n-th replica; `None` if there can be none.
    pub(super) async fn start(&self, kind: Kind, replica: usize) -> Result<Option<Side>> {
        let (server, collection) = match kind {
            Kind::Ours => (self.start_ours(&self.redis_section(), replica)?, "/v1/product"),
            Kind::OursNear => {
                (self.start_ours("[sources.cache]\nkind = \"memory\"\n", replica)?, "/v1/product")
            }
            Kind::A | Kind::B => {
                let address = free_address()?;
                let mut command = Command::new(std::env::current_exe()?);
                let letter = if kind == Kind::A { "a" } else { "b" };
                command.args(["serve-baseline", letter, &address.to_string()]);
                self.environment(&mut command, kind, replica)?;
                (Server::start(&mut command, address)?, "/products")
            }
            Kind::C => {
                let Some(folder) = &self.node else { return Ok(None) };
                let address = free_address()?;
                let mut command = Command::new("node");
                command.arg("server.js").current_dir(folder);
                command.env("BASELINE_PORT", address.port().to_string());
                // Without it Express formats every error for people.
                command.env("NODE_ENV", "production");
                self.environment(&mut command, kind, replica)?;
                (Server::start(&mut command, address)?, "/products")
            }
        };
        let side = Side { kind, collection, server, replica };
        // Connections are made and statements are prepared by the first requests.
        self.load(&side, 32, Duration::from_millis(300), What::Each).await?;
        Ok(Some(side))
    }

    fn start_ours(&self, cache: &str, replica: usize) -> Result<Server> {
        let folder = tempfile::tempdir_in(self.folder.path())?.keep();
        let text = self.configuration(Some(cache), replica)?;
        std::fs::write(folder.join("unisono.toml"), text)?;
        Server::configured(&folder)
    }

    fn redis_section(&self) -> String {
        let of = |name| self.redis.text(name);
        format!(
            "[sources.cache]\nkind = \"redis\"\nurl = \"{}\"\ntls_ca = \"{}\"\nprefix = \"{}\"\n",
            of("url"),
            of("tls_ca"),
            of("prefix")
        )
    }

    fn environment(&self, command: &mut Command, kind: Kind, replica: usize) -> Result<()> {
        command
            .env("BASELINE_PRIMARY", self.hand.text("url"))
            .env("BASELINE_REPLICA", self.hand.replica(replica)?)
            .env("BASELINE_CA", self.hand.text("tls_ca"))
            .env("BASELINE_SCHEMA", self.hand.text("schema"))
            .env("BASELINE_REDIS", &self.by_hand)
            .env("BASELINE_CA_REDIS", self.redis.text("tls_ca"))
            .env("BASELINE_PREFIX", self.prefix(kind));
        Ok(())
    }

    /// What the keys of a side begin with: those by hand do not share theirs.
    fn prefix(&self, kind: Kind) -> String {
        let own = self.redis.text("prefix");
        match kind {
            Kind::Ours | Kind::OursNear => own.to_owned(),
            Kind::A => format!("{own}a"),
            Kind::B => format!("{own}b"),
            Kind::C => format!("{own}c"),
        }
    }

    pub(super) async fn load(
        &self,
        side: &Side,
        connections: usize,
        time: Duration,
        what: What,
    ) -> Result<load::Seen> {
        let work = Work::new(&self.goods, side.collection, what);
        load::run(side.server.address, connections, time, work).await
    }

    /// Empties the cache of a side.
    pub(super) async fn clear(&self, side: &mut Side) -> Result<()> {
        let prefix = self.prefix(side.kind);
        // Only entries: without the rest of its keys the product's cache would begin another life.
        let entries = if side.kind.is_ours() { "*:cache:*:=*" } else { "product:*" };
        self.unlink(&format!("{prefix}:{entries}")).await?;
        if side.kind.in_process() {
            let again = self.start(side.kind, side.replica).await?;
            *side = again.ok_or("the server did not start again")?;
        }
        Ok(())
    }

    /// Removes all keys of a pattern. The user of the servers may not list keys, so this takes the administrator.
    async fn unlink(&self, pattern: &str) -> Result<()> {
        let mut redis = self.redis().await?;
        let mut cursor = 0_u64;
        loop {
            let (next, keys): (u64, Vec<Vec<u8>>) = redis::cmd("SCAN")
                .arg(cursor)
                .arg("MATCH")
                .arg(pattern)
                .arg("COUNT")
                .arg(5_000)
                .query_async(&mut redis)
                .await?;
            if !keys.is_empty() {
                redis::cmd("UNLINK").arg(keys).exec_async(&mut redis).await?;
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }

    /// Sets when Redis syncs its file.
    pub(super) async fn sync_redis(&self, when: &str) -> Result<()> {
        let mut redis = self.redis().await?;
        let mut set = redis::cmd("CONFIG");
        set.arg("SET").arg("appendfsync").arg(when).exec_async(&mut redis).await?;
        Ok(())
    }

    async fn redis(&self) -> Result<MultiplexedConnection> {
        let authority = std::fs::read(self.redis.text("tls_ca"))?;
        connect(&authority, &self.by_hand.replace("app:app-secret", "default:admin-secret")).await
    }

    /// Runs a statement as the administrator of the primary or of a replica.
    pub(super) async fn administer(&self, url: &str, sql: &str) -> Result<()> {
        let url = url.replace("app:app-secret", "postgres:super-secret");
        let tls = MakeRustlsConnect::new(self.hand.tls()?);
        let (client, connection) = tokio_postgres::connect(&url, tls).await?;
        tokio::spawn(connection);
        for statement in sql.split(';') {
            client.batch_execute(statement).await?;
        }
        Ok(())
    }

    /// Removes everything from the engines.
    pub(super) async fn clean(&self) -> Result<()> {
        self.unlink(&format!("{}*", self.redis.text("prefix"))).await?;
        for engine in [&self.ours, &self.hand] {
            let schema = engine.text("schema");
            let drop = format!("DROP SCHEMA IF EXISTS \"{schema}\" CASCADE");
            postgres::connect(engine).await?.batch_execute(&drop).await?;
        }
        Ok(())
    }
}

/// Installs the Node service; says so loudly if it cannot be.
fn install_node() -> Option<PathBuf> {
    match try_install_node() {
        Ok(folder) => Some(folder),
        Err(error) => {
            println!("    THE NODE SERVICE IS LEFT OUT, column c is missing: {error}");
            None
        }
    }
}

fn try_install_node() -> Result<PathBuf> {
    let folder = Path::new("target/bench/node");
    std::fs::create_dir_all(folder)?;
    for file in ["package.json", "package-lock.json", "server.js"] {
        std::fs::copy(Path::new("bench/baseline/node").join(file), folder.join(file))?;
    }
    if !folder.join("node_modules/.package-lock.json").exists() {
        let mut npm = Command::new("npm");
        npm.args(["ci", "--no-audit", "--no-fund"]).current_dir(folder).stdin(Stdio::null());
        if !npm.status()?.success() {
            return Err("`npm ci` failed".into());
        }
    }
    Ok(folder.to_owned())
}
