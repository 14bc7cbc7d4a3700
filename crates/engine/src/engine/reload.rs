//! [`Engine`]: another declaration in place of the one that it was opened with, while everything goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use serde_json::json;
use unisono_core::query::Filter;
use unisono_core::source::Source;
use unisono_core::{Error, ErrorKind, Result};
use unisono_policy::declaration::{Declaration, SourceDeclaration};
use unisono_policy::reload::{self, Plan};

use crate::delivery::Delivery;
use crate::engine::{Engine, moving};
use crate::observe;
use crate::policies::Policies;
use crate::read::handle::SourceHandle;
use crate::runtime::Runtime;
use crate::topology::{self, Blueprint, Handles};

/// Opens a source that was not declared before.
pub type OpenSource<'a> =
    &'a (dyn Fn(Arc<str>, SourceDeclaration) -> BoxFuture<'a, Result<Arc<dyn Source>>> + Sync);

/// How long a plan waits for the number of records of an entity.
const COUNT_MAX: Duration = Duration::from_secs(2);
/// How long a source that was removed stays open for calls that began before.
const CALLS_MAX: Duration = Duration::from_secs(30);
/// How often it is looked whether they have ended.
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl Engine {
    /// What [`Engine::reload`] would do at present.
    pub async fn plan_reload(&self, wanted: &Declaration) -> Plan {
        let mut plan = reload::plan(&self.declaration(), wanted);
        let reads = plan.steps.iter_mut().filter_map(|step| step.reads());
        join_all(reads.map(|(entity, records)| async {
            let Ok(serving) = self.serving(entity) else { return };
            let counting = serving.log.reader.count(&serving.entity, &Filter::All, None);
            // Without the number the plan is the same.
            let counted = self.0.runtime.within(COUNT_MAX, counting).await;
            *records = counted.ok().map(|counted| counted.value);
        }))
        .await;
        plan
    }

    /// Has another declaration take effect, all of it or nothing; answers what that changed. Calls that began before
    /// end as they began; cache entries keep the life that they were filled with. `open` is asked for sources that were
    /// not declared before.
    ///
    /// Fails with `invalid_config`, which names everything that takes a restart, and as `open` and the sources do when
    /// they cannot be opened or prepared. One reload waits for another.
    pub async fn reload(&self, wanted: Declaration, open: OpenSource<'_>) -> Result<Vec<String>> {
        let _reloading = self.0.reloading.lock().await;
        let wanted = topology::versions::carried_over(wanted, &self.declaration());
        let plan = self.plan_reload(&wanted).await;
        let moved = moving::of(&plan.steps);
        let changes = plan.outcome()?;
        if let Some(moved) = moved {
            return self.move_truth(wanted, moved).await.map(|()| changes);
        }
        let before = self.0.present.load_full();
        let added = open_added(&before, &wanted, open).await?;
        self.replace(before, wanted, &added).await?;
        if !changes.is_empty() {
            self.audit("reload", (None, None), json!({ "changes": changes }));
        }
        Ok(changes)
    }

    /// Has this process go by another declaration, with sources that were added for it; they are closed if it fails.
    pub(super) async fn replace(
        &self,
        before: Arc<Policies>,
        wanted: Declaration,
        added: &Handles,
    ) -> Result<()> {
        let blueprint = self.blueprint(&before, &wanted, added).await;
        let blueprint = match blueprint.and_then(|b| self.still_runs().map(|()| b)) {
            Ok(blueprint) => blueprint,
            Err(error) => {
                close_all(added).await;
                return Err(error);
            }
        };
        let topology = topology::build(blueprint, &before, &self.0.runtime);
        let policies = Arc::new(Policies::new(Arc::new(wanted), topology, Some(&before)));
        self.0.present.store(Arc::clone(&policies));
        self.take_over(&policies, &before);
        retire(before, &policies, &self.0.runtime);
        Ok(())
    }

    fn still_runs(&self) -> Result<()> {
        match self.0.runtime.has_ended() {
            true => Err(Error::new(ErrorKind::Cancelled, "the engine was closed").on("reload")),
            false => Ok(()),
        }
    }

    /// Has the sources keep what is wanted of them, beside what they keep; nothing is delivered yet.
    async fn blueprint<'w>(
        &'w self,
        before: &Policies,
        wanted: &'w Declaration,
        added: &Handles,
    ) -> Result<Blueprint<'w>> {
        let gone = |name: &Arc<str>| {
            before.declaration.sources.contains_key(name) && !wanted.sources.contains_key(name)
        };
        let stays = before.sources.iter().filter(|(name, _)| !gone(name)).chain(added);
        let handles: Handles =
            stays.map(|(name, handle)| (Arc::clone(name), Arc::clone(handle))).collect();
        let bound = (Arc::clone(&before.logs), Arc::clone(&before.servings));
        let kept = topology::bindings(&before.declaration, opened(&before.sources))?;
        let personal = self.0.running.personal.as_ref();
        let blueprint = Blueprint::new(wanted, handles.clone(), bound, personal)?;
        for (name, bindings) in topology::bindings(wanted, opened(&handles))? {
            let Some(bindings) = topology::with_those_before(&bindings, kept.get(&name)) else {
                continue;
            };
            let handle = topology::named(&handles, &name)?;
            handle.source.prepare(&bindings).await.map_err(|e| e.on("prepare").at(&name))?;
        }
        Ok(blueprint)
    }

    /// Tells what works on its own of the policies that it goes by from now on.
    pub(super) fn take_over(&self, policies: &Policies, before: &Policies) {
        for serving in policies.servings.values() {
            let policies = policies.of(&serving.policies);
            let now = self.0.runtime.now();
            serving.policies.adaptive.declared(policies.adaptive.is_some(), now);
            let cache = policies.cache.as_ref();
            if let Some((feed, declared)) = serving.cache.as_ref().zip(cache) {
                feed.reloaded(declared);
            }
            if let Some(behind) = &serving.behind {
                behind.reloaded();
            }
        }
        self.sweep(policies.deliveries.iter().filter(|d| !goes_on(d, before)));
    }
}

