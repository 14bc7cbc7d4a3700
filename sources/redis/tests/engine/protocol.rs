//! The cache protocol on real scripts: random interleavings of two processes, with evictions, flushes, lost control keys,
//! failovers to an older copy, and followers that were deposed. No entry is ever older than `applied`.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use redis::aio::MultiplexedConnection;
use serde_json::json;
use unisono_core::source::{Cache, Entry, Filled, Lookup};
use unisono_core::{Change, Entity, ErrorKind, Position, Record, Role, Stored};
use unisono_testkit::{Changes, Sample};

use crate::common::{Server, ask, at, binding, now, open};

const KEYS: [&str; 2] = ["a", "b"];

fn at_position(number: usize) -> Position {
    Position::new(number as u64).unwrap()
}

/// The truth: a log, and what it says of a key at a position.
struct Log {
    entity: Arc<Entity>,
    changes: Changes,
    all: Vec<Arc<Change>>,
}

impl Log {
    fn new() -> Self {
        Log { entity: Sample::product(), changes: Changes::new(), all: Vec::new() }
    }

    fn commit(&mut self, rng: &mut StdRng) {
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
    fn read(&self, id: &str, position: usize) -> Entry {
        let image = |c: &Arc<Change>| {
            let image = c.image.clone()?;
            Some(Arc::new(Stored::new(c.key.clone(), c.position, image)))
        };
        let stored = self.last(id, position).and_then(image);
        let version = stored.as_ref().map_or(at_position(position), |s| s.version);
        let (filled, expires) = (now(), now().plus(Duration::from_secs(600)));
        Entry { stored, version, filled, expires }
    }

    /// What is wrong with what a cache shows.
    fn judge(&self, id: &str, entry: &Entry, applied: Position) -> Option<String> {
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

/// A batch that was made and is sent later, perhaps too late.
struct Late {
    from: Position,
    to: usize,
}

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
    filled: usize,
    /// The change that was last shown of each key, while nothing but the protocol is at work.
    shown: HashMap<&'static str, Position>,
}

impl Run<'_> {
    fn cache(&mut self) -> Arc<dyn Cache> {
        Arc::clone(self.caches.choose(&mut self.rng).unwrap())
    }

    async fn look(&mut self, id: &str) -> Lookup {
        let (entity, cache) = (Arc::clone(&self.log.entity), self.cache());
        cache.lookup(&entity, &Sample::key(id), now()).await.unwrap()
    }

    /// Applied and epoch, as any process sees them.
    async fn standing(&mut self) -> (Position, u64) {
        let found = self.look("z").await;
        (found.applied, found.epoch)
    }

    async fn follow(&mut self, from: Position, to: usize) {
        let (entity, cache) = (Arc::clone(&self.log.entity), self.cache());
        let changes = self.log.all[from.as_u64() as usize..to].to_vec();
        let expires = now().plus(Duration::from_secs(900));
        let followed = cache.follow(&entity, &changes, from, at_position(to), expires).await;
        if let Err(error) = followed {
            assert_eq!(error.kind(), ErrorKind::CheckpointMoved, "{error:?}");
        }
    }

    async fn step(&mut self) {
        match self.rng.random_range(0..12) {
            0..=1 => self.log.commit(&mut self.rng),
            2..=3 => {
                let (applied, epoch) = self.standing().await;
                let (from, head) = (applied.as_u64() as usize, self.log.all.len());
                if epoch == 0 {
                    self.shown.clear();
                    let entity = Arc::clone(&self.log.entity);
                    self.cache().restart(&entity, at_position(head)).await.unwrap();
                } else if from < head {
                    let to = self.rng.random_range(from + 1..=head);
                    self.follow(applied, to).await;
                }
            }
            4..=5 => {
                let id = KEYS[self.rng.random_range(0..KEYS.len())];
                let found = self.look(id).await;
                if found.entry.is_none() && self.fillers.len() < 4 {
                    self.fillers.push(Filler::Looked { id, epoch: found.epoch });
                }
            }
            6..=8 => self.advance_a_filler().await,
            9 => {
                let (applied, epoch) = self.standing().await;
                let (from, head) = (applied.as_u64() as usize, self.log.all.len());
                match self.late.take() {
                    Some(late) => self.follow(late.from, late.to).await,
                    None if epoch != 0 && from < head => {
                        self.late = Some(Late { from: applied, to: head });
                    }
                    None => {}
                }
            }
            10 if self.copy.is_none() || self.rng.random_bool(0.5) => {
                self.copy = Some(self.snapshot().await);
            }
            _ if self.faults > 0 => {
                self.faults -= 1;
                self.fault().await;
            }
            _ => {}
        }
    }

    async fn advance_a_filler(&mut self) {
        if self.fillers.is_empty() {
            return;
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
                let (entity, cache, key) =
                    (Arc::clone(&self.log.entity), self.cache(), Sample::key(id));
                let fill = cache.fill(&entity, &key, entry, at_position(read), epoch);
                self.filled += usize::from(fill.await.unwrap() == Filled::Stored);
            }
        }
    }

