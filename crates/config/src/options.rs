//! What an option is: its name, shape, default and doc. The options themselves are in [`sections`](crate::sections).

use std::borrow::Cow;
use std::time::Duration;

use unisono_core::kind::{OptionType, SourceKind};

use crate::sections::YEARS;

/// What the value of a key can be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    Text,
    Path,
    Secret,
    Boolean,
    Integer {
        min: i64,
        max: i64,
    },
    Duration {
        min: Duration,
        max: Duration,
    },
    /// In bytes.
    Size {
        min: i64,
        max: i64,
    },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list of texts.
    Texts,
    /// An RFC 3339 time.
    Time,
    /// Any value, checked by the type of its field.
    Value,
    /// A list of such values.
    Values,
    Table(&'static Section),
    /// A list of tables.
    Tables(&'static Section),
    /// Tables under names of the user's choice.
    Named(&'static Section),
    /// Tables under names; which keys they have is decided by their `kind`.
    Sources,
    /// Types or tables under the names of fields.
    Fields(&'static Section),
    /// The type of a list's elements: a scalar type, or the fields of an object.
    Elements,
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    /// The value if none is given, as it would be written in TOML; text may stand without quotes.
    pub(crate) default: Option<&'static str>,
    pub(crate) required: bool,
    pub(crate) doc: &'static str,
}

impl Key {
    pub(crate) const fn required(name: &'static str, shape: Shape, doc: &'static str) -> Key {
        Key { name, shape, default: None, required: true, doc }
    }

    pub(crate) const fn optional(name: &'static str, shape: Shape, doc: &'static str) -> Key {
        Key { name, shape, default: None, required: false, doc }
    }

    pub(crate) const fn defaulting(
        name: &'static str,
        shape: Shape,
        default: &'static str,
        doc: &'static str,
    ) -> Key {
        Key { name, shape, default: Some(default), required: false, doc }
    }

    /// The default as it is written in a file.
    pub(crate) fn default_toml(&self) -> Option<String> {
        let default = self.default?;
        let quoted = default.starts_with(['"', '[', '{']);
        Some(match self.shape {
            Shape::Boolean
            | Shape::Integer { .. }
            | Shape::Texts
            | Shape::Values
            | Shape::Value => default.to_owned(),
            _ if quoted => default.to_owned(),
            _ => format!("\"{default}\""),
        })
    }
}

/// The keys of one table.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    /// What the table is, in one sentence.
    pub(crate) doc: &'static str,
    pub(crate) keys: Cow<'static, [Key]>,
    /// Keys that a later release will have.
    pub(crate) unavailable: &'static [&'static str],
}

impl Section {
    pub(crate) const fn new(
        doc: &'static str,
        keys: &'static [Key],
        unavailable: &'static [&'static str],
    ) -> Section {
        Section { doc, keys: Cow::Borrowed(keys), unavailable }
    }

    pub(crate) fn key(&self, name: &str) -> Option<&Key> {
        self.keys.iter().find(|k| k.name == name)
    }
}

/// Keys of sources that a later release will have.
const SOURCE_UNAVAILABLE: &[&str] = &["replicas", "region", "weight", "pool", "read_only"];

/// Kinds that a later release will have.
pub(crate) const KINDS_UNAVAILABLE: &[&str] = &[
    "postgres",
    "postgresql",
    "mysql",
    "mariadb",
    "redis",
    "valkey",
    "opensearch",
    "elasticsearch",
    "mongodb",
    "s3",
    "kafka",
    "nats",
];

/// `[sources.NAME]` of a kind.
pub(crate) fn source(kind: &dyn SourceKind) -> Section {
    let mut keys = vec![Key::required("kind", Shape::Text, "What sort of store it is.")];
    keys.extend(kind.options().iter().map(|option| Key {
        name: option.name,
        shape: match option.ty {
            OptionType::String => Shape::Text,
            OptionType::Path => Shape::Path,
            OptionType::Secret => Shape::Secret,
            OptionType::Boolean => Shape::Boolean,
            OptionType::Integer { min, max } => Shape::Integer { min, max },
            OptionType::Duration => Shape::Duration { min: Duration::ZERO, max: YEARS },
            OptionType::Size => Shape::Size { min: 0, max: i64::MAX },
        },
        default: option.default,
        required: option.default.is_none() && !option.optional,
        doc: option.doc,
    }));
    Section { doc: kind.summary(), keys: Cow::Owned(keys), unavailable: SOURCE_UNAVAILABLE }
}
