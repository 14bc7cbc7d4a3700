//! Deletes the database of a MariaDB or MySQL from outside.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, SslOpts};
use rustls::crypto::aws_lc_rs;
use unisono_core::kind::Options;
use unisono_core::{Error, Result};

/// Drops the database that the URL names.
pub(crate) async fn wipe(options: &Options) -> Result<()> {
    let opts = Opts::from_url(options.text("url").unwrap_or_default())
        .map_err(|e| Error::internal("the url is wrong").caused_by(e))?;
    let database = opts.db_name().unwrap_or_default();
    // By itself the server waits a day for whoever still has a table in use.
    run(
        options,
        &format!("SET SESSION lock_wait_timeout = 30; DROP DATABASE IF EXISTS `{database}`"),
    )
    .await
}

/// Runs statements, in which the database has to be named.
pub(crate) async fn run(options: &Options, sql: &str) -> Result<()> {
    let failed = |e: mysql_async::Error| Error::internal("cannot be run").caused_by(e);
    // The driver asks for the process's default provider; an error means that there is one.
    let _ = aws_lc_rs::default_provider().install_default();
    let opts = Opts::from_url(options.text("url").unwrap_or_default())
        .map_err(|e| Error::internal("the url is wrong").caused_by(e))?;
    let tls = options.text("tls_ca").map(|path| {
        SslOpts::default()
            .with_root_certs(vec![std::path::PathBuf::from(path).into()])
            .with_disable_built_in_roots(true)
    });
    let opts =
        OptsBuilder::from_opts(opts).db_name(None::<String>).prefer_socket(false).ssl_opts(tls);
    let mut conn = Conn::new(opts).await.map_err(failed)?;
    conn.query_drop(sql).await.map_err(failed)?;
    conn.disconnect().await.map_err(failed)
}