    async fn keys(&mut self, ending: &str) -> Vec<Vec<u8>> {
        ask(&mut self.client, &[b"KEYS", format!("*{ending}").as_bytes()]).await
    }

    async fn snapshot(&mut self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut copy = Vec::new();
        for key in self.keys("").await {
            let dump: Option<Vec<u8>> = ask(&mut self.client, &[b"DUMP", &key]).await;
            copy.extend(dump.map(|dump| (key, dump)));
        }
        copy
    }

    async fn fault(&mut self) {
        self.shown.clear();
        let which = if self.failovers { 1 } else { self.rng.random_range(0..6) };
        match which {
            0 => _ = ask::<String>(&mut self.client, &[b"FLUSHALL"]).await,
            1 => {
                // A failover: the copy that takes over lacks the newest writes.
                let Some(copy) = self.copy.take() else { return };
                let _: String = ask(&mut self.client, &[b"FLUSHALL"]).await;
                for (key, dump) in copy {
                    let _: String = ask(&mut self.client, &[b"RESTORE", &key, b"0", &dump]).await;
                }
                if let Some(late) = self.late.take_if(|_| self.failovers) {
                    self.follow(late.from, late.to).await;
                }
            }
            n => {
                let endings = ["=a", "fence", "recent", "previous"];
                for key in self.keys(endings[n - 2]).await {
                    let _: i64 = ask(&mut self.client, &[b"DEL", &key]).await;
                }
            }
        }
    }

