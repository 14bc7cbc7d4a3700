//! One entity in a cluster: its index, what of it can be searched, and the deletions that it remembers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use reqwest::Method;
use serde_json::Value as Json;
use unisono_core::{Entity, Error, Key, Position, Result};

use crate::cluster::Cluster;
use crate::error;
use crate::place::{Kept, Places};
use crate::schema::{Index, Layout};
use crate::searchable::Searchable;

/// One entity in a cluster.
pub(crate) struct Handle {
    /// The cluster.
    pub(crate) cluster: Arc<Cluster>,
    /// The places of the source.
    pub(crate) places: Places,
    /// Name of its place.
    pub(crate) place: Arc<str>,
    /// The alias under which other programs find the records.
    pub(crate) alias: String,
    /// The layout of its documents.
    pub(crate) layout: Layout,
    /// Whether the alias is known to name the current index.
    pub(crate) published: AtomicBool,
    index: RwLock<Option<Arc<str>>>,
    /// What searches see of it.
    pub(crate) searchable: Searchable,
    deletions: Mutex<Deletions>,
}

/// Deletions that the index remembers as documents, by version, until the checkpoint has come to them.
#[derive(Default)]
struct Deletions {
    remembered: BTreeMap<Position, String>,
    /// The checkpoint of an earlier batch.
    settled: Position,
}

/// An index as it can be read now, with the position that is complete in it.
pub(crate) struct View<'a> {
    /// The entity.
    pub(crate) handle: &'a Handle,
    /// The index.
    pub(crate) index: String,
    /// Everything up to here is in it.
    pub(crate) position: Position,
}

impl Handle {
    /// More deletions than these are left to the next start.
    const DELETIONS_MAX: usize = 100_000;
    /// So many are let go of with one batch.
    const DELETIONS_BATCH: usize = 1_000;

    /// A handle that was not prepared yet.
    pub(crate) fn new(cluster: &Arc<Cluster>, entity: &Arc<Entity>, place: &Arc<str>) -> Self {
        Handle {
            places: Places::new(cluster),
            alias: format!("{}{place}", cluster.settings.prefix),
            cluster: Arc::clone(cluster),
            place: Arc::clone(place),
            layout: Layout::new(entity),
            published: AtomicBool::new(false),
            index: RwLock::new(None),
            searchable: Searchable::default(),
            deletions: Mutex::default(),
        }
    }

    /// The administration of its indexes.
    pub(crate) fn admin(&self) -> Index<'_> {
        Index { cluster: &self.cluster, alias: &self.alias }
    }

    /// Says where a failure happened.
    pub(crate) fn locate(&self, e: Error, operation: &'static str) -> Error {
        e.on(operation).at(self.cluster.client.source()).of(self.layout.entity.name())
    }

    /// The index that is written.
    pub(crate) fn index(&self) -> Result<Arc<str>> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        index.clone().ok_or_else(error::missing)
    }

    /// Writes go to this index from now on; what was remembered of another one is forgotten.
    pub(crate) fn use_index(&self, name: &str) {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        if index.as_deref() != Some(name) {
            *index = Some(name.into());
            *self.deletions() = Deletions::default();
            self.published.store(false, Ordering::SeqCst);
        }
    }

    /// The stored place.
    pub(crate) async fn read_place(&self) -> Result<Option<Kept>> {
        let kept = self.places.read(&self.place).await?;
        if let Some(kept) = &kept {
            self.use_index(&kept.place.index);
        }
        Ok(kept)
    }

    /// The index for reading by key, which sees every write.
    pub(crate) async fn view(&self) -> Result<View<'_>> {
        Ok(self.view_of(self.read_place().await?.ok_or_else(error::missing)?))
    }

    /// The index for searching. What this process has written, and everything up to the position, is found.
    ///
    /// The engine makes writes visible to searches only now and then, so that it is asked to when something was
    /// written since.
    pub(crate) async fn search_view(&self) -> Result<View<'_>> {
        self.search_view_after(None).await
    }

    /// The same for a search of the records after a key only. What was written before that key need not be visible, so
    /// that a copy in the order of keys does not ask for it with each step.
    pub(crate) async fn search_view_after(&self, after: Option<&Key>) -> Result<View<'_>> {
        let kept = self.read_place().await?.ok_or_else(error::missing)?;
        let index = &kept.place.index;
        let mut seen = self.searchable.seen.lock().await;
        // Asked after the lock was waited for: the one who had it may have done the work.
        if let Some(now) = self.searchable.missing(seen.as_ref(), index, kept.written, after) {
            self.refresh(index).await?;
            self.searchable.showed(&now);
            *seen = Some(now);
        }
        drop(seen);
        Ok(self.view_of(kept))
    }

    fn view_of(&self, kept: Kept) -> View<'_> {
        let position = kept.place.position();
        View { handle: self, index: kept.place.index, position }
    }

    /// Makes everything written so far visible to searches.
    pub(crate) async fn refresh(&self, index: &str) -> Result<()> {
        #[derive(serde::Deserialize)]
        struct Refreshed {
            #[serde(rename = "_shards")]
            shards: Shards,
        }
        #[derive(serde::Deserialize)]
        struct Shards {
            failed: u64,
        }
        let path = format!("/{index}/_refresh");
        let answer = self.cluster.client.read(Method::POST, &path, None::<&Json>).await?;
        match answer.ok()?.parse::<Refreshed>()?.shards.failed {
            0 => Ok(()),
            _ => Err(error::incomplete()),
        }
    }

    /// Remembers that deletions were written, each a version and the id of its document.
    pub(crate) fn remember(&self, deleted: impl IntoIterator<Item = (Position, String)>) {
        let mut deletions = self.deletions();
        for (version, id) in deleted {
            if deletions.remembered.len() < Self::DELETIONS_MAX {
                deletions.remembered.insert(version, id);
            }
        }
    }

    /// Notes where the stored checkpoint is.
    pub(crate) fn settle(&self, position: Position) {
        self.deletions().settled = position;
    }

    /// Takes deletions that an earlier batch's checkpoint has come to: they need not be remembered any more.
    pub(crate) fn take_settled(&self) -> Vec<(Position, String)> {
        let mut deletions = self.deletions();
        let settled = deletions.settled;
        let due = deletions.remembered.range(..=settled).map(|(version, _)| *version);
        let due: Vec<_> = due.take(Self::DELETIONS_BATCH).collect();
        due.into_iter().filter_map(|version| deletions.remembered.remove_entry(&version)).collect()
    }

    fn deletions(&self) -> MutexGuard<'_, Deletions> {
        self.deletions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
