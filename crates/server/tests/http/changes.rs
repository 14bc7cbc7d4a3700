//! The log as server-sent events.

use std::time::Duration;

use reqwest::Response;
use serde_json::Value as Json;

use crate::harness::{Running, start};

/// One event of a stream.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) data: Json,
}

/// Reads events one after another.
pub(crate) struct Events {
    response: Response,
    text: String,
}

impl Events {
    pub(crate) async fn open(server: &Running, path: &str, last: Option<&str>) -> Events {
        let mut request = server.request("GET", path);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut events = Events { response, text: String::new() };
        // The greeting says that the stream has begun.
        assert!(events.block().await.unwrap().starts_with(": heartbeat"));
        events
    }

    /// The next block of lines; `None` at the end of the stream.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                return Some(block);
            }
            let chunk = self.response.chunk().await.ok().flatten()?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    pub(crate) async fn next(&mut self) -> Event {
        let next = tokio::time::timeout(Duration::from_secs(30), self.next_of_all());
        next.await.expect("there is another event")
    }

    async fn next_of_all(&mut self) -> Event {
        loop {
            let block = self.block().await.expect("the stream goes on");
            let field = |name: &str| {
                let line = block.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": "));
                line.unwrap_or_default().to_owned()
            };
            if !field("event").is_empty() {
                return Event {
                    id: field("id"),
                    name: field("event"),
                    data: serde_json::from_str(&field("data")).unwrap(),
                };
            }
        }
    }
}

#[tokio::test]
async fn a_stream_resumes_where_it_was_left() {
    let server = start(|_| {}).await;
    server.product("a").await;
    let mut live = Events::open(&server, "/v1/changes", None).await;
    server.product("b").await;
    let event = live.next().await;
    assert_eq!(
        (event.id.as_str(), event.name.as_str()),
        ("main:2", "put"),
        "from now on, not from the beginning"
    );
    for (name, want) in [
        ("log", "main"),
        ("position", "2"),
        ("entity", "product"),
        ("key", "b"),
        ("operation", "put"),
    ] {
        assert_eq!(event.data[name], want, "{name}");
    }
    assert_eq!(event.data["record"]["name"], "chair");
    assert!(event.data["time"].is_string() && event.data["replaced"].is_null());
    drop(live);

    server.send(server.request("DELETE", "/v1/product/a")).await;
    server.product("c").await;
    let mut resumed = Events::open(&server, "/v1/changes", Some(&event.id)).await;
    let (third, fourth) = (resumed.next().await, resumed.next().await);
    assert_eq!((third.id.as_str(), third.name.as_str()), ("main:3", "delete"));
    assert_eq!((&third.data["replaced"], &third.data["record"]), (&Json::from("1"), &Json::Null));
    assert_eq!((fourth.id.as_str(), &fourth.data["key"]), ("main:4", &Json::from("c")));

    let mut all = Events::open(&server, "/v1/changes?after=0", None).await;
    for position in 1..=4 {
        assert_eq!(all.next().await.id, format!("main:{position}"));
    }
}

#[tokio::test]
async fn a_stream_of_one_entity_leaves_out_the_others_and_still_moves_on() {
    let server = start(|_| {}).await;
    server.product("a").await;
    assert_eq!(server.put("/v1/visit/7", serde_json::json!({"page": "x"})).await.status, 201);
    server.product("b").await;
    let mut visits = Events::open(&server, "/v1/changes?entity=visit&after=main:0", None).await;
    let event = visits.next().await;
    assert_eq!((event.id.as_str(), &event.data["key"]), ("main:2", &Json::from("7")));
}

#[tokio::test]
async fn streams_end_with_the_server() {
    let mut server = start(|_| {}).await;
    let mut stream = Events::open(&server, "/v1/changes", None).await;
    server.begin_stop();
    assert!(stream.block().await.is_none());
    server.stopped().await;
}

#[tokio::test]
async fn streams_have_a_limit_of_their_own() {
    let server = start(|o| o.limits.streams = 1).await;
    let first = Events::open(&server, "/v1/changes", None).await;
    assert_eq!(server.get("/v1/changes").await.problem(), (503, "overloaded".into()));
    drop(first);
}
