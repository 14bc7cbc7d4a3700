//! [`Interrupt`]: the first Ctrl-C or SIGTERM asks the command to end cleanly, the second ends the process at once.

use tokio::sync::watch;
use unisono::core::{Error, ErrorKind, Result};
use unisono::engine::Runtime;

use crate::exit;
use crate::terminal::output::note;

/// Whether the user asked to stop. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Interrupt(watch::Receiver<bool>);

impl Interrupt {
    /// Listens from now on. `tasks` must live as long as the process: it runs the listener.
    pub(crate) fn listen(tasks: &Runtime) -> Result<Self> {
        let mut signals = Signals::new()?;
        let (asked, interrupt) = watch::channel(false);
        tasks.spawn(async move {
            signals.next().await;
            asked.send_replace(true);
            note("stopping; press Ctrl-C again to end at once");
            signals.next().await;
            std::process::exit(i32::from(exit::INTERRUPTED));
        });
        Ok(Interrupt(interrupt))
    }

    /// Nobody ever asks to stop.
    #[cfg(test)]
    pub(crate) fn never() -> Self {
        Interrupt(watch::channel(false).1)
    }

    /// Whether the user has asked to stop.
    pub(crate) fn asked(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until the user asks to stop.
    pub(crate) async fn wait(&self) {
        let mut asked = self.0.clone();
        if asked.wait_for(|asked| *asked).await.is_err() {
            // The listener is gone, so nobody can ask any more.
            std::future::pending::<()>().await;
        }
    }

    /// Runs `work` unless the user asks to stop before it is done; then it is dropped and the answer is `cancelled`.
    pub(crate) async fn or<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            result = work => result,
            () = self.wait() => Err(stopped()),
        }
    }
}

/// The user asked to stop.
pub(crate) fn stopped() -> Error {
    Error::new(ErrorKind::Cancelled, "stopped by the user").on("stop")
}

/// Whether a command ended because the user asked for it.
pub(crate) fn is_stopped(error: &Error) -> bool {
    error.kind() == ErrorKind::Cancelled && error.operation() == Some("stop")
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind| signal(kind).map_err(|e| unavailable().caused_by(e));
        Ok(Signals {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => (),
            _ = self.terminate.recv() => (),
        }
    }
}

#[cfg(unix)]
pub(super) fn unavailable() -> Error {
    Error::new(ErrorKind::Unavailable, "signals cannot be received")
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> Result<Self> {
        Ok(Signals)
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
