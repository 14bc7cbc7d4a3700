//! [`Changed`]: a way to a server on which other texts stand in for scripts of the source, so that a check that is
//! removed from a script is missed, or not, by what uses the whole source.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::common::{Server, ask};

/// The scripts of the cache, as they are shipped.
pub(crate) const FILL: &str = include_str!("../../src/lua/fill.lua");
pub(crate) const FOLLOW: &str = include_str!("../../src/lua/follow.lua");
pub(crate) const LOOKUP: &str = include_str!("../../src/lua/lookup.lua");
pub(crate) const RESTART: &str = include_str!("../../src/lua/restart.lua");

/// A part of a script, and what stands there instead.
#[derive(Clone, Copy)]
pub(crate) struct Cut {
    pub(crate) script: &'static str,
    pub(crate) from: &'static str,
    pub(crate) to: &'static str,
}

/// The way to the server. The source names a script by its hash: on the way the hash becomes that of the other text.
pub(crate) struct Changed {
    pub(crate) url: String,
    /// How many runs were of another text.
    pub(crate) runs: Arc<AtomicUsize>,
}

impl Changed {
    /// A way to a server with these cuts made.
    pub(crate) async fn before(server: &Server, cuts: &[Cut]) -> Changed {
        let mut client = server.client().await;
        let mut hashes = Vec::new();
        for script in [FILL, FOLLOW, LOOKUP, RESTART] {
            let mut text = script.to_owned();
            for cut in cuts.iter().filter(|cut| cut.script == script) {
                assert!(text.contains(cut.from), "a script no longer says {}", cut.from);
                text = text.replace(cut.from, cut.to);
            }
            if text != script {
                let other: String = ask(&mut client, &[b"SCRIPT", b"LOAD", text.as_bytes()]).await;
                hashes.push((redis::Script::new(script).get_hash().to_owned(), other));
            }
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let (runs, to) = (Arc::new(AtomicUsize::new(0)), server.port);
        let counted = Arc::clone(&runs);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // A server that was ended takes nobody any more.
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { return };
                let (hashes, runs) = (hashes.clone(), Arc::clone(&counted));
                let (answers, asker) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                thread::spawn(move || forward(client, server, &hashes, &runs));
                thread::spawn(move || forward(answers, asker, &[], &AtomicUsize::new(0)));
            }
        });
        Changed { url, runs }
    }
}

/// Passes on what arrives, with hashes replaced, until one side ends.
fn forward(
    mut from: TcpStream,
    mut to: TcpStream,
    hashes: &[(String, String)],
    runs: &AtomicUsize,
) {
    let _ = to.set_nodelay(true);
    let (mut held, mut chunk) = (Vec::new(), vec![0; 64 << 10]);
    while let Ok(read @ 1..) = from.read(&mut chunk) {
        held.extend_from_slice(&chunk[..read]);
        for (hash, other) in hashes {
            while let Some(at) = held.windows(hash.len()).position(|w| w == hash.as_bytes()) {
                held[at..at + hash.len()].copy_from_slice(other.as_bytes());
                runs.fetch_add(1, Ordering::Relaxed);
            }
        }
        // The end may be the first part of a hash.
        let begins =
            |n: &usize| hashes.iter().any(|(hash, _)| held.ends_with(&hash.as_bytes()[..*n]));
        let kept = (1..40).rev().find(begins).unwrap_or(0);
        let ready = held.len() - kept;
        if to.write_all(&held[..ready]).is_err() {
            break;
        }
        held.drain(..ready);
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
