//! Entity → mapping: under which names, and in which native forms, the values of a record are indexed.

pub(crate) mod fingerprint;
mod index;
mod prepare;

use std::sync::Arc;

use serde_json::{Map, Value as Json, json};
use unisono_core::query::{Path, Step};
use unisono_core::{Entity, Field, FieldType};

use crate::codec::LONG_DIGITS_MAX;

pub(crate) use index::{Index, entrance};

/// The object of a document that holds the forms of its record's values.
const INDEXED: &str = "indexed";

/// How a scalar is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `long`: integers, days and microseconds since 1970, and decimals of at most 18 digits as their digits.
    Long,
    /// `double`.
    Double,
    /// `boolean`.
    Boolean,
    /// `keyword`: text, UUIDs, bytes as hexadecimal digits, longer decimals as shifted digits.
    Keyword,
}

impl Shape {
    /// Of a scalar type; `None` for types that are not scalar.
    pub(crate) fn of(ty: &FieldType) -> Option<Shape> {
        Some(match ty {
            FieldType::Integer
            | FieldType::Date
            | FieldType::Timestamp { .. }
            | FieldType::Decimal { precision: ..=LONG_DIGITS_MAX, .. } => Shape::Long,
            FieldType::Float => Shape::Double,
            FieldType::Boolean => Shape::Boolean,
            FieldType::String
            | FieldType::Text
            | FieldType::Uuid
            | FieldType::Bytes
            | FieldType::Decimal { .. } => Shape::Keyword,
            FieldType::Json | FieldType::List(_) | FieldType::Objects(_) => return None,
        })
    }

    fn native(self) -> &'static str {
        match self {
            Shape::Long => "long",
            Shape::Double => "double",
            Shape::Boolean => "boolean",
            Shape::Keyword => "keyword",
        }
    }
}

/// Where the values of one path are indexed.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    /// The path as text: `items.product_id`.
    pub(crate) path: String,
    /// Its name in the index.
    pub(crate) name: String,
    /// How values are held.
    pub(crate) shape: Shape,
    /// The type of the values; of the elements for a list.
    pub(crate) ty: FieldType,
}

impl Slot {
    fn new(path: String, ty: &FieldType) -> Option<Self> {
        let shape = Shape::of(ty)?;
        Some(Slot { name: format!("{INDEXED}.{path}"), path, shape, ty: ty.clone() })
    }

    /// The last part of the path.
    pub(crate) fn last_name(&self) -> &str {
        self.path.rsplit_once('.').map_or(&self.path, |(_, last)| last)
    }

    /// Whether a value may be longer than what is indexed of it.
    pub(crate) fn may_be_cut(&self) -> bool {
        matches!(self.ty, FieldType::String | FieldType::Text | FieldType::Bytes)
    }
}

/// The layout of one entity's documents.
#[derive(Debug)]
pub(crate) struct Layout {
    /// The entity.
    pub(crate) entity: Arc<Entity>,
    /// The search fields: index among the declared fields, name.
    pub(crate) words: Vec<(usize, String)>,
    whole: Vec<Option<Slot>>,
    each: Vec<Vec<Option<Slot>>>,
    key: Slot,
}

impl Layout {
    /// The layout for an entity.
    pub(crate) fn new(entity: &Arc<Entity>) -> Self {
        let whole = |field: &Field| match &field.ty {
            FieldType::List(of) => Slot::new(field.name.to_string(), of),
            ty => Slot::new(field.name.to_string(), ty),
        };
        let each = |field: &Field| match &field.ty {
            FieldType::Objects(columns) => columns
                .iter()
                .map(|column| Slot::new(format!("{}.{}", field.name, column.name), &column.ty))
                .collect(),
            _ => Vec::new(),
        };
        let whole: Vec<_> = entity.fields().iter().map(whole).collect();
        let words = entity.search_fields().filter(|(_, field)| field.ty.is_text());
        Layout {
            entity: Arc::clone(entity),
            words: words.map(|(n, field)| (n, field.name.to_string())).collect(),
            each: entity.fields().iter().map(each).collect(),
            key: key_slot(&whole, entity),
            whole,
        }
    }

    /// Where the values of a path are indexed; `None` if they are not.
    pub(crate) fn slot(&self, path: &Path) -> Option<&Slot> {
        match &path.step {
            Step::Whole => self.whole.get(path.field)?.as_ref(),
            Step::Each(n) => self.each.get(path.field)?.get(*n)?.as_ref(),
            Step::Json(_) => None,
        }
    }

    /// The slot of a field, or of its elements, and those of the columns of a list of objects.
    pub(crate) fn slots(&self, field: usize) -> (Option<&Slot>, &[Option<Slot>]) {
        let columns = self.each.get(field).map_or(&[][..], Vec::as_slice);
        (self.whole.get(field).and_then(Option::as_ref), columns)
    }

    /// The slot of a scalar field.
    pub(crate) fn scalar(&self, field: usize) -> Option<&Slot> {
        let scalar = self.entity.fields().get(field).is_some_and(|f| f.ty.is_scalar());
        self.whole.get(field)?.as_ref().filter(|_| scalar)
    }

    /// The slot of the key.
    pub(crate) fn key(&self) -> &Slot {
        &self.key
    }

    /// The mapping, which says of itself by which declaration it was made.
    pub(crate) fn mapping(&self) -> Json {
        let of = |slot: &Slot| json!({"type": slot.shape.native()});
        let mut indexed = Map::new();
        for (field, (whole, columns)) in
            self.entity.fields().iter().zip(self.whole.iter().zip(&self.each))
        {
            let columns: Map<_, _> = columns
                .iter()
                .flatten()
                .map(|slot| (slot.last_name().to_owned(), of(slot)))
                .collect();
            if let Some(slot) = whole {
                indexed.insert(field.name.to_string(), of(slot));
            } else if matches!(field.ty, FieldType::Objects(_)) {
                indexed.insert(field.name.to_string(), json!({"properties": columns}));
            }
        }
        // The words are cut by us, so that only they need be told apart here.
        let words = self
            .words
            .iter()
            .map(|(_, name)| (name.clone(), json!({"type": "text", "analyzer": "whitespace"})));
        json!({
            "dynamic": "strict",
            "_meta": {"unisono": {"layout": fingerprint::of(&self.entity)}},
            "properties": {
                "version": {"type": "long"},
                "record": {"type": "object", "enabled": false},
                "indexed": {"properties": indexed},
                "words": {"properties": Map::from_iter(words)},
                "present": {"type": "keyword"},
                "long": {"type": "keyword"},
                "deleted": {"type": "boolean"},
            },
        })
    }
}

/// The key is a string, integer or uuid field (checked by [`Entity::new`]), all of which have a shape.
#[expect(clippy::expect_used, reason = "an entity's key is always a scalar")]
fn key_slot(whole: &[Option<Slot>], entity: &Entity) -> Slot {
    whole[entity.key_index()].clone().expect("a key has a shape")
}
