//! A TCP proxy that ends or stops a process between two steps of what it says to the server.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::common::background;

/// What befalls the process at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing.
    None,
    /// It dies before the server has heard of the step.
    DiesBefore(usize),
    /// It dies when the server has answered, and never hears of it.
    DiesAfter(usize),
    /// It stands still before the step, until the fate changes.
    StandsStill(usize),
}

#[derive(Clone)]
struct State {
    fate: watch::Receiver<Fate>,
    /// Steps since the fate was set.
    steps: Arc<AtomicUsize>,
    dead: watch::Sender<bool>,
}

/// A port in front of the server's, for one process.
pub(crate) struct Stepper {
    pub(crate) port: u16,
    fate: watch::Sender<Fate>,
    steps: Arc<AtomicUsize>,
    dead: watch::Sender<bool>,
}

impl Stepper {
    pub(crate) async fn start(target: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (fate, seen) = watch::channel(Fate::None);
        let (steps, (dead, _)) = (Arc::new(AtomicUsize::new(0)), watch::channel(false));
        let state = State { fate: seen, steps: Arc::clone(&steps), dead: dead.clone() };
        background(async move {
            while let Ok((client, _)) = listener.accept().await {
                if !*state.dead.borrow() {
                    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await.unwrap();
                    background(carry(client, server, state.clone()));
                }
            }
        });
        Stepper { port, fate, steps, dead }
    }

    /// Steps are counted from now on.
    pub(crate) fn set(&self, fate: Fate) {
        self.steps.store(0, Ordering::SeqCst);
        self.fate.send_replace(fate);
    }

    /// Whether the process has died.
    pub(crate) fn is_dead(&self) -> bool {
        *self.dead.borrow()
    }

    /// How many steps there were since the fate was set.
    pub(crate) fn steps(&self) -> usize {
        self.steps.load(Ordering::SeqCst)
    }
}

async fn carry(mut client: TcpStream, mut server: TcpStream, mut state: State) {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let (answered, mut answers) = watch::channel(());
    let (fate, mut released) = (state.fate.clone(), state.fate.clone());
    let there = async {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
            let step = state.steps.fetch_add(1, Ordering::SeqCst);
            let now = *state.fate.borrow_and_update();
            if now == Fate::DiesBefore(step) {
                break;
            }
            if now == Fate::StandsStill(step) {
                let _ = state.fate.changed().await;
            }
            answers.mark_unchanged();
            if to_server.write_all(&buffer[..count]).await.is_err() {
                return;
            }
            if now == Fate::DiesAfter(step) {
                let _ = answers.changed().await;
                break;
            }
        }
        if *state.fate.borrow() != Fate::None {
            state.dead.send_replace(true);
        }
    };
    let back = async {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = from_server.read(&mut buffer).await;
            // Who stands still hears nothing, not even that the server has hung up.
            let now = *released.borrow_and_update();
            if matches!(now, Fate::StandsStill(step) if state.steps.load(Ordering::SeqCst) > step) {
                let _ = released.changed().await;
            }
            let Ok(count @ 1..) = read else { return };
            answered.send_replace(());
            let dies = matches!(*fate.borrow(), Fate::DiesAfter(step) if state.steps.load(Ordering::SeqCst) > step);
            if !dies && to_client.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    };
    // Whichever ends first ends the connection.
    tokio::select! {
        () = there => {}
        () = back => {}
    }
}
