//! One world: disks that outlive the process, lives of the process, and the judgement at the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use unisono_core::clock::Clock;
use unisono_core::source::{Binding, Source};
use unisono_core::{Entity, Field, FieldType, Key, Role, Stored, Timestamp, Uuid};
use unisono_engine::verify::report::VerifyOptions;
use unisono_engine::{Engine, Runtime};
use unisono_policy::declaration::{
    CacheDeclaration, Declaration, EntityDeclaration, FollowerDeclaration, LogDeclaration,
};
use unisono_policy::rule::Rule;
use unisono_source_memory::{Memory, MemoryDisk, Settings};

use crate::checkers;
use crate::faults::{Faults, Faulty, POISON};
use crate::history::History;
use crate::workload::Client;

/// The followers: all records in four lanes, all records in one, those with stock, and one that refuses poison.
const FOLLOWERS: [&str; 4] = ["lanes", "single", "stocked", "picky"];
const LIVES: u32 = 3;
const CLIENTS: usize = 3;

/// Time as tokio's paused timers tell it.
struct VirtualClock(tokio::time::Instant);

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        Timestamp::EPOCH.plus(Duration::from_secs(1_000_000_000) + self.0.elapsed())
    }
}

struct World {
    seed: u64,
    entity: Arc<Entity>,
    clock: Arc<dyn Clock>,
    faults: Faults,
    history: Arc<History>,
    disks: BTreeMap<&'static str, Arc<MemoryDisk>>,
    lives: u64,
}

