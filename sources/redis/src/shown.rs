//! [`Shown`]: single fields of records, kept beside them under keys of their own, for programs that read nothing else.
//!
//! They are written by the script that writes the record, and come from it alone, so that they hold wherever it holds.
//! The record stays where it is: a value or a score could not give it back.

use redis::Value as Reply;
use serde_json::{Map, Value as Json};
use unisono_core::json::to_text;
use unisono_core::kind::Options;
use unisono_core::{Entity, Error, ErrorKind, FieldType, Key, Record, Result};

use crate::keys::{Claim, Template};
use crate::reply;

/// The most fields of a record in each of the two ways: their keys must fit into the arguments of one command.
const FIELDS_MAX: usize = 4;
/// The two options.
const VALUES: &str = "values";
const SETS: &str = "sorted_sets";

/// What is kept beside each record of an entity.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Shown {
    /// Fields, by their place in the record, each under a key of its own for each record.
    values: Vec<(usize, Template)>,
    /// Fields that are the scores of the records' keys in a sorted set.
    sets: Vec<(usize, String)>,
}

/// What is found beside a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beside {
    /// What should be there.
    Whole,
    /// Something else.
    Wrong,
    /// Too little.
    Missing,
}

impl Shown {
    /// From the options of an entity.
    pub(crate) fn of(options: &Options, entity: &Entity) -> Result<Self> {
        let mut shown = Shown::default();
        for text in options.list(VALUES) {
            let (field, key) = field_and_key(VALUES, text, entity)?;
            shown.values.push((field, Template::parse(VALUES, key, entity, entity.name())?));
        }
        for text in options.list(SETS) {
            let (field, key) = field_and_key(SETS, text, entity)?;
            let wrong = |message| wrong(SETS, text, message);
            if key.contains(['{', '}']) || key.starts_with("unisono:") {
                return Err(wrong("a sorted set has one key, without braces and unisono:")
                    .hint("write it like price=dearest"));
            }
            let ty = entity.fields().get(field).map(|field| &field.ty);
            let is_number = matches!(
                ty,
                Some(FieldType::Integer | FieldType::Decimal { .. } | FieldType::Float)
            );
            if !is_number {
                return Err(wrong("a score is a number, and the field is none")
                    .hint("name a field of type integer, decimal or float"));
            }
            shown.sets.push((field, key.to_owned()));
        }
        shown.check(entity)?;
        Ok(shown)
    }

    /// As it was kept by [`Shown::describe`]. Only its keys count: a field may no longer be declared.
    pub(crate) fn kept(kept: &Json, entity: &Entity) -> Result<Self> {
        let named =
            |name: &str| kept.get(name).and_then(Json::as_object).cloned().unwrap_or_default();
        let texts = |all: Map<String, Json>| {
            let text = |key: Json| key.as_str().unwrap_or_default().to_owned();
            all.into_iter().map(move |(field, key)| (field, text(key))).collect::<Vec<_>>()
        };
        let place = |field: &str| entity.index_of(field).unwrap_or(entity.key_index());
        let values = texts(named(VALUES)).into_iter().map(|(field, key)| {
            Ok((place(&field), Template::parse(VALUES, &key, entity, entity.name())?))
        });
        let sets = texts(named(SETS)).into_iter().map(|(field, key)| (place(&field), key));
        Ok(Shown { values: values.collect::<Result<_>>()?, sets: sets.collect() })
    }

    /// What is kept of it beside the records, by option; nothing for an option that is not used.
    pub(crate) fn describe(&self, entity: &Entity) -> Vec<(&'static str, Json)> {
        let name = |field: usize| {
            entity.fields().get(field).map(|field| field.name.to_string()).unwrap_or_default()
        };
        let key = &entity.key_field().name;
        let values = self
            .values
            .iter()
            .map(|(field, template)| (name(*field), Json::from(template.text(key))));
        let sets = self.sets.iter().map(|(field, set)| (name(*field), Json::from(set.as_str())));
        let both = [(VALUES, values.collect::<Map<_, _>>()), (SETS, sets.collect())];
        let used = both.into_iter().filter(|(_, all)| !all.is_empty());
        used.map(|(option, all)| (option, Json::Object(all))).collect()
    }

