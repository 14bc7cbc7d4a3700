//! Answers that were found lately, kept until their entity changes: pages, counts, and groups with their totals.
//!
//! An answer that was read at position *p* still holds if no record of the entity changed after *p*. The feed of the
//! entity's cache knows the last change that it has seen, and up to where it has seen the log: so an answer that still
//! holds is as good as one read there.

use std::sync::Arc;
use std::time::Duration;

use unisono_core::query::{Groups, Page};
use unisono_core::{Consistency, Position, Timestamp};

use crate::answer::{Answer, CacheStatus};
use crate::cache::Feed;
use crate::read::ask::Reading;

/// The most answers of one entity to questions of one form.
const ANSWERS_MAX: usize = 1000;
/// Answers of more records or groups are not kept.
const ROWS_MAX: usize = 200;

/// The kept answers of one entity.
pub(crate) struct Results {
    ttl: Duration,
    shelves: Arc<Shelves>,
}

/// The kept answers to questions of one form, by the text that tells a question from every other one.
pub(crate) struct Shelf<T>(quick_cache::sync::Cache<Box<str>, Arc<Kept<T>>>);

struct Kept<T> {
    answer: Answer<T>,
    read: Timestamp,
}

/// Where they are, by the form of their questions.
#[derive(Default)]
pub(crate) struct Shelves {
    pages: Shelf<Page>,
    counts: Shelf<u64>,
    groups: Shelf<Groups>,
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Shelf(quick_cache::sync::Cache::new(ANSWERS_MAX))
    }
}

/// What can be kept.
pub(crate) trait Keepable: Clone {
    /// Where it is kept.
    fn shelf(shelves: &Shelves) -> &Shelf<Self>;

    /// How many records or groups it holds.
    fn rows(&self) -> usize;
}

impl Keepable for Page {
    fn shelf(shelves: &Shelves) -> &Shelf<Self> {
        &shelves.pages
    }

    fn rows(&self) -> usize {
        self.hits.len()
    }
}

impl Keepable for u64 {
    fn shelf(shelves: &Shelves) -> &Shelf<Self> {
        &shelves.counts
    }

    fn rows(&self) -> usize {
        1
    }
}

impl Keepable for Groups {
    fn shelf(shelves: &Shelves) -> &Shelf<Self> {
        &shelves.groups
    }

    fn rows(&self) -> usize {
        self.groups.len()
    }
}

impl Results {
    /// Keeps answers for at most `ttl`, those that were kept `before` as well.
    pub(crate) fn new(ttl: Duration, before: Option<&Results>) -> Self {
        let shelves = before.map(|before| Arc::clone(&before.shelves));
        Results { ttl, shelves: shelves.unwrap_or_default() }
    }

    /// The answer to the question of this text, if it still holds and is as late as the caller demands.
    pub(crate) fn find<T: Keepable>(
        &self,
        feed: &Feed,
        reading: &Reading<'_>,
        question: &str,
    ) -> Option<Answer<T>> {
        let now = reading.runtime.now();
        let kept = T::shelf(&self.shelves).0.get(question)?;
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

    /// Keeps an answer, if nothing newer is known to exist; answers whether it did.
    pub(crate) fn keep<T: Keepable>(
        &self,
        reading: &Reading<'_>,
        question: String,
        answer: &Answer<T>,
    ) -> bool {
        let whole = !answer.stale && answer.failed.is_empty();
        if !whole || answer.value.rows() > ROWS_MAX {
            return false;
        }
        // What the caller knew before is no part of the answer.
        let token = reading.token_of([answer.position]);
        let answer = Answer { token, ..answer.clone() };
        let kept = Kept { answer, read: reading.runtime.now() };
        T::shelf(&self.shelves).0.insert(question.into(), Arc::new(kept));
        true
    }
}

impl Feed {
    /// Up to where an answer that was read at a position still holds; nothing if its entity has changed since.
    fn holds_to(&self, read: Position) -> Option<Position> {
        let (applied, changed) = self.seen();
        (changed <= read).then(|| read.max(applied))
    }
}
