//! [`Table`]: one entity's table with its columns, and how records become rows and back.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use mysql_async::{Row, Value as Sql};
use unisono_core::kind::Options;
use unisono_core::source::Binding;
use unisono_core::{
    Capture, Entity, Error, ErrorKind, FieldType, Key, Position, Record, Result, Role, Stored,
    Uuid, Value, Version,
};

use crate::capture;
use crate::capture::keys::KeyColumn;
use crate::codec::{self, Form, decode, number_of, text_of};
use crate::literal::{push_text, quote};

/// The column that holds the names of the fields whose zero is negative: the server keeps no sign of a zero.
pub(crate) const ZEROS: &str = "unisono_zeros";
/// The column that holds the version.
pub(crate) const VERSION: &str = "unisono_version";

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
    /// The column as an expression that compares exactly; not its name where a collation would be in the way.
    pub(crate) compared: String,
}

/// What is particular about a table, found when it was prepared.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layout {
    /// For each field, in order: the form of its column, and whether its collation is not exact.
    pub(crate) columns: Vec<(Form, bool)>,
    /// Whether the key is the only thing that must be unique.
    pub(crate) sole_unique: bool,
    /// The fields whose hash has a column of its own, by which they are unique.
    pub(crate) hashed: Vec<String>,
    /// The collation that compares exactly.
    pub(crate) collation: &'static str,
    /// The collation of the key's column; empty if it holds no text.
    pub(crate) key_collation: String,
    /// Whether a trigger of the application can change what is written.
    pub(crate) has_before: bool,
}

/// The table of one entity, as it was prepared.
#[derive(Debug)]
pub(crate) struct Table {
    /// The entity.
    pub(crate) entity: Arc<Entity>,
    /// What the source does for it.
    pub(crate) role: Role,
    place: Arc<str>,
    options: Options,
    /// Its name, quoted for SQL.
    pub(crate) name: String,
    /// One for each field, in order.
    pub(crate) columns: Vec<Column>,
    /// What a record has beside its fields, as it is selected behind them: its version, at least.
    pub(crate) version: String,
    /// The columns as they are selected: the fields in order, then the version.
    pub(crate) selected: String,
    /// The columns as they are written: the fields in order, then those of our own.
    pub(crate) written: String,
    /// How the writes of others come into the log; the versions are then in a table of their own.
    pub(crate) capture: Option<Capture>,
    /// Whether a row is read again after we have written it, as a trigger of the application may have changed it.
    pub(crate) is_reread: bool,
    /// The column of the key.
    pub(crate) key: KeyColumn,
    /// Whether a row can be replaced by its key without the danger of replacing another one that shares a value.
    pub(crate) sole_unique: bool,
    /// The fields that a truth keeps unique, other than the key, and whether each is found by its hash.
    pub(crate) unique: Vec<(usize, bool)>,
    /// Whether it was emptied to be filled anew, and every row since was new to it.
    pub(crate) is_filled_anew: AtomicBool,
    has_zeros: bool,
    /// What follows the rows of an insert that replaces those that are there.
    pub(crate) replace: String,
}

impl Table {
    /// A table with columns for every field.
    pub(crate) fn new(binding: &Binding, layout: &Layout) -> Self {
        let entity = Arc::clone(&binding.entity);
        let columns: Vec<Column> = (entity.fields().iter().zip(&layout.columns))
            .map(|(f, (form, other_collation))| {
                let name = quote(&f.name);
                let compared = match other_collation {
                    true => format!("{name} COLLATE {}", layout.collation),
                    false => name.clone(),
                };
                Column { field: Arc::clone(&f.name), name, ty: f.ty.clone(), form: *form, compared }
            })
            .collect();
        let capture = Capture::of(&binding.options);
        let has_zeros = capture.is_none() && columns.iter().any(|c| c.form == Form::Float);
        let unique =
            entity.fields().iter().enumerate().filter(|(n, f)| {
                f.unique && *n != entity.key_index() && binding.role == Role::Truth
            });
        let names: Vec<_> = columns.iter().map(|c| c.name.as_str()).collect();
        let key_column = columns.get(entity.key_index());
        let key = KeyColumn {
            name: key_column.map_or_else(String::new, |c| c.name.clone()),
            form: key_column.map_or(Form::Text, |c| c.form),
            collation: layout.key_collation.clone(),
            exact: layout.collation,
        };
        let mut own = Vec::new();
        own.extend(capture.is_none().then_some(VERSION));
        own.extend(has_zeros.then_some(ZEROS));
        let version = match capture {
            Some(_) => capture::version(entity.name(), &key),
            None => own.join(", "),
        };
        let assign = |name: &str| format!("{name} = VALUES({name})");
        let mut assigned: Vec<_> = (names.iter().enumerate())
            .filter(|(n, _)| *n != entity.key_index())
            .map(|(_, name)| assign(name))
            .chain(own.iter().map(|name| assign(name)))
            .collect();
        if assigned.is_empty() {
            // In a captured table the key may be all that there is; it stays as it is.
            assigned.push(format!("{0} = {0}", key.name));
        }
        Table {
            role: binding.role,
            place: Arc::clone(&binding.place),
            options: binding.options.clone(),
            name: quote(&binding.place),
            selected: format!("{}, {version}", names.join(", ")),
            written: names.iter().chain(&own).copied().collect::<Vec<_>>().join(", "),
            version,
            capture,
            is_reread: layout.has_before && capture.is_some(),
            key,
            sole_unique: layout.sole_unique,
            unique: unique.map(|(n, f)| (n, layout.hashed.iter().any(|h| *h == *f.name))).collect(),
            replace: format!(" ON DUPLICATE KEY UPDATE {}", assigned.join(", ")),
            is_filled_anew: AtomicBool::new(false),
            has_zeros,
            columns,
            entity,
        }
    }

