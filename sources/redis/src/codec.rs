//! Records, versions and cache entries as Redis holds them.

use std::sync::Arc;

use bytes::Bytes;
use redis::Value as Reply;
use serde_json::Value as Json;
use unisono_core::json::{decode, parse_text, parse_value, to_json, to_text, to_vec};
use unisono_core::source::Entry;
use unisono_core::{
    Entity, FieldType, Key, Position, Record, Result, Stored, Timestamp, Value, Version,
};

use crate::compression::Compression;
use crate::error::{corrupt, unexpected};
use crate::reply;

/// How a record of a follower is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// A string: the record's JSON.
    Json,
    /// A hash: one field for each field that is not null, as text.
    Hash,
    /// A string: the version as 8 bytes, most significant first, and the JSON without nulls.
    Packed,
}

impl Format {
    /// The word of the option.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Hash => "hash",
            Format::Packed => "packed",
        }
    }

    /// What the scripts call it: hash or string.
    pub(crate) fn shape(self) -> &'static [u8] {
        if self == Format::Hash { b"h" } else { b"s" }
    }

    /// A record as the values that the script writes.
    pub(crate) fn encode(self, entity: &Entity, record: &Record, version: Version) -> Vec<Vec<u8>> {
        match self {
            Format::Json => vec![to_vec(entity, record)],
            Format::Packed => {
                let mut packed = version.as_u64().to_be_bytes().to_vec();
                let mut json = to_json(entity, record);
                if let Json::Object(members) = &mut json {
                    members.retain(|_, member| !member.is_null());
                }
                packed.extend_from_slice(json.to_string().as_bytes());
                vec![packed]
            }
            Format::Hash => {
                let fields = entity.fields().iter().zip(record.values());
                let texts = fields.filter_map(|(field, value)| {
                    let text = to_text(&field.ty, value)?;
                    Some([field.name.as_bytes().to_vec(), text.into_bytes()])
                });
                texts.flatten().collect()
            }
        }
    }

    /// The record of a reply; `None` if there is none.
    pub(crate) fn decode(self, entity: &Entity, reply: Reply) -> Result<Option<Record>> {
        let record = match self {
            Format::Hash => {
                let parts = match reply {
                    Reply::Nil => return Ok(None),
                    reply => reply::list(reply)?,
                };
                if parts.is_empty() {
                    return Ok(None);
                }
                from_hash(entity, parts)?
            }
            Format::Json | Format::Packed => {
                let Some(bytes) = reply::bytes(reply)? else { return Ok(None) };
                decode(
                    entity,
                    if self == Format::Packed {
                        bytes.get(8..).unwrap_or_default()
                    } else {
                        &bytes
                    },
                )?
            }
        };
        Ok(Some(record))
    }
}

fn broken() -> unisono_core::Error {
    corrupt("a stored record cannot be decoded")
}

fn from_hash(entity: &Entity, parts: Vec<Reply>) -> Result<Record> {
    let mut values = vec![Value::Null; entity.fields().len()];
    let mut parts = parts.into_iter();
    while let (Some(name), Some(text)) = (parts.next(), parts.next()) {
        // A field that is not declared, or not of text, is somebody else's.
        let Ok(name) = reply::text(name) else { continue };
        let Some(n) = entity.index_of(&name) else { continue };
        let (Some(field), Some(slot)) = (entity.fields().get(n), values.get_mut(n)) else {
            continue;
        };
        let text = reply::text(text).map_err(|_| broken().with("field", &name))?;
        let value = match &field.ty {
            ty @ (FieldType::List(_) | FieldType::Objects(_)) => serde_json::from_str(&text)
                .map_err(|e| broken().caused_by(e))
                .and_then(|json| parse_value(ty, &json)),
            ty => parse_text(ty, &text),
        };
        *slot = value.map_err(|e| broken().with("field", &name).caused_by(e))?;
    }
    Ok(Record::new(values))
}

/// The characters of an epoch, and of a position.
pub(crate) const EPOCH: usize = 16;
pub(crate) const POSITION: usize = 20;

/// A position as text that sorts as positions do, and that no script takes for a number.
pub(crate) fn digits(position: Position) -> Vec<u8> {
    format!("{:020}", position.as_u64()).into_bytes()
}

/// The position of such a text.
pub(crate) fn position(text: &[u8]) -> Result<Position> {
    let text = std::str::from_utf8(text).map_err(|_| unexpected())?;
    text.parse().map_err(|_| unexpected())
}

/// An instant as text that sorts as instants do; those before 1970 count as its first moment.
pub(crate) fn instant(time: Timestamp) -> String {
    format!("{:020}", time.micros().max(0))
}

/// The characters of an epoch.
pub(crate) fn epoch(epoch: u64) -> Vec<u8> {
    format!("{epoch:016x}").into_bytes()
}

/// Where an entry's parts begin: epoch, version, expiry, when it was read, a flag, what the flag says: the record's JSON,
/// nothing if there is no record, or what [`Compression`] has made of it.
const VERSION: usize = EPOCH;
const EXPIRES: usize = VERSION + POSITION;
const FILLED: usize = 56;
const FLAG: usize = 76;
const PAYLOAD: usize = 77;
const RECORD: u8 = b'R';
const ABSENT: u8 = b'N';

