//! [`Streams`]: the events of a type of streams as values of the application's own type, and decisions over them.

use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use unisono_core::stream::{Event, Expected, NewEvent};
use unisono_core::{Context, Error, ErrorKind, Position, Result, Token};
use unisono_engine::Engine;
use unisono_engine::stream::{Appended, Appending, Excerpt, Limits, Sought};

/// How often a decision is made anew because others appended meanwhile.
pub(crate) const DECISIONS_MAX: usize = 16;
/// How many events are read at once.
pub(crate) const PAGE: usize = 1000;

/// Turns an event of an older shape into one of today's: it sees type, schema version and data.
type Upcast = Arc<dyn Fn(&mut Event) -> Result<()> + Send + Sync>;

/// The events of a type of streams as values of `E`: an enum with `#[serde(tag = "type", content = "data")]`, whose
/// variants are the types of events. Reads see at least what this handle and its clones have appended. Cheap to clone.
pub struct Streams<E> {
    pub(crate) engine: Engine,
    pub(crate) ty: Arc<str>,
    session: Arc<Mutex<Token>>,
    upcast: Option<Upcast>,
    event: PhantomData<fn() -> E>,
}

impl<E> Clone for Streams<E> {
    fn clone(&self) -> Self {
        Streams {
            engine: self.engine.clone(),
            ty: Arc::clone(&self.ty),
            session: Arc::clone(&self.session),
            upcast: self.upcast.clone(),
            event: PhantomData,
        }
    }
}

/// An event that was read, and its value.
#[derive(Clone, Debug)]
pub struct Recorded<E> {
    /// What was told.
    pub value: E,
    /// The whole event: its places, id, metadata, tags and time.
    pub event: Event,
}

/// State that is folded from the events of one stream.
pub trait Aggregate: Default {
    /// What it is folded from.
    type Event: Serialize + DeserializeOwned;

    /// Takes in the next event.
    fn apply(&mut self, event: Self::Event);
}

impl<E> Streams<E> {
    pub(crate) fn new(engine: Engine, ty: &str) -> Result<Self> {
        engine.stream(ty)?;
        let (ty, session) = (ty.into(), Arc::default());
        Ok(Streams { engine, ty, session, upcast: None, event: PhantomData })
    }

    /// The same handle, whose reads turn events of older shapes into those of today before they become values: `upcast`
    /// sees each event with its `schema_version`, and changes type and data. What is stored stays as it is.
    #[must_use]
    pub fn upcasting(
        &self,
        upcast: impl Fn(&mut Event) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        Streams { upcast: Some(Arc::new(upcast)), ..self.clone() }
    }

    /// What a reader elsewhere must send to see everything that this handle has appended and read.
    pub fn token(&self) -> Token {
        self.session.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes later reads of this handle see at least what a token stands for.
    pub fn observe(&self, token: &Token) {
        self.session.lock().unwrap_or_else(PoisonError::into_inner).merge(token);
    }

    /// Appends events as they are, under any condition; see [`Engine::append`].
    pub async fn append_events(&self, appending: Appending) -> Result<Appended> {
        let appended = self.engine.append(&self.context(), &self.ty, appending).await?;
        self.observe(&appended.token);
        Ok(appended)
    }

    /// Closes a stream whose events stay.
    pub async fn archive(&self, stream: &str) -> Result<()> {
        let done = self.engine.archive_stream(&self.context(), &self.ty, stream).await?;
        self.observe(&done);
        Ok(())
    }

    /// Closes a stream for good and removes its events.
    pub async fn delete(&self, stream: &str) -> Result<()> {
        let done = self.engine.delete_stream(&self.context(), &self.ty, stream).await?;
        self.observe(&done);
        Ok(())
    }

    /// Sets how much of a stream is given and kept.
    pub async fn limit(&self, stream: &str, limits: &Limits) -> Result<()> {
        let done = self.engine.limit_stream(&self.context(), &self.ty, stream, limits).await?;
        self.observe(&done);
        Ok(())
    }

    pub(crate) fn context(&self) -> Context {
        Context { token: self.token(), ..Context::default() }
    }
}

impl<E: Serialize> Streams<E> {
    /// Appends events to the end of a stream, all or none; `version_conflict` if it is not as expected.
    pub async fn append(&self, stream: &str, expected: Expected, events: &[E]) -> Result<Appended> {
        let events = events.iter().map(to_event).collect::<Result<_>>()?;
        self.append_events(Appending::to(stream, events).expecting(expected)).await
    }
}

impl<E: DeserializeOwned> Streams<E> {
    /// A part of a stream.
    pub async fn read(&self, stream: &str, excerpt: Excerpt) -> Result<Vec<Recorded<E>>> {
        let answer = self.engine.read_stream(&self.context(), &self.ty, stream, excerpt).await?;
        self.observe(&answer.token);
        answer.value.events.into_iter().map(|event| self.recorded(event)).collect()
    }

