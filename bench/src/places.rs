//! Servers and embedded stores to measure, each in a folder of its own.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use unisono::config::{Process, parse};
use unisono::{Registry, Unisono};

use crate::Result;
use crate::report::Report;

/// One product entity in SQLite with a cache; `{sources}` and `{followers}` are replaced.
const CONFIGURATION: &str = r#"
data = "{data}"
[sources.main]
kind = "sqlite"
path = "main.db"
[sources.memory]
kind = "memory"
{sources}
[entities.product]
key = "id"
truth = "main"
[entities.product.fields]
id = "string"
name = { type = "string", search = true, required = true }
price = "decimal(12,2)"
stock = "integer"
[entities.product.cache]
source = "memory"
ttl = "1h"
{followers}
"#;

/// The text of a configuration with followers.
pub(crate) fn configuration(data: &Path, followers: &[&str]) -> String {
    let declare = |name: &&str| match *name {
        "search" => "[sources.search]\nkind = \"tantivy\"\npath = \"search\"\n".to_owned(),
        name => format!("[sources.{name}]\nkind = \"memory\"\n"),
    };
    let sources: String = followers.iter().map(declare).collect();
    let followers: String = followers
        .iter()
        .map(|f| format!("[[entities.product.followers]]\nsource = \"{f}\"\n"))
        .collect();
    CONFIGURATION
        .replace("{data}", &data.display().to_string())
        .replace("{sources}", &sources)
        .replace("{followers}", &followers)
}

/// Opens a configuration in this process.
pub(crate) async fn embedded(text: &str) -> Result<Unisono> {
    let configuration = parse(text, "bench.toml", Registry::builtin().kinds(), &Process)
        .map_err(|p| p.to_string())?;
    Ok(Unisono::open(configuration).await?)
}

/// A server process; killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// The product's own server over a configuration.
    pub(crate) fn unisono(folder: &Path, followers: &[&str]) -> Result<Self> {
        std::fs::write(
            folder.join("unisono.toml"),
            configuration(&folder.join("data"), followers),
        )?;
        Server::configured(folder)
    }

    /// The product's own server over the `unisono.toml` in a folder.
    pub(crate) fn configured(folder: &Path) -> Result<Self> {
        let mut command = Command::new(program("unisono")?);
        let address = free_address()?;
        command.args([
            "serve",
            "--config",
            "unisono.toml",
            "--log",
            "warn",
            "--listen",
            &address.to_string(),
        ]);
        Server::start(command.current_dir(folder), address)
    }

    /// A bare axum server over bytes in memory.
    pub(crate) fn bare() -> Result<Self> {
        let address = free_address()?;
        let mut command = Command::new(std::env::current_exe()?);
        Server::start(command.args(["serve-bare", &address.to_string()]), address)
    }

    /// Any program that will listen at the address.
    pub(crate) fn start(command: &mut Command, address: SocketAddr) -> Result<Self> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let mut server = Server { child, address };
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(address).is_err() {
            if let Some(status) = server.child.try_wait()? {
                return Err(format!("the server ended: {status}").into());
            }
            if Instant::now() > deadline {
                return Err("the server does not answer".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(server)
    }

    /// Resident memory in megabytes: now, and the most so far.
    pub(crate) fn memory(&self) -> Result<(f64, f64)> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let field = |name: &str| -> f64 {
            let line = status.lines().find(|l| l.starts_with(name)).unwrap_or_default();
            line.split_whitespace().nth(1).and_then(|n| n.parse::<f64>().ok()).unwrap_or(f64::NAN)
                / 1024.0
        };
        Ok((field("VmRSS:"), field("VmHWM:")))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program built beside this one.
fn program(name: &str) -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    if path.exists() {
        return Ok(path);
    }
    Err(format!("{} is missing: build it first, with `cargo build --release`", path.display())
        .into())
}

/// An address of this machine that nobody listens at.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Memory of a server that has nothing to do.
pub(crate) async fn idle(report: &mut Report) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let server = Server::unisono(folder.path(), &["search"])?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    report.single("idle server, resident", format!("{:.0} MB", server.memory()?.0), "under 60 MB");
    Ok(())
}
