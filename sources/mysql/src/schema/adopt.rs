//! A table that an application had before: checked, verified row by row, and given a version.

use mysql_async::{Row, Value as Sql};
use unisono_core::{Field, FieldType, Key, Result, Role, Uuid};

use crate::codec::{Form, decode, text_of};
use crate::error::Failed;
use crate::literal::quote;
use crate::schema::Step;
use crate::schema::found::FoundColumn;
use crate::schema::plan::is_too_narrow;
use crate::table::{VERSION, cell};

/// Collations that neither fold case nor ignore blanks at the end.
const EXACT: [&str; 2] = ["utf8mb4_nopad_bin", "utf8mb4_0900_bin"];

impl Step<'_> {
    /// Takes over a table as it is; answers whether an application made it, as it seems to be.
    pub(super) async fn adopt(&mut self) -> Result<bool, Failed> {
        let entity = self.binding.entity.clone();
        if self.found.engine != "InnoDB" {
            return Err(self
                .mismatch("the table has no transactions")
                .with("engine", &self.found.engine)
                .hint("convert it: ALTER TABLE … ENGINE = InnoDB")
                .into());
        }
        self.check_identity()?;
        let needed = self.found.columns.iter().find(|(name, column)| {
            let is_ours = name.starts_with("unisono_") || entity.field(name).is_some();
            !is_ours && column.required && !column.fills_itself
        });
        if let Some((name, _)) = needed {
            return Err(self
                .mismatch("the table has a column that needs a value and is not declared")
                .with("column", name)
                .hint("declare it as a field, or give the column a default")
                .into());
        }
        let mut known = Vec::new();
        for field in entity.fields() {
            let form = match self.found.columns.get(field.name.as_ref()).cloned() {
                None => self.add(field)?,
                Some(column) => {
                    let form = self.adopted_form(field, &column)?;
                    known.push((field, form.0));
                    form
                }
            };
            self.plan.layout.columns.push(form);
        }
        self.verify(&known).await?;
        let is_new = !self.found.columns.contains_key(VERSION);
        if self.capture().is_none() {
            let version = if is_new { self.version_of_adopted().await? } else { 0 };
            self.version_column(version);
        }
        if is_new {
            // The table of a follower that lost its own tables has a version, and may have been made by us.
            let note = format!("adopted the table {}", self.binding.place);
            self.plan.add("DO 1".into(), note);
        }
        Ok(is_new)
    }

    /// The version of records that no change in the log describes. In a truth it is a position that counts as trimmed,
    /// so that nobody takes the log for the whole story; a follower's records give way to any change.
    pub(super) async fn version_of_adopted(&mut self) -> Result<i64, Failed> {
        if self.binding.role != Role::Truth {
            return Ok(0);
        }
        let head = self.first("SELECT `position` FROM unisono_head WHERE `only` = 1").await?;
        let head: i64 = head.and_then(|text| text.parse().ok()).unwrap_or_default();
        if head == 0 {
            self.plan.quietly(
                "UPDATE unisono_head SET `trimmed` = 1, `position` = 1 WHERE `position` = 0".into(),
            );
        }
        Ok(head.max(1))
    }

    /// The key must be what tells records apart.
    pub(super) fn check_identity(&self) -> Result<()> {
        let key = self.binding.entity.key_field();
        let primary = self.found.indexes.get("PRIMARY").map_or_else(String::new, |index| {
            index.columns.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(",")
        });
        if !self.found.identifies(&key.name) {
            return Err(self
                .mismatch("the key of the entity is not what tells the table's rows apart")
                .with("field", &key.name)
                .with("primary_key", primary)
                .hint("declare the table's primary key as the key, or add a unique index on the key's column"));
        }
        let collation = self.found.columns.get(key.name.as_ref()).map_or("", |c| &c.collation);
        if key.ty.is_text() && !EXACT.contains(&collation) {
            return Err(self
                .mismatch("the key is compared by a collation that takes different texts for equal")
                .with("field", &key.name)
                .with("collation", collation)
                .hint(format!(
                    "ALTER TABLE {} MODIFY {} VARCHAR(…) CHARACTER SET utf8mb4 COLLATE {} NOT NULL",
                    self.table(),
                    quote(&key.name),
                    self.collation
                )));
        }
        Ok(())
    }

    /// The form in which a column that is there keeps a field, and whether its collation is not exact.
    pub(super) fn adopted_form(&self, field: &Field, column: &FoundColumn) -> Result<(Form, bool)> {
        let is_text = matches!(
            column.base.as_str(),
            "varchar" | "tinytext" | "text" | "mediumtext" | "longtext"
        );
        let is_blob = matches!(
            column.base.as_str(),
            "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob"
        );
        // It is in the order of its declaration; what compares exactly makes a text of it.
        let is_word = column.base == "enum";
        let is_utf8 = column.collation.starts_with("utf8mb4");
        let number = column.base.as_str();
        let is_signed = !column.full.contains("unsigned");
        let form = match &field.ty {
            _ if column.is_computed => None,
            FieldType::String | FieldType::Text if (is_text || is_word) && is_utf8 => {
                Some(Form::Text)
            }
            FieldType::Integer
                if matches!(number, "tinyint" | "smallint" | "mediumint" | "int")
                    || number == "bigint" && is_signed =>
            {
                Some(Form::Integer)
            }
            FieldType::Decimal { scale, .. }
                if number == "decimal" && !is_too_narrow(field, false, column) =>
            {
                Some(Form::Decimal(*scale))
            }
            FieldType::Boolean if number == "tinyint" => Some(Form::Boolean),
            FieldType::Float if number == "double" => Some(Form::Float),
            FieldType::Date if number == "date" => Some(Form::Date),
            FieldType::Timestamp { precision }
                if matches!(number, "datetime" | "timestamp")
                    && !is_too_narrow(field, false, column) =>
            {
                Some(Form::Timestamp(*precision))
            }
            FieldType::Uuid if number == "binary" && column.length == 16 => Some(Form::UuidBytes),
            FieldType::Uuid if (is_text || number == "char") && column.length >= 36 => {
                Some(Form::Uuid)
            }
            FieldType::Bytes if is_blob => Some(Form::Bytes),
            FieldType::Json | FieldType::List(_) | FieldType::Objects(_)
                if is_text && is_utf8 || number == "json" =>
            {
                Some(Form::Json)
            }
            _ => None,
        };
        let compares =
            form == Some(Form::Text) && (is_word || !EXACT.contains(&column.collation.as_str()));
        form.map(|form| (form, compares)).ok_or_else(|| {
            let mismatch = self.field_mismatch(&field.name, &column.full, &field.ty);
            match field.ty {
                FieldType::Decimal { .. } | FieldType::Timestamp { .. } => mismatch.hint(
                    "the column must hold as many digits as are declared: widen it (ALTER TABLE … MODIFY …) or declare fewer",
                ),
                FieldType::String | FieldType::Text => mismatch.hint(
                    "text is kept in VARCHAR, TEXT or ENUM columns of the character set utf8mb4: convert the column (ALTER TABLE … MODIFY …)",
                ),
                _ => mismatch,
            }
        })
    }

    /// Reads every value: one that is not of its declared type must not be met later.
    pub(super) async fn verify(&mut self, columns: &[(&Field, Form)]) -> Result<(), Failed> {
        if columns.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = columns.iter().map(|(field, _)| quote(&field.name)).collect();
        let sql = format!("SELECT {} FROM {}", names.join(", "), self.table());
        let key = self.binding.entity.key_field().name.clone();
        let mut wrong = None;
        let mut check = |_: usize, row: Row| {
            for (n, (field, form)) in columns.iter().enumerate() {
                let cell = cell(&row, n)?;
                if wrong.is_none() && !is_readable(field, *form, cell, field.name == key) {
                    wrong = Some((*field, shown(cell)));
                }
            }
            Ok(())
        };
        self.session.connection().each(&sql, &mut check).await?;
        let Some((field, shown)) = wrong else { return Ok(()) };
        Err(self
            .mismatch("a row holds a value that is not of the declared type in its one form")
            .with("field", &field.name)
            .with("declared", &field.ty)
            .with("value", shown)
            .hint(
                "correct the rows, or declare another type; dates must not be zero, UUIDs are lower case with hyphens, \
                 booleans 0 and 1, keys 1 to 512 bytes",
            )
            .into())
    }
}

fn is_readable(field: &Field, form: Form, cell: &Sql, is_key: bool) -> bool {
    let Ok(value) = decode(form, &field.ty, cell) else { return false };
    let is_canonical = form != Form::Uuid
        || matches!(text_of(cell), Ok(Some(text))
            if Uuid::try_parse(text).is_ok_and(|uuid| uuid.to_string() == text))
        || value.is_null();
    // Text is read and written in one form only: see `Form::Text`.
    let is_one_form =
        form != Form::Text || !matches!(text_of(cell), Ok(Some(text)) if text.contains('\0'));
    is_canonical && is_one_form && (!is_key || Key::from_value(&value).is_ok())
}

fn shown(cell: &Sql) -> String {
    match cell {
        Sql::Bytes(bytes) => String::from_utf8_lossy(bytes).chars().take(40).collect(),
        _ => "null".into(),
    }
}
