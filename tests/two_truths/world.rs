//! One world: two disks that outlive their processes, a line between them, clocks that differ, and clients on both sides.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use unisono_core::clock::Clock;
use unisono_core::kind::Options;
use unisono_core::source::Source;
use unisono_core::write::{Action, Condition, Write};
use unisono_core::{
    Context, Entity, Field, FieldType, Key, Record, Timestamp, Uuid, Value, json as of_json,
};
use unisono_engine::{Engine, Runtime};
use unisono_policy::conflict::{SyncDeclaration, merge};
use unisono_policy::declaration::{
    Declaration, EntityDeclaration, LogDeclaration, SweepDeclaration,
};
use unisono_policy::rule::Rule;
use unisono_source_memory::{Memory, MemoryDisk, Settings};
use unisono_testkit::link::Link;

use crate::judge;

/// The sides.
pub(crate) const NAMES: [&str; 2] = ["east", "west"];
/// Records that are never deleted, so that what was counted can be counted again.
pub(crate) const LASTING: i64 = 3;
const KEYS: i64 = 8;

/// What happened in all worlds.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) writes: u64,
    pub(crate) conflicts: u64,
    pub(crate) crashes: u64,
    pub(crate) cuts: u64,
    pub(crate) waited_for_clock: u64,
    pub(crate) trimmed: u64,
    pub(crate) counted_on_both: u64,
    pub(crate) preloaded: u64,
}

impl Tally {
    pub(crate) fn is_complete(&self) -> bool {
        let all = [
            self.writes,
            self.conflicts,
            self.crashes,
            self.cuts,
            self.waited_for_clock,
            self.trimmed,
            self.counted_on_both,
            self.preloaded,
        ];
        all.iter().all(|count| *count > 0)
    }
}

/// Virtual time, and how far this clock is off, in microseconds.
struct SkewedClock(tokio::time::Instant, Arc<AtomicI64>);

impl Clock for SkewedClock {
    fn now(&self) -> Timestamp {
        let start = Timestamp::EPOCH.plus(Duration::from_secs(1_000_000_000));
        let now = start.plus(self.0.elapsed()).micros() + self.1.load(Ordering::Relaxed);
        Timestamp::from_micros_clamped(now)
    }
}

/// A world.
pub(crate) struct World {
    random: StdRng,
    start: tokio::time::Instant,
    pub(crate) entity: Arc<Entity>,
    pub(crate) sync: [SyncDeclaration; 2],
    pub(crate) disks: [Arc<MemoryDisk>; 2],
    skews: [Arc<AtomicI64>; 2],
    cut: Arc<AtomicBool>,
    pub(crate) engines: [Option<Engine>; 2],
    /// Keys that existed on both sides before they met: what they had counted is not added.
    pub(crate) preloaded: BTreeSet<Key>,
    numbers: u64,
    trims: bool,
    trimmed: bool,
}

/// Runs the world of a seed.
pub(crate) fn run(seed: u64, tally: &mut Tally) -> Result<(), String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.map_err(|e| e.to_string())?.block_on(async {
        let mut world = World::new(seed);
        world.preload(tally).await;
        world.live(tally).await;
        world.heal().await;
        let judged = judge::judge(&world, tally).await;
        world.end().await;
        judged
    })
}

