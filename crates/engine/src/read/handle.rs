//! [`SourceHandle`]: an opened source, whether it is asked at present, and how busy it is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use unisono_core::source::Source;
use unisono_core::{Error, ErrorKind, Result, Timestamp};
use unisono_policy::breaker::{self, Breaker, BreakerOptions, State, Transition};
use unisono_policy::load::Load;
use unisono_policy::route::Operation;

use crate::runtime::{Runtime, Stopwatch};
use crate::status::LoadStatus;
use crate::topology::pause::Pause;
use crate::watched::Watched;

/// The classes of questions whose load is known apart.
const CLASSES: [&str; 4] = ["get", "query", "search", "aggregate"];

fn class(operation: Operation) -> usize {
    match operation {
        Operation::Get => 0,
        Operation::Query => 1,
        Operation::Search | Operation::SearchCount => 2,
        Operation::Count | Operation::Aggregate => 3,
    }
}

#[derive(Clone, Copy, Default)]
struct Counted {
    load: Load,
    asked: u64,
    failed: u64,
}

/// An opened source, whether it is asked at present, and how busy it is.
pub(crate) struct SourceHandle {
    pub(crate) source: Arc<dyn Source>,
    /// Whether it is known to be in another region than this process.
    pub(crate) far: bool,
    /// Set while it is left alone on purpose.
    paused: Watched<Option<Pause>>,
    breaker: Mutex<Breaker>,
    classes: Mutex<[Counted; CLASSES.len()]>,
}

impl SourceHandle {
    pub(crate) fn new(source: Arc<dyn Source>, far: bool) -> Self {
        SourceHandle {
            source,
            far,
            paused: Watched::default(),
            breaker: Mutex::new(Breaker::new(BreakerOptions::default())),
            classes: Mutex::default(),
        }
    }

    /// Whether it is not asked at present: it is paused, or has failed repeatedly.
    pub(crate) fn is_blocked(&self, now: Timestamp) -> bool {
        self.is_paused() || !self.breaker().would_allow(now)
    }

    /// Leaves it alone from now on.
    pub(crate) fn pause(&self, pause: Pause) {
        self.paused.change(|paused| paused.replace(pause).is_none());
    }

    /// Goes on with it.
    pub(crate) fn resume(&self) {
        self.paused.change(|paused| paused.take().is_some());
    }

    /// Since when it is left alone, if it is.
    pub(crate) fn paused(&self) -> Option<Pause> {
        self.paused.get().clone()
    }

    /// Whether it is left alone.
    pub(crate) fn is_paused(&self) -> bool {
        self.paused.get().is_some()
    }

    /// Waits until it is left alone, or until it is not.
    pub(crate) async fn comes_to_be(&self, paused: bool) {
        self.paused.until(|pause| pause.is_some() == paused).await;
    }

    /// Why nothing can be done with it, if it is left alone.
    pub(crate) fn refuse_if_paused(&self) -> Result<()> {
        let Some(pause) = self.paused() else { return Ok(()) };
        Err(Error::new(ErrorKind::Unavailable, "the source is paused")
            .at(self.source.name())
            .with("since", pause.since)
            .hint(format!("`unisono source resume {}` has it go on", self.source.name())))
    }

    /// Takes note that the source was heard of by another way than a question.
    pub(crate) fn heard(&self, at: Timestamp) {
        self.breaker().heard(at);
    }

    /// Seconds that a further question may expect to take.
    pub(crate) fn expected(&self, operation: Operation) -> f64 {
        self.classes()[class(operation)].load.expected()
    }

    /// The word for the state of its breaker.
    pub(crate) fn breaker_state(&self) -> &'static str {
        match self.breaker().state() {
            State::Closed => "closed",
            State::Open { .. } => "open",
            State::HalfOpen => "half_open",
        }
    }

    /// How busy it is, for each class of questions that it was asked.
    pub(crate) fn load(&self) -> Vec<LoadStatus> {
        let classes = *self.classes();
        let asked = CLASSES.iter().zip(classes).filter(|(_, counted)| counted.asked > 0);
        asked
            .map(|(class, counted)| LoadStatus {
                class,
                latency_seconds: counted.load.latency(),
                in_flight: counted.load.in_flight(),
                asked: counted.asked,
                failed: counted.failed,
            })
            .collect()
    }

    /// Begins a question, unless the source has failed repeatedly and is given a pause.
    pub(crate) fn ask<'a>(
        &'a self,
        operation: Operation,
        runtime: &'a Runtime,
    ) -> Result<Asked<'a>> {
        self.refuse_if_paused()?;
        if !self.breaker().allows(runtime.now()) {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "the source has failed repeatedly and is given a pause",
            ));
        }
        let class = class(operation);
        let counted = &mut self.classes()[class];
        counted.load.begin();
        counted.asked += 1;
        Ok(Asked { handle: self, runtime, class, watch: runtime.stopwatch(), ended: false })
    }

    fn tell(&self, transition: Option<Transition>) {
        if let Some(transition) = transition {
            tracing::warn!(source = %self.source.name(), ?transition, "breaker");
        }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn classes(&self) -> MutexGuard<'_, [Counted; CLASSES.len()]> {
        self.classes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question that is under way. Dropped without an end, it was given up.
pub(crate) struct Asked<'a> {
    handle: &'a SourceHandle,
    runtime: &'a Runtime,
    class: usize,
    watch: Stopwatch,
    ended: bool,
}

impl Asked<'_> {
    /// Takes note of how it ended.
    pub(crate) fn end<T>(mut self, result: &Result<T>) {
        self.ended = true;
        let now = self.runtime.now();
        let failed = result.as_ref().err().map(Error::kind).filter(|kind| breaker::counts(*kind));
        {
            let counted = &mut self.handle.classes()[self.class];
            counted.load.end(self.watch.elapsed(), now);
            counted.failed += u64::from(failed.is_some());
        }
        let handle = self.handle;
        match (result, failed) {
            (Ok(_), _) => {
                let transition = handle.breaker().succeeded(now);
                handle.tell(transition);
            }
            (Err(_), Some(_)) => {
                let transition = handle.breaker().failed(now, self.runtime.random());
                handle.tell(transition);
            }
            // A failure of the question and not of the source.
            (Err(_), None) => handle.breaker().abandoned(),
        }
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.handle.classes()[self.class].load.abandon();
            self.handle.breaker().abandoned();
        }
    }
}
