//! Messages on their way: in order where they are about the same, beside each other else.

use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use unisono_core::outlet::{Message, is_away, pause};
use unisono_core::source::Outcome;
use unisono_core::{Error, ErrorKind, Result, Retry};
use xxhash_rust::xxh3::xxh3_64;

use super::Sender;
use super::claim::RENEW;
use crate::runtime::Stopwatch;

impl Sender {
    /// Sends messages, while the claim is renewed; answers what became of each.
    pub(super) async fn send_all(
        &self,
        messages: Vec<(usize, Message)>,
    ) -> Result<Vec<(usize, Outcome)>> {
        let mut lanes: Vec<Vec<(usize, Message)>> = Vec::new();
        lanes.resize_with(self.manner.lanes.max(1), Vec::new);
        for (n, message) in messages {
            let lane = lane(&self.outlet.order(&message), lanes.len());
            lanes[lane].push((n, message));
        }
        let sending = join_all(lanes.into_iter().map(|lane| self.send_lane(lane)));
        let mut sending = std::pin::pin!(sending);
        loop {
            tokio::select! {
                biased;
                outcomes = &mut sending => return Ok(outcomes.into_iter().flatten().collect()),
                () = self.runtime.sleep(RENEW) => self.renew().await?,
            }
        }
    }

    /// One after the other. Behind one that could not be sent nothing goes.
    async fn send_lane(&self, lane: Vec<(usize, Message)>) -> Vec<(usize, Outcome)> {
        let mut outcomes = Vec::with_capacity(lane.len());
        let mut away: Option<Error> = None;
        for (n, message) in lane {
            let outcome = match &away {
                Some(error) => Outcome::Retry(error.duplicate()),
                None => self.settle(&message).await,
            };
            if let (Outcome::Retry(error), None) = (&outcome, &away) {
                away = Some(error.duplicate());
            }
            outcomes.push((n, outcome));
        }
        outcomes
    }

    /// Sends a message unless it is known what became of it.
    async fn settle(&self, message: &Message) -> Outcome {
        let position = message.change.position;
        let before = self.settled().get(&position).map(|end| end.as_ref().map(Error::duplicate));
        let end = match before {
            Some(end) => end,
            None => match self.send(message).await {
                Ok(()) => None,
                Err(error) if is_away(&error) => return Outcome::Retry(error),
                Err(error) => Some(error),
            },
        };
        self.settled().insert(position, end.as_ref().map(Error::duplicate));
        end.map_or(Outcome::Applied, Outcome::Rejected)
    }

    /// Sends a message as often as is declared while it is refused.
    async fn send(&self, message: &Message) -> Result<()> {
        let mut attempt = 1;
        loop {
            self.leave_alone().await?;
            if !self.may_send() {
                let error = Error::new(ErrorKind::Unavailable, "the claim ran out");
                return Err(error.at(&self.source));
            }
            let Err(error) = self.outlet.send(message).await else { return Ok(()) };
            let error = error.at(&self.source).of(self.entity.name());
            if is_away(&error) {
                if let Some(Retry::After(pause)) = error.retry_override() {
                    *self.told() = Some((self.runtime.stopwatch(), pause.min(ALONE_MAX)));
                }
                return Err(error);
            }
            if attempt >= self.manner.attempts {
                return Err(error);
            }
            tracing::warn!(%error, id = message.id(), attempt, "a message was refused; it will be sent again");
            self.runtime.sleep(pause(attempt).mul_f64(0.5 + self.runtime.random() / 2.0)).await;
            attempt += 1;
        }
    }
}

/// The longest that the other side is left alone because it said so.
const ALONE_MAX: Duration = Duration::from_secs(300);
/// What is waited for here rather than by the delivery, which can be told to end.
const SHORT: Duration = Duration::from_secs(1);

impl Sender {
    /// Sends nothing for as long as the other side said.
    async fn leave_alone(&self) -> Result<()> {
        let told = *self.told();
        let left =
            told.map_or(Duration::ZERO, |(since, pause)| pause.saturating_sub(since.elapsed()));
        if left > SHORT {
            let message = "the other side wants to be left alone for a while";
            let error = Error::new(ErrorKind::RateLimited, message).at(&self.source);
            return Err(error.with("seconds", left.as_secs()));
        }
        if !left.is_zero() {
            self.runtime.sleep(left).await;
        }
        Ok(())
    }

    fn told(&self) -> MutexGuard<'_, Option<(Stopwatch, Duration)>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which of so many lanes messages of an order go in.
fn lane(order: &str, lanes: usize) -> usize {
    (xxh3_64(order.as_bytes()) % lanes as u64) as usize
}
