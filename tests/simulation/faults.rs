//! The fault model: what happens to the calls of sources, drawn from the seed of the world.
//!
//! Only faults that a promise covers are injected, so every failure found is a bug:
//!
//! * any call may take long, so that calls overtake each other; a source may be slow for a while;
//! * any call may fail before it did anything, once, for some calls or for minutes (outage);
//! * the truth may take no commits for a while, and do all else (disk full);
//! * any call may take effect and its answer be lost;
//! * a batch may be taken in partly before it fails, or be delivered twice;
//! * a batch that nobody waits for any more, because the process or the attempt ended, may arrive after newer ones, as
//!   long as the follower still remembers what they deleted;
//! * the process may end before or after any call, with everything in memory;
//! * a follower may be wiped, restored from an older copy or from another installation, also under the running engine;
//! * a cache may begin anew behind the engine's back;
//! * a follower may refuse a record for good.
//!
//! The truth is never wiped or set back: that is another promise.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Notify;
use tokio::time::Instant;
use unisono_core::source::Batch;
use unisono_core::{Change, Effect, Error, ErrorKind, Key, Position, Result};

use crate::disks::JOURNAL;
use crate::history::History;
use crate::shape::Shape;

/// Calls of one world after which it counts as one that never comes to rest.
const CALLS_MAX: u64 = 300_000;

/// How often each fate is drawn, by its number.
pub(crate) type Weights = [u32; 12];

/// The numbers of the fates that others need to know.
pub(crate) struct Numbers {
    pub(crate) crash_before: usize,
    pub(crate) crash_after: usize,
    slow_truth: usize,
}

pub(crate) const FATES: Numbers = Numbers { crash_before: 3, crash_after: 4, slow_truth: 11 };

/// What happens to one call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    Nothing,
    Slow(Duration),
    FailsBefore,
    FailsAfter,
    CrashBefore,
    CrashAfter,
    Partly,
    Twice,
    /// The cache begins anew first.
    Forgets(u64),
}

/// A source that is not itself for a while.
struct Spell {
    source: String,
    /// Other operations are not concerned, if set.
    only: Option<&'static str>,
    /// It answers, slowly.
    slow: bool,
    ends: Ends,
}

enum Ends {
    Calls(u32),
    At(Instant),
}

/// The faults of one world. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Faults(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    crash: Notify,
    history: Arc<History>,
}

struct State {
    random: StdRng,
    level: f64,
    weights: Weights,
    crashed: bool,
    spells: Vec<Spell>,
    /// The next commit takes effect and its answer is lost.
    loses_commit: bool,
    /// Batches on their way.
    late: Vec<(String, Batch)>,
    /// What each follower has taken in since its checkpoint moved last.
    taken: BTreeMap<String, BTreeMap<Key, Position>>,
    calls: u64,
    course: DefaultHasher,
}

impl Faults {
    pub(crate) fn new(seed: u64, shape: &Shape, history: &Arc<History>) -> Self {
        let state = State {
            random: StdRng::seed_from_u64(seed),
            level: shape.level,
            weights: shape.weights,
            crashed: false,
            spells: Vec::new(),
            loses_commit: false,
            late: Vec::new(),
            taken: BTreeMap::new(),
            calls: 0,
            course: DefaultHasher::new(),
        };
        let history = Arc::clone(history);
        Faults(Arc::new(Inner { state: Mutex::new(state), crash: Notify::new(), history }))
    }

