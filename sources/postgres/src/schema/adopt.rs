//! A table that an application had before: checked, verified row by row, and given a version.

use unisono_core::{Error, Field, FieldType, Result, Role};

use crate::codec::{Form, encode};
use crate::error::Failed;
use crate::parameter::{cell, integer};
use crate::schema::Step;
use crate::schema::catalog::{Collation, Columns, Found};
use crate::table::{Column, Shape, quote};

impl Step<'_> {
    /// Takes over a table as it is; answers its columns.
    pub(super) async fn adopt(&mut self, found: &Columns) -> Result<Vec<Column>, Failed> {
        let entity = self.binding.entity.clone();
        self.check_identity(found)?;
        let declared = |name: &String| name == "unisono_version" || entity.field(name).is_some();
        let needed = found
            .iter()
            .find(|(name, f)| !declared(name) && f.required && !f.has_default && !f.computed);
        if let Some((name, _)) = needed {
            return Err(self
                .mismatch("the table has a column that needs a value and is not declared")
                .with("column", name)
                .hint("declare it as a field, or give the column a default")
                .into());
        }
        let (mut columns, mut read) = (Vec::with_capacity(entity.fields().len()), Vec::new());
        for field in entity.fields() {
            columns.push(match found.get(field.name.as_ref()) {
                None => self.add(field).await?,
                Some(there) => {
                    let column = self.adopted_column(field, there)?;
                    read.push(column.clone());
                    column
                }
            });
        }
        self.verify(&read).await?;
        self.notes.push(format!("adopted the table {}", self.binding.place));
        Ok(columns)
    }

    /// Gives the rows that are there a version in a column of theirs.
    pub(crate) async fn add_version(&self) -> Result<(), Failed> {
        let (table, version) = (self.table(), self.version_of_adopted().await?);
        // The default is that of the rows that are there; every row from now on is given its version.
        self.run(&format!(
            "ALTER TABLE {table} ADD COLUMN unisono_version bigint NOT NULL DEFAULT {version}"
        ))
        .await
    }

    /// The version of records that no change in the log describes. In a truth it is a position that counts as trimmed,
    /// so that nobody takes the log for the whole story; a follower's records give way to any change.
    pub(crate) async fn version_of_adopted(&self) -> Result<i64, Failed> {
        if self.binding.role != Role::Truth {
            return Ok(0);
        }
        let head = format!("{}.unisono_head", quote(self.catalog.schema));
        self.run(&format!("UPDATE {head} SET trimmed = 1, position = 1 WHERE position = 0"))
            .await?;
        let rows = self.catalog.rows(&format!("SELECT position FROM {head}"), &[]).await?;
        Ok(rows.first().map(|row| integer(row, 0)).transpose()?.unwrap_or(1))
    }

    /// The key must be what tells records apart.
    pub(super) fn check_identity(&self, found: &Columns) -> Result<()> {
        let key = self.binding.entity.key_field().name.as_ref();
        match found.get(key) {
            Some(column) if column.unique && column.required => Ok(()),
            _ => Err(self
                .mismatch("the key of the entity is not what tells the table's rows apart")
                .with("field", key)
                .hint("declare the table's primary key as the key, or add a unique index on the key's column and make it NOT NULL")),
        }
    }

    /// How a field is kept in a column that is there.
    pub(super) fn adopted_column(&self, field: &Field, found: &Found) -> Result<Column> {
        if found.computed {
            return Err(self
                .mismatch("the column is computed and cannot be written")
                .with("field", &field.name)
                .hint("do not declare it as a field"));
        }
        if found.collation == Collation::Loose {
            return Err(self
                .mismatch("the column takes different texts for equal")
                .with("field", &field.name)
                .hint("give it a deterministic collation, such as \"C\" (ALTER TABLE … ALTER COLUMN … TYPE text COLLATE \"C\")"));
        }
        let numbers = numbers(&found.full);
        let base = found.base.as_str();
        let shape = match (&field.ty, base) {
            (FieldType::String | FieldType::Text, _) if found.is_enumeration => Some(Shape::Word),
            (FieldType::String | FieldType::Text, "text")
                if found.collation == Collation::Bytes =>
            {
                Some(Shape::Own)
            }
            (FieldType::String | FieldType::Text, "text" | "character varying") => {
                Some(Shape::Text)
            }
            (FieldType::Integer, "bigint") => Some(Shape::Own),
            (FieldType::Integer, "integer" | "smallint") => Some(Shape::Integer),
            (FieldType::Decimal { precision, scale }, "numeric") => match numbers[..] {
                [] => Some(Shape::Own),
                [digits, after]
                    if after >= i32::from(*scale)
                        && digits - after >= i32::from(*precision) - i32::from(*scale) =>
                {
                    Some(Shape::Own)
                }
                _ => None,
            },
            (FieldType::Boolean, "boolean")
            | (FieldType::Float, "double precision")
            | (FieldType::Date, "date")
            | (FieldType::Uuid, "uuid")
            | (FieldType::Bytes, "bytea") => Some(Shape::Own),
            (FieldType::Timestamp { precision }, "timestamp with time zone")
                if digits(&numbers) >= i32::from(*precision) =>
            {
                Some(Shape::Own)
            }
            (FieldType::Timestamp { precision }, "timestamp without time zone")
                if digits(&numbers) >= i32::from(*precision) =>
            {
                Some(Shape::Local)
            }
            (FieldType::Json | FieldType::List(_) | FieldType::Objects(_), "json") => {
                Some(Shape::Own)
            }
            (FieldType::Json | FieldType::List(_) | FieldType::Objects(_), "jsonb") => {
                Some(Shape::Jsonb)
            }
            (FieldType::Json | FieldType::List(_) | FieldType::Objects(_), "text") => {
                Some(Shape::JsonText)
            }
            _ => None,
        };
        let shape =
            shape.ok_or_else(|| self.field_mismatch(&field.name, &found.full, &field.ty))?;
        Ok(Column::new(field, shape, &found.full))
    }

    /// Reads every value and checks that writing it back would store the same, so that order and equality are right.
    pub(super) async fn verify(&self, columns: &[Column]) -> Result<(), Failed> {
        if columns.is_empty() {
            return Ok(());
        }
        let selected: Vec<_> = columns.iter().map(Column::selected).collect();
        let sql = format!("SELECT {} FROM {}", selected.join(", "), self.table());
        let mut each = |row: &tokio_postgres::Row| {
            for (n, column) in columns.iter().enumerate() {
                if let Some(bytes) = cell(row, n)?
                    && !survives(column, bytes).unwrap_or(false)
                {
                    return Err(self.unfit(column));
                }
            }
            Ok(())
        };
        self.catalog.session.each_row(&sql, &[], &mut each).await
    }

    /// Whether a field could be kept in a column: else the mismatch.
    pub(crate) async fn try_field(&self, field: &Field, found: &Found) -> Result<(), Failed> {
        let column = self.adopted_column(field, found)?;
        self.verify(std::slice::from_ref(&column)).await
    }

    fn unfit(&self, column: &Column) -> Error {
        self.mismatch("a row holds a value that is not of the declared type in its one form")
            .with("field", &column.field)
            .with("declared", &column.ty)
            .hint(
                "correct the rows, or declare another type; numbers must not be NaN or have more digits than declared, dates \
                 and timestamps must not be infinite, text must not hold U+0001",
            )
    }
}

/// Whether a value can be read and is stored the same again.
fn survives(column: &Column, bytes: &[u8]) -> Result<bool> {
    let value = crate::codec::decode(&column.ty, bytes)?;
    let again = encode(&column.ty, &value)?;
    // JSON may be written in many ways, and nothing is ordered by its text; numbers differ in zeros at the end.
    let free = matches!(column.form, Form::Json | Form::Decimal);
    Ok(free || again.as_deref() == Some(bytes))
}

/// The numbers of `numeric(12,2)`.
fn numbers(full: &str) -> Vec<i32> {
    let inner = full.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
    inner.map_or(Vec::new(), |(inner, _)| inner.split(',').filter_map(|n| n.parse().ok()).collect())
}

/// The digits of a second that `timestamp(3)` keeps; six unless it says so.
fn digits(numbers: &[i32]) -> i32 {
    numbers.first().copied().unwrap_or(6)
}
