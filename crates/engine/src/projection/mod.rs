//! [`Projector`]: the follower that a delivery feeds to keep a projection. Its store is derived: three ordinary entities of
//! the target, so that no kind of source knows of projections.
//!
//! * *Parts*: for each record what it contributes now, by its version. Their checkpoint is that of the projection.
//! * *Groups*: for each row everything that its contributions have come to.
//! * *Rows*: what is read. They follow from the groups.
//!
//! Groups and rows are absolute values as of a position of the log, which is their version. A change at or below the
//! version of a group is in it already. A batch writes groups, then rows, then parts with the checkpoint, each only if
//! the checkpoint there is the one that was seen: so what was cut off between two of them, repeated in other batches, or
//! done by two processes at once comes to the same rows (`fold.rs`). Where the order of positions does not hold, in
//! a copy of the truth, only parts are written; at its end everything else is worked out from them (`build.rs`).

mod audit;
mod build;
mod fold;
mod news;
mod shown;
mod store;
pub(crate) mod watch;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use unisono_core::entity::SYSTEM;
use unisono_core::kind::Options;
use unisono_core::source::{
    Advance, Applied, Auditor, Batch, Binding, Checkpoint, Follower, Outcome, Reader,
};
use unisono_core::{
    Capability, Change, Entity, Error, ErrorKind, Key, Operation, Position, Result, Role,
};
use unisono_policy::declaration::EntityDeclaration;
use unisono_policy::projection::{BESIDE, Contribution, Projection, is_beside};

use crate::runtime::Runtime;

pub(crate) use news::{News, Told};
pub(crate) use shown::Shown;
pub use watch::RowsChanged;

/// What a record contributes to which rows.
type Part = Vec<(Key, Contribution)>;

/// Keeps a projection in one target.
pub struct Projector {
    projection: Arc<Projection>,
    target: Roles,
    /// The most changes in one write.
    changes_max: usize,
    runtime: Runtime,
    /// Groups without contributions, with their versions: forgotten when the checkpoint has passed them.
    empty: Mutex<BTreeMap<Key, Position>>,
    news: Arc<News>,
}

/// The roles of the target that a projector needs.
pub struct Roles {
    /// Its name.
    pub source: Arc<str>,
    /// Keeps rows, groups and parts.
    pub follower: Arc<dyn Follower>,
    /// Reads groups and parts by key.
    pub reader: Arc<dyn Reader>,
    /// Reads all of them.
    pub auditor: Arc<dyn Auditor>,
}

/// A change, and what the record contributes after it.
struct Taken {
    change: Arc<Change>,
    part: Part,
}

impl Projector {
    /// Keeps a projection in a target whose rows, groups and parts are prepared.
    pub fn new(
        projection: &Arc<Projection>,
        target: Roles,
        capability: &Capability,
        runtime: &Runtime,
    ) -> Projector {
        Projector {
            projection: Arc::clone(projection),
            target,
            changes_max: capability.apply.batch_changes_max.max(1),
            runtime: runtime.clone(),
            empty: Mutex::default(),
            news: Arc::default(),
        }
    }

    /// What becomes of the rows.
    pub(crate) fn news(&self) -> Arc<News> {
        Arc::clone(&self.news)
    }

    /// How a projection wants to be fed: with every change, one batch after the other.
    pub(crate) fn fed(capability: &Capability) -> Capability {
        let mut capability = capability.clone();
        capability.apply.history = true;
        capability.apply.lanes = 1;
        capability.apply.copy_lanes = 1;
        capability
    }

    /// What the records contribute after the changes, or the outcomes if that cannot be told of one.
    fn take(&self, changes: &[Arc<Change>]) -> std::result::Result<Vec<Taken>, Vec<Outcome>> {
        let part = |change: &Arc<Change>| match &change.image {
            Some(record) => self.projection.contributions(record),
            None => Ok(Vec::new()),
        };
        let parts: Vec<Result<Part>> = changes.iter().map(part).collect();
        if parts.iter().all(Result::is_ok) {
            let taken = changes.iter().cloned().zip(parts.into_iter().flatten());
            return Ok(taken.map(|(change, part)| Taken { change, part }).collect());
        }
        // What is not refused comes again without what is.
        let outcome = |part: Result<Part>| part.err().map_or(Outcome::Stale, Outcome::Rejected);
        Err(parts.into_iter().map(outcome).collect())
    }

    /// Looks whether the projection has what it is told to take in again. What it lacks it is told of a second time only
    /// because it was refused, or because somebody else wrote: then all is made anew.
    async fn look_again(&self, taken: Vec<Taken>) -> Result<Applied> {
        let keys: Vec<Key> = taken.iter().map(|t| t.change.key.clone()).collect();
        let known = self.parts(&keys).await?;
        let saved = self.target.follower.checkpoint(&self.projection.parts).await?;
        let saved = saved.ok_or_else(|| self.moved("parts"))?;
        if saved.backfill.is_some() {
            let changes = self.newest_parts(&taken);
            self.write_as_they_are(&self.projection.parts, changes).await?;
            return Ok(Applied { outcomes: stale(&taken), advanced: false });
        }
        for Taken { change, part } in &taken {
            let version = known.get(&change.key).map(|(version, _)| *version);
            let is_there = match (known.get(&change.key), change.operation) {
                (None, Operation::Delete) => true,
                (Some((version, held)), _) if *version == change.position => held == part,
                _ => version.is_some_and(|version| version > change.position),
            };
            // What is beyond the checkpoint comes in the stream.
            if !is_there && change.position <= saved.position {
                return Err(self.anew("it lacks what a record contributes").await);
            }
        }
        Ok(Applied { outcomes: stale(&taken), advanced: false })
    }

