//! The program under test: started, asked, killed and started again.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Error;

const START_MAX: Duration = Duration::from_secs(60);

/// Where `engines/up` keeps the engines.
pub(crate) fn engines() -> PathBuf {
    std::env::var_os("UNISONO_ENGINES").unwrap_or("/tmp/unisono-engines".into()).into()
}

/// A Python with clients of the engines, made when it is first needed.
pub(crate) fn python() -> Result<PathBuf, Error> {
    let place = engines().join("python");
    let python = place.join("bin/python");
    if !python.exists() {
        let made = Command::new("python3").args(["-m", "venv"]).arg(&place).status()?;
        let packages = ["psycopg[binary]", "pymysql", "redis", "pymongo", "boto3", "requests"];
        let install = ["-m", "pip", "install", "--quiet"];
        let installed = Command::new(&python).args(install).args(packages).status()?;
        if !made.success() || !installed.success() {
            // What is half made would be taken for whole the next time.
            std::fs::remove_dir_all(&place)?;
            return Err("the clients for the comparison cannot be installed".into());
        }
    }
    Ok(python)
}

/// A running server.
pub(crate) struct Server {
    child: Child,
    folder: PathBuf,
    pub(crate) address: SocketAddr,
    peak: f64,
}

impl Server {
    /// Starts the server over the configuration in a folder and waits until it answers.
    pub(crate) fn start(folder: &Path) -> Result<Self, Error> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let child = spawn(folder, address)?;
        let mut server = Server { child, folder: folder.to_owned(), address, peak: 0.0 };
        server.wait()?;
        Ok(server)
    }

    /// `kill -9`, and at once a new process over the same configuration.
    pub(crate) fn kill_and_restart(&mut self) -> Result<(), Error> {
        self.peak = self.peak_memory();
        self.child.kill()?;
        self.child.wait()?;
        self.child = spawn(&self.folder, self.address)?;
        self.wait()
    }

    fn wait(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + START_MAX;
        while TcpStream::connect(self.address).is_err() {
            if let Some(status) = self.child.try_wait()? {
                let log = std::fs::read_to_string(self.folder.join("server.log"))?;
                return Err(format!("the server ended: {status}\n{log}").into());
            }
            if Instant::now() > deadline {
                return Err("the server does not answer".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Sends the records of a file to the server.
    pub(crate) fn import(&self, entity: &str, file: &Path) -> Result<(), Error> {
        let url = format!("http://{}", self.address);
        let status = Command::new(program()?)
            .args(["import", entity])
            .arg(file)
            .args(["--url", &url])
            .status()?;
        if status.success() { Ok(()) } else { Err(format!("import failed: {status}").into()) }
    }

    /// Waits until every follower is at the head of the log.
    pub(crate) async fn caught_up(&self, deadline: Duration) -> Result<(), Error> {
        let url = format!("http://{}/admin/v1/status", self.address);
        let began = Instant::now();
        loop {
            let status: serde_json::Value = reqwest::get(&url).await?.json().await?;
            let deliveries = status["deliveries"].as_array().cloned().unwrap_or_default();
            let live = |d: &serde_json::Value| d["state"] == "live" && d["lag_changes"] == 0;
            if !deliveries.is_empty() && deliveries.iter().all(live) {
                return Ok(());
            }
            if began.elapsed() > deadline {
                return Err(format!("the followers do not catch up: {status:#}").into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The most resident memory of any of the processes so far, in megabytes.
    pub(crate) fn peak_memory(&self) -> f64 {
        let file = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(file).unwrap_or_default();
        let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap_or_default();
        let kilobytes: f64 =
            line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0.0);
        self.peak.max(kilobytes / 1024.0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(folder: &Path, address: SocketAddr) -> Result<Child, Error> {
    let log = std::fs::File::options().create(true).append(true).open(folder.join("server.log"))?;
    let mut command = Command::new(program()?);
    command.args(["serve", "--config", "unisono.toml", "--data", "data", "--log", "warn"]);
    command.args(["--listen", &address.to_string()]).current_dir(folder);
    Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?)
}

/// The program that was built beside this one, with every kind.
fn program() -> Result<PathBuf, Error> {
    let path = std::env::current_exe()?.with_file_name("unisono");
    if path.exists() {
        return Ok(path);
    }
    let hint = "cargo build --release -p unisono-cli --features full";
    Err(format!("{} is missing: {hint}", path.display()).into())
}
