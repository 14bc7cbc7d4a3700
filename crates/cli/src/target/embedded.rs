//! [`Embedded`]: the sources of the configuration, opened by this process.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};
use unisono::core::query::{self, Filter, Query, parse};
use unisono::core::source::LogBounds;
use unisono::core::stream::Event;
use unisono::core::write::{Action, Condition, Write, apply_defaults};
use unisono::core::{
    Change, Context, Entity, Error, ErrorKind, Key, LogName, Position, Record, Result, Stored,
    json as codec,
};
use unisono::engine::Operation;
use unisono::engine::archive::backup::Backup;
use unisono::engine::delivery::dead_letter::DeadLetter;
use unisono::engine::stream::{Appending, Excerpt, Sought};
use unisono::engine::sync::Conflict;
use unisono::engine::verify::report::VerifyOptions;
use unisono::engine::{Answer, Engine};

use super::{
    CONFLICTS_MAX, Found, Log, Page, Parser, Prepared, PutCondition, ReportProgress, Target,
};
use crate::lock::DataLock;
use crate::terminal::Object;

/// How long deliveries may take to find out where their followers are.
const STARTING_MAX: Duration = Duration::from_secs(10);
/// How long one look for further changes waits.
const FOLLOW_WAIT: Duration = Duration::from_secs(5);

/// The engine in this process.
pub(crate) struct Embedded {
    engine: Engine,
    /// Held until the engine is closed, unless somebody else holds it.
    _lock: Option<DataLock>,
}

impl Embedded {
    /// Around an engine that was opened under the lock of its data directory.
    pub(crate) fn new(engine: Engine, lock: Option<DataLock>) -> Self {
        Embedded { engine: engine.acting_for(context().actor), _lock: lock }
    }

    fn entity(&self, name: &str) -> Result<Arc<Entity>> {
        self.engine.entity(name).cloned()
    }

    /// As session reads of a process that has written nothing yet may be old, the truth's head is asked first.
    async fn fresh(&self) -> Result<Context> {
        Ok(Context { token: self.engine.head_token().await?, ..context() })
    }

    /// A program that has just started may ask before its deliveries have looked at their followers: a question that
    /// nobody can answer now is asked once more when they have.
    async fn query(&self, entity: &Arc<Entity>, query: &Query) -> Result<query::Page> {
        let context = self.fresh().await?;
        match self.engine.query(&context, entity, query).await {
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                // A follower that stays behind makes the second answer the same as the first.
                let _ = self.engine.wait_applied(&context.token, STARTING_MAX).await;
            }
            answer => return Ok(answer?.value),
        }
        Ok(self.engine.query(&context, entity, query).await?.value)
    }
}

#[async_trait]
impl Target for Embedded {
    async fn get(&self, entity: &str, key: &str) -> Result<Option<Found>> {
        let entity = self.entity(entity)?;
        let key = Key::parse(&entity, key)?;
        let answer = self.engine.get(&self.fresh().await?, &entity, &key).await?;
        answer.value.as_deref().map(|stored| found(&entity, stored, &answer)).transpose()
    }

    async fn put(
        &self,
        entity: &str,
        record: &Json,
        condition: PutCondition,
    ) -> Result<Option<Position>> {
        let entity = self.entity(entity)?;
        let condition = match condition {
            PutCondition::None => Condition::None,
            PutCondition::Absent => Condition::Absent,
            PutCondition::Version(version) => Condition::Version(Some(version)),
        };
        let write = write(&entity, codec::parse(&entity, record)?, condition)?;
        let written = self.engine.write(&context(), vec![write]).await?;
        match (written.changes.first(), &written.accepted) {
            (Some(change), _) => Ok(Some(change.position)),
            (None, Some(_)) => Ok(None),
            (None, None) => Err(Error::internal("a write made no change")),
        }
    }

    async fn find(&self, entity: &str, parameters: &[(String, String)]) -> Result<Page> {
        let entity = self.entity(entity)?;
        let query = parse::url(&entity, parameters)?;
        let page = self.query(&entity, &query).await?;
        let items = page.hits.iter().map(|hit| project(&entity, &hit.stored.record, &query));
        Ok(Page {
            items: items.collect::<Result<_>>()?,
            next: page.next.as_ref().map(|cursor| cursor.encode(&entity, &query)),
        })
    }

    async fn count(&self, entity: &str) -> Result<u64> {
        let entity = self.entity(entity)?;
        let answer = self.engine.count(&self.fresh().await?, &entity, &Filter::All, None).await?;
        Ok(answer.value)
    }

