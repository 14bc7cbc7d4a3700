//! Restoring: an empty truth is filled from a backup and the archived log, up to the end or to any moment since.
//!
//! The truth's log begins in the next generation, so that no version is given twice, and every write goes through the
//! committer as any other: followers are emptied and filled from the new log by themselves.

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use unisono_core::json::{self, change};
use unisono_core::query::Filter;
use unisono_core::write::{Action, Condition, Unit, Write};
use unisono_core::{
    Change, Entity, Error, ErrorKind, Operation, Position, Result, Timestamp, Uuid,
};

use super::Archive;
use super::backup::Backup;
use super::segment::Segment;
use crate::audit;

/// Where the truth keeps how far its restore has come.
const SPACE: &str = "restore";
/// Changes read from the truth's own log at once.
const STEP: usize = 1024;
const ACTOR: &str = "unisono restore";

/// The moment to which a truth is restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestoreTo {
    /// The end of the archive.
    #[default]
    End,
    /// Before the first change that was made after this time.
    Time(Timestamp),
    /// After the change at this position.
    Position(Position),
}

/// What was restored.
#[derive(Clone, Debug, Serialize)]
pub struct Restored {
    /// The truth.
    pub truth: String,
    /// The backup that it was restored from.
    pub backup: String,
    /// How many records were taken from the backup.
    pub records: u64,
    /// How many archived changes were made again after that.
    pub changes: u64,
    /// The archived position whose state the truth has now.
    pub through: Position,
    /// When the change there was made; absent if none had to be made again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
    /// The log of changes that are later than everything that this backup is whole with: it began later, or the truth of an
    /// entity was moved there since. They take a backup of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beyond: Option<Uuid>,
}

/// How far a restore has come; kept in the truth, so that one that was interrupted goes on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Step {
    backup: String,
    to: RestoreTo,
    /// How many parts of the backup are there, over all entities.
    parts: usize,
    /// Every archived change up to here has been made again.
    replayed: Position,
    /// Where the truth's own log was then.
    head: Position,
}

/// What is to be made again of a segment.
struct Wanted {
    changes: Vec<Change>,
    /// Whether nothing later is.
    reached: bool,
    /// Because the truth of an entity was moved to this log there.
    moved: bool,
}

