//! [`Snapshots`]: aggregates that are loaded from what they had come to, and the events behind that.

use std::marker::PhantomData;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use unisono_core::stream::Expected;
use unisono_core::{ErrorKind, Result, Version};
use unisono_engine::stream::{Appended, Excerpt};

use crate::streams::{Aggregate, DECISIONS_MAX, Streams};

/// An aggregate that can be kept as it is.
pub trait Snapshot: Aggregate + Serialize + DeserializeOwned {
    /// The version of its shape and of what it makes of events: snapshots of another one are not used.
    const SCHEMA: u32;
}

/// Aggregates of a type of streams, kept every so many events.
///
/// A snapshot spares reading events, and nothing rests on it: it counts only while the event that it was made after is
/// where it was in the stream, so that a stream that was restored to an earlier state, or is another one, is folded anew.
pub struct Snapshots<A: Snapshot> {
    streams: Streams<A::Event>,
    every: u64,
    aggregate: PhantomData<fn() -> A>,
}

/// A snapshot as it is kept.
#[derive(Serialize, Deserialize)]
struct Made {
    schema: u32,
    revision: u64,
    /// The id of the event that it was made after.
    event: String,
    state: serde_json::Value,
}

/// What was loaded, and what a later snapshot is kept by.
struct Loaded<A> {
    state: A,
    revision: u64,
    /// The version of the snapshot that is there.
    kept: Option<Version>,
    /// The revision of the one that was used; 0 if none was.
    from: u64,
}

impl<E> Streams<E> {
    /// Aggregates that are kept as a snapshot whenever `every` events have come since the last one (at least 1).
    /// `unsupported` for streams with personal fields: a snapshot would hold them in clear, beyond their erasure.
    pub fn snapshots<A: Snapshot<Event = E>>(&self, every: u64) -> Result<Snapshots<A>> {
        self.engine.keeps_snapshots(&self.ty)?;
        Ok(Snapshots { streams: self.clone(), every: every.max(1), aggregate: PhantomData })
    }
}

impl<A: Snapshot> Snapshots<A> {
    /// What an aggregate is after all events of its stream, and the revision that it then has; 0 for one without events.
    pub async fn load(&self, stream: &str) -> Result<(A, u64)> {
        let loaded = self.loaded(stream).await?;
        self.keep(stream, &loaded).await;
        Ok((loaded.state, loaded.revision))
    }

    /// Decides over the current state of an aggregate and appends what was decided, as [`Streams::decide`].
    pub async fn decide(
        &self,
        stream: &str,
        decide: impl Fn(&A) -> Result<Vec<A::Event>>,
    ) -> Result<Option<Appended>> {
        let mut attempt = 1;
        loop {
            let (state, revision) = self.load(stream).await?;
            let events = decide(&state)?;
            if events.is_empty() {
                return Ok(None);
            }
            let expected = match revision {
                0 => Expected::None,
                revision => Expected::Revision(revision),
            };
            match self.streams.append(stream, expected, &events).await {
                Err(error)
                    if error.kind() == ErrorKind::VersionConflict && attempt < DECISIONS_MAX =>
                {
                    attempt += 1;
                }
                appended => return appended.map(Some),
            }
        }
    }

    async fn loaded(&self, stream: &str) -> Result<Loaded<A>> {
        let Streams { engine, ty, .. } = &self.streams;
        // Without it, while the truth is away, all events are read.
        let kept = engine.snapshot(ty, stream).await.ok().flatten();
        let version = kept.as_ref().map(|kept| kept.version);
        let made: Option<Made> = kept.and_then(|kept| serde_json::from_value(kept.data).ok());
        let usable = made.filter(|made| made.schema == A::SCHEMA && made.revision > 0);
        let (mut state, mut from) = (A::default(), 0);
        if let Some(made) = usable
            && self.event_at(stream, made.revision).await? == Some(made.event)
            && let Ok(kept) = serde_json::from_value(made.state)
        {
            (state, from) = (kept, made.revision);
        }
        let (state, revision) = self.streams.fold(stream, state, from).await?;
        Ok(Loaded { state, revision, kept: version, from })
    }

    /// The id of the event of a revision, if it is there.
    async fn event_at(&self, stream: &str, revision: u64) -> Result<Option<String>> {
        let Streams { engine, ty, .. } = &self.streams;
        let excerpt = Excerpt { from: Some(revision), limit: 1, ..Excerpt::default() };
        let read = engine.read_stream(&self.streams.context(), ty, stream, excerpt).await;
        let page = match read {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            read => read?.value,
        };
        let first = page.events.into_iter().next().filter(|event| event.revision == revision);
        Ok(first.map(|event| event.id))
    }

    /// Keeps a snapshot if enough has come since the last. That it could not be kept is no failure of who loads.
    async fn keep(&self, stream: &str, loaded: &Loaded<A>) {
        if loaded.revision < loaded.from + self.every {
            return;
        }
        let Streams { engine, ty, .. } = &self.streams;
        let kept = async {
            let Some(event) = self.event_at(stream, loaded.revision).await? else { return Ok(()) };
            let state = serde_json::to_value(&loaded.state).unwrap_or_default();
            let made = Made { schema: A::SCHEMA, revision: loaded.revision, event, state };
            let data = serde_json::to_value(made).unwrap_or_default();
            engine.keep_snapshot(ty, stream, data, loaded.kept).await
        };
        let kept: Result<()> = kept.await;
        if let Err(error) = kept {
            tracing::debug!(%error, stream, "a snapshot was not kept");
        }
    }

    /// The revision of the snapshot of a stream that would be used, if one is kept: for tests and for people.
    pub async fn kept(&self, stream: &str) -> Result<Option<u64>> {
        let loaded = self.loaded(stream).await?;
        Ok(Some(loaded.from).filter(|from| *from > 0))
    }
}
