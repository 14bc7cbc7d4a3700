//! One world: two disks that outlive the process, the lines to them, clients, and a reader who follows everything.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use unisono_core::clock::Clock;
use unisono_core::kind::Options;
use unisono_core::source::Source;
use unisono_core::stream::{self, Event};
use unisono_core::{Context, Entity, Position, Timestamp, Uuid};
use unisono_engine::stream::Sought;
use unisono_engine::{Engine, Runtime};
use unisono_policy::declaration::{
    Declaration, EntityDeclaration, FollowerDeclaration, LogDeclaration, SweepDeclaration,
};
use unisono_source_memory::{Memory, MemoryDisk, Settings};
use unisono_testkit::link::Link;

use crate::client::Client;
use crate::judge;

/// The type of all streams.
pub(crate) const TYPE: &str = "thing";
/// The truth, and its follower.
const SOURCES: [&str; 2] = ["truth", "copy"];

/// How often something happened in all worlds.
#[derive(Debug, Default)]
pub(crate) struct Tally(BTreeMap<&'static str, u64>);

impl Tally {
    const ALL: [&'static str; 12] = [
        "appended",
        "answer lost",
        "answered by the copy",
        "archived",
        "closed",
        "condition refused",
        "crash",
        "deleted",
        "line cut",
        "refused",
        "replayed",
        "withdrawn",
    ];

    pub(crate) fn count(&mut self, what: &'static str) {
        assert!(Self::ALL.contains(&what), "{what} is not on the list");
        *self.0.entry(what).or_default() += 1;
    }

    pub(crate) fn never(&self) -> Vec<&'static str> {
        Self::ALL.into_iter().filter(|what| !self.0.contains_key(what)).collect()
    }
}

/// The time of a world.
pub(crate) struct VirtualClock(pub(crate) tokio::time::Instant);

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        Timestamp::EPOCH.plus(Duration::from_secs(1_000_000_000) + self.0.elapsed())
    }
}

/// A reader of everything, who remembers what it was given and up to where.
#[derive(Default)]
pub(crate) struct Followed {
    pub(crate) through: Position,
    pub(crate) events: Vec<Event>,
}

/// A world.
pub(crate) struct World {
    random: StdRng,
    start: tokio::time::Instant,
    disks: [Arc<MemoryDisk>; 2],
    cuts: [Arc<AtomicBool>; 2],
    openings: u64,
    pub(crate) clients: Vec<Client>,
    pub(crate) followed: Mutex<Followed>,
}

