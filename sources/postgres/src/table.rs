//! [`Table`]: one entity's table with its columns, and how it is spoken of in SQL.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use tokio_postgres::Row;
use unisono_core::kind::Options;
use unisono_core::source::Binding;
use unisono_core::{
    Capture, Entity, Error, ErrorKind, FieldType, Key, Position, Record, Result, Role, Stored,
    Value,
};

use crate::capture;
use crate::codec::{self, Form, decode, encode};
use crate::parameter::{Parameter, cell, integer};

/// How a column is read, compared and written, when that differs from the column itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// As declared for a table of our own.
    Own,
    /// Text in another collation.
    Text,
    /// `smallint` or `integer`.
    Integer,
    /// An enumeration.
    Word,
    /// `timestamp` without a zone, taken for UTC.
    Local,
    /// `jsonb`.
    Jsonb,
    /// JSON in a `text` column.
    JsonText,
}

/// Stands before a position if records may be newer than their versions.
const LAGS: char = '!';

/// One field's column.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    /// The field's name.
    pub(crate) field: Arc<str>,
    /// Its name, quoted for SQL.
    pub(crate) name: String,
    /// What the field can hold.
    pub(crate) ty: FieldType,
    /// How its values travel.
    pub(crate) form: Form,
    /// What is special about it.
    pub(crate) shape: Shape,
    /// The type of the column, for casts.
    pub(crate) native: String,
    /// As it is selected.
    selected: String,
    /// As it is compared with parameters.
    pub(crate) compared: String,
}

impl Column {
    /// A column of a field by its shape; `native` is the type that it has in the table.
    pub(crate) fn new(field: &unisono_core::Field, shape: Shape, native: &str) -> Self {
        let name = quote(&field.name);
        let selected = match shape {
            Shape::Own | Shape::JsonText => name.clone(),
            Shape::Text | Shape::Word | Shape::Jsonb => format!("{name}::text"),
            Shape::Integer => format!("{name}::bigint"),
            Shape::Local => format!("({name} AT TIME ZONE 'UTC')"),
        };
        let compared = match shape {
            Shape::Own | Shape::Integer | Shape::Local | Shape::Jsonb | Shape::JsonText => {
                name.clone()
            }
            Shape::Text => format!("{name} COLLATE \"C\""),
            Shape::Word => format!("{name}::text COLLATE \"C\""),
        };
        Column {
            field: Arc::clone(&field.name),
            ty: field.ty.clone(),
            form: Form::of(&field.ty),
            shape,
            native: native.to_owned(),
            name,
            selected,
            compared,
        }
    }

    /// As it is selected.
    pub(crate) fn selected(&self) -> &str {
        &self.selected
    }

    /// As it is ordered by; for an index.
    pub(crate) fn ordered(&self) -> String {
        match self.compared == self.name {
            true => self.name.clone(),
            false => format!("({})", self.compared),
        }
    }

    /// Whether the column itself is in the order of its values.
    pub(crate) fn is_in_order(&self) -> bool {
        self.compared == self.name
    }

    /// An expression of the form's own type as it is stored.
    pub(crate) fn stored(&self, expression: &str) -> String {
        match self.shape {
            Shape::Own | Shape::Text | Shape::Integer => expression.to_owned(),
            Shape::Word => format!("{expression}::text::{}", self.native),
            Shape::Local => format!("({expression} AT TIME ZONE 'UTC')"),
            Shape::Jsonb => format!("{expression}::jsonb"),
            Shape::JsonText => format!("{expression}::text"),
        }
    }

    /// What a parameter's mark is written as where the column is compared with it.
    pub(crate) fn cast(&self) -> Option<&'static str> {
        (self.shape == Shape::Local).then_some("($ AT TIME ZONE 'UTC')")
    }
}

/// The table of one entity, as it was prepared.
#[derive(Debug)]
pub(crate) struct Table {
    /// The entity.
    pub(crate) entity: Arc<Entity>,
    /// What the source does for it.
    pub(crate) role: Role,
    /// How the writes of others come into the log; the versions are then in a table of their own.
    pub(crate) capture: Option<Capture>,
    /// The version of a row, as it is selected.
    pub(crate) version: String,
    place: Arc<str>,
    options: Options,
    /// The schema, quoted for SQL.
    pub(crate) schema: String,
    /// Its name, quoted for SQL.
    pub(crate) name: String,
    /// One for each field, in order.
    pub(crate) columns: Vec<Column>,
    /// The columns as they are selected: the fields in order, then the version.
    pub(crate) selected: String,
    /// The position up to which the table holds everything, as text; null if that is not known.
    pub(crate) position: String,
    /// Whether a field other than the key is unique.
    pub(crate) has_unique: bool,
    /// Whether it was emptied to be filled anew, and every row since was new to it.
    pub(crate) is_filled_anew: AtomicBool,
    /// The statements of [`Table::get`], for one key and for several.
    pub(crate) get_one: OnceLock<String>,
    pub(crate) get_many: OnceLock<String>,
}

