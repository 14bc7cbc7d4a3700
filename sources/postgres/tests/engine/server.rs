//! A server of a test's own, without TLS and passwords, and standbys of it; ended when the test ends.

use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tokio_postgres::Client;

use crate::common::{connect, until};

const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";

/// A running server.
pub(crate) struct Server {
    /// Where it listens; each test has ports of its own.
    pub(crate) port: u16,
    folder: TempDir,
    process: Option<Child>,
}

impl Server {
    /// An empty primary.
    pub(crate) async fn primary(port: u16) -> Self {
        let folder = folder();
        let data = data(&folder);
        let initdb = ["-U", "app", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"];
        run(Command::new(format!("{PROGRAMS}/initdb")).args(initdb).arg("-D").arg(&data));
        // Nothing here is to survive the machine.
        let settings = "listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\nfsync = off\n\
                        shared_buffers = '16MB'\nwal_log_hints = on\n";
        let file = data.join("postgresql.conf");
        let before = std::fs::read_to_string(&file).unwrap();
        std::fs::write(file, before + settings).unwrap();
        Server { port, folder, process: None }.started().await
    }

    /// A streaming replica of it.
    pub(crate) async fn standby(&self, port: u16) -> Self {
        let folder = folder();
        let source = format!("host=127.0.0.1 port={} user=app", self.port);
        let copy = ["-X", "stream", "-c", "fast", "-R", "--no-sync", "-d", &source, "-D"];
        run(Command::new(format!("{PROGRAMS}/pg_basebackup")).args(copy).arg(data(&folder)));
        Server { port, folder, process: None }.started().await
    }

    async fn started(mut self) -> Self {
        self.start().await;
        self
    }

    /// Starts it again.
    pub(crate) async fn start(&mut self) {
        let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
        let mut command = Command::new(format!("{PROGRAMS}/postgres"));
        command.arg("-D").arg(data(&self.folder)).args(["-p", &self.port.to_string()]);
        let command = &mut as_server(&command);
        let log_too = log.try_clone().unwrap();
        self.process = Some(command.stdout(log).stderr(log_too).spawn().unwrap());
        let url = self.url();
        until("the server starts", async || connect(&url, None).await.ok()).await;
    }

    /// Ends it as a crash does: nobody is told, and nothing is written any more.
    pub(crate) fn crash(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        // Its parent must not die alone: the other processes of the server would go on for a moment.
        let _ = Command::new("kill").args(["-QUIT", &process.id().to_string()]).status();
        let _ = process.wait();
    }

    /// The address, for people and URLs.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The URL of its database.
    pub(crate) fn url(&self) -> String {
        format!("postgresql://app@{}/postgres", self.address())
    }

    /// A client of it.
    pub(crate) async fn client(&self) -> Client {
        connect(&self.url(), None).await.expect("the server is there")
    }

    /// Makes a standby the primary of a new timeline.
    pub(crate) async fn promote(&self) {
        self.client().await.execute("SELECT pg_promote(TRUE, 30)", &[]).await.unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.crash();
    }
}

/// A folder that belongs to the user who runs servers.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    if is_root() {
        let id = |what| {
            let said = Command::new("id").args([what, "postgres"]).output().unwrap().stdout;
            String::from_utf8(said).unwrap().trim().parse().unwrap()
        };
        chown(folder.path(), Some(id("-u")), Some(id("-g"))).unwrap();
    }
    folder
}

fn data(folder: &TempDir) -> PathBuf {
    folder.path().join("data")
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

/// The same command by the user who may run servers: root may not.
fn as_server(command: &Command) -> Command {
    let mut whole = match is_root() {
        true => {
            let mut whole = Command::new("setpriv");
            whole.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
            whole.arg(command.get_program());
            whole
        }
        false => Command::new(command.get_program()),
    };
    whole.args(command.get_args()).env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
    whole.current_dir(Path::new("/"));
    whole
}

fn run(command: &mut Command) {
    let done = as_server(command).output().expect("the program is installed: engines/up postgres");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}
