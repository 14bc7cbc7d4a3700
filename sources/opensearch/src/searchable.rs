//! What searches see: the engine makes writes visible to them only now and then, and is asked to when that matters.

use std::sync::{Mutex, MutexGuard, PoisonError};

use unisono_core::Key;

use crate::place::Written;

/// What searches of an index are known to see.
#[derive(Default)]
pub(crate) struct Searchable {
    /// Held while the engine makes writes visible.
    pub(crate) seen: tokio::sync::Mutex<Option<Seen>>,
    unseen: Mutex<Unseen>,
}

/// A state of an index that searches see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The index.
    pub(crate) index: String,
    /// Batches that this process has written.
    pub(crate) batches: u64,
    /// When the checkpoint was written: batches of other processes are before it.
    pub(crate) checkpoint: Written,
}

/// What this process has written.
#[derive(Clone, Debug, Default)]
struct Unseen {
    batches: u64,
    /// The greatest key among batches that searches may not see yet.
    greatest: Option<Key>,
}

impl Seen {
    /// Whether this is enough to see everything of `wanted` that is after a key, when this process has written up to
    /// `greatest` since.
    fn shows(&self, wanted: &Seen, after: Option<&Key>, greatest: Option<&Key>) -> bool {
        let beyond = greatest > after;
        self.index == wanted.index
            && self.checkpoint == wanted.checkpoint
            && (self.batches == wanted.batches || !beyond)
    }
}

impl Searchable {
    /// Notes that a batch with these keys was written.
    pub(crate) fn wrote<'a>(&self, keys: impl Iterator<Item = &'a Key>) {
        let mut unseen = self.unseen();
        unseen.batches += 1;
        if let Some(greatest) = keys.max().filter(|key| Some(*key) > unseen.greatest.as_ref()) {
            unseen.greatest = Some(greatest.clone());
        }
    }

    /// What a search for records after a key must see now; `None` if `seen` is enough.
    pub(crate) fn missing(
        &self,
        seen: Option<&Seen>,
        index: &str,
        checkpoint: Written,
        after: Option<&Key>,
    ) -> Option<Seen> {
        let unseen = self.unseen();
        let wanted = Seen { index: index.to_owned(), batches: unseen.batches, checkpoint };
        let shown = seen.is_some_and(|seen| seen.shows(&wanted, after, unseen.greatest.as_ref()));
        (!shown).then_some(wanted)
    }

    /// Notes that searches see a state.
    pub(crate) fn showed(&self, seen: &Seen) {
        let mut unseen = self.unseen();
        if unseen.batches == seen.batches {
            unseen.greatest = None;
        }
    }

    /// Notes that this process has moved the checkpoint: no other one has written anything in between.
    pub(crate) async fn moved(&self, index: &str, from: Written, to: Written) {
        if let Some(seen) = &mut *self.seen.lock().await
            && seen.index == index
            && seen.checkpoint == from
        {
            seen.checkpoint = to;
        }
    }

    fn unseen(&self) -> MutexGuard<'_, Unseen> {
        self.unseen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use unisono_testkit::Sample;

    use super::*;

    fn written(sequence: u64) -> Written {
        Written { sequence, term: 1 }
    }

    #[tokio::test]
    async fn only_what_a_search_would_miss_is_made_visible() {
        let searchable = Searchable::default();
        let keys = ["a", "m", "t"].map(Sample::key);
        let [a, m, t] = &keys;
        let missing = |seen: Option<&Seen>, checkpoint, after| {
            searchable.missing(seen, "i", written(checkpoint), after)
        };
        let first = missing(None, 1, None).unwrap();
        searchable.showed(&first);
        assert_eq!(missing(Some(&first), 1, None), None, "nothing was written since");
        searchable.wrote([m, a].into_iter());
        assert!(missing(Some(&first), 1, None).is_some());
        assert!(missing(Some(&first), 1, Some(a)).is_some());
        assert_eq!(missing(Some(&first), 1, Some(m)), None, "what was written is not after it");
        assert!(
            missing(Some(&first), 2, Some(m)).is_some(),
            "another process moved the checkpoint"
        );
        searchable.wrote([a].into_iter());
        assert!(missing(Some(&first), 1, Some(a)).is_some(), "the greatest of both batches counts");
        let second = missing(Some(&first), 1, None).unwrap();
        searchable.wrote([t].into_iter());
        searchable.showed(&second);
        assert!(missing(Some(&second), 1, Some(m)).is_some(), "written while it was made visible");
        *searchable.seen.lock().await = Some(second.clone());
        searchable.moved("i", written(9), written(10)).await;
        assert_eq!(*searchable.seen.lock().await, Some(second.clone()), "from elsewhere");
        searchable.moved("i", written(1), written(2)).await;
        let moved = searchable.seen.lock().await.clone();
        assert_eq!(missing(moved.as_ref(), 2, Some(t)), None);
        assert!(missing(moved.as_ref(), 2, Some(m)).is_some());
    }
}
