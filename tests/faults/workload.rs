//! Writers that know what they were promised, and whether it was kept.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value as Json, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use unisono_core::query::Filter;
use unisono_core::write::{Action, Condition, Write};
use unisono_core::{Change, Consistency, Context, Effect, Entity, ErrorKind, Key, Operation};
use unisono_engine::Engine;

/// The entity of every scenario.
pub(crate) const ENTITY: &str = "item";
const WRITERS: usize = 8;
/// How many keys a writer has at first; later it has more.
const KEYS_PER_WRITER: usize = 8;
/// How many writes it makes for each further key, so that the data grows: a full disk must be noticed.
const WRITES_PER_KEY: usize = 4;
/// Each writer rests this long between two writes: the machine has other work.
const PAUSE: Duration = Duration::from_millis(50);
/// Long enough that tables and logs grow, and short enough for memory to tell a leak from the data.
const TEXT_BYTES: usize = 3000;
const WRITE_TIMEOUT: Duration = Duration::from_secs(15);
/// More changes than one record gets.
const HISTORY_MAX: usize = 100_000;

/// What a writer was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// It took place, as this version.
    Acknowledged(u64),
    /// It did not take place.
    Refused,
    /// Nobody knows.
    Unknown,
}

struct Attempt {
    /// Of a record; deletes have none.
    number: Option<u64>,
    told: Told,
}

/// Every write that was tried.
#[derive(Default)]
pub(crate) struct Ledger {
    attempts: Mutex<BTreeMap<String, Vec<Attempt>>>,
    numbers: AtomicU64,
    newest: AtomicU64,
    /// What failed first, to be shown.
    failure: Mutex<Option<String>>,
}

impl Ledger {
    /// The newest version that was acknowledged.
    pub(crate) fn newest(&self) -> u64 {
        self.newest.load(Ordering::Acquire)
    }

    /// The first write that was not acknowledged.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, key: &str, number: Option<u64>, told: Told) {
        if let Told::Acknowledged(version) = told {
            self.newest.fetch_max(version, Ordering::AcqRel);
        }
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        attempts.entry(key.to_owned()).or_default().push(Attempt { number, told });
    }

    /// Compares what was told with the history of every record; answers how many writes were acknowledged.
    pub(crate) async fn check(&self, engine: &Engine) -> Result<usize, String> {
        let entity = engine.entity(ENTITY).map_err(|e| e.to_string())?;
        let attempts =
            std::mem::take(&mut *self.attempts.lock().unwrap_or_else(PoisonError::into_inner));
        let mut acknowledged = 0;
        for (key, attempts) in attempts {
            let parsed = Key::parse(entity, &key).map_err(|e| e.to_string())?;
            let strong = Context { consistency: Consistency::Strong, ..Context::default() };
            let history = engine.history(&strong, entity, &parsed, None, HISTORY_MAX).await;
            let history = history.map_err(|e| format!("no history of {key}: {e}"))?;
            acknowledged += compare(entity, &key, &attempts, &history)?;
            let now = engine.get(&strong, entity, &parsed).await.map_err(|e| e.to_string())?;
            let now = now.value.map(|stored| stored.version.as_u64());
            let last = history.first().filter(|c| c.operation == Operation::Put);
            if now != last.map(|c| c.position.as_u64()) {
                return Err(format!("{key} is at {now:?}, and its history ends with {last:?}"));
            }
        }
        Ok(acknowledged)
    }
}

fn compare(
    entity: &Entity,
    key: &str,
    attempts: &[Attempt],
    history: &[Arc<Change>],
) -> Result<usize, String> {
    let number = |change: &Change| {
        change
            .image
            .as_ref()
            .and_then(|i| unisono_core::json::to_json(entity, i)["number"].as_u64())
    };
    let by_version: BTreeMap<u64, Option<u64>> =
        history.iter().map(|c| (c.position.as_u64(), number(c))).collect();
    let mut acknowledged = 0;
    for attempt in attempts {
        match attempt.told {
            Told::Acknowledged(version) => {
                acknowledged += 1;
                match by_version.get(&version) {
                    None => return Err(format!("LOST: {key} was acknowledged at {version}")),
                    Some(found) if *found != attempt.number => {
                        return Err(format!("{key} at {version} is not what was acknowledged"));
                    }
                    Some(_) => {}
                }
            }
            Told::Refused => {
                let took_place =
                    attempt.number.is_some() && by_version.values().any(|n| *n == attempt.number);
                if took_place {
                    return Err(format!("a write of {key} took place and was said not to have"));
                }
            }
            Told::Unknown => {}
        }
    }
    Ok(acknowledged)
}

/// The engine that writers use; none while it is opened anew.
pub(crate) type Current = watch::Receiver<Option<Engine>>;

/// Writers at work.
pub(crate) struct Writers {
    tasks: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
}

