//! [`Engine`]: the truth of an entity moves to one of its followers, while everything goes on.
//!
//! ```text
//! ready      the follower holds all records, was compared, and keeps up               nothing has happened
//! hold       writes of the entity wait, for BUDGET at most                            they go on where they were
//! fence      the old truth refuses its writes, whoever sends them                     it allows them again
//! drain      the follower takes in the rest, and becomes able to be the truth         as before
//! moved      the old truth says that it was moved: from here on it is                 a move back
//! switch     this process writes there, and the old truth follows                     a move back
//! ```
//!
//! The right side says how each step is taken back. A process that ends before `moved` leaves the truth where it was; one
//! that ends afterwards leaves it where it is. The next one to start finds out which ([`moved`]), and goes on from there.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::OwnedRwLockWriteGuard;
use unisono_core::source::{Binding, Truth, require};
use unisono_core::{Error, ErrorKind, Position, Result};
use unisono_policy::declaration::{Declaration, EntityDeclaration};
use unisono_policy::reload::Step;
use unisono_policy::retry;

use crate::audit::{Entry, PROMOTE};
use crate::delivery::Delivery;
use crate::engine::Engine;
use crate::engine::reload::{opened, retire};
use crate::log::Log;
use crate::open;
use crate::policies::Policies;
use crate::read::handle::SourceHandle;
use crate::read::serving::Serving;
use crate::runtime::Stopwatch;
use crate::topology::moved::{self, Earlier, Fence, Kept, Origin};
use crate::topology::{self, Blueprint, pause, rules};

/// How long writes are held at most.
const BUDGET: Duration = Duration::from_secs(5);
/// How often a truth that came back to be one is asked to take writes again, before somebody is told.
const ATTEMPTS_MAX: u32 = 5;
/// How often it is looked whether another process has moved a truth, or paused a source.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long one look may take.
pub(super) const LOOK_MAX: Duration = Duration::from_secs(2);
/// How often it is tried to move a truth that is not where it is declared: at first, and at last.
const TRY_FIRST: Duration = Duration::from_millis(250);
const TRY_EVERY: Duration = Duration::from_secs(5);

/// What it takes to move one truth.
struct Moving<'a> {
    engine: &'a Engine,
    serving: Arc<Serving>,
    /// The log so far.
    from: Arc<Log>,
    to: Arc<SourceHandle>,
    truth: Arc<dyn Truth>,
    delivery: Arc<Delivery>,
    /// What the new truth is to keep when it is one.
    wanted: Vec<Binding>,
    /// What it keeps as a follower.
    present: Vec<Binding>,
}

/// The entity and its truth from now on, if a reload moves one.
pub(super) fn of(steps: &[Step]) -> Option<(Arc<str>, Arc<str>)> {
    steps.iter().find_map(|step| match step {
        Step::MoveTruth { entity, to, .. } => Some((Arc::clone(entity), Arc::clone(to))),
        _ => None,
    })
}

impl Engine {
    /// Makes a follower of an entity its truth, and the truth a follower; answers what that changed. The way back is the
    /// same with the other source. What is declared elsewhere is not changed: the next start moves it to where that says.
    ///
    /// Fails as [`Engine::reload`] does, with no effect: `invalid_config` if the entity cannot be moved, `unavailable` while
    /// the follower does not keep up, `diverged` if it differs.
    pub async fn promote(&self, entity: &str, source: &Arc<str>) -> Result<Vec<String>> {
        self.entity(entity)?;
        let declaration = self.declaration();
        let Some(wanted) = declaration.with_truth(entity, source) else {
            let declared = declaration.entities.get(entity);
            let from =
                declared.and_then(|declared| Some(declared.projection.as_ref()?.from.name()));
            let (message, hint) = match from {
                Some(from) => (
                    "the records of the entity are worked out, so it has no truth of its own",
                    format!("promote the source for {from}; what is worked out goes with it"),
                ),
                None => (
                    "the source is no follower of the entity that holds all records",
                    "declare it as a follower without `where` first".to_owned(),
                ),
            };
            return Err(Error::invalid(message).at(source).of(entity).hint(hint));
        };
        self.reload(wanted, &|_, _| Box::pin(async { Err(nothing_to_open()) })).await
    }

