//! Projections: rows equal a fold of the truth, whatever is cut off, repeated, done twice or lost on the way.
#![expect(clippy::unwrap_used, reason = "what the test makes itself is good")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::json;
use unisono_core::auditor::walk;
use unisono_core::entity::SYSTEM;
use unisono_core::kind::Options;
use unisono_core::query::{Order, Path, Query};
use unisono_core::source::{Advance, Applied, Batch, Binding, Checkpoint, Follower};
use unisono_core::{
    Change, Entity, Error, ErrorKind, Field, FieldType, Key, Position, Record, Result, Role, Value,
};
use unisono_engine::Runtime;
use unisono_engine::projection::{Projector, Roles};
use unisono_policy::projection::{Declared, DeclaredKey, DeclaredValue, Function, Projection};
use unisono_policy::rule::Expression;
use unisono_testkit::Changes;

use crate::cases::cases;
use crate::fixture::{Fixture, Opened, Stop, Verdict, check, check_eq};

cases! {
    "projection-1" rows_are_the_fold "rows equal a fold of the truth under batches that are repeated and cut off";
    "projection-2" workers_compete "two processes that work at the same projection do not spoil it";
    "projection-3" losses_are_made_good "a projection whose rows, groups or parts are lost is made anew";
    "projection-4" best_rows_come_first "rows are read in an order, as many as asked for: the best come first";
    "projection-5" versions_are_apart "two versions of a projection are kept in one target, and do not touch each other";
}

/// A line of an order: version of the order, place, user, quantity and cents.
type Line = (Position, usize, String, i64, i128);

/// The truth: what there is, and how it came to be.
struct World {
    entity: Arc<Entity>,
    changes: Changes,
    log: Vec<Arc<Change>>,
    records: BTreeMap<Key, Arc<Change>>,
    random: StdRng,
}

impl World {
    fn new(entity: &Arc<Entity>, seed: u64) -> World {
        World {
            entity: Arc::clone(entity),
            changes: Changes::new(),
            log: Vec::new(),
            records: BTreeMap::new(),
            random: StdRng::seed_from_u64(seed),
        }
    }

    fn head(&self) -> Position {
        self.log.last().map_or(Position::ZERO, |change| change.position)
    }

    /// One write of somebody.
    fn write(&mut self) {
        let id = format!("o{}", self.random.random_range(0..12));
        let key = Key::from_text(&id).unwrap();
        let change = if self.records.contains_key(&key) && self.random.random_bool(0.25) {
            self.changes.delete(&self.entity, &key)
        } else {
            let lines: Vec<_> = (0..self.random.random_range(0..4))
                .map(|_| {
                    let cents = self.random.random_range(-500..5000);
                    json!({
                        "product_id": format!("p{}", self.random.random_range(0..5)),
                        "quantity": self.random.random_range(-3..10),
                        "price": format!("{}", unisono_core::Decimal::new(cents, 2)),
                    })
                })
                .collect();
            let user = format!("u{}", self.random.random_range(0..4));
            let record = json!({"id": id, "user_id": user, "lines": lines});
            let record = unisono_core::json::parse(&self.entity, &record).unwrap();
            self.changes.put(&self.entity, record)
        };
        match change.image {
            Some(_) => self.records.insert(key, Arc::clone(&change)),
            None => self.records.remove(&key),
        };
        self.log.push(change);
    }