/// What follows epoch and version in a cache entry.
pub(crate) fn entry_tail(
    entity: &Entity,
    record: Option<&Record>,
    filled: Timestamp,
    expires: Timestamp,
    compression: &Compression,
) -> Vec<u8> {
    let mut tail = format!("{}{}", instant(expires), instant(filled)).into_bytes();
    match record.map(|record| to_vec(entity, record)) {
        None => tail.push(ABSENT),
        Some(json) => {
            if !compression.pack(&json, &mut tail) {
                tail.push(RECORD);
                tail.extend_from_slice(&json);
            }
        }
    }
    tail
}

/// The entry of a key, unless it is of another epoch or cannot be decoded: then there is none.
///
/// Only processes that declare the entity alike share entries, so that the JSON of one is the answer to callers as well.
pub(crate) fn entry(
    entity: &Entity,
    key: &Key,
    of: &[u8],
    bytes: Vec<u8>,
    compression: &Compression,
) -> Option<Entry> {
    let bytes = Bytes::from(bytes);
    if bytes.get(..VERSION)? != of {
        return None;
    }
    let version = position(bytes.get(VERSION..EXPIRES)?).ok()?;
    let time = |range| -> Option<Timestamp> {
        let text = std::str::from_utf8(bytes.get::<std::ops::Range<usize>>(range)?).ok()?;
        Timestamp::from_micros(text.parse().ok()?).ok()
    };
    let json = match *bytes.get(FLAG)? {
        ABSENT => None,
        RECORD => Some(bytes.slice(PAYLOAD..)),
        flag => Some(Bytes::from(compression.unpack(flag, bytes.get(PAYLOAD..)?)?)),
    };
    let stored = match json {
        None => None,
        Some(json) => {
            let record = decode(entity, &json).ok()?;
            Some(Arc::new(Stored::with_json(key.clone(), version, Arc::new(record), json)))
        }
    };
    Some(Entry { stored, version, filled: time(FILLED..FLAG)?, expires: time(EXPIRES..FILLED)? })
}

/// Whether it takes a dictionary that is not known to read an entry.
pub(crate) fn lacks_dictionary(bytes: &[u8], compression: &Compression) -> bool {
    let flagged = bytes.get(FLAG..).and_then(<[u8]>::split_first);
    flagged.is_some_and(|(flag, packed)| compression.lacks(*flag, packed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use unisono_testkit::{Generator, Sample};

    fn reply(format: Format, values: Vec<Vec<u8>>) -> Reply {
        let mut values: Vec<_> = values.into_iter().map(Reply::BulkString).collect();
        match format {
            Format::Hash => Reply::Array(values),
            _ => values.remove(0),
        }
    }

    #[test]
    fn every_value_comes_back_in_every_format() {
        for format in [Format::Json, Format::Hash, Format::Packed] {
            for seed in 0..100 {
                let mut g = Generator::new(seed);
                let entity = g.entity("thing", &|_| true);
                for record in g.records(&entity, 20).values() {
                    let written = format.encode(&entity, record, Position::MAX);
                    let read = format.decode(&entity, reply(format, written)).unwrap().unwrap();
                    let same = to_vec(&entity, &read) == to_vec(&entity, record);
                    assert!(read == *record && same, "seed {seed} {format:?}: {record:?} {read:?}");
                }
            }
        }
    }

    #[test]
    fn a_hash_is_text_that_anyone_reads() {
        let entity = Sample::product();
        let record = Sample::record(
            &entity,
            &json!({"id": "a", "name": "", "price": "2.50", "active": true, "tags": ["x"]}),
        );
        let written = Format::Hash.encode(&entity, &record, Position::ZERO);
        let texts: Vec<_> = written.iter().map(|v| String::from_utf8_lossy(v)).collect();
        // An empty text is there; nulls are not.
        let expected =
            ["id", "a", "name", "", "price", "2.50", "active", "true", "tags", "[\"x\"]"];
        assert_eq!(texts, expected);
    }

    #[test]
    fn what_is_stored_of_fields_no_longer_declared_is_left_out() {
        let entity = Sample::order();
        let json =
            json!({"id": "a", "old": 1, "items": [{"product_id": "p", "quantity": 1, "gone": 2}]});
        let record = decode(&entity, json.to_string().as_bytes()).unwrap();
        let kept = json!({"id": "a", "items": [{"product_id": "p", "quantity": 1}]});
        assert_eq!(record, Sample::record(&entity, &kept));
    }

    #[test]
    fn entries_come_back_in_their_epoch_only() {
        let (entity, key) = (Sample::product(), Sample::key("p1"));
        let record = Sample::product_record(1);
        let (filled, expires) =
            (Timestamp::from_micros_clamped(5), Timestamp::from_micros_clamped(9));
        let head = [epoch(7), digits(Position::new(12).unwrap())].concat();
        let compression = Compression::new(None);
        let read =
            |life, bytes: &[u8]| entry(&entity, &key, &epoch(life), bytes.to_vec(), &compression);
        for record in [Some(&record), None] {
            let tail = entry_tail(&entity, record, filled, expires, &compression);
            let bytes = [head.clone(), tail].concat();
            let found = read(7, &bytes).unwrap();
            assert_eq!(found.version.as_u64(), 12);
            assert_eq!((found.filled, found.expires), (filled, expires));
            assert_eq!(found.stored.as_ref().map(|s| s.record.as_ref()), record);
            let json = found.stored.as_ref().map(|stored| stored.json(&entity).to_vec());
            assert_eq!(json, record.map(|record| to_vec(&entity, record)));
            assert!(read(8, &bytes).is_none());
            assert!(read(7, &bytes[..60]).is_none());
        }
    }
}