    /// Ends all faults, for good.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        state.level = 0.0;
        state.spells.clear();
        state.loses_commit = false;
        state.late.clear();
        state.crashed = false;
    }

    /// Makes a source fail for a time.
    pub(crate) fn outage(&self, source: &str, lasts: Duration) {
        let ends = Ends::At(Instant::now() + lasts);
        let source = source.to_owned();
        self.state().spells.push(Spell { source, only: None, slow: false, ends });
    }

    /// Makes one operation of a source fail for a time.
    pub(crate) fn outage_of(&self, source: &str, only: &'static str, lasts: Duration) {
        let ends = Ends::At(Instant::now() + lasts);
        let (source, only) = (source.to_owned(), Some(only));
        self.state().spells.push(Spell { source, only, slow: false, ends });
    }

    /// Makes a source slow for some calls, of one operation if given.
    pub(crate) fn slow(&self, source: &str, only: Option<&'static str>, calls: u32) {
        let (source, ends) = (source.to_owned(), Ends::Calls(calls));
        self.state().spells.push(Spell { source, only, slow: true, ends });
    }

    /// Has the answer to the next commit be lost.
    pub(crate) fn lose_commit(&self) {
        self.state().loses_commit = true;
    }

    /// Begins a new life of the process.
    pub(crate) fn reborn(&self) {
        self.state().crashed = false;
    }

    /// Waits for the end of the process.
    pub(crate) async fn crashed(&self) {
        loop {
            let notified = self.0.crash.notified();
            if self.state().crashed {
                return;
            }
            notified.await;
        }
    }

    /// A random number below `n`, for decisions that belong to the world.
    pub(crate) fn below(&self, n: u32) -> u32 {
        self.state().random.random_range(0..n)
    }

    /// Calls made so far.
    pub(crate) fn calls(&self) -> u64 {
        self.state().calls
    }

    /// A fingerprint of the course so far: every call with its time and fate, and every word added by [`Faults::mark`].
    pub(crate) fn course(&self) -> u64 {
        self.state().course.finish()
    }

    /// Adds to the fingerprint of the course.
    pub(crate) fn mark(&self, what: impl Hash) {
        what.hash(&mut self.state().course);
    }

    /// A follower has taken in a change.
    pub(crate) fn taken(&self, source: &str, key: &Key, position: Position) {
        let mut state = self.state();
        state.taken.entry(source.to_owned()).or_default().insert(key.clone(), position);
    }

    /// The checkpoint of a follower has moved: hands out, once, what was sent before, nobody waits for any more, and
    /// has just been overtaken. Only what was overtaken by then is sure to be told from news.
    pub(crate) fn overtaken(&self, source: &str) -> Vec<Batch> {
        let mut state = self.state();
        let taken = state.taken.remove(source).unwrap_or_default();
        let newer = |c: &Arc<Change>| taken.get(&c.key).is_some_and(|p| *p > c.position);
        let (late, rest) = std::mem::take(&mut state.late)
            .into_iter()
            .partition(|(name, batch)| name == source && batch.changes.iter().any(newer));
        state.late = rest;
        let overtaken = |(_, mut batch): (String, Batch)| {
            if batch.advance.is_none() {
                batch.changes.retain(newer);
            }
            batch
        };
        late.into_iter().map(overtaken).collect()
    }

    /// A follower has lost its data, and with it what is on its way to it.
    pub(crate) fn forget_late(&self, source: &str) {
        let mut state = self.state();
        state.taken.remove(source);
        state.late.retain(|(name, _)| name != source);
    }

    /// A batch is on its way: unless it is said to have arrived, it does so when it is asked for as late.
    pub(crate) fn sent(&self, source: &str, batch: &Batch) {
        self.state().late.push((source.to_owned(), batch.clone()));
    }

    /// A batch that was on its way has arrived.
    pub(crate) fn arrived(&self, source: &str, batch: &Batch) {
        let same = |other: &Batch| {
            other.changes == batch.changes
                && other.advance == batch.advance
                && other.copied == batch.copied
        };
        self.state().late.retain(|(name, sent)| name != source || !same(sent));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Draws what happens to a call.
    pub(crate) fn fate(&self, source: &str, operation: &'static str) -> Fate {
        let mut state = self.state();
        state.calls += 1;
        assert!(state.calls < CALLS_MAX, "the engine asks its sources without end");
        let fate = match state.spell(source, operation) {
            Some(fate) => fate,
            None if operation == "follow" && state.forgets() => {
                Fate::Forgets(state.random.random_range(0..20))
            }
            None => state.draw(source, &self.0.history),
        };
        let moment = self.0.history.micros();
        (source, operation, moment, std::mem::discriminant(&fate)).hash(&mut state.course);
        if let Some(name) = fate.counter() {
            self.0.history.count(name);
        }
        fate
    }

    pub(crate) async fn crash<T>(&self) -> T {
        self.state().crashed = true;
        self.0.crash.notify_waiters();
        std::future::pending().await
    }

    /// Runs a call under its fate.
    pub(crate) async fn under<T>(
        &self,
        fate: Fate,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        match fate {
            Fate::Nothing | Fate::Partly | Fate::Twice | Fate::Forgets(_) => call.await,
            Fate::Slow(pause) => {
                tokio::time::sleep(pause).await;
                let result = call.await;
                tokio::time::sleep(pause / 2).await;
                result
            }
            Fate::FailsBefore => Err(failure(Effect::None)),
            Fate::FailsAfter => {
                call.await?;
                Err(failure(Effect::Unknown))
            }
            Fate::CrashBefore => self.crash().await,
            Fate::CrashAfter => {
                call.await?;
                self.crash().await
            }
        }
    }
}

