//! What a table of an application is like, as an entity would be declared over it.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::Connection;
use unisono_core::entity::check_name;
use unisono_core::kind::Options;
use unisono_core::source::Binding;
use unisono_core::{Described, Entity, Error, ErrorKind, Field, FieldType, Result, Role};

use crate::error::translate;
use crate::schema::Step;

/// A column as it is in the table.
struct Column {
    name: String,
    declared: String,
    required: bool,
    has_default: bool,
    is_computed: bool,
    key_part: i64,
    unique: bool,
    indexed: bool,
}

/// Tries for every column which type all its values have; reads the whole table.
pub(crate) fn describe(connection: &Connection, place: &str) -> Result<Described> {
    check_table(connection, place)?;
    let no_matter = Field::new("id", FieldType::String);
    probe(connection, place, &no_matter, |step| step.check_collation())?;
    let columns = columns(connection, place)?;
    // A table has the same name in any case.
    let mut described = Described { place: place.to_lowercase(), ..Described::default() };
    for column in &columns {
        let fitting = match refusal(column) {
            Some(reason) => Err(reason),
            None => fitting(connection, place, column)?,
        };
        match fitting {
            Ok(ty) => described.fields.push(Field {
                required: column.required || column.key_part > 0,
                unique: column.unique && column.key_part == 0,
                index: column.indexed && !column.unique && column.key_part == 0,
                ..Field::new(&column.name.to_lowercase(), ty)
            }),
            Err(reason) => {
                if column.required && !column.has_default {
                    described.notes.push(format!(
                        "{} needs a value: give it a default, or Unisono cannot make records",
                        column.name
                    ));
                }
                described.left_out.push((column.name.clone(), reason));
            }
        }
    }
    described.key = key(&columns, &described.fields);
    if has_expression_index(connection, place)? {
        described.notes.push(
            "an index makes an expression unique: rows that REPLACE removes on its account are not captured".to_owned(),
        );
    }
    Ok(described)
}

fn check_table(connection: &Connection, place: &str) -> Result<()> {
    let sql = "SELECT name, type, lower(name) = lower(?1) FROM sqlite_schema WHERE type IN ('table', 'view') \
               AND name NOT LIKE 'unisono\\_%' ESCAPE '\\' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name";
    let mut statement = connection.prepare(sql).map_err(translate)?;
    let mut rows = statement.query([place]).map_err(translate)?;
    let mut tables: Vec<String> = Vec::new();
    while let Some(row) = rows.next().map_err(translate)? {
        let name: String = row.get(0).map_err(translate)?;
        let is_table = row.get_ref(1).map_err(translate)?.as_str() == Ok("table");
        match (row.get(2).map_err(translate)?, is_table) {
            (true, true) => return Ok(()),
            (true, false) => {
                return Err(Error::unsupported("a view cannot be adopted")
                    .with("view", place)
                    .hint("name the table that it is made from"));
            }
            (false, true) => tables.push(name),
            (false, false) => {}
        }
    }
    let hint = if tables.is_empty() {
        "the database has no tables: is its path right?".to_owned()
    } else {
        format!("the database has {}", tables.join(", "))
    };
    Err(Error::new(ErrorKind::NotFound, "there is no such table").with("table", place).hint(hint))
}

/// Whether something other than columns must be unique, which the triggers cannot look up.
fn has_expression_index(connection: &Connection, place: &str) -> Result<bool> {
    let sql = "SELECT 1 FROM pragma_index_list(?1) AS i, pragma_index_info(i.name) AS c \
               WHERE i.\"unique\" AND c.name IS NULL AND c.cid = -2";
    let mut statement = connection.prepare(sql).map_err(translate)?;
    statement.exists([place]).map_err(translate)
}

fn columns(connection: &Connection, place: &str) -> Result<Vec<Column>> {
    let sql = "SELECT name, type, \"notnull\", dflt_value IS NOT NULL, hidden > 0, pk, \
               EXISTS (SELECT 1 FROM pragma_index_list(?1) AS i WHERE i.\"unique\" AND NOT i.partial \
                AND (SELECT group_concat(name) FROM pragma_index_info(i.name)) = t.name), \
               EXISTS (SELECT 1 FROM pragma_index_list(?1) AS i, pragma_index_info(i.name) AS c \
                WHERE NOT i.partial AND c.seqno = 0 AND c.name = t.name) \
               FROM pragma_table_xinfo(?1) AS t WHERE name NOT LIKE 'unisono\\_%' ESCAPE '\\' ORDER BY cid";
    let mut statement = connection.prepare(sql).map_err(translate)?;
    let rows = statement.query_map([place], |row| {
        Ok(Column {
            name: row.get(0)?,
            declared: row.get::<_, String>(1)?.to_uppercase(),
            required: row.get(2)?,
            has_default: row.get(3)?,
            is_computed: row.get(4)?,
            key_part: row.get(5)?,
            unique: row.get(6)?,
            indexed: row.get(7)?,
        })
    });
    rows.map_err(translate)?.collect::<rusqlite::Result<_>>().map_err(translate)
}

