//! Indexes of a table, as the declaration asks for them.

use std::collections::BTreeMap;

use unisono_core::{Field, Result, Role};

use crate::codec::Form;
use crate::error::translate;
use crate::schema::Step;
use crate::table::quote;

impl Step<'_> {
    /// Makes the indexes that are declared and drops those of ours that no longer are.
    pub(super) fn indexes(&mut self) -> Result<()> {
        let wanted = self.wanted()?;
        for name in self.existing()?.iter().filter(|name| !wanted.contains_key(*name)) {
            self.execute(&format!("DROP INDEX {}", quote(name)))?;
            self.notes.push(format!("dropped the index {name}"));
        }
        let existing = self.existing()?;
        for (name, index) in wanted.iter().filter(|(name, _)| !existing.contains(name)) {
            let unique = if index.unique { "UNIQUE " } else { "" };
            let sql = format!(
                "CREATE {unique}INDEX {} ON {} ({})",
                quote(name),
                self.table(),
                index.columns
            );
            if let Err(native) = self.connection.execute_batch(&sql) {
                return Err(match native.sqlite_error_code() {
                    Some(rusqlite::ErrorCode::ConstraintViolation) => {
                        self.duplicates(&index.field)?
                    }
                    _ => translate(native),
                });
            }
            self.notes.push(format!("made the index {name}"));
        }
        Ok(())
    }

    fn wanted(&self) -> Result<BTreeMap<String, Index>> {
        let entity = &self.binding.entity;
        let key = entity.key_field();
        let place = &self.binding.place;
        let indexed =
            entity.fields().iter().filter(|f| f.name != key.name && (f.unique || f.index));
        let wanted =
            indexed.filter(|f| f.unique || Form::of(&f.ty) != Form::Json).map(|field: &Field| {
                // The truth has made sure that values are unique. A follower may see two records swap theirs in any
                // order, and must not refuse what the truth has accepted.
                let unique = field.unique && self.binding.role == Role::Truth;
                let name = format!(
                    "unisono_{}_{place}_{}",
                    if unique { "unique" } else { "index" },
                    field.name
                );
                // With the key behind it, an index serves pages in the order of a field, as ties are decided by key.
                let columns = match unique {
                    true => quote(&field.name),
                    false => format!("{}, {}", quote(&field.name), quote(&key.name)),
                };
                (name, Index { unique, columns, field: field.name.to_string() })
            });
        let mut wanted: BTreeMap<_, _> = wanted.collect();
        let others = self.of_others()?;
        wanted.retain(|_, index| {
            !others.iter().any(|(column, unique)| *column == index.field && unique >= &index.unique)
        });
        Ok(wanted)
    }

    /// The columns that indexes of the application begin with, each with whether it alone is unique by it.
    fn of_others(&self) -> Result<Vec<(String, bool)>> {
        let sql = "SELECT lower(c.name), i.\"unique\" AND \
                    (SELECT count(*) FROM pragma_index_info(i.name)) = 1 \
                   FROM pragma_index_list(?1) AS i, pragma_index_info(i.name) AS c \
                   WHERE c.seqno = 0 AND c.name IS NOT NULL AND NOT i.partial AND i.name NOT LIKE 'unisono\\_%' ESCAPE '\\'";
        let mut statement = self.connection.prepare(sql).map_err(translate)?;
        let found = statement
            .query_map([self.binding.place.as_ref()], |row| Ok((row.get(0)?, row.get(1)?)))
            .map_err(translate)?;
        found.collect::<rusqlite::Result<_>>().map_err(translate)
    }

    fn existing(&self) -> Result<Vec<String>> {
        let sql = "SELECT name FROM sqlite_schema WHERE type = 'index' AND lower(tbl_name) = lower(?1) \
                   AND (name LIKE 'unisono\\_index\\_%' ESCAPE '\\' OR name LIKE 'unisono\\_unique\\_%' ESCAPE '\\')";
        let mut statement = self.connection.prepare(sql).map_err(translate)?;
        let names = statement
            .query_map([self.binding.place.as_ref()], |row| row.get(0))
            .map_err(translate)?;
        names.collect::<rusqlite::Result<_>>().map_err(translate)
    }

    fn duplicates(&self, field: &str) -> Result<unisono_core::Error> {
        let (table, column, key) =
            (self.table(), quote(field), quote(&self.binding.entity.key_field().name));
        let sql = format!(
            "SELECT group_concat(k, ', ') FROM (SELECT min({key}) || ' and ' || max({key}) AS k FROM {table} \
             WHERE {column} IS NOT NULL GROUP BY {column} HAVING count(*) > 1 LIMIT 3)"
        );
        let keys: Option<String> =
            self.connection.query_row(&sql, [], |row| row.get(0)).map_err(translate)?;
        Ok(self
            .mismatch("the field is declared unique, but records share a value")
            .with("field", field)
            .with("keys", keys.unwrap_or_default())
            .hint("change the values of these records first, or do not declare the field unique"))
    }
}

/// One index that is declared.
struct Index {
    unique: bool,
    columns: String,
    field: String,
}
