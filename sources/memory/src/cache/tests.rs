//! The protocol against every interleaving of few steps, against random ones of many, and against real threads.
//!
//! Each check of the protocol was taken out once to see these tests fail: the floor (its begin and its rise) and the
//! recent changes in `fill`, their record in `follow`, the older version in `fill` and in `follow`, the compare-and-set
//! of `applied`, the epoch, and the order of entries and `applied` in `follow`. Two are beyond them: that the *same*
//! version is not filled again saves work only (case `fill-3` of the behaviour suite covers it), and the order of the
//! two reads in `lookup` differs by so few instructions that it rests on the argument in `cache.rs`.

use std::sync::RwLock;
use std::sync::atomic::AtomicBool;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use unisono_core::{Operation, Record, Value, Version};
use unisono_testkit::{LOG, Sample};

use super::*;

const NEVER: Timestamp = Timestamp::EPOCH;
const CAPACITY: u64 = 1_000_000;

fn expires() -> Timestamp {
    NEVER.plus(std::time::Duration::from_secs(1))
}

fn at(number: usize) -> Position {
    Position::new(number as u64).unwrap()
}

/// The truth: change `n` is at position `n + 1`; `present` says whether it put or deleted the record.
#[derive(Clone, Copy)]
struct Written {
    key: i64,
    present: bool,
}

/// The version of the live record of a key after the first `head` changes.
fn state(log: &[Written], key: i64, head: usize) -> Option<usize> {
    let last = log[..head].iter().rposition(|w| w.key == key)?;
    log[last].present.then_some(last + 1)
}

fn change(log: &[Written], n: usize) -> Arc<Change> {
    let Written { key, present } = log[n];
    Arc::new(Change {
        position: at(n + 1),
        entity: "person".into(),
        key: Key::Integer(key),
        operation: if present { Operation::Put } else { Operation::Delete },
        replaced: None,
        image: present.then(|| Arc::new(Record::new(vec![Value::Integer(key)]))),
        time: Timestamp::EPOCH,
        actor: None,
        trace: None,
    })
}

/// What a reader of the truth offers to the cache, from the snapshot at `read`.
fn entry(log: &[Written], key: i64, read: usize) -> Entry {
    match state(log, key, read) {
        Some(version) => entry_of(&change(log, version - 1), expires()),
        None => Entry { stored: None, version: at(read), filled: NEVER, expires: expires() },
    }
}

/// Whether the answer is the state of the key at some position from `applied` on.
fn holds(log: &[Written], key: i64, found: &Lookup) -> bool {
    let Some(entry) = &found.entry else { return true };
    let version = entry.stored.as_ref().map(|s| s.version.as_u64() as usize);
    let applied = found.applied.as_u64() as usize;
    (applied..=log.len()).any(|head| state(log, key, head) == version)
}

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Write,
    Follow,
    /// First a worker prepares a batch, then it follows with it: it may have been deposed meanwhile.
    FollowLate,
    Filler(usize),
    Evict,
    Restart,
}

/// A reader that fills: what it looked up, then what it read.
#[derive(Clone)]
struct Filler {
    key: i64,
    /// How far its snapshot lags behind the head.
    lag: usize,
    epoch: Option<u64>,
    read: Option<(Entry, usize)>,
}

struct World<'a> {
    caches: Caches,
    entity: Arc<Entity>,
    log: &'a [Written],
    head: usize,
    /// The batch that a worker has prepared: from where, to where.
    late: Option<(usize, usize)>,
    fillers: Vec<Filler>,
    /// How far behind the head a restart begins.
    restart_lag: usize,
    /// The versions that were last seen of each key, with their epoch: they never go back while they are there.
    seen: Vec<(u64, Version)>,
}

impl<'a> World<'a> {
    fn new(log: &'a [Written], fillers: &[Filler], recent_keys_max: usize) -> Self {
        let caches = Caches::with_recent(CAPACITY, recent_keys_max);
        let entity = Sample::person();
        caches.restart(&entity, LOG, Position::ZERO);
        World {
            caches,
            entity,
            log,
            head: 0,
            late: None,
            fillers: fillers.to_vec(),
            restart_lag: 0,
            seen: vec![(0, Position::ZERO); 2],
        }
    }

    fn look(&self, key: i64) -> Lookup {
        self.caches.lookup(&self.entity, &Key::Integer(key), NEVER)
    }

