//! The copy: brings a follower to the truth's state beside the stream, in key order, resumable at its checkpoint.
//!
//! Copy steps and stream steps of one delivery take turns, so no change is applied between reading a chunk and
//! writing it. A copied record has its version, so a change from the stream that is older than the copy is stale and
//! a newer one wins. A record that the follower has and the chunk lacks did not exist at the chunk's position, so it
//! is removed as of that position: a later creation has a greater version. This is DBLog's idea without its
//! watermarks, which versions make unnecessary (<https://arxiv.org/abs/2010.12597>).

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use unisono_core::query::{Comparison, Filter, Path};
use unisono_core::source::{Applied, At, Batch, Checkpoint, ScanPage};
use unisono_core::{Change, Key, Operation, Position, Result, Stored};

use crate::delivery::Delivery;
use crate::delivery::progress::count;
use crate::delivery::session::Session;

/// The most records of one chunk; a follower that takes smaller batches gets smaller chunks.
const CHUNK: usize = 1000;
/// How long chunks are copied in lanes before the stream has its turn again.
const TURN: Duration = Duration::from_millis(250);

/// How long counting the records may take.
const COUNT_MAX: Duration = Duration::from_secs(60);

/// What a chunk leaves to the next one.
#[derive(Default)]
pub(super) struct Ahead {
    /// The next chunk of the truth, after which key it is, and where the delivery was when it was read.
    chunk: Option<(Key, Position, At<ScanPage>)>,
    /// How many records a chunk may have, as far as is known from the size of those before.
    size: Option<usize>,
    /// The follower held nothing beyond the keys that were copied. What it gets there since comes from the stream,
    /// which also takes it away again.
    is_rest_empty: bool,
    /// How many records are to come is being counted, or was.
    is_counted: bool,
}

impl Ahead {
    /// The next chunk, if the stream has brought nothing since it was read.
    fn take(&mut self, after: Option<&Key>, position: Position) -> Option<At<ScanPage>> {
        let (key, read, chunk) = self.chunk.take()?;
        (Some(&key) == after && read == position).then_some(chunk)
    }
}

/// What makes the follower equal to a chunk, and the chunk's last key; none if it is the last chunk.
struct Piece {
    changes: Vec<Arc<Change>>,
    last: Option<Key>,
}

impl Delivery {
    /// Copies the next keys, and moves the checkpoint behind them.
    pub(super) async fn copy_step(&self, session: &mut Session<'_>) -> Result<()> {
        let after = match session.saved.backfill.as_deref() {
            None | Some("") => None,
            Some(text) => Some(Key::parse(&self.target.entity, text)?),
        };
        if after.is_none() {
            session.ahead = Ahead::default();
        }
        if !std::mem::replace(&mut session.ahead.is_counted, true) {
            self.count_records(after.as_ref());
        }
        match self.target.capability.apply.copy_lanes {
            0 | 1 => self.copy_chunk(session, after).await?,
            lanes => self.copy_in_lanes(session, after, lanes).await?,
        }
        if session.saved.backfill.is_none() {
            let (entity, source) = (self.target.name(), &self.target.source);
            tracing::info!(%entity, %source, "copy finished");
        }
        Ok(())
    }

    /// Has it told how much there is to copy, beside the copy: on a large truth that takes a while.
    fn count_records(&self, after: Option<&Key>) {
        if !self.progress.copying.begin(after.is_none(), self.runtime.now()) {
            return;
        }
        let (log, entity) = (Arc::clone(&self.log), Arc::clone(&self.target.entity));
        let (copying, runtime) = (Arc::clone(&self.progress.copying), self.runtime.clone());
        let beyond = after.map(|key| {
            Filter::Compare(Path::whole(entity.key_index()), Comparison::Gt, key.to_value())
        });
        self.runtime.spawn(async move {
            let counts = async {
                let total = log.reader.count(&entity, &Filter::All, None).await?.value;
                let to_come = match &beyond {
                    None => total,
                    Some(beyond) => log.reader.count(&entity, beyond, None).await?.value,
                };
                Ok((total, to_come))
            };
            // Without it the copy goes on, and only its end is not foretold.
            if let Ok((total, to_come)) = runtime.within(COUNT_MAX, counts).await {
                copying.counted(total, to_come);
            }
        });
    }

    /// One chunk, with the checkpoint in the same batch; the next one is read meanwhile.
    async fn copy_chunk(&self, session: &mut Session<'_>, after: Option<Key>) -> Result<()> {
        let position = session.position;
        let Piece { changes, last } = self.piece(&mut session.ahead, after, position).await?;
        let to = behind(session, last.as_ref());
        // Nobody writes to the follower but this step, so what is read meanwhile is read between two steps.
        let size = self.chunk_size(&session.ahead);
        let read = async {
            let key = last?;
            let chunk = self.truth().1.scan(&self.target.entity, Some(&key), size).await.ok()?;
            Some((key, position, chunk))
        };
        let (settled, read) = futures::join!(self.settle(session, changes, true, to), read);
        settled?;
        session.ahead.chunk = read;
        Ok(())
    }