    fn parser(&self, entity: &str) -> Result<Parser> {
        let entity = self.entity(entity)?;
        Ok(Arc::new(move |text| {
            let record = codec::parse_slice(&entity, text)?;
            let write = write(&entity, record, Condition::None)?;
            Ok(Prepared::Write(Box::new(write)))
        }))
    }

    async fn store(&self, _entity: &str, records: Vec<Prepared>) -> Result<Vec<Result<()>>> {
        let writes = records.into_iter().map(|record| match record {
            Prepared::Write(write) => Ok(*write),
            Prepared::Json(_) => Err(Error::internal("a record was prepared for a server")),
        });
        let writes = writes.collect::<Result<Vec<_>>>()?;
        let results = self.engine.write_each(&context(), writes).await;
        Ok(results.into_iter().map(|result| result.map(|_| ())).collect())
    }

    fn stores_at_once(&self) -> usize {
        4
    }

    async fn export(&self, entity: &str, after: Option<String>) -> Result<Page> {
        let entity = self.entity(entity)?;
        let after = after.map(|key| Key::parse(&entity, &key)).transpose()?;
        let (records, end) = self.engine.scan(&entity, after.as_ref(), Query::LIMIT_MAX).await?;
        let last = records.last().filter(|_| !end);
        let next = last.map(|stored| stored.key.to_string());
        let items = records.iter().map(|stored| raw(codec::to_vec(&entity, &stored.record)));
        Ok(Page { items: items.collect::<Result<_>>()?, next })
    }

    async fn status(&self) -> Result<Json> {
        to_json(&self.engine.status().await)
    }

    async fn logs(&self) -> Result<Vec<Log>> {
        let logs = self.engine.logs().await?.into_iter();
        let log = |(name, bounds): (LogName, LogBounds)| Log {
            name: name.to_string(),
            head: bounds.head,
            trimmed: bounds.trimmed,
        };
        Ok(logs.map(log).collect())
    }

