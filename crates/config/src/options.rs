//! What an option is: its name, shape, default and doc. The options themselves are in [`sections`](crate::sections).

use std::borrow::Cow;
use std::time::Duration;

use unisono_core::Role;
use unisono_core::kind::{OptionSpec, OptionType, SourceKind};

use crate::kinds::Kinds;
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
    /// A number of sources, a word, or a list of names: which of them must have a write.
    Ack,
    /// An RFC 3339 time.
    Time,
    /// A question as it is sent over HTTP.
    Body,
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
    /// The same for outlets.
    Outlets,
    /// Types or tables under the names of fields.
    Fields(&'static Section),
    /// One of these words under the names of fields.
    Words(&'static [&'static str]),
    /// Values in CEL under names of the user's choice.
    Expressions,
    /// A list of lists of texts.
    Groups,
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
    /// Set where an entity names a source: kinds add their options for the role.
    pub(crate) role: Option<Role>,
    /// Keys that kinds other than the named one add, with those kinds.
    pub(crate) elsewhere: Vec<(&'static str, &'static str)>,
}

impl Section {
    pub(crate) const fn new(
        doc: &'static str,
        keys: &'static [Key],
        unavailable: &'static [&'static str],
    ) -> Section {
        let keys = Cow::Borrowed(keys);
        Section { doc, keys, unavailable, role: None, elsewhere: Vec::new() }
    }

    /// The keys of a table in which an entity names a source that plays a role.
    pub(crate) const fn of_role(
        role: Role,
        doc: &'static str,
        keys: &'static [Key],
        unavailable: &'static [&'static str],
    ) -> Section {
        let keys = Cow::Borrowed(keys);
        Section { doc, keys, unavailable, role: Some(role), elsewhere: Vec::new() }
    }

    pub(crate) fn key(&self, name: &str) -> Option<&Key> {
        self.keys.iter().find(|k| k.name == name)
    }

    /// The section with the options that kinds add: those of one kind, or of all if none is given.
    pub(crate) fn with_kind(&self, kind: Option<&dyn SourceKind>, kinds: Kinds<'_>) -> Section {
        let Some(role) = self.role else { return self.clone() };
        let mut section = self.clone();
        for other in kinds.built {
            let chosen = kind.is_none_or(|kind| kind.name() == other.name());
            for option in other.entity_options(role) {
                match (chosen, section.key(option.name).is_some()) {
                    (true, false) => section.keys.to_mut().push(key(option)),
                    (true, true) => {}
                    (false, _) => section.elsewhere.push((option.name, other.name())),
                }
            }
        }
        section
    }
}

/// Keys of sources that a later release will have.
const SOURCE_UNAVAILABLE: &[&str] = &["replicas", "weight", "pool", "read_only"];

/// Kinds that a later release will have.
pub(crate) const KINDS_UNAVAILABLE: &[&str] = &["kafka"];

/// What people call some kinds, and what they are called here.
pub(crate) const KIND_SYNONYMS: &[(&str, &str)] = &[
    ("postgresql", "postgres"),
    ("mariadb", "mysql"),
    ("valkey", "redis"),
    ("elasticsearch", "opensearch"),
    ("mongo", "mongodb"),
    ("s3", "files"),
];

/// Keys that every source has besides the options of its kind.
const SOURCE: &[Key] = &[
    Key::required("kind", Shape::Text, "What sort of store it is."),
    Key::optional(
        "required",
        Shape::Boolean,
        "Whether nothing starts while it cannot be reached; true for the truth or the journal of any entity, else false, if not given.",
    ),
    Key::optional(
        "region",
        Shape::Text,
        "Where it is: of sources that could answer a read as well, those in the `region` of this process are asked first, and those that name none count as near.",
    ),
];

/// `[sources.NAME]` of a kind.
pub(crate) fn source(kind: &dyn SourceKind) -> Section {
    let mut keys = SOURCE.to_vec();
    keys.extend(kind.options().iter().map(key));
    Section { keys: Cow::Owned(keys), ..Section::new(kind.summary(), &[], SOURCE_UNAVAILABLE) }
}

/// Keys that every outlet has besides the options of its kind.
const OUTLET: &[Key] = &[
    Key::required("kind", Shape::Text, "What sort of outlet it is."),
    Key::required(
        "from",
        Shape::Texts,
        "The entities and types of streams whose changes and events are sent.",
    ),
    Key::optional(
        "where",
        Shape::Text,
        "Condition in CEL over the record or event; only those that satisfy it are sent.",
    ),
];

/// `[outlets.NAME]` of a kind.
pub(crate) fn outlet(kind: &dyn SourceKind) -> Section {
    let mut keys = OUTLET.to_vec();
    keys.extend(kind.options().iter().map(key));
    Section { keys: Cow::Owned(keys), ..Section::new(kind.summary(), &[], &["clear", "format"]) }
}

/// Whether sources of a kind are outlets.
pub(crate) fn is_outlet(kind: &dyn SourceKind) -> bool {
    kind.capability().roles.contains(&Role::Outlet)
}

/// An option of a kind as a key.
pub(crate) fn key(option: &OptionSpec) -> Key {
    Key {
        name: option.name,
        shape: match option.ty {
            OptionType::String => Shape::Text,
            OptionType::Path => Shape::Path,
            OptionType::Secret => Shape::Secret,
            OptionType::Boolean => Shape::Boolean,
            OptionType::Integer { min, max } => Shape::Integer { min, max },
            OptionType::Duration => Shape::Duration { min: Duration::ZERO, max: YEARS },
            OptionType::Size => Shape::Size { min: 0, max: i64::MAX },
            OptionType::List => Shape::Texts,
            OptionType::Choice(words) => Shape::Choice(words),
        },
        default: option.default,
        required: option.default.is_none() && !option.optional,
        doc: option.doc,
    }
}
