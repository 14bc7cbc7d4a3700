//! [`Projection`]: rows that are worked out from the records of an entity, or from the events of streams.
//!
//! Each record *contributes* to groups: nothing, once, or once for each element of a list in it. A row is what the
//! contributions to one group come to ([`Group`]). Everything here is a pure function of records, so that it is
//! the same whoever works it out, and however often.

mod declare;
mod group;
mod state;
mod versions;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use unisono_core::json::{parse_value, to_text, value_to_json};
use unisono_core::{Entity, Error, ErrorKind, Field, FieldType, Key, Record, Result, Value};

pub use declare::{Declared, DeclaredKey, DeclaredValue};
pub use group::{Anew, Group};
pub use versions::{Beside, BesideState, Versions, is_beside};

use crate::rule::Rule;

/// The most different values of a group that `distinct` tells apart.
pub const DISTINCT_MAX: usize = 10_000;
/// The digits of a result whose values have fewer: as many as every kind of source keeps.
const DIGITS: u8 = 18;
/// What the names in the place beside the declared one have behind that of the projection.
pub const BESIDE: &str = "_beside";
/// The key of the only row of a projection without key.
pub const ONLY: &str = "all";

/// How the values of a group become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// How many contributions there are.
    Count,
    /// Their exact sum.
    Sum,
    /// Their mean, with four digits more than they have.
    Avg,
    /// The least.
    Min,
    /// The greatest.
    Max,
    /// That of the record that changed last.
    Latest,
    /// How many different ones there are, up to [`DISTINCT_MAX`].
    Distinct,
}

impl Function {
    /// All of them, with their names.
    pub const ALL: [(&'static str, Function); 7] = [
        ("count", Function::Count),
        ("sum", Function::Sum),
        ("avg", Function::Avg),
        ("min", Function::Min),
        ("max", Function::Max),
        ("latest", Function::Latest),
        ("distinct", Function::Distinct),
    ];

    /// The type of the result for values of a type; `invalid_config` if there is none.
    fn result(self, input: &FieldType) -> Result<FieldType> {
        let refuse = |message: &'static str| Err(Error::new(ErrorKind::InvalidConfig, message));
        Ok(match (self, input) {
            (Function::Count | Function::Distinct, _) => FieldType::Integer,
            (Function::Sum, FieldType::Integer) => FieldType::Integer,
            (Function::Sum, FieldType::Decimal { precision, scale }) => {
                decimal((*precision).max(DIGITS), *scale)
            }
            (Function::Avg, FieldType::Integer) => decimal(DIGITS, 4),
            (Function::Avg, FieldType::Decimal { precision, scale }) => {
                decimal((*precision).max(DIGITS), *scale + 4)
            }
            (Function::Sum | Function::Avg, _) => {
                return refuse("only integers and decimals are summed up exactly");
            }
            (_, ty) if ty.is_scalar() => ty.clone(),
            _ => return refuse("only single values are compared"),
        })
    }
}

/// A decimal with enough digits for its scale.
fn decimal(precision: u8, scale: u8) -> FieldType {
    let scale = scale.min(28);
    FieldType::Decimal { precision: if scale > precision { 28 } else { precision }, scale }
}

/// One field of the rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// Its name.
    pub name: Arc<str>,
    /// How it is worked out.
    pub function: Function,
    /// The type of what records contribute to it. A contribution to a count is true, or does not count.
    pub input: FieldType,
    /// The type of the field.
    pub output: FieldType,
}

impl Kept {
    /// A field; `invalid_config` if the function has no such values.
    pub fn new(name: &str, function: Function, input: FieldType) -> Result<Kept> {
        let output = function.result(&input).map_err(|error| error.with("field", name))?;
        Ok(Kept { name: name.into(), function, input, output })
    }
}

/// What the rows are like.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// What contributions are grouped by: name and type. Without any there is one row, whose key is [`ONLY`].
    pub key: Vec<(Arc<str>, FieldType)>,
    /// What is kept of each group.
    pub fields: Vec<Kept>,
}

/// What a record adds to one group.
#[derive(Clone, Debug, PartialEq)]
pub struct Contribution {
    /// The group: one value for each part of the key. With a null among them it is part of no group.
    pub key: Vec<Value>,
    /// One value for each field; a null adds nothing.
    pub values: Vec<Value>,
}

/// Works out what records contribute. It must always give the same for the same record.
pub trait Contributes: Send + Sync {
    /// What a record contributes. An error makes the record a dead letter.
    fn contributions(&self, record: &Record) -> Result<Vec<Contribution>>;
}

