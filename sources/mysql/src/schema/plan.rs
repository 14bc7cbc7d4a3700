//! A table of our own: made, or brought up to a changed declaration. What keeps every value is done, the rest is a
//! mismatch.

use serde_json::Value as Json;
use unisono_core::{Field, FieldType, Key, Result};

use crate::codec::{Form, push};
use crate::error::Failed;
use crate::literal::quote;
use crate::schema::found::FoundColumn;
use crate::schema::types::{column_type, is_kept};
use crate::schema::{Recorded, Step};
use crate::table::{VERSION, ZEROS};

impl Step<'_> {
    /// Plans the table.
    pub(super) fn create(&mut self) {
        let entity = &self.binding.entity;
        let columns: Vec<String> = (entity.fields().iter().enumerate())
            .map(|(n, field)| {
                let is_key = n == entity.key_index();
                let ty = column_type(field, is_key, self.collation);
                let key = if is_key { " NOT NULL PRIMARY KEY" } else { "" };
                format!("{} {ty}{key}", quote(&field.name))
            })
            .collect();
        let own = match self.capture() {
            Some(_) => "",
            None if has_floats(entity.fields()) => {
                ", unisono_version BIGINT NOT NULL, unisono_zeros LONGTEXT"
            }
            None => ", unisono_version BIGINT NOT NULL",
        };
        let sql = format!(
            "CREATE TABLE {} ({}{own}) ENGINE = InnoDB ROW_FORMAT = DYNAMIC \
             DEFAULT CHARACTER SET utf8mb4 COLLATE {}",
            self.table(),
            columns.join(", "),
            self.collation
        );
        self.plan.layout.columns =
            entity.fields().iter().map(|f| (Form::of(&f.ty), false)).collect();
        self.plan.is_made = true;
        self.plan.add(sql, format!("made the table {}", self.binding.place));
    }

    /// Plans what brings a known table up to the declaration.
    pub(super) async fn migrate(&mut self, recorded: &Recorded) -> Result<(), Failed> {
        let entity = self.binding.entity.clone();
        self.check_identity()?;
        for name in recorded.fields.keys().filter(|name| entity.field(name).is_none()) {
            self.check_removed(name).await?;
        }
        let mut unknown = Vec::new();
        for field in entity.fields() {
            let column = self.found.columns.get(field.name.as_ref()).cloned();
            let form = match (column, recorded.fields.get(field.name.as_ref())) {
                (None, _) => self.add(field)?,
                (Some(column), None) => {
                    let form = self.adopted_form(field, &column)?;
                    unknown.push((field, form.0));
                    form
                }
                (Some(column), Some(old)) => self.convert(field, &column, old, recorded.adopted)?,
            };
            self.plan.layout.columns.push(form);
        }
        self.verify(&unknown).await?;
        self.own_columns();
        Ok(())
    }

    /// Adds what every table has beside its fields, unless it is there.
    fn own_columns(&mut self) {
        let zeros = has_floats(self.binding.entity.fields()) && self.capture().is_none();
        if zeros && !self.found.columns.contains_key(ZEROS) {
            let sql = format!("ALTER TABLE {} ADD COLUMN {ZEROS} LONGTEXT", self.table());
            self.plan.quietly(sql);
        }
    }

    /// Adds the version to a table that an application made, or that was not finished.
    pub(super) fn version_column(&mut self, version: i64) {
        if !self.found.columns.contains_key(VERSION) && self.capture().is_none() {
            let sql = format!(
                "ALTER TABLE {} ADD COLUMN {VERSION} BIGINT NOT NULL DEFAULT {version}",
                self.table()
            );
            self.plan.quietly(sql);
        }
        self.own_columns();
    }

    /// A field that is no longer declared keeps its column; only an empty one may go out of sight.
    async fn check_removed(&mut self, name: &str) -> Result<(), Failed> {
        let (table, column) = (self.table(), quote(name));
        let is_there = self.found.columns.contains_key(name);
        let sql = format!("SELECT 1 FROM {table} WHERE {column} IS NOT NULL LIMIT 1");
        if is_there && self.any(&sql).await? {
            return Err(self
                .mismatch("a field that holds data is no longer declared")
                .with("field", name)
                .hint("keep it declared; or, if the data is not needed, drop the column by hand (ALTER TABLE … DROP COLUMN …) while Unisono is stopped")
                .into());
        }
        Ok(())
    }

    /// Adds a column; records that are there get the default in the same statement.
    pub(super) fn add(&mut self, field: &Field) -> Result<(Form, bool)> {
        if !self.may_add() {
            return Err(self
                .mismatch("a field has no column, and a captured table that others made gets none")
                .with("field", &field.name)
                .hint("add the column as the application would (ALTER TABLE … ADD COLUMN …), or do not declare the field"));
        }
        let (form, table, name) = (Form::of(&field.ty), self.table(), quote(&field.name));
        let ty = column_type(field, false, self.collation);
        let note = format!("added the column {} to {}", field.name, self.binding.place);
        let Some(default) = &field.default else {
            self.plan.add(format!("ALTER TABLE {table} ADD COLUMN {name} {ty}"), note);
            return Ok((form, false));
        };
        let mut literal = String::new();
        push(&mut literal, form, &field.ty, default).map_err(|e| e.with("field", &field.name))?;
        self.plan
            .add(format!("ALTER TABLE {table} ADD COLUMN {name} {ty} DEFAULT ({literal})"), note);
        // Defaults are the engine's to give; the column's would outlive a change of the declaration.
        self.plan.quietly(format!("ALTER TABLE {table} ALTER COLUMN {name} DROP DEFAULT"));
        Ok((form, false))
    }

    fn convert(
        &mut self,
        field: &Field,
        column: &FoundColumn,
        recorded: &Json,
        adopted: bool,
    ) -> Result<(Form, bool)> {
        if !is_kept(recorded, &field.ty) {
            return Err(self.field_mismatch(&field.name, recorded, &field.ty));
        }
        let is_key = field.name == self.binding.entity.key_field().name;
        if adopted || !is_too_narrow(field, is_key, column) {
            return self.adopted_form(field, column);
        }
        let (table, name) = (self.table(), quote(&field.name));
        let ty = match field.ty {
            FieldType::Decimal { precision, scale } => {
                // Somebody may have widened the other side of the point by hand.
                let whole = (column.precision - column.scale).max(i64::from(precision - scale));
                let scale = column.scale.max(i64::from(scale));
                format!("DECIMAL({},{scale})", whole + scale)
            }
            _ if is_key => column_type(field, true, self.collation) + " NOT NULL",
            _ => column_type(field, false, self.collation),
        };
        self.plan.modified.insert(field.name.to_string());
        self.plan.add(
            format!("ALTER TABLE {table} MODIFY COLUMN {name} {ty}"),
            format!("widened {} of {} to {}", field.name, self.binding.place, field.ty),
        );
        Ok((Form::of(&field.ty), false))
    }
}

/// Whether a column cannot hold every value of its field.
pub(super) fn is_too_narrow(field: &Field, is_key: bool, column: &FoundColumn) -> bool {
    let longest = if is_key { Key::BYTES_MAX as i64 } else { i64::from(u32::MAX / 4) };
    match field.ty {
        FieldType::Decimal { precision, scale } => {
            column.scale < i64::from(scale)
                || column.precision - column.scale < i64::from(precision - scale)
        }
        FieldType::Timestamp { precision } => column.scale < i64::from(precision),
        FieldType::String | FieldType::Text | FieldType::Bytes => {
            column.length < field.max_length.map_or(longest, i64::from).min(longest)
        }
        _ => false,
    }
}

fn has_floats(fields: &[Field]) -> bool {
    fields.iter().any(|f| f.ty == FieldType::Float)
}