fn refusal(column: &Column) -> Option<String> {
    if column.is_computed {
        return Some("it is computed from others".into());
    }
    check_name(&column.name.to_lowercase())
        .err()
        .map(|e| format!("the name cannot be that of a field: {}", e.message()))
}

/// The first type that the column and every value in it have; else the reason that there is none.
fn fitting(
    connection: &Connection,
    place: &str,
    column: &Column,
) -> Result<std::result::Result<FieldType, String>> {
    let mut reason = format!("no type of a field is kept in {}", column.declared);
    for ty in candidates(&column.declared) {
        let field = Field::new(&column.name.to_lowercase(), ty.clone());
        match probe(connection, place, &field, |step| step.try_field(&field)) {
            Ok(()) => return Ok(Ok(ty)),
            Err(error) if error.kind() == ErrorKind::SchemaMismatch => {
                reason = format!("not {ty}: {error}");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Err(reason))
}

/// Tests what preparing the table would meet, for an entity with one field.
fn probe<T>(
    connection: &Connection,
    place: &str,
    field: &Field,
    test: impl FnOnce(&Step<'_>) -> Result<T>,
) -> Result<T> {
    // The key matters to no test.
    let key = if field.name.as_ref() == "id" { "key" } else { "id" };
    let fields = vec![field.clone(), Field::new(key, FieldType::String)];
    let entity = Arc::new(Entity::new("described", key, fields)?);
    let binding =
        Binding { entity, role: Role::Truth, place: place.into(), options: Options::default() };
    test(&Step { connection, binding: &binding, notes: &mut Vec::new() })
}

/// What a column of a declared type can hold, the likeliest first.
fn candidates(declared: &str) -> Vec<FieldType> {
    use FieldType::*;
    let has = |word: &str| declared.contains(word);
    let decimal = |scale| Decimal { precision: 15, scale };
    if has("BOOL") {
        return vec![Boolean, Integer];
    }
    if has("DATE") && !has("TIME") {
        return vec![Date];
    }
    if has("TIME") {
        return vec![
            Timestamp { precision: 0 },
            Timestamp { precision: 3 },
            Timestamp { precision: 6 },
        ];
    }
    if has("DEC") || has("NUM") {
        let scaled = numbers(declared).map(|(precision, scale)| Decimal { precision, scale });
        return scaled.into_iter().chain([Integer, decimal(2), decimal(4), decimal(6)]).collect();
    }
    if has("INT") {
        return vec![Integer];
    }
    if has("UUID") || has("GUID") {
        return vec![Uuid, String];
    }
    if has("JSON") {
        return vec![Json];
    }
    if has("REAL") || has("FLOA") || has("DOUB") {
        return vec![Float];
    }
    if has("BLOB") { vec![Bytes, String] } else { vec![String, Bytes] }
}

/// The numbers of `DECIMAL(12,2)`.
fn numbers(declared: &str) -> Option<(u8, u8)> {
    let inner = declared.split_once('(')?.1.strip_suffix(')')?;
    let mut parts = inner.split(',').map(|n| n.trim().parse().ok());
    Some((parts.next()??, parts.next().flatten().unwrap_or(0)))
}

/// The primary key, or else a column that is unique and never null.
fn key(columns: &[Column], fields: &[Field]) -> Option<Arc<str>> {
    let primary: Vec<_> = columns.iter().filter(|c| c.key_part > 0).collect();
    let by_type: BTreeMap<_, _> = fields
        .iter()
        .filter(|f| matches!(f.ty, FieldType::String | FieldType::Integer | FieldType::Uuid))
        .map(|f| (f.name.as_ref(), Arc::clone(&f.name)))
        .collect();
    let sole = primary.first().filter(|_| primary.len() == 1);
    let others = columns.iter().filter(|c| c.unique && c.required);
    sole.copied()
        .into_iter()
        .chain(others)
        .find_map(|c| by_type.get(c.name.to_lowercase().as_str()).cloned())
}
