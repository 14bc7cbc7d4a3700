use std::sync::{Arc, LazyLock};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::json;
use unisono_core::json::to_vec;
use unisono_core::source::Entry;
use unisono_core::{Entity, Field, FieldType, Position, Record};
use unisono_testkit::{Generator, Sample};

use super::dictionary::TRAINED_BYTES;
use super::*;
use crate::codec::{digits, entry, entry_tail, epoch, lacks_dictionary};

/// Where the flag of an entry is.
const FLAG: usize = 76;

/// Products as shops have them: the same fields and some of the same words, and otherwise each its own.
fn products(seed: u64, count: usize) -> Vec<Record> {
    const WORDS: &str = "desk lamp shelf oak steel garden chair folding table winter cotton blanket ceramic cup large \
        small matte glossy handmade kitchen knife travel bag leather wallet running shoe waterproof jacket wool sock";
    let words: Vec<&str> = WORDS.split_whitespace().collect();
    let entity = Sample::product();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut product = || {
        let mut text = |count| {
            let words: Vec<&str> =
                (0..count).filter_map(|_| words.choose(&mut rng).copied()).collect();
            words.join(" ")
        };
        let (name, description, tag) = (text(3), text(9), text(1));
        let of = |n: u32| format!("{:02}", n % 60);
        let (a, b, c) = (rng.random::<u32>(), rng.random::<u32>(), rng.random::<u32>());
        let json = json!({
            "id": format!("{a:08x}{b:08x}"),
            "name": name,
            "description": description,
            "price": format!("{}.{:02}", a % 900, b % 100),
            "stock": c % 500,
            "active": c.is_multiple_of(5),
            "tags": [tag],
            "attributes": {"weight_g": b % 5000, "colour": words[c as usize % words.len()]},
            "updated_at": format!("2026-03-{:02}T{:02}:{}:{}.{:06}Z", 1 + a % 28, b % 24, of(c), of(a), b % 1_000_000),
        });
        Sample::record(&entity, &json)
    };
    (0..count).map(|_| product()).collect()
}

fn train(seed: u64) -> Arc<Dictionary> {
    let mut samples = Samples::default();
    products(seed, SAMPLES_MAX).iter().for_each(|r| samples.add(&to_vec(&Sample::product(), r)));
    Arc::new(Dictionary::train(&samples.bytes, &samples.sizes).unwrap())
}

/// Trained from products, once for all tests.
fn trained() -> Arc<Dictionary> {
    static TRAINED: LazyLock<Arc<Dictionary>> = LazyLock::new(|| train(1));
    Arc::clone(&TRAINED)
}

fn with_dictionary(above: usize) -> Compression {
    let compression = Compression::new(Some(above));
    compression.adopt(trained());
    compression
}

/// A whole entry, as the scripts make it.
fn written(compression: &Compression, entity: &Entity, record: &Record) -> Vec<u8> {
    let times = [5, 9].map(Timestamp::from_micros_clamped);
    let tail = entry_tail(entity, Some(record), times[0], times[1], compression);
    [epoch(7), digits(Position::ZERO), tail].concat()
}

fn read(compression: &Compression, entity: &Entity, bytes: &[u8]) -> Option<Entry> {
    entry(entity, &Sample::key("k"), &epoch(7), bytes.to_vec(), compression)
}

/// That an entry is the record, and its JSON the one that callers get.
fn assert_is(found: Option<Entry>, entity: &Entity, record: &Record, what: &str) {
    let stored = found.and_then(|entry| entry.stored).unwrap_or_else(|| panic!("{what}: a miss"));
    assert_eq!(stored.record.as_ref(), record, "{what}");
    assert_eq!(stored.json(entity), to_vec(entity, record), "{what}");
}

#[test]
fn whatever_is_compressed_comes_back() {
    let compressions = [Compression::new(None), Compression::new(Some(64)), with_dictionary(64)];
    let mut flags = Vec::new();
    for seed in 0..100 {
        let mut g = Generator::new(seed);
        let entity = g.entity("thing", &|_| true);
        for record in g.records(&entity, 20).values() {
            for compression in &compressions {
                let bytes = written(compression, &entity, record);
                flags.push(bytes[FLAG]);
                assert_is(read(compression, &entity, &bytes), &entity, record, "generated");
            }
        }
    }
    let entity = Sample::product();
    // A process that does not compress reads all of it.
    let reader = Compression::new(None);
    reader.adopt(trained());
    for record in products(2, 200) {
        for compression in &compressions {
            let bytes = written(compression, &entity, &record);
            assert_is(read(compression, &entity, &bytes), &entity, &record, "product");
            assert_is(read(&reader, &entity, &bytes), &entity, &record, "elsewhere");
        }
        assert_eq!(written(&compressions[2], &entity, &record)[FLAG], b'D');
    }
    for flag in *b"RZD" {
        let count = flags.iter().filter(|f| **f == flag).count();
        assert!(count > 20, "only {count} entries were {}", char::from(flag));
    }
}

