//! [`Reloader`]: reads the configuration of a server again, for whoever asks: a signal, or its interface.

use std::sync::Arc;

use tokio::sync::Mutex;
use unisono::Unisono;
use unisono::config::Configuration;
use unisono::core::{Error, Result};

/// Reads the configuration as it is now.
pub(crate) type Read = Box<dyn Fn() -> Result<Configuration> + Send + Sync>;

/// What it takes to reload a server.
pub(crate) struct Reloader {
    unisono: Unisono,
    read: Arc<Read>,
    /// Held from reading the file on, so that an older text never takes the place of a newer one.
    turn: Mutex<()>,
}

impl Reloader {
    pub(crate) fn new(unisono: Unisono, read: Read) -> Self {
        Reloader { unisono, read: Arc::new(read), turn: Mutex::default() }
    }

    /// Has the configuration take effect as it is now, in the name of somebody, or only tells what that would change. Both
    /// go to the log.
    pub(crate) async fn reload(&self, dry_run: bool, by: Option<Arc<str>>) -> Result<Vec<String>> {
        let _turn = self.turn.lock().await;
        let result = match self.wanted().await {
            Ok(wanted) if dry_run => self.unisono.plan_reload(&wanted).await.outcome(),
            Ok(wanted) => self.unisono.reload_for(by, wanted).await,
            Err(error) => Err(error),
        };
        match &result {
            Ok(_) if dry_run => {}
            Ok(changes) if changes.is_empty() => tracing::info!("reloaded: nothing is different"),
            Ok(changes) => changes.iter().for_each(|change| tracing::info!("reloaded: {change}")),
            Err(error) => {
                tracing::error!(%error, "not reloaded: the configuration stays as it was");
            }
        }
        result
    }

    /// Reading files blocks.
    async fn wanted(&self) -> Result<Configuration> {
        let read = Arc::clone(&self.read);
        let reading = tokio::task::spawn_blocking(move || read()).await;
        reading.map_err(|e| Error::internal("reading the configuration was ended").caused_by(e))?
    }
}