impl Table {
    /// A table with one column for each field.
    pub(crate) fn new(binding: &Binding, schema: &str, columns: Vec<Column>) -> Self {
        let entity = Arc::clone(&binding.entity);
        let schema = quote(schema);
        let selected: String = columns.iter().map(|c| format!("{}, ", c.selected)).collect();
        let capture = Capture::of(&binding.options);
        let version = match (capture, columns.get(entity.key_index())) {
            (Some(_), Some(key)) => capture::version(&schema, entity.name(), &key.name),
            _ => "unisono_version".to_owned(),
        };
        let position = match binding.role {
            Role::Truth => format!("(SELECT position::text FROM {schema}.unisono_head)"),
            // An entity's name needs no quoting: lower case letters, digits and underscores.
            Role::Follower | Role::Cache | Role::Journal | Role::Vault | Role::Outlet => format!(
                "(SELECT checkpoint FROM {schema}.unisono_checkpoints WHERE entity = '{}')",
                entity.name()
            ),
        };
        let has_unique = binding.role == Role::Truth
            && entity.fields().iter().enumerate().any(|(n, f)| f.unique && n != entity.key_index());
        Table {
            role: binding.role,
            place: Arc::clone(&binding.place),
            options: binding.options.clone(),
            name: format!("{schema}.{}", quote(&binding.place)),
            selected: selected + &version,
            version,
            capture,
            position,
            has_unique,
            is_filled_anew: AtomicBool::new(false),
            get_one: OnceLock::new(),
            get_many: OnceLock::new(),
            schema,
            columns,
            entity,
        }
    }

    /// What it was prepared for.
    pub(crate) fn binding(&self) -> Binding {
        Binding {
            entity: Arc::clone(&self.entity),
            role: self.role,
            place: Arc::clone(&self.place),
            options: self.options.clone(),
        }
    }

    /// The type of the key.
    pub(crate) fn key_type(&self) -> &FieldType {
        &self.entity.key_field().ty
    }

    /// The column of the key, as it is compared for equality.
    pub(crate) fn key(&self) -> &str {
        // The entity has made sure that the key is one of its fields, and there is a column for each.
        self.columns.get(self.entity.key_index()).map_or("", |c| &c.name)
    }

    /// The column of the key, as it is selected.
    pub(crate) fn selected_key(&self) -> &str {
        self.columns.get(self.entity.key_index()).map_or("", |c| &c.selected)
    }

    /// The column of the key, as keys are ordered by it.
    pub(crate) fn ordered_key(&self) -> &str {
        self.columns.get(self.entity.key_index()).map_or("", |c| &c.compared)
    }

    /// What makes an insert of a whole row replace the one with the same key.
    pub(crate) fn on_conflict(&self) -> String {
        let key = self.key();
        let others = self.columns.iter().filter(|c| c.name != key);
        let sets = others.map(|c| format!("{0} = excluded.{0}", c.name));
        // In a captured table the key may be all that there is; it stays as it is.
        let last = if self.capture.is_some() { key } else { "unisono_version" };
        let last = format!("{last} = excluded.{last}");
        let sets: Vec<_> = sets.chain([last]).collect();
        format!("ON CONFLICT ({key}) DO UPDATE SET {}", sets.join(", "))
    }

    /// What stands behind the columns of the fields when rows are inserted: the version and its value, or nothing.
    pub(crate) fn version_column(&self, value: &str) -> (&'static str, String) {
        match self.capture {
            None => (", unisono_version", format!(", {value}")),
            Some(_) => ("", String::new()),
        }
    }

    /// The values of a record in their binary form, in the order of the fields.
    pub(crate) fn encode(&self, record: &Record) -> Result<Vec<Option<Vec<u8>>>> {
        let values = self.columns.iter().zip(record.values());
        values
            .map(|(column, value)| {
                encode(&column.ty, value)
                    .map_err(|e| e.of(self.entity.name()).with("field", &column.field))
            })
            .collect()
    }