#[test]
fn what_is_short_or_does_not_get_smaller_stays_as_it_is() {
    let entity = Entity::new("note", "id", vec![Field::new("id", FieldType::String)]).unwrap();
    let of = |compression: &Compression, text: String| {
        let record = Sample::record(&entity, &json!({"id": text}));
        let length = to_vec(&entity, &record).len();
        let bytes = written(compression, &entity, &record);
        assert_is(read(compression, &entity, &bytes), &entity, &record, "stays");
        (bytes[FLAG], length)
    };
    let text = || "a steel chair for the garden, a steel lamp for the desk".repeat(2);
    let (flag, length) = of(&Compression::new(None), text());
    assert_eq!(flag, b'R');
    assert_eq!(of(&with_dictionary(length), text()).0, b'R', "not above");
    assert_eq!(of(&with_dictionary(length - 1), text()).0, b'D', "above");
    assert_eq!(of(&Compression::new(Some(length - 1)), text()).0, b'Z', "without a dictionary");

    let mut rng = StdRng::seed_from_u64(1);
    let noise: String = (0..120).map(|_| rng.random_range('!'..='~')).collect();
    assert_eq!(of(&Compression::new(Some(64)), noise.clone()).0, b'R', "noise");
    assert_eq!(of(&with_dictionary(64), noise).0, b'R', "noise");

    // Long ones need no dictionary, and the longest would hold everybody up.
    assert_eq!(of(&with_dictionary(64), "oak ".repeat(20_000)).0, b'Z');
    assert_eq!(of(&with_dictionary(64), "oak ".repeat(5 << 20)).0, b'R');
}

#[test]
fn records_of_an_entity_become_at_most_half_as_long() {
    let entity = Sample::product();
    let (plain, compression) = (Compression::new(Some(64)), with_dictionary(64));
    let (mut raw, mut alone, mut together) = (0, 0, 0);
    for record in products(3, 1000) {
        raw += to_vec(&entity, &record).len();
        alone += written(&plain, &entity, &record).len() - FLAG - 1;
        together += written(&compression, &entity, &record).len() - FLAG - 1;
    }
    assert!(together * 2 <= raw, "{raw} bytes became {together}");
    assert!(together * 3 <= alone * 2, "{alone} bytes without a dictionary, {together} with one");
}

#[test]
fn an_unknown_dictionary_is_a_miss_until_it_is_there() {
    let entity = Sample::product();
    let (writer, reader) = (with_dictionary(64), Compression::new(Some(64)));
    let record = &products(4, 1)[0];
    let bytes = written(&writer, &entity, record);
    assert!(lacks_dictionary(&bytes, &reader) && !lacks_dictionary(&bytes, &writer));
    assert!(read(&reader, &entity, &bytes).is_none());
    assert!(reader.take(trained().bytes().to_vec()));
    assert!(!lacks_dictionary(&bytes, &reader));
    assert_is(read(&reader, &entity, &bytes), &entity, record, "after it was fetched");
    assert_eq!(written(&reader, &entity, record), bytes, "it writes with it, too");

    // Another one takes its place, and what was written before is read all the same.
    let other = train(5);
    assert_ne!(other.id(), trained().id());
    reader.adopt(Arc::clone(&other));
    assert_is(read(&reader, &entity, &bytes), &entity, record, "of before");
    let newer = written(&reader, &entity, record);
    assert_eq!(newer[FLAG + 1..FLAG + 5], other.id().to_be_bytes());
    for n in 0..4_u8 {
        assert!(reader.take(vec![n; 900]), "any text is a dictionary");
    }
    assert!(lacks_dictionary(&bytes, &reader), "a process keeps four");
    assert_eq!(reader.known.read().unwrap().len(), KNOWN_MAX);
}

#[test]
fn what_is_not_a_dictionary_is_not_used() {
    let (entity, record) = (Sample::product(), &products(6, 1)[0]);
    let mut broken = trained().bytes().to_vec();
    broken[12..200].fill(0xff);
    for bytes in [broken, vec![b'x'; (64 << 10) + 1]] {
        let compression = Compression::new(Some(64));
        assert!(!compression.take(bytes));
        assert!(compression.own().is_none());
        let bytes = written(&compression, &entity, record);
        assert_ne!(bytes[FLAG], b'D');
        assert_is(read(&compression, &entity, &bytes), &entity, record, "without it");
    }
}

