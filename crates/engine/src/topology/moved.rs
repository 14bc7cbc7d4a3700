//! Where the truth of an entity is: what the truths themselves remember of it, so that no process takes another for it.
//!
//! A truth that an entity is moved away from is told so ([`Fence`]), and refuses its writes from then on, whoever sends
//! them. One change of that text, from "is being moved" to "was moved", is the moment in which the other one becomes the
//! truth; before it everything can be undone, after it everything can be completed. The other truth remembers where the
//! entity came from ([`Kept`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;
use unisono_core::source::{Checkpoint, Source, Truth};
use unisono_core::write::{Committed, Unit};
use unisono_core::{Entity, Error, ErrorKind, Position, Result, Timestamp, Uuid};
use unisono_policy::declaration::{Declaration, EntityDeclaration};

use crate::log::Log;
use crate::notice::Notices;
use crate::open;
use crate::runtime::Runtime;
use crate::topology::{Handles, versions};

/// The engine's own space of what a truth keeps.
const SPACE: &str = "truths";

/// Said to a truth of an entity whose writes it is to refuse.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fence {
    /// The source that is the truth, or is to be.
    pub(crate) to: Arc<str>,
    /// Later moves have greater numbers.
    pub(crate) epoch: u64,
    /// Whether that has taken place.
    pub(crate) moved: bool,
}

impl Fence {
    pub(crate) fn text(&self) -> Result<String> {
        serde_json::to_string(self)
            .map_err(|e| Error::internal("a fence cannot be encoded").caused_by(e))
    }

    fn parse(entity: &str, text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|e| {
            Error::new(ErrorKind::Corrupt, "a fence cannot be decoded").of(entity).caused_by(e)
        })
    }
}

/// What a truth remembers of an entity that is kept there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// That of the move which brought it there; 0 if none did.
    pub(crate) epoch: u64,
    /// Where it was before.
    pub(crate) origin: Option<Origin>,
}

/// The truth that an entity was moved away from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    pub(crate) truth: Arc<str>,
    /// The identity of its log.
    pub(crate) log: Uuid,
    /// No change of the entity stands behind this in its log.
    pub(crate) end: Position,
    /// All changes of the entity since stand behind this in the present log.
    pub(crate) begin: Position,
    /// When it was moved.
    pub(crate) time: Timestamp,
    /// Whether the old truth follows the present one.
    pub(crate) follows: bool,
}

impl Origin {
    /// Whether a follower has everything from before the move, by the checkpoint that it has; or because it was the truth,
    /// unless it has followed the present one since.
    pub(crate) fn is_in(&self, was_truth: bool, stored: Option<&Checkpoint>) -> bool {
        let came_so_far =
            |c: &Checkpoint| c.log == self.log && c.position >= self.end && c.backfill.is_none();
        (was_truth && !self.follows) || stored.is_some_and(came_so_far)
    }
}

/// What a truth remembers of an entity.
pub(crate) async fn kept(truth: &dyn Truth, entity: &str) -> Result<Option<Kept>> {
    Ok(all_kept(truth).await?.remove(entity))
}

async fn all_kept(truth: &dyn Truth) -> Result<BTreeMap<String, Kept>> {
    let decode = |(name, json): (String, String)| {
        let kept = serde_json::from_str(&json).map_err(|e| {
            Error::new(ErrorKind::Corrupt, "where an entity came from cannot be decoded")
                .of(&name)
                .caused_by(e)
        })?;
        Ok((name, kept))
    };
    truth.list_state(SPACE).await?.into_iter().map(decode).collect()
}

/// Remembers it.
pub(crate) async fn keep(truth: &dyn Truth, entity: &str, kept: &Kept) -> Result<()> {
    let json = serde_json::to_string(kept)
        .map_err(|e| Error::internal("where an entity came from cannot be encoded").caused_by(e))?;
    truth.put_state(SPACE, entity, Some(json)).await
}

/// What is said of an entity whose writes a truth refuses.
pub(crate) async fn fence(truth: &dyn Truth, entity: &str) -> Result<Option<Fence>> {
    let said = truth.fences().await?.remove(entity);
    said.map(|text| Fence::parse(entity, &text)).transpose()
}

/// Says of an entity something else than before; answers the head, or `None` if others said something meanwhile.
pub(crate) async fn say(
    truth: &dyn Truth,
    entity: &str,
    from: Option<&Fence>,
    to: Option<&Fence>,
) -> Result<Option<Position>> {
    let text = |fence: Option<&Fence>| fence.map(Fence::text).transpose();
    let (from, to) = (text(from)?, text(to)?);
    match truth.fence(entity, from.as_deref(), to.as_deref()).await? {
        Some(head) => Ok(Some(head)),
        // It may have been said by this very call, whose first answer was lost.
        None if truth.fences().await?.remove(entity) == to => Ok(Some(truth.bounds().await?.head)),
        None => Ok(None),
    }
}

/// Everything that one source remembers.
struct Known {
    truth: Arc<dyn Truth>,
    fences: BTreeMap<String, Fence>,
    kept: BTreeMap<String, Kept>,
}

impl Known {
    async fn of(source: &Arc<dyn Source>) -> Result<Option<Self>> {
        let Some(truth) = Arc::clone(source).truth() else { return Ok(None) };
        let said = truth.fences().await?.into_iter();
        let of_entities = said.filter(|(name, _)| versions::is_of_entity(name));
        let fences = of_entities.map(|(entity, text)| {
            let fence = Fence::parse(&entity, &text)?;
            Ok((entity, fence))
        });
        let fences = fences.collect::<Result<_>>()?;
        let kept = all_kept(truth.as_ref()).await?;
        Ok(Some(Known { truth, fences, kept }))
    }
}

