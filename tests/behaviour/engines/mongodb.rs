//! Deletes data from outside: drops the database.

use mongodb::Client;
use mongodb::options::{ClientOptions, Tls, TlsOptions};
use unisono_core::kind::Options;
use unisono_core::{Error, ErrorKind, Result};

/// Deletes what a namespace holds.
pub(crate) async fn wipe(options: &Options) -> Result<()> {
    let missing = || Error::internal("source.toml lacks an option");
    let url = options.text("url").ok_or_else(missing)?;
    let database = options.text("database").ok_or_else(missing)?;
    let dropped = async {
        let mut client = ClientOptions::parse(url).await?;
        let ca = options.text("tls_ca").map(Into::into);
        client.tls = Some(Tls::Enabled(TlsOptions::builder().ca_file_path(ca).build()));
        Client::with_options(client)?.database(database).drop().await
    };
    dropped.await.map_err(|e: mongodb::error::Error| {
        Error::new(ErrorKind::Unavailable, "the database cannot be dropped").caused_by(e)
    })
}
