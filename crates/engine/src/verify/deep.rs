//! The deep comparison: every record is read back from both sides, in key order, and compared as it is.

use std::sync::Arc;

use futures::channel::mpsc;
use futures::{SinkExt as _, StreamExt as _, try_join};
use unisono_core::source::Auditor;
use unisono_core::{Entity, Key, Result, Stored};

use crate::runtime::Runtime;
use crate::verify::audit::{Audit, Tell, pace};

/// Records read at once to begin with; more where they are small, since some sources look at all of them for each page.
const PAGE: usize = 500;
/// The most read at once: what search engines give in one answer, and one that tells whether there are more.
const PAGE_MAX: usize = 9_999;
/// About as many bytes a page is to have.
const PAGE_BYTES: usize = 4 << 20;
/// After so many records it is told how far it has come.
const TELL: u64 = 2_000;
/// Suspects that are gathered before they are looked at.
const SUSPECTS: usize = 500;

type Page = Vec<Stored>;

impl Audit<'_> {
    /// Compares all records.
    pub(super) async fn deep(&mut self, tell: Tell<'_>) -> Result<()> {
        let (entity, delivery) = (Arc::clone(self.entity), self.delivery);
        let (to_truth, truth) = mpsc::channel(1);
        let (to_follower, follower) = mpsc::channel(1);
        let pace = (self.rate, self.runtime);
        let truth_pages = pages(self.truth.1, &entity, to_truth, pace);
        let follower_pages = pages(delivery.target().auditor.as_ref(), &entity, to_follower, pace);
        let compared = self.merge(Ahead::new(truth), Ahead::new(follower), tell);
        // The sides are read ahead of the comparison, and at the same time.
        try_join!(truth_pages, follower_pages, compared).map(drop)
    }

    async fn merge(&mut self, mut truth: Ahead, mut follower: Ahead, tell: Tell<'_>) -> Result<()> {
        let mut suspects = Vec::new();
        let mut told = 0;
        loop {
            let (t, f) = (truth.key().await, follower.key().await);
            let (take_truth, take_follower) = match (t, f) {
                (None, None) => break,
                (Some(_), None) => (true, false),
                (None, Some(_)) => (false, true),
                (Some(t), Some(f)) => (t <= f, f <= t),
            };
            let t = if take_truth { truth.take() } else { None };
            let f = if take_follower { follower.take() } else { None };
            self.found.records += 1;
            let kept = t.as_ref().map_or(Ok(None), |t| self.delivery.kept(t));
            if !matches!(&kept, Ok(kept) if kept.as_deref() == f.as_ref()) {
                suspects.extend(t.as_ref().or(f.as_ref()).map(|s| s.key.clone()));
            }
            if suspects.len() >= SUSPECTS {
                self.judge(std::mem::take(&mut suspects)).await?;
            }
            if self.found.records - told >= TELL {
                told = self.found.records;
                tell(&self.found);
            }
        }
        self.judge(suspects).await
    }
}

/// Sends the records of a source page by page, for as long as somebody takes them.
async fn pages(
    auditor: &dyn Auditor,
    entity: &Arc<Entity>,
    mut to: mpsc::Sender<Page>,
    (rate, runtime): (Option<u32>, &Runtime),
) -> Result<()> {
    let (mut last, mut limit): (Option<Key>, _) = (None, PAGE);
    loop {
        let page = auditor.scan(entity, last.as_ref(), limit).await?.value;
        limit = next_limit(&page.records, limit, rate);
        last = page.records.last().map(|stored| stored.key.clone());
        let end = page.end || last.is_none();
        let read = page.records.len();
        if to.send(page.records).await.is_err() || end {
            return Ok(());
        }
        pace(rate, read, runtime).await;
    }
}

/// How many records the next page is to have, by what those of one weighed; no more than may be read within a second.
fn next_limit(records: &[Stored], limit: usize, rate: Option<u32>) -> usize {
    let bytes: usize = records.iter().map(|stored| stored.record.weight()).sum();
    let fitting = PAGE_BYTES.saturating_mul(records.len()) / bytes.max(1);
    let most = rate.map_or(PAGE_MAX, |rate| (rate as usize).min(PAGE_MAX));
    fitting.clamp(1, limit.saturating_mul(4).min(most).max(1))
}

/// The records of a source, of which the first can be seen.
struct Ahead {
    pages: mpsc::Receiver<Page>,
    page: std::vec::IntoIter<Stored>,
}

impl Ahead {
    fn new(pages: mpsc::Receiver<Page>) -> Self {
        Ahead { pages, page: Vec::new().into_iter() }
    }

    async fn key(&mut self) -> Option<&Key> {
        while self.page.as_slice().is_empty() {
            self.page = self.pages.next().await?.into_iter();
        }
        self.page.as_slice().first().map(|stored| &stored.key)
    }

    fn take(&mut self) -> Option<Stored> {
        self.page.next()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use unisono_core::{Position, Record, Value};

    use super::*;

    fn page(count: usize, bytes: usize) -> Vec<Stored> {
        let record = || Arc::new(Record::new(vec![Value::String("x".repeat(bytes))]));
        let stored = |n: usize| Stored::new(Key::Integer(n as i64), Position::ZERO, record());
        (0..count).map(stored).collect()
    }

    #[test]
    fn pages_of_small_records_grow_and_those_of_large_ones_shrink() {
        assert_eq!(next_limit(&page(500, 10), 500, None), 2_000);
        assert_eq!(next_limit(&page(8_000, 10), 8_000, None), PAGE_MAX);
        assert!((30..=42).contains(&next_limit(&page(500, 100_000), 500, None)));
        assert_eq!(next_limit(&page(1, 10 << 20), 1, None), 1);
        assert_eq!(next_limit(&page(500, 10), 500, Some(700)), 700);
        assert_eq!(next_limit(&[], 500, None), 1);
    }
}
