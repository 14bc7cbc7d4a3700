//! A receiver of webhooks, which answers as it is told and remembers what it took.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value as Json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use unisono_hooks::signature;
use unisono_policy::hook::Secret;

/// What webhooks are signed with.
pub(crate) const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// What the receiver does with a message: a status, and how long it takes for it; `None` takes it and gives no answer.
type Answers = Box<dyn Fn(&Json, u32) -> (Option<u16>, Duration) + Send + Sync>;

/// What it took: the messages in order, and how often each came.
#[derive(Clone, Default)]
pub(crate) struct Took {
    pub(crate) messages: Vec<Json>,
    pub(crate) times: BTreeMap<String, u32>,
    pub(crate) refused: u32,
}

pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    pub(crate) took: Arc<Mutex<Took>>,
    answers: Arc<Answers>,
    task: Option<JoinHandle<()>>,
}

impl Receiver {
    /// Answers each message by its content, and how often it came before.
    pub(crate) async fn start(
        answers: impl Fn(&Json, u32) -> (Option<u16>, Duration) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answers: Arc<Answers> = Arc::new(Box::new(answers));
        let mut receiver = Receiver { address, took: Arc::default(), answers, task: None };
        receiver.listen(listener);
        receiver
    }

    /// What has come so far.
    pub(crate) fn took(&self) -> Took {
        self.took.lock().unwrap().clone()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/events", self.address)
    }

    #[expect(clippy::disallowed_methods, reason = "another program's task, which is killed alone")]
    fn listen(&mut self, listener: TcpListener) {
        let (took, answers) = (Arc::clone(&self.took), Arc::clone(&self.answers));
        self.task = Some(tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&took), Arc::clone(&answers)));
            }
        }));
    }

    /// It is gone: connections are reset.
    pub(crate) async fn kill(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
    }

    /// It is there again, at the same place.
    pub(crate) async fn revive(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.listen(listener);
    }

    pub(crate) fn ids(&self) -> Vec<String> {
        let took = self.took.lock().unwrap();
        took.messages.iter().map(|m| m["id"].as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn serve(mut stream: TcpStream, took: Arc<Mutex<Took>>, answers: Arc<Answers>) {
    let mut text = String::new();
    loop {
        let mut part = [0; 16 << 10];
        let Ok(read) = stream.read(&mut part).await else { return };
        if read == 0 {
            return;
        }
        text += std::str::from_utf8(&part[..read]).unwrap();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let header = |name: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
            line.unwrap_or_else(|| panic!("no {name} in {head}")).to_owned()
        };
        if body.len() < header("content-length").parse::<usize>().unwrap() {
            continue;
        }
        let json: Json = serde_json::from_str(body).unwrap();
        let (id, seconds) = (header("webhook-id"), header("webhook-timestamp").parse().unwrap());
        let signed = signature(&Secret::parse(SECRET).unwrap(), &id, seconds, body);
        assert_eq!(header("webhook-signature"), signed);
        assert_eq!(header("content-type"), "application/cloudevents+json");
        assert_eq!((json["id"].as_str().unwrap(), &header("idempotency-key")), (id.as_str(), &id));
        let before = {
            let mut took = took.lock().unwrap();
            let times = took.times.entry(id).or_default();
            *times += 1;
            *times - 1
        };
        let (status, takes) = answers(&json, before);
        tokio::time::sleep(takes).await;
        if status.is_none_or(|status| status < 300) {
            took.lock().unwrap().messages.push(json);
        } else {
            took.lock().unwrap().refused += 1;
        }
        let Some(status) = status else { return };
        let after = if status == 503 { "retry-after: 1\r\n" } else { "" };
        let answer = format!("HTTP/1.1 {status} -\r\n{after}content-length: 0\r\n\r\n");
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
        text.clear();
    }
}
