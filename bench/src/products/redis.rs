//! [`Redis`]: the primary, its copy and the sentinels of `engines/redis`, to be broken, and a way to the primary.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{Client, TlsCertificates};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::Result;
use crate::engines::Engine;

/// The servers' ports and folders.
const SERVERS: [(u16, &str); 2] = [(6392, "primary"), (6393, "copy")];
const SENTINEL: u16 = 6394;
/// How long failing over or starting may take.
const SETTLED_MAX: Duration = Duration::from_secs(60);
/// How often Sentinel is asked who is the primary.
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub(super) struct Redis {
    folder: PathBuf,
    authority: Vec<u8>,
    primary: watch::Receiver<u16>,
    address: String,
    /// What looks for the primary, and what carries connections there.
    _tasks: JoinSet<()>,
}

impl Redis {
    /// Finds the servers, which must run: `engines/up redis`.
    pub(super) async fn behind_sentinel() -> Result<Self> {
        let engine = Engine::sentinel()?;
        let authority = PathBuf::from(engine.text("tls_ca"));
        let folder = authority.ancestors().nth(2).ok_or("the engine has no folder")?.to_owned();
        let authority = std::fs::read(authority)?;
        let mut sentinel = connect(&authority, &format!("rediss://127.0.0.1:{SENTINEL}")).await?;
        let (found, primary) = watch::channel(primary(&mut sentinel).await?);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = format!("rediss://app:app-secret@{}", listener.local_addr()?);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                if let Ok(port) = self::primary(&mut sentinel).await {
                    found.send_if_modified(|known| std::mem::replace(known, port) != port);
                }
            }
        });
        tasks.spawn(carry_all(listener, primary.clone()));
        let redis = Redis { folder, authority, primary, address, _tasks: tasks };
        redis.settled().await?;
        Ok(redis)
    }

    /// How the product reaches it.
    pub(super) fn engine(&self) -> Result<Engine> {
        Engine::sentinel()
    }

    /// Where the primary is reached, whichever it is.
    pub(super) fn address(&self) -> String {
        self.address.clone()
    }

    pub(super) fn kill_primary(&self) -> Result<()> {
        let primary = *self.primary.borrow();
        let of_primary = |(port, _): &&(u16, _)| *port == primary;
        let (_, name) = SERVERS.iter().find(of_primary).ok_or("the primary is not known")?;
        self.kill(name)
    }

    pub(super) fn kill_all(&self) -> Result<()> {
        SERVERS.iter().try_for_each(|(_, name)| self.kill(name))
    }

    fn kill(&self, name: &str) -> Result<()> {
        let file = self.folder.join(name).join("pid");
        let pid = std::fs::read_to_string(&file)?;
        match Command::new("kill").args(["-9", pid.trim()]).status()?.success() {
            true => Ok(()),
            false => Err(format!("{} does not run", file.display()).into()),
        }
    }

    /// Starts again, with their data, those that do not run.
    pub(super) fn start_again(&self) -> Result<()> {
        let started = Command::new("engines/restart").arg(&self.folder).status()?;
        if started.success() { Ok(()) } else { Err("Redis does not start again".into()) }
    }

    pub(super) async fn flush(&self) -> Result<()> {
        let port = *self.primary.borrow();
        let mut primary = self.administrator(port).await?;
        Ok(redis::cmd("FLUSHALL").exec_async(&mut primary).await?)
    }

    /// Waits until there is a primary with its copy.
    pub(super) async fn settled(&self) -> Result<()> {
        self.start_again()?;
        let deadline = Instant::now() + SETTLED_MAX;
        while !self.is_whole().await.unwrap_or_default() {
            if Instant::now() > deadline {
                return Err("Redis has no primary with a copy".into());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    async fn is_whole(&self) -> Result<bool> {
        let port = *self.primary.borrow();
        let mut primary = self.administrator(port).await?;
        let told: String = redis::cmd("INFO").arg("replication").query_async(&mut primary).await?;
        Ok(told.contains("role:master") && told.contains("state=online"))
    }

    async fn administrator(&self, port: u16) -> Result<MultiplexedConnection> {
        connect(&self.authority, &format!("rediss://default:admin-secret@127.0.0.1:{port}")).await
    }
}

/// A connection that trusts an authority.
pub(super) async fn connect(authority: &[u8], url: &str) -> Result<MultiplexedConnection> {
    let certificates = TlsCertificates { client_tls: None, root_cert: Some(authority.to_vec()) };
    let client = Client::build_with_tls(url, certificates)?;
    Ok(client.get_multiplexed_async_connection().await?)
}

/// The port of the primary as Sentinel has it.
async fn primary(sentinel: &mut MultiplexedConnection) -> Result<u16> {
    let (_, port): (String, u16) = redis::cmd("SENTINEL")
        .arg("get-master-addr-by-name")
        .arg("main")
        .query_async(sentinel)
        .await?;
    Ok(port)
}

/// Connections go to the primary, and end when it is another one.
async fn carry_all(listener: TcpListener, primary: watch::Receiver<u16>) {
    while let Ok((mut client, _)) = listener.accept().await {
        let mut primary = primary.clone();
        let port = *primary.borrow_and_update();
        tokio::spawn(async move {
            let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                _ = primary.changed() => {}
            }
        });
    }
}