    /// A record from the selected columns of a row, of which the first is at `from`.
    pub(crate) fn stored(&self, row: &Row, from: usize) -> Result<Stored> {
        self.stored_with(row, from, Err)
    }

    /// A record from a row; `otherwise` says what takes the place of a value that cannot be decoded.
    pub(crate) fn stored_with(
        &self,
        row: &Row,
        from: usize,
        otherwise: impl Fn(Error) -> Result<Value>,
    ) -> Result<Stored> {
        let mut values = Vec::with_capacity(self.columns.len());
        for field in 0..self.columns.len() {
            values.push(self.value(field, row, from + field).or_else(&otherwise)?);
        }
        let version = integer(row, from + self.columns.len())?;
        let record = Record::new(values);
        let key = self.entity.key_of(&record)?;
        Ok(Stored::new(key, Position::from_i64(version)?, Arc::new(record)))
    }

    /// The value of a field from a row's column.
    pub(crate) fn value(&self, field: usize, row: &Row, column: usize) -> Result<Value> {
        let Some(Column { ty, field, .. }) = self.columns.get(field) else {
            return Ok(Value::Null);
        };
        match cell(row, column)? {
            None => Ok(Value::Null),
            Some(bytes) => {
                decode(ty, bytes).map_err(|e| e.of(self.entity.name()).with("field", field))
            }
        }
    }

    /// The position as text, marked if records may be newer than their versions, because what others wrote of them
    /// waits in the intake. `keys` is a condition on the intake's keys.
    pub(crate) fn marked_position(&self, keys: &str) -> String {
        match self.capture {
            None => self.position.clone(),
            Some(_) => format!(
                "CASE WHEN {} THEN '{LAGS}' ELSE '' END || {}",
                capture::lags(&self.schema, self.entity.name(), keys),
                self.position
            ),
        }
    }

    /// Whether a position is marked.
    pub(crate) fn lags(&self, said: Option<&str>) -> bool {
        self.capture.is_some() && said.is_some_and(|said| said.starts_with(LAGS))
    }

    /// The statement that answers 1 if what others wrote of a record, whose key is the parameter, waits in the intake.
    pub(crate) fn waits(&self, key: &Key) -> (String, Parameter) {
        let lags = capture::lags(&self.schema, self.entity.name(), "i.key = $1");
        (format!("SELECT {lags}::int::bigint"), Parameter::text(&codec::key_text(key)))
    }

    /// The position that [`Table::position`] said.
    pub(crate) fn position_of(&self, said: Option<&str>) -> Result<Position> {
        match (self.role, said) {
            (Role::Truth, Some(number)) => number.trim_start_matches(LAGS).parse(),
            (Role::Truth, None) => {
                Err(Error::new(ErrorKind::Corrupt, "the head row of the log is missing")
                    .hint("restore the database from a backup"))
            }
            // While the first copy is being made, records are missing that are older than the checkpoint.
            (_, Some(checkpoint)) => Ok(Some(crate::follower::parse_checkpoint(checkpoint)?)
                .filter(|c| c.backfill.is_none())
                .map_or(Position::ZERO, |c| c.position)),
            (_, None) => Ok(Position::ZERO),
        }
    }

    /// The statement that answers records by keys, the parameter, with the position first: one row at least.
    pub(crate) fn get(&self, keys: &[Key]) -> (&str, Parameter) {
        let (selected, name, key) = (&self.selected, &self.name, self.key());
        let (test, noted, parameter) = match keys {
            [one] => (
                "= $1",
                "i.key = $1::text",
                Parameter::new(Form::of(self.key_type()).wire(), Some(codec::encode_key(one))),
            ),
            many => (
                "= ANY ($1)",
                "i.key = ANY ($1::text[])",
                codec::key_array(self.key_type(), &many.iter().collect::<Vec<_>>()),
            ),
        };
        let made = if keys.len() == 1 { &self.get_one } else { &self.get_many };
        let sql = made.get_or_init(|| {
            let position = self.marked_position(noted);
            format!(
                "SELECT p.position, t.* FROM (SELECT {position} AS position) p LEFT JOIN \
                 (SELECT {selected}, TRUE AS found FROM {name} WHERE {key} {test}) t ON TRUE"
            )
        });
        (sql, parameter)
    }
}

/// A name as an SQL identifier.
pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
