//! [`Engine`]: what is known of a stream beside its events: its limits, and whether it is closed or deleted.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use unisono_core::query::{Comparison, Filter, Query};
use unisono_core::stream::{self, Append, CLOSED, Event, Expected, NewEvent};
use unisono_core::write::{Action, Condition, Write};
use unisono_core::{
    Context, Entity, Error, ErrorKind, Record, Result, Timestamp, Token, Value, Version,
};

use super::ATTEMPTS_MAX;
use super::asking::{between, deleted, path, strong};
use crate::answer::Answer;
use crate::engine::Engine;
use crate::stream::Limits;

impl Engine {
    /// Closes a stream whose events stay.
    pub async fn archive_stream(&self, context: &Context, ty: &str, name: &str) -> Result<Token> {
        self.close_stream(context, ty, name, State::Archived).await
    }

    /// Closes a stream for good and removes its events, here and from every follower. What is left says that it was.
    /// Repeated after it was cut off, it removes what is still there.
    pub async fn delete_stream(&self, context: &Context, ty: &str, name: &str) -> Result<Token> {
        let events = self.stream(ty)?;
        let closed = self.close_stream(context, ty, name, State::Deleted).await;
        let mut token = match closed {
            Err(error) if error.kind() == ErrorKind::StreamClosed => {
                self.last(&strong(context), events, name).await?.ok_or(error)?;
                Token::default()
            }
            closed => closed?,
        };
        token.merge(&self.remove(context, events, between(events, name, 1, CLOSED - 1)?).await?);
        self.forget_snapshot(ty, name).await?;
        Ok(token)
    }

    /// Sets what of a stream is given and kept, and removes what is beyond it.
    pub async fn limit_stream(
        &self,
        context: &Context,
        ty: &str,
        name: &str,
        limits: &Limits,
    ) -> Result<Token> {
        let events = self.stream(ty)?;
        let limited = |known| Described { limits: limits.clone(), ..known };
        let mut token = self.describe(context, events, name, limited, &[]).await?;
        token.merge(&self.trim_stream(context, ty, name).await?);
        Ok(token)
    }

    /// What is declared of a stream.
    pub async fn stream_limits(&self, context: &Context, ty: &str, name: &str) -> Result<Limits> {
        Ok(self.described(context, self.stream(ty)?, name).await?.value.0.limits)
    }

    /// Removes the events of a stream that its limits let nobody see any more.
    pub async fn trim_stream(&self, context: &Context, ty: &str, name: &str) -> Result<Token> {
        let events = self.stream(ty)?;
        let context = &strong(context);
        let limits = self.described(context, events, name).await?.value.0.limits;
        let newest = self.last(context, events, name).await?.map_or(0, |(revision, _)| revision);
        let mut token = Token::default();
        // The newest event stays: it says where the stream goes on.
        if let Some(count) = limits.max_count.filter(|count| *count < newest) {
            let filter = between(events, name, 1, newest - count)?;
            token.merge(&self.remove(context, events, filter).await?);
        }
        if let Some(seconds) = limits.max_age_seconds.filter(|_| newest > 1) {
            let since = self.runtime().now().minus(Duration::from_secs(seconds));
            let old =
                Filter::Compare(path(events, "time"), Comparison::Lt, Value::Timestamp(since));
            let filter = between(events, name, 1, newest - 1)?.and(old);
            token.merge(&self.remove(context, events, filter).await?);
        }
        Ok(token)
    }

    /// What is known of a stream, and the version of that; `stream_closed` if it was deleted.
    async fn described(
        &self,
        context: &Context,
        events: &Arc<Entity>,
        name: &str,
    ) -> Result<Answer<(Described, Option<Version>)>> {
        stream::check_name(name).map_err(|e| e.of(events.name()))?;
        let found = self.get(&strong(context), events, &stream::key(name, 0)?).await?;
        let stored = found.value.as_deref();
        let described = Described::of(stored.map(|s| &*s.record))?;
        if described.state == State::Deleted {
            return Err(deleted().of(events.name()).with("stream", name));
        }
        let version = stored.map(|s| s.version);
        Ok(found.map(|_| (described, version)))
    }

