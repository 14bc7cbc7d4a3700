//! Declared types as they are recorded, and which of them can become which others without loss.

use serde_json::{Map, Value as Json, json};
use unisono_core::{Error, ErrorKind, FieldType};

/// A type as `unisono_schema` records it.
pub fn describe(ty: &FieldType) -> Json {
    match ty {
        FieldType::List(of) => json!({ "list": describe(of) }),
        FieldType::Objects(fields) => {
            let of: Map<String, Json> =
                fields.iter().map(|f| (f.name.to_string(), describe(&f.ty))).collect();
            json!({ "objects": of })
        }
        scalar => Json::String(scalar.to_string()),
    }
}

/// The mismatch of a field whose stored data would be lost: `schema_mismatch`.
pub fn type_mismatch(
    table: &str,
    field: &str,
    stored: impl std::fmt::Display,
    declared: &FieldType,
) -> Error {
    let message = "the stored data is of another type than the field is declared with";
    Error::new(ErrorKind::SchemaMismatch, message)
        .with("table", table)
        .with("field", field)
        .with("stored", stored)
        .with("declared", declared)
        .hint(
            "declare the stored type again; or export the entity, drop the table and import it under the new \
             declaration; or declare a field with another name and copy the values",
        )
}

/// What becomes of stored values under another declaration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conversion {
    /// They stay as they are.
    None,
    /// Decimals get this many more digits after the point.
    Rescale(u8),
    /// Timestamps get this many more digits of the second's fraction.
    Refine(u8),
    /// Some could not be kept.
    Refused,
}

/// How values recorded under one type become values of another.
pub fn conversion(recorded: &Json, declared: &FieldType) -> Conversion {
    if *recorded == describe(declared) {
        return Conversion::None;
    }
    match (declared, recorded) {
        (FieldType::String | FieldType::Text, Json::String(old))
            if old == "string" || old == "text" =>
        {
            Conversion::None
        }
        (FieldType::Decimal { precision, scale }, Json::String(old)) => {
            match numbers(old, "decimal")[..] {
                [old_precision, old_scale]
                    if old_scale <= *scale && old_precision - old_scale <= precision - scale =>
                {
                    match scale - old_scale {
                        0 => Conversion::None,
                        digits => Conversion::Rescale(digits),
                    }
                }
                _ => Conversion::Refused,
            }
        }
        (FieldType::Timestamp { precision }, Json::String(old)) => {
            match numbers(old, "timestamp")[..] {
                [old_precision] if old_precision < *precision => {
                    Conversion::Refine(precision - old_precision)
                }
                _ => Conversion::Refused,
            }
        }
        // JSON is parsed by the declared type, which gives decimals their scale: nothing has to be rewritten.
        (FieldType::List(of), Json::Object(old)) => match old.get("list") {
            Some(old) if conversion(old, of) != Conversion::Refused => Conversion::None,
            _ => Conversion::Refused,
        },
        (FieldType::Objects(fields), Json::Object(old)) => {
            let kept = |(name, old): (&String, &Json)| {
                let declared = fields.iter().find(|f| *f.name == **name);
                declared.is_some_and(|f| conversion(old, &f.ty) != Conversion::Refused)
            };
            match old.get("objects").and_then(Json::as_object) {
                Some(old) if old.iter().all(kept) => Conversion::None,
                _ => Conversion::Refused,
            }
        }
        _ => Conversion::Refused,
    }
}

/// The numbers of `decimal(12,2)`.
fn numbers(text: &str, name: &str) -> Vec<u8> {
    let inner =
        text.strip_prefix(name).and_then(|t| t.strip_prefix('(')).and_then(|t| t.strip_suffix(')'));
    inner.map_or(Vec::new(), |inner| inner.split(',').filter_map(|n| n.parse().ok()).collect())
}
