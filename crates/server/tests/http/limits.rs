//! Bounds, slow callers, and the orderly end.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{read_answer, start};

const HALF: &[u8] =
    b"PUT /v1/product/a HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
    connection: close\r\ncontent-length: 13\r\nexpect: 100-continue\r\n\r\n";
const REST: &[u8] = b"{\"name\": \"x\"}";

/// Sends the head of a request and waits until the server asks for its body: from then on it is running.
async fn begin(server: &crate::harness::Running) -> tokio::net::TcpStream {
    let mut stream = server.raw().await;
    stream.write_all(HALF).await.unwrap();
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream
}

#[tokio::test]
async fn large_requests_are_refused_as_problems() {
    let server = start(|o| o.limits.body_bytes = 100).await;
    let large = server.put("/v1/product/a", json!({"name": "x".repeat(200)})).await;
    assert_eq!(large.problem(), (413, "limit_exceeded".into()));
    let chunked = format!(
        "PUT /v1/product/a HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\n\
         transfer-encoding: chunked\r\n\r\nc8\r\n{}\r\n0\r\n\r\n",
        "x".repeat(200)
    );
    assert_eq!(server.exchange(chunked.as_bytes()).await.problem(), (413, "limit_exceeded".into()));
    let long = server.get(&format!("/v1/product/{}", "x".repeat(9000))).await;
    assert_eq!(long.problem(), (414, "limit_exceeded".into()));
    let headers = server.request("GET", "/v1/product/a").header("x-large", "x".repeat(40_000));
    assert_eq!(server.send(headers).await.problem(), (431, "limit_exceeded".into()));
    let huge =
        format!("GET / HTTP/1.1\r\nhost: localhost\r\nx-huge: {}\r\n\r\n", "x".repeat(200_000));
    assert_eq!(server.exchange(huge.as_bytes()).await.status, 431);
    assert_eq!(server.exchange(b"nonsense\r\n\r\n").await.status, 400);
}

#[tokio::test]
async fn slow_callers_do_not_hold_up_others() {
    let server = start(|o| o.limits.header_timeout = Duration::from_millis(200)).await;
    let mut slow = Vec::new();
    for n in 0..100 {
        let mut stream = server.raw().await;
        let part: &[u8] = [b"".as_slice(), b"P", b"GET / HTTP/1.1\r\nhost:", b"\x16\x03"][n % 4];
        stream.write_all(part).await.unwrap();
        slow.push(stream);
    }
    for n in 0..20 {
        assert_eq!(server.product(&n.to_string()).await.status, 201);
    }
    for (n, mut stream) in slow.into_iter().enumerate() {
        let mut bytes = Vec::new();
        let closed =
            tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut bytes)).await;
        assert!(closed.is_ok(), "slow caller {n} was let go");
    }
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_given_up() {
    let server = start(|o| o.limits.body_timeout = Duration::from_millis(100)).await;
    let mut stream = begin(&server).await;
    let answer = read_answer(&mut stream).await;
    assert_eq!(answer.problem(), (408, "timeout".into()));
    assert_eq!(answer.json["committed"], "no");
}

#[tokio::test]
async fn requests_above_the_limit_are_told_to_come_back() {
    let server = start(|o| o.limits.requests = 1).await;
    let mut running = begin(&server).await;
    let refused = server.get("/v1/product/a").await;
    assert_eq!(refused.problem(), (503, "overloaded".into()));
    assert_eq!((refused.header("retry-after"), &refused.json["retryable"]), ("1", &json!(true)));
    assert_eq!(server.get("/health/live").await.status, 200, "health is told all the same");
    running.write_all(REST).await.unwrap();
    assert_eq!(read_answer(&mut running).await.status, 201);
    assert_eq!(server.get("/v1/product/a").await.status, 200);
}

#[tokio::test]
async fn connections_above_the_limit_are_turned_away() {
    let server = start(|o| o.limits.connections = 1).await;
    let first = begin(&server).await;
    let answer = server.exchange(b"").await;
    assert_eq!(answer.problem(), (503, "overloaded".into()));
    drop(first);
}

#[tokio::test]
async fn a_running_request_is_finished_before_the_end() {
    let mut server = start(|_| {}).await;
    let mut idle = server.raw().await;
    let mut running = begin(&server).await;
    server.begin_stop();
    // The idle connection is closed at once, which also shows that the end has begun.
    let mut nothing = Vec::new();
    idle.read_to_end(&mut nothing).await.unwrap();
    let (address, engine) = (server.address, server.engine.clone());
    running.write_all(REST).await.unwrap();
    assert_eq!(read_answer(&mut running).await.status, 201);
    server.stopped().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    engine.close().await.unwrap();
}

#[tokio::test]
async fn a_request_that_does_not_finish_is_cut_off() {
    let mut server = start(|o| o.limits.shutdown_timeout = Duration::from_millis(50)).await;
    let mut running = begin(&server).await;
    server.begin_stop();
    server.stopped().await;
    assert_eq!(read_answer(&mut running).await.text, "");
}
