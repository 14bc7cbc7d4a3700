//! The copy: brings a follower to the truth's state beside the stream, in key order, resumable at its checkpoint.
//!
//! Copy steps and stream steps of one delivery take turns, so no change is applied between reading a chunk and
//! writing it. A copied record has its version, so a change from the stream that is older than the copy is stale and
//! a newer one wins. A record that the follower has and the chunk lacks did not exist at the chunk's position, so it
//! is removed as of that position: a later creation has a greater version. This is DBLog's idea without its
//! watermarks, which versions make unnecessary (<https://arxiv.org/abs/2010.12597>).

use std::sync::Arc;

use unisono_core::source::{At, Checkpoint, ScanPage};
use unisono_core::{Change, Key, Operation, Position, Result, Stored};

use crate::delivery::Delivery;
use crate::delivery::progress::count;
use crate::delivery::session::Session;

/// Records of one copy step: small enough that the stream is not held up for long.
const CHUNK: usize = 1000;

/// What a copy step leaves to the next one.
#[derive(Default)]
pub(super) struct Ahead {
    /// The next chunk of the truth, after which key it is, and where the delivery was when it was read.
    chunk: Option<(Key, Position, At<ScanPage>)>,
    /// The follower held nothing beyond the keys that were copied. What it gets there since comes from the stream,
    /// which also takes it away again.
    is_rest_empty: bool,
}

impl Ahead {
    /// The next chunk, if the stream has brought nothing since it was read.
    fn take(&mut self, after: Option<&Key>, position: Position) -> Option<At<ScanPage>> {
        let (key, read, chunk) = self.chunk.take()?;
        (Some(&key) == after && read == position).then_some(chunk)
    }
}

impl Delivery {
    /// Copies the next chunk of keys.
    pub(super) async fn copy_step(&self, session: &mut Session) -> Result<()> {
        let entity = &self.target.entity;
        let after = match session.saved.backfill.as_deref() {
            None | Some("") => None,
            Some(text) => Some(Key::parse(entity, text)?),
        };
        if after.is_none() {
            session.ahead = Ahead::default();
        }
        let read = session.ahead.take(after.as_ref(), session.position);
        let At { value: chunk, position } = match read {
            Some(read) => read,
            None => self.log.auditor.scan(entity, after.as_ref(), CHUNK).await?,
        };
        let last = if chunk.end { None } else { chunk.records.last().map(|s| s.key.clone()) };
        let held = if session.ahead.is_rest_empty {
            Vec::new()
        } else {
            let (held, is_rest_empty) = self.held(after.as_ref(), last.as_ref()).await?;
            session.ahead.is_rest_empty = is_rest_empty;
            held
        };
        let changes = self.difference(chunk, &held, position);
        count(&self.progress.counts.copied, changes.len());
        let next = last.clone();
        let to = Checkpoint {
            log: session.saved.log,
            position: session.position,
            backfill: last.map(|key| key.to_string()),
        };
        let finished = to.backfill.is_none();
        // Nobody writes to the follower but this step, so what is read meanwhile is read between two steps.
        let read = async {
            let key = next.as_ref()?;
            self.log.auditor.scan(entity, Some(key), CHUNK).await.ok()
        };
        let (settled, read) = futures::join!(self.settle(session, changes, true, to), read);
        settled?;
        session.ahead.chunk = next.zip(read).map(|(key, chunk)| (key, session.position, chunk));
        if finished {
            tracing::info!(entity = %entity.name(), source = %self.target.source, "copy finished");
        }
        Ok(())
    }

    /// What the follower holds after `after`, up to and including `last` (to the end if `None`); and whether it holds
    /// nothing beyond.
    async fn held(&self, after: Option<&Key>, last: Option<&Key>) -> Result<(Vec<Stored>, bool)> {
        let mut held: Vec<Stored> = Vec::new();
        let mut from = after.cloned();
        loop {
            let page =
                self.target.auditor.scan(&self.target.entity, from.as_ref(), CHUNK).await?.value;
            from = page.records.last().map(|s| s.key.clone());
            let passed = last.is_some_and(|last| from.as_ref().is_some_and(|key| key >= last));
            let found = page.records.len();
            let before = held.len();
            held.extend(
                page.records.into_iter().filter(|s| last.is_none_or(|last| s.key <= *last)),
            );
            if page.end || passed || from.is_none() {
                let is_rest_empty = page.end && held.len() - before == found;
                return Ok((held, is_rest_empty));
            }
        }
    }

    /// What makes `held` equal to the chunk. Both are in key order.
    fn difference(&self, chunk: ScanPage, held: &[Stored], position: Position) -> Vec<Arc<Change>> {
        let mut changes = Vec::new();
        let mut held = held.iter().peekable();
        for stored in chunk.records {
            while let Some(orphan) = held.next_if(|h| h.key < stored.key) {
                changes.push(self.removal(&orphan.key, position));
            }
            let mine = held.next_if(|h| h.key == stored.key);
            match (self.wants(&stored), mine) {
                (true, Some(mine)) if *mine == stored => {}
                (true, _) => changes.push(self.copy_of(stored)),
                (false, Some(_)) => changes.push(self.removal(&stored.key, position)),
                (false, None) => {}
            }
        }
        changes.extend(held.map(|orphan| self.removal(&orphan.key, position)));
        changes
    }

    /// Whether the follower is to hold a record.
    pub(crate) fn wants(&self, stored: &Stored) -> bool {
        self.target
            .filter
            .as_ref()
            .is_none_or(|rule| rule.holds(&self.target.entity, &stored.record))
    }

    /// A change that says what the truth holds now.
    pub(super) fn copy_of(&self, stored: Stored) -> Arc<Change> {
        Arc::new(Change {
            position: stored.version,
            entity: self.target.entity.name().clone(),
            key: stored.key,
            operation: Operation::Put,
            replaced: None,
            image: Some(stored.record),
            time: self.runtime.now(),
            actor: None,
            trace: None,
        })
    }

    /// A change that says that the truth held nothing at a position.
    pub(super) fn removal(&self, key: &Key, position: Position) -> Arc<Change> {
        Arc::new(Change {
            position,
            entity: self.target.entity.name().clone(),
            key: key.clone(),
            operation: Operation::Delete,
            replaced: None,
            image: None,
            time: self.runtime.now(),
            actor: None,
            trace: None,
        })
    }
}
