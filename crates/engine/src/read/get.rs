//! One record by key: the cache, then a shared read of the sources that fills it.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, join};
use unisono_core::source::{Entry, Lease, Lookup, Reader};
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
use crate::read::flight::{Boarded, Landed, Pilot};
use crate::read::serving::Serving;
use crate::runtime::Runtime;

type Found = Answer<Option<Arc<Stored>>>;

/// How long a record may take to be read again before its time, which nobody waits for.
const REFRESH_MAX: Duration = Duration::from_secs(10);

/// How often the cache is asked for an entry that another process is about to bring: soon at first, then less often.
const POLL_MIN: Duration = Duration::from_millis(2);
const POLL_MAX: Duration = Duration::from_millis(50);

/// One record, or the knowledge that there is none.
pub(crate) async fn get(
    serving: &Arc<Serving>,
    policies: &EntityPolicies,
    context: &Context,
    key: &Key,
    runtime: &Runtime,
) -> Result<Found> {
    let reading = Reading::new(serving, policies, context, runtime);
    if let Some(count) = context.quorum.or(policies.read.quorum).filter(|count| *count > 1) {
        return reading.newest(key, count).await;
    }
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
        let Some((lookup, lease)) = self.lookup_or_lease(now).await else {
            return self.reading.one(&self.request, self.key).await;
        };
        if let Some(entry) = self.usable(&lookup)
            && self.feed.is_verified(now)
        {
            self.feed.count_key(true, self.key);
            let refreshing = self.feed.is_due(self.declared, entry, now);
            if refreshing {
                let (serving, key) = (Arc::clone(serving), self.key.clone());
                let runtime = self.reading.runtime.clone();
                self.reading.runtime.spawn(refresh(serving, key, entry.expires, runtime));
            }
            return Ok(self.cached(&lookup, entry, Currency::Current { refreshing }));
        }
        self.feed.count_key(false, self.key);
        let result = self.shared(&lookup, lease, landings).await;
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
        self.feed.count_key(entry.is_some(), self.key);
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
        known(self.feed.lookup(self.key, now).await)
    }

    /// The same, and who is to read what is not there.
    async fn lookup_or_lease(&self, now: Timestamp) -> Option<(Lookup, Lease)> {
        known(self.feed.lookup_or_lease(self.declared, self.key, now).await)
    }

    /// The entry, if it holds what the caller must see: because the cache has taken everything up to there into account,
    /// or because this record was read or written as late as that.
    fn usable<'l>(&self, lookup: &'l Lookup) -> Option<&'l Entry> {
        let late_enough = |entry: &&Entry| lookup.applied.max(entry.version) >= self.needed();
        lookup.entry.as_ref().filter(late_enough)
    }

    /// What an answer must contain.
    fn needed(&self) -> Position {
        match self.request.consistency {
            Consistency::Eventual => Position::ZERO,
            _ => self.request.token,
        }
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
    async fn shared(&self, lookup: &Lookup, lease: Lease, landings: u32) -> Result<Found> {
        let needed = self.needed();
        let serving = self.reading.serving;
        match serving.flights.board(self.key, needed, serving.log.tail.head()) {
            Boarded::Pilot(pilot) => {
                // A read that ended since the lookup has left its answer in the cache.
                let found = match serving.flights.landings(self.key) == landings {
                    true => None,
                    false => self.found_meanwhile().await,
                };
                match found {
                    Some(answer) => Ok(pilot.land(answer)),
                    None => self.fly(pilot, lookup, lease, self.reading.runtime.now()).await,
                }
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

    /// Reads for everybody who waits in this process, unless another process does so for an entry that lives at `at`.
    async fn fly(
        &self,
        pilot: Pilot<'_>,
        lookup: &Lookup,
        lease: Lease,
        at: Timestamp,
    ) -> Result<Found> {
        if lease == Lease::Taken
            && let Some(answer) = self.brought(lookup, at).await
        {
            return Ok(pilot.land(answer));
        }
        let result = self.read_and_fill(lookup).await;
        let is_there = |a: &Found| matches!(a.cache, CacheStatus::Miss { stored: true, .. });
        if lease != Lease::Free && !result.as_ref().is_ok_and(is_there) {
            self.feed.release(self.key);
        }
        result.map(|answer| pilot.land(answer))
    }

    /// Waits for the entry that another process is about to bring; nothing if it does not come soon, or would not do.
    async fn brought(&self, lookup: &Lookup, at: Timestamp) -> Option<Found> {
        // Whatever comes holds what the cache has applied; it may hold no more.
        if lookup.applied < self.needed() {
            return None;
        }
        let runtime = self.reading.runtime;
        let limit = self.declared.lease.min(self.reading.left() / 2);
        let (watch, mut pause) = (runtime.stopwatch(), POLL_MIN);
        while watch.elapsed() < limit && self.feed.is_verified(runtime.now()) {
            runtime.sleep(pause).await;
            pause = (pause * 2).min(POLL_MAX);
            let (lookup, lease) = self.lookup_or_lease(at.max(runtime.now())).await?;
            if let Some(entry) = self.usable(&lookup) {
                return Some(self.cached(&lookup, entry, Currency::Current { refreshing: false }));
            }
            if lease != Lease::Taken {
                return None;
            }
        }
        None
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

/// What the cache answered; nothing if it failed.
fn known<T>(answer: Result<T>) -> Option<T> {
    answer.inspect_err(|error| tracing::debug!(%error, "the cache failed; asking the sources")).ok()
}

/// Reads a cached record that lives until `expires` again, unless somebody does so already, here or in another process.
async fn refresh(serving: Arc<Serving>, key: Key, expires: Timestamp, runtime: Runtime) {
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
    let head = serving.log.tail.head();
    let Boarded::Pilot(pilot) = serving.flights.board(&key, Position::ZERO, head) else { return };
    // An entry that is live when this one ends was brought by somebody else meanwhile.
    let Some((lookup, lease)) = get.lookup_or_lease(expires).await else { return };
    if let Some(entry) = get.usable(&lookup) {
        pilot.land(get.cached(&lookup, entry, Currency::Current { refreshing: false }));
    } else if let Ok(answer) = get.fly(pilot, &lookup, lease, expires).await
        && matches!(answer.cache, CacheStatus::Miss { .. })
    {
        if !feed.keeps(declared, answer.value.as_ref().map(|stored| stored.record.as_ref())) {
            // Otherwise every reader would have it read again until its time is over.
            feed.invalidate(std::slice::from_ref(&key)).await;
        }
        feed.count_refreshed();
    }
}

impl Reading<'_> {
    /// Asks the sources for one record.
    async fn one(&self, request: &Request<'_>, key: &Key) -> Result<Found> {
        let answer = self.several(request, std::slice::from_ref(key)).await?;
        Ok(self.with_token(answer))
    }

    /// The only record of an answer, with a token for it.
    pub(super) fn with_token(&self, answer: Answer<Vec<Option<Stored>>>) -> Found {
        let mut answer = answer.map(|found| found.into_iter().next().flatten().map(Arc::new));
        let shown = answer.value.as_ref().map(|stored| stored.version);
        answer.token.merge(&self.token_of(shown));
        answer
    }

    /// Asks the sources for records by their keys: one answer for each key, in order, all of one moment.
    pub(crate) async fn several(
        &self,
        request: &Request<'_>,
        keys: &[Key],
    ) -> Result<Answer<Vec<Option<Stored>>>> {
        let entity = &self.serving.entity;
        let question = &|reader: Arc<dyn Reader>| {
            let work = async move { reader.get(entity, keys).await };
            Box::pin(work) as BoxFuture<'_, _>
        };
        Reading { keys, ..*self }.ask(request, question).await
    }
}
