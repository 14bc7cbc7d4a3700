//! The built program, running in a folder of its own, ended by its process id.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rand::Rng;
use serde_json::Value as Json;

/// A configuration with every embedded kind.
pub(crate) const CONFIGURATION: &str = r#"
[sources.main]
kind = "sqlite"
path = "main.db"

[sources.cache]
kind = "memory"

[sources.search]
kind = "tantivy"
path = "search"

[sources.copy]
kind = "sqlite"
path = "copy.db"

[sources.archive]
kind = "files"
path = "archive"

[entities.product]
key = "id"
truth = "main"
[entities.product.fields]
id = "string"
name = { type = "string", search = true, required = true }
price = "decimal(12,2)"
stock = { type = "integer", index = true }
[entities.product.cache]
source = "cache"
ttl = "60s"
[[entities.product.followers]]
source = "search"
[[entities.product.followers]]
source = "copy"
[[entities.product.followers]]
source = "archive"
"#;

/// The path of the program: the one that `UNISONO_BINARY` names, or else it is built when it is first asked for.
pub(crate) fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(built) = std::env::var_os("UNISONO_BINARY") {
            return built.into();
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .expect("the tests are a folder of the repository");
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "-p", "unisono-cli"])
            .current_dir(root)
            .status()
            .expect("cargo runs");
        assert!(built.success(), "the program does not build");
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        target.join("debug/unisono")
    })
}

/// A folder with a configuration and data.
pub(crate) struct Place {
    pub(crate) folder: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new(configuration: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("unisono.toml"), configuration)
            .expect("the configuration is written");
        Place { folder }
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(binary());
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        command.output().expect("the program starts")
    }

    /// Starts a server and waits until it answers.
    pub(crate) fn serve(&self) -> Server {
        self.serve_at(free_port())
    }

    /// The same, at a port.
    pub(crate) fn serve_at(&self, port: u16) -> Server {
        let log = std::fs::File::create(self.folder.path().join("server.log")).expect("a log file");
        let child = Command::new(binary())
            .args([
                "serve",
                "--config",
                "unisono.toml",
                "--data",
                "data",
                "--listen",
                &format!("127.0.0.1:{port}"),
            ])
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the program starts");
        let mut server = Server { child, base: format!("http://127.0.0.1:{port}") };
        server.wait_ready(self.folder.path());
        server
    }

    /// The configuration as it stands in its file.
    pub(crate) fn text(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("unisono.toml")).expect("it is there")
    }

    /// Runs a command against a server; answers what it says, and whether it did it.
    pub(crate) fn tell(&self, server: &Server, arguments: &[&str]) -> (String, bool) {
        self.tell_at(&server.base, arguments)
    }

    /// The same, by the address of the server.
    pub(crate) fn tell_at(&self, base: &str, arguments: &[&str]) -> (String, bool) {
        let data = ["--data", "data", "--url", base];
        let output = self.run(&[arguments, &data].concat());
        let said = [output.stdout, output.stderr].concat();
        (String::from_utf8_lossy(&said).into_owned(), output.status.success())
    }

    /// Runs a command against a server, which does it; answers what it says.
    pub(crate) fn done(&self, server: &Server, arguments: &[&str]) -> String {
        let (said, done) = self.tell(server, arguments);
        assert!(done, "{arguments:?}: {said}");
        said
    }

    /// How the followers are doing.
    pub(crate) fn deliveries(&self, server: &Server) -> Vec<Json> {
        let status = self.done(server, &["status", "--json"]);
        let status: Json = serde_json::from_str(&status).expect("JSON");
        status["deliveries"].as_array().cloned().unwrap_or_default()
    }

    /// Waits until so many followers are live, and has them compared with the truth.
    pub(crate) fn agree(&self, server: &Server, followers: usize) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let deliveries = self.deliveries(server);
            let is_live = |d: &&Json| d["state"] == "live" && d["lag_changes"] == 0;
            if deliveries.iter().filter(is_live).count() == followers {
                break;
            }
            assert!(Instant::now() < deadline, "{deliveries:?}");
        }
        self.done(server, &["verify", "--deep"]);
    }
}

/// A port that nobody listens at.
pub(crate) fn free_port() -> u16 {
    let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    address.expect("a free port").port()
}

/// A running server; killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) base: String,
}

impl Server {
    fn wait_ready(&mut self, folder: &Path) {
        let address = self.base.trim_start_matches("http://").to_owned();
        let deadline = Instant::now() + Duration::from_secs(30);
        while std::net::TcpStream::connect(&address).is_err() {
            let ended = self.child.try_wait().expect("the process can be asked");
            let log = || std::fs::read_to_string(folder.join("server.log")).unwrap_or_default();
            assert!(ended.is_none(), "the server ended: {ended:?}\n{}", log());
            assert!(Instant::now() < deadline, "the server does not answer\n{}", log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // It may have ended already; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// What decides the moments of a run of kills; it is printed, so that the run can be repeated.
#[expect(clippy::print_stdout, reason = "a run that fails must be repeatable")]
pub(crate) fn kill_seed() -> u64 {
    let given = std::env::var("KILL_SEED").ok().and_then(|s| s.parse().ok());
    let seed = given.unwrap_or_else(|| rand::rng().random());
    println!("kill -9: seed {seed} (KILL_SEED={seed} uses the same moments)");
    seed
}

/// A client of servers.
pub(crate) fn client() -> reqwest::Client {
    // Nothing here is encrypted, but the client insists on a provider. A second one would be refused, which is fine.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::builder().timeout(Duration::from_secs(10)).build().expect("a client")
}