    /// The version of a row, alone.
    pub(crate) fn sole_version(&self) -> &str {
        if self.capture.is_some() { &self.version } else { VERSION }
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
        &self.key.name
    }

    /// A key as its column is compared with it.
    pub(crate) fn literal(&self, key: &Key) -> String {
        let mut out = String::new();
        let column = self.columns.get(self.entity.key_index());
        let pushed = column.map(|c| codec::push(&mut out, c.form, &c.ty, &key.to_value()));
        if !matches!(pushed, Some(Ok(()))) {
            // A key of another type than the entity's is the key of no record.
            out = "NULL".into();
        }
        out
    }

    /// Keys as the list of an `IN`.
    pub(crate) fn keys<'k>(&self, keys: impl IntoIterator<Item = &'k Key>) -> String {
        keys.into_iter().map(|key| self.literal(key)).collect::<Vec<_>>().join(", ")
    }

    /// The literals of a row, in the order of the columns as they are written.
    pub(crate) fn row(&self, record: &Record, version: Version) -> Result<Vec<String>> {
        let mut row = Vec::with_capacity(self.columns.len() + 2);
        let mut zeros: Vec<&str> = Vec::new();
        for (column, value) in self.columns.iter().zip(record.values()) {
            let mut out = String::new();
            codec::push(&mut out, column.form, &column.ty, value)
                .map_err(|e| e.of(self.entity.name()).with("field", &column.field))?;
            row.push(out);
            if matches!(value, Value::Float(n) if *n == 0.0 && n.is_sign_negative()) {
                if self.capture.is_some() {
                    return Err(Error::invalid(
                        "the captured table has no column for the sign of a zero",
                    )
                    .of(self.entity.name())
                    .with("field", &column.field)
                    .hint("write 0 instead of -0"));
                }
                zeros.push(&column.field);
            }
        }
        if self.capture.is_none() {
            row.push(version.to_string());
        }
        if self.has_zeros {
            let mut out = String::from("NULL");
            if !zeros.is_empty() {
                out.clear();
                push_text(&mut out, &zeros.join(","));
            }
            row.push(out);
        }
        Ok(row)
    }

    /// The statement that changes the row of a key to these literals.
    pub(crate) fn update(&self, key: &Key, row: &[String]) -> String {
        let names = self.written.split(", ");
        let mut assigned: Vec<_> = (names.zip(row).enumerate())
            .filter(|(n, _)| *n != self.entity.key_index())
            .map(|(_, (name, literal))| format!("{name} = {literal}"))
            .collect();
        let (name, column, key) = (&self.name, self.key_column(), self.literal(key));
        if assigned.is_empty() {
            assigned.push(format!("{column} = {column}"));
        }
        format!("UPDATE {name} SET {} WHERE {column} = {key}", assigned.join(", "))
    }

    /// A record from a row of the selected columns.
    pub(crate) fn stored(&self, row: &Row) -> Result<Stored> {
        self.stored_with(row, |column, error| {
            Err(error.of(self.entity.name()).with("field", &column.field))
        })
    }

    /// A record from a row of the selected columns; `otherwise` says what takes the place of a value that cannot be
    /// decoded.
    pub(crate) fn stored_with(
        &self,
        row: &Row,
        otherwise: impl Fn(&Column, Error) -> Result<Value>,
    ) -> Result<Stored> {
        let mut values = Vec::with_capacity(self.columns.len());
        for (n, column) in self.columns.iter().enumerate() {
            let value = decode(column.form, &column.ty, cell(row, n)?);
            values.push(value.or_else(|e| otherwise(column, e))?);
        }
        let version = number_of(cell(row, self.columns.len())?)?.unwrap_or_default();
        if self.has_zeros
            && let Some(names) = text_of(cell(row, self.columns.len() + 1)?)?
        {
            for (column, value) in self.columns.iter().zip(&mut values) {
                // Another program may have changed the number since.
                if *value == Value::Float(0.0) && names.split(',').any(|n| *n == *column.field) {
                    *value = Value::Float(-0.0);
                }
            }
        }
        let record = Record::new(values);
        let (key, version) = (self.entity.key_of(&record)?, Position::from_i64(version)?);
        Ok(Stored::new(key, version, Arc::new(record)))
    }

    /// Records from rows of the selected columns.
    pub(crate) fn records(&self, rows: &[Row]) -> Result<Vec<Stored>> {
        rows.iter().map(|row| self.stored(row)).collect()
    }

    /// The key in a cell of the key's column.
    pub(crate) fn key_in(&self, cell: &Sql) -> Result<Key> {
        let column = self.columns.get(self.entity.key_index());
        let value = column.map_or(Ok(Value::Null), |c| decode(c.form, &c.ty, cell));
        value.and_then(|value| Key::from_value(&value)).map_err(|e| e.of(self.entity.name()))
    }
}