/// How strictly it is looked where truths are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Before sources are prepared: what cannot be read counts as not there.
    Glance,
    /// Afterwards; what was begun and not carried out is undone.
    Settle,
}

/// A declaration with each truth where it is, which is not where it is declared if a move has not been carried out or the
/// declaration was not changed with it.
///
/// Fails with `invalid_config` if the truth of an entity is a source that the declaration does not have it follow.
pub(crate) async fn as_it_is(
    wanted: &Declaration,
    sources: &BTreeMap<Arc<str>, Arc<dyn Source>>,
    look: Look,
) -> Result<Declaration> {
    let mut known = BTreeMap::new();
    for (name, source) in sources {
        let truths = wanted.entities.values().any(|e| e.truth == *name);
        let follows = |e: &EntityDeclaration| e.followers.iter().any(|f| f.source == *name);
        if !truths && !wanted.entities.values().any(follows) {
            continue;
        }
        match Known::of(source).await {
            Ok(of_source) => drop(of_source.map(|of| known.insert(Arc::clone(name), of))),
            Err(error) if truths && look == Look::Settle => return Err(error.at(name)),
            Err(error) => {
                tracing::debug!(%error, source = %name, "it is not known what was moved from there")
            }
        }
    }
    let mut present = wanted.clone();
    // What is worked out has the truth of what it is worked out from.
    for (name, declared) in wanted.entities.iter().filter(|(_, e)| e.projection.is_none()) {
        let truth = truth_of(declared, &known);
        if truth != declared.truth {
            present = present.with_truth(name, &truth).ok_or_else(|| {
                Error::new(ErrorKind::InvalidConfig, "the truth of the entity is another source")
                    .of(name)
                    .with("truth", &truth)
                    .with("declared", &declared.truth)
                    .hint("name it as the truth, or as a follower, from which the truth is then moved")
            })?;
        }
        if look == Look::Settle {
            settle(name, known.get(&truth)).await?;
        }
    }
    Ok(present)
}

/// Where the truth of an entity is, as far as sources remember.
fn truth_of(declared: &EntityDeclaration, known: &BTreeMap<Arc<str>, Known>) -> Arc<str> {
    let entity = declared.entity.name().as_ref();
    let followers = declared.followers.iter().map(|f| &f.source);
    let all = || std::iter::once(&declared.truth).chain(followers.clone());
    let fences = all().filter_map(|name| known.get(name)?.fences.get(entity));
    if let Some(last) = fences.filter(|fence| fence.moved).max_by_key(|fence| fence.epoch) {
        return Arc::clone(&last.to);
    }
    let keeps = |name: &&Arc<str>| known.get(*name).is_some_and(|k| k.kept.contains_key(entity));
    Arc::clone(all().find(keeps).unwrap_or(&declared.truth))
}

/// Has the truth of an entity take its writes, and remember that it is its truth.
async fn settle(entity: &Arc<str>, known: Option<&Known>) -> Result<()> {
    let Some(Known { truth, fences, kept }) = known else { return Ok(()) };
    if let Some(fence) = fences.get(entity.as_ref()) {
        tracing::warn!(%entity, to = %fence.to, "moving the truth was not carried out; writes go on where it is");
        say(truth.as_ref(), entity, Some(fence), None).await?;
    }
    if !kept.contains_key(entity.as_ref())
        && let Err(error) = keep(truth.as_ref(), entity, &Kept::default()).await
    {
        // Only somebody who declares another truth by hand would miss it.
        tracing::debug!(%error, %entity, "the truth does not remember that it is one");
    }
    Ok(())
}

/// The log that an entity was in before, whose truth remembers the outcomes of writes with an idempotency key.
pub(crate) struct Earlier {
    truth: Arc<str>,
    until: Timestamp,
    handles: Handles,
    notices: Arc<Notices>,
    log: OnceCell<Arc<Log>>,
}

impl Earlier {
    /// That of an entity, while it remembers anything; what it remembers it forgets after `outcomes`.
    pub(crate) async fn of(
        log: &Log,
        entity: &Entity,
        handles: &Handles,
        outcomes: std::time::Duration,
    ) -> Result<Option<Self>> {
        let origin = kept(log.truth.as_ref(), entity.name()).await?.and_then(|kept| kept.origin);
        let Some(origin) = origin.filter(|o| handles.contains_key(&o.truth)) else {
            return Ok(None);
        };
        Ok(Some(Earlier {
            until: origin.time.plus(outcomes),
            truth: origin.truth,
            handles: handles.clone(),
            notices: Arc::clone(&log.notices),
            log: OnceCell::new(),
        }))
    }

    /// What became of a unit there, if it was committed there under its idempotency key; and that log.
    pub(crate) async fn outcome(
        &self,
        unit: &Unit,
        runtime: &Runtime,
    ) -> Result<Option<(Arc<Log>, Committed)>> {
        if unit.idempotency.is_none() || runtime.now() > self.until {
            return Ok(None);
        }
        let begin = || open::log(&self.truth, &self.handles, &self.notices, runtime);
        let log = self.log.get_or_try_init(begin).await?;
        // From now on the key is taken there, which keeps a late repetition from taking place there.
        let empty = Unit { writes: Vec::new(), ..unit.clone() };
        let committed = log.committer.commit(empty).await?;
        let is_earlier = committed.replayed && !committed.changes.is_empty();
        Ok(is_earlier.then(|| (Arc::clone(log), committed)))
    }
}