    /// Moves the truth of an entity to where another declaration has it, which is the same else.
    ///
    /// Fails with `unavailable` or `timeout` and no effect while the follower does not keep up, `diverged` if it differs.
    pub(super) async fn move_truth(
        &self,
        wanted: Declaration,
        (entity, to): (Arc<str>, Arc<str>),
    ) -> Result<()> {
        let before = self.0.present.load_full();
        let moving = Moving::new(self, &before, &wanted, &entity, &to)?;
        let said = moved::fence(moving.from.truth.as_ref(), &entity).await?;
        let held = match said {
            // Another process has moved it; this one comes after.
            Some(fence) if fence.moved && fence.to == to => {
                let held = self.0.runtime.within(BUDGET, moving.hold()).await?;
                moving.to.source.prepare(&moving.wanted).await.map_err(|e| e.on("prepare"))?;
                held
            }
            Some(fence) => return Err(said_otherwise(&entity, &fence)),
            None => moving.carry_out().await?,
        };
        // From here on the entity is there, and everything is done to go on there.
        moving.open_for_writes().await;
        let (from, log) = (Arc::clone(&moving.from), self.log_of_truth(&before, &to).await?);
        log.tail.has_come_to(moving.truth.bounds().await?.head);
        self.switch(wanted, &before, &moving.serving, &log).await?;
        drop(held);
        tracing::info!(%entity, from = %from.name, to = %log.name, "the truth was moved");
        Ok(())
    }

    async fn log_of_truth(&self, before: &Policies, name: &Arc<str>) -> Result<Arc<Log>> {
        match before.logs.get(name) {
            Some(log) => Ok(Arc::clone(log)),
            None => {
                let (notices, runtime) = (&self.0.running.notices, &self.0.runtime);
                open::log(name, &before.sources, notices, runtime).await
            }
        }
    }

    /// Has this process go by a declaration in which the truth of one entity is another one.
    async fn switch(
        &self,
        wanted: Declaration,
        before: &Arc<Policies>,
        serving: &Arc<Serving>,
        log: &Arc<Log>,
    ) -> Result<()> {
        let (runtime, entity) = (&self.0.runtime, &serving.entity);
        let name = &log.name.truth;
        // It refuses what two records swap until it is one; the next start has that made up for.
        let old = &serving.log.name.truth;
        if let Err(error) = self.prepare_as(&wanted, before, old).await {
            tracing::warn!(%error, source = %old, entity = %entity.name(), "the old truth is not prepared to follow");
        }
        let mut servings = before.servings.as_ref().clone();
        let goes =
            |e: &&EntityDeclaration| e.entity.name() == entity.name() || e.is_from(entity.name());
        for declared in wanted.entities.values().filter(goes) {
            let moved = self.served_by(log, declared, before, wanted.log.outcomes).await?;
            servings.insert(Arc::clone(declared.entity.name()), Arc::new(moved));
        }
        let mut logs = before.logs.as_ref().clone();
        let is_another = logs.insert(Arc::clone(name), Arc::clone(log)).is_none();
        let bound = (Arc::new(logs), Arc::new(servings));
        let personal = self.0.running.personal.as_ref();
        let blueprint = Blueprint::new(&wanted, before.sources.clone(), bound, personal)?;
        let archives = &self.0.running.archives;
        if archives.of(log).is_none() {
            archives.begin(log, &wanted, runtime)?;
        }
        archives.moved(&wanted)?;
        let topology = topology::build(blueprint, before, runtime);
        let policies = Arc::new(Policies::new(Arc::new(wanted), topology, Some(before)));
        self.0.present.store(Arc::clone(&policies));
        if is_another {
            open::follow(log, archives.of(log), &self.0.present, runtime);
            if let Some(sampler) = &self.0.running.sampler {
                sampler.follow(log, runtime);
            }
        }
        let is_replaced = |serving: &&Arc<Serving>| {
            let now = policies.servings.get(serving.entity.name());
            !now.is_some_and(|now| Arc::ptr_eq(now, serving))
        };
        let replaced = before.servings.values().filter(is_replaced);
        replaced.filter_map(|serving| serving.cache.as_ref()).for_each(|feed| feed.end());
        self.take_over(&policies, before);
        retire(Arc::clone(before), &policies, runtime);
        Ok(())
    }

