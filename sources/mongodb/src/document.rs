//! A record as a document, and back.

use std::sync::Arc;

use mongodb::bson::{Bson, DateTime, Document};
use serde_json::Value as Json;
use unisono_core::{
    Entity, Error, Field, FieldType, Key, Position, Record, Result, Stored, Value, Version,
};

use crate::codec::{DATE_DIGITS, decode, decode_key, encode, encode_key, join, split, unfit};
use crate::error::corrupt;
use crate::json;

/// The version of a record.
pub(crate) const VERSION: &str = "_v";
/// What a document is that is no record: a remembered deletion, the checkpoint, the schema.
pub(crate) const NOTE: &str = "_note";
/// The note of a remembered deletion.
pub(crate) const DELETED: &str = "deleted";
/// Beside dates: the microseconds of the timestamps that have some, by field.
pub(crate) const MICROS: &str = "_micros";
/// JSON that BSON cannot hold, as text, by field.
pub(crate) const TEXT: &str = "_text";

/// Whether a field is a date with microseconds beside it.
pub(crate) fn has_micros(ty: &FieldType) -> bool {
    matches!(ty, FieldType::Timestamp { precision } if *precision > DATE_DIGITS)
}

/// The document of a record.
pub(crate) fn of_record(
    entity: &Entity,
    key: &Key,
    record: &Record,
    version: Version,
) -> Result<Document> {
    let mut document = Document::new();
    document.insert("_id", encode_key(key));
    let values = entity.fields().iter().zip(record.values()).enumerate();
    let values = values.filter(|(n, _)| *n != entity.key_index()).map(|(_, pair)| pair);
    write(&mut document, values)?;
    document.insert(VERSION, version.as_i64());
    Ok(document)
}

/// What is left of a record that was deleted.
pub(crate) fn of_deletion(key: &Key, version: Version) -> Document {
    let mut document = Document::new();
    document.insert("_id", encode_key(key));
    document.insert(NOTE, DELETED);
    document.insert(VERSION, version.as_i64());
    document
}

/// Writes fields into a document; those without a value are left out.
fn write<'a>(
    document: &mut Document,
    values: impl Iterator<Item = (&'a Field, &'a Value)>,
) -> Result<()> {
    let (mut all_micros, mut texts) = (Document::new(), Document::new());
    for (field, value) in values {
        let name = field.name.as_ref();
        let bson = match (&field.ty, value) {
            (_, Value::Null | Value::Json(Json::Null)) => continue,
            (ty, Value::Timestamp(time)) if has_micros(ty) => {
                let (date, micros) = split(*time);
                if micros != 0 {
                    all_micros.insert(name, micros);
                }
                Bson::DateTime(date)
            }
            (FieldType::Json, Value::Json(tree)) => match json::encode(tree) {
                Some(bson) => bson,
                None => {
                    texts.insert(name, tree.to_string());
                    continue;
                }
            },
            (FieldType::List(of), Value::List(items)) => {
                let items: Option<_> = items.iter().map(|item| encode(of, item)).collect();
                Bson::Array(items.ok_or_else(|| unfit(&field.ty).with("field", name))?)
            }
            (FieldType::Objects(fields), Value::Objects(rows)) => {
                let row = |row: &Vec<Value>| {
                    let mut document = Document::new();
                    write(&mut document, fields.iter().zip(row))?;
                    Ok(Bson::Document(document))
                };
                Bson::Array(rows.iter().map(row).collect::<Result<_>>()?)
            }
            (ty, value) => encode(ty, value).ok_or_else(|| unfit(ty).with("field", name))?,
        };
        document.insert(name, bson);
    }
    for (name, beside) in [(MICROS, all_micros), (TEXT, texts)] {
        if !beside.is_empty() {
            document.insert(name, beside);
        }
    }
    Ok(())
}

/// What takes the place of a value that cannot be decoded, or the failure of the whole record.
pub(crate) type Otherwise = fn(Error) -> Result<Value>;

