//! An outlet in a world of its own: one or two processes that send, a truth behind a line that is cut, another side that is
//! away, refuses, is slow and loses answers, crashes between any two steps, and a log that is trimmed before it was sent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use unisono_core::kind::Options;
use unisono_core::outlet::{Begin, Manner, Message, Outlet, OutletSource};
use unisono_core::source::Source;
use unisono_core::stream::{Event, NewEvent};
use unisono_core::{Context, Error, ErrorKind, Position, Result, Uuid};
use unisono_engine::stream::{Appending, Sought};
use unisono_engine::{Engine, Runtime};
use unisono_policy::declaration::{
    Declaration, FollowerDeclaration, LogDeclaration, SweepDeclaration,
};
use unisono_source_memory::{Memory, MemoryDisk, Settings};
use unisono_testkit::link::Link;

use crate::world::{self, TYPE, VirtualClock};

/// The streams that are appended to.
const STREAMS: usize = 4;
/// The type of events that the other side refuses.
const POISON: &str = "poison";

/// How often something happened in all worlds.
pub(crate) type Seen = BTreeMap<&'static str, u64>;

/// What must happen somewhere for the worlds to mean something.
pub(crate) const MUST: [&str; 9] = [
    "answer lost",
    "away",
    "beyond the log",
    "crash",
    "line cut",
    "refused",
    "repeated",
    "taken",
    "two processes",
];

/// The other side, which outlives everybody.
#[derive(Default)]
struct OtherSide {
    /// What it took, in order, with who sent it.
    took: Mutex<Vec<(u64, Event)>>,
    /// Who is sending at present.
    sending: Mutex<Vec<u64>>,
    overlaps: Mutex<Vec<(u64, u64)>>,
    away: AtomicBool,
    seen: Mutex<Seen>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl OtherSide {
    fn count(&self, what: &'static str) {
        *lock(&self.seen).entry(what).or_default() += 1;
    }
}

/// A line to it, of one process.
struct Line {
    side: Arc<OtherSide>,
    process: u64,
    random: Mutex<StdRng>,
    /// Whether answers can be lost.
    lossy: bool,
}

/// A message under way.
struct UnderWay<'a>(&'a OtherSide, u64);

impl<'a> UnderWay<'a> {
    fn begin(side: &'a OtherSide, process: u64) -> Self {
        let mut sending = lock(&side.sending);
        if let Some(other) = sending.iter().find(|other| **other != process) {
            lock(&side.overlaps).push((*other, process));
        }
        sending.push(process);
        UnderWay(side, process)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut sending = lock(&self.0.sending);
        if let Some(n) = sending.iter().position(|process| *process == self.1) {
            sending.remove(n);
        }
    }
}

#[async_trait]
impl Outlet for Line {
    async fn send(&self, message: &Message) -> Result<()> {
        let _under_way = UnderWay::begin(&self.side, self.process);
        let (takes, is_lost) = {
            let mut random = lock(&self.random);
            let slow = random.random_bool(0.02);
            let millis = if slow { 3_000 } else { random.random_range(0..20) };
            (Duration::from_millis(millis), self.lossy && random.random_bool(0.02))
        };
        tokio::time::sleep(takes).await;
        let Some(event) = &message.event else { return Ok(()) };
        if self.side.away.load(Ordering::Relaxed) {
            self.side.count("away");
            return Err(Error::new(ErrorKind::Unavailable, "nobody is there"));
        }
        if event.kind == POISON {
            self.side.count("refused");
            return Err(Error::invalid("not here"));
        }
        let mut took = lock(&self.side.took);
        if took.iter().any(|(_, known)| known.id == event.id) {
            self.side.count("repeated");
        }
        self.side.count("taken");
        took.push((self.process, event.clone()));
        match is_lost {
            true => {
                self.side.count("answer lost");
                Err(Error::new(ErrorKind::Unavailable, "the answer was lost"))
            }
            false => Ok(()),
        }
    }
}

/// A world.
struct World {
    random: StdRng,
    start: tokio::time::Instant,
    disk: Arc<MemoryDisk>,
    cut: Arc<AtomicBool>,
    side: Arc<OtherSide>,
    openings: u64,
    calm: bool,
    appended: Mutex<u64>,
}

