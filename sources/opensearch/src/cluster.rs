//! What all entities of a source share: the connection, what is at its other end, and the options.

use std::sync::Arc;

use unisono_core::{Error, ErrorKind, Result};

use crate::client::Client;
use crate::config::Settings;
use crate::product::Product;

/// A cluster that was reached.
pub(crate) struct Cluster {
    /// The connection.
    pub(crate) client: Client,
    /// What it runs.
    pub(crate) product: Product,
    /// The options of the source.
    pub(crate) settings: Settings,
}

impl Cluster {
    /// Connects, within the option `connect_timeout`.
    pub(crate) async fn open(name: &Arc<str>, settings: Settings) -> Result<Self> {
        let client = Client::new(name, &settings)?;
        let detected = tokio::time::timeout(settings.connect_timeout, Product::detect(&client));
        let product = detected.await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Unavailable, "the server does not answer in time")
                .hint("look at url, network and firewall, or raise connect_timeout"))
        })?;
        Ok(Cluster { client, product, settings })
    }
}
