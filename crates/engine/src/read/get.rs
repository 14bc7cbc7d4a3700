//! One record by key: the cache, then a shared read of the sources that fills it.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join;
use unisono_core::source::{At, Entry, Lookup};
use unisono_core::{
    Consistency, Context, Error, ErrorKind, Key, Position, Result, Role, Stored, Timestamp, Token,
};
use unisono_policy::declaration::CacheDeclaration;
use unisono_policy::read::CacheUse;
use unisono_policy::route::{Operation, Request};

use crate::answer::{Answer, CacheStatus};
use crate::cache::Feed;
use crate::policies::EntityPolicies;
use crate::read::ask::{Reading, passes_on};
use crate::read::flight::{Boarded, Landed};
use crate::read::serving::Serving;
use crate::runtime::Runtime;

type Found = Answer<Option<Arc<Stored>>>;

/// How long a record may take to be read again before its time, which nobody waits for.
const REFRESH_MAX: Duration = Duration::from_secs(10);

/// One record, or the knowledge that there is none.
pub(crate) async fn get(
    serving: &Arc<Serving>,
    policies: &EntityPolicies,
    context: &Context,
    key: &Key,
    runtime: &Runtime,
) -> Result<Found> {
    let reading = Reading::new(serving, policies, context, runtime);
    let request = reading.request(Operation::Get);
    let cached = serving.cache.as_ref().zip(policies.cache.as_ref());
    let cached = cached.filter(|_| context.consistency != Consistency::Strong);
    let Some((feed, declared)) = cached else { return reading.one(&request, key).await };
    let rule = policies.read.rule(&request);
    let get = Get { reading, request, feed, declared, key, rule: &rule.name };
    match policies.read.cache_use(rule, feed.source()) {
        CacheUse::Never => get.reading.one(&get.request, key).await,
        CacheUse::First => get.cache_first(serving).await,
        CacheUse::Last => get.cache_last().await,
        CacheUse::Beside => get.beside().await,
    }
}

/// One read of one record of an entity with a cache.
struct Get<'a> {
    reading: Reading<'a>,
    request: Request<'a>,
    feed: &'a Arc<Feed>,
    declared: &'a CacheDeclaration,
    key: &'a Key,
    rule: &'a Arc<str>,
}

