//! Entity → index schema. Every scalar becomes one of two native forms: a number or bytes that sort like the value.

use std::fmt::Write;
use std::sync::Arc;

use tantivy::schema::{
    BytesOptions, FAST, Field as Native, INDEXED, IndexRecordOption, NumericOptions, STORED,
    Schema, TextFieldIndexing, TextOptions,
};
use unisono_core::query::{Path, Step};
use unisono_core::{Entity, Field, FieldType};

use crate::tokenizer;

/// Raised when the layout of stored bytes changes, so that older indexes are rebuilt.
const FORMAT: u32 = 1;

/// How a scalar is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A 64-bit integer in the order of the values.
    Number,
    /// Bytes in the order of the values.
    Bytes,
}

/// The shape of a scalar type; `None` for types that are not scalar.
pub(crate) fn shape(ty: &FieldType) -> Option<Shape> {
    match ty {
        FieldType::Integer
        | FieldType::Boolean
        | FieldType::Float
        | FieldType::Date
        | FieldType::Timestamp { .. }
        | FieldType::Decimal { precision: ..=18, .. } => Some(Shape::Number),
        FieldType::String
        | FieldType::Text
        | FieldType::Uuid
        | FieldType::Bytes
        | FieldType::Decimal { .. } => Some(Shape::Bytes),
        FieldType::Json | FieldType::List(_) | FieldType::Objects(_) => None,
    }
}

/// Where the values of one path are indexed: by term, and as a column.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    /// The native field.
    pub(crate) native: Native,
    /// Its name.
    pub(crate) name: String,
    /// How values are held.
    pub(crate) shape: Shape,
    /// The type of the values; of the elements for a list.
    pub(crate) ty: FieldType,
    /// Distinguishes the slot in the field of marks.
    pub(crate) code: u64,
}

/// What is noted of a slot of one record, apart from its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Nothing is there.
    Null,
    /// A value was too long to be indexed whole.
    Cut,
}

impl Mark {
    /// The number under which a mark is indexed.
    pub(crate) fn of(self, code: u64) -> u64 {
        code * 2 + u64::from(self == Mark::Cut)
    }
}

/// The layout of one entity's index.
#[derive(Debug)]
pub(crate) struct Layout {
    /// The entity.
    pub(crate) entity: Arc<Entity>,
    /// The native schema.
    pub(crate) schema: Schema,
    /// Holds the whole record.
    pub(crate) record: Native,
    /// Holds the version, as a column.
    pub(crate) version: Native,
    /// Holds [`Mark`]s.
    pub(crate) marks: Native,
    /// The search fields: index among the declared fields, native field.
    pub(crate) search: Vec<(usize, Native)>,
    /// Name of the version's column.
    pub(crate) version_name: &'static str,
    whole: Vec<Option<Slot>>,
    each: Vec<Vec<Option<Slot>>>,
    key: Slot,
}

