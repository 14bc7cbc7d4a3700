//! [`Dictionary`]: what zstd knows before it sees the first byte, with the contexts that have taken it in.

use std::io;
use std::sync::{Mutex, PoisonError};

use xxhash_rust::xxh3::xxh3_64;
use zstd::bulk::{Compressor, Decompressor};

/// The fastest of zstd's ordinary levels: what it leaves to be gained is a few per cent.
const LEVEL: i32 = 1;
/// How large a dictionary is made.
pub(super) const TRAINED_BYTES: usize = 16 << 10;
/// A larger one is nobody's dictionary.
const BYTES_MAX: usize = 64 << 10;
/// How many contexts are kept that nobody uses at the moment.
const IDLE_MAX: usize = 4;

/// What zstd knows beforehand; nothing, if there are no bytes of it.
pub(crate) struct Dictionary {
    id: u32,
    bytes: Vec<u8>,
    encoders: Idle<Compressor<'static>>,
    decoders: Idle<Decompressor<'static>>,
}

impl Dictionary {
    /// No dictionary: what is compressed with it needs none.
    pub(super) fn none() -> Self {
        Dictionary::of(Vec::new())
    }

    /// The dictionary of some bytes; `None` if they cannot be used as one.
    pub(super) fn new(bytes: Vec<u8>) -> Option<Self> {
        // What is in its tables shows only when it is used.
        const PROBE: &[u8] = b"{}";
        if bytes.len() > BYTES_MAX {
            return None;
        }
        let dictionary = Dictionary::of(bytes);
        let read = dictionary.decompress(&dictionary.compress(PROBE)?, PROBE.len())?;
        (read == PROBE).then_some(dictionary)
    }

    fn of(bytes: Vec<u8>) -> Self {
        let (encoders, decoders) = (Idle::default(), Idle::default());
        Dictionary { id: Dictionary::id_of(&bytes), bytes, encoders, decoders }
    }

    /// Trains one from samples that lie one behind the other; takes some hundred milliseconds of a processor.
    pub(super) fn train(samples: &[u8], sizes: &[usize]) -> Option<Self> {
        Dictionary::new(zstd::dict::from_continuous(samples, sizes, TRAINED_BYTES).ok()?)
    }

    /// What entries call the dictionary of these bytes. It stands for all of them: two that differ anywhere are two.
    pub(super) fn id_of(bytes: &[u8]) -> u32 {
        xxh3_64(bytes) as u32
    }

    pub(super) fn id(&self) -> u32 {
        self.id
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// One frame, which says how long the data is and has a checksum of it.
    pub(super) fn compress(&self, data: &[u8]) -> Option<Vec<u8>> {
        let prepare = || {
            let mut encoder = Compressor::with_dictionary(LEVEL, &self.bytes)?;
            // The frame need not say which dictionary it is: that stands before it.
            encoder.include_dictid(false)?;
            encoder.include_checksum(true)?;
            Ok(encoder)
        };
        self.encoders.with(prepare, |encoder| encoder.compress(data))
    }

    /// The data of a frame; `None` if it is not intact, or longer than `bytes_max`, whatever it says of itself.
    pub(super) fn decompress(&self, frame: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
        let length = Decompressor::upper_bound(frame).filter(|length| *length <= bytes_max)?;
        let prepare = || Decompressor::with_dictionary(&self.bytes);
        self.decoders.with(prepare, |decoder| decoder.decompress(frame, length))
    }
}

/// Contexts that nobody uses at the moment. To prepare one takes longer than what it then does for an entry.
struct Idle<T>(Mutex<Vec<T>>);

impl<T> Default for Idle<T> {
    fn default() -> Self {
        Idle(Mutex::default())
    }
}

impl<T> Idle<T> {
    /// Works with one of them, or with a further one. One that failed is not used again.
    fn with<R>(
        &self,
        prepare: impl FnOnce() -> io::Result<T>,
        work: impl FnOnce(&mut T) -> io::Result<R>,
    ) -> Option<R> {
        let idle = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut context = match idle {
            Some(context) => context,
            None => prepare().ok()?,
        };
        let done = work(&mut context).ok()?;
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(context);
        }
        Some(done)
    }
}