/// Reading fails at a broken value.
pub(crate) const FAIL: Otherwise = Err;
/// A broken value is null, so that a comparison finds the record and repairs it.
pub(crate) const NULL: Otherwise = |_| Ok(Value::Null);

/// The record of a document; `None` for a document whose `_id` is no key: it is not Unisono's.
///
/// One that somebody wrote without a version has version zero, below all others.
pub(crate) fn stored(
    entity: &Entity,
    document: &Document,
    otherwise: Otherwise,
) -> Result<Option<Stored>> {
    let key = document.get("_id").and_then(|id| decode_key(&entity.key_field().ty, id));
    let Some(key) = key else { return Ok(None) };
    let mut values = read(entity.fields(), document, otherwise)
        .map_err(|e| e.of(entity.name()).with("key", &key))?;
    if let Some(place) = values.get_mut(entity.key_index()) {
        *place = key.to_value();
    }
    Ok(Some(Stored::new(key, version(document), Arc::new(Record::new(values)))))
}

/// The version of a document; zero if there is none.
pub(crate) fn version(document: &Document) -> Version {
    match document.get(VERSION) {
        Some(Bson::Int64(n)) => Position::from_i64(*n).unwrap_or_default(),
        Some(Bson::Int32(n)) => Position::from_i64(i64::from(*n)).unwrap_or_default(),
        _ => Position::ZERO,
    }
}

fn read(fields: &[Field], document: &Document, otherwise: Otherwise) -> Result<Vec<Value>> {
    let beside = |name: &str| document.get(name).and_then(Bson::as_document);
    let (all_micros, texts) = (beside(MICROS), beside(TEXT));
    let mut values = Vec::with_capacity(fields.len());
    for field in fields {
        let name = field.name.as_ref();
        let text = texts.and_then(|texts| texts.get(name)).filter(|_| field.ty == FieldType::Json);
        let value = match (document.get(name), text) {
            (None, None) => Ok(Value::Null),
            (_, Some(text)) => from_text(text),
            (Some(bson), None) => {
                let micros = all_micros.and_then(|micros| micros.get(name));
                read_one(&field.ty, bson, micros, otherwise)
            }
        };
        values.push(value.map_err(|e| e.with("field", name)).or_else(otherwise)?);
    }
    Ok(values)
}

fn read_one(
    ty: &FieldType,
    bson: &Bson,
    micros: Option<&Bson>,
    otherwise: Otherwise,
) -> Result<Value> {
    let wrong = || corrupt(ty, bson);
    match (ty, bson) {
        (_, Bson::Null) => Ok(Value::Null),
        (ty, Bson::DateTime(date)) if has_micros(ty) => timestamp(*date, micros).ok_or_else(wrong),
        (FieldType::Json, bson) => json::decode(bson).map(Value::Json).ok_or_else(wrong),
        (FieldType::List(of), Bson::Array(items)) => {
            let items = items.iter().map(|item| match item {
                Bson::Null => Err(wrong()),
                item => decode(of, item),
            });
            Ok(Value::List(items.collect::<Result<_>>()?))
        }
        (FieldType::Objects(fields), Bson::Array(rows)) => {
            let rows = rows
                .iter()
                .map(|row| read(fields, row.as_document().ok_or_else(wrong)?, otherwise));
            Ok(Value::Objects(rows.collect::<Result<_>>()?))
        }
        (ty, bson) if ty.is_scalar() => decode(ty, bson),
        _ => Err(wrong()),
    }
}

fn timestamp(date: DateTime, micros: Option<&Bson>) -> Option<Value> {
    let micros = match micros {
        None => 0,
        Some(bson) => bson.as_i32().filter(|n| (0..1000).contains(n))?,
    };
    join(date, micros).map(Value::Timestamp)
}

fn from_text(bson: &Bson) -> Result<Value> {
    let parsed = bson.as_str().and_then(|text| serde_json::from_str(text).ok());
    parsed.map(Value::Json).ok_or_else(|| corrupt(FieldType::Json, bson))
}
