//! One world: disks that outlive the process, lives of the process, and the judgement at the end.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use unisono_core::clock::Clock;
use unisono_core::kind::Options;
use unisono_core::query::Filter;
use unisono_core::source::Source;
use unisono_core::{Entity, Field, FieldType, Timestamp};
use unisono_engine::{Engine, Runtime};
use unisono_policy::declaration::{
    CacheDeclaration, Declaration, EntityDeclaration, FollowerDeclaration, LogDeclaration,
    SamplerDeclaration, SweepDeclaration, WarmQuestion,
};
use unisono_policy::mapping::Mapping;
use unisono_policy::rule::Rule;
use unisono_policy::strategy;
use unisono_source_memory::{Memory, Settings};

use crate::adaptive;
use crate::coverage::Coverage;
use crate::disks::{Disks, FOLLOWERS};
use crate::faults::Faults;
use crate::faulty::Faulty;
use crate::history::History;
use crate::operator::Operator;
use crate::shape::Shape;
use crate::workload::Client;

/// What `stocked` keeps as the stock, in worlds where it has a `map`.
const TENFOLD: &str = "record.stock * 10";

/// Time as tokio's paused timers tell it.
struct VirtualClock(tokio::time::Instant);

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        Timestamp::EPOCH.plus(Duration::from_secs(1_000_000_000) + self.0.elapsed())
    }
}

/// Everything of one world that outlives the process.
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) shape: Arc<Shape>,
    clock: Arc<dyn Clock>,
    pub(crate) faults: Faults,
    pub(crate) history: Arc<History>,
    pub(crate) disks: Arc<Disks>,
    /// How often the engine has been opened.
    openings: u64,
}

/// What became of a world.
pub(crate) struct Outcome {
    pub(crate) result: Result<(), String>,
    pub(crate) calls: u64,
    /// A fingerprint of everything that happened.
    pub(crate) course: u64,
    pub(crate) coverage: Coverage,
}

/// Runs the world of a seed.
pub(crate) fn run(seed: u64, traced: bool) -> Result<Outcome, String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.map_err(|e| e.to_string())?;
    runtime.block_on(async {
        let mut world = World::new(seed, traced);
        let result = world.run().await;
        let seen = world.history.seen();
        for change in seen.log.values() {
            world.faults.mark(format!("{change:?}"));
        }
        Ok(Outcome {
            result,
            calls: world.faults.calls(),
            course: world.faults.course(),
            coverage: seen.coverage.clone(),
        })
    })
}

