//! A known table under a changed declaration: what keeps every value is done, the rest is a mismatch.

use serde_json::{Map, Value as Json};
use unisono_core::{Field, FieldType};
use unisono_sql::types::{Conversion, conversion};

use crate::codec::{Form, declared_type, encode};
use crate::error::Failed;
use crate::parameter::Parameter;
use crate::schema::Step;
use crate::schema::catalog::{Columns, Found};
use crate::session::Use;
use crate::table::{Column, Shape, quote};

impl Step<'_> {
    /// Brings the table up to the declaration; answers its columns.
    pub(super) async fn migrate(
        &mut self,
        found: &Columns,
        recorded: &Map<String, Json>,
    ) -> Result<Vec<Column>, Failed> {
        let entity = self.binding.entity.clone();
        self.check_identity(found)?;
        for name in recorded.keys().filter(|name| entity.field(name).is_none()) {
            self.check_removed(found, name).await?;
        }
        let mut columns = Vec::with_capacity(entity.fields().len());
        for field in entity.fields() {
            let name = field.name.as_ref();
            columns.push(match (found.get(name), recorded.get(name)) {
                (None, _) => self.add(field).await?,
                (Some(there), None) => {
                    let column = self.adopted_column(field, there)?;
                    self.verify(std::slice::from_ref(&column)).await?;
                    column
                }
                (Some(there), Some(old)) => self.convert(field, there, old).await?,
            });
        }
        Ok(columns)
    }

    /// A field that is no longer declared keeps its column; only an empty one may go out of sight.
    async fn check_removed(&self, found: &Columns, name: &str) -> Result<(), Failed> {
        let (table, column) = (self.table(), quote(name));
        let sql = format!("SELECT 1 FROM {table} WHERE {column} IS NOT NULL LIMIT 1");
        if found.contains_key(name) && self.any(&sql).await? {
            return Err(self
                .mismatch("a field that holds data is no longer declared")
                .with("field", name)
                .hint(
                    "keep it declared; or, if the data is not needed, drop the column by hand (ALTER TABLE … DROP COLUMN …) \
                     while Unisono is stopped",
                )
                .into());
        }
        Ok(())
    }

    /// Adds a column; records that are there get the default.
    pub(super) async fn add(&mut self, field: &Field) -> Result<Column, Failed> {
        if !self.may_add().await? {
            return Err(self
                .mismatch("a field has no column, and a captured table that others made gets none")
                .with("field", &field.name)
                .hint("add the column as the other programs' schema is changed, or do not declare the field")
                .into());
        }
        let (table, native) = (self.table(), declared_type(&field.ty));
        let column = Column::new(field, Shape::Own, &native);
        self.run(&format!("ALTER TABLE {table} ADD COLUMN {} {native}", column.name)).await?;
        if let Some(default) = &field.default {
            let value = encode(&field.ty, default).map_err(|e| e.with("field", &field.name))?;
            let sql = format!("UPDATE {table} SET {} = $1", column.name);
            let value = Parameter::new(Form::of(&field.ty).wire(), value);
            self.catalog.session.execute(Use::Once, &sql, &[value]).await?;
        }
        self.notes.push(format!("added the column {} to {}", field.name, self.binding.place));
        Ok(column)
    }

    /// Takes values of an earlier declaration for those of the present one, if none of them changes.
    async fn convert(
        &mut self,
        field: &Field,
        there: &Found,
        recorded: &Json,
    ) -> Result<Column, Failed> {
        let refused = conversion(recorded, &field.ty) == Conversion::Refused;
        if refused {
            return Err(self.field_mismatch(&field.name, recorded, &field.ty).into());
        }
        if self.is_narrower(field, there) {
            let (table, column) = (self.table(), quote(&field.name));
            let native = declared_type(&field.ty);
            self.run(&format!("ALTER TABLE {table} ALTER COLUMN {column} TYPE {native}")).await?;
            self.notes
                .push(format!("widened {} of {} to {}", field.name, self.binding.place, field.ty));
            return Ok(Column::new(field, Shape::Own, &native));
        }
        Ok(self.adopted_column(field, there)?)
    }

    /// Whether a column has fewer digits than its field has now.
    fn is_narrower(&self, field: &Field, there: &Found) -> bool {
        let own = |base| there.base == base && self.adopted_column(field, there).is_err();
        match field.ty {
            FieldType::Decimal { .. } => own("numeric"),
            FieldType::Timestamp { .. } => own("timestamp with time zone"),
            _ => false,
        }
    }
}