impl State {
    fn spell(&mut self, source: &str, operation: &'static str) -> Option<Fate> {
        if operation == "commit" && std::mem::take(&mut self.loses_commit) {
            return Some(Fate::FailsAfter);
        }
        let now = Instant::now();
        self.spells.retain(|s| match s.ends {
            Ends::Calls(left) => left > 0,
            Ends::At(end) => now < end,
        });
        let hit =
            |s: &&mut Spell| s.source == source && s.only.is_none_or(|only| only == operation);
        let spell = self.spells.iter_mut().find(hit)?;
        if let Ends::Calls(left) = &mut spell.ends {
            *left -= 1;
        }
        let pause = Duration::from_micros(self.random.random_range(1..100_000));
        Some(if spell.slow { Fate::Slow(pause) } else { Fate::FailsBefore })
    }

    /// Caches are followed seldom, so that this has a chance of its own.
    fn forgets(&mut self) -> bool {
        self.level > 0.0 && self.weights[FATES.slow_truth] > 0 && self.random.random_bool(0.02)
    }

    fn draw(&mut self, source: &str, history: &History) -> Fate {
        if self.level == 0.0 || !self.random.random_bool(self.level) {
            return Fate::Nothing;
        }
        let mut at = self.random.random_range(0..self.weights.iter().sum());
        let number = self.weights.iter().position(|weight| {
            let here = at < *weight;
            at = at.saturating_sub(*weight);
            here
        });
        let calls = self.random.random_range(1..40);
        let source = source.to_owned();
        let mut begin = |source, only, slow, ends| {
            self.spells.push(Spell { source, only, slow, ends });
            if slow { Fate::Slow(Duration::from_millis(20)) } else { Fate::FailsBefore }
        };
        match number {
            Some(0) => Fate::Slow(Duration::from_micros(self.random.random_range(1..30_000))),
            Some(1) => Fate::FailsBefore,
            Some(2) => Fate::FailsAfter,
            Some(3) => Fate::CrashBefore,
            Some(4) => Fate::CrashAfter,
            Some(5) => Fate::Partly,
            Some(6) => Fate::Twice,
            Some(7) => {
                history.count("outage");
                begin(source, None, false, Ends::Calls(calls))
            }
            Some(8) => {
                history.count("long outage");
                let lasts = Duration::from_secs(u64::from(calls) * 4);
                // What decides writes is never away for so long that clients do nothing else than wait.
                let decides = ["truth", JOURNAL].contains(&source.as_str());
                let lasts = if decides { lasts / 40 } else { lasts };
                begin(source, None, false, Ends::At(Instant::now() + lasts))
            }
            Some(9) => {
                history.count("truth takes no commits");
                begin("truth".to_owned(), Some("commit"), false, Ends::Calls(calls))
            }
            Some(10) => {
                history.count("slow for a while");
                begin(source, None, true, Ends::Calls(calls))
            }
            _ => {
                history.count("slow for a while");
                begin("truth".to_owned(), None, true, Ends::Calls(calls))
            }
        }
    }
}

impl Fate {
    fn counter(self) -> Option<&'static str> {
        match self {
            Fate::CrashBefore | Fate::CrashAfter => Some("crash"),
            Fate::Partly => Some("batch taken in partly"),
            Fate::Twice => Some("batch taken in twice"),
            Fate::FailsAfter => Some("answer lost"),
            _ => None,
        }
    }
}

pub(crate) fn failure(effect: Effect) -> Error {
    Error::new(ErrorKind::Unavailable, "a fault was injected").effect(effect)
}
