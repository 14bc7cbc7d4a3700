//! A closed-loop HTTP/1.1 load: each connection sends a prepared request and reads the whole answer, again and again.
//!
//! Both sides of a comparison get the same load, so its own cost is the same for both.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Result;

/// What a load saw.
pub(crate) struct Seen {
    /// Answers per second, over all connections.
    pub(crate) per_second: f64,
    /// Time of each answer.
    pub(crate) times: Vec<Duration>,
}

/// Loads a server with `connections` for some time. `request` makes the n-th request of a connection.
pub(crate) async fn run(
    address: SocketAddr,
    connections: usize,
    time: Duration,
    request: impl Fn(usize, u64) -> Vec<u8> + Copy + Send + 'static,
) -> Result<Seen> {
    let began = Instant::now();
    let end = began + time;
    let work =
        (0..connections).map(|c| tokio::spawn(connection(address, end, move |n| request(c, n))));
    let mut times = Vec::new();
    for done in futures::future::join_all(work).await {
        times.extend(done??);
    }
    Ok(Seen { per_second: times.len() as f64 / began.elapsed().as_secs_f64(), times })
}

async fn connection(
    address: SocketAddr,
    end: Instant,
    request: impl Fn(u64) -> Vec<u8>,
) -> Result<Vec<Duration>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(64 << 10);
    let mut times = Vec::new();
    let mut n = 0;
    while Instant::now() < end {
        let began = Instant::now();
        stream.write_all(&request(n)).await?;
        answer(&mut stream, &mut buffer).await?;
        times.push(began.elapsed());
        n += 1;
    }
    Ok(times)
}

/// Reads one answer with a `Content-Length`; fails unless its status is 2xx.
async fn answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<()> {
    buffer.clear();
    loop {
        if stream.read_buf(buffer).await? == 0 {
            return Err("the server closed the connection".into());
        }
        let Some(head) = buffer.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let text = std::str::from_utf8(&buffer[..head])?;
        if !text.starts_with("HTTP/1.1 2") {
            return Err(
                format!("unexpected answer: {}", text.lines().next().unwrap_or_default()).into()
            );
        }
        let length = text
            .lines()
            .filter_map(|l| l.split_once(':'))
            .find(|(n, _)| n.eq_ignore_ascii_case("content-length"));
        let length: usize = length.map_or(Ok(0), |(_, v)| v.trim().parse())?;
        while buffer.len() < head + 4 + length {
            if stream.read_buf(buffer).await? == 0 {
                return Err("the server closed the connection".into());
            }
        }
        return Ok(());
    }
}

/// A request without body.
pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
}

/// A request that stores a JSON body.
pub(crate) fn put(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("PUT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nPrefer: return=minimal\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}
