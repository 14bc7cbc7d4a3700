//! The stream: a window of the log becomes one batch.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use unisono_core::source::Checkpoint;
use unisono_core::{Change, Key, Position, Result};

use crate::delivery::Delivery;
use crate::delivery::progress::count;
use crate::delivery::session::Session;

impl Delivery {
    /// Delivers the next window of the log; answers whether there was one.
    pub(super) async fn stream_step<'a>(&'a self, session: &mut Session<'a>) -> Result<bool> {
        let apply = &self.target.capability.apply;
        let window = self.next_window(session).await?;
        let Some(end) = window.last().map(|c| c.position) else { return Ok(false) };
        let entity = self.target.entity.name();
        let mine: Vec<_> = window
            .iter()
            .filter(|c| c.entity == *entity)
            .filter_map(|c| self.narrowed(c))
            .collect();
        let Some(oldest) = mine.first().map(|c| c.time) else {
            session.position = end;
            if session.saved.backfill.is_none() {
                self.progress.applied_to(end);
            }
            return Ok(true);
        };
        self.progress.working_on(oldest);
        self.take_turn(session).await;
        let changes = if apply.history { mine } else { self.fold(mine) };
        let changes = self.opened(changes).await?;
        let to = Checkpoint { position: end, ..session.saved.clone() };
        let watch = self.runtime.stopwatch();
        let size = self.batch_changes_max(session);
        // The next window is read meanwhile; if it cannot be read, the next step tells.
        let ahead = async {
            let has_more = self.log.tail.head() > end;
            if has_more { self.window(end, size).await.ok() } else { None }
        };
        let settling = self.settle(session, changes, false, to);
        let (settled, ahead) = futures::join!(self.progress.measured(settling), ahead);
        match settled {
            Ok(()) => {
                session.window = ahead;
                let backlog = self.log.tail.head().since(end);
                session
                    .sizer
                    .succeeded(watch.elapsed(), usize::try_from(backlog).unwrap_or(usize::MAX));
                self.progress.batch_is_at_most(self.batch_changes_max(session));
                Ok(true)
            }
            Err(error) => {
                session.sizer.failed();
                self.progress.batch_is_at_most(self.batch_changes_max(session));
                Err(error)
            }
        }
    }

    async fn window(&self, after: Position, changes_max: usize) -> Result<Vec<Arc<Change>>> {
        let bytes_max = self.target.capability.apply.batch_bytes_max;
        let bytes_max = self.policy().batch.bytes_max(bytes_max);
        self.log.tail.read(after, changes_max, bytes_max).await
    }

    /// The most changes of the next batch.
    pub(super) fn batch_changes_max(&self, session: &Session<'_>) -> usize {
        self.policy().batch.changes_max(session.sizer.next())
    }

    /// What comes next in the log and may be taken.
    async fn next_window(&self, session: &mut Session<'_>) -> Result<Vec<Arc<Change>>> {
        let mut window = match session.window.take() {
            Some(window) => window,
            None => self.window(session.position, self.batch_changes_max(session)).await?,
        };
        if self.target.after.is_some() {
            let limit = self.limit();
            window.truncate(window.partition_point(|change| change.position <= limit));
        }
        Ok(window)
    }

    /// How much longer the next batch gathers, if it does.
    pub(super) async fn gathers(&self, session: &mut Session<'_>) -> Result<Option<Duration>> {
        let batch = self.policy().batch;
        if batch.age.is_zero() || session.saved.backfill.is_some() {
            return Ok(None);
        }
        let window = self.next_window(session).await?;
        let entity = self.target.entity.name();
        let oldest = window.iter().find(|c| c.entity == *entity && self.narrowed(c).is_some());
        // More is there than fits by its bytes.
        let is_cut = window.last().is_some_and(|last| last.position < self.limit());
        let pause = oldest.filter(|_| !is_cut).and_then(|oldest| {
            self.progress.working_on(oldest.time);
            let waited = self.runtime.now().seconds_since(oldest.time).max(0.0);
            let full = self.batch_changes_max(session);
            batch.gathers_for(window.len(), full, Duration::from_secs_f64(waited))
        });
        session.window = (pause.is_none() && !window.is_empty()).then_some(window);
        Ok(pause)
    }

    /// Lets more urgent deliveries of the log go first, for a while.
    async fn take_turn<'a>(&'a self, session: &mut Session<'a>) {
        let priority = self.policy().priority;
        self.log.turns.give_way(priority, &self.runtime).await;
        session.turn.get_or_insert_with(|| self.log.turns.begin(priority));
    }

    /// The changes with personal values as the follower is to hold them.
    async fn opened(&self, mut changes: Vec<Arc<Change>>) -> Result<Vec<Arc<Change>>> {
        if let Some(keyring) = &self.target.clear {
            keyring.open_changes(&self.target.entity, changes.iter_mut(), true).await?;
        }
        Ok(changes)
    }

    /// Keeps the last change of each key, in the order of those.
    fn fold(&self, changes: Vec<Arc<Change>>) -> Vec<Arc<Change>> {
        let mut last: HashMap<&Key, usize> = HashMap::with_capacity(changes.len());
        for (n, change) in changes.iter().enumerate() {
            last.insert(&change.key, n);
        }
        if last.len() == changes.len() {
            return changes;
        }
        count(&self.progress.counts.folded, changes.len() - last.len());
        let is_last = |(n, change): &(usize, &Arc<Change>)| last.get(&change.key) == Some(n);
        changes.iter().enumerate().filter(is_last).map(|(_, change)| Arc::clone(change)).collect()
    }
}
