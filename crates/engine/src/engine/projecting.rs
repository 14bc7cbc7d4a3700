//! [`Engine`]: the versions of projections. One is made beside the one that answers, compared, and takes its place.
//!
//! ```text
//! rebuild    a version is made in the other place, by deliveries of its own         discard
//! caught up  it lags no more, and its rows equal a fold of the truth                discard
//! swap       the truth says that it answers: one compare-and-set                    back
//! discard    its deliveries have ended everywhere, and its stores are emptied       rebuild
//! ```
//!
//! The right side says how each step is taken back. Every process looks once a second which versions there are, and goes
//! by that: a process that ended in the middle is made up for by any other, or by the next to start. Both versions go on
//! following until one is discarded, so a read finds everything that its token names whichever of them its process
//! takes for the one that answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use unisono_core::query::Filter;
use unisono_core::source::require;
use unisono_core::{Entity, Error, ErrorKind, Result};
use unisono_policy::projection::{Beside, BesideState, Projection, Versions};

use crate::delivery::Delivery;
use crate::engine::Engine;
use crate::engine::moving::LOOK_MAX;
use crate::projection;
use crate::status::DeliveryStatus;
use crate::topology::{self, Handles, versions};
use crate::verify::report::Depth;

/// Projections of which this process makes a version answer, or empties one.
pub(super) type Rebuilding = Mutex<BTreeSet<Arc<str>>>;

/// How long after the last step a version is emptied: every process has looked, and its deliveries have ended.
const GRACE: Duration = Duration::from_secs(3);
/// How long it is waited after a failure, or after a comparison that found differences.
const RETRY: Duration = Duration::from_secs(10);
/// The most that a version may lag which is to answer.
const LAG_MAX: f64 = 5.0;
/// How often a change of the versions is tried while others change them.
const ATTEMPTS_MAX: usize = 5;

/// A projection, and how its versions are doing.
#[derive(Clone, Debug, Serialize)]
pub struct ProjectionStatus {
    /// Its name.
    pub name: Arc<str>,
    /// What it is worked out from.
    pub from: Arc<str>,
    /// The version that answers.
    pub version: u64,
    /// The version in the other place, if there is one.
    pub beside: Option<Beside>,
    /// The version that was made by another definition than is declared, and stands still until one takes its place.
    pub still: Option<u64>,
    /// What is worked out, in CEL or in the words of the code.
    pub definition: Arc<str>,
    /// How each version is doing in each target, the one that answers first.
    pub targets: Vec<ProjectedTarget>,
}

/// A version of a projection in one of its targets.
#[derive(Clone, Debug, Serialize)]
pub struct ProjectedTarget {
    /// Which version.
    pub version: u64,
    /// Whether it answers.
    pub live: bool,
    /// How many rows there are; `None` if that cannot be told now.
    pub rows: Option<u64>,
    /// How it is fed; the entity is named after the place of the version.
    #[serde(flatten)]
    pub delivery: DeliveryStatus,
}

impl Engine {
    /// All projections, and how their versions are doing.
    pub async fn projections(&self) -> Vec<ProjectionStatus> {
        let declaration = self.declaration();
        let mut found = Vec::new();
        for projection in declaration.entities.values().filter_map(|e| e.projection.as_ref()) {
            found.push(self.status_of(projection).await);
        }
        found
    }

    /// One projection; `not_found` if there is none of this name.
    pub async fn projection(&self, name: &str) -> Result<ProjectionStatus> {
        let projection = self.projected(name)?;
        Ok(self.status_of(&projection).await)
    }

    /// Makes a further version of a projection from the truth, beside the one that answers and goes on following. When it
    /// has caught up and its rows equal a fold of the truth it takes the place of the other, which stays and follows, for
    /// [`Engine::projection_back`]. Answers at once; what was begun is carried on by whichever process runs.
    pub async fn rebuild_projection(&self, name: &str) -> Result<ProjectionStatus> {
        self.change_versions(name, "rebuild_projection", Versions::rebuilt).await
    }

    /// Has the version answer again that did before the last swap; it was kept following. `not_found` if there is none.
    pub async fn projection_back(&self, name: &str) -> Result<ProjectionStatus> {
        self.change_versions(name, "projection_back", Versions::back).await
    }

    /// Discards the version that does not answer: one that is being made, or the former one. If that is in the declared
    /// place, the version that answers is made there first, so that other programs find its rows under the declared names.
    pub async fn discard_projection(&self, name: &str) -> Result<ProjectionStatus> {
        self.change_versions(name, "discard_projection", Versions::discarded).await
    }

