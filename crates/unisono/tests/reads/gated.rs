//! A memory whose reads and commits can be slowed and refused, in virtual time.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use unisono::config::Configuration;
use unisono::core::clock::Clock;
use unisono::core::journal::Journal;
use unisono::core::kind::{Environment, OptionSpec, Options, SourceKind};
use unisono::core::relay::{Front, Relay};
use unisono::core::source::{
    Auditor, Binding, Cache, Follower, LogBounds, Probe, Reader, Source, Truth,
};
use unisono::core::write::{Committed, Unit};
use unisono::core::{
    Capability, Change, Effect, Entity, Error, ErrorKind, Key, Position, Result, Timestamp,
};
use unisono::engine::Runtime;
use unisono::{Registry, Unisono, config};
use unisono_source_memory::{Memory, MemoryDisk, Settings};

/// What a test does to one source, and sees of it.
#[derive(Default)]
pub(crate) struct Gate {
    pub(crate) down: AtomicBool,
    /// How long an answer to a read takes, in milliseconds.
    pub(crate) slow: AtomicU64,
    pub(crate) gets: AtomicU64,
    /// Units that were committed, each call by itself.
    pub(crate) commits: Mutex<Vec<usize>>,
    /// Appends to the journal.
    pub(crate) appends: AtomicU64,
    /// Whether the answers of commits and appends are lost.
    pub(crate) loses: AtomicBool,
    /// Whether the follower takes in nothing.
    pub(crate) lags: AtomicBool,
    /// How long a batch takes, in milliseconds.
    pub(crate) drags: AtomicU64,
    /// Whether nothing can be removed from the journal, and who tries waits.
    pub(crate) keeps: AtomicBool,
    /// Records whose commit fails for no reason that concerns them.
    pub(crate) chokes_on: Mutex<Option<Key>>,
    /// Whether a commit that comes now is held up on its way, whatever becomes of who sent it.
    pub(crate) holds: AtomicBool,
    /// Commits that were held up, what lets the next one go on, and how many have arrived since.
    pub(crate) held: AtomicU64,
    pub(crate) released: Arc<Notify>,
    pub(crate) arrived: Arc<AtomicU64>,
    disk: Arc<MemoryDisk>,
    opened: Mutex<Option<Arc<dyn Source>>>,
    openings: AtomicU64,
    running: AtomicU64,
    /// The most reads by key at once.
    pub(crate) peak: AtomicU64,
}

static GATES: LazyLock<Mutex<HashMap<String, Arc<Gate>>>> = LazyLock::new(Mutex::default);

/// The gate of a source; every test has sources of its own names.
pub(crate) fn gate(name: &str) -> Arc<Gate> {
    Arc::clone(GATES.lock().unwrap().entry(name.to_owned()).or_default())
}

impl Gate {
    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    pub(crate) fn take(&self, millis: u64) {
        self.slow.store(millis, Ordering::SeqCst);
    }

    pub(crate) fn gets(&self) -> u64 {
        self.gets.load(Ordering::SeqCst)
    }

    /// What is behind the gate now.
    pub(crate) fn opened(&self) -> Arc<dyn Source> {
        self.opened.lock().unwrap().clone().unwrap()
    }

    fn lost<T>(&self, answer: T) -> Result<T> {
        match self.loses.load(Ordering::SeqCst) {
            true => Err(Error::new(ErrorKind::Unavailable, "lost").effect(Effect::Unknown)),
            false => Ok(answer),
        }
    }

    fn check(&self) -> Result<()> {
        match self.down.load(Ordering::SeqCst) {
            true => Err(Error::new(ErrorKind::Unavailable, "down").effect(Effect::None)),
            false => Ok(()),
        }
    }
}

pub(crate) struct Gated;

