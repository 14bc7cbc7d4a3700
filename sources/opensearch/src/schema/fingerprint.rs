//! The declaration by which an index was made, as text kept in it, and what another declaration means for it.

use std::fmt::Write as _;

use unisono_core::{Entity, FieldType};

/// Raised when the form of documents changes, so that older indexes are made anew.
const FORMAT: u32 = 1;

/// What a declaration means for an index that was made by another one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing.
    None,
    /// Fields are added: the index takes them in.
    Additions(String),
    /// Its documents do not fit: it is made anew.
    Rebuild(String),
    /// A field has become something else.
    Conflict {
        /// Line of the old declaration.
        was: String,
        /// Line of the new one.
        is: String,
    },
}

/// A declaration as text, one line for each field.
pub(crate) fn of(entity: &Entity) -> String {
    let mut out = format!("format {FORMAT}\nkey {}\n", entity.key_field().name);
    for field in entity.fields() {
        let _ = write!(out, "{}: ", field.name);
        describe(&field.ty, &mut out);
        out.push_str(if field.search { ", search\n" } else { "\n" });
    }
    out
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

/// Compares the declaration that an index was made by with the one of today.
pub(crate) fn compare(old: &str, new: &str) -> Change {
    if let Some((was, is)) = conflict(old, new) {
        return Change::Conflict { was: was.to_owned(), is: is.to_owned() };
    }
    let only = |lines: &str, others: &str| {
        let mine = lines.lines().filter(|line| !others.lines().any(|other| other == *line));
        mine.map(str::to_owned).collect::<Vec<_>>()
    };
    match (only(old, new), only(new, old)) {
        (gone, added) if gone.is_empty() && added.is_empty() => Change::None,
        (gone, added) if gone.is_empty() => Change::Additions(added.join("; ")),
        (gone, added) => {
            let gone = gone.into_iter().map(|line| format!("- {line}"));
            let lines: Vec<_> = gone.chain(added.into_iter().map(|l| format!("+ {l}"))).collect();
            Change::Rebuild(lines.join("; "))
        }
    }
}

/// A line of the old declaration whose field has become something else, with its new line: not a wider or narrower
/// type of the same sort, which values survive.
fn conflict<'a>(old: &'a str, new: &'a str) -> Option<(&'a str, &'a str)> {
    old.lines().find_map(|was| {
        let (name, old_type) = was.split_once(": ")?;
        let is = |is: &&str| is.split_once(": ").is_some_and(|(n, _)| n == name);
        let is = new.lines().find(is)?;
        (sort_of(old_type) != sort_of(is.split_once(": ")?.1)).then_some((was, is))
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

#[cfg(test)]
mod tests {
    use unisono_core::Field;

    use super::*;

    fn line(field: Field) -> String {
        of(&Entity::new("thing", "id", vec![Field::new("id", FieldType::String), field]).unwrap())
    }

    #[test]
    fn additions_are_told_from_rebuilds_and_conflicts() {
        let name = || Field::new("name", FieldType::String);
        let decimal =
            |precision, scale| line(Field::new("name", FieldType::Decimal { precision, scale }));
        let before = line(name());
        assert_eq!(compare(&before, &before), Change::None);
        let more = format!("{before}note: text, search\n");
        assert_eq!(compare(&before, &more), Change::Additions("note: text, search".to_owned()));
        assert!(matches!(compare(&more, &before), Change::Rebuild(_)), "a field is gone");
        let searched = line(Field { search: true, ..name() });
        assert!(matches!(compare(&before, &searched), Change::Rebuild(_)), "words are missing");
        assert!(matches!(compare(&decimal(12, 2), &decimal(14, 4)), Change::Rebuild(_)));
        let number = line(Field::new("name", FieldType::Integer));
        assert!(matches!(compare(&before, &number), Change::Conflict { .. }));
    }
}
