//! How everything is doing: for people, for metrics, and what verification tells of it.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{join, join_all};
use tokio::sync::mpsc;
use unisono_core::{Position, Role};
use unisono_policy::declaration::Declaration;

use crate::delivery::Delivery;
use crate::engine::Engine;
use crate::log::Log;
use crate::notice::Notice;
use crate::observe;
use crate::policies::Policies;
use crate::read::handle::SourceHandle;
use crate::status::{
    DeliveryStatus, EntityStatus, HeldBy, LogStatus, SourceStatus, SourceUse, Status,
};
use crate::verify::report::Comparison;

/// How long a source may take to answer a look at it.
const LOOK_MAX: Duration = Duration::from_secs(2);

impl Engine {
    /// How everything is doing.
    pub async fn status(&self) -> Status {
        let (running, present) = (&self.0.running, self.0.present.load_full());
        // At the same time, and bounded: one that does not answer must not keep back what is said of the others.
        let sources = present.sources.values().map(|handle| self.look_at(handle, &present));
        let logs = present.logs.values().map(|log| self.look_at_log(log, &present));
        let (sources, logs) = join(join_all(sources), join_all(logs)).await;
        let (logs, deliveries): (Vec<_>, Vec<_>) = logs.into_iter().unzip();
        Status {
            time: self.0.runtime.now(),
            sources,
            logs,
            deliveries: deliveries.into_iter().flatten().collect(),
            caches: present
                .servings
                .values()
                .filter_map(|s| s.cache.as_ref())
                .map(|c| c.statistics())
                .collect(),
            entities: self.entities(),
            journals: self.behinds().iter().map(|behind| behind.status()).collect(),
            syncs: running.syncs.iter().map(|sync| sync.status()).collect(),
            archives: running.archives.list().iter().map(|archive| archive.status()).collect(),
            sampler: running.sampler.as_ref().map(|sampler| sampler.status()),
        }
    }

    fn entities(&self) -> Vec<EntityStatus> {
        let adaptive = |name| self.serving(name).ok()?.policies.adaptive.status();
        let declaration = self.declaration();
        let declared = declaration.entities.iter();
        declared.map(|(name, declared)| EntityStatus::of(declared, adaptive(name))).collect()
    }

    /// A log and its deliveries.
    async fn look_at_log(
        &self,
        log: &Arc<Log>,
        present: &Policies,
    ) -> (LogStatus, Vec<DeliveryStatus>) {
        let bounds = self.0.runtime.within(LOOK_MAX, log.truth.bounds()).await;
        let trimmed = bounds.map_or(Position::ZERO, |b| b.trimmed);
        let of_log = present.deliveries.iter().filter(|d| d.is_of(log));
        let deliveries: Vec<_> = of_log
            .map(|d| DeliveryStatus { held_changes: d.held_changes(trimmed), ..d.status() })
            .collect();
        let most = deliveries.iter().max_by_key(|d| d.held_changes);
        let held_by = most.filter(|d| d.held_changes > 0).map(|d| HeldBy {
            entity: Arc::clone(&d.entity),
            source: Arc::clone(&d.source),
            changes: d.held_changes,
        });
        let head = log.tail.head();
        let status = LogStatus {
            log: log.name.to_string(),
            head,
            trimmed,
            retained: head.since(trimmed),
            changes_max: self.declaration().log.changes_max,
            held_by,
            split: log.tail.split(),
        };
        (status, deliveries)
    }

    async fn look_at(&self, handle: &SourceHandle, present: &Policies) -> SourceStatus {
        let source = &handle.source;
        let paused = handle.paused();
        let probe = match &paused {
            // Whoever works on it is not to meet us there.
            Some(_) => handle.refuse_if_paused().map(|()| Default::default()),
            None => self.0.runtime.within(LOOK_MAX, source.probe()).await,
        };
        let (state, probe) = match probe {
            Err(_) if paused.is_some() => ("paused".to_owned(), Default::default()),
            Ok(probe) => ("up".to_owned(), probe),
            Err(error) => {
                let error = error.on("probe").at(source.name());
                let remedy = error.hint_text().map_or(String::new(), |hint| format!("; {hint}"));
                (format!("{error}{remedy}"), Default::default())
            }
        };
        SourceStatus {
            name: Arc::clone(source.name()),
            kind: source.kind().to_owned(),
            state,
            engine: probe.engine,
            bytes: probe.bytes,
            breaker: handle.breaker_state(),
            load: handle.load(),
            uses: uses(&present.declaration, source.name()),
            paused,
        }
    }

    /// Sets every metric to what is so now; called before they are collected.
    pub async fn observe(&self) {
        observe::all(&self.status().await);
    }

    /// Takes in what was found when a follower was compared with the truth, whoever asked: for `status`, metrics, and those
    /// who are told of divergences. Whatever compares calls this once for each comparison, finished or not.
    pub(super) fn compared(&self, delivery: &Delivery, found: &Comparison) {
        delivery.was_compared(found);
        if found.different > 0 {
            let runtime = &self.0.runtime;
            let number = runtime.uuid().as_u128();
            self.0.running.notices.tell(|| Notice::of_divergence(found, number, runtime.now()));
        }
    }

    /// What is found from now on and wanted, with room for so many notices that were not taken yet; further ones are
    /// dropped and counted.
    pub fn listen(
        &self,
        wants: Box<dyn Fn(&Notice) -> bool + Send + Sync>,
        room: usize,
    ) -> mpsc::Receiver<Notice> {
        self.0.running.notices.listen(wants, room)
    }
}

/// What a source is for.
fn uses(declaration: &Declaration, source: &Arc<str>) -> Vec<SourceUse> {
    let mut uses = Vec::new();
    for (name, declared) in &declaration.entities {
        let journal = declared.write.behind.as_ref().map(|behind| &behind.journal);
        let cache = declared.cache.as_ref().map(|cache| &cache.source);
        let follows = declared.followers.iter().any(|f| f.source == *source);
        let roles = [
            (Role::Truth, declared.truth == *source),
            (Role::Follower, follows),
            (Role::Cache, cache == Some(source)),
            (Role::Journal, journal == Some(source)),
        ];
        let of_entity = |role: Role| SourceUse { entity: Arc::clone(name), role: role.as_str() };
        uses.extend(roles.iter().filter(|(_, is)| *is).map(|(role, _)| of_entity(*role)));
    }
    uses
}
