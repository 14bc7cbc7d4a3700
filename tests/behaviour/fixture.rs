//! [`Fixture`]: a fresh source of one kind in a folder of its own, and what cases do with it again and again.

use std::path::Path;
use std::sync::Arc;

use unisono_core::clock::Clock;
use unisono_core::entity::SYSTEM;
use unisono_core::journal::Journal;
use unisono_core::kind::{Environment, Options};
use unisono_core::source::{
    Advance, Applied, Auditor, Batch, Binding, Cache, Checkpoint, Follower, Outcome, Reader,
    Source, Truth,
};
use unisono_core::write::{Action, Committed, Condition, Unit, Write};
use unisono_core::{
    Capability, Change, Entity, Error, ErrorKind, Key, Position, Record, Result, Role, Stored,
    Timestamp,
};
use unisono_testkit::{Changes, ManualClock};

use crate::kinds::Tested;
use crate::{engines, options};

/// Why a case ended early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The kind does not play the role, or declares that it cannot do this.
    NotApplicable(String),
    /// A promise is broken.
    Failed(String),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Failed(format!("unexpected error: {error:?}"))
    }
}

/// What a case answers.
pub(crate) type Verdict = Result<(), Stop>;

/// Fails the case unless the condition holds.
macro_rules! check {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::fixture::Stop::Failed(format!("{} (line {} of {})", format!($($message)+), line!(), file!())));
        }
    };
}

/// Fails the case unless both are equal.
macro_rules! check_eq {
    ($left:expr, $right:expr, $($message:tt)+) => {
        match (&$left, &$right) {
            (left, right) => check!(left == right, "{}\n      left: {left:?}\n     right: {right:?}", format!($($message)+)),
        }
    };
}

pub(crate) use {check, check_eq};

/// The error of a call that must fail with a kind.
pub(crate) fn must_fail<T>(result: Result<T>, kind: ErrorKind, what: &str) -> Result<Error, Stop> {
    match result {
        Ok(_) => {
            Err(Stop::Failed(format!("{what}: succeeded, but must fail with {}", kind.code())))
        }
        Err(error) if error.kind() == kind => Ok(error),
        Err(error) => {
            Err(Stop::Failed(format!("{what}: must fail with {}, but: {error:?}", kind.code())))
        }
    }
}

/// A folder, or a namespace in a server, with the data of one source of one kind.
pub(crate) struct Fixture {
    /// The kind under test.
    pub(crate) kind: Arc<Tested>,
    /// The time that the source sees.
    pub(crate) clock: Arc<ManualClock>,
    folder: tempfile::TempDir,
    options: Options,
}

impl Fixture {
    /// An empty folder or namespace for a source of this kind.
    pub(crate) fn new(kind: &Arc<Tested>) -> Result<Self, Stop> {
        let folder =
            tempfile::tempdir().map_err(|e| Stop::Failed(format!("no temporary folder: {e}")))?;
        let options = match kind.engine {
            None => options::embedded(kind.options()),
            Some(engine) => options::server(engine, kind.options()).map_err(Stop::Failed)?,
        };
        let clock = Arc::new(ManualClock::new());
        Ok(Fixture { kind: Arc::clone(kind), clock, folder, options })
    }

    /// What the kind declares.
    pub(crate) fn capability(&self) -> Capability {
        self.kind.capability()
    }

    /// Ends the case as not applicable unless the kind plays a role.
    pub(crate) fn needs(&self, role: Role) -> Verdict {
        self.needs_that(self.capability().roles.contains(&role), role.as_str())
    }

    /// Ends the case as not applicable unless something holds.
    pub(crate) fn needs_that(&self, holds: bool, what: &str) -> Verdict {
        if holds { Ok(()) } else { Err(Stop::NotApplicable(format!("needs {what}"))) }
    }

    /// The roles in which the kind holds records.
    pub(crate) fn holding_roles(&self) -> Vec<Role> {
        let roles = self.capability().roles;
        [Role::Truth, Role::Follower].into_iter().filter(|r| roles.contains(r)).collect()
    }

