//! Deletes the schema of a PostgreSQL database from outside.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;
use unisono_core::kind::Options;
use unisono_core::{Error, Result};

/// Drops the schema that the options name.
pub(crate) async fn wipe(options: &Options) -> Result<()> {
    let schema = options.text("schema").unwrap_or_default();
    run(options, &format!("DROP SCHEMA IF EXISTS \"{schema}\" CASCADE")).await
}

/// Runs statements without parameters.
pub(crate) async fn run(options: &Options, sql: &str) -> Result<()> {
    let failed = |e: tokio_postgres::Error| Error::internal("cannot be run").caused_by(e);
    let mut config: tokio_postgres::Config =
        options.text("url").unwrap_or_default().parse().map_err(failed)?;
    config.ssl_mode(SslMode::Require);
    let tls = connector(options.text("tls_ca").unwrap_or_default())
        .map_err(|e| Error::internal("tls_ca cannot be read").caused_by(e))?;
    let (client, connection) = config.connect(tls).await.map_err(failed)?;
    let run = client.batch_execute(sql);
    // The driver's end of the connection does its work beside.
    tokio::select! {
        ran = run => ran.map_err(failed),
        ended = connection => ended.map_err(failed),
    }
}

fn connector(path: &str) -> Result<MakeRustlsConnect, Box<dyn std::error::Error + Send + Sync>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path)? {
        roots.add(certificate?)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}
