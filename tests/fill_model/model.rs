//! All states of one key in one shared cache, in every order of steps.

use std::collections::{HashSet, VecDeque};

use crate::protocol::{Fault, Feed, Leases, Protocol};

/// The cache server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
struct Cache {
    /// Version and epoch.
    entry: Option<(u8, u8)>,
    /// Who may fill; 0 for nobody.
    lease: u8,
    /// How far the log was applied; none if the fence is lost.
    applied: Option<u8>,
    floor: u8,
    /// The version of the key's last change in the list of changed keys.
    recent: u8,
    epoch: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    LookUp,
    Read,
    Fill,
    Done,
}

/// A reader that missed, and fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Filler {
    step: Step,
    lease: u8,
    /// The position of its read.
    read: u8,
    /// What it read.
    version: u8,
    /// The epoch that it saw at its lookup.
    epoch: u8,
}

const DONE: Filler = Filler { step: Step::Done, lease: 0, read: 0, version: 0, epoch: 0 };
/// The most fillers at the same time.
const FILLERS_MAX: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct State {
    committed: u8,
    /// A position that is not visible yet while a later one is; 0 for none.
    hole: u8,
    /// Deletions on their way.
    deletes: u8,
    /// How far the log was applied, kept outside the cache.
    outside: u8,
    cache: Cache,
    /// What a replica of the cache has.
    replica: Option<Cache>,
    fillers: [Filler; FILLERS_MAX],
    /// Faults that did not strike yet.
    faults: u16,
    next_epoch: u8,
}

/// One history, and what is asked of it.
#[derive(Clone, Copy)]
pub(crate) struct Case<'a> {
    pub(crate) protocol: Protocol,
    pub(crate) faults: &'a [Fault],
    /// One commit each: whether it changes the key.
    pub(crate) commits: &'a [bool],
    pub(crate) fillers: usize,
    /// Whether a reader names the position up to which everything is visible, or the highest one that it sees.
    pub(crate) reads_contiguous: bool,
    /// Whether an entry must at all times hold what the cache has applied; otherwise only in the end the truth.
    pub(crate) at_all_times: bool,
}

