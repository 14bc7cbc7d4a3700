//! A real server over memory sources on a free port, and clients for it.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use unisono::config::{self, Configuration, Process};
use unisono::engine::Engine;
use unisono::{Registry, Unisono};
use unisono_server::{App, Options, Server};

pub(crate) const CONFIGURATION: &str = r#"
[server]
listen = "127.0.0.1:0"
[[server.routes]]
path = "/products"
entity = "product"
envelope = true

[sources.main]
kind = "memory"
[sources.fast]
kind = "memory"
[sources.copy]
kind = "memory"
[sources.queue]
kind = "memory"

[entities.product]
key = "id"
truth = "main"
[entities.product.fields]
id = "string"
name = { type = "string", search = true, required = true, max_length = 40 }
price = "decimal(12,2)"
stock = { type = "integer", default = 0 }
status = { type = "string", enum = ["new", "used"], default = "new" }
code = { type = "string", unique = true }
tags = "json"
[entities.product.cache]
source = "fast"
[[entities.product.followers]]
source = "copy"

[projections.shelf]
from = "product"
key = { status = "record.status" }
fields = { products = { count = true }, stock = { sum = "record.stock" } }
[[projections.shelf.targets]]
source = "copy"

[streams.order]
truth = "main"
[[streams.order.followers]]
source = "copy"

[entities.visit]
key = "id"
truth = "main"
[entities.visit.fields]
id = "integer"
page = "string"

[entities.signal]
key = "id"
truth = "main"
[entities.signal.fields]
id = "string"
level = "integer"
[entities.signal.write]
strategy = "write_behind"
journal = "queue"
flush_after = "1h"
"#;

/// A running server.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) engine: Engine,
    /// What stands in the file that a reload reads.
    pub(crate) file: Arc<Mutex<String>>,
    pub(crate) client: reqwest::Client,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<unisono::core::Result<()>>,
}

/// Starts a server with the options of the configuration, changed as the test needs.
pub(crate) async fn start(change: impl FnOnce(&mut Options)) -> Running {
    // A second installation is refused, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let file = Arc::new(Mutex::new(CONFIGURATION.to_owned()));
    let configuration = parse(&file.lock().unwrap()).unwrap();
    let mut options = Options::from(configuration.server.clone());
    change(&mut options);
    let unisono = Unisono::open(configuration).await.unwrap();
    let engine = unisono.engine().clone();
    let read = Arc::clone(&file);
    let unisono = Arc::new(unisono);
    let reload = move |dry_run, by| -> BoxFuture<'static, _> {
        let (unisono, wanted) = (Arc::clone(&unisono), parse(&read.lock().unwrap()));
        Box::pin(async move {
            let wanted = wanted?;
            match dry_run {
                true => unisono.plan_reload(&wanted).await.outcome(),
                false => unisono.reload_for(by, wanted).await,
            }
        })
    };
    let app = App {
        engine: engine.clone(),
        name: "Shop".into(),
        version: "1.2.3".into(),
        metrics: None,
        reload: Some(Arc::new(reload)),
    };
    let server = Server::bind(options, app).await.unwrap();
    let address = server.address();
    let (stop, stopped) = oneshot::channel::<()>();
    let task = spawn(async move {
        server
            .run(async {
                let _ = stopped.await;
            })
            .await
    });
    Running { address, engine, file, client: reqwest::Client::new(), stop: Some(stop), task }
}

fn parse(text: &str) -> unisono::core::Result<Configuration> {
    Ok(config::parse(text, "test.toml", &Registry::builtin(), &Process)?)
}

#[expect(clippy::disallowed_methods, reason = "a test has no engine of its own to run tasks on")]
pub(crate) fn spawn<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    tokio::spawn(work)
}

impl Running {
    /// A request to a path.
    pub(crate) fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        self.client.request(method, format!("http://{}{path}", self.address))
    }

    /// Sends a request and reads the answer.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.unwrap();
        Answer { status, headers, json: serde_json::from_str(&text).unwrap_or(Json::Null), text }
    }

    /// Reads from the truth, so that no follower that is still catching up answers.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.request("GET", path).header("prefer", "consistency=strong")).await
    }

    pub(crate) async fn put(&self, path: &str, body: Json) -> Answer {
        self.send(self.request("PUT", path).json(&body)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Json) -> Answer {
        self.send(self.request("POST", path).json(&body)).await
    }

    /// A product, stored.
    pub(crate) async fn product(&self, key: &str) -> Answer {
        let answer = self
            .put(&format!("/v1/product/{key}"), json!({"name": "chair", "price": "9.50"}))
            .await;
        assert!(answer.status.is_success(), "{}", answer.text);
        answer
    }

    /// A connection without a client's help.
    pub(crate) async fn raw(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends bytes over a fresh connection and reads until the server closes it.
    pub(crate) async fn exchange(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.raw().await;
        stream.write_all(bytes).await.unwrap();
        read_answer(&mut stream).await
    }

    /// Begins the orderly end.
    pub(crate) fn begin_stop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
    }

    /// Waits for the end.
    pub(crate) async fn stopped(self) {
        self.task.await.unwrap().unwrap();
    }
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) json: Json,
    pub(crate) text: String,
}

impl Answer {
    /// A header's text; empty if absent.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    /// Status and code of a problem.
    pub(crate) fn problem(&self) -> (u16, String) {
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text);
        assert_eq!(self.json["status"], self.status.as_u16());
        (self.status.as_u16(), self.json["code"].as_str().unwrap_or_default().to_owned())
    }
}

/// Reads an HTTP/1 answer until the connection is closed.
pub(crate) async fn read_answer(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    // A reset after the answer is an end like any other.
    let _ = stream.read_to_end(&mut bytes).await;
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let mut lines = head.lines();
    let status =
        lines.next().and_then(|l| l.split(' ').nth(1)).and_then(|s| s.parse().ok()).unwrap_or(0);
    let headers = lines
        .filter_map(|l| l.split_once(": "))
        .map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap()));
    Answer {
        status: StatusCode::from_u16(status).unwrap_or_default(),
        headers: headers.collect(),
        json: serde_json::from_str(body).unwrap_or(Json::Null),
        text: body.to_owned(),
    }
}