    async fn change_versions(
        &self,
        name: &str,
        action: &'static str,
        change: fn(&Versions) -> Result<Versions>,
    ) -> Result<ProjectionStatus> {
        self.projected(name)?;
        let log = Arc::clone(&self.serving(name)?.log);
        for _ in 0..ATTEMPTS_MAX {
            let before = versions::kept(log.truth.as_ref(), name).await?;
            let after = change(&before).map_err(|e| e.of(name))?;
            if after == before || versions::change(&*log.truth, name, &before, &after).await? {
                if after != before {
                    self.audit(action, (Some(name), None), json!({ "versions": after }));
                }
                let _reloading = self.0.reloading.lock().await;
                self.take_in_versions().await?;
                return self.projection(name).await;
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "others change the versions at the same time")
            .of(name)
            .hint("try again"))
    }

    /// Goes by the versions that there are, and carries on what is to be done about them.
    pub(super) async fn look_at_versions(&self) -> Result<()> {
        // Who changes something at present is not to be met half-way.
        if let Ok(_reloading) = self.0.reloading.try_lock() {
            self.take_in_versions().await?;
        }
        for declared in self.declaration().entities.values() {
            let Some(projection) = &declared.projection else { continue };
            let is_waiting = |b: &Beside| b.state != BesideState::Former;
            if projection.versions.beside.filter(is_waiting).is_some() {
                self.carry_on(projection);
            }
        }
        Ok(())
    }

    /// With the lock on reloading held.
    async fn take_in_versions(&self) -> Result<()> {
        let before = self.0.present.load_full();
        let mut wanted = before.declaration.as_ref().clone();
        let mut known = BTreeMap::new();
        for log in before.logs.values() {
            known.extend(self.0.runtime.within(LOOK_MAX, versions::all(log.truth.as_ref())).await?);
        }
        let mut is_news = false;
        for (name, declared) in &mut wanted.entities {
            let Some(projection) = &mut declared.projection else { continue };
            let kept = known.remove(name.as_ref()).unwrap_or_default();
            if kept != projection.versions {
                tracing::info!(projection = %name, live = kept.live, beside = ?kept.beside, "versions");
                *projection = Arc::new(projection.with_versions(kept));
                is_news = true;
            }
        }
        match is_news {
            true => self.replace(before, wanted, &Handles::new()).await,
            false => Ok(()),
        }
    }

    /// Has a task do what is to be done about the version beside the one that answers, unless one does.
    fn carry_on(&self, projection: &Arc<Projection>) {
        let name = Arc::clone(projection.name());
        if !self.rebuilding().insert(Arc::clone(&name)) {
            return;
        }
        let (engine, runtime) = (Arc::downgrade(&self.0), self.0.runtime.clone());
        let projection = Arc::clone(projection);
        self.0.runtime.spawn(async move {
            let Some(inner) = engine.upgrade() else { return };
            let engine = Engine(inner, None);
            let done = engine.do_next(&projection).await;
            let weak = Arc::downgrade(&engine.0);
            drop(engine);
            if let Err(error) = done {
                tracing::warn!(%error, projection = %name, "a version of the projection is not ready yet");
                runtime.sleep(RETRY).await;
            }
            if let Some(inner) = weak.upgrade() {
                Engine(inner, None).rebuilding().remove(&name);
            }
        });
    }

    fn rebuilding(&self) -> std::sync::MutexGuard<'_, BTreeSet<Arc<str>>> {
        self.0.rebuilding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn do_next(&self, projection: &Projection) -> Result<()> {
        let after = match projection.versions.beside {
            Some(Beside { version, state: BesideState::Discarded }) => {
                self.0.runtime.sleep(GRACE).await;
                self.empty(projection, version).await?;
                projection.versions.emptied()
            }
            Some(Beside { version, .. }) if self.can_answer(projection, version).await? => {
                projection.versions.swapped()
            }
            _ => None,
        };
        let Some(after) = after else { return Ok(()) };
        let log = Arc::clone(&self.serving(projection.name())?.log);
        let (truth, name) = (log.truth.as_ref(), projection.name());
        if versions::change(truth, name, &projection.versions, &after).await? {
            let action =
                if after.beside.is_some() { "projection_swap" } else { "projection_empty" };
            self.audit(action, (Some(name), None), json!({ "versions": after }));
        }
        let _reloading = self.0.reloading.lock().await;
        self.take_in_versions().await
    }