    fn applied(&self) -> usize {
        self.look(0).applied.as_u64() as usize
    }

    fn follow(&self, from: usize, to: usize) {
        let changes: Vec<_> = (from..to).map(|n| change(self.log, n)).collect();
        // Being refused is part of the protocol.
        let _ = self.caches.follow(&self.entity, &changes, at(from), at(to), expires());
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Write => self.head += 1,
            Step::Follow if self.applied() < self.head => {
                self.follow(self.applied(), self.applied() + 1)
            }
            Step::Follow => {}
            Step::FollowLate => match self.late.take() {
                None => self.late = Some((self.applied(), self.head)),
                Some((from, to)) => self.follow(from, to.max(from)),
            },
            Step::Filler(n) => self.fill(n),
            Step::Evict => {
                let epoch = self.look(0).epoch;
                for key in 0..2 {
                    self.caches.entries.remove(&PlaceRef(epoch, &Key::Integer(key)));
                }
            }
            Step::Restart => {
                let begin = self.head.saturating_sub(self.restart_lag);
                self.caches.restart(&self.entity, LOG, at(begin));
            }
        }
    }

    /// The next of three steps: look up, read the truth or a replica, offer.
    fn fill(&mut self, n: usize) {
        let found = self.look(self.fillers[n].key);
        let (head, log) = (self.head, self.log);
        let filler = &mut self.fillers[n];
        match (filler.epoch, filler.read.take()) {
            (None, _) => filler.epoch = Some(found.epoch),
            (Some(_), None) => {
                let read = head.saturating_sub(filler.lag);
                filler.read = Some((entry(&log[..head], filler.key, read), read));
            }
            (Some(epoch), Some((entry, read))) => {
                filler.epoch = None;
                self.caches.fill(&self.entity, &Key::Integer(filler.key), entry, at(read), epoch);
            }
        }
    }

    fn check(&mut self, keys: i64, steps: &[Step]) {
        for key in 0..keys {
            let found = self.look(key);
            let version = found.entry.as_ref().map_or(Position::ZERO, |e| e.version);
            let seen = std::mem::replace(&mut self.seen[key as usize], (found.epoch, version));
            let back = seen.0 == found.epoch && version < seen.1 && found.entry.is_some();
            assert!(!back, "{steps:?}: key {key} went back from {} to {version}", seen.1);
            assert!(holds(&self.log[..self.head], key, &found), "{steps:?}: key {key}: {found:?}");
        }
    }

    /// Everything is applied: whatever is cached is right.
    fn finish(&mut self, keys: i64, steps: &[Step]) {
        while self.applied() < self.head {
            self.follow(self.applied(), self.head);
        }
        self.check(keys, steps);
    }
}

/// Calls `run` with every order of the steps.
fn each_order(steps: &mut [(Step, usize)], order: &mut Vec<Step>, run: &mut impl FnMut(&[Step])) {
    let mut any = false;
    for n in 0..steps.len() {
        if steps[n].1 > 0 {
            any = true;
            steps[n].1 -= 1;
            order.push(steps[n].0);
            each_order(steps, order, run);
            order.pop();
            steps[n].1 += 1;
        }
    }
    if !any {
        run(order);
    }
}

fn filler(key: i64, lag: usize) -> Filler {
    Filler { key, lag, epoch: None, read: None }
}

fn exhaust(log: &[Written], fillers: &[Filler], restart_lag: usize, steps: &[(Step, usize)]) {
    let mut runs = 0;
    each_order(&mut steps.to_vec(), &mut Vec::new(), &mut |order| {
        let mut world = World::new(log, fillers, 1);
        world.restart_lag = restart_lag;
        for (n, step) in order.iter().enumerate() {
            world.step(*step);
            world.check(1, &order[..=n]);
        }
        world.finish(1, order);
        runs += 1;
    });
    assert!(runs > 1000, "only {runs} orders");
}

fn put_then(present: bool) -> [Written; 2] {
    [Written { key: 0, present: true }, Written { key: 0, present }]
}

#[test]
fn two_fillers_and_an_eviction_in_every_order() {
    for present in [true, false] {
        let steps = [
            (Step::Write, 2),
            (Step::Follow, 2),
            (Step::Filler(0), 3),
            (Step::Filler(1), 3),
            (Step::Evict, 1),
        ];
        // Of the lagging filler the first step is done before everything else.
        let mut lagging = filler(0, 1);
        lagging.epoch = Some(1);
        let steps = steps.map(|(s, n)| if s == Step::Filler(1) { (s, 2) } else { (s, n) });
        exhaust(&put_then(present), &[filler(0, 0), lagging], 0, &steps);
    }
}

