//! The outlet `nats` over a real server, which is killed and started again, cut off, and short of a stream. It takes
//! `engines/nats/start`, which must be able to start one.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use async_nats::ConnectOptions;
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::stream::Config;
use async_nats::jetstream::{self, Context as JetStream};
use futures::StreamExt;
use serde_json::{Value as Json, json};
use unisono::core::Context;
use unisono::core::stream::NewEvent;
use unisono::engine::stream::Appending;
use unisono::{Registry, Unisono, config};
use unisono_testkit::proxy::{Network, Proxy};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A server of this test's own.
struct Server {
    folder: PathBuf,
    port: u16,
}

impl Server {
    fn start(port: u16) -> Self {
        let base = std::env::var("UNISONO_ENGINES").unwrap_or("/tmp/unisono-engines".to_owned());
        let folder = Path::new(&base).join(format!("nats-{port}"));
        let server = Server { folder, port };
        let mut start = Command::new(root().join("engines/nats/start"));
        let started = start.arg(&server.folder).env("PORT", port.to_string()).output().unwrap();
        assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
        server
    }

    fn pid(&self) -> String {
        std::fs::read_to_string(self.folder.join("pid")).unwrap().trim().to_owned()
    }

    fn kill(&self) {
        assert!(Command::new("kill").args(["-9", &self.pid()]).status().unwrap().success());
    }

    fn restart(&self) {
        let mut restart = Command::new(root().join("engines/restart"));
        assert!(restart.arg(&self.folder).status().unwrap().success());
    }

    async fn jetstream(&self) -> JetStream {
        jetstream::new(self.client().await.unwrap())
    }

    async fn client(&self) -> Result<async_nats::Client, async_nats::ConnectError> {
        let url = format!("tls://127.0.0.1:{}", self.port);
        let options = ConnectOptions::new().add_root_certificates(self.folder.join("ca.crt"));
        let user = ("app".to_owned(), "app-secret".to_owned());
        options.user_and_password(user.0, user.1).connect(url).await
    }

    async fn make_stream(&self) {
        let subjects = vec!["tshop.>".to_owned()];
        let stream = Config { name: "SHOP".to_owned(), subjects, ..Config::default() };
        self.jetstream().await.create_stream(stream).await.unwrap();
    }

    /// Everything that the stream has, in order: subjects, ids and bodies.
    async fn all(&self) -> Vec<(String, String, Json)> {
        let stream = self.jetstream().await.get_stream("SHOP").await.unwrap();
        let count = stream.get_info().await.unwrap().state.messages;
        let consumer = stream.create_consumer(pull::Config::default()).await.unwrap();
        let mut found = Vec::new();
        let mut messages = consumer.messages().await.unwrap();
        while (found.len() as u64) < count {
            let message = messages.next().await.unwrap().unwrap();
            message.ack().await.unwrap();
            let id = message.headers.as_ref().unwrap().get("Nats-Msg-Id").unwrap().to_string();
            let body = serde_json::from_slice(&message.payload).unwrap();
            found.push((message.subject.to_string(), id, body));
        }
        found
    }

    async fn count(&self) -> u64 {
        let stream = self.jetstream().await.get_stream("SHOP").await.unwrap();
        stream.get_info().await.unwrap().state.messages
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = Command::new(root().join("engines/nats/stop")).arg(&self.folder).status();
    }
}

/// Streams in SQLite, and the outlet to a port, as the user who may only send.
async fn open(folder: &Path, server: &Server, port: u16) -> Unisono {
    let ca = server.folder.join("ca.crt");
    let text = format!(
        r#"
[sources.main]
kind = "sqlite"
path = "main.db"
[streams.order]
truth = "main"
[outlets.bus]
kind = "nats"
url = "tls://127.0.0.1:{port}"
user = "sender"
password = "sender-secret"
tls_ca = "{}"
subject = "tshop.{{from}}.{{subject}}"
stream = "SHOP"
from = ["order"]
begin = "first"
timeout = "2s"
"#,
        ca.display()
    );
    let parsed = config::parse(&text, "test.toml", &Registry::builtin(), &config::Process);
    let mut configuration = parsed.unwrap_or_else(|report| panic!("{report}"));
    configuration.data = folder.to_owned();
    Unisono::open(configuration).await.unwrap()
}

