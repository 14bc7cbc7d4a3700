//! [`Engine`]: everything that a caller can ask for. Each operation only names its steps; they live in the modules.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::future::join_all;
use serde_json::{Value as Json, json};
use tokio::sync::Mutex;
use unisono_core::query::{Aggregate, Filter, Groups, Page, Query};
use unisono_core::source::{LogBounds, Source};
use unisono_core::spelling;
use unisono_core::{
    Change, Context, Entity, Error, ErrorKind, FieldType, Key, LogName, Position, Result, Stored,
    Token,
};
use unisono_policy::declaration::Declaration;

use crate::answer::Answer;
use crate::audit::{self, Entry};
use crate::delivery::dead_letter::DeadLetter;
use crate::delivery::{Delivery, Redelivered, all_letters};
use crate::kept;
use crate::log::Log;
use crate::open::{self, Running};
use crate::policies::{Policies, Present};
use crate::read::ask::Reading;
use crate::read::explain::{self, Operation};
use crate::read::serving::Serving;
use crate::read::{get, pending, question};
use crate::runtime::Runtime;
use crate::topology::{Logs, Servings, Topology};
use crate::write::behind::Behind;
use crate::write::idempotency::InFlight;

pub use following::RowsFollowed;
pub use projecting::{ProjectedTarget, ProjectionStatus};
pub use reload::OpenSource;
pub use streaming::{DueTimer, KeptProcess, KeptSnapshot, ProcessStep, is_overtaken};
pub(crate) use verifying::Swept;

mod archiving;
mod following;
mod moving;
mod pausing;
mod personal;
mod projecting;
mod reload;
mod streaming;
mod syncing;
mod verifying;
mod watching;
mod writing;

/// A running Unisono: sources opened, deliveries going. Cheap to clone; all clones are the same engine.
#[derive(Clone)]
pub struct Engine(Arc<Inner>, Option<Arc<str>>);

struct Inner {
    /// What is declared at present.
    present: Present,
    /// Held while that is replaced.
    reloading: Mutex<()>,
    runtime: Runtime,
    running: Running,
    in_flight: InFlight,
    /// The projections of which this process makes a version answer, or empties one.
    rebuilding: projecting::Rebuilding,
    /// The rows of projections that are followed.
    watches: following::Watches,
}

impl Drop for Inner {
    /// What runs knows the present policies, which know what runs: that must not outlive the engine.
    fn drop(&mut self) {
        if self.runtime.has_ended() {
            let declaration = Arc::clone(&self.present.load().declaration);
            let nothing = Policies::new(declaration, Topology::default(), None);
            self.present.store(Arc::new(nothing));
        }
    }
}

/// How long closing waits for running work.
const CLOSE_MAX: Duration = Duration::from_secs(10);
/// How long closing waits for acknowledged writes to be flushed; what is left stays in the journal.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// How long closing waits until it is kept what was read most, and what was done is in the audit trail.
const KEEP_MAX: Duration = Duration::from_secs(2);

impl Engine {
    /// Prepares every source, and starts delivery. The texts say what was changed in the sources' schemas. If it fails,
    /// nothing is left running.
    pub async fn open(
        declaration: Declaration,
        sources: BTreeMap<Arc<str>, Arc<dyn Source>>,
        runtime: Runtime,
    ) -> Result<(Engine, Vec<String>)> {
        let wanted = declaration.clone();
        let present = Arc::new(ArcSwap::from_pointee(Policies::new(
            Arc::new(declaration),
            Topology::default(),
            None,
        )));
        let running = match open::open(&present, sources, &runtime).await {
            Ok(running) => running,
            Err(error) => {
                runtime.abort();
                runtime.join().await;
                return Err(error);
            }
        };
        let notes = running.notes.clone();
        let inner = Inner {
            present,
            reloading: Mutex::default(),
            runtime,
            running,
            in_flight: InFlight::default(),
            rebuilding: Default::default(),
            watches: Default::default(),
        };
        let engine = Engine(Arc::new(inner), None);
        engine.sweep(engine.0.present.load_full().deliveries.iter());
        engine.watch_others();
        engine.move_to_declared(&wanted);
        Ok((engine, notes))
    }

    /// What it was opened with, as it was reloaded since.
    pub fn declaration(&self) -> Arc<Declaration> {
        Arc::clone(&self.0.present.load().declaration)
    }

    /// Its time, randomness and tasks.
    pub fn runtime(&self) -> &Runtime {
        &self.0.runtime
    }

    /// The same engine in the hands of somebody, who is named in the audit trail for what is done with it.
    pub fn acting_for(&self, actor: Option<Arc<str>>) -> Engine {
        Engine(Arc::clone(&self.0), actor)
    }

