//! A TCP proxy that counts exchanges and loses answers when it is told to.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::common::background;

/// What the network does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    /// It works.
    Whole,
    /// A connection ends when the server answers, before the answer has arrived.
    LosesAnswers,
    /// A question arrives; its answer does not, nor anything after it in either direction, as when a cable is pulled.
    Dies,
}

/// A port in front of the server's.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    network: watch::Sender<Network>,
    /// How often all connections were cut.
    cuts: watch::Sender<usize>,
    exchanges: Arc<AtomicUsize>,
}

impl Proxy {
    /// Begins to listen in front of another port of this machine.
    pub(crate) async fn start(target: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (network, seen) = watch::channel(Network::Whole);
        let (cuts, cut) = watch::channel(0);
        let exchanges = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&exchanges);
        background(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await.unwrap();
                background(carry(client, server, seen.clone(), cut.clone(), Arc::clone(&counter)));
            }
        });
        Proxy { port, network, cuts, exchanges }
    }

    /// Changes what the network does, for connections that are there and for later ones.
    pub(crate) fn set(&self, network: Network) {
        self.network.send_replace(network);
    }

    /// Ends the connections that are there.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// How often a client has sent something after the server had answered.
    pub(crate) fn exchanges(&self) -> usize {
        self.exchanges.load(Ordering::SeqCst)
    }
}

async fn carry(
    mut client: TcpStream,
    mut server: TcpStream,
    network: watch::Receiver<Network>,
    mut cuts: watch::Receiver<usize>,
    exchanges: Arc<AtomicUsize>,
) {
    cuts.mark_unchanged();
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let is_asking = AtomicBool::new(false);
    let is_dead = AtomicBool::new(false);
    let there = async {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
            if !is_asking.swap(true, Ordering::SeqCst) {
                exchanges.fetch_add(1, Ordering::SeqCst);
            }
            let is_dead = is_dead.load(Ordering::SeqCst);
            if !is_dead && to_server.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
        if is_dead.load(Ordering::SeqCst) {
            std::future::pending().await
        }
    };
    let back = async {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
            is_asking.store(false, Ordering::SeqCst);
            let now = *network.borrow();
            if now == Network::Dies || is_dead.load(Ordering::SeqCst) {
                is_dead.store(true, Ordering::SeqCst);
                continue;
            }
            if now == Network::LosesAnswers || to_client.write_all(&buffer[..count]).await.is_err()
            {
                return;
            }
        }
    };
    // Whichever ends first ends the connection.
    tokio::select! {
        () = there => {}
        () = back => {}
        _ = cuts.changed() => {}
    }
}