    async fn check(&mut self) -> Result<(), String> {
        for id in KEYS {
            let found = self.look(id).await;
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
}

#[tokio::test]
async fn no_entry_is_ever_older_than_applied() {
    let server = Server::start(&[]).await;
    let mut caches = Vec::new();
    for _ in 0..2 {
        let source = open(&at(&server.url())).await.unwrap();
        source.prepare(&[binding(&Sample::product(), Role::Cache, &[])]).await.unwrap();
        caches.push(source.cache().unwrap());
    }
    let seeds = std::env::var("PROTOCOL_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(400);
    let mut filled = 0;
    for seed in 0..seeds {
        let mut client = server.client().await;
        let _: String = ask(&mut client, &[b"FLUSHALL"]).await;
        let mut rng = StdRng::seed_from_u64(seed);
        let faults = rng.random_range(0..4);
        let mut run = Run {
            log: Log::new(),
            caches: &caches,
            client,
            rng,
            fillers: Vec::new(),
            late: None,
            copy: None,
            faults,
            failovers: seed % 3 == 0,
            filled: 0,
            shown: HashMap::new(),
        };
        for _ in 0..70 {
            run.step().await;
            run.check().await.unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
        }
        // When everything has come to rest, what is cached is what is true.
        let (applied, epoch) = run.standing().await;
        if epoch != 0 {
            run.follow(applied, run.log.all.len()).await;
            run.check().await.unwrap_or_else(|wrong| panic!("seed {seed} at rest: {wrong}"));
        }
        filled += run.filled;
    }
    assert!(filled as u64 > seeds, "too little happened: {filled} fills");
}

/// Two processes at the same time, not step by step: each answer must be right whenever it comes.
#[tokio::test]
async fn processes_that_race_agree() {
    let server = Server::start(&[]).await;
    let entity = Sample::product();
    let mut caches = Vec::new();
    for _ in 0..2 {
        let source = open(&at(&server.url())).await.unwrap();
        source.prepare(&[binding(&entity, Role::Cache, &[])]).await.unwrap();
        caches.push(source.cache().unwrap());
    }
    let (log, ended, hits) = (RefCell::new(Log::new()), Cell::new(false), Cell::new(0));
    let writer = async {
        let mut rng = StdRng::seed_from_u64(1);
        let mut client = server.client().await;
        for n in 0..1500 {
            log.borrow_mut().commit(&mut rng);
            if n % 500 == 250 {
                let _: String = ask(&mut client, &[b"FLUSHALL"]).await;
            }
            let _: String = ask(&mut client, &[b"PING"]).await;
        }
        ended.set(true);
    };
    let follower = |cache: Arc<dyn Cache>| {
        let (log, entity, ended) = (&log, &entity, &ended);
        async move {
            while !ended.get() {
                let now = now();
                let found = cache.lookup(entity, &Sample::key("z"), now).await.unwrap();
                let (from, head) = (found.applied.as_u64() as usize, log.borrow().all.len());
                if found.epoch == 0 {
                    cache.restart(entity, at_position(head)).await.unwrap();
                    continue;
                }
                let changes = log.borrow().all[from..head].to_vec();
                let expires = now.plus(Duration::from_secs(900));
                let to = at_position(head);
                if let Err(error) = cache.follow(entity, &changes, found.applied, to, expires).await
                {
                    assert_eq!(error.kind(), ErrorKind::CheckpointMoved, "{error:?}");
                }
            }
        }
    };
    let filler = |cache: Arc<dyn Cache>, seed| {
        let (log, entity, ended, hits) = (&log, &entity, &ended, &hits);
        async move {
            let mut rng = StdRng::seed_from_u64(seed);
            while !ended.get() {
                let id = KEYS[rng.random_range(0..KEYS.len())];
                let key = Sample::key(id);
                let found = cache.lookup(entity, &key, now()).await.unwrap();
                if let Some(entry) = &found.entry {
                    hits.set(hits.get() + 1);
                    let wrong = log.borrow().judge(id, entry, found.applied);
                    assert_eq!(wrong, None);
                    continue;
                }
                let head = log.borrow().all.len();
                let read = head - rng.random_range(0..=head.min(3));
                let entry = log.borrow().read(id, read);
                tokio::task::yield_now().await;
                cache.fill(entity, &key, entry, at_position(read), found.epoch).await.unwrap();
            }
        }
    };
    let both = || caches.iter().cloned();
    let followers = futures::future::join_all(both().map(follower));
    let fillers = both().chain(both()).zip(10..).map(|(cache, seed)| filler(cache, seed));
    futures::join!(writer, followers, futures::future::join_all(fillers));
    assert!(hits.get() > 100, "too little happened: {} hits", hits.get());
}

/// The lists of changed keys are replaced in turn: what they no longer know counts as changed.
#[tokio::test]
async fn forgotten_changes_count_as_changed() {
    let server = Server::start(&[]).await;
    let entity = Sample::product();
    let source = open(&at(&server.url())).await.unwrap();
    source.prepare(&[binding(&entity, Role::Cache, &[])]).await.unwrap();
    let cache = source.cache().unwrap();
    let epoch = cache.restart(&entity, Position::ZERO).await.unwrap();
    let mut changes = Changes::new();
    let mut all = Vec::new();
    let mut last = HashMap::new();
    for n in 0..60_000_u32 {
        let record = Sample::product_record(n % 50_000);
        let change = changes.put(&entity, record);
        last.insert(change.key.clone(), change.position);
        all.push(change);
    }
    let expires = now().plus(Duration::from_secs(900));
    for (n, some) in all.chunks(1500).enumerate() {
        let (from, to) = (at_position(n * 1500), at_position(n * 1500 + some.len()));
        cache.follow(&entity, some, from, to, expires).await.unwrap();
    }
    let mut rng = StdRng::seed_from_u64(3);
    let (mut stored, mut refused) = (0, 0);
    for _ in 0..4000 {
        let change = &all[rng.random_range(0..all.len())];
        let read = rng.random_range(0..=all.len());
        let entry = Entry { stored: None, version: at_position(read), filled: now(), expires };
        let filled =
            cache.fill(&entity, &change.key, entry, at_position(read), epoch).await.unwrap();
        let changed = last[&change.key] > at_position(read);
        match filled {
            Filled::Stored => assert!(!changed, "{} was read at {read}", change.key),
            // Reads of the last 16,384 changes are judged key by key.
            Filled::Outdated => refused += usize::from(!changed && read + 16_384 > all.len()),
            Filled::OtherEpoch => panic!("nobody began a new life"),
        }
        stored += usize::from(filled == Filled::Stored);
        let found = cache.lookup(&entity, &change.key, now()).await.unwrap();
        refused -= usize::from(
            filled == Filled::Outdated
                && !changed
                && found.entry.is_some()
                && read + 16_384 > all.len(),
        );
    }
    assert!(stored > 100, "only {stored} fills were taken");
    assert_eq!(refused, 0, "reads that are new enough must not be refused");
}

/// A list of changed keys that was evicted holds fills up only until the next changes.
#[tokio::test]
async fn a_lost_list_of_changes_is_begun_again() {
    let server = Server::start(&[]).await;
    let entity = Sample::product();
    let source = open(&at(&server.url())).await.unwrap();
    source.prepare(&[binding(&entity, Role::Cache, &[])]).await.unwrap();
    let cache = source.cache().unwrap();
    let epoch = cache.restart(&entity, Position::ZERO).await.unwrap();
    let mut client = server.client().await;
    let mut changes = Changes::new();
    let expires = now().plus(Duration::from_secs(900));
    for (n, list) in ["recent", "previous", "recent"].into_iter().enumerate() {
        let key = Sample::key(&format!("k{n}"));
        let absent = |read: usize| {
            let position = at_position(read);
            let entry = Entry { stored: None, version: position, filled: now(), expires };
            cache.fill(&entity, &key, entry, position, epoch)
        };
        let keys: Vec<Vec<u8>> = ask(&mut client, &[b"KEYS", format!("*{list}").as_bytes()]).await;
        assert_eq!(keys.len(), 1, "{list}");
        let _: i64 = ask(&mut client, &[b"DEL", &keys[0]]).await;
        assert_eq!(absent(n).await.unwrap(), Filled::Outdated, "{list} is gone");
        let change = changes.put(&entity, Sample::product_record(7));
        let (from, to) = (at_position(n), at_position(n + 1));
        cache.follow(&entity, &[change], from, to, expires).await.unwrap();
        assert_eq!(absent(n).await.unwrap(), Filled::Outdated, "read before {list} began again");
        assert_eq!(absent(n + 1).await.unwrap(), Filled::Stored, "{list} has begun again");
    }
}

/// What is left of an earlier life neither shows nor stands in the way.
#[tokio::test]
async fn a_new_life_knows_nothing_of_the_one_before() {
    let server = Server::start(&[]).await;
    let entity = Sample::product();
    let source = open(&at(&server.url())).await.unwrap();
    source.prepare(&[binding(&entity, Role::Cache, &[])]).await.unwrap();
    let cache = source.cache().unwrap();
    let first = cache.restart(&entity, Position::ZERO).await.unwrap();
    let expires = now().plus(Duration::from_secs(900));
    let (cached, changed) = (Sample::key("cached"), Sample::key("p1"));
    let absent = |key, read: usize, epoch| {
        let position = at_position(read);
        let entry = Entry { stored: None, version: position, filled: now(), expires };
        cache.fill(&entity, key, entry, position, epoch)
    };
    assert_eq!(absent(&cached, 9, first).await.unwrap(), Filled::Stored);
    let change = Changes::new().put(&entity, Sample::product_record(1));
    let mut late = change.as_ref().clone();
    late.position = at_position(9);
    cache
        .follow(&entity, &[Arc::new(late)], Position::ZERO, at_position(9), expires)
        .await
        .unwrap();
    // The truth was restored: its positions are lower again.
    let second = cache.restart(&entity, at_position(5)).await.unwrap();
    for key in [&cached, &changed] {
        assert!(cache.lookup(&entity, key, now()).await.unwrap().entry.is_none(), "{key}");
        assert_eq!(absent(key, 9, first).await.unwrap(), Filled::OtherEpoch, "{key}");
        assert_eq!(absent(key, 5, second).await.unwrap(), Filled::Stored, "{key}");
    }
}