#[test]
fn a_restart_and_an_eviction_in_every_order() {
    for present in [true, false] {
        let steps = [
            (Step::Write, 2),
            (Step::Follow, 2),
            (Step::Filler(0), 3),
            (Step::Restart, 1),
            (Step::Evict, 1),
        ];
        exhaust(&put_then(present), &[filler(0, 1)], 0, &steps);
    }
}

#[test]
fn a_deposed_worker_in_every_order() {
    for present in [true, false] {
        let steps = [
            (Step::Write, 2),
            (Step::Follow, 2),
            (Step::FollowLate, 2),
            (Step::Filler(0), 3),
            (Step::Restart, 1),
        ];
        exhaust(&put_then(present), &[filler(0, 1)], 1, &steps);
    }
}

#[test]
fn random_orders_of_many_steps() {
    for seed in 0..4000 {
        let mut rng = StdRng::seed_from_u64(seed);
        let log: Vec<_> = (0..rng.random_range(1..10))
            .map(|_| Written { key: rng.random_range(0..2), present: rng.random_bool(0.7) })
            .collect();
        let fillers: Vec<_> =
            (0..4).map(|_| filler(rng.random_range(0..2), rng.random_range(0..4))).collect();
        let mut steps = vec![Step::Write; log.len()];
        steps.extend(vec![Step::Follow; rng.random_range(0..10)]);
        steps.extend(vec![Step::FollowLate; rng.random_range(0..5)]);
        steps.extend(vec![Step::Evict; rng.random_range(0..3)]);
        steps.extend(vec![Step::Restart; rng.random_range(0..3)]);
        steps.extend((0..rng.random_range(0..30)).map(|_| Step::Filler(rng.random_range(0..4))));
        steps.shuffle(&mut rng);
        let mut world = World::new(&log, &fillers, rng.random_range(1..4));
        world.restart_lag = rng.random_range(0..4);
        for (n, step) in steps.iter().enumerate() {
            world.step(*step);
            world.check(2, &steps[..=n]);
        }
        world.finish(2, &steps);
    }
}

/// A truth that threads share: the log, of which they know the end.
#[derive(Default)]
struct Truth {
    log: RwLock<Vec<Written>>,
}

impl Truth {
    fn write(&self, key: i64, present: bool) {
        self.log.write().unwrap().push(Written { key, present });
    }

    fn read(&self, key: i64) -> (Entry, Position) {
        let log = self.log.read().unwrap();
        (entry(&log, key, log.len()), at(log.len()))
    }

    /// Whether an answer is the state of the key at some position from `applied` on.
    fn check(&self, key: i64, found: &Lookup) {
        let Some(entry) = &found.entry else { return };
        let log = self.log.read().unwrap();
        let applied = found.applied.as_u64() as usize;
        let version = entry.stored.as_ref().map(|s| s.version.as_u64() as usize);
        // The state at `applied`, or that after any later change of the key.
        let later = (applied + 1..=log.len()).filter(|p| log[p - 1].key == key);
        let mut states = std::iter::once(applied).chain(later).map(|p| state(&log, key, p));
        assert!(states.any(|s| s == version), "key {key}, applied {applied}: {entry:?}");
    }
}

