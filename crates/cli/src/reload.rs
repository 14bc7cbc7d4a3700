//! [`Reloader`]: reads the configuration of a server again, for whoever asks: a signal, or its interface.

use std::sync::{Mutex, PoisonError};

use unisono::Unisono;
use unisono::config::Configuration;
use unisono::core::Result;

/// Reads the configuration as it is now.
pub(crate) type Read = Box<dyn Fn() -> Result<Configuration> + Send + Sync>;

/// What it takes to reload a server.
pub(crate) struct Reloader {
    unisono: Unisono,
    read: Read,
    /// Held from reading the file on, so that an older text never takes the place of a newer one.
    turn: Mutex<()>,
}

impl Reloader {
    pub(crate) fn new(unisono: Unisono, read: Read) -> Self {
        Reloader { unisono, read, turn: Mutex::default() }
    }

    /// Has the configuration take effect as it is now, or only tells what that would change. Both go to the log.
    pub(crate) fn reload(&self, dry_run: bool) -> Result<Vec<String>> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let result = (self.read)().and_then(|wanted| match dry_run {
            true => self.unisono.plan_reload(&wanted).outcome(),
            false => self.unisono.reload(wanted),
        });
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
}
