//! Processes: state by correlation key that events and timers move, and that appends events and sets timers in turn. Each
//! step is one unit of the truth, so that a crash neither loses nor repeats one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use unisono_core::outlet::{Manner, Message, Outlet};
use unisono_core::write::Write;
use unisono_core::{Error, ErrorKind, Position, Result, Timestamp, Version};
use unisono_engine::stream::Appending;
use unisono_engine::{DueTimer, Engine, ProcessStep, is_overtaken};

use crate::open::Unisono;
use crate::streams::{Recorded, Streams};

/// How far ahead of their time timers are looked for.
const AHEAD: Duration = Duration::from_secs(1);
/// The most timers that fire between two looks.
const FIRING_MAX: usize = 100;
/// How often a step is decided anew because another one was taken.
const DECISIONS_MAX: usize = 16;
/// The longest pause before a timer that failed fires again.
const FAILED_MAX: Duration = Duration::from_secs(60);

/// State that events and timers move: one value for each correlation key, which begins as the default.
///
/// A step only decides; what it decided takes place together with the new state, or not at all. It can be asked again with the same
/// state, so it has no effects of its own.
pub trait Process: Default + Serialize + DeserializeOwned + Send + 'static {
    /// The events that it follows.
    type Event: DeserializeOwned + Send + 'static;

    /// Which process an event belongs to; none if it concerns no process.
    fn correlate(event: &Recorded<Self::Event>) -> Option<String>;

    /// What an event makes of it. An error refuses the event, as that of a handler does.
    fn on_event(&mut self, event: Recorded<Self::Event>, then: &mut Then) -> Result<()>;

    /// What a timer makes of it. With an error it fires again, ever more rarely.
    fn on_timer(&mut self, timer: Timer, then: &mut Then) -> Result<()>;
}

/// A timer that fires.
#[derive(Clone, Debug)]
pub struct Timer {
    /// Its name.
    pub name: String,
    /// When it was due.
    pub due: Timestamp,
    /// What was given with it.
    pub data: Json,
}

/// What a step decides besides the state.
#[derive(Debug)]
pub struct Then {
    key: String,
    now: Timestamp,
    appends: Vec<(String, Appending)>,
    writes: Vec<Write>,
    sets: Vec<(String, Timestamp, Json)>,
    cancels: BTreeSet<String>,
    ends: bool,
}

impl Then {
    fn new(key: &str, now: Timestamp) -> Self {
        let (appends, writes, sets) = Default::default();
        Then {
            key: key.to_owned(),
            now,
            appends,
            writes,
            sets,
            cancels: BTreeSet::new(),
            ends: false,
        }
    }

    /// The correlation key of the process.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What time it is.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Appends events to a stream of a type, in the same truth.
    pub fn append(&mut self, ty: &str, appending: Appending) {
        self.appends.push((ty.to_owned(), appending));
    }

    /// Writes a record, in the same truth.
    pub fn write(&mut self, write: Write) {
        self.writes.push(write);
    }

    /// Sets a timer that fires once, at this time or soon after, in place of one of the same name.
    pub fn at(&mut self, name: &str, due: Timestamp, data: Json) {
        self.cancels.remove(name);
        self.sets.retain(|(known, ..)| known != name);
        self.sets.push((name.to_owned(), due, data));
    }

    /// The same after a while.
    pub fn after(&mut self, name: &str, pause: Duration, data: Json) {
        self.at(name, self.now.plus(pause), data);
    }

    /// Cancels a timer, if it is set.
    pub fn cancel(&mut self, name: &str) {
        self.sets.retain(|(known, ..)| known != name);
        self.cancels.insert(name.to_owned());
    }

    /// Ends the process: its timers are cancelled, and a later event of its key begins another one.
    pub fn end(&mut self) {
        self.ends = true;
    }
}

/// What is kept of a process.
#[derive(Default, Serialize, Deserialize)]
struct Kept {
    /// The position of the last event that moved it: those up to there have done what they do.
    through: Position,
    /// The timers that are set.
    timers: BTreeSet<String>,
    /// None if it has ended.
    state: Option<Json>,
}

