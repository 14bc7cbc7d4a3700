//! [`Engine`]: the rows of a projection, followed as they change.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::broadcast;
use unisono_core::{Error, ErrorKind, LogName, Position, Result};

use crate::delivery::Delivery;
use crate::engine::{Engine, Inner};
use crate::projection::watch::{ROWS_MAX, Rows, Watch, read, takes_in};
use crate::projection::{RowsChanged, Told};
use crate::runtime::Runtime;

/// The rows that are followed at present.
pub(super) type Watches = Mutex<BTreeMap<Arc<str>, Arc<Watch>>>;

/// How often it is looked whether another version answers, or rows that could not be read can be.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often who waits for the first rows looks.
const WAIT_STEP: Duration = Duration::from_millis(20);
/// How long it is waited before rows are read again.
const AGAIN: Duration = Duration::from_millis(250);
/// How many looks rows are held in memory after the last follower has gone, for one that comes back.
const LOOKS_ALONE: u32 = 60;
/// Rows that are read at once.
const PAGE: usize = 1000;

/// The rows of a projection as they change: whole steps from one position to the next, none left out, no row older than it
/// was told before. See [`Engine::follow_rows`].
pub struct RowsFollowed {
    engine: Engine,
    name: Arc<str>,
    log: LogName,
    watch: Arc<Watch>,
    after: Option<Position>,
    ready: VecDeque<Arc<RowsChanged>>,
    receiver: Option<broadcast::Receiver<Arc<RowsChanged>>>,
}

impl Engine {
    /// Follows the rows of a projection. Who has them as of a position is given what changed since, if that is remembered
    /// here; everybody else is given all rows first. They are held in memory meanwhile: `limit_exceeded` beyond 200,000.
    ///
    /// Fails with `not_found` if there is no such projection, `invalid_input` for a position that its log has not come to.
    pub async fn follow_rows(&self, name: &str, after: Option<Position>) -> Result<RowsFollowed> {
        let name = Arc::clone(self.projected(name)?.name());
        let log = Arc::clone(&self.serving(&name)?.log);
        if let Some(after) = after.filter(|after| *after > log.tail.head()) {
            let head = log.truth.bounds().await?.head;
            if after > head {
                return Err(Error::invalid("the log has not come to this position")
                    .of(&name)
                    .with("head", head)
                    .hint(
                        "the truth may have lost changes in a failover; begin without a position",
                    ));
            }
        }
        Ok(RowsFollowed {
            engine: self.clone(),
            watch: self.watch(&name),
            log: log.name.clone(),
            name,
            after,
            ready: VecDeque::new(),
            receiver: None,
        })
    }

    /// The log whose positions those of an entity are.
    pub fn log_of(&self, entity: &str) -> Result<LogName> {
        Ok(self.serving(entity)?.log.name.clone())
    }

    fn watch(&self, name: &Arc<str>) -> Arc<Watch> {
        let mut watches = self.0.watches.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watch) = watches.get(name) {
            return Arc::clone(watch);
        }
        let watch = Arc::<Watch>::default();
        watches.insert(Arc::clone(name), Arc::clone(&watch));
        let keeper = Keeper {
            engine: Arc::downgrade(&self.0),
            runtime: self.0.runtime.clone(),
            name: Arc::clone(name),
            watch: Arc::clone(&watch),
            alone: 0,
        };
        self.0.runtime.spawn(keeper.run());
        watch
    }

    /// A store whose rows answer and are complete, if there is one.
    fn store_of(&self, name: &str) -> Option<Arc<Delivery>> {
        let projection = self.projected(name).ok()?;
        let mut all = self.of_version(&projection, projection.versions.live).into_iter();
        all.find(|delivery| delivery.is_complete() && !delivery.target().handle.is_paused())
    }
}

impl RowsFollowed {
    /// The next step; waits for one, for `wait` at most.
    pub async fn next(&mut self, wait: Duration) -> Result<Option<Arc<RowsChanged>>> {
        let runtime = self.engine.0.runtime.clone();
        let next = async {
            loop {
                if let Some(step) = self.ready.pop_front() {
                    self.after = Some(step.position);
                    return Ok(Some(step));
                }
                match &mut self.receiver {
                    None => self.attach().await?,
                    Some(receiver) => match receiver.recv().await {
                        Ok(step) => self.ready.push_back(step),
                        // What it missed is remembered, or it is given all rows.
                        Err(_) => self.receiver = None,
                    },
                }
            }
        };
        match runtime.within(wait, next).await {
            Err(error) if error.kind() == ErrorKind::Timeout => Ok(None),
            next => next,
        }
    }

    /// The position as of which the rows are that were given: where another follower goes on.
    pub fn position(&self) -> Option<Position> {
        self.after
    }

    /// The log that positions are of.
    pub fn log(&self) -> &LogName {
        &self.log
    }

    async fn attach(&mut self) -> Result<()> {
        loop {
            if self.watch.has_too_many() {
                return Err(Error::new(ErrorKind::LimitExceeded, "there are too many rows")
                    .of(&self.name)
                    .with("rows_max", ROWS_MAX)
                    .hint("follow the changes of what they are worked out from, and read rows"));
            }
            if let Some((ready, receiver)) = self.watch.attach(self.after) {
                (self.ready, self.receiver) = (ready.into(), Some(receiver));
                return Ok(());
            }
            self.engine.0.runtime.sleep(WAIT_STEP).await;
            // One that was given up for want of followers begins anew.
            self.watch = self.engine.watch(&self.name);
        }
    }
}

