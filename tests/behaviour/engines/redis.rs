//! Deletes the keys of a namespace, on one server or on every primary of a cluster.

use redis::aio::MultiplexedConnection;
use redis::{Client, TlsCertificates, cmd};
use unisono_core::kind::Options;
use unisono_core::{Error, Result};

/// The password of the administrator in `engines/redis/start`.
const ADMINISTRATOR: &str = "default:admin-secret";

/// Deletes what a namespace holds.
pub(crate) async fn wipe(options: &Options) -> Result<()> {
    let failed = |e: redis::RedisError| Error::internal("cannot wipe").caused_by(e);
    let missing = |what: &'static str| Error::internal("an option is missing").with("option", what);
    let url = options.text("url").ok_or_else(|| missing("url"))?;
    let prefix = options.text("prefix").ok_or_else(|| missing("prefix"))?;
    // Without one the server has no TLS.
    let authority = options.text("tls_ca");
    let hosts = url.rsplit_once('@').map_or(url, |(_, hosts)| hosts);
    let first = hosts.split(',').next().unwrap_or_default();
    let mut addresses = vec![first.to_owned()];
    if options.boolean("cluster") {
        let mut connection = connect(first, authority).await.map_err(failed)?;
        let nodes = cmd("CLUSTER").arg("NODES").query_async(&mut connection).await;
        let nodes: String = nodes.map_err(failed)?;
        let primaries = nodes.lines().filter(|line| line.contains("master"));
        // Such as `ID 127.0.0.1:6397@6400 myself,master …`.
        let address = |line: &str| Some(line.split(' ').nth(1)?.split('@').next()?.to_owned());
        addresses = primaries.filter_map(address).collect();
    }
    for address in addresses {
        delete(&address, authority, &format!("{prefix}:*")).await.map_err(failed)?;
    }
    Ok(())
}

/// A connection as the administrator.
pub(crate) async fn connect(
    address: &str,
    authority: Option<&str>,
) -> redis::RedisResult<MultiplexedConnection> {
    let login = format!("{ADMINISTRATOR}@{address}");
    let Some(authority) = authority else {
        return Client::open(format!("redis://{login}"))?.get_multiplexed_async_connection().await;
    };
    // The driver takes the provider of the process; that there is one already is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let root_cert = Some(std::fs::read(authority)?);
    let certificates = TlsCertificates { client_tls: None, root_cert };
    let client = Client::build_with_tls(format!("rediss://{login}"), certificates)?;
    client.get_multiplexed_async_connection().await
}

async fn delete(address: &str, authority: Option<&str>, pattern: &str) -> redis::RedisResult<()> {
    let mut connection = connect(address, authority).await?;
    // At one instant: what a follower writes again meanwhile stays.
    const DELETE: &str = "local keys = redis.call('KEYS', ARGV[1])
        for n = 1, #keys do redis.call('UNLINK', keys[n]) end";
    cmd("EVAL").arg(DELETE).arg(0).arg(pattern).exec_async(&mut connection).await
}
