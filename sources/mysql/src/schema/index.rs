//! Indexes of a table, as the declaration asks for them.
//!
//! What must be unique and can be longer than an index allows is unique by its hash, in a computed column.

use std::collections::BTreeMap;

use unisono_core::{Field, Result, Role};

use crate::error::Failed;
use crate::literal::quote;
use crate::schema::Step;
use crate::schema::found::{FoundIndex, HASH};
use crate::schema::types::{Indexed, indexed};

fn is_ours(name: &str) -> bool {
    name.starts_with("unisono_index_") || name.starts_with("unisono_unique_")
}

impl Step<'_> {
    /// Plans the indexes that are declared; those of ours that no longer are, or are others, are dropped first.
    pub(super) async fn indexes(&mut self) -> Result<(), Failed> {
        let wanted = self.wanted();
        let mut first = Vec::new();
        let obsolete: Vec<_> = (self.found.indexes.iter())
            .filter(|(name, index)| is_ours(name) && wanted.get(*name).map(|w| &w.0) != Some(index))
            .map(|(name, _)| name.clone())
            .collect();
        for name in &obsolete {
            let sql = format!("DROP INDEX {} ON {}", quote(name), self.table());
            first.push((sql, Some(format!("dropped the index {name} of {}", self.binding.place))));
        }
        let hashes = self.found.columns.keys().filter_map(|n| n.strip_prefix(HASH));
        for field in hashes.filter(|field| !wanted.values().any(|w| w.1 == *field && w.is_hashed()))
        {
            let column = quote(&format!("{HASH}{field}"));
            first.push((format!("ALTER TABLE {} DROP COLUMN {column}", self.table()), None));
        }
        for (name, Wanted(index, field)) in &wanted {
            if self.found.indexes.contains_key(name) && !obsolete.contains(name) {
                continue;
            }
            if index.unique {
                self.check_duplicates(field).await?;
            }
            self.add_index(name, index, field)?;
        }
        // A column cannot be widened while an index holds it whole that could not hold more.
        self.plan.statements.splice(0..0, first);
        Ok(())
    }

    fn add_index(&mut self, name: &str, index: &FoundIndex, field: &str) -> Result<()> {
        let table = self.table();
        let columns: Vec<_> = (index.columns.iter())
            .map(|(column, part)| match part {
                0 => quote(column),
                part => format!("{}({part})", quote(column)),
            })
            .collect();
        let hash = format!("{HASH}{field}");
        if index.columns.iter().any(|(column, _)| *column == hash)
            && !self.found.columns.contains_key(&hash)
        {
            if !self.may_add() {
                return Err(self
                    .mismatch("a field that is to be unique can be longer than an index allows, and a captured table that others made gets no column for its hash")
                    .with("field", field)
                    .hint("make the column shorter (VARCHAR(768) at most), or do not declare the field unique"));
            }
            self.plan.quietly(format!(
                "ALTER TABLE {table} ADD COLUMN {} BINARY(32) GENERATED ALWAYS AS (UNHEX(SHA2({}, 256))) STORED",
                quote(&hash),
                quote(field)
            ));
        }
        let unique = if index.unique { "UNIQUE " } else { "" };
        self.plan.add(
            format!("CREATE {unique}INDEX {} ON {table} ({})", quote(name), columns.join(", ")),
            format!("made the index {name} of {}", self.binding.place),
        );
        Ok(())
    }

    fn wanted(&self) -> BTreeMap<String, Wanted> {
        let entity = &self.binding.entity;
        let key = entity.key_field();
        let declared =
            entity.fields().iter().filter(|f| f.name != key.name && (f.unique || f.index));
        let wanted = declared.filter_map(|field: &Field| {
            // The truth has made sure that values are unique. A follower may see two records swap theirs in any
            // order, and must not refuse what the truth has accepted.
            let unique = field.unique && self.binding.role == Role::Truth;
            if unique && self.is_unique_already(&field.name) {
                return None;
            }
            let column = match (self.indexed(field), unique) {
                (Indexed::Not, _) => return None,
                (Indexed::Whole, _) => (field.name.to_string(), 0),
                (Indexed::Start(_), true) => (format!("{HASH}{}", field.name), 0),
                (Indexed::Start(part), false) => (field.name.to_string(), part),
            };
            let kind = if unique { "unique" } else { "index" };
            let index = FoundIndex { unique, columns: vec![column] };
            Some((format!("unisono_{kind}_{}", field.name), Wanted(index, field.name.to_string())))
        });
        wanted.collect()
    }

    /// Whether an index of the application sees to it that values differ; perhaps more of them than have to.
    fn is_unique_already(&self, field: &str) -> bool {
        let theirs = self.found.indexes.iter().filter(|(name, _)| !is_ours(name));
        theirs.into_iter().any(|(_, index)| index.is_unique_on(field))
    }

    /// What an index can do with the column of a field, as it will be.
    fn indexed(&self, field: &Field) -> Indexed {
        let there = self.found.columns.get(field.name.as_ref());
        let stays = there.filter(|_| !self.plan.modified.contains(field.name.as_ref()));
        match (stays, indexed(field)) {
            (_, Indexed::Not) => Indexed::Not,
            (Some(column), _) => column.indexed(),
            (None, declared) => declared,
        }
    }

    async fn check_duplicates(&mut self, field: &str) -> Result<(), Failed> {
        if !self.found.columns.contains_key(field) {
            return Ok(());
        }
        let (table, column) = (self.table(), quote(field));
        let key = quote(&self.binding.entity.key_field().name);
        let sql = format!(
            "SELECT GROUP_CONCAT(`k` SEPARATOR ', ') FROM (SELECT CONCAT(MIN({key}), ' and ', MAX({key})) AS `k` \
             FROM {table} WHERE {column} IS NOT NULL GROUP BY {column} HAVING COUNT(*) > 1 LIMIT 3) AS `d`"
        );
        match self.first(&sql).await? {
            None => Ok(()),
            Some(keys) => Err(self
                .mismatch("the field is declared unique, but records share a value")
                .with("field", field)
                .with("keys", keys)
                .hint(
                    "change the values of these records first, or do not declare the field unique",
                )
                .into()),
        }
    }
}

/// One index that is declared, and its field.
struct Wanted(FoundIndex, String);

impl Wanted {
    fn is_hashed(&self) -> bool {
        self.0.columns.iter().any(|(column, _)| column.starts_with(HASH))
    }
}