/// Keeps the rows of one projection as they are.
struct Keeper {
    engine: Weak<Inner>,
    runtime: Runtime,
    name: Arc<str>,
    watch: Arc<Watch>,
    /// At how many looks nobody followed.
    alone: u32,
}

impl Keeper {
    async fn run(mut self) {
        while let Some(store) = self.store() {
            if let Some(store) = store
                && let Err(error) = self.keep(&store).await
            {
                tracing::debug!(%error, projection = %self.name, "rows that are followed are read again");
            }
            self.runtime.sleep(AGAIN).await;
            if self.is_given_up() {
                return;
            }
        }
    }

    /// The store that answers, if one does; `None` if the engine is gone.
    fn store(&self) -> Option<Option<Arc<Delivery>>> {
        let engine = Engine(self.engine.upgrade()?, None);
        Some(engine.store_of(&self.name))
    }

    /// Looks whether anybody follows; gives the rows up if nobody has for long.
    fn is_given_up(&mut self) -> bool {
        self.alone = if self.watch.is_followed() { 0 } else { self.alone + 1 };
        if self.alone < LOOKS_ALONE {
            return false;
        }
        if let Some(inner) = self.engine.upgrade() {
            let mut watches = inner.watches.lock().unwrap_or_else(PoisonError::into_inner);
            watches.remove(&self.name);
        }
        true
    }

    /// Reads the rows of a store and takes in what becomes of them, until that is not known or another store answers.
    async fn keep(&mut self, store: &Arc<Delivery>) -> Result<()> {
        let target = store.target();
        let Some(news) = &target.news else { return Ok(()) };
        let mut told = news.listen();
        let Some((mut position, rows)) = self.read(store, &mut told).await? else {
            self.runtime.sleep(LOOK_EVERY).await;
            return Ok(());
        };
        self.watch.found(position, rows);
        let mut looked = self.runtime.stopwatch();
        loop {
            if looked.elapsed() >= LOOK_EVERY {
                let answers = self.store().flatten();
                if self.is_given_up() || !answers.is_some_and(|now| Arc::ptr_eq(&now, store)) {
                    return Ok(());
                }
                looked = self.runtime.stopwatch();
            }
            let next = tokio::select! {
                biased;
                next = told.recv() => next,
                () = self.runtime.sleep(LOOK_EVERY) => continue,
            };
            match next {
                Ok(Told::Batch { to, .. }) if to <= position => {}
                Ok(Told::Batch { from, to, rows }) if from <= position => {
                    self.watch.went_on(to, &rows);
                    position = to;
                }
                _ => return Ok(()),
            }
        }
    }

    /// The rows of a store as of one position; `None` if it is not as far as followers are, or what was read cannot be brought
    /// to one position.
    async fn read(
        &self,
        store: &Delivery,
        told: &mut broadcast::Receiver<Told>,
    ) -> Result<Option<(Position, Rows)>> {
        let target = store.target();
        let Some(projection) = &target.projection else { return Ok(None) };
        let source = &target.handle.source;
        let roles = Arc::clone(source).auditor().zip(Arc::clone(source).follower());
        let (auditor, follower) =
            roles.ok_or_else(|| Error::internal("the rows cannot be read").at(&target.source))?;
        // Rows are as of their own checkpoint, which can be ahead of that of the projection.
        let as_of = async || {
            let checkpoint = follower.checkpoint(&projection.rows).await?;
            let complete = checkpoint.filter(|checkpoint| checkpoint.backfill.is_none());
            Ok::<_, Error>(complete.map(|checkpoint| checkpoint.position))
        };
        let began = as_of().await?;
        let Some(mut at) = began.filter(|at| self.watch.position() <= Some(*at)) else {
            return Ok(None);
        };
        let (mut rows, mut last) = (Rows::new(), None);
        loop {
            let page = auditor.scan(&projection.rows, last.as_ref(), PAGE).await?.value;
            last = page.records.last().map(|stored| stored.key.clone());
            page.records.into_iter().for_each(|stored| read(&mut rows, stored));
            self.watch.tell_whether_too_many(rows.len());
            if page.end || last.is_none() {
                break;
            }
            if rows.len() > ROWS_MAX {
                return Ok(None);
            }
        }
        // Rows were read one after the other: what was written meanwhile brings all of them to one position.
        let Some(until) = as_of().await? else { return Ok(None) };
        while at < until {
            let next = async { told.recv().await.map_err(|_| missed()) };
            match self.runtime.within(LOOK_EVERY, next).await? {
                Told::Batch { to, .. } if to <= at => {}
                Told::Batch { from, to, rows: changes } if from <= at => {
                    changes.iter().for_each(|change| drop(takes_in(&mut rows, change)));
                    at = to;
                }
                _ => return Ok(None),
            }
        }
        Ok(Some((at, rows)))
    }
}

fn missed() -> Error {
    Error::new(ErrorKind::TooStale, "rows were written faster than they were read")
}