    /// Has the projection made anew at the next session: without the checkpoint of the groups it has none.
    async fn anew(&self, why: &'static str) -> Error {
        let (projection, source) = (self.projection.name(), &self.target.source);
        tracing::warn!(%projection, %source, why, "the projection is made anew from the truth");
        if let Err(error) = self.target.follower.reset(&self.projection.groups).await {
            return error;
        }
        self.moved(why)
    }

    fn moved(&self, why: &'static str) -> Error {
        Error::new(ErrorKind::CheckpointMoved, "the projection is not where it was left")
            .at(&self.target.source)
            .of(self.projection.name())
            .with("because", why)
    }
}

#[async_trait]
impl Follower for Projector {
    async fn apply(&self, batch: Batch) -> Result<Applied> {
        let taken = match self.take(&batch.changes) {
            Ok(taken) => taken,
            Err(outcomes) => return Ok(Applied { outcomes, advanced: false }),
        };
        let outcomes = match batch.advance {
            None => return self.look_again(taken).await,
            Some(Advance { from: Some(from), to }) if is_complete(&from) && is_complete(&to) => {
                self.fold(taken, from, to).await?
            }
            Some(Advance { from, to }) => self.build(taken, from, to).await?,
        };
        Ok(Applied { outcomes, advanced: true })
    }

    /// That of the parts, if groups and rows are at least there as well.
    async fn checkpoint(&self, _: &Arc<Entity>) -> Result<Option<Checkpoint>> {
        let Projection { parts, groups, rows, .. } = &*self.projection;
        let follower = &self.target.follower;
        let Some(saved) = follower.checkpoint(parts).await? else { return Ok(None) };
        if !is_complete(&saved) {
            return Ok(Some(saved));
        }
        for derived in [groups, rows] {
            let at = follower.checkpoint(derived).await?;
            if !at.as_ref().is_some_and(|at| covers(at, &saved)) {
                let (projection, source) = (self.projection.name(), &self.target.source);
                tracing::warn!(%projection, %source, entity = %derived.name(), ?at, %saved.position,
                    "what was worked out is older than what it was worked out from, or gone");
                return Ok(None);
            }
        }
        self.news.found(saved.position);
        Ok(Some(saved))
    }

    /// Forgets what it was worked out from. Rows stay until others take their place.
    async fn reset(&self, _: &Arc<Entity>) -> Result<()> {
        self.target.follower.reset(&self.projection.parts).await?;
        self.target.follower.reset(&self.projection.groups).await
    }
}

/// Removes everything that a target keeps of a version.
pub(crate) async fn empty(projection: &Projection, follower: &dyn Follower) -> Result<()> {
    let Projection { parts, groups, rows, .. } = projection;
    for entity in [parts, groups, rows] {
        follower.reset(entity).await?;
    }
    Ok(())
}

/// What the targets of a projection keep beside the rows that are declared; `capability` tells of a source what it can.
pub(crate) fn bindings<'a>(
    declared: &'a EntityDeclaration,
    capability: &'a dyn Fn(&Arc<str>) -> Option<&'a Capability>,
) -> impl Iterator<Item = (Arc<str>, Binding)> + 'a {
    let own = declared.projection.iter().cloned();
    let beside = declared.projection.iter().filter(|p| p.versions.uses_both_places());
    let beside = beside.map(|p| Arc::new(p.at(BESIDE_VERSION)));
    let targets = move |projection: Arc<Projection>| {
        declared.followers.iter().flat_map(move |follower| {
            let hidden = [&projection.groups, &projection.parts];
            let hidden = hidden.map(|kept| binding(kept, place(kept), Options::default()));
            let rows = is_beside(projection.version).then(|| {
                let place = follower.place.as_ref();
                let place = place.map(|place| format!("{place}{BESIDE}").into());
                let place = place.unwrap_or_else(|| Arc::clone(projection.rows.name()));
                let mut options = follower.options.clone();
                for name in capability(&follower.source).map_or(&[][..], |c| c.naming) {
                    options.0.remove(*name);
                }
                binding(&projection.rows, place, options)
            });
            let source = Arc::clone(&follower.source);
            rows.into_iter().chain(hidden).map(move |kept| (Arc::clone(&source), kept))
        })
    };
    own.chain(beside).flat_map(targets)
}

/// Any version that is kept beside the declared place.
const BESIDE_VERSION: u64 = 2;

fn binding(entity: &Arc<Entity>, place: Arc<str>, options: Options) -> Binding {
    Binding { entity: Arc::clone(entity), role: Role::Follower, place, options }
}

/// Where an entity beside the rows is kept: sources have names of their own that begin as those of the engine do.
fn place(entity: &Entity) -> Arc<str> {
    entity.name().trim_start_matches(SYSTEM).into()
}

/// Whether no copy is under way.
fn is_complete(checkpoint: &Checkpoint) -> bool {
    checkpoint.backfill.is_none()
}

/// Whether what has one checkpoint has everything up to another.
fn covers(at: &Checkpoint, other: &Checkpoint) -> bool {
    is_complete(at) && at.log == other.log && at.position >= other.position
}

fn stale(taken: &[Taken]) -> Vec<Outcome> {
    taken.iter().map(|_| Outcome::Stale).collect()
}

/// The last of the changes of each record.
fn newest(taken: &[Taken]) -> HashMap<&Key, &Taken> {
    taken.iter().map(|taken| (&taken.change.key, taken)).collect()
}
