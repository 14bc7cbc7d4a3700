//! [`Sentinels`]: who the primary is, asked whenever a connection to it is made.

use redis::{Cmd, RedisConnectionInfo, Value};
use tokio::time::timeout;
use unisono_core::{Error, ErrorKind, Result};

use crate::error::slow_connection;
use crate::node::{Dialer, Link};
use crate::reply;
use crate::url::Address;

/// The sentinels of one primary.
pub(crate) struct Sentinels {
    pub(crate) hosts: Vec<Address>,
    /// The name under which they know the primary.
    pub(crate) service: String,
    pub(crate) login: RedisConnectionInfo,
}

impl Sentinels {
    /// A connection to the server that they name, which must agree that it is the primary.
    ///
    /// All of it within the connect timeout; each sentinel gets its share, so that a silent one does not take all.
    pub(crate) async fn dial_primary(&self, dialer: &Dialer) -> Result<Link> {
        let share = dialer.connect_timeout / (self.hosts.len() as u32 + 1);
        let mut last = None;
        for host in &self.hosts {
            let found = timeout(share, self.ask(host, dialer)).await;
            match found.unwrap_or_else(|_| Err(slow_connection(host))) {
                Ok(primary) => return self.dial(&primary, share, dialer).await,
                Err(error) => last = Some(error),
            }
        }
        let failed = || Error::new(ErrorKind::Unavailable, "no sentinel answers");
        Err(last.unwrap_or_else(failed).with("service", &self.service))
    }

    async fn ask(&self, host: &Address, dialer: &Dialer) -> Result<Address> {
        let dialer = Dialer { login: self.login.clone(), ..dialer.clone() };
        let sentinel = dialer.dial(host).await?;
        let mut command = Cmd::new();
        command.arg("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(&self.service);
        let answer = sentinel.send(&command).await.map_err(|t| t.into_error(false))?;
        let Value::Array(parts) = answer else {
            return Err(Error::new(ErrorKind::Unavailable, "the sentinels know no such primary")
                .with("sentinel", host)
                .hint("see the name after the last / of the url, and `sentinel monitor` of the sentinels"));
        };
        let mut parts = parts.into_iter().map(reply::text);
        match (parts.next(), parts.next()) {
            (Some(host), Some(port)) => {
                let port = port?.parse().map_err(|_| crate::error::unexpected())?;
                Ok(Address { host: host?, port })
            }
            _ => Err(crate::error::unexpected()),
        }
    }

    async fn dial(
        &self,
        primary: &Address,
        share: std::time::Duration,
        dialer: &Dialer,
    ) -> Result<Link> {
        let checked = async {
            let link = dialer.dial(primary).await?;
            let mut command = Cmd::new();
            command.arg("INFO").arg("replication");
            let info = link.send(&command).await.map_err(|t| t.into_error(false))?;
            match reply::text(info)?.contains("role:master") {
                true => Ok(link),
                false => Err(Error::new(
                    ErrorKind::NotPrimary,
                    "the sentinels still name a server that is no longer the primary",
                )
                .with("address", primary)),
            }
        };
        timeout(share, checked).await.unwrap_or_else(|_| Err(slow_connection(primary)))
    }
}