/// Runs the world of a seed.
pub(crate) fn run(seed: u64, tally: &mut Tally) -> Result<(), String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.map_err(|e| e.to_string())?.block_on(async {
        let counted = Mutex::new(std::mem::take(tally));
        let mut world = World::new(seed);
        for _ in 0..world.random.random_range(2..6) {
            world.live(&counted).await;
        }
        let judged = world.end(&counted).await;
        *tally = counted.into_inner().unwrap_or_else(PoisonError::into_inner);
        judged
    })
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let clients = random.random_range(2..7);
        World {
            start: tokio::time::Instant::now(),
            disks: [1_u128, 2].map(|n| Arc::new(MemoryDisk::with_log(Uuid::from_u128(n << 64)))),
            cuts: [Arc::default(), Arc::default()],
            openings: seed.wrapping_mul(1000),
            clients: (0..clients).map(|name| Client::new(name, random.random())).collect(),
            followed: Mutex::default(),
            random,
        }
    }

    /// One life of the process, to its sudden end.
    async fn live(&mut self, tally: &Mutex<Tally>) {
        let engine = self.open().await;
        let lasts = Duration::from_millis(self.random.random_range(50..4000));
        let (cuts, mut random) = (self.cuts.clone(), StdRng::seed_from_u64(self.random.random()));
        let clients = join_all(self.clients.iter_mut().map(|client| client.run(&engine, tally)));
        let follows = follow(&engine, &self.followed);
        let cutting = async {
            loop {
                tokio::time::sleep(Duration::from_millis(random.random_range(0..600))).await;
                if !cuts[random.random_range(0..2)].fetch_xor(true, Ordering::Relaxed) {
                    tally.lock().unwrap().count("line cut");
                }
            }
        };
        // The process is gone from one moment to the next, or everybody has made their requests.
        let _ = tokio::time::timeout(lasts, async {
            tokio::select! {
                _ = clients => {}
                () = follows => {}
                () = cutting => {}
            }
        })
        .await;
        engine.runtime().abort();
        engine.runtime().join().await;
        tally.lock().unwrap().count("crash");
        self.heal();
    }

    fn heal(&self) {
        self.cuts.iter().for_each(|cut| cut.store(false, Ordering::Relaxed));
    }

    /// With nothing broken any more, everybody comes to an end, and it is judged.
    async fn end(&mut self, tally: &Mutex<Tally>) -> Result<(), String> {
        let engine = self.open().await;
        for client in &mut self.clients {
            client.finish(&engine, tally).await?;
        }
        let all = judge::everything(&engine).await?;
        let last = all.last().map(|event| event.position).unwrap_or_default();
        let caught_up = async {
            while self.followed.lock().unwrap().through < last {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let waited = async {
            tokio::select! {
                () = follow(&engine, &self.followed) => {}
                () = caught_up => {}
            }
        };
        let limit = Duration::from_secs(300);
        let waited = tokio::time::timeout(limit, waited).await;
        waited.map_err(|_| "whoever follows does not come to the end".to_owned())?;
        let judged = judge::judge(self, &engine, &all).await;
        engine.runtime().abort();
        engine.runtime().join().await;
        judged
    }

    async fn open(&mut self) -> Engine {
        self.openings += 1;
        let runtime = Runtime::seeded(Arc::new(VirtualClock(self.start)), self.openings);
        let sources = (0..2).map(|n| {
            let disk = Memory::over(SOURCES[n], Arc::clone(&self.disks[n]), Settings::default());
            let link: Arc<dyn Source> =
                Link::new(disk, &self.cuts[n], self.openings * 2 + n as u64);
            (Arc::from(SOURCES[n]), link)
        });
        let opened = Engine::open(declaration(), sources.collect(), runtime).await;
        opened.unwrap_or_else(|e| panic!("{e:?}")).0
    }
}

/// Follows everything from where the reader was, for as long as it is let.
async fn follow(engine: &Engine, followed: &Mutex<Followed>) {
    loop {
        let after = followed.lock().unwrap().through;
        let sought = Sought { after: Some(after), limit: 7, ..Sought::default() };
        let context = Context { timeout: Duration::from_secs(2), ..Context::default() };
        match engine.follow_events(&context, TYPE, &sought, Duration::from_secs(1)).await {
            Ok(page) => {
                let mut followed = followed.lock().unwrap();
                followed.through = page.events.last().map_or(page.through, |event| event.position);
                followed.events.extend(page.events);
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Events and their tags, in one truth.
pub(crate) fn entities(
    truth: &str,
    followers: Vec<FollowerDeclaration>,
) -> BTreeMap<Arc<str>, EntityDeclaration> {
    let events = Arc::new(stream::entity(TYPE).unwrap());
    let tags = Arc::new(stream::tags_entity(TYPE).unwrap());
    let entities = [kept(truth, events, followers), kept(truth, tags, Vec::new())];
    entities.map(|d| (Arc::clone(d.entity.name()), d)).into()
}

fn declaration() -> Declaration {
    let copy = FollowerDeclaration {
        source: SOURCES[1].into(),
        place: None,
        options: Options::default(),
        filter: None,
        map: None,
        clear: false,
        delivery: Default::default(),
    };
    Declaration {
        entities: entities(SOURCES[0], vec![copy]),
        sweep: SweepDeclaration::NEVER,
        log: LogDeclaration::default(),
        ..Declaration::default()
    }
}

fn kept(
    truth: &str,
    entity: Arc<Entity>,
    followers: Vec<FollowerDeclaration>,
) -> EntityDeclaration {
    EntityDeclaration {
        entity,
        truth: truth.into(),
        table: None,
        truth_options: Options::default(),
        cache: None,
        followers,
        read: Default::default(),
        write: Default::default(),
        ack: Default::default(),
        strategy: None,
        adaptive: None,
        projection: None,
        sync: None,
    }
}