    /// Notes in the audit trail what was done: in the log of the entity concerned, or in the first.
    fn audit(&self, action: &'static str, of: (Option<&str>, Option<&str>), details: Json) {
        if let Some((log, entry)) = self.audit_entry(action, of, details) {
            log.audit(entry, &self.0.runtime);
        }
    }

    /// Does what is in the audit trail before it is done; that it failed is there as well.
    async fn audited<T>(
        &self,
        action: &'static str,
        of: (Option<&str>, Option<&str>),
        details: Json,
        done: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        if let Some((log, entry)) = self.audit_entry(action, of, details.clone()) {
            log.audit_before(&entry, &self.0.runtime).await?;
        }
        let done = done.await;
        if let Err(error) = &done {
            self.audit(action, of, json!({ "failed": error.to_string(), "of": details }));
        }
        done
    }

    fn audit_entry(
        &self,
        action: &'static str,
        (entity, source): (Option<&str>, Option<&str>),
        details: Json,
    ) -> Option<(Arc<Log>, Entry)> {
        let of_entity = entity.and_then(|name| self.serving(name).ok()).map(|s| Arc::clone(&s.log));
        // The first that is the log of a truth still.
        let first = || {
            let servings = self.servings();
            let logs = servings.values().map(|serving| &serving.log);
            logs.min_by(|a, b| a.name.cmp(&b.name)).cloned()
        };
        let log = of_entity.or_else(first)?;
        let (entity, source) = (entity.map(Arc::from), source.map(Arc::from));
        Some((log, Entry { actor: self.1.clone(), action, entity, source, details }))
    }

    /// An entity of a log, also one of the engine's own; `None` if it is not declared any more.
    pub fn entity_of_log(&self, name: &str) -> Option<&Arc<Entity>> {
        let own =
            [audit::entity(), kept::entity()].into_iter().find(|own| own.name().as_ref() == name);
        own.or_else(|| self.entity(name).ok())
    }

    /// A declared entity, or `not_found` with the nearest name as the hint.
    pub fn entity(&self, name: &str) -> Result<&Arc<Entity>> {
        self.0.running.declared.get(name).ok_or_else(|| self.unknown(name))
    }

    /// A key for a new record: a UUID v7 for `string` and `uuid` keys, `invalid_input` for integer keys.
    pub fn new_key(&self, entity: &Entity) -> Result<Key> {
        match entity.key_field().ty {
            FieldType::Uuid => Ok(Key::Uuid(self.0.runtime.uuid())),
            FieldType::Integer => {
                Err(Error::invalid("a record with an integer key needs the key given")
                    .of(entity.name())
                    .with("field", &entity.key_field().name))
            }
            _ => Key::from_text(&self.0.runtime.uuid().to_string()),
        }
    }

    /// One record, or the knowledge that there is none.
    pub async fn get(
        &self,
        context: &Context,
        entity: &Arc<Entity>,
        key: &Key,
    ) -> Result<Answer<Option<Arc<Stored>>>> {
        let serving = self.serving(entity.name())?;
        let (policies, runtime) = (self.0.present.load(), &self.0.runtime);
        let policies = policies.of(&serving.policies);
        let mut answer = match &serving.behind {
            Some(behind) => pending::get(&serving, policies, behind, context, key, runtime).await,
            None => get::get(&serving, policies, context, key, runtime).await,
        }?;
        self.opened_one(entity, &mut answer.value).await?;
        Ok(answer)
    }

    /// One page of records. Hits hold whole records; cutting out `fields` is the caller's.
    pub async fn query(
        &self,
        context: &Context,
        entity: &Arc<Entity>,
        query: &Query,
    ) -> Result<Answer<Page>> {
        let serving = self.serving(entity.name())?;
        let policies = self.0.present.load();
        let context = &pending::flushed(&serving, context, &self.0.runtime).await?;
        let policies = policies.of(&serving.policies);
        let reading = Reading::new(&serving, policies, context, &self.0.runtime);
        let mut answer = question::query(&reading, query).await?;
        if reading.may_keep(&answer.source) {
            self.opened_page(entity, &mut answer.value).await?;
        }
        Ok(answer)
    }

    /// How many records match.
    pub async fn count(
        &self,
        context: &Context,
        entity: &Arc<Entity>,
        filter: &Filter,
        search: Option<&str>,
    ) -> Result<Answer<u64>> {
        let serving = self.serving(entity.name())?;
        let policies = self.0.present.load();
        let context = &pending::flushed(&serving, context, &self.0.runtime).await?;
        let policies = policies.of(&serving.policies);
        let reading = Reading::new(&serving, policies, context, &self.0.runtime);
        question::count(&reading, filter, search).await
    }