    /// Events of all streams of the type, in the order of the log.
    pub async fn all(&self, sought: &Sought) -> Result<Vec<Recorded<E>>> {
        let answer = self.engine.read_events(&self.context(), &self.ty, sought).await?;
        self.observe(&answer.token);
        let events = answer.value.events.into_iter().filter(|event| !event.kind.starts_with('$'));
        events.map(|event| self.recorded(event)).collect()
    }

    /// Follows the events of all streams of the type behind a position: each once, in order.
    pub fn subscribe(&self, after: Position) -> Subscription<E> {
        let sought = Sought { after: Some(after), limit: PAGE, ..Sought::default() };
        Subscription { streams: self.clone(), sought, read: Vec::new().into_iter() }
    }

    /// What an aggregate is after all events of its stream, and the revision that it then has; 0 for one without events.
    pub async fn load<A: Aggregate<Event = E>>(&self, stream: &str) -> Result<(A, u64)> {
        self.fold(stream, A::default(), 0).await
    }

    /// What an aggregate is that was something after a revision of its stream.
    pub(crate) async fn fold<A: Aggregate<Event = E>>(
        &self,
        stream: &str,
        mut state: A,
        mut revision: u64,
    ) -> Result<(A, u64)> {
        let mut from = Some(revision + 1);
        while let Some(first) = from {
            let excerpt = Excerpt { from: Some(first), limit: PAGE, ..Excerpt::default() };
            let read = self.engine.read_stream(&self.context(), &self.ty, stream, excerpt).await;
            let page = match read {
                Err(error) if error.kind() == ErrorKind::NotFound => break,
                read => read?.value,
            };
            for event in page.events {
                revision = event.revision;
                state.apply(self.recorded(event)?.value);
            }
            from = page.next;
        }
        Ok((state, revision))
    }

    pub(crate) fn recorded(&self, mut event: Event) -> Result<Recorded<E>> {
        if let Some(upcast) = &self.upcast {
            upcast(&mut event)?;
        }
        let json = serde_json::json!({"type": event.kind, "data": event.data});
        let value = serde_json::from_value(json).map_err(|e| {
            Error::invalid("the event does not fit the type of the handle")
                .with("type", &event.kind)
                .with("schema_version", event.schema_version)
                .with("position", event.position)
                .hint("add a variant for it, or an upcast from its older shape")
                .caused_by(e)
        })?;
        Ok(Recorded { value, event })
    }
}

impl<E: Serialize + DeserializeOwned> Streams<E> {
    /// Decides over the current state of an aggregate and appends what was decided; decides anew if others were faster.
    /// A decision without events appends none.
    pub async fn decide<A: Aggregate<Event = E>>(
        &self,
        stream: &str,
        decide: impl Fn(&A) -> Result<Vec<E>>,
    ) -> Result<Option<Appended>> {
        let mut attempt = 1;
        loop {
            let (state, revision) = self.load::<A>(stream).await?;
            let events = decide(&state)?;
            if events.is_empty() {
                return Ok(None);
            }
            let expected =
                if revision == 0 { Expected::None } else { Expected::Revision(revision) };
            match self.append(stream, expected, &events).await {
                Err(error)
                    if error.kind() == ErrorKind::VersionConflict && attempt < DECISIONS_MAX =>
                {
                    attempt += 1;
                }
                appended => return appended.map(Some),
            }
        }
    }
}

/// Events as they come; see [`Streams::subscribe`].
pub struct Subscription<E> {
    streams: Streams<E>,
    sought: Sought,
    read: std::vec::IntoIter<Event>,
}

impl<E: DeserializeOwned> Subscription<E> {
    const WAIT: Duration = Duration::from_secs(15);

    /// The next event; waits until there is one. After a failure it goes on where it was.
    pub async fn next(&mut self) -> Result<Recorded<E>> {
        loop {
            for event in self.read.by_ref() {
                self.sought.after = Some(event.position);
                // What closes a stream is nothing that happened in it.
                if !event.kind.starts_with('$') {
                    return self.streams.recorded(event);
                }
            }
            let Streams { engine, ty, .. } = &self.streams;
            let context = self.streams.context();
            let page = engine.follow_events(&context, ty, &self.sought, Self::WAIT).await?;
            if page.events.is_empty() {
                self.sought.after = Some(page.through);
            }
            self.read = page.events.into_iter();
        }
    }

    /// The position of the last event given: where another subscription goes on.
    pub fn position(&self) -> Position {
        self.sought.after.unwrap_or_default()
    }
}

fn to_event<E: Serialize>(value: &E) -> Result<NewEvent> {
    let bad = || {
        Error::invalid("the event is not an enum with #[serde(tag = \"type\", content = \"data\")]")
    };
    let mut json = serde_json::to_value(value).map_err(|e| bad().caused_by(e))?;
    let kind = json.get("type").and_then(Json::as_str).ok_or_else(bad)?.to_owned();
    let data = json.get_mut("data").map(Json::take).unwrap_or_default();
    Ok(NewEvent::new(kind, data))
}
