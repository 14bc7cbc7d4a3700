//! The load of all sides: a closed loop over keep-alive connections that looks at every status and body.
//!
//! It runs in threads of its own, half the connections in each, so that it takes as little as it can of the machine
//! that the servers need too; what it takes is the same for all.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Result;
use crate::products::work::{Expected, Place, Work};
use crate::report::quantile;

const THREADS: usize = 2;

/// A connection to a server, and the last answer.
pub(super) struct Connection {
    stream: TcpStream,
    buffer: BytesMut,
    /// Where the body of the last answer begins.
    body: usize,
    length: usize,
    status: u16,
}

impl Connection {
    pub(super) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Connection {
            stream,
            buffer: BytesMut::with_capacity(64 << 10),
            body: 0,
            length: 0,
            status: 0,
        })
    }

    /// Sends a request and reads the whole answer.
    pub(super) async fn call(&mut self, request: &[u8]) -> Result<()> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err("the server closed the connection".into());
            }
            if let Some(end) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                self.body = end + 4;
                break;
            }
        }
        let status = self.buffer.get(9..12).unwrap_or_default();
        self.status = std::str::from_utf8(status)?.parse()?;
        self.length = self.header("content-length").map_or(Ok(0), |v| v.parse())?;
        while self.buffer.len() < self.body + self.length {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err("the server closed the connection".into());
            }
        }
        Ok(())
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let head = self.buffer.get(..self.body)?;
        head.split(|b| *b == b'\n').skip(1).find_map(|line| {
            let (own, value) = line.split_at_checked(name.len())?;
            let value =
                value.strip_prefix(b":").filter(|_| own.eq_ignore_ascii_case(name.as_bytes()))?;
            std::str::from_utf8(value).ok().map(str::trim)
        })
    }

    pub(super) fn body(&self) -> &[u8] {
        self.buffer.get(self.body..self.body + self.length).unwrap_or_default()
    }

    /// Fails unless the last answer is what was expected.
    pub(super) fn check(&self, expected: Expected<'_>) -> Result<()> {
        let body = self.body();
        let right = match expected {
            Expected::Record(key) => body
                .strip_prefix(b"{\"id\":\"")
                .and_then(|rest| rest.strip_prefix(key.as_bytes()))
                .is_some_and(|rest| rest.starts_with(b"\"") && rest.ends_with(b"}")),
            Expected::List(count) => {
                body.windows(6).filter(|w| *w == b"\"id\":\"").count() == count
            }
        };
        if right && (200..300).contains(&self.status) {
            return Ok(());
        }
        let text = String::from_utf8_lossy(body.get(..body.len().min(300)).unwrap_or_default());
        Err(format!("unexpected answer: {} {text}", self.status).into())
    }
}

/// What a load saw.
pub(super) struct Seen {
    pub(super) per_second: f64,
    /// The 99th percentile of the time of an answer, in seconds.
    pub(super) p99: f64,
}

/// Loads a server for some time, or until its work is done.
pub(super) async fn run(
    address: SocketAddr,
    connections: usize,
    time: Duration,
    work: Work,
) -> Result<Seen> {
    let threads: Vec<_> = (0..THREADS.min(connections))
        .map(|thread| {
            let work = work.clone();
            let mine: Vec<usize> = (thread..connections).step_by(THREADS).collect();
            std::thread::spawn(move || on_thread(address, &mine, connections, time, &work))
        })
        .collect();
    let joined = tokio::task::spawn_blocking(move || {
        threads.into_iter().map(std::thread::JoinHandle::join).collect::<Vec<_>>()
    });
    let (mut per_second, mut times) = (0.0, Vec::new());
    for done in joined.await? {
        let (rate, own) = done.map_err(|_| "a load panicked")??;
        per_second += rate;
        times.extend(own);
    }
    Ok(Seen { per_second, p99: quantile(&times, 0.99) })
}

fn on_thread(
    address: SocketAddr,
    mine: &[usize],
    connections: usize,
    time: Duration,
    work: &Work,
) -> Result<(f64, Vec<f64>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let opened = mine.iter().map(|_| Connection::open(address));
        let opened = futures::future::try_join_all(opened).await?;
        let began = Instant::now();
        let loads: Vec<_> = mine
            .iter()
            .zip(opened)
            .map(|(number, connection)| {
                let place = Place { number: *number, connections };
                tokio::spawn(on_connection(connection, place, began + time, work.clone()))
            })
            .collect();
        let mut times = Vec::new();
        for load in loads {
            times.extend(load.await??);
        }
        Ok((times.len() as f64 / began.elapsed().as_secs_f64(), times))
    })
}

async fn on_connection(
    mut connection: Connection,
    place: Place,
    end: Instant,
    work: Work,
) -> Result<Vec<f64>> {
    let (mut times, mut bytes) = (Vec::new(), Vec::new());
    for n in 0.. {
        let began = Instant::now();
        if began >= end {
            break;
        }
        bytes.clear();
        let Some(expected) = work.request(place, n, &mut bytes)? else { break };
        connection.call(&bytes).await?;
        connection.check(expected)?;
        times.push(began.elapsed().as_secs_f64());
    }
    Ok(times)
}
