//! The stream: changes of records become changes of groups and rows.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{MutexGuard, PoisonError};

use unisono_core::source::{Checkpoint, Outcome};
use unisono_core::{Key, Position, Result, Version};
use unisono_policy::projection::{Anew, Group};

use super::store::Written;
use super::{Part, Projector, Taken, covers};

/// One change of a record that its part does not have yet.
struct Step {
    position: Position,
    old: (Version, Part),
    new: Part,
}

/// Groups that a batch touches, with the positions up to which changes are in them.
type Touched = BTreeMap<Key, (Position, Group, IsNew)>;
/// Whether a group is other than it is kept.
type IsNew = bool;

impl Projector {
    /// Takes in changes in the order of the log: groups, then rows, then parts with the checkpoint.
    pub(super) async fn fold(
        &self,
        taken: Vec<Taken>,
        from: Checkpoint,
        to: Checkpoint,
    ) -> Result<Vec<Outcome>> {
        let (parts, groups, rows) =
            (&self.projection.parts, &self.projection.groups, &self.projection.rows);
        let follower = &self.target.follower;
        let keys: BTreeSet<Key> = taken.iter().map(|t| t.change.key.clone()).collect();
        let known = self.parts(&keys.into_iter().collect::<Vec<_>>()).await?;
        // Parts change with their checkpoint: if that is still there, they were read as of it.
        if follower.checkpoint(parts).await?.as_ref() != Some(&from) {
            return Err(self.moved("another process has taken in changes"));
        }
        let (of_groups, of_rows) =
            futures::try_join!(follower.checkpoint(groups), follower.checkpoint(rows))?;
        let (Some(of_groups), Some(of_rows)) = (of_groups, of_rows) else {
            return Err(self.moved("what was worked out is gone"));
        };
        if !covers(&of_groups, &from) || !covers(&of_rows, &from) {
            return Err(self.moved("what was worked out is older than what it was worked out from"));
        }
        let (steps, outcomes) = steps(&taken, known);
        let touched = self.touched(steps).await?;
        let forgotten = self.forgotten(&touched, from.position).await?;

        let mut changed: Vec<_> = touched
            .iter()
            .filter(|(_, (.., is_new))| *is_new)
            .map(|(key, (version, group, _))| self.group_change(key, *version, group))
            .collect();
        changed.extend(forgotten.iter().map(|key| self.change(groups, key, from.position, None)));
        let changed_rows =
            touched.iter().map(|(key, (at, group, _))| self.row_change(key, *at, group));
        let changed_rows = changed_rows.collect::<Result<Vec<_>>>()?;
        let ahead =
            |at: &Checkpoint| if at.position > to.position { at.clone() } else { to.clone() };

        let written = Written { entity: groups, changes: changed, again: false };
        self.write(written, Some(of_groups.clone()), ahead(&of_groups)).await?;
        let told = changed_rows.clone();
        let written = Written { entity: rows, changes: changed_rows, again: false };
        self.write(written, Some(of_rows.clone()), ahead(&of_rows)).await?;
        let written = Written { entity: parts, changes: self.newest_parts(&taken), again: false };
        let (before, after) = (from.position, to.position);
        self.write(written, Some(from), to).await?;
        self.news.batch(before, after, told);
        self.note_empty(&touched, &forgotten);
        Ok(outcomes)
    }

    /// What the groups come to that the steps are about.
    async fn touched(&self, steps: Vec<Step>) -> Result<Touched> {
        let each = |step: &Step| {
            let keys = step.old.1.iter().chain(&step.new).map(|(key, _)| key.clone());
            keys.collect::<Vec<_>>()
        };
        let keys: BTreeSet<Key> = steps.iter().flat_map(each).collect();
        let keys: Vec<Key> = keys.into_iter().collect();
        let mut kept = self.groups(&keys).await?;
        let shape = &self.projection.shape;
        let mut touched: Touched = keys
            .into_iter()
            .map(|key| {
                let kept = kept.remove(&key);
                let (version, group) =
                    kept.unwrap_or_else(|| (Position::ZERO, Group::empty(shape)));
                (key, (version, group, false))
            })
            .collect();
        for step in steps {
            if self.take_step(&mut touched, &step)?.is_err() {
                return Err(self
                    .anew("what is kept of a group does not tell it without a record")
                    .await);
            }
        }
        Ok(touched)
    }

