//! The capture: looks, again and again, at what others did with the workflows, and records it.
//!
//! A round looks at every workflow that was written or is open, at those that were open and are no longer, at those that the
//! visibility store says have closed lately, and at a few of the others in turn.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, PoisonError};

use serde::{Deserialize, Serialize};
use temporalio_common::protos::temporal::api::workflow::v1::WorkflowExecutionInfo;
use unisono_core::query::{Filter, Path, Query};
use unisono_core::{ErrorKind, Key, Result, Timestamp, Value};

use crate::codec::OPEN;
use crate::layout::Meaning;
use crate::look::Ask;
use crate::source::{Place, Progress, Shared};

/// Where the capture keeps how far it has come, in the journal.
const SPACE: &str = "unisono_temporal";
/// How many of the workflows that have ended are looked at in each round, to find those that were deleted.
const REVISITED: usize = 10;

/// How far the capture of one entity has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    /// What it captures; if that changes, everything is looked at again.
    scope: String,
    /// The greatest close time that the visibility store has told, in microseconds.
    closed: Option<i64>,
}

/// What a round leaves to the next one of the same entity.
#[derive(Default)]
struct Memory {
    mark: Option<Mark>,
    /// Whether the fields have come to stand for something else since the journal was written.
    anew: bool,
    /// Runs that have been looked at since they closed.
    settled: HashSet<String>,
    /// Where to go on among the workflows that have ended.
    revisited: Option<Key>,
}

impl Memory {
    fn ask(&self) -> Ask {
        if self.anew { Ask::Anew } else { Ask::Grown }
    }
}

/// Goes on until it is dropped.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut memories: BTreeMap<Arc<str>, Memory> = BTreeMap::new();
    loop {
        for place in shared.places() {
            let memory = memories.entry(Arc::clone(place.entity.name())).or_default();
            let progress = match shared.round(&place, memory).await {
                Ok(()) => Progress::Complete,
                Err(error) => {
                    Progress::Failing(Arc::new(shared.named("capture", &place.entity)(error)))
                }
            };
            tell(&place, &progress);
            place.progress.send_replace(progress);
        }
        tokio::time::sleep(shared.settings.look_interval).await;
    }
}

/// Logs when looks begin to fail, and when they work again.
fn tell(place: &Place, progress: &Progress) {
    let entity = place.entity.name();
    match (&*place.progress.borrow(), progress) {
        (Progress::First | Progress::Complete, Progress::Failing(error)) => {
            tracing::warn!(%entity, %error, "the workflows cannot be looked at; trying again");
        }
        (Progress::Failing(_), Progress::Complete) => {
            tracing::info!(%entity, "the workflows can be looked at again");
        }
        _ => {}
    }
}

impl Shared {
    async fn round(&self, place: &Place, memory: &mut Memory) -> Result<()> {
        let mut mark = match memory.mark.take() {
            Some(mark) => mark,
            None => {
                let kept = self.load(place).await?;
                memory.anew = kept.is_none();
                kept.unwrap_or_else(|| Mark { scope: self.scope(place), closed: None })
            }
        };
        let before = mark.clone();
        let done = self.look_at_all(place, memory, &mut mark).await;
        if done.is_ok() && (memory.anew || mark != before) {
            let text = serde_json::to_string(&mark).unwrap_or_default();
            self.journal.truth.put_state(SPACE, place.entity.name(), Some(text)).await?;
        }
        memory.anew &= done.is_err();
        memory.mark = Some(if done.is_ok() { mark } else { before });
        done
    }

    async fn look_at_all(&self, place: &Place, memory: &mut Memory, mark: &mut Mark) -> Result<()> {
        self.look_at_written(place).await?;
        let open = self.look_at_open(place, memory.ask()).await?;
        self.look_at_opened(place, &open).await?;
        self.look_at_closed(place, memory, mark).await?;
        self.look_at_some(place, memory).await
    }

    /// The workflows that were written since: their queries, which a write does not wait for.
    async fn look_at_written(&self, place: &Place) -> Result<()> {
        let written = || place.written.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = std::mem::take(&mut *written());
        let asked = self.settle_each(place, keys.iter().cloned().collect(), Ask::Missing).await;
        if asked.is_err() {
            written().extend(keys);
        }
        asked
    }

    /// The workflows that the visibility store says are open.
    async fn look_at_open(&self, place: &Place, ask: Ask) -> Result<BTreeSet<Key>> {
        let mut open = BTreeSet::new();
        let query = self.query(place, "CloseTime IS NULL");
        let mut page = Vec::new();
        loop {
            let listed = self.client.list(&query, page).await?;
            let keys: BTreeSet<Key> = listed.found.iter().filter_map(|i| self.key(i)).collect();
            self.settle_each(place, keys.iter().cloned().collect(), ask).await?;
            open.extend(keys);
            if listed.next.is_empty() {
                return Ok(open);
            }
            page = listed.next;
        }
    }