/// A cell of a row.
pub(crate) fn cell(row: &Row, at: usize) -> Result<&Sql> {
    row.as_ref(at).ok_or_else(|| Error::internal("an answer has fewer columns than were selected"))
}

/// The key in a cell of one of the source's own tables, by the type of the key field if it is known.
pub(crate) fn own_key(entity: Option<&Entity>, cell: &Sql) -> Result<Key> {
    let corrupt = || Error::new(ErrorKind::Corrupt, "a stored key cannot be decoded");
    let text = text_of(cell)?.ok_or_else(corrupt)?;
    match entity.map(|entity| &entity.key_field().ty) {
        Some(FieldType::Integer) => text.parse().map(Key::Integer).map_err(|_| corrupt()),
        Some(FieldType::Uuid) => Uuid::try_parse(text).map(Key::Uuid).map_err(|_| corrupt()),
        _ => Key::from_text(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use unisono_core::Field;

    fn table(role: Role, sole_unique: bool) -> Table {
        let fields = vec![
            Field::new("ratio", FieldType::Float),
            Field::new("id", FieldType::String),
            Field { unique: true, ..Field::new("order", FieldType::Integer) },
        ];
        let entity = Arc::new(Entity::new("thing", "id", fields).unwrap());
        let binding =
            Binding { entity, role, place: "th`ings".into(), options: Options::default() };
        let columns = vec![(Form::Float, false), (Form::Text, false), (Form::Integer, false)];
        Table::new(&binding, &Layout { columns, sole_unique, ..Layout::default() })
    }

    fn record(ratio: f64) -> Record {
        Record::new(vec![Value::Float(ratio), Value::String("a'".into()), Value::Integer(7)])
    }

    #[test]
    fn a_negative_zero_is_named_beside_the_number() {
        let table = table(Role::Follower, true);
        let version = Position::new(3).unwrap();
        assert_eq!(table.row(&record(0.0), version).unwrap(), ["0e0", "'a\\''", "7", "3", "NULL"]);
        assert_eq!(
            table.row(&record(-0.0), version).unwrap(),
            ["-0e0", "'a\\''", "7", "3", "'ratio'"]
        );
    }

    #[test]
    fn an_update_names_every_column_but_the_key() {
        let table = table(Role::Truth, false);
        let row = table.row(&record(0.5), Position::new(3).unwrap()).unwrap();
        assert_eq!(
            table.update(&Key::String("a'".into()), &row),
            "UPDATE `th``ings` SET `ratio` = 5e-1, `order` = 7, unisono_version = 3, unisono_zeros = NULL \
             WHERE `id` = 'a\\''"
        );
        assert_eq!(table.unique, [(2, false)], "a truth checks unique fields itself");
        assert_eq!(table.literal(&Key::Integer(1)), "NULL", "a key of another type is nobody's");
    }
}
