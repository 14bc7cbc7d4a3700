//! What is in the database, as the information schema tells.

use std::collections::BTreeMap;

use mysql_async::Row;
use unisono_core::Result;

use crate::codec::{number_of, text_of};
use crate::error::{Class, Failed};
use crate::literal::{quote, text};
use crate::pool::Session;
use crate::schema::types::{INDEXED_BYTES_MAX, INDEXED_CHARS_MAX, INDEXED_START, Indexed};
use crate::table::cell;

/// What the name of a column begins with that holds the hash of a field.
pub(super) const HASH: &str = "unisono_hash_";

/// A column that is there.
#[derive(Clone, Debug, Default)]
pub(super) struct FoundColumn {
    /// Its type without length, in lower case: `varchar`.
    pub(super) base: String,
    /// Its whole type, in lower case: `bigint(20) unsigned`.
    pub(super) full: String,
    /// The most characters or bytes.
    pub(super) length: i64,
    /// All digits of a number.
    pub(super) precision: i64,
    /// Digits after the point, of a number or of a second.
    pub(super) scale: i64,
    /// How it compares text; empty if it holds none.
    pub(super) collation: String,
    /// Whether it refuses null.
    pub(super) required: bool,
    /// Whether a row needs no value for it: it has a default, counts by itself or is computed.
    pub(super) fills_itself: bool,
    /// Whether it is computed, and cannot be written.
    pub(super) is_computed: bool,
}

/// An index that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FoundIndex {
    /// Whether it refuses equal values.
    pub(super) unique: bool,
    /// Its columns, each with how much of it is indexed (0 for all).
    pub(super) columns: Vec<(String, u32)>,
}

/// A table that is there, or nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    /// `BASE TABLE` or another sort; empty if there is nothing of this name.
    pub(super) sort: String,
    /// The storage engine.
    pub(super) engine: String,
    /// The columns by name, in lower case.
    pub(super) columns: BTreeMap<String, FoundColumn>,
    /// The indexes by name.
    pub(super) indexes: BTreeMap<String, FoundIndex>,
}

impl Found {
    /// What is there under a name. While it is looked at, nobody can empty or change it: the server would then tell of
    /// nothing.
    pub(super) async fn look(session: &mut Session, place: &str) -> Result<Self, Failed> {
        let hold = format!("START TRANSACTION; SELECT 1 FROM {} LIMIT 1", quote(place));
        match session.run(&hold).await {
            Ok(_) => {}
            Err(failed) if failed.class == Class::Gone => {
                session.run("ROLLBACK").await?;
                return Ok(Found::default());
            }
            Err(failed) => return Err(failed),
        }
        let name = text(place);
        let sql = format!(
            "SELECT table_type, engine FROM information_schema.tables \
             WHERE table_schema = DATABASE() AND table_name = {name}; \
             SELECT column_name, data_type, column_type, character_maximum_length, numeric_precision, numeric_scale, \
             datetime_precision, collation_name, is_nullable, column_default IS NOT NULL, extra \
             FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = {name}; \
             SELECT index_name, non_unique, column_name, sub_part FROM information_schema.statistics \
             WHERE table_schema = DATABASE() AND table_name = {name} ORDER BY index_name, seq_in_index; COMMIT"
        );
        let sets = session.run(&sql).await?;
        let mut found = Found::default();
        let [tables, columns, indexes] = &sets[..] else { return Ok(found) };
        for row in tables {
            found.sort = word(row, 0)?;
            found.engine = word(row, 1)?;
        }
        for row in columns {
            found.columns.insert(word(row, 0)?.to_lowercase(), column(row)?);
        }
        for row in indexes {
            let index = found.indexes.entry(word(row, 0)?).or_default();
            index.unique = number(row, 1)? == 0;
            let part = u32::try_from(number(row, 3)?).unwrap_or_default();
            index.columns.push((word(row, 2)?.to_lowercase(), part));
        }
        Ok(found)
    }

    /// Whether there is a table.
    pub(super) fn is_there(&self) -> bool {
        !self.sort.is_empty()
    }

    /// Whether a column alone tells rows apart.
    pub(super) fn identifies(&self, column: &str) -> bool {
        self.indexes.values().any(|index| index.is_unique_on(column))
    }

    /// The fields whose hash has a column.
    pub(super) fn hashed(&self) -> Vec<String> {
        let names = self.columns.keys().filter_map(|name| name.strip_prefix(HASH));
        names.map(str::to_owned).collect()
    }

    /// Whether nothing but a column must be unique.
    pub(super) fn is_sole_unique(&self, column: &str) -> bool {
        self.indexes.values().filter(|index| index.unique).all(|index| index.is_unique_on(column))
    }
}

impl FoundColumn {
    /// What an index can do with it.
    pub(super) fn indexed(&self) -> Indexed {
        match self.base.as_str() {
            "varchar" if self.length <= i64::from(INDEXED_CHARS_MAX) => Indexed::Whole,
            "varbinary" if self.length <= i64::from(INDEXED_BYTES_MAX) => Indexed::Whole,
            "varchar" | "varbinary" => Indexed::Start(INDEXED_START),
            base if base.ends_with("text") || base.ends_with("blob") => {
                Indexed::Start(INDEXED_START)
            }
            _ => Indexed::Whole,
        }
    }
}

impl FoundIndex {
    /// Whether it refuses equal values of a column, and nothing else.
    pub(super) fn is_unique_on(&self, column: &str) -> bool {
        self.unique && matches!(&self.columns[..], [(name, 0)] if name == column)
    }
}

fn column(row: &Row) -> Result<FoundColumn> {
    let extra = word(row, 10)?.to_lowercase();
    let is_computed = extra.contains("generated") && !extra.contains("default_generated");
    Ok(FoundColumn {
        base: word(row, 1)?.to_lowercase(),
        full: word(row, 2)?.to_lowercase(),
        length: number(row, 3)?,
        precision: number(row, 4)?,
        scale: number(row, 5)?.max(number(row, 6)?),
        collation: word(row, 7)?,
        required: word(row, 8)? == "NO",
        fills_itself: number(row, 9)? == 1 || extra.contains("auto_increment") || is_computed,
        is_computed,
    })
}

/// The text of a cell; empty if null.
pub(crate) fn word(row: &Row, at: usize) -> Result<String> {
    Ok(text_of(cell(row, at)?)?.unwrap_or_default().to_owned())
}

fn number(row: &Row, at: usize) -> Result<i64> {
    // The longest length of all is above 63 bits where it is counted in bytes.
    Ok(number_of(cell(row, at)?).unwrap_or(Some(i64::MAX)).unwrap_or_default())
}