impl World {
    fn new(seed: u64, traced: bool) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let shape = Arc::new(Shape::draw(&mut random));
        let fields = vec![
            Field::new("id", FieldType::Integer),
            Field::new("stock", FieldType::Integer),
            Field::new("note", FieldType::String),
        ];
        let entity = Entity::new("thing", "id", fields)
            .unwrap_or_else(|e| unreachable!("the declaration is good: {e}"));
        let history = Arc::new(History::new(traced));
        history.trace(|| format!("{shape:?}"));
        let refusing = FOLLOWERS.into_iter().filter(|name| shape.refuses(name));
        history.seen().refusing = refusing.collect();
        World {
            seed,
            clock: Arc::new(VirtualClock(tokio::time::Instant::now())),
            faults: Faults::new(random.random(), &shape, &history),
            shape,
            history,
            disks: Arc::new(Disks::new(&Arc::new(entity))),
            openings: 0,
        }
    }

    async fn run(&mut self) -> Result<(), String> {
        let preloaded = self.disks.preload(self.shape.preloaded).await;
        self.history.committed(&preloaded.map_err(|e| e.to_string())?);
        self.history.seen().preloaded = self.history.head();
        let mut clients: Vec<Client> =
            (0..self.shape.clients).map(|name| self.client(name)).collect();
        let mut operator = Operator {
            shape: Arc::clone(&self.shape),
            faults: self.faults.clone(),
            history: Arc::clone(&self.history),
            disks: Arc::clone(&self.disks),
            copies: BTreeMap::new(),
        };
        for _ in 0..self.shape.lives {
            self.live(&mut clients, &mut operator).await;
            operator.between_lives().await.map_err(|e| e.to_string())?;
        }
        self.faults.end();
        self.history.trace(|| "faults end".to_owned());
        self.history.seen().tampered = false;
        let runtime = self.runtime();
        let engine =
            self.open(&runtime).await.map_err(|e| format!("cannot open without faults: {e:?}"))?;
        for client in &mut clients {
            client.finish(&engine).await?;
        }
        let judged = self.judge(engine).await;
        runtime.abort();
        judged
    }

    fn client(&self, name: usize) -> Client {
        let random = StdRng::seed_from_u64(self.seed.wrapping_mul(31).wrapping_add(name as u64));
        Client {
            name,
            random,
            shape: Arc::clone(&self.shape),
            history: Arc::clone(&self.history),
            disks: Arc::clone(&self.disks),
            token: Default::default(),
            open: None,
            made: 0,
            known: None,
        }
    }

    /// One life of the process: from opening to its sudden end, or to the end of the clients' work.
    async fn live(&mut self, clients: &mut [Client], operator: &mut Operator) {
        self.faults.reborn();
        self.history.seen().tampered = false;
        self.history.trace(|| "the process begins".to_owned());
        let faults = self.faults.clone();
        let runtime = self.runtime();
        let quiet = self.faults.below(3) == 0;
        if self.shape.one_follower_gets {
            self.faults.slow("single", None, 100);
        }
        if self.faults.below(2) == 0 {
            // Reads come in before a delivery knows its dead letters.
            self.faults.slow("truth", Some("list_state"), 4);
        }
        let history = Arc::clone(&self.history);
        let work = async {
            let engine = loop {
                match self.open(&runtime).await {
                    Ok(engine) => break engine,
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            };
            let all = futures::future::join_all(clients.iter_mut().map(|c| c.run(&engine)));
            futures::future::join(all, operator.run(&engine)).await;
            // Some lives go on for a while, so that idle work, trimming and caches without a sign of life happen too.
            if self.seed.is_multiple_of(3) {
                tokio::time::sleep(Duration::from_secs(70)).await;
            }
            adaptive::check(&self.shape, &history, &engine).await;
            if quiet {
                let result = engine.close().await;
                history.trace_result("the process ends", &result);
                history.count("process ended quietly");
            }
        };
        tokio::select! {
            biased;
            () = faults.crashed() => {}
            () = work => {}
        }
        runtime.abort();
        runtime.join().await;
    }

    pub(crate) fn runtime(&self) -> Runtime {
        Runtime::seeded(Arc::clone(&self.clock), self.seed ^ (self.openings << 32))
    }

    pub(crate) async fn open(&mut self, runtime: &Runtime) -> unisono_core::Result<Engine> {
        self.openings += 1;
        let mut sources: BTreeMap<Arc<str>, Arc<dyn Source>> = BTreeMap::new();
        for (name, disk) in self.disks.iter() {
            let lanes = match name {
                "lanes" => self.shape.lanes[0],
                "picky" => self.shape.lanes[1],
                _ => 1,
            };
            let inner =
                Memory::over(name, Arc::clone(disk), Settings { lanes, ..Settings::default() });
            let mut capability = inner.capability().clone();
            if name == "truth" {
                capability.query.get = self.shape.truth_gets;
            } else {
                capability.apply.batch_changes_max = self.shape.batch;
                capability.query.scans = !self.shape.followers_index;
                capability.query.get = name == "single" || !self.shape.one_follower_gets;
            }
            let faulty = Faulty {
                inner,
                before: self.shape.before(name).map(|before| (before, Arc::clone(&self.disks))),
                capability,
                faults: self.faults.clone(),
                history: Arc::clone(&self.history),
                life: self.openings,
                refuses: name == "picky",
                followed: OnceLock::new(),
            };
            sources.insert(name.into(), Arc::new(faulty));
        }
        let (engine, _) = Engine::open(self.declaration()?, sources, runtime.clone()).await?;
        for name in FOLLOWERS {
            // One that cannot be told so now rests for a further life; in the last one nothing fails.
            let _ = engine.resume_source(name).await;
        }
        Ok(engine)
    }

    fn declaration(&self) -> unisono_core::Result<Declaration> {
        let entity = &self.disks.entity;
        let followers = FOLLOWERS.iter().map(|name| {
            let filter = match *name {
                "stocked" => Some(Arc::new(Rule::compile(entity, "record.stock > 3")?)),
                _ => None,
            };
            Ok(FollowerDeclaration {
                source: (*name).into(),
                place: None,
                options: Options::default(),
                filter,
                delivery: self.shape.deliveries.get(name).cloned().unwrap_or_default(),
                map: match *name {
                    "stocked" if self.shape.mapped => {
                        Some(Arc::new(Mapping::compile(entity, [("stock", TENFOLD)])?))
                    }
                    _ => None,
                },
                clear: false,
            })
        });
        let declared = EntityDeclaration {
            entity: Arc::clone(entity),
            truth: "truth".into(),
            table: None,
            truth_options: Options::default(),
            cache: Some(CacheDeclaration {
                source: "cache".into(),
                ttl: self.shape.cache_ttl,
                negative_ttl: Duration::from_secs(5),
                stale: self.shape.cache_stale,
                refresh: true,
                misses_max: self.shape.misses_max,
                filter: match self.shape.cache_filtered {
                    true => Some(Arc::new(Rule::of_cache(entity, "record.stock > 3")?)),
                    false => None,
                },
                lease: Duration::from_secs(2),
                results: self.shape.results,
                warm: self.shape.warm,
                warm_hot: self.shape.warm_hot,
                warm_questions: match self.shape.results.is_zero() {
                    true => Vec::new(),
                    false => vec![WarmQuestion::Count { filter: Filter::All, search: None }],
                },
                options: Options::default(),
                live: Options::default(),
            }),
            followers: followers.collect::<unisono_core::Result<_>>()?,
            read: self.shape.read.clone(),
            write: self.shape.write.clone(),
            ack: self.shape.ack.clone(),
            strategy: self.shape.adaptive.and(strategy::find(strategy::ADAPTIVE)),
            adaptive: self.shape.adaptive,
            projection: None,
            sync: None,
        };
        Ok(Declaration {
            sources: BTreeMap::new(),
            entities: BTreeMap::from([("thing".into(), declared)]),
            archive: None,
            personal: None,
            // The judge has to see what the engine itself leaves.
            sweep: SweepDeclaration::NEVER,
            log: LogDeclaration {
                retention: Duration::from_secs(10),
                changes_max: 20,
                outcomes: Duration::from_secs(3600),
            },
            region: None,
            sampler: Some(SamplerDeclaration { one_in: 4, pending_max: 20 }),
            hooks: BTreeMap::new(),
        })
    }
}
