//! The follower before this one (`after`): what it does not have durably, this one does not get.
//!
//! The stream ends where the other follower is, and a copy or a redelivery, which read the truth as it is now, wait until
//! it has come as far. What it refuses for good is refused here as well, and tried again when that changes; a state
//! that it refused and that a newer one has replaced there since may pass here for a moment. So this
//! delivery stops where the other one stops, and goes on by itself.

use std::sync::Arc;
use std::time::Duration;

use unisono_core::source::{Applied, Batch, Outcome};
use unisono_core::{Change, Error, ErrorKind, Position, Result};

use crate::delivery::Delivery;
use crate::delivery::session::Session;

/// How long a copy or a redelivery waits for the follower before; the next attempt begins with what is there then.
const WAIT_MAX: Duration = Duration::from_secs(5);

impl Delivery {
    /// Up to where changes may be taken.
    pub(super) fn limit(&self) -> Position {
        let head = self.log.tail.head();
        self.target.after.as_ref().map_or(head, |before| before.applied().min(head))
    }

    /// Waits until there is something to take beyond a position.
    pub(super) async fn beyond(&self, position: Position) {
        self.log.tail.beyond(position).await;
        if let Some(before) = &self.target.after {
            before.wait_applied(position.next()).await;
        }
    }

    /// Waits until the truth's state at a position may be taken.
    pub(super) async fn comes_to(&self, position: Position) -> Result<()> {
        let Some(before) = &self.target.after else { return Ok(()) };
        let arrives = async {
            tokio::select! {
                biased;
                () = self.closing.until(Option::is_some) => Err(self.ended()),
                () = before.wait_applied(position) => Ok(()),
            }
        };
        self.runtime.within(WAIT_MAX, arrives).await.map_err(|error| match error.kind() {
            ErrorKind::Timeout => {
                let message = "the follower before this one has not come so far";
                Error::new(ErrorKind::Unavailable, message)
                    .with("after", &before.target.source)
                    .with("position", position)
            }
            _ => error,
        })
    }

    /// Has the follower take in a batch, without what the follower before refuses.
    pub(super) async fn take(&self, batch: Batch) -> Result<Applied> {
        let follower = &self.target.follower;
        let Some(before) = &self.target.after else { return follower.apply(batch).await };
        let is_refused =
            |change: &Arc<Change>| before.is_refused(std::slice::from_ref(&change.key)).0;
        let refused: Vec<bool> = batch.changes.iter().map(is_refused).collect();
        if !refused.contains(&true) {
            return follower.apply(batch).await;
        }
        let both = batch.changes.iter().zip(&refused);
        let rest: Vec<_> =
            both.filter(|(_, refused)| !**refused).map(|(change, _)| Arc::clone(change)).collect();
        let mut taken = match rest.is_empty() {
            true => Vec::new(),
            false => {
                follower.apply(Batch { changes: rest, advance: None, ..batch }).await?.outcomes
            }
        }
        .into_iter();
        let outcome = |refused: &bool| match refused {
            true => Some(Outcome::Rejected(self.refused_before(&before.target.source))),
            false => taken.next(),
        };
        Ok(Applied { outcomes: refused.iter().filter_map(outcome).collect(), advanced: false })
    }

    fn refused_before(&self, before: &str) -> Error {
        Error::new(ErrorKind::ConstraintViolated, "the follower before this one refuses it")
            .with("after", before)
    }

    /// Tries dead letters again when the follower before refuses others than it did.
    pub(super) async fn retry_what_is_no_longer_refused(
        &self,
        session: &mut Session<'_>,
    ) -> Result<()> {
        let Some(before) = &self.target.after else { return Ok(()) };
        let (_, refusals) = before.is_refused(&[]);
        if std::mem::replace(&mut session.refusals, refusals) == refusals {
            return Ok(());
        }
        self.retry_letters(session).await
    }
}
