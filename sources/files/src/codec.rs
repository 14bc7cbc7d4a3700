//! How keys become file names, and records the content of files; and back.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value as Json;
use unisono_core::{Change, Entity, Field, FieldType, Key, Record, Result, Stored, Version, json};

use crate::error::corrupt;

/// Names longer than this are replaced by a hash: file systems end at 255 bytes.
const NAME_BYTES_MAX: usize = 200;
const EXTENSION: &str = ".json";

/// The shard folder of a key: two hexadecimal digits.
pub(crate) fn shard(key: &Key) -> String {
    format!("{:02x}", key.stable_hash() >> 56)
}

/// Whether a folder name is that of a shard.
pub(crate) fn is_shard(name: &str) -> bool {
    name.len() == 2 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The file of a key below the folder of records.
pub(crate) fn path(records: &Path, key: &Key) -> PathBuf {
    records.join(shard(key)).join(file_name(key))
}

/// The file name of a key. It has no capital letters, so that file systems that ignore case keep keys apart.
pub(crate) fn file_name(key: &Key) -> String {
    let text = key.to_string();
    let plain = !is_device(&text);
    let mut name = String::with_capacity(text.len() + EXTENSION.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' if plain => name.push(byte.into()),
            _ => escape(&mut name, byte),
        }
    }
    if name.len() > NAME_BYTES_MAX {
        name = format!("~{}", blake3::hash(text.as_bytes()).to_hex());
    }
    name + EXTENSION
}

fn escape(name: &mut String, byte: u8) {
    // Writing to a string cannot fail.
    let _ = write!(name, "%{byte:02x}");
}

/// Names that some systems keep for devices, whatever follows the point.
fn is_device(text: &str) -> bool {
    let numbered = |prefix| {
        text.strip_prefix(prefix)
            .is_some_and(|n| n.len() == 1 && n.bytes().all(|b| b.is_ascii_digit()))
    };
    matches!(text, "con" | "prn" | "aux" | "nul") || numbered("com") || numbered("lpt")
}

/// What a file name says about the key inside.
#[derive(Debug, PartialEq)]
pub(crate) enum Named {
    /// It is this one.
    Key(Key),
    /// Only the content tells.
    Hashed,
    /// The file is not one of ours.
    Foreign,
}

/// Reads a file name back. Only the one name that a key is stored under counts.
pub(crate) fn parse_name(entity: &Entity, name: &str) -> Named {
    let Some(stem) = name.strip_suffix(EXTENSION) else { return Named::Foreign };
    if stem.starts_with('~') {
        return Named::Hashed;
    }
    match unescape(stem).and_then(|text| Key::parse(entity, &text).ok()) {
        Some(key) if file_name(&key) == name => Named::Key(key),
        _ => Named::Foreign,
    }
}

fn unescape(name: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let high = char::from(rest.next()?).to_digit(16)?;
                let low = char::from(rest.next()?).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()?
            }
            plain => plain,
        });
    }
    String::from_utf8(bytes).ok()
}

/// What a file says about its key.
#[derive(Debug, PartialEq)]
pub(crate) enum State {
    /// There is this record.
    Present(Stored),
    /// It was deleted by this version.
    Deleted(Version),
}

/// The content of a file, without its record.
#[derive(Deserialize)]
pub(crate) struct Head {
    /// The text of the key.
    pub(crate) key: String,
    /// Position of the last change.
    pub(crate) version: Version,
    /// Whether the record is gone.
    #[serde(default)]
    pub(crate) deleted: bool,
}

#[derive(Deserialize)]
struct Whole {
    key: String,
    version: Version,
    #[serde(default)]
    deleted: bool,
    record: Option<Json>,
}

/// Reads the content of the file of `key`.
pub(crate) fn decode(entity: &Entity, key: &Key, path: &Path, content: &[u8]) -> Result<State> {
    let bad = |reason: &dyn std::fmt::Display| corrupt(path, reason).of(entity.name());
    let Whole { key: text, version, deleted, record } =
        serde_json::from_slice(content).map_err(|e| bad(&e))?;
    if Key::parse(entity, &text).ok().as_ref() != Some(key) {
        return Err(bad(&"it holds another key"));
    }
    if deleted {
        return Ok(State::Deleted(version));
    }
    let mut record = record.ok_or_else(|| bad(&"it has no record"))?;
    keep_declared(entity.fields(), &mut record);
    let record = json::parse(entity, &record).map_err(|e| bad(&e))?;
    if entity.key_of(&record).ok().as_ref() != Some(key) {
        return Err(bad(&"its record has another key"));
    }
    Ok(State::Present(Stored::new(key.clone(), version, Arc::new(record))))
}

/// Drops what was written under an earlier declaration: fields that are no longer declared do not exist.
fn keep_declared(fields: &[Field], json: &mut Json) {
    let Json::Object(map) = json else { return };
    map.retain(|name, value| match fields.iter().find(|f| f.name.as_ref() == name.as_str()) {
        Some(Field { ty: FieldType::Objects(inner), .. }) => {
            if let Json::Array(rows) = value {
                rows.iter_mut().for_each(|row| keep_declared(inner, row));
            }
            true
        }
        other => other.is_some(),
    });
}

/// The content of the file of a changed key, for people to read.
pub(crate) fn encode(entity: &Entity, change: &Change) -> Vec<u8> {
    let record = change.image.as_deref().map(|record| Readable { entity, record });
    let deleted = record.is_none();
    let file = Written { key: &change.key, version: change.position, deleted, record };
    // Serialising to memory fails only for map keys that are not strings; field names are.
    let mut content = serde_json::to_vec_pretty(&file).unwrap_or_default();
    content.push(b'\n');
    content
}

#[derive(Serialize)]
struct Written<'a> {
    key: &'a Key,
    version: Version,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    deleted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<Readable<'a>>,
}

struct Readable<'a> {
    entity: &'a Entity,
    record: &'a Record,
}

impl Serialize for Readable<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.record.values().len()))?;
        for (field, value) in self.entity.fields().iter().zip(self.record.values()) {
            map.serialize_entry(field.name.as_ref(), &json::value_to_json(&field.ty, value))?;
        }
        map.end()
    }
}

/// The key of a file whose name is a hash.
pub(crate) fn hashed_key(entity: &Entity, path: &Path, content: &[u8]) -> Result<Key> {
    let head: Head = serde_json::from_slice(content).map_err(|e| corrupt(path, e))?;
    let key = Key::parse(entity, &head.key).map_err(|e| corrupt(path, e))?;
    let named_so = path.file_name().is_some_and(|name| name == file_name(&key).as_str());
    if named_so { Ok(key) } else { Err(corrupt(path, "it holds another key")) }
}
