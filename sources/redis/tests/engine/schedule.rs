//! [`Run`]: one random schedule of the cache protocol. Two processes look up, fill, follow and restart, a step at a time;
//! in between entries and control keys are evicted, everything is flushed, a copy that lacks the newest writes takes over,
//! and what a process that was deposed had prepared arrives late. Fills come from snapshots of any age. If entries are
//! compressed, others put one dictionary after the other into the server, and processes learn of each in their time.

use std::collections::HashMap;
use std::ops::AddAssign;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use redis::aio::MultiplexedConnection;
use serde_json::json;
use unisono_core::clock::Clock;
use unisono_core::source::{Cache, Entry, Filled, Lookup};
use unisono_core::{Change, Entity, ErrorKind, Position, Record, Role, Timestamp};
use unisono_testkit::{Changes, LOG, Sample};

use crate::common::{ask, at, binding, compressed, now, open, open_with};

pub(crate) const KEYS: [&str; 2] = ["a", "b"];

pub(crate) fn at_position(number: usize) -> Position {
    Position::new(number as u64).unwrap()
}

/// The truth: a log, and what it says of a key at a position.
pub(crate) struct Log {
    entity: Arc<Entity>,
    changes: Changes,
    pub(crate) all: Vec<Arc<Change>>,
}

impl Log {
    pub(crate) fn new() -> Self {
        Log { entity: Sample::product(), changes: Changes::new(), all: Vec::new() }
    }

    pub(crate) fn commit(&mut self, rng: &mut StdRng) {
        let id = KEYS[rng.random_range(0..KEYS.len())];
        let change = match rng.random_bool(0.3) {
            true => self.changes.delete(&self.entity, &Sample::key(id)),
            false => {
                let json = json!({"id": id, "name": "x", "stock": self.all.len()});
                self.changes.put(&self.entity, Sample::record(&self.entity, &json))
            }
        };
        self.all.push(change);
    }

    /// The last change of a key at or before a position.
    fn last(&self, id: &str, position: usize) -> Option<&Arc<Change>> {
        self.all[..position].iter().rev().find(|c| c.key == Sample::key(id))
    }

    /// What a reader finds in a snapshot.
    pub(crate) fn read(&self, id: &str, position: usize) -> Entry {
        let stored = self.last(id, position).and_then(|change| change.stored()).map(Arc::new);
        let version = stored.as_ref().map_or(at_position(position), |s| s.version);
        let (filled, expires) = (now(), now().plus(Duration::from_secs(600)));
        Entry { stored, version, filled, expires }
    }

    /// What is wrong with what a cache shows.
    pub(crate) fn judge(&self, id: &str, entry: &Entry, applied: Position) -> Option<String> {
        let needed = self.last(id, applied.as_u64() as usize).map_or(0, |c| c.position.as_u64());
        if entry.version.as_u64() < needed {
            return Some(format!("{id} at {} is older than applied {applied}", entry.version));
        }
        let version = entry.version.as_u64() as usize;
        let truth = self.last(id, version).and_then(|c| c.image.clone());
        let shown: Option<Arc<Record>> = entry.stored.as_ref().map(|s| Arc::clone(&s.record));
        (shown != truth).then(|| format!("{id} at {version} shows {shown:?}, but was {truth:?}"))
    }
}

/// A reader on its way from a lookup to a fill.
enum Filler {
    Looked { id: &'static str, epoch: u64 },
    Read { id: &'static str, epoch: u64, entry: Entry, read: usize },
}

/// What a process had prepared when it was deposed.
enum Late {
    Follow { from: Position, to: usize },
    Restart { at: usize },
}

/// What happened in schedules.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) stored: u64,
    pub(crate) outdated: u64,
    pub(crate) other_epoch: u64,
    pub(crate) followed: u64,
    /// Batches that came from another position than where the server was.
    pub(crate) moved: u64,
    pub(crate) restarts: u64,
    pub(crate) evictions: u64,
    pub(crate) flushes: u64,
    pub(crate) failovers: u64,
    pub(crate) late: u64,
    /// Entries that need a dictionary, when another one took its place.
    pub(crate) compressed: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.stored += other.stored;
        self.outdated += other.outdated;
        self.other_epoch += other.other_epoch;
        self.followed += other.followed;
        self.moved += other.moved;
        self.restarts += other.restarts;
        self.evictions += other.evictions;
        self.flushes += other.flushes;
        self.failovers += other.failovers;
        self.late += other.late;
        self.compressed += other.compressed;
    }
}