/// How many records of what gave way both sides have, soon after, shortly before their time is over and afterwards, in a
/// world that keeps them for so long.
pub(crate) fn conflicts_kept_for(time: Duration) -> [usize; 3] {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(async {
        let mut world = World::new(0);
        for sync in &mut world.sync {
            sync.conflicts = time;
        }
        for side in 0..2 {
            world.open(side).await;
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        world.cut.store(true, Ordering::Relaxed);
        for side in 0..2 {
            let record = world.record(0, side, 1);
            let write = Write {
                entity: Arc::clone(&world.entity),
                key: Key::Integer(0),
                action: Action::Put(record),
                condition: Condition::None,
            };
            let engine = world.engines[side].as_ref().unwrap();
            engine.write(&Context::default(), vec![write]).await.unwrap();
        }
        world.cut.store(false, Ordering::Relaxed);
        let soon = Duration::from_secs(60);
        let mut counts = [0; 3];
        for (n, wait) in [soon, time - soon * 2, soon * 3].into_iter().enumerate() {
            tokio::time::sleep(wait).await;
            for engine in world.engines.iter().flatten() {
                counts[n] += engine.conflicts(None, None, 1000).await.unwrap().len();
            }
        }
        world.end().await;
        counts
    })
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let fields = vec![
            Field::new("id", FieldType::Integer),
            Field::new("note", FieldType::String),
            Field { required: true, ..Field::new("count", FieldType::Integer) },
            Field::new("high", FieldType::Integer),
            Field::new("tags", FieldType::List(Box::new(FieldType::String))),
            Field::new("street", FieldType::String),
            Field::new("city", FieldType::String),
        ];
        let entity = Arc::new(Entity::new("thing", "id", fields).unwrap());
        let sync = Self::declared(&mut random, &entity);
        World {
            start: tokio::time::Instant::now(),
            sync,
            entity,
            disks: [1_u128, 2].map(|n| Arc::new(MemoryDisk::with_log(Uuid::from_u128(n << 64)))),
            skews: [Arc::default(), Arc::default()],
            cut: Arc::default(),
            engines: [None, None],
            preloaded: BTreeSet::new(),
            numbers: seed,
            trims: random.random_bool(0.3),
            trimmed: false,
            random,
        }
    }

    fn declared(random: &mut StdRng, entity: &Entity) -> [SyncDeclaration; 2] {
        let by_field = random.random_bool(0.6);
        let way = |name: &str, way: &str| (Arc::from(name), merge::named(way).unwrap());
        let fields = match by_field {
            true => vec![way("count", "counter"), way("high", "max"), way("tags", "union")],
            false => Vec::new(),
        };
        let group = vec![Arc::from("street"), Arc::from("city")];
        let rule = "older.high > newer.high || older.note == newer.note";
        let decides = random.random_range(0..4);
        let first = SyncDeclaration {
            with: NAMES[1].into(),
            table: None,
            prefer: (decides == 0).then(|| NAMES[random.random_range(0..2)].into()),
            older_wins: (decides == 1).then(|| Arc::new(Rule::of_two(entity, rule).unwrap())),
            delete_wins: random.random_bool(0.5),
            fields: fields.into_iter().collect(),
            groups: if by_field { vec![group] } else { Vec::new() },
            max_drift: Duration::from_millis(500),
            conflicts: Duration::ZERO,
        };
        let second = SyncDeclaration { with: NAMES[0].into(), ..first.clone() };
        [first, second]
    }

    /// Whether a log has forgotten something.
    pub(crate) fn trimmed(&self) -> bool {
        self.trimmed
    }

    /// Whether `count` is counted.
    pub(crate) fn counts(&self) -> bool {
        !self.sync[0].fields.is_empty()
    }

    pub(crate) async fn open(&mut self, side: usize) {
        let clock = SkewedClock(self.start, Arc::clone(&self.skews[side]));
        self.numbers += 1;
        let seed = self.numbers.wrapping_mul(7_919);
        let runtime = Runtime::seeded(Arc::new(clock), seed);
        let never = Arc::new(AtomicBool::new(false));
        let of = |n: usize| {
            let disk = Memory::over(NAMES[n], Arc::clone(&self.disks[n]), Settings::default());
            let cut = if n == side { &never } else { &self.cut };
            let link: Arc<dyn Source> = Link::new(disk, cut, seed + n as u64);
            (Arc::from(NAMES[n]), link)
        };
        let declared = EntityDeclaration {
            entity: Arc::clone(&self.entity),
            truth: NAMES[side].into(),
            table: None,
            truth_options: Options::default(),
            cache: None,
            followers: Vec::new(),
            read: Default::default(),
            write: Default::default(),
            ack: Default::default(),
            strategy: None,
            adaptive: None,
            projection: None,
            sync: Some(self.sync[side].clone()),
        };
        let declaration = Declaration {
            entities: [("thing".into(), declared)].into(),
            sweep: SweepDeclaration::NEVER,
            log: LogDeclaration::default(),
            ..Declaration::default()
        };
        let sources: BTreeMap<Arc<str>, Arc<dyn Source>> = [of(0), of(1)].into();
        let opened = Engine::open(declaration, sources, runtime).await;
        self.engines[side] = Some(opened.unwrap_or_else(|e| panic!("{e:?}")).0);
    }

    async fn crash(&mut self, side: usize) {
        if let Some(engine) = self.engines[side].take() {
            engine.runtime().abort();
            engine.runtime().join().await;
        }
    }

    /// Some worlds begin with data on both sides, as copies of each other that have begun to differ.
    async fn preload(&mut self, tally: &mut Tally) {
        if self.random.random_bool(0.4) {
            for n in 0..KEYS {
                let (first, second) =
                    (self.random.random_range(0..3), self.random.random_range(0..2));
                for (side, count) in [first, first + second].into_iter().enumerate() {
                    let record = self.record(n, side, count);
                    self.put_directly(side, record).await;
                }
                self.preloaded.insert(Key::Integer(n));
                tally.preloaded += 1;
            }
        }
        for side in 0..2 {
            self.open(side).await;
        }
    }

    /// Writes to a disk before any engine runs.
    async fn put_directly(&self, side: usize, record: Record) {
        use unisono_core::source::Binding;
        let disk = Memory::over(NAMES[side], Arc::clone(&self.disks[side]), Settings::default());
        let binding = Binding {
            entity: Arc::clone(&self.entity),
            role: unisono_core::Role::Truth,
            place: "thing".into(),
            options: Options::default(),
        };
        disk.prepare(&[binding]).await.unwrap();
        let write = Write {
            entity: Arc::clone(&self.entity),
            key: self.entity.key_of(&record).unwrap(),
            action: Action::Put(record),
            condition: Condition::None,
        };
        let time = Timestamp::EPOCH.plus(Duration::from_secs(900_000_000));
        let unit = unisono_core::write::Unit {
            writes: vec![write],
            idempotency: None,
            time,
            actor: None,
            trace: None,
        };
        let mut done = disk.truth().unwrap().commit(vec![unit]).await.unwrap();
        done.remove(0).unwrap();
    }

    fn record(&mut self, key: i64, side: usize, count: i64) -> Record {
        self.numbers += 1;
        let n = self.numbers;
        let json = json!({
            "id": key, "note": format!("{} {n}", NAMES[side]), "count": count,
            "high": self.random.random_range(0..50), "tags": [format!("t{}", n % 5)],
            "street": format!("s{n}"), "city": format!("c{n}"),
        });
        of_json::parse(&self.entity, &json).unwrap()
    }

    async fn live(&mut self, tally: &mut Tally) {
        for _ in 0..self.random.random_range(60..160) {
            match self.random.random_range(0..40) {
                0 => {
                    let side = self.random.random_range(0..2);
                    self.crash(side).await;
                    self.pause(400).await;
                    self.open(side).await;
                    tally.crashes += 1;
                }
                1 | 2 => {
                    tally.cuts += u64::from(!self.cut.fetch_xor(true, Ordering::Relaxed));
                }
                3 => {
                    let ahead =
                        [0, 200_000, -200_000, 400_000, 5_000_000][self.random.random_range(0..5)];
                    self.skews[self.random.random_range(0..2)].store(ahead, Ordering::Relaxed);
                }
                4 if self.trims => self.trim(tally).await,
                5..=9 => self.pause(1_500).await,
                10..=16 => self.pause(40).await,
                _ => {
                    let side = self.random.random_range(0..2);
                    self.write(side, tally).await;
                }
            }
            let waits = self.engines.iter().flatten();
            for engine in waits {
                let status = engine.status().await;
                tally.waited_for_clock += status.syncs.iter().map(|sync| sync.held).sum::<u64>();
            }
        }
    }

    async fn pause(&mut self, millis_max: u64) {
        let millis = self.random.random_range(0..=millis_max);
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    /// The log of one side forgets everything, whether or not the other one has read it.
    async fn trim(&mut self, tally: &mut Tally) {
        // What was deleted cannot be told from what never was once the log has forgotten it, if nothing else knows.
        let side = self.random.random_range(0..2);
        let disk = Memory::over(NAMES[side], Arc::clone(&self.disks[side]), Settings::default());
        let truth = disk.truth().unwrap();
        let head = truth.bounds().await.unwrap().head;
        self.trimmed = true;
        tally.trimmed += truth.trim(head, Timestamp::EPOCH).await.unwrap();
    }

    /// A client of one side writes: a whole record, one more of something, one field, or a deletion.
    async fn write(&mut self, side: usize, tally: &mut Tally) {
        let Some(engine) = self.engines[side].clone() else { return };
        let number = self.random.random_range(0..KEYS);
        let key = Key::Integer(number);
        let context = Context::default();
        let answer = engine.get(&context, &self.entity, &key).await;
        let Ok(answer) = answer else { return };
        let current = answer.value;
        let version = current.as_ref().map(|stored| stored.version);
        let count = self.entity.index_of("count").unwrap();
        let value = |stored: &unisono_core::Stored| match &stored.record.values()[count] {
            Value::Integer(n) => *n,
            _ => 0,
        };
        let had = current.as_ref().map_or(0, |stored| value(stored));
        let more = had + self.random.random_range(0..4);
        let action = match (self.random.random_range(0..10), &current) {
            (0..=2, Some(_)) => Action::Patch(json!({ "count": more })),
            (3, Some(_)) => Action::Patch(json!({ "high": self.random.random_range(0..50) })),
            (4, Some(_)) if number >= LASTING => Action::Delete,
            (5, Some(_)) => {
                self.numbers += 1;
                Action::Patch(
                    json!({ "street": format!("s{}", self.numbers), "city": format!("c{}", self.numbers) }),
                )
            }
            _ => Action::Put(self.record(number, side, more)),
        };
        let entity = Arc::clone(&self.entity);
        let condition = Condition::Version(version);
        let write = Write { entity, key, action, condition };
        // A write that is given up half way may take place: the log tells.
        let limit = Duration::from_micros(self.random.random_range(1_000..50_000));
        let writing = engine.write(&context, vec![write]);
        let done = tokio::time::timeout(limit, writing).await;
        tally.writes += u64::from(matches!(done, Ok(Ok(_))));
    }

    /// Everything works again, and time passes.
    async fn heal(&mut self) {
        self.cut.store(false, Ordering::Relaxed);
        for side in 0..2 {
            if self.engines[side].is_none() {
                self.open(side).await;
            }
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
    }

    async fn end(&mut self) {
        for side in 0..2 {
            self.crash(side).await;
        }
    }
}