#[async_trait]
impl SourceKind for Gated {
    fn name(&self) -> &'static str {
        "gated"
    }

    fn summary(&self) -> &'static str {
        "A memory behind a gate."
    }

    fn options(&self) -> &'static [OptionSpec] {
        &[]
    }

    fn capability(&self) -> Capability {
        Memory.capability()
    }

    async fn open(&self, name: &str, _: &Options, _: &Environment) -> Result<Arc<dyn Source>> {
        // What it holds outlives the source, as a disk does.
        let disk = Arc::clone(&gate(name).disk);
        let inner = Memory::over(name, disk, Settings::default());
        *gate(name).opened.lock().unwrap() = Some(Arc::clone(&inner));
        let mut capability = inner.capability().clone();
        capability.query.scans = false;
        // The truth of a test does not search; its copy does.
        capability.query.search = name.ends_with("_copy");
        Ok(Arc::new(Behind { inner, capability, gate: gate(name) }))
    }
}

struct Behind {
    inner: Arc<dyn Source>,
    capability: Capability,
    gate: Arc<Gate>,
}

impl Behind {
    fn owning(&self) -> Arc<dyn Truth> {
        Arc::clone(&self.inner).truth().unwrap()
    }
}

#[async_trait]
impl Source for Behind {
    fn name(&self) -> &Arc<str> {
        self.inner.name()
    }

    fn kind(&self) -> &'static str {
        "gated"
    }

    fn capability(&self) -> &Capability {
        &self.capability
    }

    async fn prepare(&self, bindings: &[Binding]) -> Result<Vec<String>> {
        self.inner.prepare(bindings).await
    }

    async fn probe(&self) -> Result<Probe> {
        self.gate.check()?;
        self.inner.probe().await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }

    fn reader(self: Arc<Self>) -> Option<Arc<dyn Reader>> {
        Some(Relay::of(self))
    }

    fn truth(self: Arc<Self>) -> Option<Arc<dyn Truth>> {
        Some(self)
    }

    fn follower(self: Arc<Self>) -> Option<Arc<dyn Follower>> {
        Some(Relay::of(self))
    }

    fn cache(self: Arc<Self>) -> Option<Arc<dyn Cache>> {
        Arc::clone(&self.inner).cache()
    }

    fn journal(self: Arc<Self>) -> Option<Arc<dyn Journal>> {
        Some(Relay::of(self))
    }

    fn auditor(self: Arc<Self>) -> Option<Arc<dyn Auditor>> {
        Arc::clone(&self.inner).auditor()
    }
}

impl Front for Behind {
    fn inner(&self) -> Result<Arc<dyn Source>> {
        Ok(Arc::clone(&self.inner))
    }

    async fn carry<T: Send + Debug>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let gate = &self.gate;
        match operation {
            "get" => {
                gate.gets.fetch_add(1, Ordering::SeqCst);
                let running = gate.running.fetch_add(1, Ordering::SeqCst) + 1;
                gate.peak.fetch_max(running, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(gate.slow.load(Ordering::SeqCst))).await;
                gate.running.fetch_sub(1, Ordering::SeqCst);
                gate.check()?;
            }
            "query" | "count" | "aggregate" => gate.check()?,
            "apply" if gate.lags.load(Ordering::SeqCst) => {
                return Err(Error::new(ErrorKind::Unavailable, "it takes in nothing"));
            }
            "apply" => {
                tokio::time::sleep(Duration::from_millis(gate.drags.load(Ordering::SeqCst))).await;
            }
            "append" => {
                gate.check()?;
                gate.appends.fetch_add(1, Ordering::SeqCst);
                return gate.lost(call.await?);
            }
            "remove" if gate.keeps.load(Ordering::SeqCst) => std::future::pending().await,
            _ => {}
        }
        call.await
    }
}