/// The caches of two processes over a server.
pub(crate) async fn processes(url: &str) -> Vec<Arc<dyn Cache>> {
    let mut caches = Vec::new();
    for _ in 0..2 {
        let source = open(&at(url)).await.unwrap();
        source.prepare(&[binding(&Sample::product(), Role::Cache, &[])]).await.unwrap();
        caches.push(source.cache().unwrap());
    }
    caches
}

/// The same, of processes that compress entries and often ask for the dictionary.
pub(crate) async fn compressing_processes(url: &str) -> Vec<Arc<dyn Cache>> {
    /// Moves on with every look, and back before anything ends.
    struct Restless(AtomicU32);

    impl Clock for Restless {
        fn now(&self) -> Timestamp {
            now().plus(Duration::from_millis(400) * (self.0.fetch_add(1, Ordering::Relaxed) % 100))
        }
    }

    let mut caches = Vec::new();
    for n in 0..2 {
        let clock = Arc::new(Restless(AtomicU32::new(n * 50)));
        let source = open_with(&at(url), clock).await.unwrap();
        source.prepare(&[compressed(&Sample::product())]).await.unwrap();
        caches.push(source.cache().unwrap());
    }
    caches
}

/// Runs the schedule of a seed over an emptied server; answers what happened, or what was wrong.
pub(crate) async fn run(
    client: &MultiplexedConnection,
    caches: &[Arc<dyn Cache>],
    seed: u64,
    compresses: bool,
) -> Result<Tally, String> {
    let mut client = client.clone();
    let _: String = ask(&mut client, &[b"FLUSHALL"]).await;
    let mut rng = StdRng::seed_from_u64(seed);
    let faults = rng.random_range(0..4);
    let mut run = Run {
        log: Log::new(),
        caches,
        client,
        rng,
        fillers: Vec::new(),
        late: None,
        copy: None,
        faults,
        failovers: seed.is_multiple_of(3),
        tally: Tally::default(),
        touched: false,
        shown: HashMap::new(),
    };
    for n in 0..STEPS {
        if compresses && n % 9 == 3 {
            run.replace_dictionary(n).await;
        }
        run.step().await?;
        run.check().await?;
    }
    run.come_to_rest().await?;
    Ok(run.tally)
}

/// Steps of a schedule.
const STEPS: usize = 70;

struct Run<'a> {
    log: Log,
    caches: &'a [Arc<dyn Cache>],
    client: MultiplexedConnection,
    rng: StdRng,
    fillers: Vec<Filler>,
    late: Option<Late>,
    copy: Option<Vec<(Vec<u8>, Vec<u8>)>>,
    faults: usize,
    /// Whether faults are failovers, each followed at once by what a deposed process sends late.
    failovers: bool,
    tally: Tally,
    /// Whether the server may hold something else than when it was last checked.
    touched: bool,
    /// The change that was last shown of each key, while nothing but the protocol is at work.
    shown: HashMap<&'static str, Position>,
}