impl Writers {
    pub(crate) fn start(engine: &Current, ledger: &Arc<Ledger>, seed: u64) -> Self {
        let (stop, stopped) = watch::channel(false);
        let writer = |n: usize| {
            let random = StdRng::seed_from_u64(seed ^ (n as u64) << 32);
            tokio::spawn(write(engine.clone(), Arc::clone(ledger), n, random, stopped.clone()))
        };
        Writers { tasks: (0..WRITERS).map(writer).collect(), stop }
    }

    pub(crate) async fn stop(self) -> Result<(), String> {
        self.stop.send_replace(true);
        for task in self.tasks {
            task.await.map_err(|e| format!("a writer panicked: {e}"))?;
        }
        Ok(())
    }
}

async fn write(
    engine: Current,
    ledger: Arc<Ledger>,
    writer: usize,
    mut random: StdRng,
    stop: watch::Receiver<bool>,
) {
    let mut writes = 0;
    while !*stop.borrow() {
        tokio::time::sleep(PAUSE).await;
        let Some(engine) = engine.borrow().clone() else { continue };
        writes += 1;
        let keys = KEYS_PER_WRITER + writes / WRITES_PER_KEY;
        let key = format!("w{writer}-{}", random.random_range(0..keys));
        let number =
            (!random.random_bool(0.1)).then(|| ledger.numbers.fetch_add(1, Ordering::Relaxed));
        let write = match of_item(&engine, &key, number, &mut random) {
            Ok(write) => write,
            Err(error) => panic!("the write cannot be made: {error}"),
        };
        let context = Context { timeout: WRITE_TIMEOUT, ..Context::default() };
        let told = match engine.write(&context, vec![write]).await {
            Ok(written) => match written.changes.first() {
                Some(change) => Told::Acknowledged(change.position.as_u64()),
                None => Told::Refused,
            },
            // There was nothing to delete.
            Err(error) if error.kind() == ErrorKind::NotFound && number.is_none() => Told::Refused,
            Err(error) => {
                let mut first = ledger.failure.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert_with(|| error.to_string());
                match error.effect_on_data() {
                    Effect::None => Told::Refused,
                    Effect::Committed | Effect::Unknown => Told::Unknown,
                }
            }
        };
        ledger.note(&key, number, told);
    }
}

/// A put of a record with this number, or a delete.
fn of_item(
    engine: &Engine,
    key: &str,
    number: Option<u64>,
    random: &mut StdRng,
) -> unisono_core::Result<Write> {
    let entity = Arc::clone(engine.entity(ENTITY)?);
    let action = match number {
        None => Action::Delete,
        Some(number) => {
            // Random, so that no engine makes it small.
            let text: String =
                (0..TEXT_BYTES).map(|_| char::from(random.random_range(b'0'..=b'z'))).collect();
            let record: Json = json!({"id": key, "number": number, "text": text});
            Action::Put(unisono_core::json::parse(&entity, &record)?)
        }
    };
    let key = Key::parse(&entity, key)?;
    Ok(Write { entity, key, action, condition: Condition::None })
}

/// Stores records that no writer touches, so that a first copy has something to do.
pub(crate) async fn preload(engine: &Engine, records: usize, seed: u64) -> Result<(), String> {
    let mut random = StdRng::seed_from_u64(seed);
    let writes: unisono_core::Result<Vec<Write>> = (0..records)
        .map(|n| of_item(engine, &format!("p{n}"), Some(u64::MAX >> 12), &mut random))
        .collect();
    let written = engine.write_each(&Context::default(), writes.map_err(|e| e.to_string())?).await;
    written.into_iter().try_for_each(|w| w.map(drop)).map_err(|e| e.to_string())
}

/// Reads all the time; answers the first failure and the longest wait.
pub(crate) struct Readers {
    task: JoinHandle<(Option<String>, Duration)>,
    stop: watch::Sender<bool>,
}

impl Readers {
    pub(crate) fn start(engine: &Engine, consistency: Consistency) -> Self {
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(read(engine.clone(), consistency, stopped));
        Readers { task, stop }
    }

    pub(crate) async fn stop(self) -> Result<Duration, String> {
        self.stop.send_replace(true);
        match self.task.await {
            Ok((None, longest)) => Ok(longest),
            Ok((Some(failure), _)) => Err(format!("a read failed: {failure}")),
            Err(error) => Err(format!("the reader panicked: {error}")),
        }
    }
}

async fn read(
    engine: Engine,
    consistency: Consistency,
    stop: watch::Receiver<bool>,
) -> (Option<String>, Duration) {
    let mut longest = Duration::ZERO;
    let context = Context { consistency, timeout: Duration::from_secs(15), ..Context::default() };
    let mut turn = 0;
    while !*stop.borrow() {
        tokio::time::sleep(Duration::from_millis(100)).await;
        turn += 1;
        let began = tokio::time::Instant::now();
        let answer = async {
            let entity = engine.entity(ENTITY)?;
            let key = Key::parse(entity, &format!("w{}-0", turn % WRITERS))?;
            engine.get(&context, entity, &key).await?;
            engine.count(&context, entity, &Filter::All, None).await
        };
        if let Err(error) = answer.await {
            return (Some(error.to_string()), longest);
        }
        longest = longest.max(began.elapsed());
    }
    (None, longest)
}