/// Runs the world of a seed. In a calm one nothing fails.
pub(crate) fn run(seed: u64, calm: bool, seen: &mut Seen) -> std::result::Result<(), String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.map_err(|e| e.to_string())?.block_on(async {
        let mut random = StdRng::seed_from_u64(seed);
        let mut world = World {
            start: tokio::time::Instant::now(),
            disk: Arc::new(MemoryDisk::with_log(Uuid::from_u128(7))),
            cut: Arc::default(),
            side: Arc::default(),
            openings: seed.wrapping_mul(1000),
            calm,
            appended: Mutex::default(),
            random: StdRng::seed_from_u64(random.random()),
        };
        for _ in 0..random.random_range(1..5) {
            world.live().await;
        }
        let judged = world.end().await;
        for (what, times) in &*lock(&world.side.seen) {
            *seen.entry(what).or_default() += times;
        }
        judged
    })
}

impl World {
    /// One life of one or two processes, to its sudden end.
    async fn live(&mut self) {
        let mut engines = vec![self.open().await];
        if !self.calm && self.random.random_bool(0.5) {
            self.side.count("two processes");
            engines.push(self.open().await);
        }
        // Sometimes nobody takes anything for longer than the log keeps.
        let long = !self.calm && self.random.random_bool(0.3);
        let lasts = match long {
            true => Duration::from_secs(self.random.random_range(100..300)),
            false => Duration::from_millis(self.random.random_range(500..20_000)),
        };
        let seeds: [u64; 3] = self.random.random();
        let clients =
            engines.iter().zip(seeds).map(|(engine, seed)| self.appends(engine, seed, long));
        let clients = futures::future::join_all(clients);
        let faults = self.faults(seeds[2], long);
        let _ = tokio::time::timeout(lasts, async { futures::join!(clients, faults) }).await;
        for engine in &engines {
            if self.calm {
                engine.close().await.unwrap();
                continue;
            }
            engine.runtime().abort();
            engine.runtime().join().await;
            self.side.count("crash");
        }
        self.heal();
        let disk = Memory::over("truth", Arc::clone(&self.disk), Settings::default());
        let trimmed = (disk as Arc<dyn Source>).truth().unwrap().bounds().await.unwrap().trimmed;
        let newest = lock(&self.side.took).iter().map(|(_, event)| event.position).max();
        if newest.unwrap_or_default() < trimmed {
            self.side.count("beyond the log");
        }
    }

    fn heal(&self) {
        self.cut.store(false, Ordering::Relaxed);
        self.side.away.store(false, Ordering::Relaxed);
    }

    async fn appends(&self, engine: &Engine, seed: u64, long: bool) {
        let mut random = StdRng::seed_from_u64(seed);
        for _ in 0..random.random_range(5..60) {
            let pause = if long { 5_000 } else { 300 };
            tokio::time::sleep(Duration::from_millis(random.random_range(0..pause))).await;
            let kind = if !self.calm && random.random_bool(0.05) { POISON } else { "did" };
            let stream = format!("s{}", random.random_range(0..STREAMS));
            let events = (0..random.random_range(1..4)).map(|_| {
                let mut appended = lock(&self.appended);
                *appended += 1;
                let mut event = NewEvent::new(kind, (*appended).into());
                event.id = Some(format!("e{appended}"));
                event
            });
            let appending = Appending::to(stream, events.collect());
            let context = Context { timeout: Duration::from_secs(2), ..Context::default() };
            // What became of it is seen at the end.
            let _ = engine.append(&context, TYPE, appending).await;
        }
        std::future::pending::<()>().await;
    }

    async fn faults(&self, seed: u64, long: bool) {
        if self.calm {
            std::future::pending::<()>().await;
        }
        let mut random = StdRng::seed_from_u64(seed);
        if long {
            self.side.away.store(true, Ordering::Relaxed);
            std::future::pending::<()>().await;
        }
        loop {
            tokio::time::sleep(Duration::from_millis(random.random_range(0..3_000))).await;
            if random.random_bool(0.5) {
                if !self.cut.fetch_xor(true, Ordering::Relaxed) {
                    self.side.count("line cut");
                }
            } else {
                self.side.away.fetch_xor(true, Ordering::Relaxed);
            }
        }
    }

    async fn open(&mut self) -> Engine {
        self.openings += 1;
        let runtime = Runtime::seeded(Arc::new(VirtualClock(self.start)), self.openings);
        let disk = Memory::over("truth", Arc::clone(&self.disk), Settings::default());
        let truth: Arc<dyn Source> = match self.calm {
            true => disk,
            false => Link::new(disk, &self.cut, self.openings),
        };
        let line = Line {
            side: Arc::clone(&self.side),
            process: self.openings,
            random: Mutex::new(StdRng::seed_from_u64(self.openings)),
            lossy: !self.calm,
        };
        let manner = Manner { begin: Begin::First, lanes: 3, attempts: 2 };
        let bus = OutletSource::over("bus", "test", Arc::new(line), manner);
        let sources = [("truth".into(), truth), ("bus".into(), bus)].into();
        let opened = Engine::open(declaration(), sources, runtime).await;
        opened.unwrap_or_else(|e| panic!("{e:?}")).0
    }