impl Unisono {
    /// Has processes of a name follow the events of a type of streams, and their timers fire: each event moves its process
    /// once, however often this process or another one of the same name ends on the way. Events of one process are
    /// handled in the order of the log. It runs until this is closed.
    ///
    /// A timer is kept in the truth; it fires in whichever process comes first, once, within about a second of its time, or as
    /// soon as one runs. For `manner`, pauses and dead letters see [`Unisono::handle`].
    pub async fn process<P: Process>(
        &self,
        name: &str,
        events: &Streams<P::Event>,
        manner: Manner,
    ) -> Result<()> {
        let manager = Arc::new(Manager::<P> { name: name.to_owned(), events: events.clone() });
        let outlet = Arc::clone(&manager) as Arc<dyn Outlet>;
        self.add_outlet(name, &events.ty, outlet, manner).await?;
        self.engine.runtime().spawn(manager.fire());
        Ok(())
    }
}

/// Moves the processes of one name.
struct Manager<P: Process> {
    name: String,
    events: Streams<P::Event>,
}

/// What moves a process.
enum Cause<'a> {
    Event(&'a Message),
    Timer(&'a DueTimer),
}

impl<P: Process> Manager<P> {
    fn engine(&self) -> &Engine {
        &self.events.engine
    }

    /// Takes a step, anew if another one was taken meanwhile.
    async fn step(&self, key: &str, cause: &Cause<'_>) -> Result<()> {
        for _ in 0..DECISIONS_MAX {
            let Some(step) = self.decide(key, cause).await? else { return Ok(()) };
            match self.engine().take_step(&self.events.ty, step).await {
                Err(error) if is_overtaken(&error) => {}
                taken => return taken,
            }
        }
        Err(Error::new(ErrorKind::Overloaded, "the process keeps being moved by others")
            .with("key", key))
    }

    /// What is to be done; nothing if it was done already.
    async fn decide(&self, key: &str, cause: &Cause<'_>) -> Result<Option<ProcessStep>> {
        let (engine, ty) = (self.engine(), &self.events.ty);
        let found = engine.process(ty, &self.name, key).await?;
        let replaces = found.as_ref().map(|kept| kept.version);
        let corrupt = |e: serde_json::Error| {
            Error::new(ErrorKind::Corrupt, "the state of the process does not fit its type")
                .with("key", key)
                .hint("read older shapes of it as well")
                .caused_by(e)
        };
        let mut kept: Kept = match found {
            Some(found) => serde_json::from_value(found.data).map_err(corrupt)?,
            None => Kept::default(),
        };
        let mut state: P = match kept.state.take() {
            Some(state) => serde_json::from_value(state).map_err(corrupt)?,
            None => P::default(),
        };
        let mut then = Then::new(key, engine.runtime().now());
        let (once, fired) = match cause {
            Cause::Event(message) => {
                let Some(event) = &message.event else { return Ok(None) };
                if event.position <= kept.through && !message.again {
                    return Ok(None);
                }
                kept.through = kept.through.max(event.position);
                let recorded = self.events.recorded(event.clone())?;
                state.on_event(recorded, &mut then)?;
                (format!("event {}", event.id), None)
            }
            Cause::Timer(timer) => {
                if !kept.timers.remove(&timer.name) || !self.is_set(timer).await? {
                    return Ok(None);
                }
                let DueTimer { name, due, data, .. } = (*timer).clone();
                state.on_timer(Timer { name, due, data }, &mut then)?;
                let once = format!("timer {}@{}", timer.name, timer.version);
                (once, Some((timer.name.clone(), timer.version)))
            }
        };
        let state = serde_json::to_value(state)
            .map_err(|e| Error::invalid("the state of the process cannot be kept").caused_by(e))?;
        Ok(Some(self.finish(key, kept, state, then, (once, replaces, fired))?))
    }

    /// The step that leaves a process with a state.
    fn finish(
        &self,
        key: &str,
        mut kept: Kept,
        state: Json,
        then: Then,
        (once, replaces, fired): (String, Option<Version>, Option<(String, Version)>),
    ) -> Result<ProcessStep> {
        let Then { appends, writes, mut sets, mut cancels, ends, .. } = then;
        kept.state = Some(state);
        if ends {
            cancels.extend(kept.timers.iter().cloned());
            sets.clear();
            kept.state = None;
        }
        cancels.retain(|name| kept.timers.remove(name));
        kept.timers.extend(sets.iter().map(|(name, ..)| name.clone()));
        let data = serde_json::to_value(&kept).map_err(|e| {
            Error::internal("what is kept of a process cannot be encoded").caused_by(e)
        })?;
        Ok(ProcessStep {
            process: self.name.clone(),
            key: key.to_owned(),
            replaces,
            data,
            appends,
            writes,
            sets,
            cancels: cancels.into_iter().collect(),
            fired,
            once,
        })
    }

    /// Whether a timer is still set as it was found: it may have fired, or been set anew.
    async fn is_set(&self, timer: &DueTimer) -> Result<bool> {
        let (engine, ty) = (self.engine(), &self.events.ty);
        Ok(engine.timer(ty, &self.name, &timer.key, &timer.name).await? == Some(timer.version))
    }

    /// Has timers fire when they are due, for as long as the engine runs.
    async fn fire(self: Arc<Self>) {
        let runtime = self.engine().runtime().clone();
        let mut failed = Failed::default();
        loop {
            let until = runtime.now().plus(AHEAD);
            let due =
                self.engine().due_timers(&self.events.ty, &self.name, until, FIRING_MAX).await;
            let due = due.unwrap_or_else(|error| {
                tracing::warn!(%error, process = self.name, "it is not known which timers are due");
                Vec::new()
            });
            failed.0.retain(|(version, ..)| due.iter().any(|timer| timer.version == *version));
            for timer in &due {
                if !failed.may_fire(timer, runtime.now()) {
                    continue;
                }
                let early = timer.due.seconds_since(runtime.now());
                if early > 0.0 {
                    runtime.sleep(Duration::from_secs_f64(early)).await;
                }
                if let Err(error) = self.step(&timer.key, &Cause::Timer(timer)).await {
                    tracing::warn!(%error, process = self.name, key = timer.key, timer = timer.name, "a timer failed; it fires again");
                    failed.note(timer, runtime.now());
                }
            }
            runtime.sleep(AHEAD / 2).await;
        }
    }
}

/// Timers that failed: their versions, how often, and when they may fire again.
#[derive(Default)]
struct Failed(Vec<(Version, u32, Timestamp)>);

impl Failed {
    fn may_fire(&self, timer: &DueTimer, now: Timestamp) -> bool {
        !self.0.iter().any(|(version, _, at)| *version == timer.version && *at > now)
    }

    fn note(&mut self, timer: &DueTimer, now: Timestamp) {
        let before = self.0.iter().find(|(version, ..)| *version == timer.version);
        let attempt = before.map_or(0, |(_, attempt, _)| *attempt) + 1;
        self.0.retain(|(version, ..)| *version != timer.version);
        let pause = (Duration::from_millis(500) * (1 << attempt.min(10))).min(FAILED_MAX);
        self.0.push((timer.version, attempt, now.plus(pause)));
    }
}

#[async_trait]
impl<P: Process> Outlet for Manager<P> {
    async fn send(&self, message: &Message) -> Result<()> {
        match self.correlated(message)? {
            Some(key) => self.step(&key, &Cause::Event(message)).await,
            None => Ok(()),
        }
    }

    /// What belongs to one process stays in order, whichever streams it comes from.
    fn order(&self, message: &Message) -> String {
        self.correlated(message).ok().flatten().unwrap_or_else(|| message.subject())
    }
}

impl<P: Process> Manager<P> {
    fn correlated(&self, message: &Message) -> Result<Option<String>> {
        let Some(event) = &message.event else { return Ok(None) };
        Ok(P::correlate(&self.events.recorded(event.clone())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_last_of_a_timer_counts() {
        let mut then = Then::new("a", Timestamp::EPOCH);
        then.after("t", Duration::from_secs(1), Json::Null);
        then.after("t", Duration::from_secs(2), Json::Null);
        assert_eq!(then.sets.len(), 1);
        then.cancel("t");
        assert!(then.sets.is_empty() && then.cancels.contains("t"));
        then.after("t", Duration::from_secs(3), Json::Null);
        assert!(then.sets.len() == 1 && then.cancels.is_empty());
    }
}