    /// The folder of an embedded source's data.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Deletes the data from outside, as an operator would by mistake.
    pub(crate) async fn delete_data(&self) -> Verdict {
        if let Some(engine) = self.kind.engine {
            let wiped = engines::wipe(engine, &self.options).await;
            return wiped.map_err(|e| Stop::Failed(format!("cannot delete the data: {e}")));
        }
        let failed = |e: std::io::Error| Stop::Failed(format!("cannot delete the data: {e}"));
        for entry in std::fs::read_dir(self.folder()).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }
                .map_err(failed)?;
        }
        Ok(())
    }

    /// Opens the source without preparing it.
    pub(crate) async fn open_bare(&self) -> Result<Opened> {
        let environment =
            Environment { data: self.folder().to_owned(), clock: Arc::clone(&self.clock) as _ };
        let problems = self.kind.check(&self.options);
        if let Some((name, message)) = problems.first() {
            return Err(Error::invalid(message.clone()).with("option", name));
        }
        let source = self.kind.open("tested", &self.options, &environment).await?;
        self.kind.opened(Arc::downgrade(&source), &self.options);
        Ok(Opened { source, entity_options: self.kind.entity_options })
    }

    /// Opens the source and prepares entities in a role.
    pub(crate) async fn open(&self, role: Role, entities: &[&Arc<Entity>]) -> Result<Opened> {
        let opened = self.open_bare().await?;
        opened.prepare(role, entities).await?;
        Ok(opened)
    }

    /// Closes a durable source and opens it again over the same data; leaves any other as it is.
    pub(crate) async fn reopen(
        &self,
        opened: Opened,
        role: Role,
        entities: &[&Arc<Entity>],
    ) -> Result<Opened> {
        if !self.capability().durable {
            return Ok(opened);
        }
        opened.source.close().await?;
        drop(opened);
        self.open(role, entities).await
    }

    /// Opens the source with records in it, put by a truth's commits or a follower's batches.
    pub(crate) async fn holding(
        &self,
        role: Role,
        entity: &Arc<Entity>,
        records: &[Record],
    ) -> Result<Opened, Stop> {
        let opened = self.open(role, &[entity]).await?;
        match role {
            Role::Truth => {
                for some in records.chunks(50) {
                    let units = some.iter().map(|r| put(entity, r)).collect::<Result<Vec<_>>>()?;
                    for result in opened.truth()?.commit(units).await? {
                        result?;
                    }
                }
            }
            _ => {
                let mut feed = Feed::new(entity);
                let changes: Vec<_> =
                    records.iter().map(|r| feed.changes.put(entity, r.clone())).collect();
                for some in changes.chunks(50) {
                    feed.apply(&opened, some).await?;
                }
            }
        }
        Ok(opened)
    }

    /// Now, by the clock of the fixture.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// An open source, with its roles.
pub(crate) struct Opened {
    /// The source itself.
    pub(crate) source: Arc<dyn Source>,
    entity_options: fn(Role, &Entity) -> Options,
}

impl Opened {
    /// Prepares entities in a role, each at a place of its own name; sources reserve the names of the engine's own.
    pub(crate) async fn prepare(
        &self,
        role: Role,
        entities: &[&Arc<Entity>],
    ) -> Result<Vec<String>> {
        let bind = |e: &&Arc<Entity>| Binding {
            entity: Arc::clone(e),
            role,
            place: e.name().trim_start_matches(SYSTEM).into(),
            options: (self.entity_options)(role, e),
        };
        let bindings: Vec<_> = entities.iter().map(bind).collect();
        self.source.prepare(&bindings).await
    }

    fn role<T: ?Sized>(&self, role: Option<Arc<T>>, name: &'static str) -> Result<Arc<T>> {
        unisono_core::source::require(role, self.source.name(), name)
    }

    /// The source as a reader.
    pub(crate) fn reader(&self) -> Result<Arc<dyn Reader>> {
        self.role(Arc::clone(&self.source).reader(), "reader")
    }

    /// The source as a truth.
    pub(crate) fn truth(&self) -> Result<Arc<dyn Truth>> {
        self.role(Arc::clone(&self.source).truth(), "truth")
    }

    /// The source as a follower.
    pub(crate) fn follower(&self) -> Result<Arc<dyn Follower>> {
        self.role(Arc::clone(&self.source).follower(), "follower")
    }

    /// The source as a cache.
    pub(crate) fn cache(&self) -> Result<Arc<dyn Cache>> {
        self.role(Arc::clone(&self.source).cache(), "cache")
    }

    /// The source as a journal.
    pub(crate) fn journal(&self) -> Result<Arc<dyn Journal>> {
        self.role(Arc::clone(&self.source).journal(), "journal")
    }

    /// The source as an auditor; not every kind is one.
    pub(crate) fn auditor(&self) -> Result<Arc<dyn Auditor>, Stop> {
        Arc::clone(&self.source)
            .auditor()
            .ok_or_else(|| Stop::NotApplicable("needs auditor".into()))
    }

    /// One record by its key.
    pub(crate) async fn get(&self, entity: &Arc<Entity>, key: &Key) -> Result<Option<Stored>> {
        let found = self.reader()?.get(entity, std::slice::from_ref(key)).await?;
        Ok(found.value.into_iter().next().flatten())
    }

