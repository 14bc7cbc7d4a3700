//! Indexes of a table, as the declaration asks for them.

use std::collections::BTreeMap;

use unisono_core::{Error, Role};

use crate::codec::Form;
use crate::error::Failed;
use crate::parameter::text;
use crate::schema::Step;
use crate::table::{Column, Shape, quote};

/// The longest name that PostgreSQL keeps whole.
const NAME_MAX: usize = 63;

/// One index that is declared.
struct Index {
    unique: bool,
    columns: String,
    field: String,
}

impl Step<'_> {
    /// Makes the indexes that are declared and drops those of ours that no longer are.
    pub(super) async fn indexes(&mut self, columns: &[Column]) -> Result<(), Failed> {
        let mut wanted = self.wanted(columns);
        // The application sees to it by an index of its own.
        let unique = self.catalog.unique_by_others(&self.binding.place).await?;
        wanted.retain(|_, index| !(index.unique && unique.contains(&index.field)));
        let existing = self.catalog.indexes(&self.binding.place).await?;
        let schema = quote(self.catalog.schema);
        for name in existing.iter().filter(|name| !wanted.contains_key(*name)) {
            self.run(&format!("DROP INDEX {schema}.{}", quote(name))).await?;
            self.notes.push(format!("dropped the index {name}"));
        }
        for (name, index) in wanted.iter().filter(|(name, _)| !existing.contains(name)) {
            if index.unique {
                self.check_duplicates(&index.field).await?;
            }
            let unique = if index.unique { "UNIQUE " } else { "" };
            let (table, columns) = (self.table(), &index.columns);
            self.run(&format!("CREATE {unique}INDEX {} ON {table} ({columns})", quote(name)))
                .await?;
            self.notes.push(format!("made the index {name}"));
        }
        Ok(())
    }

    fn wanted(&self, columns: &[Column]) -> BTreeMap<String, Index> {
        let entity = &self.binding.entity;
        let mut wanted = BTreeMap::new();
        let Some(key) = columns.get(entity.key_index()) else { return wanted };
        for (n, (field, column)) in entity.fields().iter().zip(columns).enumerate() {
            let is_key = n == entity.key_index();
            // The text of a word of an enumeration may change, and so no index can be in its order.
            let is_word = column.shape == Shape::Word && (is_key || !field.unique);
            if column.form == Form::Json || is_word {
                continue;
            }
            // The truth has made sure that values are unique. A follower may see two records swap theirs in any order,
            // and must not refuse what the truth has accepted.
            let unique = !is_key && field.unique && self.binding.role == Role::Truth;
            let columns = match (is_key, unique) {
                // The primary key of an adopted table may be in another order than keys.
                (true, _) if column.is_in_order() => continue,
                (true, _) => column.ordered().to_owned(),
                (false, true) => column.name.clone(),
                (false, false) if field.index || field.unique => {
                    // With the key behind it, an index serves pages in the order of a field, as ties are decided by
                    // key; null comes before every value.
                    format!("{} NULLS FIRST, {}", column.ordered(), key.ordered())
                }
                _ => continue,
            };
            let name = name(unique, &self.binding.place, &field.name);
            wanted.insert(name, Index { unique, columns, field: field.name.to_string() });
        }
        wanted
    }

    async fn check_duplicates(&self, field: &str) -> Result<(), Failed> {
        let (table, column, key) =
            (self.table(), quote(field), quote(&self.binding.entity.key_field().name));
        let sql = format!(
            "SELECT string_agg(k, ', ') FROM (SELECT min({key}::text) || ' and ' || max({key}::text) AS k FROM {table} \
             WHERE {column} IS NOT NULL GROUP BY {column} HAVING count(*) > 1 LIMIT 3) d HAVING count(*) > 0"
        );
        let rows = self.catalog.rows(&sql, &[]).await?;
        let Some(row) = rows.first() else { return Ok(()) };
        let error: Error = self
            .mismatch("the field is declared unique, but records share a value")
            .with("field", field)
            .with("keys", text(row, 0)?)
            .hint("change the values of these records first, or do not declare the field unique");
        Err(error.into())
    }
}

/// A name that tells place and field; one that would be too long ends in a hash instead.
fn name(unique: bool, place: &str, field: &str) -> String {
    let word = if unique { "unique" } else { "index" };
    let name = format!("unisono_{word}_{place}_{field}");
    if name.len() <= NAME_MAX {
        return name;
    }
    let mut end = NAME_MAX - 17;
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}_{:016x}", name.get(..end).unwrap_or_default(), hash(name.as_bytes()))
}

/// FNV-1a, 64 bits: the same for ever.
fn hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_different() {
        assert_eq!(name(true, "product", "sku"), "unisono_unique_product_sku");
        let long = "é".repeat(31);
        let (a, b) = (name(false, &long, "a"), name(false, &long, "b"));
        assert!(a != b && a.len() <= NAME_MAX && a.starts_with("unisono_index_"), "{a} {b}");
    }
}
