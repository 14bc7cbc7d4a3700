//! [`Session`]: what every command has at hand.

use unisono::core::Result;
use unisono::engine::Runtime;

use crate::commands::{Common, Connect};
use crate::open;
use crate::target::{Remote, Target};
use crate::telemetry;
use crate::terminal::{Interrupt, Output, Progress};

/// One run of the program.
pub(crate) struct Session {
    /// What every command takes.
    pub(crate) common: Common,
    /// Where results go.
    pub(crate) output: Output,
    /// Whether the user asked to stop.
    pub(crate) interrupt: Interrupt,
    /// Time, randomness, and tasks that live as long as the process. Engines have their own.
    pub(crate) runtime: Runtime,
}

impl Session {
    /// Starts logging and listening for signals.
    pub(crate) fn start(common: Common) -> Result<Self> {
        telemetry::log(&common)?;
        let runtime = Runtime::system();
        let interrupt = Interrupt::listen(&runtime)?;
        Ok(Session { output: Output::new(common.json), common, interrupt, runtime })
    }

    /// A running server if one is named, else the sources themselves.
    pub(crate) async fn target(&self, connect: &Connect) -> Result<Box<dyn Target>> {
        match &connect.url {
            Some(url) => Ok(Box::new(Remote::new(url, connect.token.as_deref())?)),
            None => Ok(Box::new(open::embedded(&self.common).await?)),
        }
    }

    /// Works on a target until done or asked to stop, and lets go of it.
    pub(crate) async fn on_target<T>(
        &self,
        connect: &Connect,
        work: impl AsyncFnOnce(&dyn Target) -> Result<T>,
    ) -> Result<T> {
        let target = self.interrupt.or(self.target(connect)).await?;
        let result = self.interrupt.or(work(&*target)).await;
        let closed = target.close().await;
        let value = result?;
        closed?;
        Ok(value)
    }

    /// Reports how far some long work has come.
    pub(crate) fn progress(&self, what: impl Into<String>) -> Progress {
        Progress::new(what, self.common.json)
    }
}