    /// Groups and totals.
    pub async fn aggregate(
        &self,
        context: &Context,
        entity: &Arc<Entity>,
        aggregate: &Aggregate,
    ) -> Result<Answer<Groups>> {
        let serving = self.serving(entity.name())?;
        let policies = self.0.present.load();
        let context = &pending::flushed(&serving, context, &self.0.runtime).await?;
        let policies = policies.of(&serving.policies);
        let reading = Reading::new(&serving, policies, context, &self.0.runtime);
        question::aggregate(&reading, aggregate).await
    }

    /// The changes of one record, newest first.
    pub async fn history(
        &self,
        context: &Context,
        entity: &Arc<Entity>,
        key: &Key,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<Arc<Change>>> {
        let truth = Arc::clone(&self.serving(entity.name())?.log.truth);
        let reading = truth.history(entity, key, before, limit);
        let mut changes = self.0.runtime.within(context.timeout, reading).await?;
        self.opened_changes(&mut changes).await?;
        Ok(changes)
    }

    /// The logs and where they begin and end.
    pub async fn logs(&self) -> Result<Vec<(LogName, LogBounds)>> {
        let mut logs = Vec::new();
        for log in self.logs_now().values() {
            logs.push((log.name.clone(), log.truth.bounds().await?));
        }
        Ok(logs)
    }

    /// The changes of a log after a position, at most `max`; waits up to `wait` for the first.
    pub async fn changes(
        &self,
        log: &LogName,
        after: Position,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<Arc<Change>>> {
        let logs = self.logs_now();
        let found = logs.get(&log.truth).filter(|l| l.name == *log);
        let log = found.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "there is no such log").with("log", log)
        })?;
        let more = async {
            log.tail.beyond(after).await;
            Ok(())
        };
        // No change within the time is an empty answer, not a failure.
        let _ = self.0.runtime.within(wait, more).await;
        let mut changes = log.tail.read(after, max, 8 << 20).await?;
        self.opened_changes(&mut changes).await?;
        Ok(changes)
    }

    /// Waits until every follower has applied the token's positions.
    pub async fn wait_applied(&self, token: &Token, limit: Duration) -> Result<()> {
        let all = async {
            let present = self.0.present.load_full();
            // What stands still comes to no position.
            for delivery in present.deliveries.iter().filter(|d| !d.target().still) {
                let serving = self.serving(delivery.target().read_as())?;
                delivery.wait_applied(token.position(&serving.log.name)).await;
            }
            Ok(())
        };
        self.0.runtime.within(limit, all).await
    }

    /// A token for everything committed so far.
    pub async fn head_token(&self) -> Result<Token> {
        let mut token = Token::default();
        for (name, bounds) in self.logs().await? {
            token.merge(&Token::at(name, bounds.head));
        }
        Ok(token)
    }

    /// Makes the copy of an entity in a follower anew, beside the stream.
    pub async fn backfill(&self, entity: &str, source: &str) -> Result<()> {
        let delivery = self.delivery(entity, source)?;
        let of = (Some(entity), Some(source));
        self.audited("backfill", of, Json::Null, delivery.copy_again()).await
    }

    /// The dead letters that wait.
    pub async fn dead_letters(&self) -> Result<Vec<DeadLetter>> {
        let mut letters = Vec::new();
        for log in self.logs_now().values() {
            letters.extend(all_letters(log.truth.as_ref()).await?);
        }
        Ok(letters)
    }

    /// Delivers the current state of a dead letter's record again, or has the journal keep a refused write again;
    /// answers whether it was accepted.
    pub async fn replay(&self, letter: &DeadLetter) -> Result<bool> {
        self.audited_letter("replay", letter, async {
            if let Some(write) = &letter.write {
                return self.behind(&letter.entity)?.replay(letter, write).await.map(|()| true);
            }
            let delivery = self.delivery(&letter.entity, &letter.source)?;
            let key = Key::parse(&delivery.target().entity, &letter.key)?;
            let outcomes = delivery.redeliver(vec![key]).await?;
            Ok(outcomes.iter().all(|o| matches!(o, Redelivered::Accepted)))
        })
        .await
    }

    /// Forgets a dead letter: verification will find the record different, or a refused write is gone.
    pub async fn discard(&self, letter: &DeadLetter) -> Result<()> {
        self.audited_letter("discard", letter, async {
            if letter.write.is_some() {
                return self.behind(&letter.entity)?.discard(letter).await;
            }
            self.delivery(&letter.entity, &letter.source)?.discard(letter).await
        })
        .await
    }

    async fn audited_letter<T>(
        &self,
        action: &'static str,
        letter: &DeadLetter,
        done: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let details =
            json!({ "key": letter.key, "version": letter.version, "reason": letter.reason });
        let of = (Some(&*letter.entity), Some(&*letter.source));
        self.audited(action, of, details, done).await
    }

    /// All records of an entity in key order, page by page, from the truth: for export.
    pub async fn scan(
        &self,
        entity: &Arc<Entity>,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<(Vec<Stored>, bool)> {
        let log = Arc::clone(&self.serving(entity.name())?.log);
        let mut page = log.auditor.scan(entity, after, limit).await?.value;
        self.opened(entity, page.records.iter_mut()).await?;
        Ok((page.records, page.end))
    }

    /// The decision for a read, without making it: one line per candidate, with the reason.
    pub fn explain(
        &self,
        context: &Context,
        entity: &Arc<Entity>,
        operation: &Operation,
    ) -> Vec<String> {
        let serving = self.serving(entity.name());
        serving.map_or(Vec::new(), |serving| {
            explain::explain(&serving, context, operation, &self.0.runtime)
        })
    }

    /// Stops taking requests, lets running ones and checkpoints finish, flushes what was acknowledged, closes the sources.
    pub async fn close(&self) -> Result<()> {
        let behinds = self.behinds();
        behinds.iter().for_each(|behind| behind.close());
        let drained = async {
            for behind in &behinds {
                behind.wait_drained().await;
            }
            Ok(())
        };
        if let Err(error) = self.0.runtime.within(DRAIN_MAX, drained).await {
            tracing::warn!(%error, "acknowledged writes stay in the journal until the next start");
        }
        let turn = async { Ok(self.0.reloading.lock().await) };
        // A reload that hangs is ended with everything else.
        let _reloading = self.0.runtime.within(CLOSE_MAX, turn).await;
        let present = self.0.present.load_full();
        // In the log before deliveries save how far they have come.
        self.wait_audited().await;
        for delivery in &present.deliveries {
            delivery.close();
        }
        let stopped = async {
            for delivery in &present.deliveries {
                delivery.wait_stopped().await;
            }
            Ok(())
        };
        // A delivery that cannot finish goes on from its checkpoint at the next start.
        let _ = self.0.runtime.within(CLOSE_MAX, stopped).await;
        self.keep_hot_keys().await;
        self.0.runtime.abort();
        self.0.runtime.join().await;
        for handle in present.sources.values() {
            handle.source.close().await?;
        }
        Ok(())
    }

    /// Entries of the audit trail are on their way for a moment only.
    async fn wait_audited(&self) {
        let logs = self.logs_now();
        let written =
            join_all(logs.values().map(|log| log.auditing.until(|entries| *entries == 0)));
        let written = async { Ok(written.await) };
        let _ = self.0.runtime.within(KEEP_MAX, written).await;
    }

    /// What the caches of the next start are warmed with; without it they have what was kept before.
    async fn keep_hot_keys(&self) {
        let servings = self.servings();
        let feeds = servings.values().filter_map(|s| s.cache.as_ref());
        let kept = join_all(feeds.map(|feed| feed.keep_hot_keys_now()));
        let kept = async { Ok(kept.await) };
        let _ = self.0.runtime.within(KEEP_MAX, kept).await;
    }

    /// The delivery to a follower; of a projection that of the version which answers, unless another place is named.
    fn delivery(&self, entity: &str, source: &str) -> Result<Arc<Delivery>> {
        let present = self.0.present.load();
        let serving = self.serving(entity).ok();
        let answering = serving.as_ref().map(|s| &present.of(&s.policies).answering);
        let answers = answering.and_then(|all| all.get(source)?.delivery.clone());
        let is =
            |d: &&Arc<Delivery>| **d.target().name() == *entity && *d.target().source == *source;
        answers.or_else(|| present.deliveries.iter().find(is).cloned()).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "there is no such follower of this entity")
                .at(source)
                .of(entity)
        })
    }

    fn behind(&self, entity: &str) -> Result<Arc<Behind>> {
        self.serving(entity)?.behind.clone().ok_or_else(|| {
            Error::unsupported("the entity is not written behind")
                .of(entity)
                .hint("declare `strategy = \"write_behind\"` until its dead letters are settled")
        })
    }

    /// What is written behind.
    fn behinds(&self) -> Vec<Arc<Behind>> {
        self.servings().values().filter_map(|serving| serving.behind.clone()).collect()
    }

    fn logs_now(&self) -> Arc<Logs> {
        Arc::clone(&self.0.present.load().logs)
    }

    fn servings(&self) -> Arc<Servings> {
        Arc::clone(&self.0.present.load().servings)
    }

    fn serving(&self, name: &str) -> Result<Arc<Serving>> {
        let present = self.0.present.load();
        present.servings.get(name).cloned().ok_or_else(|| self.unknown(name))
    }

    fn unknown(&self, name: &str) -> Error {
        let error = Error::new(ErrorKind::NotFound, "there is no such entity").with("entity", name);
        let known = self.0.running.declared.keys();
        match spelling::closest(name, known.map(|n| n.as_ref())) {
            Some(near) => error.hint(format!("did you mean {near}?")),
            None => error,
        }
    }
}