/// Runs the world of a seed; answers how many calls to sources it took.
pub(crate) fn run(seed: u64) -> Result<u64, String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.map_err(|e| e.to_string())?;
    runtime.block_on(World::new(seed).run())
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let level = [0.02, 0.05, 0.1, 0.2][random.random_range(0..4)];
        let fields = vec![
            Field::new("id", FieldType::Integer),
            Field::new("stock", FieldType::Integer),
            Field::new("note", FieldType::String),
        ];
        let entity = Entity::new("thing", "id", fields)
            .unwrap_or_else(|e| unreachable!("the declaration is good: {e}"));
        let names = ["truth", "cache"].into_iter().chain(FOLLOWERS);
        World {
            seed,
            entity: Arc::new(entity),
            clock: Arc::new(VirtualClock(tokio::time::Instant::now())),
            faults: Faults::new(random.random(), level),
            history: Arc::default(),
            disks: names
                .zip(1..)
                .map(|(name, n)| (name, Arc::new(MemoryDisk::with_log(Uuid::from_u128(n << 64)))))
                .collect(),
            lives: 0,
        }
    }

    async fn run(mut self) -> Result<u64, String> {
        let mut clients: Vec<Client> = (0..CLIENTS).map(|name| self.client(name)).collect();
        let mut copies = BTreeMap::new();
        for _ in 0..LIVES {
            self.live(&mut clients).await;
            self.between_lives(&mut copies);
        }
        self.faults.end();
        let runtime = self.runtime();
        let engine =
            self.open(&runtime).await.map_err(|e| format!("cannot open without faults: {e:?}"))?;
        for client in &mut clients {
            client.finish(&engine, &self.history).await?;
        }
        let judged = self.judge(&engine).await;
        runtime.abort();
        judged.map(|()| self.faults.calls())
    }

    fn client(&self, name: usize) -> Client {
        let random = StdRng::seed_from_u64(self.seed.wrapping_mul(31).wrapping_add(name as u64));
        Client { name, random, token: Default::default(), open: None, made: 0 }
    }

    /// One life of the process: from opening to its sudden end, or to the end of the clients' work.
    async fn live(&mut self, clients: &mut [Client]) {
        self.faults.reborn();
        let runtime = self.runtime();
        let requests = 12;
        let work = async {
            let engine = loop {
                match self.open(&runtime).await {
                    Ok(engine) => break engine,
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            };
            let all = clients.iter_mut().map(|c| c.run(&engine, &self.history, requests));
            futures::future::join_all(all).await;
            // Some lives go on for a while, so that idle work, trimming and caches without a sign of life happen too.
            if self.seed % 3 == 0 {
                tokio::time::sleep(Duration::from_secs(70)).await;
            }
        };
        tokio::select! {
            biased;
            () = self.faults.crashed() => {}
            () = work => {}
        }
        runtime.abort();
        runtime.join().await;
    }

    /// Followers may lose what they had, or come back as they once were.
    fn between_lives(&mut self, copies: &mut BTreeMap<&'static str, MemoryDisk>) {
        self.lives += 1;
        for name in FOLLOWERS {
            let Some(disk) = self.disks.get(name) else { continue };
            match self.faults.below(8) {
                0 => disk.wipe(),
                1 => drop(copies.insert(name, disk.copy())),
                2 => {
                    if let Some(copy) = copies.get(name) {
                        disk.restore(copy);
                    }
                }
                _ => {}
            }
        }
    }

    fn runtime(&self) -> Runtime {
        Runtime::seeded(Arc::clone(&self.clock), self.seed ^ (self.lives << 32))
    }

    async fn open(&self, runtime: &Runtime) -> unisono_core::Result<Engine> {
        let mut sources: BTreeMap<Arc<str>, Arc<dyn Source>> = BTreeMap::new();
        for (name, disk) in &self.disks {
            let lanes = if *name == "lanes" { 4 } else { 1 };
            let faulty = Faulty {
                inner: Memory::over(
                    name,
                    Arc::clone(disk),
                    Settings { lanes, ..Settings::default() },
                ),
                faults: self.faults.clone(),
                history: Arc::clone(&self.history),
                refuses: *name == "picky",
            };
            sources.insert((*name).into(), Arc::new(faulty));
        }
        Ok(Engine::open(self.declaration()?, sources, runtime.clone()).await?.0)
    }

    fn declaration(&self) -> unisono_core::Result<Declaration> {
        let followers = FOLLOWERS.iter().map(|name| {
            let filter = match *name {
                "stocked" => Some(Arc::new(Rule::compile(&self.entity, "record.stock > 3")?)),
                _ => None,
            };
            Ok(FollowerDeclaration { source: (*name).into(), place: None, filter })
        });
        let declared = EntityDeclaration {
            entity: Arc::clone(&self.entity),
            truth: "truth".into(),
            table: None,
            cache: Some(CacheDeclaration {
                source: "cache".into(),
                ttl: Duration::from_secs(20),
                negative_ttl: Duration::from_secs(5),
            }),
            followers: followers.collect::<unisono_core::Result<_>>()?,
        };
        Ok(Declaration {
            sources: BTreeMap::new(),
            entities: BTreeMap::from([("thing".into(), declared)]),
            log: LogDeclaration {
                retention: Duration::from_secs(10),
                changes_max: 20,
                outcomes: Duration::from_secs(3600),
            },
        })
    }

    async fn judge(&self, engine: &Engine) -> Result<(), String> {
        checkers::check(&self.history.seen())?;
        let token = engine.head_token().await.map_err(|e| e.to_string())?;
        engine
            .wait_applied(&token, Duration::from_secs(300))
            .await
            .map_err(|e| format!("P2: followers do not catch up: {e}"))?;
        let truth = self.records("truth").await?;
        let letters = engine.dead_letters().await.map_err(|e| e.to_string())?;
        for name in FOLLOWERS {
            let wanted = |s: &Stored| {
                name != "stocked"
                    || matches!(s.record.values()[1], unisono_core::Value::Integer(stock) if stock > 3)
            };
            let expected = truth
                .iter()
                .filter(|(_, s)| wanted(s))
                .map(|(k, s)| (k.clone(), s.clone()))
                .collect();
            let held = self.records(name).await?;
            let of_source = letters.iter().filter(|l| *l.source == *name).map(|l| l.key.clone());
            let of_source: Vec<String> = of_source.collect();
            checkers::follower_agrees(name, &expected, &held, &of_source)?;
            self.letters_are_for_poison(name, &expected, &of_source)?;
        }
        self.verify_agrees(engine, &letters.iter().map(|l| l.key.clone()).collect::<Vec<_>>()).await
    }

    /// A dead letter waits for a record that is refused, and for no other.
    fn letters_are_for_poison(
        &self,
        name: &str,
        expected: &BTreeMap<Key, Stored>,
        letters: &[String],
    ) -> Result<(), String> {
        let poisoned = |key: &String| {
            expected.iter().any(|(k, s)| {
                k.to_string() == *key && s.record.values()[2].as_str() == Some(POISON)
            })
        };
        match letters.iter().find(|key| name != "picky" || !poisoned(key)) {
            Some(key) => {
                Err(format!("a dead letter of {name} waits for {key}, which is not refused"))
            }
            None => Ok(()),
        }
    }

    /// The product's own verification agrees with this judge.
    async fn verify_agrees(&self, engine: &Engine, letters: &[String]) -> Result<(), String> {
        let report =
            engine.verify(&VerifyOptions::default(), &|_| {}).await.map_err(|e| e.to_string())?;
        for comparison in &report.comparisons {
            let unexpected = comparison.differences.iter().find(|d| !letters.contains(&d.key));
            if let Some(difference) = unexpected {
                return Err(format!(
                    "verify finds {:?} of {} {:?}",
                    difference.key, comparison.source, difference.class
                ));
            }
            if let Some(error) = &comparison.error {
                return Err(format!("verify of {} failed: {error}", comparison.source));
            }
        }
        Ok(())
    }

    /// What a disk holds, read past the engine.
    async fn records(&self, name: &'static str) -> Result<BTreeMap<Key, Stored>, String> {
        let disk = self.disks.get(name).ok_or("no such disk")?;
        let source = Memory::over(name, Arc::clone(disk), Settings::default());
        let role = if name == "truth" { Role::Truth } else { Role::Follower };
        let binding = Binding { entity: Arc::clone(&self.entity), role, place: "thing".into() };
        source.prepare(&[binding]).await.map_err(|e| e.to_string())?;
        let auditor = Arc::clone(&source).auditor().ok_or("no auditor")?;
        let page = auditor.scan(&self.entity, None, 1000).await.map_err(|e| e.to_string())?;
        Ok(page.value.records.into_iter().map(|s| (s.key.clone(), s)).collect())
    }
}