#[test]
fn threads_never_see_an_entry_older_than_applied() {
    const KEYS: i64 = 4;
    const WRITES: usize = 3000;
    // So small that entries are evicted now and then.
    let caches = Caches::with_recent(6000, 3);
    let entity = Sample::person();
    caches.restart(&entity, LOG, Position::ZERO);
    let (truth, done) = (Truth::default(), AtomicBool::new(false));
    let worker = |seed: u64| {
        let (caches, truth, done, entity) = (&caches, &truth, &done, &entity);
        move || {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut hits = 0;
            while !done.load(Ordering::Relaxed) {
                let key = rng.random_range(0..KEYS);
                let found = caches.lookup(entity, &Key::Integer(key), NEVER);
                truth.check(key, &found);
                hits += u64::from(found.entry.is_some());
                let (entry, read) = truth.read(key);
                if rng.random_bool(0.3) {
                    std::thread::yield_now();
                }
                caches.fill(entity, &Key::Integer(key), entry, read, found.epoch);
            }
            hits
        }
    };
    let hits: u64 = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|seed| scope.spawn(worker(seed))).collect();
        let mut rng = StdRng::seed_from_u64(99);
        for n in 0..WRITES {
            truth.write(rng.random_range(0..KEYS), rng.random_bool(0.8));
            let applied = caches.lookup(&entity, &Key::Integer(0), NEVER).applied.as_u64() as usize;
            if n % 700 == 699 {
                caches.restart(&entity, LOG, at(n + 1));
            } else if rng.random_bool(0.7) {
                let changes: Vec<_> = {
                    let log = truth.log.read().unwrap();
                    (applied..log.len()).map(|n| change(&log, n)).collect()
                };
                let to = at(applied + changes.len());
                caches.follow(&entity, &changes, at(applied), to, expires()).unwrap();
            }
            std::thread::yield_now();
        }
        done.store(true, Ordering::Relaxed);
        workers.into_iter().map(|w| w.join().unwrap()).sum()
    });
    assert!(hits > 100, "the cache was hardly ever hit: {hits}");
}

/// One key that every change concerns, so that `version >= applied` is the whole promise and costs nothing to check:
/// what needs a step of another thread at one certain instant is hit among very many.
#[test]
fn a_hot_key_is_never_older_than_applied() {
    const CHANGES: usize = 60_000;
    let caches = Caches::new(CAPACITY);
    let (entity, key) = (Sample::person(), Key::Integer(0));
    let epoch = caches.restart(&entity, LOG, Position::ZERO);
    let (head, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let written = |n: u64| {
        let mut change = change(&[Written { key: 0, present: true }], 0).as_ref().clone();
        change.position = Position::new(n).unwrap();
        change
    };
    let reader = || {
        let mut older = Vec::new();
        while !done.load(Ordering::Relaxed) {
            let found = caches.lookup(&entity, &key, NEVER);
            older.extend(
                found
                    .entry
                    .filter(|e| e.version < found.applied)
                    .map(|e| (e.version, found.applied)),
            );
        }
        older
    };
    let filler = || {
        while !done.load(Ordering::Relaxed) {
            let read = head.load(Ordering::Acquire);
            if read > 0 {
                let entry = entry_of(&written(read), expires());
                caches.fill(&entity, &key, entry, Position::new(read).unwrap(), epoch);
            }
            caches.entries.remove(&PlaceRef(epoch, &key));
        }
    };
    std::thread::scope(|scope| {
        let readers = [scope.spawn(reader), scope.spawn(reader)];
        let fillers = [scope.spawn(filler), scope.spawn(filler)];
        for n in 1..=CHANGES {
            let change = written(n as u64);
            head.store(n as u64, Ordering::Release);
            let followed = caches.follow(&entity, &[Arc::new(change)], at(n - 1), at(n), expires());
            assert!(followed.is_ok(), "nobody else follows");
        }
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            assert_eq!(reader.join().unwrap(), [], "(version, applied) of entries that were older");
        }
        fillers.into_iter().for_each(|f| f.join().unwrap());
    });
}

#[test]
fn the_capacity_bounds_what_is_held() {
    let caches = Caches::new(100_000);
    let entity = Sample::person();
    let epoch = caches.restart(&entity, LOG, Position::ZERO);
    let put = |key: i64, bytes: usize| {
        let record = Record::new(vec![Value::Integer(key), Value::String("x".repeat(bytes))]);
        let mut changed = change(&[Written { key, present: true }], 0).as_ref().clone();
        changed.image = Some(Arc::new(record));
        changed
    };
    for key in 0..2000 {
        let entry = entry_of(&put(key, 100), expires());
        caches.fill(&entity, &Key::Integer(key), entry, at(1), epoch);
        assert!(caches.entries.weight() <= 100_000);
    }
    assert!(caches.entries.len() > 100, "the capacity is not used");
    // A change that makes a record too large for the cache must not leave the old state behind.
    let key = (0..2000)
        .find(|key| caches.lookup(&entity, &Key::Integer(*key), NEVER).entry.is_some())
        .unwrap();
    let mut large = put(key, 200_000);
    large.position = at(2);
    caches.follow(&entity, &[Arc::new(large)], Position::ZERO, at(2), expires()).unwrap();
    assert!(caches.lookup(&entity, &Key::Integer(key), NEVER).entry.is_none());
}
