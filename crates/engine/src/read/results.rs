//! Pages that were found lately, kept until their entity changes.
//!
//! A page that was read at position *p* still holds if no record of the entity changed after *p*. The feed of the
//! entity's cache knows the last change that it has seen, and up to where it has seen the log: so a page that still holds
//! is as good as one read there.

use std::sync::Arc;
use std::time::Duration;

use unisono_core::query::{Page, Query};
use unisono_core::{Consistency, Position, Timestamp};

use crate::answer::{Answer, CacheStatus};
use crate::cache::Feed;
use crate::read::ask::Reading;

/// The most pages of one entity.
const PAGES_MAX: usize = 1000;
/// Pages of more records are not kept.
const RECORDS_MAX: usize = 200;

/// The kept pages of one entity.
pub(crate) struct Results {
    ttl: Duration,
    pages: Arc<quick_cache::sync::Cache<Box<str>, Arc<Kept>>>,
}

struct Kept {
    answer: Answer<Page>,
    read: Timestamp,
}

impl Results {
    /// Keeps pages for at most `ttl`, those that were kept `before` as well.
    pub(crate) fn new(ttl: Duration, before: Option<&Results>) -> Self {
        let pages = before.map(|before| Arc::clone(&before.pages));
        let empty = || Arc::new(quick_cache::sync::Cache::new(PAGES_MAX));
        Results { ttl, pages: pages.unwrap_or_else(empty) }
    }

    /// The page of this name, if it still holds and is as late as the caller demands.
    pub(crate) fn find(
        &self,
        feed: &Feed,
        reading: &Reading<'_>,
        name: &str,
    ) -> Option<Answer<Page>> {
        let now = reading.runtime.now();
        let kept = self.pages.get(name)?;
        let age = now.seconds_since(kept.read).max(0.0);
        let left = self.ttl.checked_sub(Duration::from_secs_f64(age))?;
        let position = feed.holds_to(kept.answer.position)?;
        let token = reading.context.token.position(&reading.serving.log.name);
        let late_enough = reading.context.consistency == Consistency::Eventual || position >= token;
        if !late_enough || !feed.is_verified(now) {
            return None;
        }
        let mut token = reading.context.token.clone();
        token.merge(&kept.answer.token);
        Some(Answer {
            position,
            token,
            age: Duration::from_secs_f64(age),
            cache: CacheStatus::Hit { ttl: left, refreshing: false },
            ..kept.answer.clone()
        })
    }

    /// Keeps a page, if nothing newer is known to exist.
    pub(crate) fn keep(&self, reading: &Reading<'_>, name: String, answer: &Answer<Page>) {
        let whole = !answer.stale && answer.failed.is_empty();
        if whole && answer.value.hits.len() <= RECORDS_MAX {
            // What the caller knew before is no part of the answer.
            let token = reading.token_of([answer.position]);
            let answer = Answer { token, ..answer.clone() };
            let kept = Kept { answer, read: reading.runtime.now() };
            self.pages.insert(name.into(), Arc::new(kept));
        }
    }
}

/// What tells a query from every other one.
pub(crate) fn name(query: &Query) -> String {
    format!("{query:?}")
}

impl Feed {
    /// Up to where a page that was read at a position still holds; nothing if its entity has changed since.
    fn holds_to(&self, read: Position) -> Option<Position> {
        let (applied, changed) = self.seen();
        (changed <= read).then(|| read.max(applied))
    }
}