    /// What the rows must be, worked out without anything of what is tested.
    fn rows(&self) -> BTreeMap<String, serde_json::Value> {
        let mut lines: BTreeMap<String, Vec<Line>> = BTreeMap::new();
        for change in self.records.values() {
            let record = change.image.as_ref().unwrap();
            let Value::String(user) = record.get(&self.entity, "user_id") else { continue };
            let Value::Objects(found) = record.get(&self.entity, "lines") else { continue };
            for (n, line) in found.iter().enumerate() {
                if let [Value::String(product), Value::Integer(quantity), Value::Decimal(price)] =
                    &line[..]
                {
                    let of = lines.entry(product.clone()).or_default();
                    of.push((change.position, n, user.clone(), *quantity, price.mantissa()));
                }
            }
        }
        let row = |(product, lines): (String, Vec<Line>)| {
            let cents = |cents: i128| {
                unisono_core::Decimal::try_from_i128_with_scale(cents, 2).unwrap().to_string()
            };
            let users: BTreeSet<_> = lines.iter().map(|l| &l.2).collect();
            let row = json!({
                "product_id": product,
                "lines": lines.len(),
                "sold": lines.iter().map(|l| l.3).sum::<i64>(),
                "revenue": cents(lines.iter().map(|l| i128::from(l.3) * l.4).sum()),
                "cheapest": cents(lines.iter().map(|l| l.4).min().unwrap()),
                "dearest": cents(lines.iter().map(|l| l.4).max().unwrap()),
                "last": lines.iter().max_by_key(|l| (l.0, l.1)).unwrap().2,
                "buyers": users.len(),
            });
            (product, row)
        };
        lines.into_iter().map(row).collect()
    }
}

fn orders() -> Arc<Entity> {
    let lines = [
        Field::new("product_id", FieldType::String),
        Field::new("quantity", FieldType::Integer),
        Field::new("price", FieldType::Decimal { precision: 12, scale: 2 }),
    ];
    let fields = vec![
        Field::new("id", FieldType::String),
        Field::new("user_id", FieldType::String),
        Field::new("lines", FieldType::Objects(lines.into())),
    ];
    Arc::new(Entity::new("orders", "id", fields).unwrap())
}

fn sales(from: &Arc<Entity>) -> Result<Arc<Projection>> {
    let each = Arc::new(Expression::compile(from, None, "record.lines")?);
    let value = |text: &str| Expression::compile(from, Some(&each), text);
    let field = |name: &str, function, text: Option<&str>| {
        Ok::<_, Error>(DeclaredValue {
            name: name.into(),
            function,
            value: text.map(value).transpose()?,
            filter: None,
            ty: None,
        })
    };
    let declared = Declared {
        filter: None,
        key: vec![DeclaredKey { name: "product_id".into(), value: value("item.product_id")? }],
        fields: vec![
            field("lines", Function::Count, None)?,
            field("sold", Function::Sum, Some("item.quantity"))?,
            field("revenue", Function::Sum, Some("item.quantity * item.price"))?,
            field("cheapest", Function::Min, Some("item.price"))?,
            field("dearest", Function::Max, Some("item.price"))?,
            field("last", Function::Latest, Some("record.user_id"))?,
            field("buyers", Function::Distinct, Some("record.user_id"))?,
        ],
        each: Some(Arc::clone(&each)),
    };
    declared.compile("sales", from).map(Arc::new)
}

/// A follower whose calls are cut off now and then: before they have an effect, or after.
struct Cut {
    inner: Arc<dyn Follower>,
    random: Mutex<StdRng>,
    /// How many calls may still be cut off.
    left: AtomicI64,
}

impl Cut {
    fn chance(&self) -> f64 {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).random()
    }

    async fn wait(&self) {
        for _ in 0..(self.chance() * 4.0) as usize {
            tokio::task::yield_now().await;
        }
    }
}

#[async_trait]
impl Follower for Cut {
    async fn apply(&self, batch: Batch) -> Result<Applied> {
        self.wait().await;
        let chance = self.chance();
        let cuts = chance < 0.2 && self.left.fetch_sub(1, Ordering::Relaxed) > 0;
        let lost = || Error::new(ErrorKind::Unavailable, "cut off");
        if cuts && chance < 0.1 {
            return Err(lost());
        }
        let applied = self.inner.apply(batch).await?;
        self.wait().await;
        if cuts { Err(lost()) } else { Ok(applied) }
    }