    /// The workflows that were open when they were looked at last, without those that were looked at just now.
    async fn look_at_opened(&self, place: &Place, open: &BTreeSet<Key>) -> Result<()> {
        let Some(status) = place.layout.index_of(&Meaning::Status) else { return Ok(()) };
        let words = OPEN.map(|word| Value::String(word.to_owned())).to_vec();
        let filter = Filter::In(Path::whole(status), words);
        let mut query = Query { filter, limit: Query::LIMIT_MAX, ..Query::all() };
        loop {
            let page = self.journal.reader.query(&place.entity, &query).await?.value;
            let keys = page.hits.into_iter().map(|hit| hit.stored.key);
            let keys = keys.filter(|key| !open.contains(key)).collect();
            self.settle_each(place, keys, Ask::Grown).await?;
            match page.next {
                Some(next) => query.cursor = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// The workflows that the visibility store says have closed since the mark, or in the overlap before it.
    async fn look_at_closed(
        &self,
        place: &Place,
        memory: &mut Memory,
        mark: &mut Mark,
    ) -> Result<()> {
        let since = mark.closed.map(Timestamp::from_micros_clamped);
        let condition = match since {
            Some(since) => {
                format!("CloseTime >= '{}'", since.minus(self.settings.overlap).to_text(6))
            }
            None => "CloseTime IS NOT NULL".to_owned(),
        };
        let query = self.query(place, &condition);
        let (mut page, mut settled) = (Vec::new(), HashSet::new());
        loop {
            let listed = self.client.list(&query, page).await?;
            let mut keys = BTreeSet::new();
            for info in &listed.found {
                mark.closed = mark.closed.max(closed(info));
                let run = info.execution.as_ref().map_or("", |e| e.run_id.as_str());
                if !memory.settled.contains(run) {
                    keys.extend(self.key(info));
                }
                // Without a mark everything is listed; only what the next round lists again needs to be remembered.
                if since.is_some() {
                    settled.insert(run.to_owned());
                }
            }
            self.settle_each(place, keys.into_iter().collect(), memory.ask()).await?;
            if listed.next.is_empty() {
                memory.settled = settled;
                return Ok(());
            }
            page = listed.next;
        }
    }

    /// A few workflows that have ended, in turn: those that the server has deleted are gone.
    async fn look_at_some(&self, place: &Place, memory: &mut Memory) -> Result<()> {
        let after = memory.revisited.take();
        let page = self.journal.auditor.scan(&place.entity, after.as_ref(), REVISITED).await?.value;
        if !page.end {
            memory.revisited = page.records.last().map(|stored| stored.key.clone());
        }
        let ended = page.records.into_iter().filter(|stored| {
            let status = place.layout.value(&stored.record, &Meaning::Status).as_str();
            status.is_none_or(|status| !OPEN.contains(&status))
        });
        self.settle_each(place, ended.map(|stored| stored.key).collect(), Ask::Grown).await
    }

    /// Looks at workflows. One that cannot be a record is passed over with a warning; it holds up no other.
    async fn settle_each(&self, place: &Place, keys: Vec<Key>, ask: Ask) -> Result<()> {
        match self.settle(place, &keys, ask).await {
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::InvalidInput) => {
                let error = self.named("capture", &place.entity)(error);
                tracing::warn!(%error, "a workflow cannot be a record and is passed over");
                Ok(())
            }
            settled => settled,
        }
    }

    /// How far the capture has come; `None` if it captured something else, so that every record must be made anew.
    async fn load(&self, place: &Place) -> Result<Option<Mark>> {
        let scope = self.scope(place);
        let kept = self.journal.truth.list_state(SPACE).await?;
        let found = kept.into_iter().find(|(name, _)| **name == **place.entity.name());
        let mark = found.and_then(|(_, text)| serde_json::from_str::<Mark>(&text).ok());
        Ok(mark.filter(|mark| mark.scope == scope))
    }

    /// What is captured, as a text that differs whenever records would.
    fn scope(&self, place: &Place) -> String {
        let fields = place.entity.fields().iter().zip(&place.layout.meanings);
        let fields: Vec<_> =
            fields.map(|(f, meaning)| format!("{} {} {meaning}", f.name, f.ty)).collect();
        let Shared { settings, .. } = self;
        let scope = place.layout.scope(&settings.prefix).join(" AND ");
        format!("{} {}: {scope}: {}", settings.url, settings.namespace, fields.join(", "))
    }

    fn query(&self, place: &Place, condition: &str) -> String {
        let mut all = place.layout.scope(&self.settings.prefix);
        all.push(condition.to_owned());
        all.join(" AND ")
    }

    /// The key of a workflow; `None` for one of another prefix, or with an id that is no key.
    fn key(&self, info: &WorkflowExecutionInfo) -> Option<Key> {
        let id = info.execution.as_ref()?.workflow_id.strip_prefix(&self.settings.prefix)?;
        Key::from_text(id).ok()
    }
}

/// When a workflow closed, in microseconds.
fn closed(info: &WorkflowExecutionInfo) -> Option<i64> {
    let time = info.close_time?;
    Some(time.seconds.saturating_mul(1_000_000) + i64::from(time.nanos) / 1000)
}
