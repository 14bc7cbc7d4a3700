//! Declared types: how they are recorded, which can become which others without loss, and the columns that keep them.

use serde_json::Value as Json;
use unisono_core::{Field, FieldType, Key};
use unisono_sql::types::describe;

/// The longest text, in characters, that an index holds whole: 3072 bytes of at most four each.
pub(super) const INDEXED_CHARS_MAX: u32 = 768;
/// The most bytes that an index holds.
pub(super) const INDEXED_BYTES_MAX: u32 = 3072;
/// The longest key in characters, as the source's own tables can index it beside an entity.
const KEY_CHARS_MAX: u32 = 700;
/// How many characters or bytes of longer values are indexed.
pub(super) const INDEXED_START: u32 = 191;

/// Whether every value recorded under one type is a value of another.
pub(super) fn is_kept(recorded: &Json, declared: &FieldType) -> bool {
    if *recorded == describe(declared) {
        return true;
    }
    match (declared, recorded) {
        (FieldType::String | FieldType::Text, Json::String(old)) => {
            old == "string" || old == "text"
        }
        (FieldType::Decimal { precision, scale }, Json::String(old)) => {
            matches!(numbers(old, "decimal")[..], [old_precision, old_scale]
                if old_scale <= *scale && old_precision - old_scale <= precision - scale)
        }
        (FieldType::Timestamp { precision }, Json::String(old)) => {
            matches!(numbers(old, "timestamp")[..], [old_precision] if old_precision < *precision)
        }
        // JSON is parsed by the declared type, which gives decimals their scale: nothing has to be rewritten.
        (FieldType::List(of), Json::Object(old)) => {
            old.get("list").is_some_and(|old| is_kept(old, of))
        }
        (FieldType::Objects(fields), Json::Object(old)) => {
            let kept = |(name, old): (&String, &Json)| {
                fields.iter().any(|f| *f.name == **name && is_kept(old, &f.ty))
            };
            old.get("objects").and_then(Json::as_object).is_some_and(|old| old.iter().all(kept))
        }
        _ => false,
    }
}

/// The numbers of `decimal(12,2)`. A timestamp with six digits is recorded without them.
fn numbers(text: &str, name: &str) -> Vec<u8> {
    let inner =
        text.strip_prefix(name).and_then(|t| t.strip_prefix('(')).and_then(|t| t.strip_suffix(')'));
    inner.map_or(Vec::new(), |inner| inner.split(',').filter_map(|n| n.parse().ok()).collect())
}

/// How an index finds the values of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Indexed {
    /// By the whole value.
    Whole,
    /// By its first characters or bytes; enough to narrow down, not to be unique.
    Start(u32),
    /// Not at all.
    Not,
}

/// What an index can do with a field's column.
pub(super) fn indexed(field: &Field) -> Indexed {
    match field.ty {
        FieldType::String | FieldType::Text if is_short(field) => Indexed::Whole,
        FieldType::Bytes if is_short(field) => Indexed::Whole,
        FieldType::String | FieldType::Text | FieldType::Bytes => Indexed::Start(INDEXED_START),
        FieldType::Json | FieldType::List(_) | FieldType::Objects(_) => Indexed::Not,
        _ => Indexed::Whole,
    }
}

/// Whether a text or bytes field is declared so short that an index holds it whole, and has one.
fn is_short(field: &Field) -> bool {
    let max = match field.ty {
        FieldType::Bytes => INDEXED_BYTES_MAX,
        _ => INDEXED_CHARS_MAX,
    };
    (field.index || field.unique) && field.max_length.is_some_and(|n| n <= max)
}

/// A column for texts of so many characters, and for as many again that U+0000 and U+0001 may need, as far as an index
/// allows.
fn varchar(chars: u32, most: u32) -> String {
    format!("VARCHAR({})", (chars.max(1) * 2).min(most))
}

/// The type of a field's column in a table of our own. Text that no index needs whole is a `LONGTEXT`, which counts
/// nothing against the longest row that a table may have.
pub(super) fn column_type(field: &Field, is_key: bool, collation: &str) -> String {
    let text = |ty: String| format!("{ty} CHARACTER SET utf8mb4 COLLATE {collation}");
    match &field.ty {
        FieldType::String | FieldType::Text if is_key => {
            let most = Key::BYTES_MAX as u32;
            text(varchar(field.max_length.unwrap_or(most).min(most), KEY_CHARS_MAX))
        }
        FieldType::String | FieldType::Text if is_short(field) => {
            text(varchar(field.max_length.unwrap_or(INDEXED_CHARS_MAX), INDEXED_CHARS_MAX))
        }
        FieldType::String | FieldType::Text => text("LONGTEXT".into()),
        FieldType::Integer => "BIGINT".into(),
        FieldType::Decimal { precision, scale } => format!("DECIMAL({precision},{scale})"),
        FieldType::Boolean => "TINYINT(1)".into(),
        FieldType::Float => "DOUBLE".into(),
        FieldType::Date => "DATE".into(),
        FieldType::Timestamp { precision } => format!("DATETIME({precision})"),
        FieldType::Uuid => "CHAR(36) CHARACTER SET ascii COLLATE ascii_bin".into(),
        FieldType::Bytes if is_short(field) => {
            format!("VARBINARY({})", field.max_length.unwrap_or(INDEXED_BYTES_MAX).max(1))
        }
        FieldType::Bytes => "LONGBLOB".into(),
        FieldType::Json | FieldType::List(_) | FieldType::Objects(_) => text("LONGTEXT".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_keeps_every_value_is_kept() {
        let decimal = |precision, scale| FieldType::Decimal { precision, scale };
        let time = |precision| FieldType::Timestamp { precision };
        for (old, new, kept) in [
            (FieldType::String, FieldType::Text, true),
            (FieldType::String, FieldType::Integer, false),
            (decimal(10, 2), decimal(12, 2), true),
            (decimal(10, 2), decimal(12, 4), true),
            (decimal(10, 2), decimal(10, 4), false),
            (decimal(10, 2), decimal(8, 2), false),
            (time(0), time(6), true),
            (time(3), time(0), false),
            (time(6), time(3), false),
        ] {
            assert_eq!(is_kept(&describe(&old), &new), kept, "{old} to {new}");
            let list = |ty: &FieldType| FieldType::List(Box::new(ty.clone()));
            assert_eq!(
                is_kept(&describe(&list(&old)), &list(&new)),
                kept,
                "lists of {old} to {new}"
            );
        }
    }

    #[test]
    fn text_is_as_long_as_its_index_allows() {
        let name = Field::new("name", FieldType::String);
        let short = Field { unique: true, max_length: Some(100), ..name.clone() };
        let long = Field { unique: true, max_length: Some(769), ..name.clone() };
        let ty = |field: &Field, key| column_type(field, key, "c");
        assert_eq!(ty(&name, false), "LONGTEXT CHARACTER SET utf8mb4 COLLATE c");
        assert_eq!(ty(&short, false), "VARCHAR(200) CHARACTER SET utf8mb4 COLLATE c");
        assert_eq!(ty(&long, false), "LONGTEXT CHARACTER SET utf8mb4 COLLATE c");
        assert_eq!(ty(&name, true), "VARCHAR(700) CHARACTER SET utf8mb4 COLLATE c");
        assert_eq!(indexed(&short), Indexed::Whole);
        assert_eq!(indexed(&long), Indexed::Start(191));
    }
}
