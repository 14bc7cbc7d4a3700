//! A known table under a changed declaration: what keeps every value is done, the rest is a mismatch.

use rusqlite::params;
use serde_json::{Map, Value as Json};
use unisono_core::{Field, Result};

use crate::codec::{APPROXIMATE_DIGITS_MAX, Form, declared_type, encode};
use crate::error::translate;
use crate::schema::{FoundColumns, Step};
use crate::table::quote;
use unisono_sql::types::{Conversion, conversion};

impl Step<'_> {
    /// Brings the table up to the declaration; answers the forms of the columns.
    pub(super) fn migrate(
        &mut self,
        found: &FoundColumns,
        recorded: &Map<String, Json>,
    ) -> Result<Vec<Form>> {
        let entity = self.binding.entity.clone();
        self.check_identity(found)?;
        for name in recorded.keys().filter(|name| entity.field(name).is_none()) {
            self.check_removed(found, name)?;
        }
        let mut forms = Vec::with_capacity(entity.fields().len());
        for field in entity.fields() {
            forms.push(match (found.get(field.name.as_ref()), recorded.get(field.name.as_ref())) {
                (None, _) => self.add(field)?,
                (Some(column), None) => {
                    let form = self.adopted_form(field, column)?;
                    self.verify(&[(field, form)])?;
                    form
                }
                (Some(column), Some(old)) => {
                    let form = self.adopted_form(field, column)?;
                    self.convert(field, form, old)?;
                    form
                }
            });
        }
        Ok(forms)
    }

    /// A field that is no longer declared keeps its column; only an empty one may go out of sight.
    fn check_removed(&self, found: &FoundColumns, name: &str) -> Result<()> {
        let (table, column) = (self.table(), quote(name));
        let is_there = found.contains_key(name);
        if is_there
            && self.any(&format!("SELECT 1 FROM {table} WHERE {column} IS NOT NULL LIMIT 1"))?
        {
            return Err(self.mismatch("a field that holds data is no longer declared").with("field", name).hint(
                "keep it declared; or, if the data is not needed, drop the column by hand (ALTER TABLE … DROP COLUMN …) \
                 while Unisono is stopped",
            ));
        }
        Ok(())
    }

    /// Adds a column; records that are there get the default.
    pub(super) fn add(&mut self, field: &Field) -> Result<Form> {
        if !self.may_add()? {
            return Err(self
                .mismatch("a field has no column, and a captured table that others made gets none")
                .with("field", &field.name)
                .hint("add the column as the other programs' schema is changed, or do not declare the field"));
        }
        let form = Form::of(&field.ty);
        let (table, column) = (self.table(), quote(&field.name));
        self.execute(&format!(
            "ALTER TABLE {table} ADD COLUMN {column} {}",
            declared_type(&field.ty)
        ))?;
        if let Some(default) = &field.default {
            let value =
                encode(form, &field.ty, default).map_err(|e| e.with("field", &field.name))?;
            let sql = format!("UPDATE {table} SET {column} = ?1");
            self.connection.execute(&sql, params![value]).map_err(translate)?;
        }
        self.notes.push(format!("added the column {} to {}", field.name, self.binding.place));
        Ok(form)
    }

    fn convert(&mut self, field: &Field, form: Form, recorded: &Json) -> Result<()> {
        let (table, column) = (self.table(), quote(&field.name));
        let rewritten = match (conversion(recorded, &field.ty), form) {
            (Conversion::None, _) => return Ok(()),
            // A number that is not scaled is the same number with any digits after its point.
            (Conversion::Rescale(_), Form::Approximate(_)) => None,
            (Conversion::Rescale(digits), _) => {
                Some(format!("{column} * {}", 10i64.pow(u32::from(digits))))
            }
            (Conversion::Refine(digits), _) => {
                let point = if has_fraction(recorded) { "" } else { "." };
                let zeros = "0".repeat(usize::from(digits));
                Some(format!("substr({column}, 1, length({column}) - 1) || '{point}{zeros}Z'"))
            }
            (Conversion::Refused, _) => {
                return Err(self.field_mismatch(&field.name, recorded, &field.ty));
            }
        };
        if let Some(rewritten) = rewritten {
            self.execute(&format!(
                "UPDATE {table} SET {column} = {rewritten} WHERE {column} IS NOT NULL"
            ))?;
        }
        self.notes
            .push(format!("widened {} of {} to {}", field.name, self.binding.place, field.ty));
        Ok(())
    }
}

/// Whether timestamps were recorded with a fraction of the second.
fn has_fraction(recorded: &Json) -> bool {
    recorded.as_str() != Some("timestamp(0)")
}

/// Whether a decimal fits a column that keeps doubles.
pub(super) fn fits_double(precision: u8) -> bool {
    precision <= APPROXIMATE_DIGITS_MAX
}