    async fn checkpoint(&self, entity: &Arc<Entity>) -> Result<Option<Checkpoint>> {
        self.wait().await;
        self.inner.checkpoint(entity).await
    }

    async fn reset(&self, entity: &Arc<Entity>) -> Result<()> {
        self.inner.reset(entity).await
    }
}

/// A process that works at the projection, as a delivery does.
struct Worker<'a> {
    projector: Projector,
    world: &'a Mutex<World>,
    log: unisono_core::Uuid,
    saved: Option<Checkpoint>,
    random: StdRng,
}

impl Worker<'_> {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works until the head of the log was reached and nobody writes any more.
    async fn run(&mut self, is_over: &(dyn Fn() -> bool + Sync)) -> Result<(), Stop> {
        for _ in 0..20_000 {
            let before = is_over();
            match self.step().await {
                Ok(true) if before => return Ok(()),
                Ok(_) => tokio::task::yield_now().await,
                Err(_) => self.saved = None,
            }
        }
        Err(Stop::Failed("the projection never came to the head of the log".into()))
    }

    /// One batch; whether there was nothing to do.
    async fn step(&mut self) -> Result<bool> {
        let entity = Arc::clone(&self.world().entity);
        let Some(saved) = self.saved.clone() else {
            let stored = self.projector.checkpoint(&entity).await?;
            self.saved = match stored {
                Some(stored) => Some(stored),
                None => {
                    self.projector.reset(&entity).await?;
                    let to = self.at(self.world().head(), Some(String::new()));
                    self.take(Vec::new(), false, None, to.clone()).await?;
                    Some(to)
                }
            };
            return Ok(false);
        };
        match &saved.backfill {
            Some(after) if self.random.random_bool(0.5) => {
                self.copy(saved.clone(), after).await.map(|()| false)
            }
            _ => self.stream(saved).await,
        }
    }

    async fn stream(&mut self, saved: Checkpoint) -> Result<bool> {
        let most = self.random.random_range(1..8);
        let changes: Vec<_> = {
            let world = self.world();
            let beyond = world.log.iter().filter(|c| c.position > saved.position);
            beyond.take(most).cloned().collect()
        };
        let Some(last) = changes.last() else { return Ok(saved.backfill.is_none()) };
        let to = Checkpoint { position: last.position, ..saved.clone() };
        self.take(changes, false, Some(saved), to).await?;
        Ok(false)
    }

    async fn copy(&mut self, saved: Checkpoint, after: &str) -> Result<()> {
        let size = self.random.random_range(1..8);
        let entity = Arc::clone(&self.world().entity);
        let after = if after.is_empty() { None } else { Some(Key::from_text(after)?) };
        let (mut changes, last, position) = {
            let world = self.world();
            let beyond = world.records.iter().filter(|(key, _)| Some(*key) > after.as_ref());
            let chunk: Vec<_> =
                beyond.map(|(key, change)| (key.clone(), Arc::clone(change))).collect();
            let last = chunk.get(size).map(|_| chunk[size - 1].0.clone());
            let chunk: Vec<_> = chunk.into_iter().take(size).map(|(_, change)| change).collect();
            (chunk, last, world.head())
        };
        let mut orphans = Vec::new();
        use unisono_core::source::Auditor as _;
        let held = self.projector.scan(&entity, after.as_ref(), 1000).await?.value.records;
        for held in held.into_iter().filter(|h| last.as_ref().is_none_or(|last| h.key <= *last)) {
            if !changes.iter().any(|c| c.key == held.key) {
                let gone = Change::clone(&self.world().log[0]);
                orphans.push(Arc::new(Change {
                    position,
                    key: held.key,
                    operation: unisono_core::Operation::Delete,
                    image: None,
                    ..gone
                }));
            }
        }
        changes.extend(orphans);
        let to = self.at(saved.position, last.map(|key| key.to_string()));
        self.take(changes, true, Some(saved), to).await
    }

    async fn take(
        &mut self,
        changes: Vec<Arc<Change>>,
        copied: bool,
        from: Option<Checkpoint>,
        to: Checkpoint,
    ) -> Result<()> {
        let entity = Arc::clone(&self.world().entity);
        let advance = Some(Advance { from, to: to.clone() });
        self.projector.apply(Batch { entity, changes, copied, advance }).await?;
        self.saved = Some(to);
        Ok(())
    }

    fn at(&self, position: Position, backfill: Option<String>) -> Checkpoint {
        Checkpoint { log: self.log, position, backfill }
    }
}