impl Case<'_> {
    /// Visits every state; answers how many there are, and whether none is wrong.
    pub(crate) fn holds(&self) -> (usize, bool) {
        let start = self.start();
        let mut seen = HashSet::from([start]);
        let mut queue = VecDeque::from([start]);
        let mut next = Vec::new();
        while let Some(state) = queue.pop_front() {
            if self.is_wrong(&state) {
                return (seen.len(), false);
            }
            next.clear();
            self.commit(state, &mut next);
            self.feed(state, &mut next);
            self.fail(state, &mut next);
            for n in 0..self.fillers {
                self.fill(state, n, &mut next);
            }
            queue.extend(next.iter().filter(|s| seen.insert(**s)));
        }
        (seen.len(), true)
    }

    fn start(&self) -> State {
        let log_fed = self.protocol.is_log_fed();
        let mut fillers = [DONE; FILLERS_MAX];
        fillers[..self.fillers].fill(Filler { step: Step::LookUp, ..DONE });
        State {
            committed: 0,
            hole: 0,
            deletes: 0,
            outside: 0,
            cache: Cache { applied: log_fed.then_some(0), epoch: 1, ..Cache::default() },
            replica: None,
            fillers,
            faults: self.faults.iter().fold(0, |all, fault| all | *fault as u16),
            next_epoch: 2,
        }
    }

    /// The version of the key when everything up to a position is visible, but for `hole`.
    fn version(&self, position: u8, hole: u8) -> u8 {
        let changes = |p: &u8| self.commits[usize::from(*p) - 1] && *p != hole;
        (1..=position).rev().find(changes).unwrap_or(0)
    }

    fn all(&self) -> u8 {
        self.commits.len() as u8
    }

    /// The version of the entry, if it counts.
    fn live(&self, cache: &Cache) -> Option<u8> {
        let (version, epoch) = cache.entry?;
        (!self.protocol.has_epochs() || epoch == cache.epoch).then_some(version)
    }

    fn is_wrong(&self, s: &State) -> bool {
        let Some(live) = self.live(&s.cache) else { return false };
        let lacks = |applied: u8| live < self.version(applied, 0);
        if self.at_all_times && s.cache.applied.is_some_and(lacks) {
            return true;
        }
        let applied = match self.protocol.feed {
            Feed::Deletes { .. } => true,
            Feed::Log { beside: false, .. } => s.outside >= self.all(),
            Feed::Log { .. } => s.cache.applied.is_some_and(|applied| applied >= self.all()),
        };
        let is_over = s.committed == self.all() && s.hole == 0 && s.deletes == 0;
        let is_quiet = is_over && s.fillers.iter().all(|f| f.step == Step::Done);
        is_quiet && applied && live != self.version(self.all(), 0)
    }

    fn commit(&self, s: State, next: &mut Vec<State>) {
        let log_fed = self.protocol.is_log_fed();
        let changes = |position: u8| self.commits[usize::from(position) - 1];
        let deletes = |position: u8| u8::from(!log_fed && changes(position));
        if s.committed < self.all() {
            let committed = s.committed + 1;
            let times = match self.protocol.feed {
                Feed::Deletes { twice: true, .. } => 2,
                _ => 1,
            };
            next.push(State { committed, deletes: s.deletes + times * deletes(committed), ..s });
            if let Some(faults) = spent(&s, Fault::Gap)
                && s.hole == 0
                && committed < self.all()
            {
                let deletes = s.deletes + deletes(committed + 1);
                let (committed, hole) = (committed + 1, committed);
                next.push(State { committed, hole, deletes, faults, ..s });
            }
        }
        if s.hole != 0 {
            next.push(State { hole: 0, deletes: s.deletes + deletes(s.hole), ..s });
        }
    }

    /// The cache hears of changes.
    fn feed(&self, s: State, next: &mut Vec<State>) {
        match self.protocol.feed {
            Feed::Deletes { leases, .. } if s.deletes > 0 => {
                let deletes = s.deletes - 1;
                let misses = leases == Leases::WithEntry && s.cache.entry.is_none();
                let cache = match misses {
                    true => s.cache,
                    false => Cache { entry: None, lease: 0, ..s.cache },
                };
                next.push(State { deletes, cache, ..s });
                if let Some(faults) = spent(&s, Fault::LostDelete) {
                    next.push(State { deletes, faults, ..s });
                }
            }
            Feed::Deletes { .. } => {}
            Feed::Log { beside, epochs, in_order, window, .. } => {
                let visible = if s.hole == 0 { s.committed } else { s.hole - 1 };
                match if beside { s.cache.applied } else { Some(s.outside) } {
                    None => next.push(self.begun(s, visible, epochs)),
                    Some(at) => {
                        if at < visible {
                            next.push(self.applied(s, at + 1));
                        }
                        self.apply_again(s, visible, in_order && epochs, next);
                    }
                }
                // The list of changed keys may be dropped, and begun again where the log is.
                if let (true, Some(at)) = (window, s.cache.applied)
                    && s.cache.floor < at
                {
                    next.push(State { cache: Cache { floor: at, recent: 0, ..s.cache }, ..s });
                }
            }
        }
    }

    /// The cache has lost its fence: what it has is worth nothing, if there are epochs.
    fn begun(&self, s: State, at: u8, epochs: bool) -> State {
        let (epoch, next_epoch) =
            if epochs { (s.next_epoch, s.next_epoch + 1) } else { (1, s.next_epoch) };
        let cache = Cache { applied: Some(at), floor: at, recent: 0, epoch, ..s.cache };
        State { cache, next_epoch, ..s }
    }

    /// A worker that was deposed does what it did before.
    fn apply_again(&self, s: State, visible: u8, in_order: bool, next: &mut Vec<State>) {
        let Some(faults) = spent(&s, Fault::Zombie) else { return };
        for position in 1..=visible {
            if !in_order || s.cache.applied == Some(position - 1) {
                let applied = self.applied(s, position);
                next.push(State { outside: s.outside, faults, ..applied });
            }
        }
    }

    fn applied(&self, s: State, position: u8) -> State {
        let mut cache = s.cache;
        if self.commits[usize::from(position) - 1] {
            cache.entry = match self.live(&s.cache) {
                None if self.protocol.cached_only => s.cache.entry,
                Some(live) if live >= position => s.cache.entry,
                _ => Some((position, s.cache.epoch)),
            };
            cache.recent = cache.recent.max(position);
        }
        cache.applied = cache.applied.map(|applied| applied.max(position));
        State { cache, outside: s.outside.max(position), ..s }
    }

    fn fail(&self, s: State, next: &mut Vec<State>) {
        let has_entry = s.cache.entry.is_some();
        if let Some(faults) = spent(&s, Fault::Evict)
            && (has_entry || s.cache.lease != 0)
        {
            next.push(State { cache: Cache { entry: None, lease: 0, ..s.cache }, faults, ..s });
        }
        if let Some(faults) = spent(&s, Fault::Expire)
            && has_entry
        {
            next.push(State { cache: Cache { entry: None, ..s.cache }, faults, ..s });
        }
        if let Some(faults) = spent(&s, Fault::Flush) {
            next.push(State { cache: Cache::default(), faults, ..s });
        }
        if let Some(faults) = spent(&s, Fault::FenceEvict)
            && s.cache.applied.is_some()
        {
            let Cache { entry, lease, .. } = s.cache;
            next.push(State { cache: Cache { entry, lease, ..Cache::default() }, faults, ..s });
        }
        if let Some(faults) = spent(&s, Fault::Failover) {
            next.push(match s.replica {
                None => State { replica: Some(s.cache), ..s },
                Some(cache) => State { cache, faults, ..s },
            });
        }
    }

    fn fill(&self, s: State, n: usize, next: &mut Vec<State>) {
        let filler = s.fillers[n];
        let with = |filler: Filler, cache: Cache| {
            let mut fillers = s.fillers;
            fillers[n] = filler;
            State { fillers, cache, ..s }
        };
        match filler.step {
            Step::Done => {}
            Step::LookUp if self.live(&s.cache).is_some() => next.push(with(DONE, s.cache)),
            Step::LookUp if self.protocol.needs_lease() => next.push(match s.cache.lease {
                0 => {
                    let lease = n as u8 + 1;
                    with(Filler { step: Step::Read, lease, ..DONE }, Cache { lease, ..s.cache })
                }
                _ => with(DONE, s.cache),
            }),
            Step::LookUp => {
                next.push(with(Filler { step: Step::Read, epoch: s.cache.epoch, ..DONE }, s.cache));
            }
            Step::Read => {
                let lags = self.faults.contains(&Fault::Lag);
                for position in if lags { 0 } else { s.committed }..=s.committed {
                    let version = self.version(position, s.hole);
                    let read = match self.reads_contiguous && s.hole != 0 {
                        true => position.min(s.hole - 1),
                        false => position,
                    };
                    next.push(with(Filler { step: Step::Fill, read, version, ..filler }, s.cache));
                }
            }
            Step::Fill => {
                let accepted = self.accepts(&s.cache, &filler);
                let lease = match self.protocol.needs_lease() && accepted {
                    true => 0,
                    false => s.cache.lease,
                };
                let entry = match accepted {
                    true => Some((filler.version, s.cache.epoch)),
                    false => s.cache.entry,
                };
                next.push(with(DONE, Cache { entry, lease, ..s.cache }));
            }
        }
    }

    /// Whether the cache takes a fill.
    fn accepts(&self, cache: &Cache, filler: &Filler) -> bool {
        let Feed::Log { fenced, epochs, .. } = self.protocol.feed else {
            return !self.protocol.needs_lease() || cache.lease == filler.lease;
        };
        let live = self.live(cache);
        if live.is_some_and(|live| live >= filler.version) {
            return false;
        }
        if !fenced {
            return true;
        }
        let Some(applied) = cache.applied else { return false };
        if epochs && filler.epoch != cache.epoch {
            return false;
        }
        match self.protocol.has_window() {
            true => filler.read >= cache.floor && cache.recent <= filler.read,
            false => live.is_some() || applied <= filler.read,
        }
    }
}

/// The faults that are left when one strikes, if it can.
fn spent(state: &State, fault: Fault) -> Option<u16> {
    (state.faults & fault as u16 != 0).then_some(state.faults & !(fault as u16))
}