#[test]
fn what_is_not_intact_is_a_miss() {
    let (entity, record) = (Sample::product(), &products(7, 1)[0]);
    let long =
        json!({"id": "a", "name": "lamp", "description": "a lamp for the desk, ".repeat(40)});
    let long = &Sample::record(&entity, &long);
    let compressions =
        [(with_dictionary(64), record, b'D'), (Compression::new(Some(64)), long, b'Z')];
    for (compression, record, flag) in compressions {
        let bytes = written(&compression, &entity, record);
        assert_eq!(bytes[FLAG], flag);
        for length in FLAG..bytes.len() {
            assert!(read(&compression, &entity, &bytes[..length]).is_none(), "cut to {length}");
        }
        let mut same = 0;
        for bit in FLAG * 8..bytes.len() * 8 {
            let mut broken = bytes.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            if let Some(found) = read(&compression, &entity, &broken) {
                same += 1;
                assert_is(Some(found), &entity, record, "a bit without meaning");
            }
        }
        assert!(same <= 8, "{same} bits have no meaning");
        assert!(read(&compression, &entity, &[&bytes[..], b"x"].concat()).is_none());
    }
}

#[test]
fn no_entry_is_given_more_room_than_records_may_take() {
    let compression = Compression::new(None);
    let zeros = |length| zstd::bulk::compress(&vec![0; length], 1).unwrap();
    assert_eq!(compression.unpack(PLAIN, &zeros(1 << 20)).map(|json| json.len()), Some(1 << 20));
    assert_eq!(compression.unpack(PLAIN, &zeros(JSON_BYTES_MAX + 1)), None);
    // A frame that says that it holds a terabyte, and another that does not say how much: one empty block each.
    let (head, block) = (&b"\x28\xb5\x2f\xfd\xe0"[..], b"\x01\x00\x00");
    let huge = [head, &(1_u64 << 40).to_le_bytes(), block].concat();
    let silent = b"\x28\xb5\x2f\xfd\x00\x50\x01\x00\x00";
    assert_eq!(compression.unpack(PLAIN, &huge), None);
    assert_eq!(compression.unpack(PLAIN, silent), None);
    assert_eq!(compression.unpack(WITH_DICTIONARY, b"abc"), None);
    assert_eq!(compression.unpack(b'?', b"{}"), None);
}

#[test]
fn a_dictionary_is_trained_once_and_used_when_it_is_shared() {
    // One thread, so that what is queued behind the training waits for it.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let (entity, compression) = (Sample::product(), Compression::new(Some(64)));
        let flag = |record| written(&compression, &entity, record)[FLAG];
        let all = products(8, SAMPLES_MAX + 100);
        for (n, record) in all.iter().enumerate() {
            let is_sampling = matches!(*compression.training(), Training::Sampling(_));
            assert_eq!(is_sampling, n < SAMPLES_MAX, "after {n} records");
            assert_ne!(flag(record), b'D', "nobody else could read it");
        }
        tokio::task::spawn_blocking(|| ()).await.unwrap();
        let own = compression.own().unwrap();
        assert!(own.bytes().len() <= TRAINED_BYTES, "{} bytes", own.bytes().len());
        assert_ne!(flag(&all[0]), b'D', "it is not shared yet");
        compression.adopt(own);
        assert_eq!(flag(&all[0]), b'D');
        assert!(matches!(*compression.training(), Training::Ended));

        // Long records: bytes count.
        let (compression, mut count) = (Compression::new(Some(64)), 0);
        let bytes = all.iter().flat_map(|record| to_vec(&entity, record));
        let json: Vec<u8> = bytes.take(60 << 10).collect();
        while matches!(*compression.training(), Training::Sampling(_)) {
            compression.pack(&json, &mut Vec::new());
            count += 1;
        }
        assert_eq!(count, SAMPLES_BYTES_MAX.div_ceil(json.len()));
    });
}

#[test]
fn the_server_is_asked_now_and_then() {
    let at = |ms: i64| Timestamp::from_micros_clamped(1_767_225_600_000_000 + ms * 1000);
    let never = Compression::new(None);
    assert!(!never.is_due(|| at(0)), "who does not compress has nothing to share");
    assert!(never.may_ask(at(0)) && !never.may_ask(at(999)) && never.may_ask(at(1000)));

    let compression = Compression::new(Some(64));
    let due = |ms| compression.is_due(|| at(ms));
    assert!(due(0) && !due(999) && due(1000) && !compression.may_ask(at(1999)));
    compression.adopt(trained());
    assert!(!due(60_999) && due(61_000) && !due(61_000));
    assert!(due(60_500), "the clock was set back");
}
