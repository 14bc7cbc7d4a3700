//! Entries that are compressed: processes that share a dictionary, lose it, and have several of them.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use redis::aio::MultiplexedConnection;
use unisono_core::kind::Options;
use unisono_core::source::{Binding, Cache, Entry, Filled};
use unisono_core::{Change, Entity, Position, Role};
use unisono_testkit::{Changes, LOG, ManualClock, Sample};

use crate::common::{ask, binding, compressed, engine, now, open_with, plain, plain_at, until};
use crate::schedule::at_position;

/// More than it takes to train a dictionary.
const MANY: u32 = 2100;

/// One process, with its own clock.
struct Process {
    cache: Arc<dyn Cache>,
    clock: Arc<ManualClock>,
    entity: Arc<Entity>,
}

impl Process {
    async fn new(options: &Options, bound: Binding) -> Process {
        let clock = Arc::new(ManualClock::new());
        let source = open_with(options, clock.clone()).await.unwrap();
        let entity = Arc::clone(&bound.entity);
        source.prepare(&[bound]).await.unwrap();
        Process { cache: source.cache().unwrap(), clock, entity }
    }

    async fn compressing(options: &Options) -> Process {
        Process::new(options, compressed(&Sample::product())).await
    }

    /// Fills what a reader found right after a change; entries of later calls live longer.
    async fn fill(&self, change: &Change, epoch: u64) {
        let expires =
            now().plus(Duration::from_secs(600) + Duration::from_micros(change.position.as_u64()));
        let stored = change.stored().map(Arc::new);
        let entry = Entry { stored, version: change.position, filled: now(), expires };
        let read = change.position;
        let filled = self.cache.fill(&self.entity, &change.key, entry, read, epoch).await.unwrap();
        assert_eq!(filled, Filled::Stored, "{}", change.key);
    }

    /// Whether a record is found; if so, it is the one of the change.
    async fn finds(&self, change: &Change) -> bool {
        let found = self.cache.lookup(&self.entity, &change.key, now()).await.unwrap();
        let Some(entry) = found.entry else { return false };
        assert_eq!(entry.stored, change.stored().map(Arc::new));
        assert_eq!(entry.version, change.position);
        true
    }

    async fn finds_all(&self, changes: &[Arc<Change>]) -> bool {
        join_all(changes.iter().map(|change| self.finds(change)))
            .await
            .into_iter()
            .all(|found| found)
    }

    async fn epoch(&self) -> u64 {
        self.cache.lookup(&self.entity, &Sample::key("none"), now()).await.unwrap().epoch
    }
}

/// What is in the servers, as the administrator sees it.
struct Servers {
    clients: Vec<MultiplexedConnection>,
    prefix: String,
}

impl Servers {
    async fn of(options: &Options) -> Servers {
        let mut clients = Vec::new();
        if options.boolean("cluster") {
            for node in ["127.0.0.1:6397", "127.0.0.1:6398", "127.0.0.1:6399"] {
                clients.push(plain_at(options, node).await);
            }
        } else {
            clients.push(plain(options).await);
        }
        Servers { clients, prefix: options.text("prefix").unwrap().to_owned() }
    }

    /// Removes every key that ends so.
    async fn lose(&mut self, ending: &str) {
        let pattern = format!("{}:*{ending}", self.prefix);
        for client in &mut self.clients {
            let keys: Vec<Vec<u8>> = ask(client, &[b"KEYS", pattern.as_bytes()]).await;
            for key in keys {
                let _: i64 = ask(client, &[b"DEL", &key]).await;
            }
        }
    }

    /// The strings of all keys that end so.
    async fn find(&mut self, ending: &str) -> Vec<Vec<u8>> {
        let (pattern, mut found) = (format!("{}:*{ending}", self.prefix), Vec::new());
        for client in &mut self.clients {
            let keys: Vec<Vec<u8>> = ask(client, &[b"KEYS", pattern.as_bytes()]).await;
            for key in keys {
                found.push(ask(client, &[b"GET", &key]).await);
            }
        }
        found
    }

    async fn dictionary(&mut self) -> Option<Vec<u8>> {
        self.find(":dictionary").await.pop()
    }