    /// Every record, page by page in the order of the keys, through the reader or the auditor.
    pub(crate) async fn everything(&self, entity: &Arc<Entity>) -> Result<Vec<Stored>, Stop> {
        let auditor = self.auditor()?;
        let mut all: Vec<Stored> = Vec::new();
        loop {
            let page = auditor.scan(entity, all.last().map(|s| &s.key), 7).await?.value;
            check!(page.records.len() <= 7, "a page of a scan has more records than asked for");
            check!(
                page.end || !page.records.is_empty(),
                "a page of a scan is empty but not the end"
            );
            all.extend(page.records);
            if page.end {
                return Ok(all);
            }
        }
    }

    /// Commits units of which every one must succeed.
    pub(crate) async fn commit(&self, units: Vec<Unit>) -> Result<Vec<Committed>, Stop> {
        let results = self.truth()?.commit(units).await?;
        Ok(results.into_iter().collect::<Result<Vec<_>>>()?)
    }

    /// Commits one write.
    pub(crate) async fn write(&self, write: Write) -> Result<Arc<Change>> {
        let mut results = self.truth()?.commit(vec![unit(vec![write])]).await?;
        let committed = results.pop().ok_or_else(|| Error::internal("commit gave no answer"))??;
        committed.changes.into_iter().next().ok_or_else(|| Error::internal("commit gave no change"))
    }
}

/// A unit without idempotency.
pub(crate) fn unit(writes: Vec<Write>) -> Unit {
    Unit { writes, idempotency: None, time: Timestamp::EPOCH, actor: None, trace: None }
}

/// A write without a condition.
pub(crate) fn write(entity: &Arc<Entity>, key: &Key, action: Action) -> Write {
    Write { entity: Arc::clone(entity), key: key.clone(), action, condition: Condition::None }
}

/// A write with a condition.
pub(crate) fn write_if(
    entity: &Arc<Entity>,
    key: &Key,
    action: Action,
    condition: Condition,
) -> Write {
    Write { condition, ..write(entity, key, action) }
}

/// A unit that puts one record.
pub(crate) fn put(entity: &Arc<Entity>, record: &Record) -> Result<Unit> {
    Ok(unit(vec![write(entity, &entity.key_of(record)?, Action::Put(record.clone()))]))
}

/// Feeds a follower one entity from a log.
pub(crate) struct Feed {
    /// The log.
    pub(crate) changes: Changes,
    /// The entity.
    pub(crate) entity: Arc<Entity>,
    /// Where the follower's checkpoint is.
    pub(crate) checkpoint: Option<Checkpoint>,
}

impl Feed {
    /// An empty log, and a follower without a checkpoint.
    pub(crate) fn new(entity: &Arc<Entity>) -> Self {
        Feed { changes: Changes::new(), entity: Arc::clone(entity), checkpoint: None }
    }

    /// A checkpoint of this log.
    pub(crate) fn at(&self, position: Position) -> Checkpoint {
        Checkpoint { log: self.changes.log, position, backfill: None }
    }

    /// A batch that leaves the checkpoint where it is.
    pub(crate) fn batch(&self, changes: &[Arc<Change>]) -> Batch {
        Batch {
            entity: Arc::clone(&self.entity),
            changes: changes.to_vec(),
            copied: false,
            advance: None,
        }
    }

    /// A batch that moves the checkpoint to a position.
    pub(crate) fn advancing(&self, changes: &[Arc<Change>], to: Position) -> Batch {
        let advance = Advance { from: self.checkpoint.clone(), to: self.at(to) };
        Batch { advance: Some(advance), ..self.batch(changes) }
    }

    /// Applies changes and moves the checkpoint to the head of the log; all must be taken in.
    pub(crate) async fn apply(&mut self, opened: &Opened, changes: &[Arc<Change>]) -> Verdict {
        let head = self.changes.head();
        let to = changes.last().map_or(head, |c| c.position);
        let applied = opened.follower()?.apply(self.advancing(changes, to)).await?;
        check!(
            applied.outcomes.iter().all(|o| matches!(o, Outcome::Applied)),
            "{:?}",
            applied.outcomes
        );
        check!(applied.advanced, "the checkpoint did not move");
        self.checkpoint = Some(self.at(to));
        Ok(())
    }
}

/// The outcomes of a batch as words.
pub(crate) fn outcomes(applied: &Applied) -> Vec<&'static str> {
    let word = |o: &Outcome| match o {
        Outcome::Applied => "applied",
        Outcome::Stale => "stale",
        Outcome::Rejected(_) => "rejected",
        Outcome::Retry(_) => "retry",
    };
    applied.outcomes.iter().map(word).collect()
}