    /// An entity as it is served from another log.
    async fn served_by(
        &self,
        log: &Arc<Log>,
        declared: &EntityDeclaration,
        before: &Policies,
        outcomes: Duration,
    ) -> Result<Serving> {
        let (runtime, entity) = (&self.0.runtime, &declared.entity);
        let serving = before.servings.get(entity.name());
        let serving = serving.ok_or_else(|| Error::internal("the entity is not served"))?;
        Ok(Serving {
            entity: Arc::clone(&serving.entity),
            cache: open::feed(declared, &serving.policies, log, &before.sources, runtime).await?,
            earlier: Earlier::of(log, entity, &before.sources, outcomes).await?,
            log: Arc::clone(log),
            flights: Default::default(),
            policies: serving.policies.clone(),
            behind: None,
            hedges: Default::default(),
            gate: Default::default(),
        })
    }

    async fn prepare_as(
        &self,
        wanted: &Declaration,
        before: &Policies,
        name: &Arc<str>,
    ) -> Result<()> {
        let bindings = topology::bindings(wanted, opened(&before.sources))?.remove(name);
        let source = &topology::named(&before.sources, name)?.source;
        source.prepare(&bindings.unwrap_or_default()).await.map(drop)
    }

    /// Looks again and again what other processes on the same truths have done: moved one, paused a source.
    pub(super) fn watch_others(&self) {
        let (engine, runtime) = (Arc::downgrade(&self.0), self.0.runtime.clone());
        self.0.runtime.spawn(async move {
            loop {
                runtime.sleep(LOOK_EVERY).await;
                let Some(inner) = engine.upgrade() else { return };
                let engine = Engine(inner, None);
                if let Err(error) = engine.look_at_others().await {
                    tracing::debug!(%error, "it is not known what other processes have done");
                }
            }
        });
    }

    async fn look_at_others(&self) -> Result<()> {
        let runtime = &self.0.runtime;
        runtime.within(LOOK_MAX, self.take_in_pauses()).await?;
        self.look_at_versions().await?;
        for log in self.logs_now().values() {
            let fences = runtime.within(LOOK_MAX, log.truth.fences()).await?;
            for entity in fences.keys() {
                let Ok(serving) = self.serving(entity) else { continue };
                let fence = moved::fence(log.truth.as_ref(), entity).await?;
                if let Some(fence) = fence.filter(|f| f.moved && Arc::ptr_eq(&serving.log, log)) {
                    self.come_after(entity, &fence).await?;
                }
            }
        }
        Ok(())
    }

    /// Goes by where another process has moved the truth of an entity.
    async fn come_after(&self, entity: &str, fence: &Fence) -> Result<()> {
        let Some(wanted) = self.declaration().with_truth(entity, &fence.to) else {
            tracing::error!(entity, to = %fence.to, "the truth was moved to a source that is not declared here; writes are refused");
            return Ok(());
        };
        tracing::warn!(entity, to = %fence.to, "another process has moved the truth");
        self.reload(wanted, &|_, _| Box::pin(async { Err(nothing_to_open()) })).await.map(drop)
    }

