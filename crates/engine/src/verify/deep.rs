//! The deep comparison: every record is read back from both sides, in key order, and compared as it is.

use std::sync::Arc;

use futures::channel::mpsc;
use futures::{SinkExt as _, StreamExt as _, try_join};
use unisono_core::source::Auditor;
use unisono_core::{Entity, Key, Result, Stored};

use crate::runtime::Runtime;
use crate::verify::audit::{Audit, Tell, pace};

/// Records read at once.
const PAGE: usize = 2_000;
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
            let wanted = t.as_ref().filter(|t| self.delivery.wants(t));
            if wanted != f.as_ref() {
                suspects.extend(t.as_ref().or(f.as_ref()).map(|s| s.key.clone()));
            }
            if suspects.len() >= SUSPECTS {
                self.judge(std::mem::take(&mut suspects)).await?;
            }
            if self.found.records - told >= PAGE as u64 {
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
    let mut last: Option<Key> = None;
    loop {
        let page = auditor.scan(entity, last.as_ref(), PAGE).await?.value;
        last = page.records.last().map(|stored| stored.key.clone());
        let end = page.end || last.is_none();
        let read = page.records.len();
        if to.send(page.records).await.is_err() || end {
            return Ok(());
        }
        pace(rate, read, runtime).await;
    }
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
