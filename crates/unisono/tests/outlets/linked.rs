//! A truth that outlives the process, at the end of a line that can be cut, in virtual time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use unisono::core::clock::Clock;
use unisono::core::kind::{Environment, OptionSpec, Options, SourceKind};
use unisono::core::source::Source;
use unisono::core::{Capability, Result, Timestamp, Uuid};
use unisono::engine::Runtime;
use unisono::{Registry, Unisono, config};
use unisono_source_memory::{Memory, MemoryDisk, Settings};
use unisono_testkit::link::Link;

/// What stays when a process ends.
#[derive(Clone)]
pub(crate) struct Disk {
    disk: Arc<MemoryDisk>,
    pub(crate) cut: Arc<AtomicBool>,
    start: tokio::time::Instant,
}

/// The disks by the names of their sources: a kind has no other way to know them.
static DISKS: LazyLock<Mutex<BTreeMap<String, Disk>>> = LazyLock::new(Mutex::default);
static OPENINGS: AtomicU64 = AtomicU64::new(1);

struct VirtualClock(tokio::time::Instant);

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        Timestamp::EPOCH.plus(Duration::from_secs(1_000_000_000) + self.0.elapsed())
    }
}

impl Disk {
    /// An empty one.
    pub(crate) fn new(name: &str) -> Self {
        let disk = Disk {
            disk: Arc::new(MemoryDisk::with_log(Uuid::from_u128(9))),
            cut: Arc::default(),
            start: tokio::time::Instant::now(),
        };
        DISKS.lock().unwrap().insert(name.to_owned(), disk.clone());
        disk
    }

    /// Opens a process over the disk of a name, with streams of the type `order`.
    pub(crate) async fn open(&self, name: &str) -> Unisono {
        let text =
            format!("[sources.{name}]\nkind = \"linked\"\n[streams.order]\ntruth = \"{name}\"\n");
        let registry = Registry::builtin().with(&Linked);
        let parsed = config::parse(&text, "test.toml", &registry, &config::Process);
        let configuration = parsed.unwrap_or_else(|report| panic!("{report}"));
        let clock = Arc::new(VirtualClock(self.start));
        let runtime = Runtime::seeded(clock, OPENINGS.fetch_add(1, Ordering::Relaxed));
        Unisono::open_with(configuration, &registry, runtime).await.unwrap()
    }
}

/// Ends a process from one moment to the next.
pub(crate) async fn crash(unisono: &Unisono) {
    unisono.engine().runtime().abort();
    unisono.engine().runtime().join().await;
}

struct Linked;

#[async_trait]
impl SourceKind for Linked {
    fn name(&self) -> &'static str {
        "linked"
    }

    fn summary(&self) -> &'static str {
        "A memory at the end of a line."
    }

    fn options(&self) -> &'static [OptionSpec] {
        &[]
    }

    fn capability(&self) -> Capability {
        Memory.capability()
    }

    async fn open(&self, name: &str, _: &Options, _: &Environment) -> Result<Arc<dyn Source>> {
        let disk = DISKS.lock().unwrap().get(name).unwrap().clone();
        let memory = Memory::over(name, disk.disk, Settings::default());
        Ok(Link::new(memory, &disk.cut, OPENINGS.fetch_add(1, Ordering::Relaxed)))
    }
}
