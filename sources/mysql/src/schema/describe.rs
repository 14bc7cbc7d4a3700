//! What a table of an application is like, as an entity would be declared over it.

use std::collections::HashSet;
use std::sync::Arc;

use unisono_core::entity::check_name;
use unisono_core::kind::Options;
use unisono_core::source::Binding;
use unisono_core::{Described, Entity, Error, ErrorKind, Field, FieldType, Result, Role};

use crate::error::Failed;
use crate::literal::text;
use crate::pool::{Pool, Session};
use crate::schema::Step;
use crate::schema::found::{Found, FoundColumn, word};

/// The greatest number of digits that a decimal field has.
const DIGITS_MAX: i64 = 28;

/// Tries for every column which type all its values have; reads the whole table.
pub(crate) async fn describe(pool: &Arc<Pool>, place: &str) -> Result<Described, Failed> {
    let (mut session, _) = pool.begin("DO 1").await?;
    let found = Found::look(&mut session, place).await?;
    if !found.is_there() {
        let error = Error::new(ErrorKind::NotFound, "there is no such table in the database");
        return Err(error.with("table", place).into());
    }
    let (order, json) = names(&mut session, place).await?;
    let mut described = Described { place: place.to_owned(), ..Described::default() };
    if found.sort != "BASE TABLE" || found.engine != "InnoDB" {
        described.notes.push("it is no InnoDB table: only such tables have transactions".into());
    }
    for name in order.iter().filter(|name| !name.starts_with("unisono_")) {
        let Some(column) = found.columns.get(name) else { continue };
        match fitting(&mut session, place, name, column, json.contains(name)).await? {
            Ok(ty) => described.fields.push(Field {
                required: column.required,
                unique: found.identifies(name) && !is_primary(&found, name),
                ..Field::new(name, ty)
            }),
            Err(reason) => {
                if column.required && !column.fills_itself {
                    described.notes.push(format!(
                        "{name} needs a value: give it a default, or Unisono cannot make records"
                    ));
                }
                described.left_out.push((name.clone(), reason));
            }
        }
    }
    let can_be_key = |f: &&Field| {
        let is_scalar = matches!(f.ty, FieldType::String | FieldType::Integer | FieldType::Uuid);
        is_scalar && f.required && found.identifies(&f.name)
    };
    let keys: Vec<_> = described.fields.iter().filter(can_be_key).collect();
    let key = keys.iter().find(|f| is_primary(&found, &f.name)).or(keys.first());
    described.key = key.map(|f| Arc::clone(&f.name));
    if let Some(field) =
        described.key.as_ref().and_then(|key| described.fields.iter().find(|f| f.name == *key))
    {
        let binding = binding(place, field, &field.name)?;
        if let Err(error) = Step::look(&mut session, &binding).await?.check_identity() {
            let hint = error.hint_text().unwrap_or_default();
            described.notes.push(format!("{}: {}; {hint}", field.name, error.message()));
        }
    }
    session.release();
    Ok(described)
}

/// The columns in their order, in lower case, and those of them that hold nothing but JSON.
async fn names(
    session: &mut Session,
    place: &str,
) -> Result<(Vec<String>, HashSet<String>), Failed> {
    let sql = format!(
        "SELECT LOWER(column_name) FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = {} \
         ORDER BY ordinal_position",
        text(place)
    );
    let first = |sets: Vec<Vec<mysql_async::Row>>| -> Result<Vec<String>> {
        sets.iter().flatten().map(|row| word(row, 0)).collect()
    };
    let order = first(session.run(&sql).await?)?;
    if !session.connection().server.engine.starts_with("MariaDB") {
        return Ok((order, HashSet::new()));
    }
    // There JSON is a text with a check.
    let sql = format!(
        "SELECT LOWER(check_clause) FROM information_schema.check_constraints \
         WHERE constraint_schema = DATABASE() AND table_name = {}",
        text(place)
    );
    let clauses: HashSet<_> = first(session.run(&sql).await?)?.into_iter().collect();
    let is_json = |name: &&String| clauses.contains(&format!("json_valid(`{name}`)"));
    let json = order.iter().filter(is_json).cloned().collect();
    Ok((order, json))
}

fn is_primary(found: &Found, column: &str) -> bool {
    let primary = found.indexes.get("PRIMARY");
    primary.is_some_and(|index| matches!(&index.columns[..], [(name, _)] if name == column))
}

fn binding(place: &str, field: &Field, key: &str) -> Result<Binding> {
    let mut fields = vec![field.clone()];
    if key != &*field.name {
        fields.push(Field::new(key, FieldType::String));
    }
    let entity = Arc::new(Entity::new("described", key, fields)?);
    Ok(Binding { entity, role: Role::Truth, place: place.into(), options: Options::default() })
}

/// The first type that the column and every value in it have; else the reason that there is none.
async fn fitting(
    session: &mut Session,
    place: &str,
    name: &str,
    column: &FoundColumn,
    is_json: bool,
) -> Result<std::result::Result<FieldType, String>, Failed> {
    if let Err(error) = check_name(name) {
        return Ok(Err(format!("the name cannot be that of a field: {}", error.message())));
    }
    let mut reason = format!("no type of a field is kept in {}", column.full);
    if column.is_computed {
        return Ok(Err("it is computed from others".into()));
    }
    for ty in candidates(column, is_json) {
        let field = Field::new(name, ty.clone());
        // The key matters to neither test.
        let binding = binding(place, &field, "unisono")?;
        let mut step = Step::look(session, &binding).await?;
        let tried = match step.adopted_form(&field, column) {
            Ok((form, _)) => step.verify(&[(&field, form)]).await,
            Err(error) => Err(error.into()),
        };
        match tried {
            Ok(()) => return Ok(Ok(ty)),
            Err(failed) if failed.error.kind() == ErrorKind::SchemaMismatch => {
                reason = format!("not {ty}: {}", failed.error);
            }
            Err(failed) => return Err(failed),
        }
    }
    Ok(Err(reason))
}

/// What a column can hold, the likeliest first.
fn candidates(column: &FoundColumn, is_json: bool) -> Vec<FieldType> {
    use FieldType::*;
    let digits = u8::try_from(column.scale).unwrap_or_default();
    match column.base.as_str() {
        _ if is_json => vec![Json],
        "json" => vec![Json],
        "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" | "enum" => vec![String],
        "char" => vec![Uuid],
        "tinyint" if column.full.starts_with("tinyint(1)") => vec![Boolean, Integer],
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" => vec![Integer],
        "decimal" if column.precision <= DIGITS_MAX => {
            vec![Decimal {
                precision: u8::try_from(column.precision).unwrap_or_default(),
                scale: digits,
            }]
        }
        "double" => vec![Float],
        "date" => vec![Date],
        "datetime" | "timestamp" => vec![Timestamp { precision: digits }],
        "binary" => vec![Uuid],
        "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => vec![Bytes],
        _ => Vec::new(),
    }
}
