//! [`Cluster`]: which server has which slot, and the servers themselves.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use redis::{Cmd, Value};
use tokio::sync::Mutex;
use tokio::time::timeout;
use unisono_core::{Error, ErrorKind, Result};

use crate::error::{Trouble, unexpected};
use crate::keys::{SLOTS, slot};
use crate::node::{Dialer, Lane, Node, Target};
use crate::reply;
use crate::url::Address;

/// How often a request follows the slots to another server before it gives up.
const REDIRECTS_MAX: usize = 5;

/// The servers of a cluster.
pub(crate) struct Cluster {
    seeds: Vec<Address>,
    dialer: Dialer,
    map: RwLock<Map>,
    /// Held by the one who asks for the slots.
    asking: Mutex<()>,
}

#[derive(Default)]
struct Map {
    nodes: HashMap<Address, Arc<Node>>,
    /// First and last slot, and the primary that has them.
    ranges: Vec<(u16, u16, Address)>,
    /// Raised with every new map.
    edition: u64,
    /// A server could not be reached or gave slots away.
    outdated: bool,
}

impl Cluster {
    pub(crate) fn new(seeds: Vec<Address>, dialer: Dialer) -> Self {
        Cluster { seeds, dialer, map: RwLock::default(), asking: Mutex::default() }
    }

    /// Sends a command to the server that has the slot of a key.
    pub(crate) async fn send(
        &self,
        lane: Lane,
        key: &[u8],
        command: &Cmd,
    ) -> Result<Value, Trouble> {
        let slot = slot(key);
        let mut asked = None;
        for attempt in 0.. {
            let node = match asked.take() {
                Some(node) => (node, true),
                None => (self.owner(slot).await.map_err(Trouble::Unsent)?, false),
            };
            let answer = node.0.send(lane, command, node.1).await;
            let last = attempt == REDIRECTS_MAX;
            match answer {
                Err(Trouble::Refused(e)) if !last && e.redirect_node().is_some() => {
                    let is_ask = e.kind() == redis::ErrorKind::Server(redis::ServerErrorKind::Ask);
                    match e.redirect_node().and_then(|(to, _)| address(to)) {
                        Some(to) if is_ask => asked = Some(self.node(&to)),
                        _ => self.outdate(),
                    }
                }
                Err(Trouble::Unsent(e)) if attempt == 0 => {
                    // The server is gone: perhaps another one has taken its slots already.
                    tracing::debug!(error = %e, "asking for the slots again");
                    self.outdate();
                }
                Err(trouble) => {
                    self.outdate();
                    return Err(trouble);
                }
                answer => return answer,
            }
        }
        Err(Trouble::Unsent(unexpected()))
    }

    /// The primaries.
    pub(crate) async fn primaries(&self) -> Result<Vec<Arc<Node>>> {
        self.owner(0).await?;
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        let mut addresses: Vec<_> = map.ranges.iter().map(|(_, _, address)| address).collect();
        addresses.sort_unstable_by_key(|a| (&a.host, a.port));
        addresses.dedup();
        Ok(addresses.into_iter().filter_map(|a| map.nodes.get(a).cloned()).collect())
    }

    /// Lets go of all connections.
    pub(crate) async fn close(&self) {
        let map = std::mem::take(&mut *self.map.write().unwrap_or_else(PoisonError::into_inner));
        for node in map.nodes.values() {
            node.close().await;
        }
    }

    fn outdate(&self) {
        self.map.write().unwrap_or_else(PoisonError::into_inner).outdated = true;
    }