    /// Moves each truth to where it is declared that is not there, when that can be done.
    pub(super) fn move_to_declared(&self, wanted: &Declaration) {
        let begun = self.declaration();
        let elsewhere = |(name, declared): &(&Arc<str>, &EntityDeclaration)| {
            let is_there = begun.entities.get(*name).is_some_and(|e| e.truth == declared.truth);
            !is_there && declared.projection.is_none()
        };
        for (entity, declared) in wanted.entities.iter().filter(elsewhere) {
            let (entity, to) = (Arc::clone(entity), Arc::clone(&declared.truth));
            let (engine, runtime) = (Arc::downgrade(&self.0), self.0.runtime.clone());
            self.0.runtime.spawn(async move {
                let mut pause = TRY_FIRST;
                loop {
                    runtime.sleep(pause).await;
                    pause = (pause * 2).min(TRY_EVERY);
                    let Some(inner) = engine.upgrade() else { return };
                    let engine = Engine(inner, None);
                    // Somebody may have moved it meanwhile, or taken the follower away.
                    let Some(next) = engine.declaration().with_truth(&entity, &to) else { return };
                    let open = engine.reload(next, &|_, _| Box::pin(async { Err(nothing_to_open()) }));
                    match open.await {
                        Ok(_) => return,
                        Err(error) => tracing::warn!(%error, %entity, %to, "the truth is not where it is declared, and cannot be moved there yet"),
                    }
                }
            });
        }
    }
}

fn nothing_to_open() -> Error {
    Error::internal("a source that was there is not")
}

fn said_otherwise(entity: &str, fence: &Fence) -> Error {
    Error::new(ErrorKind::Unavailable, "another process is moving the truth of the entity")
        .of(entity)
        .with("to", &fence.to)
        .hint("wait until it is done; if that process has ended, start one, which undoes it")
}

impl<'a> Moving<'a> {
    fn new(
        engine: &'a Engine,
        before: &Policies,
        wanted: &Declaration,
        entity: &str,
        to: &Arc<str>,
    ) -> Result<Self> {
        let serving = engine.serving(entity)?;
        let delivery = engine.delivery(entity, to)?;
        let handle = Arc::clone(topology::named(&before.sources, to)?);
        let of_to = |declaration: &Declaration| -> Result<Vec<Binding>> {
            let mut all = topology::bindings(declaration, opened(&before.sources))?;
            Ok(all.remove(to).unwrap_or_default())
        };
        Ok(Moving {
            engine,
            from: Arc::clone(&serving.log),
            serving,
            truth: require(Arc::clone(&handle.source).truth(), to, "truth")?,
            to: handle,
            delivery,
            wanted: of_to(wanted)?,
            present: of_to(&before.declaration)?,
        })
    }

    fn entity(&self) -> &Arc<str> {
        self.serving.entity.name()
    }

    fn hold(&self) -> impl Future<Output = Result<OwnedRwLockWriteGuard<()>>> + use<> {
        let gate = Arc::clone(&self.serving.gate);
        async move { Ok(gate.write_owned().await) }
    }

    /// Has the truth moved, or nothing happened; writes of this process are held until the answer is dropped.
    async fn carry_out(&self) -> Result<OwnedRwLockWriteGuard<()>> {
        let runtime = &self.engine.0.runtime;
        self.is_ready()?;
        self.reaches(self.from.tail.head(), BUDGET).await?;
        self.agrees().await?;
        let epoch = self.next_epoch().await?;
        let fence = |moved| Fence { to: Arc::clone(self.to.source.name()), epoch, moved };
        let watch = runtime.stopwatch();
        let held = runtime.within(BUDGET, self.hold()).await?;
        // Before anything is fenced: others go on meanwhile.
        self.reaches(self.from.tail.head(), left(&watch)).await?;
        let truth = self.from.truth.as_ref();
        let Some(end) = moved::say(truth, self.entity(), None, Some(&fence(false))).await? else {
            return Err(said_otherwise(self.entity(), &fence(false)));
        };
        let done = match self.drain(end, epoch, &watch).await {
            Ok(()) => {
                moved::say(truth, self.entity(), Some(&fence(false)), Some(&fence(true))).await
            }
            Err(error) => Err(error),
        };
        match done {
            Ok(Some(_)) => Ok(held),
            Ok(None) => {
                self.follow_again().await;
                Err(said_otherwise(self.entity(), &fence(false)))
            }
            Err(error) => {
                // If this cannot be said either, the next process to start says it.
                let undone = moved::say(truth, self.entity(), Some(&fence(false)), None).await;
                self.follow_again().await;
                Err(match undone {
                    Ok(_) => error,
                    Err(failed) => error.caused_by(failed),
                })
            }
        }
    }