    /// Whether a version has caught up in all targets; `diverged` if its rows are not those of the truth.
    async fn can_answer(&self, projection: &Projection, version: u64) -> Result<bool> {
        let deliveries = self.of_version(projection, version);
        let caught_up = |d: &Arc<Delivery>| d.is_complete() && d.lag_seconds() < LAG_MAX;
        if deliveries.is_empty() || !deliveries.iter().all(caught_up) {
            return Ok(false);
        }
        let serving = self.serving(projection.name())?;
        for delivery in &deliveries {
            let Some(of) = &delivery.target().projection else { continue };
            let of = (delivery, of);
            let (found, open) = self.look_at_rows(of, &serving, Depth::Deep, false).await?;
            self.compared(delivery, &found);
            if let Some(error) = found.error {
                return Err(Error::new(ErrorKind::Unavailable, "it could not be compared")
                    .of(&found.entity)
                    .with("reason", error));
            }
            if found.different > 0 {
                delivery.copy_again().await?;
                return Err(Error::new(ErrorKind::Diverged, "its rows are not those of the truth")
                    .of(&found.entity)
                    .at(&found.source)
                    .with("different", found.different)
                    .hint("it is made anew; what answers is not touched"));
            }
            tracing::info!(rows = found.records, unsettled = open, entity = %found.entity, source = %found.source,
                "a version of the projection was compared with a fold of the truth");
        }
        Ok(true)
    }

    /// Removes what the targets keep of a version that nobody feeds any more.
    async fn empty(&self, projection: &Projection, version: u64) -> Result<()> {
        let present = self.0.present.load_full();
        let Some(declared) = present.declaration.entities.get(projection.name()) else {
            return Ok(());
        };
        let discarded = projection.at(version);
        for follower in &declared.followers {
            let handle = topology::named(&present.sources, &follower.source)?;
            handle.refuse_if_paused()?;
            let name = &follower.source;
            let role = require(Arc::clone(&handle.source).follower(), name, "follower")?;
            projection::empty(&discarded, role.as_ref()).await?;
        }
        Ok(())
    }

    /// The deliveries that feed a version.
    pub(super) fn of_version(&self, projection: &Projection, version: u64) -> Vec<Arc<Delivery>> {
        let is_of = |delivery: &&Arc<Delivery>| {
            let of = delivery.target().projection.as_ref();
            of.is_some_and(|of| of.name() == projection.name() && of.version == version)
        };
        self.0.present.load().deliveries.iter().filter(is_of).cloned().collect()
    }

    pub(super) fn projected(&self, name: &str) -> Result<Arc<Projection>> {
        let declaration = self.declaration();
        let found = declaration.entities.get(name).and_then(|e| e.projection.clone());
        found.ok_or_else(|| {
            let all = declaration.entities.values().filter_map(|e| e.projection.as_ref());
            let names = all.map(|projection| projection.name().as_ref());
            let error =
                Error::new(ErrorKind::NotFound, "there is no projection with this name").of(name);
            match unisono_core::spelling::closest(name, names) {
                Some(near) => error.hint(format!("did you mean {near}?")),
                None => error,
            }
        })
    }

    async fn status_of(&self, projection: &Projection) -> ProjectionStatus {
        let mut targets = Vec::new();
        for version in projection.versions.following() {
            for delivery in self.of_version(projection, version) {
                let rows = &projection.at(version).rows;
                targets.push(ProjectedTarget {
                    version,
                    live: version == projection.versions.live,
                    rows: self.count_rows(&delivery, rows).await,
                    delivery: delivery.status(),
                });
            }
        }
        ProjectionStatus {
            name: Arc::clone(projection.name()),
            from: Arc::clone(projection.from.name()),
            version: projection.versions.live,
            beside: projection.versions.beside,
            still: projection.still,
            definition: Arc::clone(&projection.definition),
            targets,
        }
    }

    async fn count_rows(&self, delivery: &Delivery, rows: &Arc<Entity>) -> Option<u64> {
        let handle = &delivery.target().handle;
        handle.refuse_if_paused().ok()?;
        let reader = Arc::clone(&handle.source).reader()?;
        let counted = reader.count(rows, &Filter::All, None);
        self.0.runtime.within(LOOK_MAX, counted).await.ok().map(|counted| counted.value)
    }
}
