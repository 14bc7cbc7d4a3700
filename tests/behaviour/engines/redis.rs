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
    let authority = options.text("tls_ca").ok_or_else(|| missing("tls_ca"))?;
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

async fn connect(address: &str, authority: &str) -> redis::RedisResult<MultiplexedConnection> {
    // The driver takes the provider of the process; that there is one already is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let root_cert = Some(std::fs::read(authority)?);
    let certificates = TlsCertificates { client_tls: None, root_cert };
    let client =
        Client::build_with_tls(format!("rediss://{ADMINISTRATOR}@{address}"), certificates)?;
    client.get_multiplexed_async_connection().await
}

async fn delete(address: &str, authority: &str, pattern: &str) -> redis::RedisResult<()> {
    let mut connection = connect(address, authority).await?;
    let mut cursor = 0_u64;
    loop {
        let mut scan = cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(10_000);
        let (next, keys): (u64, Vec<Vec<u8>>) = scan.query_async(&mut connection).await?;
        for key in keys {
            cmd("UNLINK").arg(key).exec_async(&mut connection).await?;
        }
        cursor = next;
        if cursor == 0 {
            return Ok(());
        }
    }
}