    /// The flag of a record's entry, and the four bytes behind it.
    async fn flag(&mut self, change: &Change) -> (char, Vec<u8>) {
        let entry = self.find(&format!(":={}", change.key)).await.pop().unwrap();
        (char::from(entry[76]), entry[77..81].to_vec())
    }
}

/// Puts records, by number; each has a key of its own.
fn put(changes: &mut Changes, numbers: std::ops::Range<u32>) -> Vec<Arc<Change>> {
    let entity = Sample::product();
    numbers.map(|n| changes.put(&entity, Sample::product_record(n))).collect()
}

/// Fills records until the process has offered the dictionary that it trains from them.
async fn train(process: &Process, servers: &mut Servers, changes: &[Arc<Change>], epoch: u64) {
    for some in changes.chunks(100) {
        join_all(some.iter().map(|change| process.fill(change, epoch))).await;
    }
    let (key, servers) = (changes[0].key.clone(), tokio::sync::Mutex::new(servers));
    until("a dictionary is there", || async {
        process.clock.advance(Duration::from_secs(1));
        process.cache.invalidate(&process.entity, std::slice::from_ref(&key)).await.unwrap();
        process.fill(&changes[0], epoch).await;
        servers.lock().await.dictionary().await.is_some()
    })
    .await;
}

#[tokio::test]
async fn the_size_from_which_entries_are_compressed_changes_while_it_runs() {
    let options = engine("source.toml");
    let mut servers = Servers::of(&options).await;
    let process = Process::new(&options, binding(&Sample::product(), Role::Cache, &[])).await;
    let mut changes = Changes::new();
    let all = put(&mut changes, 0..MANY + 3);
    let epoch = process.cache.restart(&process.entity, LOG, Position::ZERO).await.unwrap();
    process.fill(&all[0], epoch).await;
    assert_eq!(servers.flag(&all[0]).await.0, 'R');
    let compressed = compressed(&process.entity).options;
    process.cache.adjust(&process.entity, &compressed).unwrap();
    train(&process, &mut servers, &all[1..=MANY as usize], epoch).await;
    let [.., before, after] = &all[..] else { panic!() };
    process.fill(before, epoch).await;
    assert_eq!(servers.flag(before).await.0, 'D');
    process.cache.adjust(&process.entity, &Options::default()).unwrap();
    process.fill(after, epoch).await;
    assert_eq!(servers.flag(after).await.0, 'R');
    assert!(process.finds_all(&all).await, "whatever they were written with");
    servers.lose("").await;
}