    fn node(&self, address: &Address) -> Arc<Node> {
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Node::new(Target::Fixed(address.clone()), self.dialer.clone()));
        Arc::clone(map.nodes.entry(address.clone()).or_insert_with(new))
    }

    async fn owner(&self, slot: u16) -> Result<Arc<Node>> {
        let edition = {
            let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(node) = map.owner(slot).filter(|_| !map.outdated) {
                return Ok(node);
            }
            map.edition
        };
        let _one = self.asking.lock().await;
        if self.map.read().unwrap_or_else(PoisonError::into_inner).edition == edition {
            let learned = timeout(self.dialer.connect_timeout * 2, self.learn()).await;
            learned.unwrap_or_else(|_| Err(silent()))?;
        }
        self.map.read().unwrap_or_else(PoisonError::into_inner).owner(slot).ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, "no server of the cluster has a slot that is needed")
                .with("slot", slot)
                .hint("see CLUSTER INFO and CLUSTER SLOTS")
        })
    }

    /// Asks the servers that are known, then those of the url, who has which slots.
    async fn learn(&self) -> Result<()> {
        let mut candidates: Vec<Address> = {
            let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
            map.ranges.iter().map(|(_, _, address)| address.clone()).collect()
        };
        candidates.extend(self.seeds.iter().cloned());
        let mut tried = Vec::new();
        let mut last = silent();
        let mut command = Cmd::new();
        command.arg("CLUSTER").arg("SLOTS");
        for candidate in candidates {
            if tried.contains(&candidate) {
                continue;
            }
            let answer = self.node(&candidate).send(Lane::Quick, &command, false).await;
            match answer.map_err(|t| t.into_error(false)).and_then(|a| ranges(a, &candidate)) {
                Ok(ranges) if !ranges.is_empty() => {
                    self.replace(ranges);
                    return Ok(());
                }
                Ok(_) => {}
                Err(error) => last = error,
            }
            tried.push(candidate);
        }
        Err(last)
    }

    fn replace(&self, ranges: Vec<(u16, u16, Address)>) {
        for (_, _, address) in &ranges {
            self.node(address);
        }
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        let kept = |address: &Address| {
            self.seeds.contains(address) || ranges.iter().any(|(_, _, a)| a == address)
        };
        map.nodes.retain(|address, _| kept(address));
        map.ranges = ranges;
        map.edition += 1;
        map.outdated = false;
    }
}

impl Map {
    fn owner(&self, slot: u16) -> Option<Arc<Node>> {
        let range = self.ranges.iter().find(|(first, last, _)| (*first..=*last).contains(&slot));
        range.and_then(|(_, _, address)| self.nodes.get(address).cloned())
    }
}

fn silent() -> Error {
    Error::new(ErrorKind::Unavailable, "no server of the cluster answers")
}

/// From `host:port` of a redirection.
fn address(text: &str) -> Option<Address> {
    let (host, port) = text.rsplit_once(':')?;
    Some(Address { host: host.to_owned(), port: port.parse().ok()? }).filter(|a| !a.host.is_empty())
}

/// The ranges of `CLUSTER SLOTS`; a server that does not know its own name has the one under which it was asked.
fn ranges(answer: Value, asked: &Address) -> Result<Vec<(u16, u16, Address)>> {
    let mut ranges = Vec::new();
    for range in reply::list(answer)? {
        let mut parts = reply::list(range)?.into_iter();
        let mut bound = || -> Result<u16> {
            let number = reply::number(&parts.next().ok_or_else(unexpected)?)?;
            u16::try_from(number).ok().filter(|n| *n < SLOTS).ok_or_else(unexpected)
        };
        let (first, last) = (bound()?, bound()?);
        let mut primary = reply::list(parts.next().ok_or_else(unexpected)?)?.into_iter();
        let host = primary.next().map(reply::bytes).transpose()?.flatten().unwrap_or_default();
        let host = String::from_utf8(host).map_err(|_| unexpected())?;
        let host = if host.is_empty() || host == "?" { asked.host.clone() } else { host };
        let port = reply::number(&primary.next().ok_or_else(unexpected)?)?;
        let port = u16::try_from(port).map_err(|_| unexpected())?;
        ranges.push((first, last, Address { host, port }));
    }
    Ok(ranges)
}
