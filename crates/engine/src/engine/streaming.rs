//! [`Engine`]: streams of events. What is appended and read are records of an entity of events, so that everything
//! else (commit, log, followers, verification) is that of records; what is particular is here.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use unisono_core::query::{Comparison, Filter, Order, Page, Query};
use unisono_core::stream::{self, Append, CLOSED, Event, Expected, NewEvent};
use unisono_core::write::{Action, Condition, Write};
use unisono_core::{
    Context, Entity, Error, ErrorKind, Key, Position, Record, Result, Token, Value,
};
use xxhash_rust::xxh3::xxh3_128;

use crate::answer::Answer;
use crate::engine::Engine;
use crate::stream::{
    AppendCondition, Appended, Appending, EventsPage, Excerpt, Limits, Sought, StreamPage,
};

mod asking;
mod describing;
mod processing;
mod snapshots;

pub use processing::{DueTimer, KeptProcess, ProcessStep, is_overtaken};
pub use snapshots::KeptSnapshot;

use asking::{between, beyond, deleted, matching, path, strong};
use describing::{Described, State};

/// How often an append is tried whose condition is violated by tags alone, and by no event.
const ATTEMPTS_MAX: usize = 16;

impl Engine {
    /// The entity that holds the events of a type of streams; `not_found` if none is declared.
    pub fn stream(&self, ty: &str) -> Result<&Arc<Entity>> {
        let unknown = |error: Error| match error.kind() {
            ErrorKind::NotFound => {
                Error::new(ErrorKind::NotFound, "there are no streams of this type")
                    .with("type", ty)
                    .hint(format!("declare them as [streams.{ty}]"))
            }
            _ => error,
        };
        self.entity(&stream::entity_name(ty)).map_err(unknown)
    }