/// A target, and the truth that is projected into it.
struct Stage {
    opened: Opened,
    projection: Arc<Projection>,
    world: Mutex<World>,
    capability: unisono_core::Capability,
}

impl Stage {
    async fn open(fixture: &Fixture, seed: u64) -> Result<Stage, Stop> {
        fixture.needs(Role::Follower)?;
        let entity = orders();
        let projection = sales(&entity)?;
        let opened = fixture.open_bare().await?;
        let bind = |entity: &Arc<Entity>| Binding {
            entity: Arc::clone(entity),
            role: Role::Follower,
            place: entity.name().trim_start_matches(SYSTEM).into(),
            options: Options::default(),
        };
        let beside = projection.at(2);
        let kept = [&*projection, &beside].into_iter().flat_map(|p| [&p.rows, &p.groups, &p.parts]);
        let kept: Vec<_> = kept.map(bind).collect();
        opened.source.prepare(&kept).await?;
        let world = Mutex::new(World::new(&entity, seed));
        Ok(Stage { opened, projection, world, capability: fixture.capability() })
    }

    fn worker(&self, seed: u64, cuts: i64) -> Result<Worker<'_>, Stop> {
        self.worker_at(&self.projection, seed, cuts)
    }

    fn worker_at(
        &self,
        projection: &Arc<Projection>,
        seed: u64,
        cuts: i64,
    ) -> Result<Worker<'_>, Stop> {
        let cut = Cut {
            inner: self.opened.follower()?,
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            left: AtomicI64::new(cuts),
        };
        let roles = Roles {
            source: "tested".into(),
            follower: Arc::new(cut),
            reader: self.opened.reader()?,
            auditor: self.opened.auditor()?,
        };
        let clock = Arc::new(unisono_testkit::ManualClock::new());
        let runtime = Runtime::seeded(clock, seed);
        let projector = Projector::new(projection, roles, &self.capability, &runtime);
        let log = self.world.lock().unwrap_or_else(PoisonError::into_inner).changes.log;
        let random = StdRng::seed_from_u64(seed);
        Ok(Worker { projector, world: &self.world, log, saved: None, random })
    }

    fn write(&self, times: usize) {
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        (0..times).for_each(|_| world.write());
    }

    /// Whether the rows are what they must be.
    async fn check(&self, when: &str) -> Verdict {
        self.check_at(&self.projection, when).await
    }

    async fn check_at(&self, projection: &Projection, when: &str) -> Verdict {
        let wanted = self.world.lock().unwrap_or_else(PoisonError::into_inner).rows();
        let entity = &projection.rows;
        let mut found = BTreeMap::new();
        let row = |record: &Record| unisono_core::json::to_json(entity, record);
        walk(self.opened.auditor()?.as_ref(), entity, |stored| {
            found.insert(stored.key.to_string(), row(&stored.record));
        })
        .await?;
        check_eq!(found, wanted, "the rows {when}");
        Ok(())
    }
}

async fn rows_are_the_fold(fixture: &Fixture) -> Verdict {
    let stage = Stage::open(fixture, 1).await?;
    stage.write(20);
    for round in 0..6 {
        // Each round is another process.
        let mut worker = stage.worker(round, 12)?;
        worker.run(&|| true).await?;
        stage.check(&format!("of round {round}")).await?;
        stage.write(25);
    }
    Ok(())
}

