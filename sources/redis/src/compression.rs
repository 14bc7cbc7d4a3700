//! [`Compression`]: how the JSON of entries is made smaller, and what it takes to read it again.
//!
//! Records of an entity resemble each other far more than the parts of one record do. So zstd hardly makes a few hundred
//! bytes smaller, unless it is given a *dictionary* that was trained from such records. There is one for each shelf: it
//! is trained from what a process writes, and kept in the server, where all processes find it (`shared.rs`).
//!
//! An entry says what it was compressed with. A dictionary that a process neither has nor finds, like anything else that
//! cannot be decoded, makes it a miss. Whoever reads needs no option: processes with and without it share entries.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use unisono_core::Timestamp;

mod dictionary;
mod shared;
#[cfg(test)]
mod tests;

use dictionary::Dictionary;

/// The flag of an entry whose JSON is a zstd frame, which needs no dictionary.
const PLAIN: u8 = b'Z';
/// The flag of one that needs a dictionary: its id (4 bytes) stands before the frame.
const WITH_DICTIONARY: u8 = b'D';

/// Longer JSON repeats itself enough, and would be too much of the samples.
const WITH_DICTIONARY_BYTES_MAX: usize = 64 << 10;
/// Longer JSON is not compressed, and no entry is given more room than that when it is read.
const JSON_BYTES_MAX: usize = 16 << 20;
/// From how many records a dictionary is trained, unless `SAMPLES_BYTES_MAX` are reached before.
const SAMPLES_MAX: usize = 2_000;
/// From about how many bytes at most: 64 times what a dictionary is made to hold.
const SAMPLES_BYTES_MAX: usize = 1 << 20;
/// How many dictionaries a process keeps: those that were replaced may still be needed to read what they wrote.
const KNOWN_MAX: usize = 4;
/// How long the server is not asked again for a dictionary that is missing.
const ASKED_EVERY: Duration = Duration::from_secs(1);
/// How often a process that has a dictionary sees to it that the server still has one: it may have been evicted.
const SHARED_EVERY: Duration = Duration::from_secs(60);

/// How the entries of one shelf are compressed.
pub(crate) struct Compression {
    /// JSON of more bytes is compressed; `usize::MAX` if none is.
    above: AtomicUsize,
    plain: Dictionary,
    /// The one to write with, then those of before.
    known: RwLock<Vec<Arc<Dictionary>>>,
    training: Arc<Mutex<Training>>,
    /// When the server was last asked for the dictionary, in microseconds.
    asked: AtomicI64,
}

/// How a process comes by a dictionary while the server has none.
enum Training {
    /// What it writes is noted down.
    Sampling(Samples),
    /// A thread is at it.
    UnderWay,
    /// Not used before it is in the server: nobody else could read the entries.
    Trained(Arc<Dictionary>),
    /// There is a dictionary, or none can be made.
    Ended,
}

/// JSON of records, one behind the other.
#[derive(Default)]
struct Samples {
    bytes: Vec<u8>,
    sizes: Vec<usize>,
}

impl Samples {
    fn add(&mut self, json: &[u8]) {
        self.bytes.extend_from_slice(json);
        self.sizes.push(json.len());
    }

    fn are_enough(&self) -> bool {
        self.sizes.len() >= SAMPLES_MAX || self.bytes.len() >= SAMPLES_BYTES_MAX
    }
}

impl Compression {
    /// Compresses JSON of more than `above` bytes; `None` if nothing is to be compressed.
    pub(crate) fn new(above: Option<usize>) -> Self {
        Compression {
            above: AtomicUsize::new(above.unwrap_or(usize::MAX)),
            plain: Dictionary::none(),
            known: RwLock::default(),
            training: Arc::new(Mutex::new(Training::Sampling(Samples::default()))),
            asked: AtomicI64::new(i64::MIN),
        }
    }