impl Archive {
    /// Fills the truth, which must be empty or hold an interrupted restore of the same backup to the same moment.
    pub(crate) async fn restore(
        &self,
        to: RestoreTo,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Restored> {
        let backup = self.choose(to).await?;
        for name in backup.entities.keys() {
            self.entity(name)?;
            if !self.entities.load().iter().any(|entity| **entity.name() == **name) {
                return Err(Error::new(ErrorKind::InvalidConfig, "the backup holds an entity whose truth is elsewhere now")
                    .at(&self.log.name.truth)
                    .of(name)
                    .with("backup", &backup.name)
                    .hint("restore with the configuration from before its truth was moved, and move it again afterwards"));
            }
        }
        let (mut step, resumed) = self.begin(&backup, to).await?;
        let mut restored = Restored {
            truth: backup.truth.clone(),
            backup: backup.name.clone(),
            records: 0,
            changes: 0,
            through: backup.end.max(step.replayed),
            time: None,
            beyond: None,
        };
        let mut tell = |restored: &Restored| progress(restored.records + restored.changes);
        let parts =
            backup.entities.iter().flat_map(|(name, of)| of.parts.iter().map(move |p| (name, p)));
        for (n, (name, part)) in parts.enumerate() {
            if n < step.parts {
                continue;
            }
            let entity = self.entity(name)?;
            let content = self.part(&backup, part).await?;
            restored.records += self.put_all(entity, &content, backup.time).await?;
            step.parts = n + 1;
            self.keep(Some(&step)).await?;
            tell(&restored);
        }
        if step.head == Position::ZERO {
            step.head = self.log.truth.bounds().await?.head;
            self.keep(Some(&step)).await?;
        }
        let made = match resumed {
            true => self.made(step.head).await?,
            false => Vec::new(),
        };
        self.replay((&backup, made), to, &mut step, &mut restored, &mut tell).await?;
        self.keep(None).await?;
        tracing::info!(truth = restored.truth, backup = restored.backup, through = %restored.through, "restored");
        Ok(restored)
    }

    /// The newest backup that is whole at the wanted moment.
    async fn choose(&self, to: RestoreTo) -> Result<Backup> {
        let mut backups = self.backups().await?;
        let count = backups.len();
        backups.retain(|backup| match to {
            RestoreTo::End => true,
            RestoreTo::Time(time) => backup.time <= time,
            RestoreTo::Position(position) => backup.end <= position,
        });
        backups.pop().ok_or_else(|| {
            let error = Error::new(ErrorKind::NotFound, "there is no backup to restore that from")
                .at(&self.source)
                .with("truth", &self.log.name.truth)
                .with("backups", count);
            match count {
                0 => error.hint(
                    "`[archive]` makes backups while the server runs, and `unisono backup` at once",
                ),
                _ => error.hint(
                    "choose a later moment: `unisono backup --list` tells when each was made",
                ),
            }
        })
    }

    /// Makes sure that there is nothing to be overwritten, and has the log begin above the archived one.
    /// Answers where to go on, and whether an earlier restore had begun.
    async fn begin(&self, backup: &Backup, to: RestoreTo) -> Result<(Step, bool)> {
        let truth = &self.log.truth;
        let kept = truth.list_state(SPACE).await?.pop();
        let kept: Option<Step> = kept.and_then(|(_, text)| serde_json::from_str(&text).ok());
        if let Some(step) = kept.filter(|step| step.backup == backup.name && step.to == to) {
            return Ok((step, true));
        }
        for entity in self.entities.load_full().iter() {
            let count = self.log.reader.count(entity, &Filter::All, None).await?.value;
            if count > 0 {
                return Err(Error::invalid(
                    "the truth is not empty, so that it cannot be restored",
                )
                .at(&self.log.name.truth)
                .of(entity.name())
                .with("records", count)
                .hint("name an empty database, or empty this one if nothing in it is needed"));
            }
        }
        let archived = self.newest().await?.map_or(backup.end, |newest| newest.header.through);
        truth.begin_above(archived.max(backup.end)).await?;
        let step = Step {
            backup: backup.name.clone(),
            to,
            parts: 0,
            replayed: backup.begin,
            head: Position::ZERO,
        };
        self.keep(Some(&step)).await?;
        Ok((step, false))
    }

    /// What is in the truth's own log after a position.
    async fn made(&self, after: Position) -> Result<Vec<Arc<Change>>> {
        let (mut made, mut after) = (Vec::new(), after);
        loop {
            let some = self.log.truth.read_log(after, STEP, usize::MAX).await?;
            let Some(last) = some.last() else { return Ok(made) };
            after = last.position;
            made.extend(some);
        }
    }

    async fn keep(&self, step: Option<&Step>) -> Result<()> {
        let text = step.map(|step| serde_json::to_string(step).unwrap_or_default());
        self.log.truth.put_state(SPACE, "step", text).await
    }

    /// Writes the records of one part.
    async fn put_all(&self, entity: &Arc<Entity>, content: &[u8], time: Timestamp) -> Result<u64> {
        let lines = content.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let units = lines.map(|line| {
            let record = json::parse_slice(entity, line)?;
            let key = entity.key_of(&record)?;
            let (action, condition) = (Action::Put(record), Condition::None);
            let writes = vec![Write { entity: Arc::clone(entity), key, action, condition }];
            Ok(Unit { writes, idempotency: None, time, actor: Some(ACTOR.into()), trace: None })
        });
        let units = units.collect::<Result<Vec<_>>>()?;
        let count = units.len() as u64;
        for outcome in self.log.committer.commit_each(units).await {
            outcome?;
        }
        Ok(count)
    }

    /// Makes the archived changes of the backup's log again, in order, up to the wanted moment.
    async fn replay(
        &self,
        (backup, mut made): (&Backup, Vec<Arc<Change>>),
        to: RestoreTo,
        step: &mut Step,
        restored: &mut Restored,
        tell: &mut (dyn FnMut(&Restored) + Send),
    ) -> Result<()> {
        let mut before: Option<Segment> = None;
        for name in self.segments_after(step.replayed).await? {
            let segment = self.segment(&name).await?;
            let header = &segment.header;
            if header.log != backup.log {
                // What this restore writes is archived already.
                if header.after >= backup.end && header.log != self.log.id {
                    restored.beyond = Some(header.log);
                }
                continue;
            }
            let follows = before.as_ref().is_none_or(|b| header.previous.as_ref() == Some(&b.hash));
            if header.after > step.replayed || !follows {
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    "archived changes are missing or were changed",
                )
                .at(&self.source)
                .with("segment", name)
                .with("after", step.replayed)
                .hint("restore up to the position before them with --position"));
            }
            let Wanted { changes, reached, moved } = self.wanted(&segment, step.replayed, to)?;
            if moved {
                restored.beyond = Some(header.log);
            }
            if let Some((through, time)) = changes.last().map(|last| (last.position, last.time)) {
                restored.time = Some(time);
                restored.through = restored.through.max(through);
                restored.changes += changes.len() as u64;
                // An interrupted restore may have made a part of the first of these already.
                let changes = left(changes, std::mem::take(&mut made), backup.end);
                self.redo(changes, backup.end).await?;
                step.replayed = through;
                step.head = self.log.truth.bounds().await?.head;
                self.keep(Some(step)).await?;
                tell(restored);
            }
            if reached {
                break;
            }
            before = Some(segment);
        }
        match to {
            RestoreTo::Position(position) if restored.through < position => {
                Err(Error::new(ErrorKind::NotFound, "the archive does not reach to this position")
                    .at(&self.source)
                    .with("position", position)
                    .with("archived", restored.through))
            }
            _ => Ok(()),
        }
    }

    /// What is to be made again of a segment.
    fn wanted(&self, segment: &Segment, after: Position, to: RestoreTo) -> Result<Wanted> {
        let mut changes = Vec::new();
        for line in segment.lines() {
            let line: Json = line?;
            let name = line["entity"].as_str().unwrap_or_default();
            let change = change::parse(self.entity(name)?, &line)?;
            let beyond = match to {
                RestoreTo::End => false,
                RestoreTo::Time(time) => change.time > time,
                RestoreTo::Position(position) => change.position > position,
            };
            // What the entity had become elsewhere is in no change from here on, and not in this backup.
            let moved = change.position > after && audit::is_promotion(&change);
            if beyond || moved {
                return Ok(Wanted { changes, reached: true, moved: moved && !beyond });
            }
            if change.position > after {
                changes.push(change);
            }
        }
        Ok(Wanted { changes, reached: false, moved: false })
    }

    /// Makes changes again, by whom and when they were made first.
    async fn redo(&self, changes: Vec<Change>, whole: Position) -> Result<()> {
        let units = changes.iter().map(|change| self.unit(change)).collect::<Result<Vec<_>>>()?;
        let outcomes = self.log.committer.commit_each(units).await;
        for (change, outcome) in changes.iter().zip(outcomes) {
            let Err(error) = outcome else { continue };
            if !(error.kind() == ErrorKind::NotFound && may_be_gone(change, whole)) {
                return Err(error.with("position", change.position).on("restore"));
            }
        }
        Ok(())
    }

    fn unit(&self, change: &Change) -> Result<Unit> {
        let action = match (change.operation, &change.image) {
            (Operation::Put, Some(image)) => Action::Put(image.as_ref().clone()),
            _ => Action::Delete,
        };
        let entity = Arc::clone(self.entity(&change.entity)?);
        let (key, condition) = (change.key.clone(), Condition::None);
        Ok(Unit {
            writes: vec![Write { entity, key, action, condition }],
            idempotency: None,
            time: change.time,
            actor: change.actor.clone(),
            trace: change.trace.clone(),
        })
    }

    fn entity(&self, name: &str) -> Result<&Arc<Entity>> {
        self.by_name.get(name).ok_or_else(|| {
            Error::new(ErrorKind::InvalidConfig, "the archive holds an entity that is not declared")
                .at(&self.log.name.truth)
                .with("entity", name)
                .hint("restore with the configuration that the archive was made with")
        })
    }
}

