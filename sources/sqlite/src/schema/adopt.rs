//! A table that an application had before: checked, verified row by row, and given a version.

use rusqlite::types::ValueRef;
use unisono_core::{Capture, Error, Field, FieldType, Result, Role};

use crate::codec::{Form, SCALED_DIGITS_MAX, decode, encode};
use crate::error::translate;
use crate::schema::migrate::fits_double;
use crate::schema::{Found, FoundColumns, Step};
use crate::table::quote;
use crate::truth::bounds;

/// What SQLite makes of values that are stored in a column, by the rules of its manual ("Determination of column affinity").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Affinity {
    Integer,
    Text,
    Blob,
    Real,
    Numeric,
}

impl Affinity {
    fn of(declared: &str) -> Self {
        let has = |part| declared.contains(part);
        if has("INT") {
            Affinity::Integer
        } else if has("CHAR") || has("CLOB") || has("TEXT") {
            Affinity::Text
        } else if has("BLOB") || declared.is_empty() {
            Affinity::Blob
        } else if has("REAL") || has("FLOA") || has("DOUB") {
            Affinity::Real
        } else {
            Affinity::Numeric
        }
    }
}

impl Step<'_> {
    /// Takes over a table as it is; answers the forms of its columns.
    pub(super) fn adopt(&mut self, found: &FoundColumns) -> Result<Vec<Form>> {
        let entity = self.binding.entity.clone();
        self.check_identity(found)?;
        self.check_collation()?;
        let declared = |name: &String| name == "unisono_version" || entity.field(name).is_some();
        let needed = found
            .iter()
            .find(|(name, f)| !declared(name) && f.required && !f.has_default && f.key_part == 0);
        if let Some((name, _)) = needed {
            return Err(self
                .mismatch("the table has a column that needs a value and is not declared")
                .with("column", name)
                .hint("declare it as a field, or give the column a default"));
        }
        let mut columns = Vec::with_capacity(entity.fields().len());
        for field in entity.fields() {
            let Some(column) = found.get(field.name.as_ref()) else {
                columns.push((field, self.add(field)?));
                continue;
            };
            columns.push((field, self.adopted_form(field, column)?));
        }
        self.verify(&columns)?;
        self.notes.push(format!("adopted the table {}", self.binding.place));
        Ok(columns.into_iter().map(|(_, form)| form).collect())
    }

    /// Sees to it that a table that was there has versions: a column, or what [`Step::set_capture`] is to begin with.
    pub(super) fn versions(&mut self, found: &FoundColumns) -> Result<i64> {
        let has_column = found.contains_key("unisono_version");
        let is_captured = Capture::of(&self.binding.options).is_some();
        match (is_captured, has_column) {
            (true, true) => Err(self
                .mismatch("the table to be captured has a column unisono_version, which others cannot fill")
                .hint("drop it (ALTER TABLE … DROP COLUMN unisono_version) while Unisono is stopped: versions begin anew above all earlier ones")),
            (false, true) => Ok(0),
            (false, false) if found.is_empty() => Ok(0),
            (false, false) => {
                let version = self.version_of_adopted()?;
                self.execute(&format!(
                    "ALTER TABLE {} ADD COLUMN unisono_version INTEGER NOT NULL DEFAULT {version}",
                    self.table()
                ))?;
                Ok(version)
            }
            (true, false) if found.is_empty() || self.captured()?.is_some() => Ok(0),
            (true, false) => self.version_of_adopted(),
        }
    }

    /// The version of records that no change in the log describes. In a truth it is a position that counts as trimmed,
    /// so that nobody takes the log for the whole story; a follower's records give way to any change.
    fn version_of_adopted(&self) -> Result<i64> {
        if self.binding.role != Role::Truth {
            return Ok(0);
        }
        let head = bounds(self.connection)?.head.as_i64();
        if head == 0 {
            self.execute("UPDATE unisono_head SET trimmed = 1")?;
        }
        Ok(head.max(1))
    }

    /// The key must be what tells records apart.
    pub(super) fn check_identity(&self, found: &FoundColumns) -> Result<()> {
        let key = self.binding.entity.key_field().name.as_ref();
        let parts: Vec<_> =
            found.iter().filter(|(_, f)| f.key_part > 0).map(|(name, _)| name.as_str()).collect();
        if parts == [key] || self.has_unique_index(key)? {
            return Ok(());
        }
        Err(self
            .mismatch("the key of the entity is not what tells the table's rows apart")
            .with("field", key)
            .with("primary_key", parts.join(","))
            .hint("declare the table's primary key as the key, or add a unique index on the key's column"))
    }

    fn has_unique_index(&self, column: &str) -> Result<bool> {
        let sql = "SELECT 1 FROM pragma_index_list(?1) AS i WHERE i.\"unique\" AND NOT i.partial \
                   AND (SELECT group_concat(lower(name)) FROM pragma_index_info(i.name)) = ?2";
        let mut statement = self.connection.prepare(sql).map_err(translate)?;
        statement.exists([self.binding.place.as_ref(), column]).map_err(translate)
    }

    /// Text is compared by its bytes everywhere; a table that folds case would disagree with every other source.
    pub(crate) fn check_collation(&self) -> Result<()> {
        let sql =
            "SELECT sql FROM sqlite_schema WHERE lower(tbl_name) = lower(?1) AND sql IS NOT NULL";
        let mut statement = self.connection.prepare(sql).map_err(translate)?;
        let mut rows = statement.query([self.binding.place.as_ref()]).map_err(translate)?;
        while let Some(row) = rows.next().map_err(translate)? {
            let sql: String = row.get(0).map_err(translate)?;
            let upper = sql.to_uppercase();
            let other =
                upper.split("COLLATE").skip(1).any(|rest| !rest.trim_start().starts_with("BINARY"));
            if other {
                return Err(self
                    .mismatch("the table compares text by a collation; Unisono compares it by its bytes")
                    .hint("copy the records into a table without COLLATE, or let Unisono make one and import them"));
            }
        }
        Ok(())
    }

    /// The form in which a column that is there keeps a field.
    pub(super) fn adopted_form(&self, field: &Field, column: &Found) -> Result<Form> {
        use Affinity::*;
        let affinity = Affinity::of(&column.declared);
        let form = match (&field.ty, affinity) {
            (FieldType::Decimal { precision, scale }, Integer)
                if *precision <= SCALED_DIGITS_MAX
                    && (*scale == 0 || column.declared.starts_with("DECIMAL_INT")) =>
            {
                Some(Form::Scaled(*scale))
            }
            (FieldType::Decimal { precision, scale }, Numeric | Real)
                if fits_double(*precision) =>
            {
                Some(Form::Approximate(*scale))
            }
            (FieldType::Decimal { .. }, _) => None,
            (FieldType::String | FieldType::Text, Text | Blob) => Some(Form::Text),
            (FieldType::Integer, Integer | Numeric) => Some(Form::Integer),
            (FieldType::Boolean, Integer | Numeric) => Some(Form::Boolean),
            (FieldType::Float, Real | Blob) => Some(Form::Float),
            // Text that is no number keeps its form in a numeric column, as which `DATE` and `UUID` count.
            (
                FieldType::Date | FieldType::Timestamp { .. } | FieldType::Uuid,
                Text | Blob | Numeric,
            ) => Some(Form::of(&field.ty)),
            (FieldType::Bytes, Blob) => Some(Form::Bytes),
            (FieldType::Json, Text | Blob) => Some(Form::Json),
            (FieldType::List(_) | FieldType::Objects(_), Text | Blob | Numeric) => Some(Form::Json),
            _ => None,
        };
        form.ok_or_else(|| match field.ty {
            FieldType::Decimal { .. } => self.field_mismatch(&field.name, &column.declared, &field.ty).hint(
                "a decimal is kept exactly in a NUMERIC, DECIMAL or REAL column up to 15 digits, and in an INTEGER \
                 column without digits after the point; declare it so, or let Unisono make the table and import",
            ),
            _ => self.field_mismatch(&field.name, &column.declared, &field.ty),
        })
    }

    /// Reads every value and checks that writing it back would store the same, so that order and equality are right.
    pub(super) fn verify(&self, columns: &[(&Field, Form)]) -> Result<()> {
        let names: Vec<_> = columns.iter().map(|(field, _)| quote(&field.name)).collect();
        let sql = format!("SELECT {} FROM {}", names.join(", "), self.table());
        let mut statement = self.connection.prepare(&sql).map_err(translate)?;
        let mut rows = statement.query([]).map_err(translate)?;
        while let Some(row) = rows.next().map_err(translate)? {
            for (n, (field, form)) in columns.iter().enumerate() {
                let cell = row.get_ref(n).map_err(translate)?;
                if !survives(field, *form, cell).unwrap_or(false) {
                    return Err(self.unfit(field, cell));
                }
            }
        }
        Ok(())
    }

    /// Whether a field could be kept in the column of its name: else the mismatch.
    pub(crate) fn try_field(&self, field: &Field) -> Result<()> {
        let found = self.columns()?;
        let Some(column) = found.get(field.name.as_ref()) else { return Ok(()) };
        let form = self.adopted_form(field, column)?;
        self.verify(&[(field, form)])
    }

    fn unfit(&self, field: &Field, cell: ValueRef<'_>) -> Error {
        let shown: String = match cell {
            ValueRef::Text(text) => String::from_utf8_lossy(text).chars().take(40).collect(),
            ValueRef::Integer(n) => n.to_string(),
            ValueRef::Real(n) => n.to_string(),
            other => other.data_type().to_string(),
        };
        self.mismatch("a row holds a value that is not of the declared type in its one form")
            .with("field", &field.name)
            .with("declared", &field.ty)
            .with("value", shown)
            .hint(
                "correct the rows, or declare another type; dates are 2026-12-31, timestamps 2026-12-31T23:59:59Z with \
                 exactly the declared digits, UUIDs lower case with hyphens, booleans 0 and 1",
            )
    }
}

/// Whether a cell can be read and its value is stored as the same cell.
fn survives(field: &Field, form: Form, cell: ValueRef<'_>) -> Result<bool> {
    let value = decode(form, &field.ty, cell)?;
    // JSON may be written in many ways, and nothing is ordered by its text.
    if form == Form::Json {
        return Ok(true);
    }
    let again = crate::codec::owned(encode(form, &field.ty, &value)?);
    Ok(match (ValueRef::from(&again), cell) {
        // A whole number in a numeric column is stored as an integer.
        (ValueRef::Real(a), ValueRef::Integer(b)) => a == b as f64,
        (a, b) => a == b,
    })
}
