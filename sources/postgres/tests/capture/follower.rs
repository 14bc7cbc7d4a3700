//! A follower of the kind `memory`, fed from a captured log as deliveries do it.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value as Json;
use unisono_core::source::{Advance, Auditor, Batch, Checkpoint, Follower, Source};
use unisono_core::{Change, Entity, Key, Role};
use unisono_source_memory::{Memory, MemoryDisk, Settings};

use crate::site::truth;

/// A copy of a captured table.
pub(crate) struct Copy {
    entity: Arc<Entity>,
    copy: Arc<dyn Source>,
    pub(crate) saved: Checkpoint,
}

impl Copy {
    /// Empty, at the beginning of the source's log.
    pub(crate) async fn new(source: &Arc<dyn Source>, entity: &Arc<Entity>) -> Self {
        let copy = Memory::over("copy", Arc::new(MemoryDisk::default()), Settings::default());
        let mut binding = crate::site::binding(entity, None);
        binding.role = Role::Follower;
        copy.prepare(&[binding]).await.unwrap();
        let bounds = truth(source).bounds().await.unwrap();
        let saved = Checkpoint { log: bounds.log, position: bounds.trimmed, backfill: None };
        let mut made = Copy { entity: Arc::clone(entity), copy, saved: saved.clone() };
        made.apply(Vec::new(), None, saved).await;
        made
    }

    /// Applies what is new; answers how many changes that were.
    pub(crate) async fn follow(&mut self, source: &Arc<dyn Source>) -> usize {
        let truth = truth(source);
        let bounds = truth.bounds().await.unwrap();
        assert_eq!(bounds.log, self.saved.log, "it is still the same log");
        assert!(bounds.head >= self.saved.position, "a log does not go back");
        let changes = truth.read_log(self.saved.position, 500, 1 << 20).await.unwrap();
        let Some(last) = changes.last() else { return 0 };
        let to = Checkpoint { position: last.position, ..self.saved.clone() };
        let mut newest: HashMap<Key, Arc<Change>> = HashMap::new();
        for change in &changes {
            newest.insert(change.key.clone(), Arc::clone(change));
        }
        let mut newest: Vec<_> = newest.into_values().collect();
        newest.sort_by_key(|change| change.position);
        self.apply(newest, Some(self.saved.clone()), to).await;
        changes.len()
    }

    async fn apply(&mut self, changes: Vec<Arc<Change>>, from: Option<Checkpoint>, to: Checkpoint) {
        let entity = Arc::clone(&self.entity);
        let advance = Some(Advance { from, to: to.clone() });
        let follower: Arc<dyn Follower> = Arc::clone(&self.copy).follower().unwrap();
        let batch = Batch { entity, changes, copied: false, advance };
        assert!(follower.apply(batch).await.unwrap().advanced);
        self.saved = to;
    }

    /// Every record by key.
    pub(crate) async fn records(&self) -> Vec<Json> {
        let auditor: Arc<dyn Auditor> = Arc::clone(&self.copy).auditor().unwrap();
        let page = auditor.scan(&self.entity, None, 1_000_000).await.unwrap().value;
        let json = |stored: &unisono_core::Stored| {
            unisono_core::json::to_json(&self.entity, &stored.record)
        };
        page.records.iter().map(json).collect()
    }
}