/// A projection that is declared, or written in Rust, in one of its versions.
#[derive(Clone)]
pub struct Projection {
    name: Arc<str>,
    /// The entity whose records contribute.
    pub from: Arc<Entity>,
    /// Which of them do; all if absent.
    pub filter: Option<Arc<Rule>>,
    /// What the rows are like.
    pub shape: Arc<Shape>,
    /// The entity of the rows.
    pub rows: Arc<Entity>,
    /// The engine's own entity of what rows are worked out from: by the key of a row what its group came to.
    pub groups: Arc<Entity>,
    /// The engine's own entity of what each record contributes at present.
    pub parts: Arc<Entity>,
    /// Says what is worked out: rows that were made by another definition are made anew.
    pub definition: Arc<str>,
    /// Which version this is.
    pub version: u64,
    /// Which there are, by what is known of them.
    pub versions: Versions,
    /// The version that was made by another definition than is declared: it stands still until one takes its place.
    pub still: Option<u64>,
    /// The entities of the other place.
    other: Box<Place>,
    by: Arc<dyn Contributes>,
}

/// The entities that are kept in one place.
#[derive(Clone)]
struct Place {
    rows: Arc<Entity>,
    groups: Arc<Entity>,
    parts: Arc<Entity>,
}

impl Place {
    fn new(name: &str, shape: &Shape, from: &Entity) -> Result<Place> {
        let keyed = |field: Field| vec![field, Field::new("state", FieldType::Json)];
        let rows = rows(name, shape)?;
        let of_row = Field::new("key", rows.key_field().ty.clone());
        let of_record = Field::new("key", from.key_field().ty.clone());
        Ok(Place {
            rows: Arc::new(rows),
            groups: Arc::new(Entity::system(&format!("{name}_groups"), "key", keyed(of_row))?),
            parts: Arc::new(Entity::system(&format!("{name}_parts"), "key", keyed(of_record))?),
        })
    }
}

impl Projection {
    /// A projection by code. `definition` must be another text whenever the code gives something else than before.
    ///
    /// Fails with `invalid_config` for names that cannot be used.
    pub fn new(
        name: &str,
        from: &Arc<Entity>,
        filter: Option<Arc<Rule>>,
        shape: Shape,
        definition: &str,
        by: Arc<dyn Contributes>,
    ) -> Result<Projection> {
        let Place { rows, groups, parts } = Place::new(name, &shape, from)?;
        let other = Box::new(Place::new(&format!("{name}{BESIDE}"), &shape, from)?);
        Ok(Projection {
            name: Arc::clone(rows.name()),
            from: Arc::clone(from),
            filter,
            shape: Arc::new(shape),
            rows,
            groups,
            parts,
            definition: definition.into(),
            version: 1,
            versions: Versions::default(),
            still: None,
            other,
            by,
        })
    }

    /// The name by which its rows are read.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The same with such versions, as the one that is kept in the declared place.
    #[must_use]
    pub fn with_versions(&self, versions: Versions) -> Projection {
        let known = [Some(versions.live), versions.beside.map(|beside| beside.version)];
        let own = known.into_iter().flatten().find(|version| !is_beside(*version));
        Projection { version: own.unwrap_or(1), versions, ..self.in_place(false) }
    }

    /// One of its versions.
    #[must_use]
    pub fn at(&self, version: u64) -> Projection {
        Projection { version, ..self.in_place(is_beside(version)) }
    }

    fn in_place(&self, beside: bool) -> Projection {
        let mut found = self.clone();
        if is_beside(self.version) != beside {
            std::mem::swap(&mut found.rows, &mut found.other.rows);
            std::mem::swap(&mut found.groups, &mut found.other.groups);
            std::mem::swap(&mut found.parts, &mut found.other.parts);
            found.version = if beside { 2 } else { 1 };
        }
        found
    }

    /// Whether it is the version that answers.
    pub fn is_live(&self) -> bool {
        self.version == self.versions.live
    }