    /// Compresses JSON of more than `above` bytes from now on.
    pub(crate) fn adjust(&self, above: Option<usize>) {
        self.above.store(above.unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// Appends the flag and the compressed JSON of a record to its entry; false, and nothing appended, unless that saves
    /// at least a tenth.
    pub(crate) fn pack(&self, json: &[u8], entry: &mut Vec<u8>) -> bool {
        let is_small = json.len() <= self.above.load(Ordering::Relaxed);
        if is_small || json.len() > JSON_BYTES_MAX {
            return false;
        }
        let mut dictionary = None;
        if json.len() <= WITH_DICTIONARY_BYTES_MAX {
            dictionary = self.current();
            if dictionary.is_none() {
                self.sample(json);
            }
        }
        let packed = dictionary.as_deref().unwrap_or(&self.plain).compress(json);
        let Some(packed) = packed.filter(|packed| packed.len() * 10 < json.len() * 9) else {
            return false;
        };
        match dictionary {
            None => entry.push(PLAIN),
            Some(dictionary) => {
                entry.push(WITH_DICTIONARY);
                entry.extend_from_slice(&dictionary.id().to_be_bytes());
            }
        }
        entry.extend_from_slice(&packed);
        true
    }

    /// The JSON of what follows a flag; `None` if it cannot be read, for whatever reason.
    pub(crate) fn unpack(&self, flag: u8, packed: &[u8]) -> Option<Vec<u8>> {
        match flag {
            PLAIN => self.plain.decompress(packed, JSON_BYTES_MAX),
            WITH_DICTIONARY => {
                let (id, frame) = packed.split_first_chunk()?;
                self.known(u32::from_be_bytes(*id))?.decompress(frame, JSON_BYTES_MAX)
            }
            _ => None,
        }
    }

    /// Whether it takes a dictionary that this process does not have to read what follows a flag.
    pub(crate) fn lacks(&self, flag: u8, packed: &[u8]) -> bool {
        flag == WITH_DICTIONARY
            && packed.first_chunk().is_some_and(|id| self.known(u32::from_be_bytes(*id)).is_none())
    }

    /// The dictionary to write with.
    fn current(&self) -> Option<Arc<Dictionary>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).first().cloned()
    }

    fn known(&self, id: u32) -> Option<Arc<Dictionary>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.iter().find(|dictionary| dictionary.id() == id).cloned()
    }

    fn training(&self) -> MutexGuard<'_, Training> {
        self.training.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes JSON down, and has a dictionary trained when that is enough.
    fn sample(&self, json: &[u8]) {
        let mut training = self.training();
        let Training::Sampling(samples) = &mut *training else { return };
        samples.add(json);
        if !samples.are_enough() {
            return;
        }
        let samples = std::mem::take(samples);
        *training = Training::UnderWay;
        let training = Arc::clone(&self.training);
        // Nobody waits for it: whoever writes next finds what came of it.
        drop(tokio::task::spawn_blocking(move || {
            let trained = Dictionary::train(&samples.bytes, &samples.sizes).map(Arc::new);
            let mut training = training.lock().unwrap_or_else(PoisonError::into_inner);
            if matches!(*training, Training::UnderWay) {
                *training = trained.map_or(Training::Ended, Training::Trained);
            }
        }));
    }

    /// Whether it is time for a process that writes to ask the server; then nobody else is to.
    fn is_due(&self, now: impl FnOnce() -> Timestamp) -> bool {
        if self.above.load(Ordering::Relaxed) == usize::MAX {
            return false;
        }
        let every = match *self.training() {
            Training::Ended => SHARED_EVERY,
            _ => ASKED_EVERY,
        };
        self.is_turn(now(), every)
    }

    /// The same for one that lacks a dictionary to read.
    fn may_ask(&self, now: Timestamp) -> bool {
        self.is_turn(now, ASKED_EVERY)
    }

    fn is_turn(&self, now: Timestamp, every: Duration) -> bool {
        let (now, last) = (now.micros(), self.asked.load(Ordering::Relaxed));
        // A clock that was set back must not put it off.
        let is_turn = now < last || Duration::from_micros(now.abs_diff(last)) >= every;
        let (set, seen) = (Ordering::Relaxed, Ordering::Relaxed);
        is_turn && self.asked.compare_exchange(last, now, set, seen).is_ok()
    }

    /// The dictionary that this process can offer.
    fn own(&self) -> Option<Arc<Dictionary>> {
        self.current().or_else(|| match &*self.training() {
            Training::Trained(dictionary) => Some(Arc::clone(dictionary)),
            _ => None,
        })
    }

    /// Takes what is in the server as the dictionary to write with; false if it is none.
    fn take(&self, bytes: Vec<u8>) -> bool {
        let known = self.known(Dictionary::id_of(&bytes));
        let dictionary = known.or_else(|| Dictionary::new(bytes).map(Arc::new));
        let is_one = dictionary.is_some();
        match dictionary {
            Some(dictionary) => self.adopt(dictionary),
            None => *self.training() = Training::Ended,
        }
        is_one
    }

    /// Writes with a dictionary from now on, which is the one in the server.
    fn adopt(&self, dictionary: Arc<Dictionary>) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|other| other.id() != dictionary.id());
        known.insert(0, dictionary);
        known.truncate(KNOWN_MAX);
        drop(known);
        *self.training() = Training::Ended;
    }
}