    /// The options of which [`Shown::describe`] speaks.
    pub(crate) const OPTIONS: [&str; 2] = [VALUES, SETS];

    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty() && self.sets.is_empty()
    }

    /// How many keys each record has of its own, and how many sorted sets there are.
    pub(crate) fn counts(&self) -> [usize; 2] {
        [self.values.len(), self.sets.len()]
    }

    /// The keys of its fields that a record has for itself, without the prefix.
    pub(crate) fn keys(&self, key: &Key) -> impl Iterator<Item = String> {
        self.values.iter().map(move |(_, template)| template.key(key))
    }

    /// The keys of the sorted sets, without the prefix.
    pub(crate) fn sets(&self) -> impl Iterator<Item = &str> {
        self.sets.iter().map(|(_, key)| key.as_str())
    }

    /// Everything that it claims.
    pub(crate) fn claims(&self, entity: &Entity) -> impl Iterator<Item = Claim> {
        let values = self.values.iter().map(|(_, template)| template.claim(entity));
        values.chain(self.sets.iter().map(|(_, key)| Claim::one(key)))
    }

    /// What the script writes: each value behind `=`, each score; empty where there is nothing.
    pub(crate) fn arguments(&self, entity: &Entity, record: &Record) -> Vec<Vec<u8>> {
        let text = |field: usize| {
            let ty = &entity.fields().get(field)?.ty;
            to_text(ty, record.values().get(field)?)
        };
        let values = self.values.iter().map(|(field, _)| {
            text(*field).map(|text| format!("={text}").into_bytes()).unwrap_or_default()
        });
        let scores =
            self.sets.iter().map(|(field, _)| text(*field).unwrap_or_default().into_bytes());
        values.chain(scores).collect()
    }

    /// Compares what stands beside a record with what [`Shown::arguments`] says of it. A score is a double, so that it may be
    /// the nearest one.
    pub(crate) fn compare(&self, entity: &Entity, record: &Record, found: Reply) -> Result<Beside> {
        let expected = self.arguments(entity, record);
        let mut all = Beside::Whole;
        for (n, (expected, found)) in expected.iter().zip(reply::list(found)?).enumerate() {
            let found = reply::bytes(found)?;
            let is_same = |found: &[u8]| match n < self.values.len() {
                true => expected.strip_prefix(b"=") == Some(found),
                false => number(expected).is_some_and(|score| number(found) == Some(score)),
            };
            match found {
                None if expected.is_empty() => {}
                None => return Ok(Beside::Missing),
                Some(found) if is_same(&found) => {}
                Some(_) => all = Beside::Wrong,
            }
        }
        Ok(all)
    }

    fn check(&self, entity: &Entity) -> Result<()> {
        let is_repeated = |mut fields: Vec<usize>| {
            let all = fields.len();
            fields.sort_unstable();
            fields.dedup();
            fields.len() < all
        };
        let values: Vec<_> = self.values.iter().map(|(field, _)| *field).collect();
        let sets: Vec<_> = self.sets.iter().map(|(field, _)| *field).collect();
        for (option, fields) in [(VALUES, values), (SETS, sets)] {
            let wrong = |message, fields: &Vec<usize>| {
                Error::new(ErrorKind::InvalidConfig, message)
                    .with(option, fields.len())
                    .with("entity", entity.name())
            };
            if fields.len() > FIELDS_MAX {
                return Err(wrong("names too many fields", &fields)
                    .hint(format!("name at most {FIELDS_MAX}, or have others read the records")));
            }
            if is_repeated(fields.clone()) {
                return Err(wrong("names a field twice", &fields).hint("name each field once"));
            }
        }
        Ok(())
    }
}

fn number(score: &[u8]) -> Option<f64> {
    std::str::from_utf8(score).ok()?.parse().ok()
}

fn wrong(option: &'static str, text: &str, message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidConfig, message).with(option, text)
}

/// The two sides of `field=key`.
fn field_and_key<'t>(
    option: &'static str,
    text: &'t str,
    entity: &Entity,
) -> Result<(usize, &'t str)> {
    let example = if option == VALUES {
        format!("stock={}:{{{}}}:stock", entity.name(), entity.key_field().name)
    } else {
        "stock=by_stock".to_owned()
    };
    let hint = || format!("write it like {example}, with a field of {}", entity.name());
    let (field, key) = text
        .split_once('=')
        .map(|(field, key)| (field.trim(), key.trim()))
        .filter(|(field, key)| !field.is_empty() && !key.is_empty())
        .ok_or_else(|| wrong(option, text, "must be a field and a key").hint(hint()))?;
    let place = entity.index_of(field);
    let place =
        place.ok_or_else(|| wrong(option, text, "is no field of the entity").hint(hint()))?;
    Ok((place, key))
}
