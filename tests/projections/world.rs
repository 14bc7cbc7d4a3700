//! One world: the disks of the truth and of the target, the lines to them, and processes that come and go.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use unisono_core::clock::Clock;
use unisono_core::kind::Options;
use unisono_core::query::Query;
use unisono_core::source::Source;
use unisono_core::{Consistency, Value};
use unisono_core::{Context, Entity, Error, Field, FieldType, Result as Answered, Timestamp, Uuid};
use unisono_engine::{Engine, Runtime};
use unisono_policy::declaration::{
    Declaration, EntityDeclaration, FollowerDeclaration, LogDeclaration, SweepDeclaration,
};
use unisono_policy::projection::{
    BesideState, Declared, DeclaredKey, DeclaredValue, Function, Projection,
};
use unisono_policy::rule::Expression;
use unisono_source_memory::{Memory, MemoryDisk, Settings};
use unisono_testkit::link::Link;

use crate::people::{Follower, Operator, Writer};

/// The truth, and the target.
const SOURCES: [&str; 2] = ["truth", "target"];
/// What is worked out.
pub(crate) const SALES: &str = "sales";

/// What is sold of each product, and in how many lines.
pub(crate) type Sales = BTreeMap<String, (i64, i64)>;

/// How often something happened in all worlds.
#[derive(Debug, Default)]
pub(crate) struct Tally(BTreeMap<&'static str, u64>);

impl Tally {
    const ALL: [&'static str; 14] = [
        "answer lost",
        "back",
        "crash",
        "crash while a version was made",
        "discard",
        "followed anew",
        "followed on",
        "former version judged",
        "line cut",
        "made in the declared place",
        "read by token",
        "rebuild",
        "swap",
        "two processes",
    ];

    pub(crate) fn count(&mut self, what: &'static str) {
        assert!(Self::ALL.contains(&what), "{what} is not on the list");
        *self.0.entry(what).or_default() += 1;
    }

    pub(crate) fn never(&self) -> Vec<&'static str> {
        Self::ALL.into_iter().filter(|what| !self.0.contains_key(what)).collect()
    }
}

struct VirtualClock(tokio::time::Instant);

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        Timestamp::EPOCH.plus(Duration::from_secs(1_000_000_000) + self.0.elapsed())
    }
}

struct World {
    random: StdRng,
    start: tokio::time::Instant,
    disks: [Arc<MemoryDisk>; 2],
    cuts: [Arc<AtomicBool>; 2],
    openings: u64,
    writers: Vec<Writer>,
    follower: Follower,
    /// Which version answered at the end of the last life.
    live: u64,
}