async fn workers_compete(fixture: &Fixture) -> Verdict {
    let stage = Stage::open(fixture, 2).await?;
    stage.write(15);
    for round in 0..2 {
        let (mut a, mut b) = (stage.worker(round, 4)?, stage.worker(100 + round, 4)?);
        let left = AtomicI64::new(12);
        // The last to ask finds that nobody writes any more.
        let is_over = || {
            if left.fetch_sub(1, Ordering::Relaxed) > 0 {
                stage.write(1);
                return false;
            }
            true
        };
        let (a, b) = futures::join!(a.run(&is_over), b.run(&is_over));
        a.and(b)?;
        stage.check(&format!("of round {round}")).await?;
    }
    Ok(())
}

async fn losses_are_made_good(fixture: &Fixture) -> Verdict {
    let stage = Stage::open(fixture, 3).await?;
    stage.write(40);
    let mut random = StdRng::seed_from_u64(3);
    let follower = stage.opened.follower()?;
    for round in 0..6 {
        let mut worker = stage.worker(round, 0)?;
        worker.run(&|| true).await?;
        stage.check(&format!("of round {round}")).await?;
        let Projection { rows, groups, parts, .. } = &*stage.projection;
        let all = [rows, groups, parts];
        let lost = all.choose(&mut random).ok_or_else(|| Stop::Failed("nothing to lose".into()))?;
        follower.reset(lost).await?;
        stage.write(5);
        let entity = orders();
        let noticed = worker.projector.checkpoint(&entity).await?;
        check!(noticed.is_none(), "that {} is lost was not noticed: {noticed:?}", lost.name());
    }
    Ok(())
}

async fn best_rows_come_first(fixture: &Fixture) -> Verdict {
    if !fixture.capability().query.filter {
        return Err(Stop::NotApplicable("it answers reads by key only".into()));
    }
    let stage = Stage::open(fixture, 4).await?;
    stage.write(60);
    stage.worker(4, 0)?.run(&|| true).await?;
    let wanted = stage.world.lock().unwrap_or_else(PoisonError::into_inner).rows();
    let mut wanted: Vec<_> =
        wanted.iter().map(|(key, row)| (row["sold"].as_i64(), key.clone())).collect();
    wanted.sort_by_key(|(sold, key)| (std::cmp::Reverse(*sold), key.clone()));
    wanted.truncate(3);
    let entity = &stage.projection.rows;
    let by = |name: &str, descending| {
        entity.index_of(name).map(|field| Order { path: Path::whole(field), descending })
    };
    let order = [by("sold", true), by("product_id", false)].into_iter().flatten().collect();
    let best = Query { order, limit: 3, ..Query::all() };
    let page = stage.opened.reader()?.query(entity, &best).await?.value;
    let found = page.hits.iter().map(|hit| {
        let Value::Integer(sold) = hit.stored.record.get(entity, "sold") else {
            return (None, "".into());
        };
        (Some(*sold), hit.stored.key.to_string())
    });
    check_eq!(found.collect::<Vec<_>>(), wanted, "the three that sold best");
    Ok(())
}

async fn versions_are_apart(fixture: &Fixture) -> Verdict {
    let stage = Stage::open(fixture, 5).await?;
    stage.write(25);
    let mut live = stage.worker(1, 4)?;
    live.run(&|| true).await?;
    let beside = Arc::new(stage.projection.at(2));
    check_eq!(beside.name(), stage.projection.name(), "the name by which rows are read");
    let mut made = stage.worker_at(&beside, 2, 4)?;
    stage.write(25);
    made.run(&|| true).await?;
    stage.check_at(&beside, "of the version beside").await?;
    live.run(&|| true).await?;
    stage.check("of the version that answers").await?;
    let follower = stage.opened.follower()?;
    for entity in [&beside.parts, &beside.groups, &beside.rows] {
        follower.reset(entity).await?;
    }
    stage.write(5);
    live.run(&|| true).await?;
    stage.check("after the other version was emptied").await
}
