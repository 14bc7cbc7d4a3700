//! The types of fields by their names: `string`, `decimal(12,2)`, `timestamp(3)`.

use unisono_core::FieldType;
use unisono_core::spelling::closest;

use crate::problem::{Report, Spot};

/// Words of other systems, with ours.
const FOREIGN_TYPES: &[(&str, &str)] = &[
    ("int", "integer"),
    ("bigint", "integer"),
    ("long", "integer"),
    ("serial", "integer"),
    ("bool", "boolean"),
    ("varchar", "string"),
    ("char", "string"),
    ("str", "string"),
    ("double", "float"),
    ("real", "float"),
    ("number", "decimal(12,2)"),
    ("numeric", "decimal(12,2)"),
    ("money", "decimal(12,2)"),
    ("datetime", "timestamp"),
    ("time", "timestamp"),
    ("timestamptz", "timestamp"),
    ("object", "json"),
    ("jsonb", "json"),
    ("map", "json"),
    ("array", "list"),
    ("blob", "bytes"),
    ("binary", "bytes"),
];

const TYPES: &[&str] = &[
    "string",
    "text",
    "integer",
    "decimal",
    "boolean",
    "float",
    "date",
    "timestamp",
    "uuid",
    "bytes",
    "json",
    "list",
];

/// A type by its name; a list has no element type yet.
#[derive(PartialEq)]
pub(crate) enum Named {
    Plain(FieldType),
    List,
}

impl Named {
    /// The type, unless it is a list.
    pub(crate) fn plain(self) -> Option<FieldType> {
        match self {
            Named::Plain(ty) => Some(ty),
            Named::List => None,
        }
    }
}

/// Parses a type, or reports what is wrong with it.
pub(crate) fn parse_type(report: &Report<'_>, text: &str, spot: &Spot) -> Option<Named> {
    let (name, arguments) = match text.split_once('(') {
        Some((name, rest)) => (name.trim(), rest.trim_end().strip_suffix(')').map(arguments)),
        None => (text.trim(), Some(Some(Vec::new()))),
    };
    let ty = match (name, arguments.flatten().as_deref()) {
        ("string", Some([])) => FieldType::String,
        ("text", Some([])) => FieldType::Text,
        ("integer", Some([])) => FieldType::Integer,
        ("boolean", Some([])) => FieldType::Boolean,
        ("float", Some([])) => FieldType::Float,
        ("date", Some([])) => FieldType::Date,
        ("timestamp", Some([])) => FieldType::Timestamp { precision: 6 },
        ("timestamp", Some([precision @ 0..=6])) => FieldType::Timestamp { precision: *precision },
        ("uuid", Some([])) => FieldType::Uuid,
        ("bytes", Some([])) => FieldType::Bytes,
        ("json", Some([])) => FieldType::Json,
        ("list", Some([])) => return Some(Named::List),
        ("decimal", Some([precision @ 1..=28, scale])) if scale <= precision => {
            FieldType::Decimal { precision: *precision, scale: *scale }
        }
        ("decimal", _) => {
            let message =
                format!("`{text}` needs its digits: all (1 to 28), and those after the point");
            report.error_with(spot, message, "write it like decimal(12,2)");
            return None;
        }
        ("timestamp", _) => {
            let message = format!("`{text}` keeps 0 to 6 digits of a second");
            report.error_with(spot, message, "write it like timestamp or timestamp(3)");
            return None;
        }
        _ if TYPES.contains(&name) => {
            report.error_with(
                spot,
                format!("`{name}` takes nothing in parentheses"),
                format!("write \"{name}\""),
            );
            return None;
        }
        _ => return unknown_type(report, name, spot),
    };
    Some(Named::Plain(ty))
}

fn unknown_type(report: &Report<'_>, name: &str, spot: &Spot) -> Option<Named> {
    let lower = name.to_lowercase();
    let foreign = FOREIGN_TYPES.iter().find(|(word, _)| *word == lower).map(|(_, ours)| *ours);
    let hint = match foreign.or_else(|| closest(name, TYPES.iter().copied())) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("types are {}", TYPES.join(", ")),
    };
    report.error_with(spot, format!("unknown type `{name}`"), hint);
    None
}

fn arguments(text: &str) -> Option<Vec<u8>> {
    text.split(',').map(|part| part.trim().parse().ok()).collect()
}