    /// Takes back what a record contributed, and adds what it contributes now, in the groups that do not have it yet.
    fn take_step(&self, touched: &mut Touched, step: &Step) -> Result<Result<(), Anew>> {
        let shape = &self.projection.shape;
        for (n, (key, c)) in step.old.1.iter().enumerate() {
            if let Some((version, group, _)) = touched.get_mut(key)
                && step.position > *version
                && group.remove(shape, c, step.old.0, n).is_err()
            {
                return Ok(Err(Anew));
            }
        }
        for (n, (key, c)) in step.new.iter().enumerate() {
            if let Some((version, group, _)) = touched.get_mut(key)
                && step.position > *version
            {
                group.add(shape, c, step.position, n).map_err(|e| {
                    e.at(&self.target.source).of(self.projection.name()).with("row", key)
                })?;
            }
        }
        for (key, _) in step.old.1.iter().chain(&step.new) {
            if let Some((version, _, is_new)) = touched.get_mut(key)
                && step.position > *version
            {
                (*version, *is_new) = (step.position, true);
            }
        }
        Ok(Ok(()))
    }

    /// The empty groups that are not needed any more: no batch that is repeated from `checkpoint` on touches what they have.
    /// Another process may have filled one since this one noted it.
    async fn forgotten(&self, touched: &Touched, checkpoint: Position) -> Result<Vec<Key>> {
        let noted: BTreeMap<Key, Position> = {
            let empty = self.empty();
            let is_over =
                |(key, at): &(&Key, &Position)| **at < checkpoint && !touched.contains_key(*key);
            let over = empty.iter().filter(is_over).take(self.changes_max);
            over.map(|(key, at)| (key.clone(), *at)).collect()
        };
        if noted.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<Key> = noted.keys().cloned().collect();
        let kept = self.groups(&keys).await?;
        let is_as_noted = |key: &Key| match (kept.get(key), noted.get(key)) {
            (Some((version, group)), Some(at)) => version == at && group.is_empty(),
            _ => false,
        };
        let (forgotten, filled): (Vec<Key>, Vec<Key>) = keys.into_iter().partition(is_as_noted);
        let mut empty = self.empty();
        for key in &filled {
            empty.remove(key);
        }
        Ok(forgotten)
    }

    fn note_empty(&self, touched: &Touched, forgotten: &[Key]) {
        let mut empty = self.empty();
        for (key, (version, group, _)) in touched {
            match group.is_empty() {
                true => empty.insert(key.clone(), *version),
                false => empty.remove(key),
            };
        }
        for key in forgotten {
            empty.remove(key);
        }
    }

    fn empty(&self) -> MutexGuard<'_, BTreeMap<Key, Position>> {
        self.empty.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The changes that the parts do not have, each with what the record contributed before it; and the outcomes of all.
fn steps(taken: &[Taken], mut known: HashMap<Key, (Version, Part)>) -> (Vec<Step>, Vec<Outcome>) {
    let mut steps = Vec::with_capacity(taken.len());
    let outcomes = taken.iter().map(|Taken { change, part }| {
        let position = change.position;
        if known.get(&change.key).is_some_and(|(version, _)| *version >= position) {
            return Outcome::Stale;
        }
        let old = known.insert(change.key.clone(), (position, part.clone()));
        let old = old.unwrap_or((Position::ZERO, Vec::new()));
        steps.push(Step { position, old, new: part.clone() });
        Outcome::Applied
    });
    let outcomes = outcomes.collect();
    (steps, outcomes)
}