    async fn changes(
        &self,
        log: &str,
        after: Position,
        max: usize,
        follow: bool,
    ) -> Result<Vec<Json>> {
        let logs = self.engine.logs().await?;
        let name = logs.into_iter().map(|(name, _)| name).find(|name| name.to_string() == log);
        let name = name.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "there is no log of this name").with("log", log)
        })?;
        let wait = if follow { FOLLOW_WAIT } else { Duration::ZERO };
        let changes = self.engine.changes(&name, after, max, wait).await?;
        Ok(changes.iter().map(|change| self.describe(change)).collect())
    }

    async fn history(
        &self,
        entity: &str,
        key: &str,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<Json>> {
        let entity = self.entity(entity)?;
        let key = Key::parse(&entity, key)?;
        let changes = self.engine.history(&context(), &entity, &key, before, limit).await?;
        Ok(changes.iter().map(|change| self.describe(change)).collect())
    }

    async fn append(&self, ty: &str, stream: &str, body: &Json) -> Result<Json> {
        let appending = Appending::from_json(stream, body)?;
        Ok(self.engine.append(&context(), ty, appending).await?.to_json())
    }

    async fn events(
        &self,
        ty: &str,
        stream: Option<&str>,
        parameters: &[(String, String)],
    ) -> Result<Json> {
        let of = |name: &str| parameters.iter().find(|(n, _)| n == name).map(|(_, value)| value);
        let number = |name: &str| of(name).map(|text| text.parse()).transpose();
        let bad = |_| Error::invalid("a number is needed").with("parameter", "limit or from");
        let limit = number("limit").map_err(bad)?.unwrap_or(100_u64) as usize;
        let backward = of("direction").is_some_and(|direction| direction == "backward");
        if let Some(stream) = stream {
            let excerpt = Excerpt { from: number("from").map_err(bad)?, backward, limit };
            let page = self.engine.read_stream(&context(), ty, stream, excerpt).await?.value;
            let items: Vec<Json> = page.events.iter().map(Event::to_json).collect();
            return Ok(json!({"items": items, "next": page.next}));
        }
        let after = of("after").map(|text| text.parse()).transpose()?;
        let sought = Sought { after, backward, limit, ..Sought::default() };
        let page = self.engine.read_events(&context(), ty, &sought).await?.value;
        let items: Vec<Json> = page.events.iter().map(Event::to_json).collect();
        Ok(json!({"items": items, "next": page.next, "position": page.through}))
    }

    async fn verify(&self, options: &VerifyOptions, progress: &ReportProgress<'_>) -> Result<Json> {
        let report = self
            .engine
            .verify(options, &|p| progress(&p.entity, &p.source, p.records, p.total))
            .await?;
        to_json(&report)
    }

    async fn backfill(&self, entity: &str, source: &str) -> Result<()> {
        self.engine.backfill(entity, source).await
    }

    async fn projections(&self) -> Result<Vec<Json>> {
        self.engine.projections().await.iter().map(to_json).collect()
    }

    async fn change_projection(&self, name: &str, action: &str) -> Result<Json> {
        let changed = match action {
            "rebuild" => self.engine.rebuild_projection(name).await,
            "back" => self.engine.projection_back(name).await,
            _ => self.engine.discard_projection(name).await,
        };
        to_json(&changed?)
    }

    async fn pause_source(&self, source: &str) -> Result<Json> {
        to_json(&self.engine.pause_source(source).await?)
    }

    async fn resume_source(&self, source: &str) -> Result<bool> {
        self.engine.resume_source(source).await
    }

    async fn erase(&self, subject: &str) -> Result<Json> {
        to_json(&self.engine.erase_subject(&context(), subject).await?)
    }

    async fn back_up(
        &self,
        truth: Option<&str>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Vec<Backup>> {
        self.engine.back_up(truth, progress).await
    }

    async fn backups(&self, truth: Option<&str>) -> Result<Vec<Backup>> {
        self.engine.backups(truth).await
    }

    async fn check_archive(&self, truth: Option<&str>) -> Result<Vec<Json>> {
        self.engine.check_archive(truth).await?.iter().map(to_json).collect()
    }

    async fn dead_letters(&self) -> Result<Vec<DeadLetter>> {
        self.engine.dead_letters().await
    }

    async fn conflicts(&self, entity: Option<&str>, key: Option<&str>) -> Result<Vec<Conflict>> {
        self.engine.conflicts(entity, key, CONFLICTS_MAX).await
    }

    async fn replay(&self, letter: &DeadLetter) -> Result<bool> {
        self.engine.replay(letter).await
    }

    async fn discard(&self, letter: &DeadLetter) -> Result<()> {
        self.engine.discard(letter).await
    }

    async fn explain(
        &self,
        entity: &str,
        key: Option<&str>,
        parameters: &[(String, String)],
    ) -> Result<Vec<String>> {
        let entity = self.entity(entity)?;
        let operation = match key {
            Some(key) => Operation::Get(Key::parse(&entity, key)?),
            None => Operation::Query(Box::new(parse::url(&entity, parameters)?)),
        };
        Ok(self.engine.explain(&context(), &entity, &operation))
    }

    fn ends_with_program(&self) -> bool {
        true
    }

    async fn close(&self) -> Result<()> {
        self.engine.close().await
    }
}

impl Embedded {
    fn describe(&self, change: &Change) -> Json {
        codec::change::to_json(self.engine.entity_of_log(&change.entity).map(|e| &**e), change)
    }
}

/// What is done here is done in the name of the command line.
fn context() -> Context {
    Context { actor: Some("cli".into()), ..Context::default() }
}

fn write(entity: &Arc<Entity>, mut record: Record, condition: Condition) -> Result<Write> {
    apply_defaults(entity, &mut record);
    let key = entity.key_of(&record)?;
    Ok(Write { entity: Arc::clone(entity), key, action: Action::Put(record), condition })
}

/// The record with the fields that were asked for.
fn project(entity: &Entity, record: &Record, query: &Query) -> Result<Box<RawValue>> {
    let whole = raw(codec::to_vec(entity, record))?;
    let Some(fields) = &query.fields else { return Ok(whole) };
    let mut object = Object::of(&whole)?;
    object.0.retain(|(name, _)| entity.index_of(name).is_some_and(|n| fields.contains(&n)));
    serde_json::value::to_raw_value(&object)
        .map_err(|e| Error::internal("a record cannot be written as JSON").caused_by(e))
}

fn found<T>(entity: &Entity, stored: &Stored, answer: &Answer<T>) -> Result<Found> {
    Ok(Found {
        record: raw(codec::to_vec(entity, &stored.record))?,
        version: stored.version,
        source: answer.source.to_string(),
        age: answer.age.as_secs_f64(),
        stale: answer.stale,
    })
}

fn raw(record: Vec<u8>) -> Result<Box<RawValue>> {
    let wrong = "a record cannot be written as JSON";
    let text = String::from_utf8(record).map_err(|e| Error::internal(wrong).caused_by(e))?;
    RawValue::from_string(text).map_err(|e| Error::internal(wrong).caused_by(e))
}

fn to_json(value: &impl serde::Serialize) -> Result<Json> {
    serde_json::to_value(value)
        .map_err(|e| Error::internal("the answer cannot be written as JSON").caused_by(e))
}