    /// Appends events to the end of a stream: all of them, behind each other, or none.
    ///
    /// `version_conflict` with the `actual` revision if the stream is not as expected, or if an event has come that the
    /// condition names; `stream_closed` if it was archived or deleted. Appending again what is there under the same
    /// idempotency key, or with the same ids, has no effect and answers the places that the events have.
    pub async fn append(
        &self,
        context: &Context,
        ty: &str,
        mut appending: Appending,
    ) -> Result<Appended> {
        let events = self.stream(ty)?;
        check(&appending).map_err(|e| e.of(events.name()).on("append"))?;
        let mut context = context.clone();
        if context.idempotency_key.is_some() && context.fingerprint.is_none() {
            context.fingerprint = Some(xxh3_128(format!("{ty} {appending:?}").as_bytes()));
        }
        let known = appending.events.iter().all(|event| event.id.is_some());
        let known = known.then(|| appending.events.clone());
        for event in &mut appending.events {
            for (name, said) in [("actor", &context.actor), ("trace", &context.trace)] {
                if let Some(said) = said {
                    event.metadata.entry(name).or_insert_with(|| said.to_string().into());
                }
            }
        }
        match self.appended(&context, ty, &appending).await {
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::VersionConflict
                        | ErrorKind::ConstraintViolated
                        // It may have been closed since the first time.
                        | ErrorKind::StreamClosed
                ) =>
            {
                let earlier = match &known {
                    Some(known) => self.earlier(&context, events, &appending.stream, known).await?,
                    None => None,
                };
                earlier.ok_or(error)
            }
            appended => appended,
        }
    }

    async fn appended(
        &self,
        context: &Context,
        ty: &str,
        appending: &Appending,
    ) -> Result<Appended> {
        let (events, tags) = (self.stream(ty)?, self.tags_of(ty)?);
        let mut condition = appending.condition.clone();
        let writes = self.appends(events, appending)?;
        for _ in 0..ATTEMPTS_MAX {
            // Behind the events, so that the version of a tag is beyond every event that has it.
            let mut all = writes.clone();
            all.extend(notes(tags, appending, condition.as_ref())?);
            match (self.take(context, all).await, &mut condition) {
                (Err(error), Some(condition))
                    if error.kind() == ErrorKind::VersionConflict
                        && error.entity() == Some(tags.name()) =>
                {
                    condition.after = self.still(context, events, condition).await?;
                }
                (written, _) => {
                    let written = written?;
                    let of_events = written.changes.iter().filter(|c| c.entity == *events.name());
                    let records = of_events.filter_map(|c| c.image.as_deref());
                    let events = records.map(Event::of).collect::<Result<_>>()?;
                    return Ok(Appended {
                        events,
                        replayed: written.replayed,
                        token: written.token,
                    });
                }
            }
        }
        Err(Error::new(
            ErrorKind::Overloaded,
            "others keep appending under the tags of the condition",
        )
        .of(events.name())
        .hint("name fewer tags, or such that fewer events have"))
    }

    /// The entity of the tags of events.
    fn tags_of(&self, ty: &str) -> Result<&Arc<Entity>> {
        self.entity(&stream::tags_name(ty))
    }

    /// The writes that append events.
    fn appends(&self, events: &Arc<Entity>, appending: &Appending) -> Result<Vec<Write>> {
        let now = self.runtime().now();
        let append = |(n, event): (usize, &NewEvent)| {
            let id = event.id.clone().unwrap_or_else(|| self.runtime().uuid().to_string());
            let append = Append {
                stream: appending.stream.as_str().into(),
                expected: if n == 0 { appending.expected } else { Expected::Any },
                event: event.record(events, id, now),
                closes: false,
            };
            append.write(events)
        };
        appending.events.iter().enumerate().map(append).collect()
    }

    /// Up to where no event has come that a condition names; else the conflict. A tag tells of every event that has it,
    /// and a condition may ask for several tags at once, or for types.
    async fn still(
        &self,
        context: &Context,
        events: &Arc<Entity>,
        condition: &AppendCondition,
    ) -> Result<Position> {
        let any = condition.any_of.iter().map(|item| matching(events, item)).collect();
        let filter = beyond(events, condition.after).and(Filter::Or(any));
        let answer = self.question(&strong(context), events, filter, false, 1).await?;
        let Some(found) = answer.value.hits.first() else { return Ok(answer.position) };
        let found = Event::of(&found.stored.record)?;
        Err(Error::new(ErrorKind::VersionConflict, "an event has come that the condition names")
            .of(events.name())
            .with("stream", found.stream)
            .with("position", found.position)
            .hint("read what has come, decide anew, and append with the position up to which you have read"))
    }

    /// The events of an earlier append with the same ids, if these are what was to be appended.
    async fn earlier(
        &self,
        context: &Context,
        events: &Arc<Entity>,
        stream: &str,
        known: &[NewEvent],
    ) -> Result<Option<Appended>> {
        let mut found: Vec<Event> = Vec::new();
        let mut token = context.token.clone();
        for some in known.chunks(Query::IN_VALUES_MAX) {
            let ids = some.iter().filter_map(|e| e.id.clone()).map(Value::String).collect();
            let filter = Filter::In(path(events, "id"), ids);
            let answer = self.question(&strong(context), events, filter, false, some.len()).await?;
            token.merge(&answer.token);
            for hit in &answer.value.hits {
                found.push(Event::of(&hit.stored.record)?);
            }
        }
        found.sort_by_key(|event| event.revision);
        let first = found.first().map_or(0, |event| event.revision);
        let is_same = |(n, (event, known)): (usize, (&Event, &NewEvent))| {
            event.stream == stream
                && event.revision == first + n as u64
                && (Some(&event.id), &event.kind, &event.data, &event.tags)
                    == (known.id.as_ref(), &known.kind, &known.data, &known.tags)
        };
        let all = found.len() == known.len() && found.iter().zip(known).enumerate().all(is_same);
        Ok(all.then_some(Appended { events: found, replayed: true, token }))
    }

    /// A part of one stream; `not_found` if it has never had an event, `stream_closed` if it was deleted.
    pub async fn read_stream(
        &self,
        context: &Context,
        ty: &str,
        name: &str,
        excerpt: Excerpt,
    ) -> Result<Answer<StreamPage>> {
        let events = self.stream(ty)?;
        let about = |e: Error| e.of(events.name()).with("stream", name);
        stream::check_name(name).map_err(about)?;
        let (description, unlimited) = (stream::key(name, 0)?, Limits::default());
        let (described, page) = tokio::join!(
            self.get(context, events, &description),
            self.part(context, events, name, excerpt, &unlimited)
        );
        let Described { limits, state } =
            Described::of(described?.value.as_deref().map(|s| &*s.record))?;
        let page = match limits == unlimited {
            true => page?,
            false => self.part(context, events, name, excerpt, &limits).await?,
        };
        if state == State::Deleted {
            return Err(about(deleted()));
        }
        let hits = page.value.hits.iter().map(|hit| Event::of(&hit.stored.record));
        let found = hits.collect::<Result<Vec<_>>>()?;
        if found.is_empty() && self.last(context, events, name).await?.is_none() {
            return Err(about(Error::new(
                ErrorKind::NotFound,
                "there is no stream with this name",
            )));
        }
        let next = page.value.next.as_ref().and_then(|_| found.last()).and_then(|event| {
            if excerpt.backward {
                Some(event.revision - 1).filter(|n| *n > 0)
            } else {
                Some(event.revision + 1)
            }
        });
        let archived = state == State::Archived;
        Ok(page.map(|_| StreamPage { events: found, next, archived }))
    }

    /// The records of a part of a stream, as far as its limits let them be seen.
    async fn part(
        &self,
        context: &Context,
        events: &Arc<Entity>,
        name: &str,
        excerpt: Excerpt,
        limits: &Limits,
    ) -> Result<Answer<Page>> {
        let (mut first, mut last) = (1, CLOSED - 1);
        match (excerpt.from, excerpt.backward) {
            (Some(from), false) => first = from.clamp(1, CLOSED - 1),
            (Some(from), true) => last = from.min(CLOSED - 1),
            (None, _) => {}
        }
        if let Some(count) = limits.max_count {
            let newest =
                self.last(context, events, name).await?.map_or(0, |(revision, _)| revision);
            first = first.max((newest + 1).saturating_sub(count));
        }
        let mut filter = between(events, name, first, last)?;
        if let Some(seconds) = limits.max_age_seconds {
            let since = self.runtime().now().minus(Duration::from_secs(seconds));
            let time = path(events, "time");
            filter = filter.and(Filter::Compare(time, Comparison::Gte, Value::Timestamp(since)));
        }
        let order = excerpt.backward.then(|| Order { path: path(events, "key"), descending: true });
        let order = order.into_iter().collect();
        let limit = excerpt.limit.clamp(1, Query::LIMIT_MAX);
        self.query(context, events, &Query { filter, order, limit, ..Query::all() }).await
    }

    /// The newest event of a stream, what closes it not among them: its revision and key.
    async fn last(
        &self,
        context: &Context,
        events: &Arc<Entity>,
        name: &str,
    ) -> Result<Option<(u64, Key)>> {
        let filter = between(events, name, 1, CLOSED - 1)?;
        let order = vec![Order { path: path(events, "key"), descending: true }];
        let query = Query { filter, order, limit: 1, ..Query::all() };
        let page = self.query(context, events, &query).await?.value;
        let key = page.hits.into_iter().next().map(|hit| hit.stored.key);
        Ok(key.and_then(|key| Some((stream::revision_of(&key)?, key))))
    }

    /// The events of all streams of a type, in the order of the log; those that close streams are among them.
    pub async fn read_events(
        &self,
        context: &Context,
        ty: &str,
        sought: &Sought,
    ) -> Result<Answer<EventsPage>> {
        let events = self.stream(ty)?;
        let mut filter = match (sought.after, sought.backward) {
            (after, false) => beyond(events, after.unwrap_or_default()),
            (None, true) => beyond(events, Position::ZERO),
            (Some(before), true) => beyond(events, Position::ZERO).and(Filter::Compare(
                path(events, "position"),
                Comparison::Lt,
                Value::Integer(before.as_i64()),
            )),
        };
        if let Some(kind) = &sought.kind {
            let value = Value::String(kind.clone());
            filter = filter.and(Filter::Compare(path(events, "type"), Comparison::Eq, value));
        }
        if let Some(name) = &sought.stream {
            let value = Value::String(name.clone());
            filter = filter.and(Filter::Compare(path(events, "stream"), Comparison::Eq, value));
        }
        if let Some(tag) = &sought.tag {
            filter = filter.and(Filter::Contains(path(events, "tags"), Value::String(tag.clone())));
        }
        let limit = if sought.limit == 0 { 100 } else { sought.limit };
        let answer = self.question(context, events, filter, sought.backward, limit).await?;
        let (at, more) = (answer.position, answer.value.next.is_some());
        let hits = answer.value.hits.iter().map(|hit| Event::of(&hit.stored.record));
        let mut found = hits.collect::<Result<Vec<_>>>()?;
        if !sought.backward {
            // A follower may hold an event while it still lacks one before it.
            found.retain(|event| event.position <= at);
        }
        let last = found.last().map(|event| event.position);
        let next = last.filter(|_| more);
        let through = next.unwrap_or(at).max(sought.after.unwrap_or_default());
        Ok(answer.map(|_| EventsPage { events: found, next, through }))
    }

    /// The same forward; with nothing there it waits up to `wait` for an event of the log. Repeated with `after` set to the
    /// `through` of the answer before, it gives every event once, in order, however long the log has been.
    pub async fn follow_events(
        &self,
        context: &Context,
        ty: &str,
        sought: &Sought,
        wait: Duration,
    ) -> Result<EventsPage> {
        let log = Arc::clone(&self.serving(self.stream(ty)?.name())?.log);
        let mut context = context.clone();
        context.token.merge(&Token::at(log.name.clone(), sought.after.unwrap_or_default()));
        let page = self.read_events(&context, ty, sought).await?.value;
        if !page.events.is_empty() || page.next.is_some() {
            return Ok(page);
        }
        let more = async {
            log.tail.beyond(page.through).await;
            Ok(())
        };
        // Nothing within the time is an empty answer, not a failure.
        if self.runtime().within(wait, more).await.is_err() {
            return Ok(page);
        }
        let sought = Sought { after: Some(page.through), ..sought.clone() };
        context.token.merge(&Token::at(log.name.clone(), page.through.next()));
        Ok(self.read_events(&context, ty, &sought).await?.value)
    }

    /// Events that a filter finds, in the order of the log.
    async fn question(
        &self,
        context: &Context,
        events: &Arc<Entity>,
        filter: Filter,
        descending: bool,
        limit: usize,
    ) -> Result<Answer<Page>> {
        let order = vec![Order { path: path(events, "position"), descending }];
        let limit = limit.clamp(1, Query::LIMIT_MAX);
        self.query(context, events, &Query { filter, order, limit, ..Query::all() }).await
    }
}

