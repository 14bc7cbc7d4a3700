//! One record by key: the cache, then a shared read of the sources that fills it.

use std::sync::Arc;

use unisono_core::source::{At, Entry, Lookup};
use unisono_core::{Consistency, Context, Key, Position, Result, Role, Stored, Token};
use unisono_policy::route::Operation;

use crate::answer::{Answer, CacheStatus};
use crate::cache::Feed;
use crate::read::ask::{Reading, passes_on};
use crate::read::flight::{Boarded, Landed};
use crate::read::serving::Serving;
use crate::runtime::Runtime;

type Found = Answer<Option<Arc<Stored>>>;

/// One record, or the knowledge that there is none.
pub(crate) async fn get(
    serving: &Serving,
    context: &Context,
    key: &Key,
    runtime: &Runtime,
) -> Result<Found> {
    let reading = Reading::new(serving, context, runtime);
    let Some(feed) = serving.cache.as_ref().filter(|_| context.consistency != Consistency::Strong)
    else {
        return reading.one(key).await;
    };
    let now = runtime.now();
    let lookup = match feed.lookup(key, now).await {
        Ok(lookup) => lookup,
        Err(error) => {
            tracing::debug!(%error, "the cache failed; asking the sources");
            return reading.one(key).await;
        }
    };
    let token = context.token.position(&serving.log.name);
    let fresh = context.consistency == Consistency::Eventual || lookup.applied >= token;
    match &lookup.entry {
        Some(entry) if fresh && feed.is_verified(now) => {
            feed.count(true);
            Ok(reading.cached(feed, &lookup, entry, false))
        }
        entry => {
            feed.count(false);
            match reading.shared(feed, key, &lookup).await {
                // The log gives no sign of life and no source answers: what the cache has is better than nothing.
                Err(error) if fresh && passes_on(error.kind()) && context.fallback => match entry {
                    Some(entry) => Ok(reading.cached(feed, &lookup, entry, true)),
                    None => Err(error),
                },
                result => result,
            }
        }
    }
}

impl Reading<'_> {
    /// Asks the sources.
    async fn one(&self, key: &Key) -> Result<Found> {
        let serving = self.serving;
        let keys = [key.clone()];
        let mut answer = Reading { key: Some(&keys[0]), ..*self }
            .ask(Operation::Get, &|reader| {
                let (entity, keys) = (&serving.entity, keys.clone());
                Box::pin(async move {
                    let At { value, position } = reader.get(entity, &keys).await?;
                    let found = value.into_iter().next().flatten().map(Arc::new);
                    Ok(At { value: found, position })
                })
            })
            .await?;
        let shown = answer.value.as_ref().map(|stored| stored.version);
        answer.token.merge(&self.token_of(shown));
        Ok(answer)
    }

    /// Asks the sources once for all callers that want the key at the same time, and fills the cache.
    async fn shared(&self, feed: &Feed, key: &Key, lookup: &Lookup) -> Result<Found> {
        let needed = match self.context.consistency {
            Consistency::Eventual => Position::ZERO,
            _ => self.context.token.position(&self.serving.log.name),
        };
        match self.serving.flights.board(key, needed, self.serving.log.tail.head()) {
            Boarded::Pilot(pilot) => {
                let result = self.read_and_fill(feed, key, lookup).await;
                if let Ok(answer) = &result {
                    pilot.land(answer.clone());
                }
                result
            }
            Boarded::Passenger(landing) => {
                let left = self.context.timeout.saturating_sub(self.watch.elapsed());
                let landed = async { Ok(landing.wait().await) };
                match self.runtime.within(left, landed).await? {
                    // A follower may have answered the pilot, which demanded less.
                    Some(landed) if landed.position >= needed => Ok(self.shared_answer(landed)),
                    _ => self.read_and_fill(feed, key, lookup).await,
                }
            }
        }
    }

    /// The answer to another caller as one to this caller, whose token is its own.
    fn shared_answer(&self, landed: Landed) -> Found {
        let mut token = self.context.token.clone();
        token.merge(&Token::at(self.serving.log.name.clone(), landed.position));
        token.merge(&self.token_of(landed.value.as_ref().map(|stored| stored.version)));
        let cache = match landed.cache {
            CacheStatus::Miss { stored, .. } => CacheStatus::Miss { stored, shared: true },
            other => other,
        };
        Answer { token, cache, ..landed }
    }

    async fn read_and_fill(&self, feed: &Feed, key: &Key, lookup: &Lookup) -> Result<Found> {
        let mut answer = self.one(key).await?;
        let read: Position = answer.position;
        let stored = feed.fill(key, answer.value.clone(), read, lookup.epoch).await;
        answer.cache = CacheStatus::Miss { stored, shared: false };
        Ok(answer)
    }

    fn cached(&self, feed: &Feed, lookup: &Lookup, entry: &Entry, stale: bool) -> Found {
        let now = self.runtime.now();
        let seconds = |later: unisono_core::Timestamp, earlier| {
            std::time::Duration::from_secs_f64(later.seconds_since(earlier))
        };
        let mut token = self.context.token.clone();
        token.merge(&Token::at(self.serving.log.name.clone(), entry.version));
        Answer {
            value: entry.stored.clone(),
            source: Arc::clone(feed.source()),
            role: Role::Cache,
            replica: false,
            position: lookup.applied,
            token,
            age: seconds(now, entry.filled),
            stale,
            cache: CacheStatus::Hit { ttl: seconds(entry.expires, now) },
            failed: Vec::new(),
        }
    }
}
