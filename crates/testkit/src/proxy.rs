//! A TCP proxy that fails in the ways of a network, and stops failing, when it is told to.
#![expect(clippy::disallowed_methods, reason = "what is tested over it happens in real time")]

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the network does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// It works.
    Whole,
    /// Connections are reset, and so is each attempt to make one.
    Cut,
    /// Everything that is sent arrives this much later.
    Delayed(Duration),
    /// Connections stay and are made, and nothing arrives. One that has lost something never works again.
    HalfOpen,
}

/// A port in front of another one; it is closed when this is dropped.
pub struct Proxy {
    port: u16,
    network: watch::Sender<Network>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Begins to listen at a free port.
    pub async fn start(target: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let (network, seen) = watch::channel(Network::Whole);
        let task = tokio::spawn(accept(listener, (Ipv4Addr::LOCALHOST, target).into(), seen));
        Ok(Proxy { port, network, task })
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes what the network does, for connections that are there and for later ones.
    pub fn set(&self, network: Network) {
        self.network.send_replace(network);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.network.send_replace(Network::Cut);
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, network: watch::Receiver<Network>) {
    while let Ok((client, _)) = listener.accept().await {
        tokio::spawn(connection(client, target, network.clone()));
    }
}

async fn connection(client: TcpStream, target: SocketAddr, mut network: watch::Receiver<Network>) {
    let is_cut = *network.borrow() == Network::Cut;
    let server = if is_cut { None } else { TcpStream::connect(target).await.ok() };
    let Some(server) = server else {
        // What cannot be set is the sort of end that a connection has; it ends all the same.
        let _ = client.set_zero_linger();
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let lost = Arc::new(AtomicBool::new(false));
    let there = carry(from_client, to_server, network.clone(), &lost);
    let back = carry(from_server, to_client, network.clone(), &lost);
    tokio::select! {
        biased;
        // Ends both directions at once; the sockets are reset by the drop of what `carry` holds.
        _ = network.wait_for(|n| *n == Network::Cut) => {}
        _ = async { tokio::join!(there, back) } => {}
    }
}

/// Resets the connection when it is dropped, unless it came to its end and was taken.
struct Reset(Option<OwnedWriteHalf>);

impl Drop for Reset {
    fn drop(&mut self) {
        if let Some(half) = self.0.take() {
            let _ = half.as_ref().set_zero_linger();
            // Its own drop would end the connection in an orderly way first.
            half.forget();
        }
    }
}

async fn carry(
    mut from: OwnedReadHalf,
    to: OwnedWriteHalf,
    network: watch::Receiver<Network>,
    lost: &AtomicBool,
) {
    let mut to = Reset(Some(to));
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        let now = *network.borrow();
        if now == Network::HalfOpen {
            lost.store(true, Ordering::Relaxed);
        }
        let is_lost = lost.load(Ordering::Relaxed);
        if read == 0 {
            if let Some(mut half) = to.0.take_if(|_| !is_lost) {
                let _ = half.shutdown().await;
            }
            return;
        }
        if is_lost {
            continue;
        }
        if let Network::Delayed(by) = now {
            tokio::time::sleep(by).await;
        }
        let Some(half) = &mut to.0 else { return };
        if half.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// Carries, delays, swallows, resets and carries again; the tests of everything else rest on this.
pub async fn check() -> Result<(), String> {
    let failed = |e: io::Error| format!("the proxy: {e}");
    let echo = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed)?;
    let port = echo.local_addr().map_err(failed)?.port();
    let server = tokio::spawn(async move {
        while let Ok((mut stream, _)) = echo.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    let proxy = Proxy::start(port).await.map_err(failed)?;
    let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port()));
    let mut old = connect().await.map_err(failed)?;
    let expect = |what: &str, is: bool| if is { Ok(()) } else { Err(format!("the proxy: {what}")) };
    expect("carries nothing", echoes(&mut old).await)?;
    proxy.set(Network::Delayed(Duration::from_millis(50)));
    let began = tokio::time::Instant::now();
    expect("loses what it delays", echoes(&mut old).await)?;
    expect("does not delay", began.elapsed() >= Duration::from_millis(100))?;
    proxy.set(Network::HalfOpen);
    expect("is not half-open", !echoes(&mut old).await)?;
    proxy.set(Network::Whole);
    expect("revives what has lost something", !echoes(&mut old).await)?;
    let mut second = connect().await.map_err(failed)?;
    expect("does not recover", echoes(&mut second).await)?;
    proxy.set(Network::Cut);
    let mut byte = [0; 1];
    let end = tokio::time::timeout(Duration::from_secs(5), second.read(&mut byte)).await;
    expect("is not cut", matches!(end, Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionReset))?;
    server.abort();
    Ok(())
}

async fn echoes(stream: &mut TcpStream) -> bool {
    let mut byte = [0; 1];
    let exchange = async {
        stream.write_all(b"x").await?;
        stream.read_exact(&mut byte).await
    };
    matches!(tokio::time::timeout(Duration::from_millis(300), exchange).await, Ok(Ok(_)))
}