    /// Whether the follower could be the truth.
    fn is_ready(&self) -> Result<()> {
        let name = self.to.source.name();
        let not = |why: &'static str, hint: &'static str| {
            Err(Error::new(ErrorKind::Unavailable, why).at(name).of(self.entity()).hint(hint))
        };
        if self.to.is_paused() {
            return not("a paused source cannot become the truth", "resume it first");
        }
        if !self.delivery.is_complete() {
            return not("the follower is still being copied", "wait until its copy is complete");
        }
        let all = &self.engine.0.present.load_full().deliveries;
        let mine = all.iter().filter(|d| d.target().entity.name() == self.entity());
        if mine.clone().any(|delivery| delivery.target().outlet) {
            return not(
                "how far outlets of the entity have come would stay behind",
                "take them out of the configuration for the time of the move; they begin anew after it",
            );
        }
        if mine.into_iter().any(|delivery| delivery.is_refused(&[]).0) {
            return not(
                "dead letters of the entity wait, which would stay behind",
                "replay or discard them first (unisono dead-letters)",
            );
        }
        Ok(())
    }

    async fn reaches(&self, position: Position, limit: Duration) -> Result<()> {
        let reached = async {
            self.delivery.wait_applied(position).await;
            Ok(())
        };
        let reached = self.engine.0.runtime.within(limit, reached).await;
        reached.map_err(|_| {
            Error::new(ErrorKind::Unavailable, "the follower does not keep up, so the truth stays")
                .at(self.to.source.name())
                .of(self.entity())
                .with("applied", self.delivery.applied())
                .with("wanted", position)
                .hint("nothing was changed; try again when it lags less")
        })
    }

    /// Nobody archives what is left of the old log when nothing has its truth there any more.
    async fn is_archived(&self, end: Position, limit: Duration) -> Result<()> {
        let Some(archive) = self.engine.0.running.archives.of(&self.from) else { return Ok(()) };
        let archived = async {
            archive.archived(end).await;
            Ok(())
        };
        self.engine.0.runtime.within(limit, archived).await.map_err(|_| {
            Error::new(ErrorKind::Unavailable, "the log is not archived up to the move")
                .at(&archive.source)
                .of(self.entity())
                .hint("nothing was changed; see `unisono status` for why it cannot be archived")
        })
    }

    /// Has the follower compared: a record that it lacks would be lost.
    async fn agrees(&self) -> Result<()> {
        let found = self.engine.compare_versions(&self.delivery).await?;
        if let Some(error) = &found.error {
            let message = "the follower could not be compared with the truth";
            return Err(Error::new(ErrorKind::Unavailable, message).with("reason", error));
        }
        match found.different {
            0 => Ok(()),
            different => {
                Err(Error::new(ErrorKind::Diverged, "the follower differs from the truth")
                    .at(self.to.source.name())
                    .of(self.entity())
                    .with("different", different)
                    .hint("nothing was changed; repair it first (unisono repair)"))
            }
        }
    }

