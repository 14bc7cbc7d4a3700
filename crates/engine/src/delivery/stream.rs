//! The stream: a window of the log becomes one batch.

use std::collections::HashMap;
use std::sync::Arc;

use unisono_core::source::Checkpoint;
use unisono_core::{Change, Key, Operation, Position, Result};

use crate::delivery::Delivery;
use crate::delivery::progress::count;
use crate::delivery::session::Session;

impl Delivery {
    /// Delivers the next window of the log; answers whether there was one.
    pub(super) async fn stream_step(&self, session: &mut Session) -> Result<bool> {
        let apply = &self.target.capability.apply;
        let window = match session.window.take() {
            Some(window) => window,
            None => self.window(session.position, session.sizer.next()).await?,
        };
        let Some(end) = window.last().map(|c| c.position) else { return Ok(false) };
        let entity = self.target.entity.name();
        let mine: Vec<_> =
            window.iter().filter(|c| c.entity == *entity).filter_map(|c| self.map(c)).collect();
        let Some(oldest) = mine.first().map(|c| c.time) else {
            session.position = end;
            if session.saved.backfill.is_none() {
                self.progress.applied_to(end);
            }
            return Ok(true);
        };
        self.progress.working_on(oldest);
        let changes = if apply.history { mine } else { self.fold(mine) };
        let to = Checkpoint { position: end, ..session.saved.clone() };
        let watch = self.runtime.stopwatch();
        let size = session.sizer.next();
        // The next window is read meanwhile; if it cannot be read, the next step tells.
        let ahead = async {
            let has_more = self.log.tail.head() > end;
            if has_more { self.window(end, size).await.ok() } else { None }
        };
        let (settled, ahead) = futures::join!(self.settle(session, changes, false, to), ahead);
        match settled {
            Ok(()) => {
                session.window = ahead;
                let backlog = self.log.tail.head().since(end);
                session
                    .sizer
                    .succeeded(watch.elapsed(), usize::try_from(backlog).unwrap_or(usize::MAX));
                Ok(true)
            }
            Err(error) => {
                session.sizer.failed();
                Err(error)
            }
        }
    }

    async fn window(&self, after: Position, changes_max: usize) -> Result<Vec<Arc<Change>>> {
        let bytes_max = self.target.capability.apply.batch_bytes_max;
        self.log.tail.read(after, changes_max, bytes_max).await
    }

    /// What a change means for this follower. A record that `where` excludes is removed, unless it was never there.
    pub(super) fn map(&self, change: &Arc<Change>) -> Option<Arc<Change>> {
        let (Some(rule), Some(image)) = (&self.target.filter, &change.image) else {
            return Some(Arc::clone(change));
        };
        if rule.holds(&self.target.entity, image) {
            return Some(Arc::clone(change));
        }
        change.replaced?;
        Some(Arc::new(Change {
            operation: Operation::Delete,
            image: None,
            ..Change::clone(change)
        }))
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
