//! Digests of records over a canonical encoding by declared type, comparable across every kind of source.

use std::fmt;

use serde_json::Value as Json;

use crate::entity::Entity;
use crate::key::Key;
use crate::record::Record;
use crate::value::Value;

/// A 128-bit hash of a record's key and data; the version is not part of it. Shown as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Digest(pub u128);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The digest of one record: the first 128 bits of BLAKE3 over its canonical encoding.
///
/// The encoding is the entity's name, the key, and for each field that is not null its name and value. Everything is
/// self-delimiting, so that different records never have the same encoding. A field that is null everywhere changes
/// no digest, so that adding one leaves stored digests valid. Values that compare as equal are encoded alike:
/// decimals without trailing zeros, no negative zero, whole JSON numbers as integers, JSON members sorted by name.
pub fn of(entity: &Entity, key: &Key, record: &Record) -> Digest {
    let mut out = Vec::with_capacity(64 + record.weight());
    bytes(entity.name().as_bytes(), &mut out);
    match key {
        Key::Integer(n) => integer(i128::from(*n), &mut out),
        Key::String(text) => tagged_bytes(Tag::Text, text.as_bytes(), &mut out),
        Key::Uuid(uuid) => tagged_bytes(Tag::Uuid, uuid.as_bytes(), &mut out),
    }
    for (field, field_value) in entity.fields().iter().zip(record.values()) {
        if !field_value.is_null() {
            bytes(field.name.as_bytes(), &mut out);
            value(field_value, &mut out);
        }
    }
    let hash = blake3::hash(&out);
    let mut first = [0; 16];
    first.copy_from_slice(&hash.as_bytes()[..16]);
    Digest(u128::from_be_bytes(first))
}

/// What the following bytes are. The numbers are part of the encoding and never change.
#[derive(Clone, Copy)]
enum Tag {
    Null = 0,
    False = 1,
    True = 2,
    Integer = 3,
    Float = 4,
    Decimal = 5,
    Text = 6,
    Bytes = 7,
    Date = 8,
    Timestamp = 9,
    Uuid = 10,
    List = 11,
    Object = 12,
    Json = 13,
}

fn value(value_: &Value, out: &mut Vec<u8>) {
    match value_ {
        Value::Null => out.push(Tag::Null as u8),
        Value::Boolean(b) => boolean(*b, out),
        Value::Integer(n) => integer(i128::from(*n), out),
        Value::Float(n) => float(*n, out),
        Value::Decimal(n) => {
            let n = n.normalize();
            out.push(Tag::Decimal as u8);
            signed(n.mantissa(), out);
            unsigned(u128::from(n.scale()), out);
        }
        Value::String(text) => tagged_bytes(Tag::Text, text.as_bytes(), out),
        Value::Bytes(content) => tagged_bytes(Tag::Bytes, content, out),
        Value::Date(date) => {
            out.push(Tag::Date as u8);
            signed(i128::from(date.days()), out);
        }
        Value::Timestamp(time) => {
            out.push(Tag::Timestamp as u8);
            signed(i128::from(time.micros()), out);
        }
        Value::Uuid(uuid) => tagged_bytes(Tag::Uuid, uuid.as_bytes(), out),
        Value::Json(content) => {
            out.push(Tag::Json as u8);
            json(content, out);
        }
        Value::List(items) => {
            out.push(Tag::List as u8);
            unsigned(items.len() as u128, out);
            items.iter().for_each(|item| value(item, out));
        }
        Value::Objects(items) => {
            out.push(Tag::List as u8);
            unsigned(items.len() as u128, out);
            for item in items {
                out.push(Tag::Object as u8);
                unsigned(item.len() as u128, out);
                item.iter().for_each(|part| value(part, out));
            }
        }
    }
}

fn json(content: &Json, out: &mut Vec<u8>) {
    match content {
        Json::Null => out.push(Tag::Null as u8),
        Json::Bool(b) => boolean(*b, out),
        Json::Number(n) => match (crate::value::whole(n), n.as_f64()) {
            (Some(n), _) => integer(n, out),
            (None, n) => float(n.unwrap_or_default(), out),
        },
        Json::String(text) => tagged_bytes(Tag::Text, text.as_bytes(), out),
        Json::Array(items) => {
            out.push(Tag::List as u8);
            unsigned(items.len() as u128, out);
            items.iter().for_each(|item| json(item, out));
        }
        Json::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
            out.push(Tag::Object as u8);
            unsigned(members.len() as u128, out);
            for (name, member) in members {
                bytes(name.as_bytes(), out);
                json(member, out);
            }
        }
    }
}

fn boolean(b: bool, out: &mut Vec<u8>) {
    out.push(if b { Tag::True } else { Tag::False } as u8);
}

fn integer(n: i128, out: &mut Vec<u8>) {
    out.push(Tag::Integer as u8);
    signed(n, out);
}

fn float(n: f64, out: &mut Vec<u8>) {
    out.push(Tag::Float as u8);
    // Adding zero turns a negative zero into a positive one and changes nothing else.
    out.extend_from_slice(&(n + 0.0).to_bits().to_be_bytes());
}

fn tagged_bytes(tag: Tag, content: &[u8], out: &mut Vec<u8>) {
    out.push(tag as u8);
    bytes(content, out);
}

fn bytes(content: &[u8], out: &mut Vec<u8>) {
    unsigned(content.len() as u128, out);
    out.extend_from_slice(content);
}

/// Zig-zag: small numbers of either sign are short.
fn signed(n: i128, out: &mut Vec<u8>) {
    unsigned(((n << 1) ^ (n >> 127)) as u128, out);
}

/// Seven bits a byte, the lowest first; all but the last have the eighth bit set.
fn unsigned(mut n: u128, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

#[cfg(test)]
mod tests;
