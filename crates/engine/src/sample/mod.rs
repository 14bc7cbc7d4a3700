//! The sampler: looks for a share of the changes again in every source, some time after they were committed, and counts
//! how many sources have them. What it finds is measured at the sources themselves, not told by deliveries.
//!
//! `choose.rs` takes samples from each log, `check.rs` looks for those whose time has come. Nothing outlives the process.

mod check;
mod choose;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use unisono_core::{Change, Key, Timestamp, Version};
use unisono_policy::declaration::SamplerDeclaration;
use unisono_policy::sample::{DELAYS, nines};

use crate::log::Log;
use crate::policies::Present;
use crate::read::serving::Serving;
use crate::runtime::Runtime;
use crate::status::{ConsistencyStatus, SampleStatus, SamplerStatus};

/// Everything that is sampled.
pub(crate) struct Sampler {
    present: Present,
    /// Those that wait for a look, by how many they have had; each in the order in which they were taken.
    waiting: Mutex<[VecDeque<Sample>; DELAYS.len()]>,
    counts: Mutex<BTreeMap<Place, Counts>>,
    dropped: AtomicU64,
}

/// A change that is looked for.
#[derive(Clone)]
struct Sample {
    serving: Arc<Serving>,
    key: Key,
    version: Version,
    deleted: bool,
    taken: Timestamp,
}

/// What is counted by itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    source: Arc<str>,
    entity: Arc<str>,
    /// Which of the delays.
    delay: usize,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    consistent: u64,
    inconsistent: u64,
    unavailable: u64,
}

/// What came of a look at a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Consistent,
    Inconsistent,
    /// It did not answer.
    Unavailable,
}

/// Starts sampling, if it is declared.
pub(crate) fn start<'a>(
    present: &Present,
    logs: impl Iterator<Item = &'a Arc<Log>>,
    runtime: &Runtime,
) -> Option<Arc<Sampler>> {
    present.load().declaration.sampler.as_ref()?;
    let sampler = Arc::new(Sampler {
        present: Arc::clone(present),
        waiting: Mutex::default(),
        counts: Mutex::default(),
        dropped: AtomicU64::new(0),
    });
    logs.for_each(|log| sampler.follow(log, runtime));
    runtime.spawn(check::run(Arc::clone(&sampler), runtime.clone()));
    Some(sampler)
}

impl Sampler {
    /// Takes samples from a log.
    pub(crate) fn follow(self: &Arc<Self>, log: &Arc<Log>, runtime: &Runtime) {
        runtime.spawn(choose::run(Arc::clone(self), Arc::clone(log), runtime.clone()));
    }

    /// `None` for a moment at most: whether there is a sampler cannot be changed by a reload.
    fn policy(&self) -> Option<SamplerDeclaration> {
        self.present.load().declaration.sampler.clone()
    }

    /// Takes a change as a sample, unless too many wait.
    fn take(&self, change: &Change, now: Timestamp) {
        let present = self.present.load();
        let Some(serving) = present.servings.get(&change.entity) else { return };
        let pending_max = self.policy().map_or(0, |policy| policy.pending_max);
        let mut waiting = self.waiting();
        if waiting.iter().map(VecDeque::len).sum::<usize>() >= pending_max {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting[0].push_back(Sample {
            serving: Arc::clone(serving),
            key: change.key.clone(),
            version: change.position,
            deleted: change.image.is_none(),
            taken: now,
        });
    }

    /// Those whose time for a look has come, at most so many.
    fn due(&self, delay: usize, now: Timestamp, max: usize) -> Vec<Sample> {
        let queue = &mut self.waiting()[delay];
        let due = queue.iter().take(max).take_while(|s| s.taken.plus(DELAYS[delay]) <= now).count();
        queue.drain(..due).collect()
    }

    /// These wait for their next look, if there is one.
    fn wait_on(&self, delay: usize, samples: Vec<Sample>) {
        if let Some(queue) = self.waiting().get_mut(delay + 1) {
            queue.extend(samples);
        }
    }

    fn count(&self, source: &Arc<str>, entity: &Arc<str>, delay: usize, found: Found) {
        let place = Place { source: Arc::clone(source), entity: Arc::clone(entity), delay };
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = counts.entry(place).or_default();
        *match found {
            Found::Consistent => &mut counts.consistent,
            Found::Inconsistent => &mut counts.inconsistent,
            Found::Unavailable => &mut counts.unavailable,
        } += 1;
    }

    fn waiting(&self) -> MutexGuard<'_, [VecDeque<Sample>; DELAYS.len()]> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was found since the start.
    pub(crate) fn status(&self) -> SamplerStatus {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut sums: BTreeMap<(Arc<str>, usize), Counts> = BTreeMap::new();
        for (place, counts) in &counts {
            let sum = sums.entry((Arc::clone(&place.source), place.delay)).or_default();
            sum.consistent += counts.consistent;
            sum.inconsistent += counts.inconsistent;
        }
        let seconds = |delay: usize| DELAYS[delay].as_secs();
        SamplerStatus {
            pending: self.waiting().iter().map(VecDeque::len).sum::<usize>() as u64,
            dropped: self.dropped.load(Ordering::Relaxed),
            consistency: sums
                .into_iter()
                .map(|((source, delay), sum)| ConsistencyStatus {
                    source,
                    delay_seconds: seconds(delay),
                    nines: nines(sum.consistent, sum.inconsistent),
                })
                .collect(),
            samples: counts
                .into_iter()
                .map(|(place, counts)| SampleStatus {
                    source: place.source,
                    entity: place.entity,
                    delay_seconds: seconds(place.delay),
                    consistent: counts.consistent,
                    inconsistent: counts.inconsistent,
                    unavailable: counts.unavailable,
                })
                .collect(),
        }
    }
}
