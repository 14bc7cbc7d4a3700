//! Hooks against a real HTTP listener, which checks signatures by a computation of its own.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use unisono::config;
use unisono::engine::verify::report::{Depth, VerifyOptions};
use unisono::{Handle, Registry, Unisono};

/// 32 bytes: `0123…` in ASCII, and as a hook's secret.
const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";
const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// Somebody who is told.
struct Receiver(TcpListener);

/// A message as it came.
struct Message {
    id: String,
    timestamp: i64,
    signature: String,
    body: String,
}

impl Message {
    fn json(&self) -> Json {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Whether it is from who has the secret, by OpenSSL's HMAC.
    fn is_genuine(&self) -> bool {
        let signed = format!("{}.{}.{}", self.id, self.timestamp, self.body);
        let key: String = KEY.iter().map(|byte| format!("{byte:02x}")).collect();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("signed");
        std::fs::write(&file, signed).unwrap();
        let script = format!(
            "openssl dgst -sha256 -mac HMAC -macopt hexkey:{key} -binary {} | openssl base64 -A",
            file.display()
        );
        let mac = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert!(mac.status.success() && !mac.stdout.is_empty(), "openssl is needed");
        self.signature == format!("v1,{}", String::from_utf8(mac.stdout).unwrap())
    }
}

impl Receiver {
    async fn new() -> Self {
        Receiver(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    fn url(&self) -> String {
        format!("http://{}/told", self.0.local_addr().unwrap())
    }

    /// Takes the next message, and answers it with a status.
    async fn next(&self, status: u16) -> Message {
        let next = tokio::time::timeout(Duration::from_secs(30), self.take(status));
        next.await.unwrap_or_else(|_| panic!("no message came"))
    }

    async fn take(&self, status: u16) -> Message {
        let (mut stream, _) = self.0.accept().await.unwrap();
        let mut text = String::new();
        loop {
            let mut part = [0; 4096];
            let read = stream.read(&mut part).await.unwrap();
            text += std::str::from_utf8(&part[..read]).unwrap();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let header = |name: &str| {
                let line = head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
                line.unwrap_or_else(|| panic!("no {name} in {head}")).to_owned()
            };
            if body.len() < header("content-length").parse::<usize>().unwrap() {
                continue;
            }
            let answer =
                format!("HTTP/1.1 {status} -\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
            assert!(head.starts_with("POST /told HTTP/1.1"), "{head}");
            return Message {
                id: header("webhook-id"),
                timestamp: header("webhook-timestamp").parse().unwrap(),
                signature: header("webhook-signature"),
                body: body.to_owned(),
            };
        }
    }
}

/// Products in SQLite and a copy in SQLite, and a hook.
async fn open(folder: &Path, url: &str, options: &str) -> Unisono {
    let text = format!(
        r#"
        [sources]
        main = {{ kind = "sqlite", path = "main.db" }}
        copy = {{ kind = "sqlite", path = "copy.db" }}
        [entities.product]
        truth = "main"
        fields = {{ id = "string", name = "string" }}
        followers = [{{ source = "copy" }}]
        [entities.other]
        truth = "main"
        fields = {{ id = "string", name = "string" }}
        followers = [{{ source = "copy" }}]
        [hooks.operators]
        url = "{url}"
        secret = "{SECRET}"
        entities = ["product"]
        {options}
        "#
    );
    let parsed = config::parse(&text, "test.toml", &Registry::builtin(), &config::Process);
    let mut configuration = parsed.unwrap_or_else(|report| panic!("{report}"));
    configuration.data = folder.to_owned();
    Unisono::open(configuration).await.unwrap()
}

async fn put(unisono: &Unisono, entity: &str, id: &str) {
    let handle: Handle<Json> = unisono.entity(entity).unwrap();
    handle.put(&json!({ "id": id, "name": "ice" })).await.unwrap();
    let head = unisono.engine().head_token().await.unwrap();
    unisono.engine().wait_applied(&head, Duration::from_secs(30)).await.unwrap();
}

/// Has the copy refuse the record `bad` of both entities.
fn refuse(folder: &Path) {
    let copy = rusqlite::Connection::open(folder.join("copy.db")).unwrap();
    for entity in ["product", "other"] {
        let trigger = format!(
            "CREATE TRIGGER refuse_{entity} BEFORE INSERT ON {entity} WHEN NEW.id = 'bad' \
             BEGIN SELECT RAISE(ABORT, 'not here'); END"
        );
        copy.execute_batch(&trigger).unwrap();
    }
}

/// What was changed by hand takes a look at every record.
fn deeply() -> VerifyOptions {
    VerifyOptions { depth: Depth::Deep, ..VerifyOptions::default() }
}

#[tokio::test]
async fn a_dead_letter_is_told_until_it_is_taken_and_again_after_a_restart() {
    let (folder, receiver) = (tempfile::tempdir().unwrap(), Receiver::new().await);
    let unisono = open(folder.path(), &receiver.url(), "").await;
    put(&unisono, "product", "good").await;
    put(&unisono, "other", "good").await;
    refuse(folder.path());
    put(&unisono, "other", "bad").await;
    put(&unisono, "product", "bad").await;
    let first = receiver.next(500).await;
    let second = receiver.next(404).await;
    let third = receiver.next(204).await;
    for message in [&first, &second, &third] {
        assert!(message.is_genuine(), "{}", message.signature);
        assert_eq!((&message.id, &message.body), (&first.id, &first.body));
    }
    assert!(third.timestamp > first.timestamp, "each attempt is signed as of its own time");
    let told = third.json();
    let data = (&told["data"]["entity"], &told["data"]["source"], &told["data"]["key"]);
    assert_eq!(told["type"], "dead_letter");
    assert_eq!(data, (&json!("product"), &json!("copy"), &json!("bad")), "and not of the other");
    unisono.close().await.unwrap();

    // Nobody knows any more that it was taken.
    let unisono = open(folder.path(), &receiver.url(), "").await;
    let again = receiver.next(200).await;
    assert!(again.is_genuine());
    assert_eq!(again.id, first.id, "who was told before can tell");
    unisono.close().await.unwrap();
}

#[tokio::test]
async fn a_divergence_is_told_when_a_comparison_finds_it() {
    let (folder, receiver) = (tempfile::tempdir().unwrap(), Receiver::new().await);
    let options = "on = [\"divergence\"]\nretry_for = \"0s\"";
    let unisono = open(folder.path(), &receiver.url(), options).await;
    put(&unisono, "product", "good").await;
    unisono.engine().verify(&deeply(), &|_| {}).await.unwrap();
    let copy = rusqlite::Connection::open(folder.path().join("copy.db")).unwrap();
    assert_eq!(copy.execute("UPDATE product SET name = 'other'", []), Ok(1));
    for _ in 0..2 {
        unisono.engine().verify(&deeply(), &|_| {}).await.unwrap();
    }
    // What is not taken at once is given up here, and holds nothing up.
    let (first, second) = (receiver.next(500).await, receiver.next(200).await);
    assert!(first.is_genuine() && second.is_genuine());
    assert_ne!(first.id, second.id, "two comparisons found it");
    for told in [first.json(), second.json()] {
        assert_eq!((&told["type"], &told["data"]["different"]), (&json!("divergence"), &json!(1)));
        assert_eq!(told["data"]["differences"][0]["key"], "good");
    }
    unisono.close().await.unwrap();
}
