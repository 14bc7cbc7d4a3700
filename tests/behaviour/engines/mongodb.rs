//! Deletes data from outside: drops the database.

use mongodb::options::{ClientOptions, Tls, TlsOptions};
use mongodb::{Client, Database};
use unisono_core::kind::Options;
use unisono_core::{Error, ErrorKind, Result};

/// Deletes what a namespace holds.
pub(crate) async fn wipe(options: &Options) -> Result<()> {
    let dropped = async { open(options).await?.drop().await };
    dropped.await.map_err(|e: mongodb::error::Error| {
        Error::new(ErrorKind::Unavailable, "the database cannot be dropped").caused_by(e)
    })
}

/// The database of a namespace.
pub(crate) async fn open(options: &Options) -> mongodb::error::Result<Database> {
    let missing = || mongodb::error::Error::custom("source.toml lacks an option");
    let url = options.text("url").ok_or_else(missing)?;
    let database = options.text("database").ok_or_else(missing)?;
    let mut client = ClientOptions::parse(url).await?;
    let ca = options.text("tls_ca").map(Into::into);
    client.tls = Some(Tls::Enabled(TlsOptions::builder().ca_file_path(ca).build()));
    Ok(Client::with_options(client)?.database(database))
}