impl Layout {
    /// The layout for an entity.
    pub(crate) fn new(entity: &Arc<Entity>) -> Self {
        let version_name = "_version";
        let mut builder = Schema::builder();
        let record = builder.add_bytes_field("_record", STORED);
        let version = builder.add_u64_field(version_name, FAST);
        let marks = builder.add_u64_field("_marks", INDEXED);
        let mut slot = |name: String, ty: &FieldType, code: u64| {
            let shape = shape(ty)?;
            let native =
                match shape {
                    Shape::Number => builder
                        .add_i64_field(&name, NumericOptions::default().set_indexed().set_fast()),
                    Shape::Bytes => builder
                        .add_bytes_field(&name, BytesOptions::default().set_indexed().set_fast()),
                };
            Some(Slot { native, name, shape, ty: ty.clone(), code })
        };
        let fields = entity.fields();
        let mut whole = Vec::with_capacity(fields.len());
        let mut each = Vec::with_capacity(fields.len());
        for (n, field) in fields.iter().enumerate() {
            let element = match &field.ty {
                FieldType::List(of) => of,
                ty => ty,
            };
            whole.push(slot(field.name.to_string(), element, Self::whole_code(n)));
            let columns: &[Field] = match &field.ty {
                FieldType::Objects(columns) => columns,
                _ => &[],
            };
            let sub = |(m, c): (usize, &Field)| {
                slot(format!("{}/{}", field.name, c.name), &c.ty, Self::each_code(n, m))
            };
            each.push(columns.iter().enumerate().map(sub).collect());
        }
        let text = TextOptions::default().set_indexing_options(
            TextFieldIndexing::default()
                .set_tokenizer(tokenizer::NAME)
                .set_index_option(IndexRecordOption::WithFreqsAndPositions),
        );
        let search = entity.search_fields().map(|(n, field)| {
            (n, builder.add_text_field(&format!("search:{}", field.name), text.clone()))
        });
        let search = search.collect();
        let key = key_slot(&whole, entity);
        let schema = builder.build();
        Layout {
            entity: Arc::clone(entity),
            schema,
            record,
            version,
            marks,
            search,
            version_name,
            whole,
            each,
            key,
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

    /// The slot of the key.
    pub(crate) fn key(&self) -> &Slot {
        &self.key
    }

    /// The code under which marks of a path are noted; `None` below a `json` field.
    pub(crate) fn code(&self, path: &Path) -> Option<u64> {
        match path.step {
            Step::Whole => Some(Self::whole_code(path.field)),
            Step::Each(n) => Some(Self::each_code(path.field, n)),
            Step::Json(_) => None,
        }
    }

    /// The code of a field's marks.
    pub(crate) fn whole_code(field: usize) -> u64 {
        (field as u64) << 32
    }

    /// The code of the marks of a column of a list of objects.
    pub(crate) fn each_code(field: usize, column: usize) -> u64 {
        Self::whole_code(field) | (column as u64 + 1)
    }

    /// Text that changes whenever an index of the old layout cannot be used; one line for each field.
    pub(crate) fn fingerprint(&self) -> String {
        let mut out = format!("format {FORMAT}\n");
        for field in self.entity.fields() {
            let _ = write!(out, "{}: ", field.name);
            describe(&field.ty, &mut out);
            out.push_str(if field.search { ", search\n" } else { "\n" });
        }
        let _ = writeln!(out, "key {}", self.entity.key_field().name);
        out
    }
}

/// The key is a string, integer or uuid field (checked by [`Entity::new`]), all of which have a shape.
#[expect(clippy::expect_used, reason = "an entity's key is always a scalar")]
fn key_slot(whole: &[Option<Slot>], entity: &Entity) -> Slot {
    whole[entity.key_index()].clone().expect("a key has a shape")
}

fn describe(ty: &FieldType, out: &mut String) {
    let _ = write!(out, "{ty}");
    if let FieldType::Objects(columns) = ty {
        for column in columns.iter() {
            let _ = write!(out, " {}=", column.name);
            describe(&column.ty, out);
        }
    }
}

/// What changed between two fingerprints, for people.
pub(crate) fn difference(old: &str, new: &str) -> String {
    let only = |sign: &'static str, lines: &str, others: &str| {
        let mine = lines.lines().filter(|line| !others.lines().any(|other| other == *line));
        mine.map(|line| format!("{sign} {line}")).collect::<Vec<_>>()
    };
    let lines = [only("-", old, new), only("+", new, old)].concat();
    if lines.is_empty() { "the order of the fields".to_owned() } else { lines.join("; ") }
}

/// A line of the old fingerprint whose field has become something else, with its new line: not a wider or narrower
/// type of the same sort, which values survive.
pub(crate) fn conflict<'a>(old: &'a str, new: &'a str) -> Option<(&'a str, &'a str)> {
    let split = |line: &'a str| line.split_once(": ").or_else(|| line.split_once(' '));
    old.lines().skip(1).find_map(|was| {
        let (name, old_type) = split(was)?;
        let is = new.lines().skip(1).find(|is| split(is).is_some_and(|(n, _)| n == name))?;
        (sort_of(old_type) != sort_of(split(is)?.1)).then_some((was, is))
    })
}

fn sort_of(ty: &str) -> &str {
    let sort = ty.split(['(', ',', '=']).next().unwrap_or(ty);
    match sort {
        "text" => "string",
        // The columns follow; a change among them is seen in the records.
        objects if objects.starts_with("list of objects") => "list of objects",
        sort => sort,
    }
}