async fn share(file: &str) {
    let options = engine(file);
    let mut servers = Servers::of(&options).await;
    let (one, other) = (Process::compressing(&options).await, Process::compressing(&options).await);
    let plain = Process::new(&options, binding(&Sample::product(), Role::Cache, &[])).await;
    let mut changes = Changes::new();
    let mut all = put(&mut changes, 0..MANY);
    let epoch = one.cache.restart(&one.entity, LOG, Position::ZERO).await.unwrap();
    train(&one, &mut servers, &all, epoch).await;
    let dictionary = servers.dictionary().await.unwrap();
    assert!(dictionary.len() <= 16 << 10, "{} bytes", dictionary.len());

    // What is written from now on needs it, and every process reads that.
    all.extend(put(&mut changes, MANY..MANY + 50));
    for change in &all[MANY as usize..] {
        one.fill(change, epoch).await;
    }
    let last = &all[all.len() - 1];
    let (flag, id) = servers.flag(last).await;
    assert_eq!(flag, 'D');
    // The first who needs it fetches it; who needs it meanwhile misses.
    for process in [&other, &plain] {
        assert!(process.finds(last).await && process.finds_all(&all).await);
    }

    // They write with it, too: in fills, and in what they follow.
    let more = put(&mut changes, MANY + 50..MANY + 51);
    other.fill(&more[0], epoch).await;
    assert_eq!(servers.flag(&more[0]).await, (flag, id.clone()));
    let again = changes.put(&other.entity, Sample::product_record(3));
    let (to, expires) = (again.position, now().plus(Duration::from_secs(900)));
    let these = [Arc::clone(&again)];
    other.cache.follow(&other.entity, &these, Position::ZERO, to, expires).await.unwrap();
    assert_eq!(servers.flag(&again).await, (flag, id.clone()));
    assert!(one.finds(&again).await && plain.finds(&again).await);

    // Everything is lost: whoever begins anew puts the dictionary back.
    servers.lose("").await;
    assert_eq!((one.epoch().await, other.epoch().await), (0, 0));
    assert!(!one.finds(&all[0]).await);
    let epoch = other.cache.restart(&other.entity, LOG, to).await.unwrap();
    assert_eq!(servers.dictionary().await.as_ref(), Some(&dictionary));
    let (late, early) = all.split_at(MANY as usize);
    for (writer, change) in [(&one, &late[7]), (&other, &early[7])] {
        assert!(!writer.finds(change).await);
        let read =
            Change { position: at_position(to.as_u64() as usize + 1), ..change.as_ref().clone() };
        writer.fill(&read, epoch).await;
        assert_eq!(servers.flag(&read).await, (flag, id.clone()));
        for reader in [&one, &other, &plain] {
            assert!(reader.finds(&read).await);
        }
    }

    // It alone is evicted: whoever writes puts it back in time, and a process that begins finds it.
    servers.lose(":dictionary").await;
    other.clock.advance(Duration::from_secs(60));
    let more = put(&mut changes, MANY + 60..MANY + 63);
    other.fill(&more[0], epoch).await;
    assert_eq!(servers.dictionary().await, Some(dictionary));
    let begins = Process::compressing(&options).await;
    begins.fill(&more[1], epoch).await;
    begins.fill(&more[2], epoch).await;
    assert_eq!(servers.flag(&more[2]).await, (flag, id));
    servers.lose("").await;
}

#[tokio::test]
async fn processes_share_a_dictionary() {
    share("source.toml").await;
}

#[tokio::test]
async fn processes_share_a_dictionary_in_a_cluster() {
    share("source-cluster.toml").await;
}

/// Two processes have trained apart: the entries of the one are misses to the other, until both write with one dictionary.
#[tokio::test]
async fn an_entry_that_nobody_can_read_is_a_miss() {
    let options = engine("source.toml");
    let mut servers = Servers::of(&options).await;
    let (one, other) = (Process::compressing(&options).await, Process::compressing(&options).await);
    let mut changes = Changes::new();
    let all = put(&mut changes, 0..MANY);
    let epoch = one.cache.restart(&one.entity, LOG, Position::ZERO).await.unwrap();
    train(&one, &mut servers, &all, epoch).await;
    let more = put(&mut changes, MANY..MANY + 2);
    one.fill(&more[0], epoch).await;
    let (flag, first) = servers.flag(&more[0]).await;
    assert_eq!(flag, 'D');

    servers.lose(":dictionary").await;
    assert!(!other.finds(&more[0]).await, "a miss, not an error");
    let theirs = put(&mut changes, MANY + 10..2 * MANY + 10);
    train(&other, &mut servers, &theirs, epoch).await;
    assert!(!other.finds(&more[0]).await, "the dictionary of before is gone");
    let read = Change { position: changes.head(), ..more[0].as_ref().clone() };
    other.fill(&read, epoch).await;
    let (flag, second) = servers.flag(&read).await;
    assert!(flag == 'D' && second != first, "it takes the place of what could not be read");
    assert!(other.finds(&read).await);

    // The first that is in the server is everybody's: the other process gives up its own.
    let there = servers.dictionary().await;
    one.clock.advance(Duration::from_secs(60));
    one.fill(&more[1], epoch).await;
    assert_eq!(servers.flag(&more[1]).await, ('D', first));
    assert_eq!(servers.dictionary().await, there);
    let last = &put(&mut changes, 2 * MANY + 10..2 * MANY + 11)[0];
    one.fill(last, epoch).await;
    assert_eq!(servers.flag(last).await, ('D', second));
    for change in [&read, last, &more[1]] {
        assert!(one.finds(change).await, "it keeps both");
    }
    servers.lose("").await;
}