fn check(appending: &Appending) -> Result<()> {
    stream::check_name(&appending.stream)?;
    if appending.events.is_empty() || appending.events.len() > Appending::EVENTS_MAX {
        return Err(Error::invalid("an append has 1 to 1000 events").with("field", "events"));
    }
    for (n, event) in appending.events.iter().enumerate() {
        event.check().map_err(|e| e.with("event", n))?;
    }
    appending.condition.as_ref().map_or(Ok(()), AppendCondition::check)
}

/// The writes that note which tags were appended under, and that what the caller has seen of them still holds.
fn notes(
    tags: &Arc<Entity>,
    appending: &Appending,
    condition: Option<&AppendCondition>,
) -> Result<Vec<Write>> {
    let asked = condition.map(AppendCondition::tags).unwrap_or_default();
    let given = appending.events.iter().flat_map(|e| &e.tags).map(String::as_str);
    let all: BTreeSet<&str> = given.chain(asked.iter().copied()).collect();
    let note = |tag: &str| {
        let record = Record::new(vec![Value::String(tag.to_owned())]);
        let condition = match condition.filter(|_| asked.contains(tag)) {
            Some(condition) => Condition::Until(condition.after),
            None => Condition::None,
        };
        let (key, action) = (tags.key_of(&record)?, Action::Put(record));
        Ok(Write { entity: Arc::clone(tags), key, action, condition })
    };
    all.into_iter().map(note).collect()
}
