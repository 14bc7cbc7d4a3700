//! A follower that stands still: it answers with what it has, until another one takes its place.

use std::time::Duration;

use tokio::sync::mpsc;
use unisono_core::{Error, ErrorKind, Result};

use crate::delivery::{Command, Delivery};
use crate::status::DeliveryState;

/// How often it is looked whether it has what it had.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Delivery {
    /// Says how far the follower is, for a while; delivers nothing.
    pub(super) async fn stand_still(&self, inbox: &mut mpsc::Receiver<Command>) -> Result<()> {
        let stored = self.target.follower.checkpoint(&self.target.entity).await?;
        self.load_letters().await?;
        match stored.filter(|stored| stored.log == self.log.id && stored.backfill.is_none()) {
            Some(stored) => self.progress.saved_at(&stored),
            None => self.progress.lost(),
        }
        self.progress.enter(DeliveryState::Paused);
        let refused = || {
            Error::new(ErrorKind::Unavailable, "it stands still until another definition is made")
                .at(&self.target.source)
                .of(self.target.name())
        };
        tokio::select! {
            biased;
            () = self.closing.until(Option::is_some) => {}
            () = self.target.handle.comes_to_be(true) => {}
            // Who asked may have gone away meanwhile.
            Some(command) = inbox.recv() => match command {
                Command::Copy => {}
                Command::Redeliver { reply, .. } => drop(reply.send(Err(refused()))),
                Command::Discard { reply, .. } => drop(reply.send(Err(refused()))),
            },
            () = self.runtime.sleep(LOOK_EVERY) => {}
        }
        Ok(())
    }
}