impl Get<'_> {
    async fn cache_first(&self, serving: &Arc<Serving>) -> Result<Found> {
        let now = self.reading.runtime.now();
        let landings = serving.flights.landings(self.key);
        let Some(lookup) = self.lookup(now).await else {
            return self.reading.one(&self.request, self.key).await;
        };
        if let Some(entry) = self.usable(&lookup)
            && self.feed.is_verified(now)
        {
            self.feed.count(true);
            let refreshing = self.feed.is_due(self.declared, entry, now);
            if refreshing {
                let (serving, key) = (Arc::clone(serving), self.key.clone());
                let runtime = self.reading.runtime.clone();
                self.reading.runtime.spawn(refresh(serving, key, lookup.epoch, runtime));
            }
            return Ok(self.cached(&lookup, entry, Currency::Current { refreshing }));
        }
        self.feed.count(false);
        let result = self.shared(&lookup, landings).await;
        self.or_cached(result, &lookup)
    }

    async fn cache_last(&self) -> Result<Found> {
        let now = self.reading.runtime.now();
        // Looked up before, because a fill must name the life of the cache that it began in.
        let Some(lookup) = self.lookup(now).await else {
            return self.reading.one(&self.request, self.key).await;
        };
        let result = self.read_and_fill(&lookup).await;
        self.or_cached(result, &lookup)
    }

    /// The newer of what the cache and the sources have.
    async fn beside(&self) -> Result<Found> {
        let now = self.reading.runtime.now();
        let (lookup, result) =
            join(self.lookup(now), self.reading.one(&self.request, self.key)).await;
        let Some(lookup) = lookup else { return result };
        let entry = self.usable(&lookup).filter(|_| self.feed.is_verified(now));
        self.feed.count(entry.is_some());
        match (result, entry) {
            (Ok(answer), Some(entry)) if answer.position < lookup.applied.max(entry.version) => {
                Ok(self.cached(&lookup, entry, Currency::Current { refreshing: false }))
            }
            (Ok(answer), _) => Ok(self.fill(answer, &lookup).await),
            (result, _) => self.or_cached(result, &lookup),
        }
    }

    /// What the cache knows; nothing if it fails.
    async fn lookup(&self, now: Timestamp) -> Option<Lookup> {
        match self.feed.lookup(self.key, now).await {
            Ok(lookup) => Some(lookup),
            Err(error) => {
                tracing::debug!(%error, "the cache failed; asking the sources");
                None
            }
        }
    }

    /// The entry, if it holds what the caller must see: because the cache has taken everything up to there into account,
    /// or because this record was read or written as late as that.
    fn usable<'l>(&self, lookup: &'l Lookup) -> Option<&'l Entry> {
        let late_enough = |entry: &&Entry| {
            self.request.consistency == Consistency::Eventual
                || lookup.applied.max(entry.version) >= self.request.token
        };
        lookup.entry.as_ref().filter(late_enough)
    }

    /// If the log gives no sign of life and no source answers, what the cache has is better than nothing.
    fn or_cached(&self, result: Result<Found>, lookup: &Lookup) -> Result<Found> {
        let fallback = self.reading.policies.read.falls_back(self.request.fallback);
        match (result, self.usable(lookup)) {
            (Err(error), Some(entry)) if passes_on(error.kind()) && fallback => {
                self.feed.count_stale();
                Ok(self.cached(lookup, entry, Currency::Unknown))
            }
            (result, _) => result,
        }
    }

    /// Asks the sources once for all callers that want the key at the same time, and fills the cache.
    /// `landings` were counted before the lookup.
    async fn shared(&self, lookup: &Lookup, landings: u32) -> Result<Found> {
        let needed = match self.request.consistency {
            Consistency::Eventual => Position::ZERO,
            _ => self.request.token,
        };
        let serving = self.reading.serving;
        match serving.flights.board(self.key, needed, serving.log.tail.head()) {
            Boarded::Pilot(pilot) => {
                // A read that ended since the lookup has left its answer in the cache.
                let found = match serving.flights.landings(self.key) == landings {
                    true => None,
                    false => self.found_meanwhile().await,
                };
                let result = match found {
                    Some(answer) => Ok(answer),
                    None => self.read_and_fill(lookup).await,
                };
                if let Ok(answer) = &result {
                    pilot.land(answer.clone());
                }
                result
            }
            Boarded::Passenger(landing) => {
                let left = self.reading.left();
                let landed = async { Ok(landing.wait().await) };
                match self.reading.runtime.within(left, landed).await? {
                    // A follower may have answered the pilot, which demanded less.
                    Some(landed) if landed.position >= needed => Ok(self.shared_answer(landed)),
                    _ => self.read_and_fill(lookup).await,
                }
            }
        }
    }

    /// The answer to another caller as one to this caller, whose token is its own.
    fn shared_answer(&self, landed: Landed) -> Found {
        let mut token = self.reading.context.token.clone();
        token.merge(&Token::at(self.reading.serving.log.name.clone(), landed.position));
        token.merge(&self.reading.token_of(landed.value.as_ref().map(|stored| stored.version)));
        let cache = match landed.cache {
            CacheStatus::Miss { stored, .. } => CacheStatus::Miss { stored, shared: true },
            other => other,
        };
        Answer { token, cache, ..landed }
    }

    async fn found_meanwhile(&self) -> Option<Found> {
        let now = self.reading.runtime.now();
        let lookup = self.lookup(now).await?;
        let entry = self.usable(&lookup).filter(|_| self.feed.is_verified(now))?;
        Some(self.cached(&lookup, entry, Currency::Current { refreshing: false }))
    }

    async fn read_and_fill(&self, lookup: &Lookup) -> Result<Found> {
        // Whatever empties a cache must not send all of its readers to the truth at once.
        let admitted = self.reading.runtime.within(self.reading.left(), self.feed.admit()).await;
        let admitted = admitted.map_err(|error| match error.kind() {
            ErrorKind::Timeout => Error::new(
                ErrorKind::Overloaded,
                "too many reads wait that the cache cannot answer",
            )
            .of(self.reading.serving.entity.name()),
            _ => error,
        })?;
        let watch = self.reading.runtime.stopwatch();
        let answer = self.reading.one(&self.request, self.key).await?;
        drop(admitted);
        self.feed.measured(watch.elapsed());
        Ok(self.fill(answer, lookup).await)
    }

    /// Offers an answer to the cache.
    async fn fill(&self, answer: Found, lookup: &Lookup) -> Found {
        let read: Position = answer.position;
        let stored =
            self.feed.fill(self.declared, self.key, answer.value.clone(), read, lookup.epoch).await;
        Answer { cache: CacheStatus::Miss { stored, shared: false }, ..answer }
    }

    fn cached(&self, lookup: &Lookup, entry: &Entry, currency: Currency) -> Found {
        let now = self.reading.runtime.now();
        let mut token = self.reading.context.token.clone();
        token.merge(&Token::at(self.reading.serving.log.name.clone(), entry.version));
        Answer {
            value: entry.stored.clone(),
            source: Arc::clone(self.feed.source()),
            role: Role::Cache,
            replica: false,
            position: lookup.applied.max(entry.version),
            token,
            age: Duration::from_secs_f64(now.seconds_since(entry.filled).max(0.0)),
            stale: matches!(currency, Currency::Unknown),
            cache: CacheStatus::Hit {
                ttl: Feed::left(self.declared, entry, now),
                refreshing: matches!(currency, Currency::Current { refreshing: true }),
            },
            rule: Arc::clone(self.rule),
            failed: Vec::new(),
        }
    }
}

/// What is known of how current an entry is.
enum Currency {
    /// It holds all that the cache has applied, and the log gives signs of life.
    Current { refreshing: bool },
    /// Newer data may exist.
    Unknown,
}

/// Reads a cached record again, unless somebody does so already.
async fn refresh(serving: Arc<Serving>, key: Key, epoch: u64, runtime: Runtime) {
    let policies = serving.policies.present.load();
    let policies = policies.of(&serving.policies);
    let Some((feed, declared)) = serving.cache.as_ref().zip(policies.cache.as_ref()) else {
        return;
    };
    let context = Context { timeout: REFRESH_MAX, ..Context::default() };
    let reading = Reading::new(&serving, policies, &context, &runtime);
    let request = reading.request(Operation::Get);
    let rule = policies.read.rule(&request);
    let get = Get { reading, request, feed, declared, key: &key, rule: &rule.name };
    let lookup = Lookup { entry: None, applied: Position::ZERO, epoch };
    let head = serving.log.tail.head();
    if let Boarded::Pilot(pilot) = serving.flights.board(&key, Position::ZERO, head)
        && let Ok(answer) = get.read_and_fill(&lookup).await
    {
        feed.count_refreshed();
        pilot.land(answer);
    }
}

impl Reading<'_> {
    /// Asks the sources.
    async fn one(&self, request: &Request<'_>, key: &Key) -> Result<Found> {
        let serving = self.serving;
        let keys = [key.clone()];
        let mut answer = Reading { key: Some(&keys[0]), ..*self }
            .ask(request, &|reader| {
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
}