    async fn next_epoch(&self) -> Result<u64> {
        let mut last = 0;
        for truth in [self.from.truth.as_ref(), self.truth.as_ref()] {
            let kept = moved::kept(truth, self.entity()).await?;
            let fence = moved::fence(truth, self.entity()).await?;
            last = last.max(kept.map_or(0, |kept| kept.epoch)).max(fence.map_or(0, |f| f.epoch));
        }
        Ok(last + 1)
    }

    /// Has the follower take in everything up to the end of the entity in the old log, and made ready to be the truth.
    async fn drain(&self, end: Position, epoch: u64, watch: &Stopwatch) -> Result<()> {
        let (runtime, entity) = (&self.engine.0.runtime, self.entity());
        self.from.tail.has_come_to(end);
        self.reaches(end, left(watch)).await?;
        self.is_ready()?;
        self.is_archived(end, left(watch)).await?;
        runtime.within(left(watch), self.make_ready(end, epoch)).await.map_err(|e| e.of(entity))
    }

    async fn make_ready(&self, end: Position, epoch: u64) -> Result<()> {
        let (runtime, truth, entity) = (&self.engine.0.runtime, &self.truth, self.entity());
        self.to.source.prepare(&self.wanted).await.map_err(|e| e.on("prepare"))?;
        if let (Some(_), Some(keys)) =
            (self.serving.entity.personal(), &self.engine.0.running.personal)
        {
            keys.belongs_to(truth.as_ref()).await?;
        }
        rules::copy(self.from.truth.as_ref(), truth.as_ref()).await?;
        pause::copy(self.from.truth.as_ref(), truth.as_ref()).await?;
        let to = Arc::clone(self.to.source.name());
        let entry = Entry {
            actor: self.engine.1.clone(),
            action: PROMOTE,
            entity: Some(Arc::clone(entity)),
            source: Some(to),
            details: json!({ "from": self.from.name.truth, "end": end, "epoch": epoch }),
        };
        let unit = entry.unit(runtime)?;
        let begun = truth.commit_above(end, unit).await?;
        entry.tell();
        let begin = begun.changes.last().map(|change| change.position);
        let origin = Origin {
            truth: Arc::clone(&self.from.name.truth),
            log: self.from.id,
            end,
            begin: begin.ok_or_else(|| Error::internal("the log did not go on"))?,
            time: runtime.now(),
            follows: false,
        };
        moved::keep(truth.as_ref(), entity, &Kept { epoch, origin: Some(origin) }).await
    }

    /// After a failure the follower is one as before.
    async fn follow_again(&self) {
        if let Err(error) = self.to.source.prepare(&self.present).await {
            tracing::warn!(%error, source = %self.to.source.name(), "the follower is not prepared as before");
        }
    }

    /// Has the new truth take writes, if it was one before and refuses them since. Nothing but its absence keeps it from
    /// that; then this goes on in its own time.
    async fn open_for_writes(&self) {
        let (truth, entity) = (Arc::clone(&self.truth), Arc::clone(self.entity()));
        let runtime = self.engine.0.runtime.clone();
        for attempt in 1..=ATTEMPTS_MAX {
            match allow(truth.as_ref(), &entity).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(%error, %entity, "the new truth does not take writes yet")
                }
            }
            runtime.sleep(retry::backoff(attempt, runtime.random())).await;
        }
        let on = runtime.clone();
        runtime.spawn(async move {
            while allow(truth.as_ref(), &entity).await.is_err() {
                on.sleep(LOOK_EVERY).await;
            }
        });
    }
}

/// Has a truth take writes of an entity again that was moved away from it before.
async fn allow(truth: &dyn Truth, entity: &str) -> Result<()> {
    let kept = moved::kept(truth, entity).await?.unwrap_or_default();
    match moved::fence(truth, entity).await? {
        Some(fence) if fence.epoch < kept.epoch => {
            moved::say(truth, entity, Some(&fence), None).await.map(drop)
        }
        _ => Ok(()),
    }
}

fn left(watch: &Stopwatch) -> Duration {
    BUDGET.saturating_sub(watch.elapsed())
}