pub(super) fn opened(
    handles: &Handles,
) -> impl Iterator<Item = (&Arc<str>, &Arc<dyn Source>)> + Clone {
    handles.iter().map(|(name, handle)| (name, &handle.source))
}

/// Opens the sources that were not declared before: all of them or none.
async fn open_added(
    before: &Policies,
    wanted: &Declaration,
    open: OpenSource<'_>,
) -> Result<Handles> {
    let mut added = BTreeMap::new();
    for (name, declared) in &wanted.sources {
        if before.sources.contains_key(name) {
            continue;
        }
        match open(Arc::clone(name), declared.clone()).await {
            Ok(source) => {
                let handle = SourceHandle::new(source, wanted.is_far(name));
                added.insert(Arc::clone(name), Arc::new(handle));
            }
            Err(error) => {
                close_all(&added).await;
                return Err(error.at(name));
            }
        }
    }
    Ok(added)
}

/// Closes what was opened on the way to a failure; the failure itself is what is reported.
async fn close_all(added: &Handles) {
    for handle in added.values() {
        let _ = handle.source.close().await;
    }
}

/// Whether a delivery is among those of some policies.
fn goes_on(delivery: &Arc<Delivery>, policies: &Policies) -> bool {
    policies.deliveries.iter().any(|d| Arc::ptr_eq(d, delivery))
}

/// Ends the deliveries that are not wanted any more, and closes the sources of nothing, when calls that began before have
/// ended.
pub(super) fn retire(before: Arc<Policies>, policies: &Policies, runtime: &Runtime) {
    let ends = before.deliveries.iter().filter(|d| !goes_on(d, policies));
    let ends: Vec<_> = ends.cloned().collect();
    for delivery in &ends {
        delivery.close();
        let (entity, source) = (delivery.target().name(), &delivery.target().source);
        if !policies.deliveries.iter().any(|d| d.is_to(delivery.target())) {
            observe::forget_delivery(entity, source);
        }
    }
    let unused = before.sources.iter().filter(|(name, _)| !policies.sources.contains_key(*name));
    let unused: Vec<_> = unused.map(|(_, handle)| Arc::clone(handle)).collect();
    if unused.is_empty() {
        return;
    }
    let watch = runtime.clone();
    runtime.spawn(async move {
        let stopped = async {
            for delivery in &ends {
                delivery.wait_stopped().await;
            }
            while Arc::strong_count(&before) > 1 {
                watch.sleep(LOOK_EVERY).await;
            }
            Ok(())
        };
        // A call that takes longer finds the source closed, and goes on to another one.
        let _ = watch.within(CALLS_MAX, stopped).await;
        for handle in unused {
            if let Err(error) = handle.source.close().await {
                tracing::warn!(%error, source = %handle.source.name(), "a removed source could not be closed");
            }
        }
    });
}
