//! The key of a captured table between its column and the text that `unisono_intake` and `unisono_versions` keep.

use unisono_core::{Error, FieldType, Key, Result, Uuid};
use unisono_sql::text::{escape, unescape};

use crate::codec::Form;
use crate::literal::{push_text, text};

/// How the column of a key keeps it.
#[derive(Clone, Debug)]
pub(crate) struct KeyColumn {
    /// Its name, quoted for SQL.
    pub(crate) name: String,
    /// How it keeps values.
    pub(crate) form: Form,
    /// Its own collation; empty if it holds no text.
    pub(crate) collation: String,
    /// The collation that compares exactly, which the source's own tables have.
    pub(crate) exact: &'static str,
}

impl KeyColumn {
    /// The column, behind `before`, as text.
    pub(crate) fn textual(&self, before: &str) -> String {
        self.textual_of(&format!("{before}{}", self.name))
    }

    /// What has the column's type as text.
    pub(crate) fn textual_of(&self, column: &str) -> String {
        let text = match self.form {
            Form::UuidBytes => format!(
                "LOWER(INSERT(INSERT(INSERT(INSERT(HEX({column}), 9, 0, '-'), 14, 0, '-'), 19, 0, '-'), 24, 0, '-'))"
            ),
            Form::Integer => format!("CAST({column} AS CHAR)"),
            _ => column.to_owned(),
        };
        format!("CONVERT({text} USING utf8mb4) COLLATE {}", self.exact)
    }

    /// A text as what the column compares with by its index.
    pub(crate) fn native(&self, text: &str) -> String {
        match self.form {
            Form::Integer => format!("CAST({text} AS SIGNED)"),
            Form::UuidBytes => format!("UNHEX(REPLACE({text}, '-', ''))"),
            _ => {
                let charset = self.collation.split_once('_').map_or("utf8mb4", |(set, _)| set);
                let collation = match self.collation.as_str() {
                    "" => self.exact,
                    own => own,
                };
                format!("CONVERT({text} USING {charset}) COLLATE {collation}")
            }
        }
    }
}

/// Appends the text of a key as a literal.
pub(crate) fn push_key(out: &mut String, key: &Key) {
    match key {
        Key::String(key) => push_text(out, &escape(key)),
        key => push_text(out, &key.to_string()),
    }
}

/// The texts of keys as the list of an `IN`.
pub(crate) fn list<'k>(keys: impl IntoIterator<Item = &'k Key>) -> String {
    let mut out = String::new();
    for key in keys {
        if !out.is_empty() {
            out.push_str(", ");
        }
        push_key(&mut out, key);
    }
    out
}

/// A key from its text, which must be the one that [`push_key`] makes: by another its row would not be found.
pub(crate) fn parse(ty: &FieldType, stored: &str) -> Result<Key> {
    let invalid = || Error::invalid("the text is not that of a key").with("key", stored);
    let key = match ty {
        FieldType::Integer => stored.parse().map(Key::Integer).map_err(|_| invalid())?,
        FieldType::Uuid => Uuid::try_parse(stored).map(Key::Uuid).map_err(|_| invalid())?,
        _ => Key::from_text(&unescape(stored)?)?,
    };
    let mut again = String::new();
    push_key(&mut again, &key);
    if again == text(stored) { Ok(key) } else { Err(invalid()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_text() {
        let upper = "A0000000-0000-4000-8000-000000000001";
        for (ty, text, is_key) in [
            (FieldType::Integer, "-7", true),
            (FieldType::Integer, "007", false),
            (FieldType::Integer, "x", false),
            (FieldType::Uuid, &upper.to_lowercase(), true),
            (FieldType::Uuid, upper, false),
            (FieldType::String, "it's", true),
            (FieldType::String, "a\u{1}\u{1}", true),
            (FieldType::String, "a\u{1}", false),
            (FieldType::String, "", false),
        ] {
            assert_eq!(parse(&ty, text).is_ok(), is_key, "{ty} {text:?}");
        }
        assert_eq!(parse(&FieldType::String, "a\u{1}\u{1}").ok(), Some(Key::String("a\0".into())));
    }

    #[test]
    fn a_key_is_found_by_the_index_of_its_column() {
        let column = |form, collation: &str| KeyColumn {
            name: "`id`".into(),
            form,
            collation: collation.into(),
            exact: "utf8mb4_nopad_bin",
        };
        assert_eq!(column(Form::Integer, "").native("k"), "CAST(k AS SIGNED)");
        assert_eq!(
            column(Form::Uuid, "ascii_bin").native("k"),
            "CONVERT(k USING ascii) COLLATE ascii_bin"
        );
        assert_eq!(
            column(Form::Integer, "").textual("NEW."),
            "CONVERT(CAST(NEW.`id` AS CHAR) USING utf8mb4) COLLATE utf8mb4_nopad_bin"
        );
    }
}
