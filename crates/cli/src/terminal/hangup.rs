//! [`Hangup`]: SIGHUP, with which servers are asked to read their configuration again.

use unisono::core::Result;

/// Notices SIGHUP from when it was made; before, that ends the process.
pub(crate) struct Hangup {
    #[cfg(unix)]
    signal: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Hangup {
    /// Listens from now on.
    pub(crate) fn listen() -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let signal = signal(SignalKind::hangup())
            .map_err(|e| super::interrupt::unavailable().caused_by(e))?;
        Ok(Hangup { signal })
    }

    /// Does something each time, one after another.
    pub(crate) async fn each<F: Future<Output = ()>>(mut self, work: impl Fn() -> F) {
        while self.signal.recv().await.is_some() {
            work().await;
        }
    }
}

#[cfg(not(unix))]
impl Hangup {
    pub(crate) fn listen() -> Result<Self> {
        Ok(Hangup {})
    }

    pub(crate) async fn each<F: Future<Output = ()>>(self, _work: impl Fn() -> F) {
        std::future::pending().await
    }
}