    /// With nothing broken any more everything arrives; then it is judged.
    async fn end(&mut self) -> std::result::Result<(), String> {
        let engine = self.open().await;
        let all = everything(&engine).await;
        let wanted: BTreeSet<&str> =
            all.iter().filter(|e| e.kind != POISON).map(|e| e.id.as_str()).collect();
        let arrived = async {
            loop {
                let took: BTreeSet<String> =
                    lock(&self.side.took).iter().map(|(_, event)| event.id.clone()).collect();
                if wanted.iter().all(|id| took.contains(*id)) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let missing = tokio::time::timeout(Duration::from_secs(600), arrived).await.is_err();
        let refused = all.iter().filter(|event| event.kind == POISON).map(|event| event.position);
        let newest = refused.max().unwrap_or_default();
        let settled = async {
            loop {
                let status = engine.status().await;
                if status.deliveries.iter().all(|d| d.position >= newest) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let late = tokio::time::timeout(Duration::from_secs(600), settled).await.is_err();
        let letters = engine.dead_letters().await.map_err(|e| e.to_string())?;
        let judged = self.judge(&all, letters.len(), missing, late);
        engine.runtime().abort();
        engine.runtime().join().await;
        judged
    }

    fn judge(
        &self,
        all: &[Event],
        letters: usize,
        missing: bool,
        late: bool,
    ) -> std::result::Result<(), String> {
        let took = lock(&self.side.took);
        let known: BTreeMap<&str, &Event> = all.iter().map(|e| (e.id.as_str(), e)).collect();
        if missing || late {
            let got: BTreeSet<&str> = took.iter().map(|(_, event)| event.id.as_str()).collect();
            let lost = all.iter().filter(|e| e.kind != POISON && !got.contains(e.id.as_str()));
            let lost: Vec<_> = lost.map(|e| (&e.id, e.position)).collect();
            return Err(format!("it never arrived: {lost:?}, late {late}"));
        }
        let mut newest: BTreeMap<&str, (u64, BTreeSet<u64>)> = BTreeMap::new();
        for (process, event) in took.iter() {
            let Some(stored) = known.get(event.id.as_str()) else {
                return Err(format!("{} was sent and is not in the truth", event.id));
            };
            if *stored != event {
                return Err(format!("{} was sent as {event:?} and is {stored:?}", event.id));
            }
            let (last, sent) = newest.entry(&event.stream).or_default();
            if !sent.insert(event.revision) {
                continue;
            }
            if event.revision < *last {
                return Err(format!("process {process} sent {event:?} behind revision {last}"));
            }
            *last = event.revision;
        }
        let refused = all.iter().filter(|event| event.kind == POISON).count();
        if letters != refused {
            return Err(format!("{refused} were refused, and {letters} are dead letters"));
        }
        if let Some((one, other)) = lock(&self.side.overlaps).first() {
            return Err(format!("processes {one} and {other} sent at the same time"));
        }
        match self.calm && took.len() != all.len() {
            true => {
                Err(format!("{} were sent of {}, and nothing had failed", took.len(), all.len()))
            }
            false => Ok(()),
        }
    }
}

async fn everything(engine: &Engine) -> Vec<Event> {
    let mut after = Position::ZERO;
    let mut all = Vec::new();
    loop {
        let sought = Sought { after: Some(after), limit: 1000, ..Sought::default() };
        let page = engine.read_events(&Context::default(), TYPE, &sought).await.unwrap().value;
        all.extend(page.events);
        match page.next {
            Some(next) => after = next,
            None => return all,
        }
    }
}

/// Events whose log is kept for a moment only, and the outlet.
fn declaration() -> Declaration {
    let bus = FollowerDeclaration {
        source: "bus".into(),
        place: None,
        options: Options::default(),
        filter: None,
        map: None,
        clear: false,
        delivery: Default::default(),
    };
    Declaration {
        entities: world::entities("truth", vec![bus]),
        sweep: SweepDeclaration::NEVER,
        log: LogDeclaration {
            retention: Duration::from_secs(1),
            // More than an outlet adds to it while it is sent everything: each renewed claim is a change.
            changes_max: 30,
            ..LogDeclaration::default()
        },
        ..Declaration::default()
    }
}