#[async_trait]
impl Truth for Behind {
    async fn commit(&self, units: Vec<Unit>) -> Result<Vec<Result<Committed>>> {
        self.gate.check()?;
        self.gate.commits.lock().unwrap().push(units.len());
        let choking = self.gate.chokes_on.lock().unwrap().clone();
        if units.iter().flat_map(|u| &u.writes).any(|w| Some(&w.key) == choking.as_ref()) {
            return Err(Error::internal("the truth chokes"));
        }
        let truth = self.owning();
        if self.gate.holds.load(Ordering::SeqCst) {
            self.gate.held.fetch_add(1, Ordering::SeqCst);
            let (released, arrived) =
                (Arc::clone(&self.gate.released), Arc::clone(&self.gate.arrived));
            let late = async move {
                released.notified().await;
                let answer = truth.commit(units).await;
                arrived.fetch_add(1, Ordering::SeqCst);
                answer
            };
            #[expect(
                clippy::disallowed_methods,
                reason = "it outlives the runtime of who sent it"
            )]
            return tokio::spawn(late).await.unwrap();
        }
        let answer = truth.commit(units).await?;
        self.gate.lost(answer)
    }

    async fn bounds(&self) -> Result<LogBounds> {
        self.gate.check()?;
        self.owning().bounds().await
    }

    async fn read_log(
        &self,
        after: Position,
        changes_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Arc<Change>>> {
        self.gate.check()?;
        self.owning().read_log(after, changes_max, bytes_max).await
    }

    async fn history(
        &self,
        entity: &Arc<Entity>,
        key: &Key,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<Arc<Change>>> {
        self.owning().history(entity, key, before, limit).await
    }

    async fn trim(&self, through: Position, outcomes_before: Timestamp) -> Result<u64> {
        self.owning().trim(through, outcomes_before).await
    }

    async fn put_state(&self, space: &str, name: &str, value: Option<String>) -> Result<()> {
        self.owning().put_state(space, name, value).await
    }

    async fn list_state(&self, space: &str) -> Result<Vec<(String, String)>> {
        self.owning().list_state(space).await
    }
}

/// The randomness of an opening: another one each time, and the same whichever other tests run.
fn seed(name: &str) -> u64 {
    let openings = gate(name).openings.fetch_add(1, Ordering::SeqCst);
    name.bytes().fold(openings, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()))
}

/// The time of tokio's paused timers.
struct VirtualClock(tokio::time::Instant);

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        Timestamp::EPOCH.plus(Duration::from_secs(1_000_000_000) + self.0.elapsed())
    }
}

/// Opens an entity `item` with a truth `<name>`, a follower `<name>_copy` and a cache, in virtual time.
pub(crate) async fn open(name: &str, options: &str) -> Unisono {
    try_open(name, options).await.unwrap()
}

/// The same, which may fail.
pub(crate) async fn try_open(name: &str, options: &str) -> Result<Unisono> {
    open_text(name, &text(name, options)).await
}

/// What [`open`] opens.
pub(crate) fn configuration(name: &str, options: &str) -> Configuration {
    parse(&text(name, options))
}

fn text(name: &str, options: &str) -> String {
    format!(
        r#"
[sources.{name}]
kind = "gated"
[sources.{name}_copy]
kind = "gated"
[sources.near]
kind = "memory"
[entities.item]
key = "id"
truth = "{name}"
fields = {{ id = "integer", name = {{ type = "string", search = true }}, stock = "integer", made = "timestamp" }}
followers = [{{ source = "{name}_copy" }}]
{options}
"#
    )
}

pub(crate) fn parse(text: &str) -> Configuration {
    let registry = Registry::builtin().with(&Gated);
    let configuration = config::parse(text, "test.toml", &registry, &config::Process);
    configuration.unwrap_or_else(|report| panic!("{report}"))
}

/// Opens a whole configuration in virtual time; the seed has the name of its truth in it.
pub(crate) async fn open_text(name: &str, text: &str) -> Result<Unisono> {
    let clock = Arc::new(VirtualClock(tokio::time::Instant::now()));
    let runtime = Runtime::seeded(clock, seed(name));
    Unisono::open_with(parse(text), &Registry::builtin().with(&Gated), runtime).await
}
