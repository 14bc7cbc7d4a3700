//! [`Table`]: one entity's table with its columns and statements.

use std::sync::Arc;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, Statement, params};
use unisono_core::kind::Options;
use unisono_core::source::Binding;
use unisono_core::{
    Capture, Entity, Error, ErrorKind, FieldType, Key, Position, Record, Result, Role, Stored,
    Value, Version,
};

use crate::codec::{self, Form, decode, encode, encode_key};
use crate::error::translate;

/// One field's column.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    /// The field's name.
    pub(crate) field: Arc<str>,
    /// Its name, quoted for SQL.
    pub(crate) name: String,
    /// What the field can hold.
    pub(crate) ty: FieldType,
    /// How the column keeps it.
    pub(crate) form: Form,
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
    /// Its name.
    pub(crate) place: Arc<str>,
    options: Options,
    /// Its name, quoted for SQL.
    pub(crate) name: String,
    /// One for each field, in order.
    pub(crate) columns: Vec<Column>,
    /// The columns as they are selected: the fields in order, then the version.
    pub(crate) selected: String,
    /// The version of a row, as it is selected.
    pub(crate) version: String,
    select_version: String,
    row: String,
    insert: String,
    update: String,
    delete: String,
}

impl Table {
    /// A table whose columns keep their values in the given forms, one for each field.
    pub(crate) fn new(binding: &Binding, forms: &[Form]) -> Self {
        let entity = Arc::clone(&binding.entity);
        let columns: Vec<Column> = (entity.fields().iter().zip(forms))
            .map(|(f, form)| Column {
                field: Arc::clone(&f.name),
                name: quote(&f.name),
                ty: f.ty.clone(),
                form: *form,
            })
            .collect();
        let names: Vec<&str> = columns.iter().map(|c| c.name.as_str()).collect();
        let (name, key) = (quote(&binding.place), quote(&entity.key_field().name));
        let marks: Vec<String> = (1..=columns.len() + 1).map(|n| format!("?{n}")).collect();
        let sets: Vec<String> = (names.iter().zip(&marks).enumerate())
            .filter(|(n, _)| *n != entity.key_index())
            .map(|(_, (name, mark))| format!("{name} = {mark}, "))
            .collect();
        let (version_mark, key_mark) = (columns.len() + 1, entity.key_index() + 1);
        let capture = Capture::of(&binding.options);
        let fields = names.join(", ");
        let Parts { version, insert, update, select_version } = match capture {
            None => Parts {
                version: "unisono_version".to_owned(),
                insert: format!(
                    "INSERT INTO {name} ({fields}, unisono_version) VALUES ({})",
                    marks.join(", ")
                ),
                update: format!(
                    "UPDATE {name} SET {}unisono_version = ?{version_mark} WHERE {key} = ?{key_mark}",
                    sets.concat()
                ),
                select_version: format!("SELECT unisono_version FROM {name} WHERE {key} = ?1"),
            },
            Some(_) => Parts::of_captured(&name, &key, &names, &marks, &sets, &entity),
        };
        let selected = format!("{fields}, {version}");
        Table {
            role: binding.role,
            capture,
            place: Arc::clone(&binding.place),
            options: binding.options.clone(),
            version,
            select_version,
            row: format!("SELECT {selected} FROM {name} WHERE {key} = ?1"),
            insert,
            update,
            delete: format!("DELETE FROM {name} WHERE {key} = ?1"),
            name,
            selected,
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

    /// The column of the key.
    pub(crate) fn key_column(&self) -> &str {
        // The entity has made sure that the key is one of its fields, and there is a column for each.
        self.columns.get(self.entity.key_index()).map_or("", |c| &c.name)
    }

    /// The version of a record.
    pub(crate) fn version(&self, connection: &Connection, key: &Key) -> Result<Option<Version>> {
        let mut statement = connection.prepare_cached(&self.select_version).map_err(translate)?;
        let found = statement.query_row([encode_key(key)], |row| row.get::<_, i64>(0)).optional();
        found.map_err(translate)?.map(Position::from_i64).transpose()
    }

    /// The greatest key between two, both included.
    pub(crate) fn newest(
        &self,
        connection: &Connection,
        first: &Key,
        last: &Key,
    ) -> Result<Option<Key>> {
        let (name, key) = (&self.name, self.key_column());
        let sql = format!(
            "SELECT {key} FROM {name} WHERE {key} >= ?1 AND {key} <= ?2 ORDER BY {key} DESC LIMIT 1"
        );
        let mut statement = connection.prepare_cached(&sql).map_err(translate)?;
        let mut rows = statement.query([encode_key(first), encode_key(last)]).map_err(translate)?;
        rows.next().map_err(translate)?.map(|row| self.key_at(row, 0)).transpose()
    }

    /// A record.
    pub(crate) fn read(&self, connection: &Connection, key: &Key) -> Result<Option<Stored>> {
        let mut statement = connection.prepare_cached(&self.row).map_err(translate)?;
        let mut rows = statement.query([encode_key(key)]).map_err(translate)?;
        rows.next().map_err(translate)?.map(|row| self.stored(row)).transpose()
    }

    /// The version of a record, if the table has no column for it; `None` for one that is gone.
    pub(crate) fn set_version(
        &self,
        connection: &Connection,
        key: &Key,
        version: Option<Version>,
    ) -> Result<()> {
        let (entity, key) = (self.entity.name().as_ref(), encode_key(key));
        let set = match version {
            Some(version) => connection
                .prepare_cached(
                    "INSERT INTO unisono_versions (entity, key, version) VALUES (?1, ?2, ?3) \
                     ON CONFLICT (entity, key) DO UPDATE SET version = excluded.version",
                )
                .and_then(|mut s| s.execute(params![entity, key, version.as_i64()])),
            None => connection
                .prepare_cached("DELETE FROM unisono_versions WHERE entity = ?1 AND key = ?2")
                .and_then(|mut s| s.execute(params![entity, key])),
        };
        set.map(drop).map_err(translate)
    }

    /// Takes note in a captured table of what has just been written in it by ourselves.
    ///
    /// One entry of the intake is that of the write itself; another one comes from a trigger of the application that
    /// has changed the record further, and stays.
    pub(crate) fn written(
        &self,
        connection: &Connection,
        key: &Key,
        version: Option<Version>,
    ) -> Result<()> {
        if self.capture.is_none() {
            return Ok(());
        }
        let sql = "DELETE FROM unisono_intake WHERE entity = ?1 AND key = ?2 AND (refused IS NOT NULL OR id = \
                   (SELECT min(id) FROM unisono_intake WHERE entity = ?1 AND key = ?2 AND refused IS NULL))";
        let mut statement = connection.prepare_cached(sql).map_err(translate)?;
        let row = params![self.entity.name().as_ref(), encode_key(key)];
        statement.execute(row).map_err(translate)?;
        self.set_version(connection, key, version)
    }

    /// Writes a record at a version, over the one that is there if `replace`.
    pub(crate) fn write(
        &self,
        connection: &Connection,
        record: &Record,
        version: Version,
        replace: bool,
    ) -> Result<(), Refused> {
        let mut statement =
            connection.prepare_cached(if replace { &self.update } else { &self.insert })?;
        for (n, (column, value)) in self.columns.iter().zip(record.values()).enumerate() {
            let encoded = encode(column.form, &column.ty, value).map_err(|e| {
                Refused::Value(e.of(self.entity.name()).with("field", &column.field))
            })?;
            statement.raw_bind_parameter(n + 1, encoded)?;
        }
        if self.capture.is_none() {
            statement.raw_bind_parameter(self.columns.len() + 1, version.as_i64())?;
        }
        statement.raw_execute()?;
        Ok(())
    }

    /// Removes a record; answers whether it was there.
    pub(crate) fn delete(&self, connection: &Connection, key: &Key) -> rusqlite::Result<bool> {
        Ok(connection.prepare_cached(&self.delete)?.execute([encode_key(key)])? > 0)
    }

    /// A record from a row of the selected columns.
    pub(crate) fn stored(&self, row: &Row<'_>) -> Result<Stored> {
        self.stored_with(row, |column, error| {
            Err(error.of(self.entity.name()).with("field", &column.field))
        })
    }

    /// The key in a column of a row.
    pub(crate) fn key_at(&self, row: &Row<'_>, n: usize) -> Result<Key> {
        let cell = row.get_ref(n).map_err(translate)?;
        let value = match self.columns.get(self.entity.key_index()) {
            Some(column) => decode(column.form, &column.ty, cell)?,
            None => Value::Null,
        };
        Key::from_value(&value)
    }

    /// A record from a row of the selected columns; `otherwise` says what takes the place of a value that cannot be
    /// decoded.
    pub(crate) fn stored_with(
        &self,
        row: &Row<'_>,
        otherwise: impl Fn(&Column, Error) -> Result<Value>,
    ) -> Result<Stored> {
        let mut values = Vec::with_capacity(self.columns.len());
        for (n, column) in self.columns.iter().enumerate() {
            let cell = row.get_ref(n).map_err(translate)?;
            values.push(decode(column.form, &column.ty, cell).or_else(|e| otherwise(column, e))?);
        }
        let version: i64 = row.get(self.columns.len()).map_err(translate)?;
        let record = Record::new(values);
        Ok(Stored::new(
            self.entity.key_of(&record)?,
            Position::from_i64(version)?,
            Arc::new(record),
        ))
    }

    /// Every row of a statement that selects the columns.
    pub(crate) fn collect(
        &self,
        statement: &mut Statement<'_>,
        limit: usize,
    ) -> Result<Vec<Stored>> {
        let mut rows = statement.raw_query();
        let mut records = Vec::with_capacity(limit.min(1024));
        while let Some(row) = rows.next().map_err(translate)? {
            records.push(self.stored(row)?);
        }
        Ok(records)
    }

    /// The key held by a column of a log or tombstone.
    pub(crate) fn decode_key(&self, cell: ValueRef<'_>) -> Result<Key> {
        codec::decode_key(Some(&self.entity.key_field().ty), cell)
    }
}

/// What of a table's statements depends on where the versions are.
struct Parts {
    version: String,
    insert: String,
    update: String,
    select_version: String,
}

impl Parts {
    /// Of a table without a column for them.
    fn of_captured(
        name: &str,
        key: &str,
        names: &[&str],
        marks: &[String],
        sets: &[String],
        entity: &Entity,
    ) -> Self {
        // An entity's name needs no quoting: lower case letters, digits and underscores.
        let versions = format!(
            "SELECT version FROM unisono_versions WHERE entity = '{}' AND key =",
            entity.name()
        );
        let marks = marks.get(..names.len()).unwrap_or(marks).join(", ");
        let sets = sets.concat();
        let action = match sets.trim_end_matches(", ") {
            // The key is the only column: the row stays, but the triggers tell of a write.
            "" => format!("SET {key} = {key}"),
            sets => format!("SET {sets}"),
        };
        // Over a row that is there, also one that no entity could hold until now and that has no version.
        let put = format!(
            "INSERT INTO {name} ({}) VALUES ({marks}) ON CONFLICT ({key}) DO UPDATE {action}",
            names.join(", ")
        );
        Parts {
            // A sign keeps the type of the key's column from being forced on the keys of the versions, without whose
            // index this would read them all.
            version: format!("coalesce(({versions} +{name}.{key}), 0)"),
            insert: put.clone(),
            update: put,
            select_version: format!("{versions} ?1"),
        }
    }
}

/// Why a record could not be written.
pub(crate) enum Refused {
    /// The column cannot hold a value.
    Value(Error),
    /// The engine refused the statement.
    Native(rusqlite::Error),
}

impl From<rusqlite::Error> for Refused {
    fn from(native: rusqlite::Error) -> Self {
        Refused::Native(native)
    }
}

/// A name as an SQL identifier.
pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The error of a place that two entities claim.
pub(crate) fn claimed_twice(place: &str) -> Error {
    Error::new(ErrorKind::InvalidConfig, "two entities have the same table").with("table", place)
}