impl Run<'_> {
    fn cache(&mut self) -> Arc<dyn Cache> {
        Arc::clone(self.caches.choose(&mut self.rng).unwrap())
    }

    async fn look(&mut self, id: &str) -> Result<Lookup, String> {
        let (entity, cache) = (Arc::clone(&self.log.entity), self.cache());
        let found = cache.lookup(&entity, &Sample::key(id), now()).await;
        found.map_err(|e| format!("a lookup failed: {e:?}"))
    }

    /// As a reader does that would fill: whoever holds the lease, it may find it lost, or read all the same.
    async fn look_to_read(&mut self, id: &str) -> Result<Lookup, String> {
        let (entity, cache) = (Arc::clone(&self.log.entity), self.cache());
        let at_most = Duration::from_secs(2);
        let found = cache.lookup_or_lease(&entity, &Sample::key(id), now(), at_most).await;
        found.map(|(lookup, _)| lookup).map_err(|e| format!("a lookup failed: {e:?}"))
    }

    /// Applied and epoch, as any process sees them.
    async fn standing(&mut self) -> Result<(Position, u64), String> {
        let found = self.look("z").await?;
        Ok((found.applied, found.epoch))
    }

    async fn follow(&mut self, from: Position, to: usize) -> Result<(), String> {
        self.touched = true;
        let (entity, cache) = (Arc::clone(&self.log.entity), self.cache());
        let changes = self.log.all[from.as_u64() as usize..to].to_vec();
        let expires = now().plus(Duration::from_secs(900));
        match cache.follow(&entity, &changes, from, at_position(to), expires).await {
            Ok(()) => self.tally.followed += 1,
            Err(e) if e.kind() == ErrorKind::CheckpointMoved => self.tally.moved += 1,
            Err(e) => return Err(format!("changes were refused: {e:?}")),
        }
        Ok(())
    }

    async fn restart(&mut self, at: usize) -> Result<(), String> {
        self.touched = true;
        self.shown.clear();
        self.tally.restarts += 1;
        let entity = Arc::clone(&self.log.entity);
        let restarted = self.cache().restart(&entity, LOG, at_position(at)).await;
        restarted.map(drop).map_err(|e| format!("a restart failed: {e:?}"))
    }

    async fn step(&mut self) -> Result<(), String> {
        match self.rng.random_range(0..12) {
            0..=1 => self.log.commit(&mut self.rng),
            2..=3 => {
                let (applied, epoch) = self.standing().await?;
                let (from, head) = (applied.as_u64() as usize, self.log.all.len());
                if epoch == 0 {
                    self.restart(head).await?;
                } else if from < head {
                    let to = self.rng.random_range(from + 1..=head);
                    self.follow(applied, to).await?;
                }
            }
            4..=5 => {
                let id = KEYS[self.rng.random_range(0..KEYS.len())];
                let found = self.look_to_read(id).await?;
                if let Some(entry) = &found.entry {
                    self.log.judge(id, entry, found.applied).map_or(Ok(()), Err)?;
                }
                if found.entry.is_none() && self.fillers.len() < 4 {
                    self.fillers.push(Filler::Looked { id, epoch: found.epoch });
                }
            }
            6..=8 => self.advance_a_filler().await?,
            9 => self.prepare_or_send_late().await?,
            10 if self.copy.is_none() || self.rng.random_bool(0.5) => {
                self.copy = Some(self.snapshot().await);
            }
            _ if self.faults > 0 => {
                self.faults -= 1;
                self.fault().await?;
            }
            _ => {}
        }
        Ok(())
    }

    async fn prepare_or_send_late(&mut self) -> Result<(), String> {
        if let Some(late) = self.late.take() {
            return self.send_late(late).await;
        }
        let (applied, epoch) = self.standing().await?;
        let (from, head) = (applied.as_u64() as usize, self.log.all.len());
        if epoch == 0 {
            self.late = Some(Late::Restart { at: head });
        } else if from < head {
            let to = self.rng.random_range(from + 1..=head);
            self.late = Some(Late::Follow { from: applied, to });
        }
        Ok(())
    }

    async fn send_late(&mut self, late: Late) -> Result<(), String> {
        self.tally.late += 1;
        match late {
            Late::Follow { from, to } => self.follow(from, to).await,
            Late::Restart { at } => self.restart(at).await,
        }
    }

    async fn advance_a_filler(&mut self) -> Result<(), String> {
        if self.fillers.is_empty() {
            return Ok(());
        }
        let n = self.rng.random_range(0..self.fillers.len());
        match self.fillers.swap_remove(n) {
            Filler::Looked { id, epoch } => {
                // Often an old snapshot: a read replica that lags.
                let head = self.log.all.len();
                let late = self.rng.random_bool(0.5);
                let read = if late { self.rng.random_range(0..=head) } else { head };
                let entry = self.log.read(id, read);
                self.fillers.push(Filler::Read { id, epoch, entry, read });
            }
            Filler::Read { id, epoch, entry, read } => {
                self.touched = true;
                let (entity, cache, key) =
                    (Arc::clone(&self.log.entity), self.cache(), Sample::key(id));
                match cache.fill(&entity, &key, entry, at_position(read), epoch).await {
                    Ok(Filled::Stored) => self.tally.stored += 1,
                    Ok(Filled::Outdated) => self.tally.outdated += 1,
                    Ok(Filled::OtherEpoch) => self.tally.other_epoch += 1,
                    Err(e) => return Err(format!("a fill failed: {e:?}")),
                }
            }
        }
        Ok(())
    }

    async fn keys(&mut self, ending: &str) -> Vec<Vec<u8>> {
        ask(&mut self.client, &[b"KEYS", format!("*{ending}").as_bytes()]).await
    }

    /// Some other process was the first to offer a dictionary after the one of before was lost: any text is one.
    async fn replace_dictionary(&mut self, step: usize) {
        for id in KEYS {
            for key in self.keys(&format!("={id}")).await {
                let flag: Vec<u8> = ask(&mut self.client, &[b"GETRANGE", &key, b"76", b"76"]).await;
                self.tally.compressed += u64::from(flag == b"D");
            }
        }
        for fence in self.keys("fence").await {
            let name = String::from_utf8(fence).unwrap().replace("fence", "dictionary");
            let json = json!({"id": KEYS[step % 2], "name": "x", "stock": step / 9});
            let record = Sample::record(&self.log.entity, &json);
            let text = unisono_core::json::to_vec(&self.log.entity, &record);
            let _: String = ask(&mut self.client, &[b"SET", name.as_bytes(), &text]).await;
        }
    }

    async fn snapshot(&mut self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut copy = Vec::new();
        for key in self.keys("").await {
            let dump: Option<Vec<u8>> = ask(&mut self.client, &[b"DUMP", &key]).await;
            copy.extend(dump.map(|dump| (key, dump)));
        }
        copy
    }

    async fn fault(&mut self) -> Result<(), String> {
        self.touched = true;
        self.shown.clear();
        let which = if self.failovers { 1 } else { self.rng.random_range(0..7) };
        match which {
            0 => {
                self.tally.flushes += 1;
                let _: String = ask(&mut self.client, &[b"FLUSHALL"]).await;
            }
            1 => {
                // A failover: the copy that takes over lacks the newest writes.
                let Some(copy) = self.copy.take() else { return Ok(()) };
                self.tally.failovers += 1;
                let _: String = ask(&mut self.client, &[b"FLUSHALL"]).await;
                for (key, dump) in copy {
                    let _: String = ask(&mut self.client, &[b"RESTORE", &key, b"0", &dump]).await;
                }
                if let Some(late) = self.late.take_if(|_| self.failovers) {
                    self.send_late(late).await?;
                }
            }
            n => {
                let endings = ["=a", "=b", "fence", "recent", "previous"];
                for key in self.keys(endings[n - 2]).await {
                    self.tally.evictions += 1;
                    let _: i64 = ask(&mut self.client, &[b"DEL", &key]).await;
                }
            }
        }
        // What hardly ever meets by chance: reads that come back just then.
        if self.rng.random_bool(0.5) {
            self.let_fills_arrive().await?;
        }
        Ok(())
    }

    async fn let_fills_arrive(&mut self) -> Result<(), String> {
        while !self.fillers.is_empty() {
            self.advance_a_filler().await?;
            self.check().await?;
        }
        Ok(())
    }

    async fn check(&mut self) -> Result<(), String> {
        if !std::mem::take(&mut self.touched) {
            return Ok(());
        }
        for id in KEYS {
            let found = self.look(id).await?;
            let Some(entry) = found.entry else { continue };
            self.log.judge(id, &entry, found.applied).map_or(Ok(()), Err)?;
            let change = self.log.last(id, entry.version.as_u64() as usize);
            let change = change.map_or(Position::ZERO, |c| c.position);
            let before = self.shown.insert(id, change).unwrap_or_default();
            if change < before {
                return Err(format!("{id} went back from {before} to {change}"));
            }
        }
        Ok(())
    }

    /// Lets everything that is under way arrive, and whoever is in charge catch up: what is cached then is what is true.
    async fn come_to_rest(&mut self) -> Result<(), String> {
        self.let_fills_arrive().await?;
        if let Some(late) = self.late.take() {
            self.send_late(late).await?;
            self.check().await?;
        }
        let (applied, epoch) = self.standing().await?;
        if epoch != 0 {
            self.follow(applied, self.log.all.len()).await?;
            let reached = self.standing().await?.0;
            if reached.as_u64() as usize != self.log.all.len() {
                return Err(format!("at rest applied is {reached}"));
            }
            self.check().await.map_err(|wrong| format!("at rest: {wrong}"))?;
        }
        Ok(())
    }
}
