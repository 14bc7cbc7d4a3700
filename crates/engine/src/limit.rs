//! [`Limit`]: so many at once and no more, which can become another number while some are inside.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;
use unisono_core::{Error, Result};

/// How many may be inside at once; further ones wait, in order.
pub(crate) struct Limit {
    permits: Semaphore,
    size: Mutex<Size>,
}

struct Size {
    max: usize,
    /// How many are inside beyond `max`, since it became less: their places are gone when they leave.
    excess: usize,
}

/// A place inside, left when it is dropped.
pub(crate) struct Slot(Arc<Limit>);

impl Limit {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        let size = Mutex::new(Size { max, excess: 0 });
        Arc::new(Limit { permits: Semaphore::new(max), size })
    }

    /// Waits for a place.
    pub(crate) async fn enter(self: &Arc<Self>) -> Result<Slot> {
        let permit = self.permits.acquire().await;
        permit.map_err(|_| Error::internal("a limit was closed"))?.forget();
        Ok(Slot(Arc::clone(self)))
    }

    /// A place, if there is one.
    pub(crate) fn try_enter(self: &Arc<Self>) -> Option<Slot> {
        self.permits.try_acquire().ok()?.forget();
        Some(Slot(Arc::clone(self)))
    }

    /// Makes it another number. Who is inside stays; beyond a lower number nobody enters before enough have left.
    pub(crate) fn resize(&self, max: usize) {
        let mut size = self.size();
        if max < size.max {
            size.excess += size.max - max;
            // The places that are free go at once.
            size.excess -= self.permits.forget_permits(size.excess);
        } else {
            let more = max - size.max;
            let stay = more.min(size.excess);
            size.excess -= stay;
            self.permits.add_permits(more - stay);
        }
        size.max = max;
    }

    fn size(&self) -> MutexGuard<'_, Size> {
        self.size.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Slot")
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut size = self.0.size();
        match size.excess {
            0 => self.0.permits.add_permits(1),
            _ => size.excess -= 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many more can enter.
    fn free(limit: &Arc<Limit>) -> usize {
        let mut slots = Vec::new();
        while let Some(slot) = limit.try_enter() {
            slots.push(slot);
        }
        slots.len()
    }

    #[test]
    fn a_lower_number_holds_for_those_who_come_and_a_higher_one_at_once() {
        let limit = Limit::new(5);
        let mut inside: Vec<_> = (0..4).filter_map(|_| limit.try_enter()).collect();
        limit.resize(2);
        assert_eq!(free(&limit), 0, "the free place is gone");
        inside.truncate(2);
        assert_eq!(free(&limit), 0, "those who left were too many");
        inside.truncate(1);
        assert_eq!(free(&limit), 1);
        limit.resize(6);
        assert_eq!(free(&limit), 5);
        drop(inside);
        assert_eq!(free(&limit), 6);
    }

    #[test]
    fn who_was_too_many_counts_again_when_the_number_rises() {
        let limit = Limit::new(4);
        let mut inside: Vec<_> = (0..4).filter_map(|_| limit.try_enter()).collect();
        limit.resize(1);
        limit.resize(3);
        assert_eq!(free(&limit), 0);
        inside.pop();
        assert_eq!(free(&limit), 0, "three are inside");
        inside.pop();
        assert_eq!(free(&limit), 1);
        limit.resize(4);
        assert_eq!(free(&limit), 2);
        drop(inside);
        assert_eq!(free(&limit), 4);
    }

    #[tokio::test]
    async fn who_waits_enters_when_the_number_rises() {
        let limit = Limit::new(1);
        let first = limit.try_enter();
        let mut waiting = std::pin::pin!(limit.enter());
        assert!(futures::poll!(&mut waiting).is_pending());
        limit.resize(2);
        let second = waiting.await.unwrap();
        assert!(first.is_some() && limit.try_enter().is_none());
        drop(second);
        assert_eq!(free(&limit), 1);
    }
}