    /// By what its store was made: the definition, and which version it is beyond the first.
    pub fn rule(&self) -> Cow<'_, str> {
        match self.version {
            1 => Cow::Borrowed(&self.definition),
            version => Cow::Owned(format!("{}; version {version}", self.definition)),
        }
    }

    /// What a record contributes, each with the key of its row. An error says why it cannot be told.
    pub fn contributions(&self, record: &Record) -> Result<Vec<(Key, Contribution)>> {
        let found = self.by.contributions(record)?;
        let found = found.into_iter().filter(|c| !c.key.iter().any(Value::is_null));
        found.map(|c| Ok((self.key_of(&c)?, c))).collect()
    }

    /// The key of the row that a contribution belongs to.
    pub fn key_of(&self, contribution: &Contribution) -> Result<Key> {
        let key = match (&self.shape.key[..], &contribution.key[..]) {
            ([], _) => Key::from_text(ONLY),
            ([(_, ty)], [value]) if is_key(ty) => Key::from_value(value),
            (types, values) => {
                let parts = types.iter().zip(values);
                let texts = parts.map(|((_, ty), value)| {
                    let text = to_text(ty, value).unwrap_or_default();
                    text.replace('%', "%25").replace('/', "%2F")
                });
                Key::from_text(&texts.collect::<Vec<_>>().join("/"))
            }
        };
        key.map_err(|error| error.of(self.name()))
    }

    /// Contributions as they are kept.
    pub fn to_json(&self, contributions: &[(Key, Contribution)]) -> Json {
        let list = |types: &mut dyn Iterator<Item = &FieldType>, values: &[Value]| {
            let pairs = types.zip(values);
            Json::Array(pairs.map(|(ty, value)| value_to_json(ty, value)).collect())
        };
        let one = |(_, c): &(Key, Contribution)| {
            let key = list(&mut self.shape.key.iter().map(|(_, ty)| ty), &c.key);
            let values = list(&mut self.shape.fields.iter().map(|kept| &kept.input), &c.values);
            json!([key, values])
        };
        Json::Array(contributions.iter().map(one).collect())
    }

    /// The same from how they are kept; `corrupt` if that is not how.
    pub fn parse(&self, json: &Json) -> Result<Vec<(Key, Contribution)>> {
        let one = |json: &Json| {
            let key = json.get(0).and_then(Json::as_array);
            let values = json.get(1).and_then(Json::as_array);
            let (key, values) = key.zip(values).ok_or_else(|| corrupt(self.name()))?;
            let types = self.shape.key.iter().map(|(_, ty)| ty);
            let key = types.zip(key).map(|(ty, json)| parse_value(ty, json));
            let types = self.shape.fields.iter().map(|kept| &kept.input);
            let values = types.zip(values).map(|(ty, json)| parse_value(ty, json));
            let contribution = Contribution {
                key: key.collect::<Result<_>>()?,
                values: values.collect::<Result<_>>()?,
            };
            Ok((self.key_of(&contribution)?, contribution))
        };
        json.as_array().ok_or_else(|| corrupt(self.name()))?.iter().map(one).collect()
    }

    /// The row of a group.
    pub fn row(&self, key: &Key, group: &Group) -> Result<Record> {
        let mut values = match is_keyed(&self.shape) {
            true => vec![key.to_value()],
            false => std::iter::once(key.to_value()).chain(group.key().iter().cloned()).collect(),
        };
        values.extend(group.results(&self.shape).map_err(|error| {
            error.of(self.name()).with("row", key).hint("have fewer records in a group")
        })?);
        Ok(Record::new(values))
    }
}

impl fmt::Debug for Projection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Projection").field(&self.definition).finish()
    }
}

/// Whether the one part of the key can be the key of the rows.
fn is_keyed(shape: &Shape) -> bool {
    matches!(&shape.key[..], [(_, ty)] if is_key(ty))
}

fn is_key(ty: &FieldType) -> bool {
    matches!(ty, FieldType::String | FieldType::Integer | FieldType::Uuid)
}

/// The entity of the rows: a key of one string, integer or UUID is theirs; others are joined to a text, `key`.
fn rows(name: &str, shape: &Shape) -> Result<Entity> {
    let parts = shape.key.iter().map(|(name, ty)| Field::new(name, ty.clone()));
    let kept = shape.fields.iter().map(|kept| Field::new(&kept.name, kept.output.clone()));
    let mut fields: Vec<Field> = parts.chain(kept).collect();
    if is_keyed(shape) {
        return Entity::derived(name, &shape.key[0].0, fields);
    }
    fields.insert(0, Field::new("key", FieldType::String));
    Entity::derived(name, "key", fields)
}

fn corrupt(name: &str) -> Error {
    Error::new(ErrorKind::Corrupt, "what the projection keeps of a record is not readable")
        .of(name)
        .hint("have it made anew: unisono projections rebuild")
}

#[cfg(test)]
mod tests;