/// Whether the record that a change deletes may not be there: it was deleted before its page of the backup was read.
fn may_be_gone(change: &Change, whole: Position) -> bool {
    change.operation == Operation::Delete && change.position <= whole
}

/// The changes that have not been made again yet, of some that are made in order. What stands before one that was made
/// was made too, or had nothing to delete, or failed, and is left to fail again.
fn left(changes: Vec<Change>, made: Vec<Arc<Change>>, whole: Position) -> Vec<Change> {
    let identity = |c: &Change| (Arc::clone(&c.entity), c.key.clone(), c.time, c.operation);
    let all: HashSet<_> = changes.iter().map(identity).collect();
    let (mut left, mut rest) = (Vec::new(), changes.into_iter());
    // Others may have written as well.
    for made in made.iter().filter(|made| all.contains(&identity(made))) {
        let is_made = |c: &Change| identity(c) == identity(made) && c.image == made.image;
        let before = rest.by_ref().take_while(|change| !is_made(change));
        left.extend(before.filter(|change| !may_be_gone(change, whole)));
    }
    left.extend(rest);
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(position: u64, key: &str, operation: Operation) -> Change {
        Change {
            position: Position::new(position).unwrap(),
            entity: "item".into(),
            key: unisono_core::Key::from_text(key).unwrap(),
            operation,
            replaced: None,
            image: None,
            time: Timestamp::from_micros_clamped(i64::try_from(position).unwrap()),
            actor: None,
            trace: None,
        }
    }

    #[test]
    fn what_failed_before_others_were_made_is_made_again() {
        use Operation::{Delete, Put};
        let archived = [
            change(4, "gone before its page was read", Delete),
            change(5, "refused", Put),
            change(6, "made", Put),
            change(7, "deleted when the backup was whole", Delete),
            change(8, "made", Delete),
            change(9, "not come to", Put),
        ];
        let made = |n: usize| Arc::new(Change { position: Position::MAX, ..archived[n].clone() });
        let of_others = Arc::new(change(6, "of others", Put));
        let whole = archived[2].position;
        let left = left(archived.to_vec(), vec![made(2), of_others, made(4)], whole);
        let positions: Vec<_> = left.iter().map(|change| change.position.as_u64()).collect();
        assert_eq!(positions, [5, 7, 9]);
    }
}
