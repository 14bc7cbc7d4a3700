//! The copy of the truth: only parts, in the order of keys and with changes from the stream between. At its end groups and
//! rows are worked out from all parts at once.
//!
//! A part may then be newer than the position of the copy. It is in its groups as it is; the changes up to it, which
//! the stream has still to bring, find the part newer than themselves and change nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use unisono_core::auditor::walk;
use unisono_core::source::{Checkpoint, Outcome};
use unisono_core::{Change, ErrorKind, Key, Result};
use unisono_policy::projection::Group;

use super::store::{Written, state_of};
use super::{Projector, Taken, is_complete};

/// How long whoever was hindered waits at most before the next attempt.
const HINDERED: Duration = Duration::from_millis(250);

impl Projector {
    /// Takes in records of a copy, or changes beside it.
    pub(super) async fn build(
        &self,
        taken: Vec<Taken>,
        from: Option<Checkpoint>,
        to: Checkpoint,
    ) -> Result<Vec<Outcome>> {
        let entity = &self.projection.parts;
        let written = Written { entity, changes: self.newest_parts(&taken), again: true };
        let applied = taken.iter().map(|_| Outcome::Applied).collect();
        if !is_complete(&to) {
            self.write(written, from, to).await?;
            return Ok(applied);
        }
        let stays = from.clone().ok_or_else(|| self.moved("parts without a checkpoint"))?;
        self.write(written, Some(stays.clone()), stays.clone()).await?;
        let worked_out = self.work_out(stays, to).await;
        if worked_out.as_ref().is_err_and(|error| error.kind() == ErrorKind::CheckpointMoved) {
            // Another process does the same: one of the two is to be first the next time.
            self.runtime.sleep(HINDERED.mul_f64(self.runtime.random())).await;
        }
        worked_out.map(|()| applied)
    }

    /// Works out groups and rows from all parts, whose checkpoint moves only if nobody else did that meanwhile.
    ///
    /// Both are complete only if nobody touched them since, and only when the parts are: of two processes that do this
    /// at the same time one at most comes to its end, and never with the rows of one and the groups of the other. What
    /// another one writes of the parts until their checkpoint moves is seen by a second look.
    async fn work_out(&self, from: Checkpoint, to: Checkpoint) -> Result<()> {
        let mine = Checkpoint { backfill: Some(self.runtime.uuid().to_string()), ..to.clone() };
        let groups = self.all_groups().await?;
        self.write_groups(&groups, &mine).await?;
        self.write_rows(&groups, &mine).await?;
        let nothing = |entity| Written { entity, changes: Vec::new(), again: false };
        self.write(nothing(&self.projection.parts), Some(from), to.clone()).await?;
        if self.all_groups().await? != groups {
            return Err(self.moved("parts have changed while they were added up"));
        }
        for entity in [&self.projection.groups, &self.projection.rows] {
            self.write(nothing(entity), Some(mine.clone()), to.clone()).await?;
        }
        self.news.anew(to.position);
        Ok(())
    }

    /// What all parts come to.
    async fn all_groups(&self) -> Result<BTreeMap<Key, Group>> {
        let shape = &self.projection.shape;
        let mut groups: BTreeMap<Key, Group> = BTreeMap::new();
        let mut failed = None;
        let add = |stored: unisono_core::Stored| {
            let part = state_of(&stored.record).ok_or_else(|| self.unreadable(&stored.key));
            let added = part.and_then(|part| self.projection.parse(&part)).and_then(|part| {
                for (n, (key, c)) in part.iter().enumerate() {
                    let group = groups.entry(key.clone()).or_insert_with(|| Group::empty(shape));
                    let added = group.add(shape, c, stored.version, n);
                    added.map_err(|e| e.of(self.projection.name()).with("row", key))?;
                }
                Ok(())
            });
            if let Err(error) = added {
                failed.get_or_insert(error);
            }
        };
        walk(self.target.auditor.as_ref(), &self.projection.parts, add).await?;
        match failed {
            Some(error) => Err(error.at(&self.target.source)),
            None => Ok(groups),
        }
    }

    async fn write_groups(&self, groups: &BTreeMap<Key, Group>, mine: &Checkpoint) -> Result<()> {
        let entity = &self.projection.groups;
        self.target.follower.reset(entity).await?;
        let changes = groups
            .iter()
            .map(|(key, group)| self.group_change(key, mine.position, group))
            .collect();
        self.write_all(entity, changes, None, mine).await
    }

    /// Puts rows in the place of those that are there, so that none is missing meanwhile.
    async fn write_rows(&self, groups: &BTreeMap<Key, Group>, mine: &Checkpoint) -> Result<()> {
        let entity = &self.projection.rows;
        let mut before = self.target.follower.checkpoint(entity).await?;
        // Versions of another log, or of one that has lost its end, would be taken for newer ones.
        if before.as_ref().is_none_or(|b| b.log != mine.log || b.position > mine.position) {
            self.target.follower.reset(entity).await?;
            before = None;
        }
        let rows = groups.iter().map(|(key, group)| self.row_change(key, mine.position, group));
        let mut changes = rows.collect::<Result<Vec<_>>>()?;
        let mut is_ahead = false;
        let orphans = |stored: unisono_core::Stored| {
            is_ahead |= stored.version > mine.position;
            if !groups.contains_key(&stored.key) {
                changes.push(self.change(entity, &stored.key, mine.position, None));
            }
        };
        walk(self.target.auditor.as_ref(), entity, orphans).await?;
        if is_ahead {
            self.target.follower.reset(entity).await?;
            before = None;
        }
        self.write_all(entity, changes, before, mine).await
    }

    /// Writes behind a checkpoint that nobody else has, so that two processes that do the same do not mix.
    async fn write_all(
        &self,
        entity: &Arc<unisono_core::Entity>,
        changes: Vec<Arc<Change>>,
        before: Option<Checkpoint>,
        mine: &Checkpoint,
    ) -> Result<()> {
        let nothing = Written { entity, changes: Vec::new(), again: false };
        self.write(nothing, before, mine.clone()).await?;
        let written = Written { entity, changes, again: true };
        self.write(written, Some(mine.clone()), mine.clone()).await
    }
}