/// Runs the world of a seed.
pub(crate) fn run(seed: u64, tally: &mut Tally) -> Result<(), String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.map_err(|e| e.to_string())?.block_on(async {
        let counted = Mutex::new(std::mem::take(tally));
        let mut world = World::new(seed);
        let mut judged = Ok(());
        for _ in 0..world.random.random_range(2..6) {
            judged = judged.and(world.live(&counted).await);
        }
        let judged = match judged {
            Ok(()) => world.end(&counted).await,
            failed => failed,
        };
        *tally = counted.into_inner().unwrap_or_else(PoisonError::into_inner);
        judged
    })
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let writers = random.random_range(1..4);
        World {
            start: tokio::time::Instant::now(),
            disks: [1_u128, 2].map(|n| Arc::new(MemoryDisk::with_log(Uuid::from_u128(n << 64)))),
            cuts: [Arc::default(), Arc::default()],
            openings: seed.wrapping_mul(1000),
            writers: (0..writers).map(|name| Writer::new(name, random.random())).collect(),
            follower: Follower::default(),
            live: 1,
            random,
        }
    }

    /// One life of one or two processes, to its sudden end.
    async fn live(&mut self, tally: &Mutex<Tally>) -> Result<(), String> {
        let mut engines = vec![self.open().await];
        if self.random.random_bool(0.4) {
            engines.push(self.open().await);
            tally.lock().unwrap().count("two processes");
        }
        let lasts = Duration::from_millis(self.random.random_range(50..20_000));
        let (cuts, mut random) = (self.cuts.clone(), StdRng::seed_from_u64(self.random.random()));
        let mut operator = Operator::new(self.random.random());
        let writers = self.writers.iter_mut().map(|writer| writer.run(&engines, tally));
        let follower = self.follower.run(&engines, tally);
        let cutting = async {
            loop {
                tokio::time::sleep(Duration::from_millis(random.random_range(0..2500))).await;
                if !cuts[random.random_range(0..2)].fetch_xor(true, Ordering::Relaxed) {
                    tally.lock().unwrap().count("line cut");
                }
            }
        };
        // The processes are gone from one moment to the next.
        let told = tokio::time::timeout(lasts, async {
            tokio::select! {
                told = join_all(writers) => told.into_iter().collect(),
                told = follower => told,
                () = operator.run(&engines, tally) => Ok(()),
                () = cutting => Ok(()),
            }
        })
        .await;
        let mut building = false;
        for engine in engines {
            let versions = sales_of(&engine).versions.clone();
            building |= versions.building().is_some();
            if versions.live != self.live {
                self.live = versions.live;
                tally.lock().unwrap().count("swap");
            }
            engine.runtime().abort();
            engine.runtime().join().await;
        }
        let what = if building { "crash while a version was made" } else { "crash" };
        tally.lock().unwrap().count(what);
        self.cuts.iter().for_each(|cut| cut.store(false, Ordering::Relaxed));
        told.unwrap_or(Ok(()))
    }

    /// With nothing broken any more everything comes to an end, and it is judged.
    async fn end(&mut self, tally: &Mutex<Tally>) -> Result<(), String> {
        let engine = self.open().await;
        let judged = self.judge(&engine, tally).await;
        engine.runtime().abort();
        engine.runtime().join().await;
        judged
    }

    async fn judge(&mut self, engine: &Engine, tally: &Mutex<Tally>) -> Result<(), String> {
        let settled = async {
            loop {
                let beside = sales_of(engine).versions.beside;
                if beside.is_none_or(|beside| beside.state == BesideState::Former) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let limit = Duration::from_secs(300);
        tokio::time::timeout(limit, settled)
            .await
            .map_err(|_| format!("the versions do not settle: {:?}", sales_of(engine).versions))?;
        let wanted = fold(engine).await.map_err(|e| e.to_string())?;
        let caught_up = async {
            let token = engine.head_token().await?;
            engine.wait_applied(&token, limit).await
        };
        caught_up.await.map_err(|e: Error| format!("the rows do not come to the end: {e}"))?;
        let found = rows(engine).await.map_err(|e| e.to_string())?;
        if found != wanted {
            return Err(format!("rows are {found:?}, and the truth comes to {wanted:?}"));
        }
        self.follower.settles(engine, &wanted, tally).await?;
        if sales_of(engine).versions.beside.is_some() {
            engine.projection_back(SALES).await.map_err(|e| e.to_string())?;
            tally.lock().unwrap().count("former version judged");
            let found = rows(engine).await.map_err(|e| e.to_string())?;
            if found != wanted {
                return Err(format!("former rows are {found:?}, the truth comes to {wanted:?}"));
            }
            self.follower.settles(engine, &wanted, tally).await?;
        }
        Ok(())
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
        let opened = Engine::open(declaration().unwrap(), sources.collect(), runtime).await;
        opened.unwrap_or_else(|e| panic!("{e:?}")).0
    }
}

/// The projection as a process knows it.
pub(crate) fn sales_of(engine: &Engine) -> Arc<Projection> {
    let declaration = engine.declaration();
    Arc::clone(declaration.entities[SALES].projection.as_ref().unwrap())
}

/// What the rows must be, worked out without anything of what is tested.
async fn fold(engine: &Engine) -> Answered<Sales> {
    let entity = engine.entity("orders")?;
    let context = Context { consistency: Consistency::Strong, ..Context::default() };
    let page = engine.query(&context, entity, &Query { limit: 1000, ..Query::all() }).await?;
    let mut sales = Sales::new();
    for hit in &page.value.hits {
        let Value::Objects(lines) = hit.stored.record.get(entity, "lines") else { continue };
        for line in lines.iter() {
            if let [Value::String(product), Value::Integer(quantity)] = &line[..] {
                let (sold, count) = sales.entry(product.to_string()).or_default();
                (*sold, *count) = (*sold + quantity, *count + 1);
            }
        }
    }
    Ok(sales)
}

/// The rows, as they are read.
async fn rows(engine: &Engine) -> Answered<Sales> {
    let entity = engine.entity(SALES)?;
    let context = Context { token: engine.head_token().await?, ..Context::default() };
    let page = engine.query(&context, entity, &Query { limit: 1000, ..Query::all() }).await?;
    let row = |hit: &unisono_core::query::Hit| row(entity, &hit.stored.record);
    Ok(page.value.hits.iter().map(row).collect())
}

/// Product, sold and lines of a row.
pub(crate) fn row(entity: &Entity, record: &unisono_core::Record) -> (String, (i64, i64)) {
    match ["product", "sold", "lines"].map(|name| record.get(entity, name)) {
        [Value::String(product), Value::Integer(sold), Value::Integer(lines)] => {
            (product.to_string(), (*sold, *lines))
        }
        other => panic!("{other:?} is no row"),
    }
}

fn declaration() -> Answered<Declaration> {
    let lines =
        [Field::new("product", FieldType::String), Field::new("quantity", FieldType::Integer)];
    let fields = vec![
        Field::new("id", FieldType::String),
        Field::new("lines", FieldType::Objects(lines.into())),
    ];
    let orders = Arc::new(Entity::new("orders", "id", fields)?);
    let each = Arc::new(Expression::compile(&orders, None, "record.lines")?);
    let value = |text: &str| Expression::compile(&orders, Some(&each), text);
    let field = |name: &str, function, value| DeclaredValue {
        name: name.into(),
        function,
        value,
        filter: None,
        ty: None,
    };
    let declared = Declared {
        filter: None,
        key: vec![DeclaredKey { name: "product".into(), value: value("item.product")? }],
        fields: vec![
            field("sold", Function::Sum, Some(value("item.quantity")?)),
            field("lines", Function::Count, None),
        ],
        each: Some(Arc::clone(&each)),
    };
    let sales = declared.compile(SALES, &orders)?;
    let target = FollowerDeclaration {
        source: SOURCES[1].into(),
        place: None,
        options: Options::default(),
        filter: None,
        map: None,
        clear: false,
        delivery: Default::default(),
    };
    let rows = kept(Arc::clone(&sales.rows), vec![target], Some(Arc::new(sales)));
    let entities = [kept(orders, Vec::new(), None), rows];
    Ok(Declaration {
        entities: entities.map(|d| (Arc::clone(d.entity.name()), d)).into(),
        sweep: SweepDeclaration::NEVER,
        log: LogDeclaration::default(),
        ..Declaration::default()
    })
}

fn kept(
    entity: Arc<Entity>,
    followers: Vec<FollowerDeclaration>,
    projection: Option<Arc<Projection>>,
) -> EntityDeclaration {
    EntityDeclaration {
        entity,
        truth: SOURCES[0].into(),
        table: None,
        truth_options: Options::default(),
        cache: None,
        followers,
        read: Default::default(),
        write: Default::default(),
        ack: Default::default(),
        strategy: None,
        adaptive: None,
        projection,
        sync: None,
    }
}