async fn append(unisono: &Unisono, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let stream = format!("o.{}", number % 3);
        let mut event = NewEvent::new("placed", json!({ "number": number }));
        event.id = Some(format!("e{number}"));
        let appending = Appending::to(stream, vec![event]);
        unisono.engine().append(&Context::default(), "order", appending).await.unwrap();
    }
}

async fn until(unisono: &Unisono, what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..600 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let deliveries = unisono.engine().status().await.deliveries;
    panic!("it never came to be that {what}: {deliveries:#?}");
}

/// Each event once, in the order of its stream.
fn judge(all: &[(String, String, Json)], count: u32) {
    assert_eq!(all.len(), count as usize, "JetStream drops what comes twice");
    for stream in 0..3 {
        let numbers =
            all.iter().filter(|(subject, ..)| *subject == format!("tshop.order.o%2e{stream}"));
        let numbers: Vec<u64> =
            numbers.map(|(.., body)| body["data"]["number"].as_u64().unwrap()).collect();
        let expected: Vec<u64> = (0..u64::from(count)).filter(|n| n % 3 == stream).collect();
        assert_eq!(numbers, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_the_server_is_killed_or_cut_off_or_has_no_stream() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start(4151));
    let proxy = Proxy::start(server.port).await.unwrap();
    let unisono = open(folder.path(), &server, proxy.port()).await;
    append(&unisono, 0..30).await;
    until(&unisono, "it is told that there is no stream", async || {
        let status = unisono.engine().status().await;
        status.deliveries.iter().any(|d| d.retries > 0)
    })
    .await;
    server.make_stream().await;
    until(&unisono, "all have come", async || server.count().await == 30).await;

    // Killed while messages are under way.
    append(&unisono, 30..60).await;
    server.kill();
    append(&unisono, 60..90).await;
    server.restart();
    until(&unisono, "the server is back", async || server.client().await.is_ok()).await;
    until(&unisono, "all have come", async || server.count().await == 90).await;

    for network in [Network::Cut, Network::HalfOpen] {
        let from = server.count().await as u32;
        append(&unisono, from..from + 15).await;
        proxy.set(network);
        append(&unisono, from + 15..from + 30).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        proxy.set(Network::Whole);
        if network == Network::HalfOpen {
            // What was lost on a connection is never given again: the kernel would end it at last.
            proxy.set(Network::Cut);
            tokio::time::sleep(Duration::from_millis(200)).await;
            proxy.set(Network::Whole);
        }
        until(&unisono, "all have come", async || server.count().await == u64::from(from) + 30)
            .await;
    }
    judge(&server.all().await, 150);
    assert!(unisono.engine().dead_letters().await.unwrap().is_empty());
    let (all, first) = (server.all().await, "e0");
    let (.., body) = all.iter().find(|(_, id, _)| id == first).unwrap();
    assert_eq!((&body["id"], &body["source"]), (&json!(first), &json!("/v1/streams/order")));
    unisono.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_on_after_a_crash_and_what_is_too_large_is_set_aside() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start(4153));
    server.make_stream().await;
    for life in 0..3 {
        let unisono = open(folder.path(), &server, server.port).await;
        append(&unisono, life * 30..life * 30 + 30).await;
        if life < 2 {
            unisono.engine().runtime().abort();
            unisono.engine().runtime().join().await;
            continue;
        }
        until(&unisono, "all have come", async || server.count().await == 90).await;
        judge(&server.all().await, 90);
        let huge = NewEvent::new("placed", json!({ "text": "x".repeat(300 << 10) }));
        let appending = Appending::to("o", vec![huge, NewEvent::new("paid", json!(1))]);
        unisono.engine().append(&Context::default(), "order", appending).await.unwrap();
        until(&unisono, "the next has come", async || server.count().await == 91).await;
        let letters = unisono.engine().dead_letters().await.unwrap();
        assert_eq!(letters.len(), 1);
        assert!(letters[0].reason.contains("larger"), "{}", letters[0].reason);
        unisono.close().await.unwrap();
    }
}
