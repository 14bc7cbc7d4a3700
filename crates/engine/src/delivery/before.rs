//! The follower before this one (`after`): what it does not have durably, this one does not get.
//!
//! The stream ends where the other follower is, and a copy or a redelivery, which read the truth as it is now, wait until
//! it has come as far. What it refuses for good is refused here as well, and tried again when that changes; a state
//! that it refused and that a newer one has replaced there since may pass here for a moment. So this
//! delivery stops where the other one stops, and goes on by itself.

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

    /// Has the follower take in what it is to keep of a batch, without what the follower before refuses, and what its `map`
    /// does not work out.
    pub(super) async fn take(&self, batch: Batch) -> Result<Applied> {
        let follower = &self.target.follower;
        if self.target.after.is_none() && self.target.map.is_none() {
            return follower.apply(batch).await;
        }
        let (mut refused, mut changes) = (Vec::with_capacity(batch.changes.len()), Vec::new());
        for change in &batch.changes {
            match self.refused_before(change).and_then(|()| self.mapped(change)) {
                Ok(change) => {
                    changes.push(change);
                    refused.push(None);
                }
                Err(why) => refused.push(Some(why)),
            }
        }
        if refused.iter().all(Option::is_none) {
            return follower.apply(Batch { changes, ..batch }).await;
        }
        let mut taken = match changes.is_empty() {
            true => Vec::new(),
            false => follower.apply(Batch { changes, advance: None, ..batch }).await?.outcomes,
        }
        .into_iter();
        let outcome =
            |refused: Option<Error>| refused.map(Outcome::Rejected).or_else(|| taken.next());
        Ok(Applied { outcomes: refused.into_iter().filter_map(outcome).collect(), advanced: false })
    }

    /// Why a change is refused of which the follower before refuses the record.
    fn refused_before(&self, change: &Change) -> Result<()> {
        let Some(before) = &self.target.after else { return Ok(()) };
        match before.is_refused(std::slice::from_ref(&change.key)).0 {
            false => Ok(()),
            true => Err(Error::new(
                ErrorKind::ConstraintViolated,
                "the follower before this one refuses it",
            )
            .with("after", &before.target.source)),
        }
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