    /// Chunks for a while, several at the same time; then the checkpoint moves behind all of them.
    async fn copy_in_lanes(
        &self,
        session: &mut Session<'_>,
        after: Option<Key>,
        lanes: usize,
    ) -> Result<()> {
        let (position, watch) = (session.position, self.runtime.stopwatch());
        let mut ahead = std::mem::take(&mut session.ahead);
        let (mut last, mut goes_on) = (after, true);
        let mut under_way = FuturesUnordered::new();
        while goes_on || !under_way.is_empty() {
            let has_room = goes_on && under_way.len() < lanes;
            let after = last.clone();
            let next = async {
                match has_room {
                    true => self.piece(&mut ahead, after, position).await,
                    false => std::future::pending().await,
                }
            };
            let mut next = std::pin::pin!(next);
            // A chunk that is being read is not given up for one that was taken in.
            let piece = loop {
                tokio::select! {
                    biased;
                    Some(done) = under_way.next() => {
                        let (changes, applied): (Vec<_>, _) = done?;
                        self.sort_out(session, &changes, &applied).await?;
                        if !has_room {
                            break None;
                        }
                    }
                    piece = &mut next => break Some(piece?),
                }
            };
            if let Some(piece) = piece {
                last = piece.last;
                goes_on = last.is_some() && watch.elapsed() < TURN;
                under_way.push(self.copied(piece.changes));
            }
        }
        session.ahead = ahead;
        let to = behind(session, last.as_ref());
        self.save_at(session, to).await
    }

    /// Has the follower take in a chunk; the checkpoint comes later.
    async fn copied(&self, changes: Vec<Arc<Change>>) -> Result<(Vec<Arc<Change>>, Applied)> {
        let entity = Arc::clone(&self.target.entity);
        let batch = Batch { entity, changes: changes.clone(), copied: true, advance: None };
        let applied = match changes.is_empty() {
            true => Applied { outcomes: Vec::new(), advanced: false },
            false => self.take(batch).await?,
        };
        // Nothing of it will be sent again: the checkpoint passes it as it is now.
        Ok((changes, Applied { advanced: true, ..applied }))
    }

    /// Reads the next chunk, and compares.
    async fn piece(
        &self,
        ahead: &mut Ahead,
        after: Option<Key>,
        position: Position,
    ) -> Result<Piece> {
        let entity = &self.target.entity;
        let size = self.chunk_size(ahead);
        let At { value: chunk, position } = match ahead.take(after.as_ref(), position) {
            Some(read) => read,
            None => self.truth().1.scan(entity, after.as_ref(), size).await?,
        };
        self.comes_to(position).await?;
        self.progress.copying.passed(chunk.records.len());
        let bytes: usize = chunk.records.iter().map(|s| s.record.weight()).sum();
        if let Some(each) = bytes.checked_div(chunk.records.len()) {
            let most = self.target.capability.apply.batch_bytes_max;
            ahead.size = Some(self.policy().batch.bytes_max(most) / each.max(1));
        }
        let last = if chunk.end { None } else { chunk.records.last().map(|s| s.key.clone()) };
        let held = if ahead.is_rest_empty {
            Vec::new()
        } else {
            let (held, is_rest_empty) = self.held(after.as_ref(), last.as_ref()).await?;
            ahead.is_rest_empty = is_rest_empty;
            held
        };
        let changes = self.difference(chunk, &held, position);
        count(&self.progress.counts.copied, changes.len());
        Ok(Piece { changes, last })
    }

    /// How many records to read: a batch, as the follower likes it.
    fn chunk_size(&self, ahead: &Ahead) -> usize {
        let most = CHUNK.min(self.target.capability.apply.batch_changes_max).max(1);
        let max = self.policy().batch.changes_max(most);
        // Nothing is known of the first records but that a few will do no harm.
        ahead.size.unwrap_or(max / 4).clamp(1, max)
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
            let is_right = self.kept(&stored).map(|kept| kept.map(|kept| mine == Some(&*kept)));
            match (is_right, mine) {
                (Ok(Some(true)), _) => {}
                // What cannot be worked out is refused when it is to be taken in.
                (Ok(Some(false)) | Err(_), _) => changes.push(self.copy_of(stored)),
                // By the version that is not held, so that another `where` can have it held again.
                (Ok(None), Some(mine)) if mine.version <= stored.version => {
                    changes.push(self.removal(&stored.key, stored.version));
                }
                (Ok(None), Some(_)) => changes.push(self.removal(&stored.key, position)),
                (Ok(None), None) => {}
            }
        }
        changes.extend(held.map(|orphan| self.removal(&orphan.key, position)));
        changes
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

/// The checkpoint when everything up to a key is copied, or everything.
fn behind(session: &Session<'_>, last: Option<&Key>) -> Checkpoint {
    let backfill = last.map(ToString::to_string);
    Checkpoint { log: session.saved.log, position: session.position, backfill }
}