    /// Has something else be known of a stream, in one step with other writes; nothing is written if it is known already.
    /// Decides anew if somebody else was faster.
    async fn describe(
        &self,
        context: &Context,
        events: &Arc<Entity>,
        name: &str,
        next: impl Fn(Described) -> Described,
        beside: &[Write],
    ) -> Result<Token> {
        let mut attempt = 1;
        loop {
            let found = self.described(context, events, name).await?;
            let (known, version) = found.value;
            let next = next(known.clone());
            if next == known {
                return Ok(found.token);
            }
            let mut writes = beside.to_vec();
            writes.push(next.write(events, name, version, self.runtime().now())?);
            match self.take(&strong(context), writes).await {
                Err(error)
                    if error.kind() == ErrorKind::VersionConflict && attempt < ATTEMPTS_MAX =>
                {
                    attempt += 1;
                }
                taken => return Ok(taken?.token),
            }
        }
    }

    async fn close_stream(
        &self,
        context: &Context,
        ty: &str,
        name: &str,
        state: State,
    ) -> Result<Token> {
        let events = self.stream(ty)?;
        stream::check_name(name).map_err(|e| e.of(events.name()))?;
        if self.last(&strong(context), events, name).await?.is_none() {
            // One that was deleted is known as such.
            self.described(context, events, name).await?;
            let error = Error::new(ErrorKind::NotFound, "there is no stream with this name");
            return Err(error.of(events.name()).with("stream", name));
        }
        let kind = if state == State::Deleted { stream::TOMBSTONE } else { stream::ARCHIVED };
        let event = NewEvent::new(kind, Json::Null);
        let event = event.record(events, format!("{kind}:{name}"), self.runtime().now());
        let append = Append { stream: name.into(), expected: Expected::Any, event, closes: true };
        let closed = |known| Described { state, ..known };
        self.describe(context, events, name, closed, &[append.write(events)?]).await
    }

    /// Removes the events that a filter finds.
    async fn remove(
        &self,
        context: &Context,
        events: &Arc<Entity>,
        filter: Filter,
    ) -> Result<Token> {
        let context = Context { idempotency_key: None, ..strong(context) };
        let mut token = Token::default();
        loop {
            let query = Query { filter: filter.clone(), limit: Query::LIMIT_MAX, ..Query::all() };
            let page = self.query(&context, events, &query).await?.value;
            if page.hits.is_empty() {
                return Ok(token);
            }
            let delete = |key| Write {
                entity: Arc::clone(events),
                key,
                action: Action::Delete,
                condition: Condition::None,
            };
            let writes = page.hits.into_iter().map(|hit| delete(hit.stored.key)).collect();
            match self.take(&context, writes).await {
                Ok(written) => token.merge(&written.token),
                // Somebody else removes them as well.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// What is known of a stream beside its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Described {
    pub(super) limits: Limits,
    pub(super) state: State,
}

/// Whether a stream takes events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Open,
    Archived,
    Deleted,
}

impl Described {
    pub(super) fn of(record: Option<&Record>) -> Result<Self> {
        let open = Described { limits: Limits::default(), state: State::Open };
        let Some(record) = record else { return Ok(open) };
        let data = Event::of(record)?.data;
        let state = match data.get("state").and_then(Json::as_str) {
            Some("deleted") => State::Deleted,
            Some("archived") => State::Archived,
            _ => State::Open,
        };
        let number = |name: &str| data.get(name).and_then(Json::as_u64);
        let limits =
            Limits { max_count: number("max_count"), max_age_seconds: number("max_age_seconds") };
        Ok(Described { limits, state })
    }

    /// The write of it, at the revision before the first event, if it still has a version.
    fn write(
        &self,
        events: &Arc<Entity>,
        name: &str,
        version: Option<Version>,
        now: Timestamp,
    ) -> Result<Write> {
        let state = match self.state {
            State::Open => "open",
            State::Archived => "archived",
            State::Deleted => "deleted",
        };
        let Limits { max_count, max_age_seconds } = &self.limits;
        let data =
            json!({"max_count": max_count, "max_age_seconds": max_age_seconds, "state": state});
        let id = format!("{}:{name}", stream::DESCRIPTION);
        let mut record = NewEvent::new(stream::DESCRIPTION, data).record(events, id, now);
        let key = stream::key(name, 0)?;
        if let [of_key, of_stream, of_revision, ..] = record.values_mut() {
            *of_key = key.to_value();
            *of_stream = Value::String(name.to_owned());
            *of_revision = Value::Integer(0);
        }
        let (action, condition) = (Action::Put(record), Condition::Version(version));
        Ok(Write { entity: Arc::clone(events), key, action, condition })
    }
}
